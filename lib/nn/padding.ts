import type { Tensor } from '../tensor/index.js'
import { otherRank, requireSettings, sizeList } from './check.js'
import { type PaddingMode, pad } from './functional.js'
import { forDims, Module } from './module.js'

/** Elements before and after each dimension, the last dimension first; one number for all. Negative numbers crop. */
export type Padding = number | number[]

class Pad extends Module {
  readonly padding: number[]
  readonly #dims: number

  constructor(dims: number, padding: Padding) {
    super()
    this.padding = sizeList(new.target.name, 'padding', padding, 2 * dims, Number.MIN_SAFE_INTEGER)
    this.#dims = dims
  }

  protected padded(input: Tensor, mode: PaddingMode, value: number | null = null): Tensor {
    const dims = this.#dims
    const layout = `[batch, channels, ...] with ${dims} more dimensions, or without the batch`
    // Constant padding accepts any number of dimensions.
    const wrong = mode !== 'constant' && otherRank(this.constructor.name, input, [dims + 1, dims + 2], layout)
    if (wrong) throw wrong
    return pad(input, this.padding, { mode, value })
  }
}

class ConstantPad extends Pad {
  readonly value: number

  constructor(dims: number, padding: Padding, value: number) {
    super(dims, padding)
    requireSettings(new.target.name, { value })
    this.value = value
  }

  override forward(input: Tensor): Tensor {
    return this.padded(input, 'constant', this.value)
  }
}

class ZeroPad extends ConstantPad {
  constructor(dims: number, padding: Padding) {
    super(dims, padding, 0)
  }
}

class ReflectionPad extends Pad {
  override forward(input: Tensor): Tensor {
    return this.padded(input, 'reflect')
  }
}

class ReplicationPad extends Pad {
  override forward(input: Tensor): Tensor {
    return this.padded(input, 'replicate')
  }
}

class CircularPad extends Pad {
  override forward(input: Tensor): Tensor {
    return this.padded(input, 'circular')
  }
}

/** Pads the last dimension with `value`. */
export class ConstantPad1d extends forDims(1, ConstantPad) {}

/** Pads the last 2 dimensions with `value`. */
export class ConstantPad2d extends forDims(2, ConstantPad) {}

/** Pads the last 3 dimensions with `value`. */
export class ConstantPad3d extends forDims(3, ConstantPad) {}

/** Pads the last dimension with zeros. */
export class ZeroPad1d extends forDims(1, ZeroPad) {}

/** Pads the last 2 dimensions with zeros. */
export class ZeroPad2d extends forDims(2, ZeroPad) {}

/** Pads the last 3 dimensions with zeros. */
export class ZeroPad3d extends forDims(3, ZeroPad) {}

/** Pads the last dimension with the input mirrored at its ends, which are not repeated. */
export class ReflectionPad1d extends forDims(1, ReflectionPad) {}

/** Pads the last 2 dimensions with the input mirrored at its ends, which are not repeated. */
export class ReflectionPad2d extends forDims(2, ReflectionPad) {}

/** Pads the last 3 dimensions with the input mirrored at its ends, which are not repeated. */
export class ReflectionPad3d extends forDims(3, ReflectionPad) {}

/** Pads the last dimension with the elements at the ends. */
export class ReplicationPad1d extends forDims(1, ReplicationPad) {}

/** Pads the last 2 dimensions with the elements at the ends. */
export class ReplicationPad2d extends forDims(2, ReplicationPad) {}

/** Pads the last 3 dimensions with the elements at the ends. */
export class ReplicationPad3d extends forDims(3, ReplicationPad) {}

/** Pads the last dimension circularly, with the elements of the other end. */
export class CircularPad1d extends forDims(1, CircularPad) {}

/** Pads the last 2 dimensions circularly, with the elements of the other end. */
export class CircularPad2d extends forDims(2, CircularPad) {}

/** Pads the last 3 dimensions circularly, with the elements of the other end. */
export class CircularPad3d extends forDims(3, CircularPad) {}
