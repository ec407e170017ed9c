import { requireOptions } from '../data/check.js'
import { ops, type Tensor } from '../tensor/index.js'
import { requireProbability } from './check.js'
import { Module } from './module.js'

/** While training, zeroes elements with probability `p` and scales the rest by 1 / (1 - p); otherwise does nothing. */
export class Dropout extends Module {
  readonly p: number

  constructor(p = 0.5) {
    super()
    requireProbability('Dropout', p)
    this.p = p
  }

  override forward(input: Tensor): Tensor {
    return ops.dropout(input, this.p, this.training)
  }
}

/** x Φ(x), exact or by the tanh formula (Hendrycks and Gimpel 2016). */
export class GELU extends Module {
  readonly approximate: 'none' | 'tanh'

  constructor(options: { approximate?: 'none' | 'tanh' } = {}) {
    super()
    requireOptions('GELU', options, ['approximate'])
    const { approximate = 'none' } = options
    this.approximate = approximate
  }

  override forward(input: Tensor): Tensor {
    return ops.gelu(input, { approximate: this.approximate })
  }
}

/** max(x, 0) */
export class ReLU extends Module {
  override forward(input: Tensor): Tensor {
    return ops.relu(input)
  }
}

/** x sigmoid(x) */
export class SiLU extends Module {
  override forward(input: Tensor): Tensor {
    return ops.silu(input)
  }
}

export class Tanh extends Module {
  override forward(input: Tensor): Tensor {
    return ops.tanh(input)
  }
}

export class Sigmoid extends Module {
  override forward(input: Tensor): Tensor {
    return ops.sigmoid(input)
  }
}

/** Positive numbers that sum to 1 along `dim`. */
export class Softmax extends Module {
  readonly dim: number

  constructor(dim: number) {
    super()
    this.dim = dim
  }

  override forward(input: Tensor): Tensor {
    return ops.softmax(input, this.dim)
  }
}
