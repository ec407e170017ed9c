import { requireBoolean } from '../base/check.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { byPosition } from './by-position.js'
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
  /** Probability of an element to be zeroed. Default: 0.5. */
  p?: number
  /** Whether to drop elements; false returns the input. */
  training?: boolean
  /** Overwrite the input and return it. Default: false. */
  inplace?: boolean
}

type Drop = (input: Tensor, p: number, train: boolean) => Tensor

/** A dropout function, which trains by default or does not, as PyTorch's of that name. */
function dropping(where: string, trains: boolean, apart: Drop, inPlace: Drop) {
  return byPosition(where, ['p', 'training', 'inplace'], (input: Tensor, options: DropoutOptions): Tensor => {
    const { p = 0.5, training = trains, inplace = false } = options
    requireProbability(where, p)
    requireBoolean(where, 'training', training)
    requireBoolean(where, 'inplace', inplace)
    return (inplace ? inPlace : apart)(input, p, training)
  })
}

const droppingChannels = (where: string) =>
  dropping(
    where,
    true,
    (...values) => dropChannels(where, ...values),
    (...values) => dropChannels(where, ...values, ops.featureDropout_),
  )

/** Zero elements with probability `p` and scale the rest by 1 / (1 - p), if `training` (default). */
export const dropout = dropping('dropout', true, ops.dropout, ops.dropout_)

/** Apply {@link dropout} for the input of SELU, if `training` (default false): keeps mean and variance (https://arxiv.org/abs/1706.02515). */
export const alphaDropout = dropping('alphaDropout', false, ops.alphaDropout, ops.alphaDropout_)

/** Apply {@link alphaDropout} to entire channels, if `training` (default false): input [batch, channels, ...]. */
export const featureAlphaDropout = dropping(
  'featureAlphaDropout',
  false,
  ops.featureAlphaDropout,
  ops.featureAlphaDropout_,
)

/** Apply {@link dropout} to entire channels: input [batch, channels, length] (or [channels, length]). */
export const dropout1d = droppingChannels('dropout1d')

/**
 * Apply {@link dropout} to entire channels: input [batch, channels, height, width] (or [batch, channels, length], as PyTorch).
 */
export const dropout2d = droppingChannels('dropout2d')

/** Apply {@link dropout} to entire channels: input [batch, channels, depth, height, width] (or without the batch). */
export const dropout3d = droppingChannels('dropout3d')

const CHANNEL_RANKS: Record<string, [number, number]> = { '1': [2, 3], '2': [3, 4], '3': [4, 5] }

/** Drop channels. `where` ends in the number of spatial dimensions and a 'd'. */
function dropChannels(
  where: string,
  input: Tensor,
  p: number,
  training: boolean,
  run: Drop = ops.featureDropout,
): Tensor {
  const ranks = CHANNEL_RANKS[where.at(-2) as string] as [number, number]
  const wrong = otherRank(where, input, ranks, `${ranks.join(' or ')} dimensions`)
  if (wrong) throw wrong
  // In an input of three dimensions, PyTorch's dropout2d takes the first for the batch; the others take it for the channels.
  if (ranks[0] === 3 || input.ndim === ranks[1]) return run(input, p, training)
  const dropped = scope(() => run(input.unsqueeze(0), p, training).squeeze(0))
  if (run === ops.featureDropout) return dropped
  dropped.dispose()
  return input
}
