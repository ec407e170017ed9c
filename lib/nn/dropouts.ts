import { requireOptions } from '../base/check.js'
import { ops, type Tensor } from '../tensor/index.js'
import { otherRank, requireProbability } from './check.js'

export interface DropoutOptions {
  /** Default: true; false gives the input back. */
  training?: boolean
}

type Drop = (input: Tensor, p: number, train: boolean) => Tensor

function drop(where: string, run: Drop, input: Tensor, p: number, options: DropoutOptions): Tensor {
  requireOptions(where, options, ['training'])
  requireProbability(where, p)
  return run(input, p, options.training ?? true)
}

/** Zeroes elements with probability `p` and scales the rest by 1 / (1 - p), while `training`. */
export const dropout = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('dropout', ops.dropout, input, p, options)

/** As {@link dropout} for the input of SELU: keeps mean and variance (https://arxiv.org/abs/1706.02515). */
export const alphaDropout = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('alphaDropout', ops.alphaDropout, input, p, options)

/** {@link alphaDropout} of whole channels: input [batch, channels, ...]. */
export const featureAlphaDropout = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('featureAlphaDropout', ops.featureAlphaDropout, input, p, options)

/** {@link dropout} of whole channels: input [batch, channels, length] (or [channels, length]). */
export const dropout1d = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  channels('dropout1d', [2, 3], input, p, options)

/** {@link dropout} of whole channels: input [batch, channels, height, width] (or [batch, channels, length], as PyTorch). */
export const dropout2d = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  channels('dropout2d', [3, 4], input, p, options)

/** {@link dropout} of whole channels: input [batch, channels, depth, height, width] (or without the batch). */
export const dropout3d = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  channels('dropout3d', [4, 5], input, p, options)

function channels(where: string, ranks: number[], input: Tensor, p: number, options: DropoutOptions): Tensor {
  const wrong = otherRank(where, input, ranks, `${ranks.join(' or ')} dimensions`)
  if (wrong) throw wrong
  // Of three dimensions, PyTorch's dropout2d takes the first for the batch; the others take it for the channels.
  if (where === 'dropout2d' || input.ndim === ranks[1]) return drop(where, ops.featureDropout, input, p, options)
  const batched = input.unsqueeze(0)
  const dropped = drop(where, ops.featureDropout, batched, p, options)
  try {
    return dropped.squeeze(0)
  } finally {
    batched.dispose()
    dropped.dispose()
  }
}
