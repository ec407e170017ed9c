import { ops, scope, type Tensor } from '../tensor/index.js'
import { otherRank, requireProbability, requireTensors } from './check.js'
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

/** Zeroes whole channels of inputs of `dims` spatial dimensions, with a batch or without. */
abstract class ChannelDropout extends Dropout {
  protected channels(input: Tensor, dims: number): Tensor {
    const layer = this.constructor.name
    const wrong = otherRank(layer, input, [dims + 1, dims + 2], `[batch, channels, ...] with ${dims} more dimensions`)
    if (wrong) throw wrong
    if (input.ndim !== dims + 1) return ops.featureDropout(input, this.p, this.training)
    return scope(() => ops.featureDropout(input.unsqueeze(0), this.p, this.training).squeeze(0))
  }
}

/** {@link Dropout} of whole channels of [batch, channels, length] or [channels, length]. */
export class Dropout1d extends ChannelDropout {
  override forward(input: Tensor): Tensor {
    return this.channels(input, 1)
  }
}

/** {@link Dropout} of whole channels of [batch, channels, height, width]; or, as in PyTorch, [batch, channels, length]. */
export class Dropout2d extends ChannelDropout {
  override forward(input: Tensor): Tensor {
    requireTensors('Dropout2d', input)
    return this.channels(input, input.ndim === 3 ? 1 : 2)
  }
}

/** {@link Dropout} of whole channels of [batch, channels, depth, height, width] or [channels, depth, height, width]. */
export class Dropout3d extends ChannelDropout {
  override forward(input: Tensor): Tensor {
    return this.channels(input, 3)
  }
}

/** Dropout that keeps mean and variance after a SELU: dropped elements become its lowest value. */
export class AlphaDropout extends Dropout {
  override forward(input: Tensor): Tensor {
    return ops.alphaDropout(input, this.p, this.training)
  }
}

/** {@link AlphaDropout} of whole channels, [batch, channels, ...]. */
export class FeatureAlphaDropout extends Dropout {
  override forward(input: Tensor): Tensor {
    return ops.featureAlphaDropout(input, this.p, this.training)
  }
}
