import { requireOptions } from '../base/check.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { otherRank, requireProbability } from './check.js'
import { Module } from './module.js'

/** While training, zeroes elements with probability `p` and scales the rest by 1 / (1 - p); otherwise does nothing. */
export class Dropout extends Module {
  readonly p: number

  constructor(p = 0.5) {
    super()
    requireProbability(new.target.name, p)
    this.p = p
  }

  override forward(input: Tensor): Tensor {
    return ops.dropout(input, this.p, this.training)
  }
}

/** {@link Dropout} of entire channels of [batch, channels, length] or [channels, length]. */
export class Dropout1d extends Dropout {
  override forward(input: Tensor): Tensor {
    return dropChannels('Dropout1d', input, this.p, this.training)
  }
}

/** {@link Dropout} of entire channels of [batch, channels, height, width]; or, as in PyTorch, [batch, channels, length]. */
export class Dropout2d extends Dropout {
  override forward(input: Tensor): Tensor {
    return dropChannels('Dropout2d', input, this.p, this.training)
  }
}

/** {@link Dropout} of entire channels of [batch, channels, depth, height, width] or [channels, depth, height, width]. */
export class Dropout3d extends Dropout {
  override forward(input: Tensor): Tensor {
    return dropChannels('Dropout3d', input, this.p, this.training)
  }
}

/** Dropout that keeps mean and variance after a SELU: dropped elements become its minimum. */
export class AlphaDropout extends Dropout {
  override forward(input: Tensor): Tensor {
    return ops.alphaDropout(input, this.p, this.training)
  }
}

/** {@link AlphaDropout} of entire channels, [batch, channels, ...]. */
export class FeatureAlphaDropout extends Dropout {
  override forward(input: Tensor): Tensor {
    return ops.featureAlphaDropout(input, this.p, this.training)
  }
}

export interface DropoutOptions {
  /** Whether to drop elements. Default: true; false returns the input. */
  training?: boolean
}

type Drop = (input: Tensor, p: number, train: boolean) => Tensor

function drop(where: string, run: Drop, input: Tensor, p: number, options: DropoutOptions): Tensor {
  requireOptions(where, options, ['training'])
  requireProbability(where, p)
  return run(input, p, options.training ?? true)
}

/** Zero elements with probability `p` and scale the rest by 1 / (1 - p), if `training`. */
export const dropout = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('dropout', ops.dropout, input, p, options)

/** Apply {@link dropout} for the input of SELU: keeps mean and variance (https://arxiv.org/abs/1706.02515). */
export const alphaDropout = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('alphaDropout', ops.alphaDropout, input, p, options)

/** Apply {@link alphaDropout} to entire channels: input [batch, channels, ...]. */
export const featureAlphaDropout = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('featureAlphaDropout', ops.featureAlphaDropout, input, p, options)

/** Apply {@link dropout} to entire channels: input [batch, channels, length] (or [channels, length]). */
export const dropout1d = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('dropout1d', (...values) => dropChannels('dropout1d', ...values), input, p, options)

/**
 * Apply {@link dropout} to entire channels: input [batch, channels, height, width] (or [batch, channels, length], as PyTorch).
 */
export const dropout2d = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('dropout2d', (...values) => dropChannels('dropout2d', ...values), input, p, options)

/** Apply {@link dropout} to entire channels: input [batch, channels, depth, height, width] (or without the batch). */
export const dropout3d = (input: Tensor, p = 0.5, options: DropoutOptions = {}): Tensor =>
  drop('dropout3d', (...values) => dropChannels('dropout3d', ...values), input, p, options)

const CHANNEL_RANKS: Record<string, [number, number]> = { '1': [2, 3], '2': [3, 4], '3': [4, 5] }

/** Drop channels. `where` ends in the number of spatial dimensions and a 'd'. */
function dropChannels(where: string, input: Tensor, p: number, training: boolean): Tensor {
  const ranks = CHANNEL_RANKS[where.at(-2) as string] as [number, number]
  const wrong = otherRank(where, input, ranks, `${ranks.join(' or ')} dimensions`)
  if (wrong) throw wrong
  // In an input of three dimensions, PyTorch's dropout2d takes the first for the batch; the others take it for the channels.
  if (ranks[0] === 3 || input.ndim === ranks[1]) return ops.featureDropout(input, p, training)
  return scope(() => ops.featureDropout(input.unsqueeze(0), p, training).squeeze(0))
}
