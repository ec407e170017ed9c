import { ConfigError } from '../base/errors.js'
import { ops, type Tensor } from '../tensor/index.js'
import { softmin, softsign, tanhshrink } from './activation-functions.js'
import { layerOptions, requireSettings, requireSizes, setOptions } from './check.js'
import { constant_ } from './init.js'
import { Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'

/** A layer that applies a function to each element. */
type Elementwise = Module & { forward(input: Tensor): Tensor }

const elementwise = (run: (input: Tensor) => Tensor): (new () => Elementwise) =>
  class extends Module {
    override forward(input: Tensor): Tensor {
      return run(input)
    }
  }

/** x Φ(x), exact or by the tanh formula (Hendrycks and Gimpel 2016). */
export class GELU extends Module {
  declare readonly approximate: 'none' | 'tanh'

  constructor(options: { approximate?: 'none' | 'tanh' } = {}) {
    super()
    setOptions(this, options, { approximate: 'none' })
  }

  override forward(input: Tensor): Tensor {
    return ops.gelu(input, { approximate: this.approximate })
  }
}

/** max(x, 0) */
export class ReLU extends elementwise(ops.relu) {}

/** x sigmoid(x) */
export class SiLU extends elementwise(ops.silu) {}

export class Tanh extends elementwise(ops.tanh) {}

export class Sigmoid extends elementwise(ops.sigmoid) {}

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

/** Logarithm of {@link Softmax}. */
export class LogSoftmax extends Softmax {
  override forward(input: Tensor): Tensor {
    return ops.logSoftmax(input, this.dim)
  }
}

/** {@link Softmax} of -x. */
export class Softmin extends Softmax {
  override forward(input: Tensor): Tensor {
    return softmin(input, this.dim)
  }
}

/** {@link Softmax} over the channels of [batch, channels, height, width] or [channels, height, width]. */
export class Softmax2d extends Module {
  override forward(input: Tensor): Tensor {
    return ops.softmax(input, -3)
  }
}

/** Halves `dim` (default -1) into a and b: a sigmoid(b). */
export class GLU extends Module {
  readonly dim: number

  constructor(dim = -1) {
    super()
    this.dim = dim
  }

  override forward(input: Tensor): Tensor {
    return ops.glu(input, this.dim)
  }
}

/** log(sigmoid(x)) */
export class LogSigmoid extends elementwise(ops.logSigmoid) {}

/** x tanh(softplus(x)) (Misra 2019, https://arxiv.org/abs/1908.08681) */
export class Mish extends elementwise(ops.mish) {}

/** min(max(x + 3, 0), 6) / 6 */
export class Hardsigmoid extends elementwise(ops.hardsigmoid) {}

/** x min(max(x + 3, 0), 6) / 6 (https://arxiv.org/abs/1905.02244) */
export class Hardswish extends elementwise(ops.hardswish) {}

/** min(max(x, 0), 6) */
export class ReLU6 extends elementwise(ops.relu6) {}

/** Scaled exponential linear unit (Klambauer et al. 2017, https://arxiv.org/abs/1706.02515) */
export class SELU extends elementwise(ops.selu) {}

/** x / (1 + |x|) */
export class Softsign extends elementwise(softsign) {}

/** x - tanh(x) */
export class Tanhshrink extends elementwise(tanhshrink) {}

/** x where it is positive, else `negativeSlope` x */
export class LeakyReLU extends Module {
  readonly negativeSlope: number

  constructor(negativeSlope = 0.01) {
    super()
    requireSettings('LeakyReLU', { negativeSlope })
    this.negativeSlope = negativeSlope
  }

  override forward(input: Tensor): Tensor {
    return ops.leakyRelu(input, this.negativeSlope)
  }
}

/** x where it is positive, else alpha (exp(x) - 1) (https://arxiv.org/abs/1511.07289) */
export class ELU extends Module {
  readonly alpha: number

  constructor(alpha = 1) {
    super()
    requireSettings('ELU', { alpha })
    this.alpha = alpha
  }

  override forward(input: Tensor): Tensor {
    return ops.elu(input, this.alpha)
  }
}

/** max(0, x) + min(0, alpha (exp(x / alpha) - 1)) (https://arxiv.org/abs/1704.07483) */
export class CELU extends Module {
  readonly alpha: number

  constructor(alpha = 1) {
    super()
    requireSettings('CELU', { alpha })
    this.alpha = alpha
  }

  override forward(input: Tensor): Tensor {
    return ops.celu(input, this.alpha)
  }
}

/** x where |x| > lambd, else 0 */
export class Hardshrink extends Module {
  readonly lambd: number

  constructor(lambd = 0.5) {
    super()
    requireSettings('Hardshrink', { lambd })
    this.lambd = lambd
  }

  override forward(input: Tensor): Tensor {
    return ops.hardshrink(input, this.lambd)
  }
}

/** x shrunk by lambd toward 0: x - lambd above lambd, x + lambd below -lambd, else 0 */
export class Softshrink extends Module {
  readonly lambd: number

  constructor(lambd = 0.5) {
    super()
    requireSettings('Softshrink', { lambd })
    this.lambd = lambd
  }

  override forward(input: Tensor): Tensor {
    return ops.softshrink(input, this.lambd)
  }
}

export interface HardtanhOptions {
  /** Lower bound. Default -1. */
  minVal?: number
  /** Upper bound. Default 1. */
  maxVal?: number
}

/** min(max(x, minVal), maxVal) */
export class Hardtanh extends Module {
  declare readonly minVal: number
  declare readonly maxVal: number

  constructor(options: HardtanhOptions = {}) {
    super()
    setOptions(this, options, { minVal: -1, maxVal: 1 })
    const { minVal, maxVal } = this
    if (!(minVal < maxVal)) throw new ConfigError(`Hardtanh: expected minVal below maxVal ${maxVal}, got ${minVal}`, {})
  }

  override forward(input: Tensor): Tensor {
    return ops.hardtanh(input, this.minVal, this.maxVal)
  }
}

export interface SoftplusOptions {
  /** Factor on x. Default 1. */
  beta?: number
  /** Value of beta x above which the function is the identity. Default 20. */
  threshold?: number
}

/** log(1 + exp(beta x)) / beta, and x itself where beta x > threshold */
export class Softplus extends Module {
  declare readonly beta: number
  declare readonly threshold: number

  constructor(options: SoftplusOptions = {}) {
    super()
    setOptions(this, options, { beta: 1, threshold: 20 })
  }

  override forward(input: Tensor): Tensor {
    return ops.softplus(input, this.beta, this.threshold)
  }
}

/** x where it is above `threshold`, else `value`. */
export class Threshold extends Module {
  readonly threshold: number
  readonly value: number

  constructor(threshold: number, value: number) {
    super()
    requireSettings('Threshold', { threshold, value })
    this.threshold = threshold
    this.value = value
  }

  override forward(input: Tensor): Tensor {
    return ops.threshold(input, this.threshold, this.value)
  }
}

export interface RReLUOptions {
  /** Lower bound of the slope. Default 1 / 8. */
  lower?: number
  /** Upper bound of the slope. Default 1 / 3. */
  upper?: number
}

/** x where it is positive, else x times a slope: in training drawn from [lower, upper], otherwise their mean */
export class RReLU extends Module {
  declare readonly lower: number
  declare readonly upper: number

  constructor(options: RReLUOptions = {}) {
    super()
    setOptions(this, options, { lower: 1 / 8, upper: 1 / 3 })
  }

  override forward(input: Tensor): Tensor {
    return ops.rrelu(input, this.lower, this.upper, this.training)
  }
}

export interface PReLUOptions extends FactoryOptions {
  /** Number of slopes: 1 (default) for all channels, or the number of channels (dimension 1). */
  numParameters?: number
  /** Initial value of the slopes. Default: 0.25. */
  init?: number
}

/** x where it is positive, else x times a slope that is learned (He et al. 2015, https://arxiv.org/abs/1502.01852). */
export class PReLU extends Module {
  readonly numParameters: number
  readonly init: number
  weight: Parameter

  constructor(options: PReLUOptions = {}) {
    super()
    const { numParameters = 1, init = 0.25, ...factory } = layerOptions('PReLU', options, 'numParameters', 'init')
    requireSizes('PReLU', { numParameters })
    requireSettings('PReLU', { init })
    this.numParameters = numParameters
    this.init = init
    this.weight = parameter([numParameters], factory)
    this.resetParameters()
  }

  resetParameters(): void {
    constant_(this.weight, this.init)
  }

  override forward(input: Tensor): Tensor {
    return ops.prelu(input, this.weight)
  }
}
