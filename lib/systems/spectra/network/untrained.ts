import { ConfigError } from '../../../base/errors.js'

/** Heads that answer somebody. Those of masked tokens and frames only serve pre-training, and are large. */
export const ANSWERING = /^(selection_head|start_prediction_head|end_prediction_head|head)\./

/**
 * @param heads the heads that answer
 * @throws ConfigError naming the tensors of these heads that hold random numbers
 */
export function requireTrained(where: string, model: unknown, heads: readonly string[]): void {
  const untrained = (model as { untrainedHeads?: () => string[] } | null)?.untrainedHeads
  if (typeof untrained !== 'function') return
  // A bias begins with zeros, which training may leave.
  const names = untrained.call(model).filter((name) => heads.some((head) => name.startsWith(`${head}.`)))
  if (!names.some((name) => name.endsWith('.weight'))) return
  throw new ConfigError(
    `${where}: the model was loaded from a file without ${heads.join(', ')}, so ${names.join(', ')} hold random numbers: ` +
      'load one that has them, or train it first',
    { argument: 'model', tensors: names },
  )
}
