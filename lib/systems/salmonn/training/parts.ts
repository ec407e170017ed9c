import { argumentError, requireOneOf } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { Module } from '../../../nn/index.js'
import { SALMONN_PARTS, type SalmonnPart, salmonnPart } from '../network/adapter.js'

/** Training stage. 1: Q-Former with its norms and queries, and the projection. 2: also LoRA. */
export type SalmonnStage = 1 | 2

export const SALMONN_STAGES: Readonly<Record<SalmonnStage, readonly SalmonnPart[]>> = {
  1: ['qformer', 'projection'],
  2: ['qformer', 'projection', 'lora'],
}

/** Whisper's sinusoidal position embeddings, which never train. */
const FIXED = /^speech_encoder\.embed_positions\./

/**
 * Make the named parts trainable, and freeze everything else. As published, encoders and language model are frozen; train those only if they
 * have random weights.
 * @throws ConfigError if nothing is trainable, or a part does not exist
 */
export function trainSalmonnParts(model: Module, parts: readonly SalmonnPart[]): void {
  if (!(model instanceof Module)) throw argumentError('trainSalmonnParts', 'model', 'a Module', model)
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
  throw new ConfigError(
    `trainSalmonnParts.parts: expected parts of ${model.constructor.name} to train, got ${names ? `${names}, which it does not have` : 'none'}.`,
    { parts },
  )
}

/** Set frozen children to evaluation mode, so that they have no dropout and no layer drop. */
export function keepFrozenInEval(model: Module): void {
  if (!(model instanceof Module)) throw argumentError('keepFrozenInEval', 'model', 'a Module', model)
  for (const [, child] of model.namedChildren()) {
    const parameters = child.parameters()
    if (parameters.length > 0 && parameters.every(({ requiresGrad }) => !requiresGrad)) child.eval()
  }
}
