import { ops, type Tensor } from '../tensor/index.js'
import { layerOptions, requireSizes } from './check.js'
import { linear } from './functional.js'
import { kaimingUniform_, uniform_ } from './init.js'
import { adaptersOf, Module } from './module.js'
import { type FactoryOptions, type Parameter, parameter } from './parameter.js'
import { quantizationOf, quantizedLinear } from './quantized-weight.js'

export interface LinearOptions extends FactoryOptions {
  /** Whether the layer has a bias. Default: true. */
  bias?: boolean
}

/** y = x Wᵀ + b. Weight [out, in] and bias [out] are initialized uniformly in ±1/√in. */
export class Linear extends Module {
  readonly inFeatures: number
  readonly outFeatures: number
  weight: Parameter
  bias: Parameter | null

  constructor(inFeatures: number, outFeatures: number, options: LinearOptions = {}) {
    super()
    const { bias = true, ...factory } = layerOptions('Linear', options, 'bias')
    requireSizes('Linear', { inFeatures, outFeatures })
    this.inFeatures = inFeatures
    this.outFeatures = outFeatures
    this.weight = parameter([outFeatures, inFeatures], factory)
    this.bias = bias ? parameter([outFeatures], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    kaimingUniform_(this.weight, { a: Math.sqrt(5) })
    const bound = 1 / Math.sqrt(this.inFeatures)
    if (this.bias) uniform_(this.bias, -bound, bound)
  }

  /** Map [..., in] to [..., out]. */
  override forward(input: Tensor): Tensor {
    const adapted = adaptersOf(this)?.forward(input)
    if (adapted) return adapted
    const packed = quantizationOf(this)
    return packed ? quantizedLinear(input, packed, this.bias) : linear(input, this.weight, this.bias)
  }
}

/** y = x1 A x2 + b. Weight [out, in1, in2] and bias [out] are initialized uniformly in ±1/√in1. */
export class Bilinear extends Module {
  readonly in1Features: number
  readonly in2Features: number
  readonly outFeatures: number
  weight: Parameter
  bias: Parameter | null

  constructor(in1Features: number, in2Features: number, outFeatures: number, options: LinearOptions = {}) {
    super()
    const { bias = true, ...factory } = layerOptions('Bilinear', options, 'bias')
    requireSizes('Bilinear', { in1Features, in2Features, outFeatures })
    this.in1Features = in1Features
    this.in2Features = in2Features
    this.outFeatures = outFeatures
    this.weight = parameter([outFeatures, in1Features, in2Features], factory)
    this.bias = bias ? parameter([outFeatures], factory) : null
    this.resetParameters()
  }

  resetParameters(): void {
    const bound = 1 / Math.sqrt(this.in1Features)
    uniform_(this.weight, -bound, bound)
    if (this.bias) uniform_(this.bias, -bound, bound)
  }

  /** Map [..., in1] and [..., in2] to [..., out]. */
  override forward(x1: Tensor, x2: Tensor): Tensor {
    return ops.bilinear(x1, x2, this.weight, this.bias)
  }
}

/** Returns its input as a new tensor on the same memory. */
export class Identity extends Module {
  override forward(input: Tensor): Tensor {
    // Dropout outside training is the only operator that returns its input for any dtype without adding to the graph.
    return ops.dropout(input, 0, false)
  }
}

/** Flattens the dimensions from `startDim` (default 1) to `endDim` (default -1). */
export class Flatten extends Module {
  readonly startDim: number
  readonly endDim: number

  constructor(startDim = 1, endDim = -1) {
    super()
    this.startDim = startDim
    this.endDim = endDim
  }

  override forward(input: Tensor): Tensor {
    return ops.flatten(input, this.startDim, this.endDim)
  }
}
