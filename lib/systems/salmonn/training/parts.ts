import { misuse, requireOneOf } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { Module } from '../../../nn/index.js'
import { SALMONN_PARTS, type SalmonnPart, salmonnPart } from '../network/adapter.js'

/** 1: Q-Former with its norms and queries, and the projection. 2: LoRA with them. */
export type SalmonnStage = 1 | 2

export const SALMONN_STAGES: Readonly<Record<SalmonnStage, readonly SalmonnPart[]>> = {
  1: ['qformer', 'projection'],
  2: ['qformer', 'projection', 'lora'],
}

/** Whisper's sines and cosines, which never train. */
const FIXED = /^speech_encoder\.embed_positions\./

/**
 * Lets the named parts train and freezes all else. As published, encoders and language model are frozen; to train those too
 * is for networks that begin with random weights.
 * @throws ConfigError where nothing is left to train, or a part is not there
 */
export function trainSalmonnParts(model: Module, parts: readonly SalmonnPart[]): void {
  if (!(model instanceof Module)) throw misuse('trainSalmonnParts', 'model', 'a Module', model)
  for (const part of parts) requireOneOf('trainSalmonnParts', 'a part', part, SALMONN_PARTS)
  const missing = new Set(parts)
  for (const [name, parameter] of model.namedParameters()) {
    const part = salmonnPart(name)
    const trains = part !== undefined && parts.includes(part) && !FIXED.test(name)
    if (trains) missing.delete(part)
    parameter.requiresGrad_(trains)
  }
  if (missing.size === 0 && parts.length > 0) return
  const names = [...missing].join(', ')
  throw new ConfigError(`${model.constructor.name} has nothing to train${names && `: it has no ${names}`}`, { parts })
}

/** Puts children in which nothing trains back into evaluation mode: no dropout, no skipped layers in frozen encoders. */
export function keepFrozenInEval(model: Module): void {
  if (!(model instanceof Module)) throw misuse('keepFrozenInEval', 'model', 'a Module', model)
  for (const [, child] of model.namedChildren()) {
    const parameters = child.parameters()
    if (parameters.length > 0 && parameters.every(({ requiresGrad }) => !requiresGrad)) child.eval()
  }
}
