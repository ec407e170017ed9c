import { ConfigError } from '../../../base/errors.js'

/** Heads that are used for predictions. Those of masked tokens and frames only serve pre-training, and are large. */
export const PREDICTION_HEADS = /^(selection_head|start_prediction_head|end_prediction_head|head)\./

/**
 * @param heads the heads that the caller uses
 * @throws ConfigError naming the untrained tensors of these heads
 */
export function requireTrained(where: string, model: unknown, heads: readonly string[]): void {
  const untrained = (model as { untrainedHeads?: () => string[] } | null)?.untrainedHeads
  if (typeof untrained !== 'function') return
  // A bias starts as zeros, and may stay zero in training.
  const names = untrained.call(model).filter((name) => heads.some((head) => name.startsWith(`${head}.`)))
  if (!names.some((name) => name.endsWith('.weight'))) return
  throw new ConfigError(
    `${where}: expected trained heads ${heads.join(', ')}, got random values in ${names.join(', ')}, which the model's file lacks. Load a model with these heads, or train it first.`,
    { argument: 'model', tensors: names },
  )
}
