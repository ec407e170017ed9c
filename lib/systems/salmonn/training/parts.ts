import { misuse, requireOneOf } from '../../../data/check.js'
import { ConfigError } from '../../../native/errors.js'
import { Module } from '../../../nn/index.js'

/** What SALMONN is made of, as far as training is concerned. */
export type SalmonnPart = 'whisper' | 'beats' | 'qformer' | 'projection' | 'lora' | 'llm'

const PARTS: readonly [RegExp, SalmonnPart][] = [
  [/(^|\.)lora_/, 'lora'],
  [/^(speech_encoder|whisper)\./, 'whisper'],
  [/^beats\./, 'beats'],
  [/^(ln_speech|ln_audio|speech_Qformer)\.|^speech_query_tokens$/, 'qformer'],
  [/^speech_llama_proj\./, 'projection'],
  [/^(llama_model|llm)\./, 'llm'],
]

/** The part that a parameter belongs to, by its published name; undefined for a name of no part. */
export const salmonnPart = (name: string): SalmonnPart | undefined => PARTS.find(([pattern]) => pattern.test(name))?.[1]

/** 1: Q-Former with its norms and queries, and the projection. 2: LoRA with them. */
export type SalmonnStage = 1 | 2

export const SALMONN_STAGES: Readonly<Record<SalmonnStage, readonly SalmonnPart[]>> = {
  1: ['qformer', 'projection'],
  2: ['qformer', 'projection', 'lora'],
}

/**
 * Lets the named parts train and freezes all else.
 * @throws ConfigError where nothing is left to train, or a part is not there
 */
export function trainSalmonnParts(model: Module, parts: readonly SalmonnPart[]): void {
  if (!(model instanceof Module)) throw misuse('trainSalmonnParts', 'model', 'a Module', model)
  for (const part of parts)
    requireOneOf(
      'trainSalmonnParts',
      'a part',
      part,
      PARTS.map(([, name]) => name),
    )
  const missing = new Set(parts)
  for (const [name, parameter] of model.namedParameters()) {
    const part = salmonnPart(name)
    const trains = part !== undefined && parts.includes(part)
    if (trains) missing.delete(part)
    parameter.requiresGrad_(trains)
  }
  if (missing.size === 0 && parts.length > 0) return
  const names = [...missing].join(', ')
  throw new ConfigError(`${model.constructor.name} has nothing to train${names && `: it has no ${names}`}`, { parts })
}

/** Puts children in which nothing trains back into evaluation mode: no dropout, no skipped layers in frozen encoders. */
export function keepFrozenInEval(model: Module): void {
  for (const [, child] of model.namedChildren()) {
    const parameters = child.parameters()
    if (parameters.length > 0 && parameters.every(({ requiresGrad }) => !requiresGrad)) child.eval()
  }
}
