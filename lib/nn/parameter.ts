import { requireOptions } from '../base/check.js'
import { DTypeError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { handleOf } from '../native/handle.js'
import { freeWhenForgotten } from '../native/objects.js'
import { type Device, type DType, empty, scope, Tensor } from '../tensor/index.js'
import { isFloating, requireTensors } from './check.js'

export interface FactoryOptions {
  /** Where parameters are made; 'meta' makes shapes only. Default: the default device. */
  device?: Device | undefined
  /** Type of parameters. Default: 'float32'. */
  dtype?: DType | undefined
}

/** Of a network that is made with random weights. */
export interface NetworkOptions extends FactoryOptions {
  /** Of its first weights; what is drawn afterwards is as if they had not been. Default: the default generator goes on. */
  seed?: number | bigint | undefined
}

/** Of a constructor of networks. */
export interface MakeOptions extends NetworkOptions {
  /** False leaves the weights without values, for whoever fills them next. Default true. */
  initialize?: boolean
}

export interface ParameterOptions {
  /** Default: true. */
  requiresGrad?: boolean
}

const adopted: ParameterOptions = {}

/** The parameter that a native network's tensor already is: the same leaf. `tensor` must be owned by a scope. */
export const adopt = (tensor: Tensor): Parameter => new Parameter(tensor, adopted)

/**
 * A tensor that a {@link Module} learns: a leaf that requires a gradient, on the memory of the tensor it is made from.
 *
 * No scope owns it: it may be made inside `scope()` and lives until its module's `dispose()`, its own, or garbage
 * collection.
 */
export class Parameter extends Tensor {
  constructor(data: Tensor, options: ParameterOptions = {}) {
    if (options === adopted) {
      const handle = handleOf(data)
      native.moveHandle(handle, 0)
      super(handle)
      freeWhenForgotten(this)
      return
    }
    requireOptions('Parameter', options, ['requiresGrad'])
    const { requiresGrad = true } = options
    requireTensors('Parameter', data)
    if (requiresGrad && !isFloating(data.dtype)) {
      throw new DTypeError(
        `a parameter that requires a gradient must be floating point or complex, not ${data.dtype}; ` +
          'pass { requiresGrad: false } or convert the tensor',
        { dtype: data.dtype },
      )
    }
    super(unownedHandle(data))
    freeWhenForgotten(this)
    if (requiresGrad) this.requiresGrad = true
  }
}

/** The slab number of a new leaf on `data`'s memory, of which no scope and no other object knows. */
function unownedHandle(data: Tensor): number {
  return scope(() => {
    const handle = handleOf(data.detach())
    native.moveHandle(handle, 0)
    return handle
  })
}

const optimized = new WeakSet<Tensor>()

/** Notes that an optimizer keeps state for a tensor. */
export const setOptimized = (tensor: Tensor): void => void optimized.add(tensor)
/** Whether an optimizer was made for a tensor. */
export const isOptimized = (tensor: Tensor): boolean => optimized.has(tensor)

/** An uninitialized parameter, which the layer's `resetParameters()` then fills. */
export const parameter = (shape: number[], { device, dtype }: FactoryOptions): Parameter =>
  scope(() => new Parameter(empty(shape, { device, dtype })))
