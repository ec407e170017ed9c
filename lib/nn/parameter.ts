import { requireOptions } from '../base/check.js'
import { ConfigError, DTypeError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { handleOf } from '../native/handle.js'
import { freeWhenForgotten } from '../native/objects.js'
import { type Device, type DType, empty, scope, Tensor } from '../tensor/index.js'
import { isFloating, requireTensors } from './check.js'

export interface FactoryOptions {
  /** Device of the parameters; 'meta' creates shapes only. Default: the default device. */
  device?: Device | undefined
  /** Dtype of the parameters. Default: 'float32'. */
  dtype?: DType | undefined
}

/** Options of a network with random weights. */
export interface NetworkOptions extends FactoryOptions {
  /** Seed of the initial weights; later random numbers are as if none had been drawn. Default: continue the default generator. */
  seed?: number | bigint | undefined
}

/** Options of a network's constructor. */
export interface MakeOptions extends NetworkOptions {
  /** False leaves the weights uninitialized, for a caller that fills them next. Default true. */
  initialize?: boolean
}

export interface ParameterOptions {
  /** Whether the parameter requires a gradient. Default: true. */
  requiresGrad?: boolean
}

const adopted: ParameterOptions = {}

/** Return the parameter that a native network's tensor already is: the same leaf. A scope must own `tensor`. */
export const adopt = (tensor: Tensor): Parameter => new Parameter(tensor, adopted)

/**
 * A tensor that a {@link Module} trains: a leaf that requires a gradient, on the memory of the tensor that it is created from.
 *
 * No scope owns it: it may be created inside `scope()` and lives until its module's `dispose()`, its own, or garbage
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
        `Parameter: expected a floating-point or complex tensor, since it requires a gradient, got ${data.dtype}. ` +
          'Pass { requiresGrad: false } or convert the tensor',
        { dtype: data.dtype },
      )
    }
    super(unownedHandle(data))
    freeWhenForgotten(this)
    if (requiresGrad) this.requiresGrad = true
  }
}

const constants = new WeakSet<Tensor>()

/** Freeze a parameter that never trains, such as sinusoidal positions; adapters with `modulesToSave` leave it frozen. @internal */
export function freezeConstant(parameter: Tensor): void {
  constants.add(parameter)
  parameter.requiresGrad = false
}

export const isConstant = (parameter: Tensor): boolean => constants.has(parameter)

/** Return the slab index of a new leaf on `data`'s memory, which no scope and no other object owns. */
function unownedHandle(data: Tensor): number {
  return scope(() => {
    const handle = handleOf(data.detach())
    native.moveHandle(handle, 0)
    return handle
  })
}

const noShape = (what: string): ConfigError =>
  new ConfigError(
    `${what}: expected a tensor with a shape, got one of a lazy layer that is not initialized. Run the network once, or load a state dictionary`,
  )

/** Return a tensor without a shape as one with it, of the same identity, dtype and device. Its elements are not initialized. */
function materialize(tensor: Tensor, shape: readonly number[], type: { prototype: object }): void {
  Object.setPrototypeOf(tensor, type.prototype)
  scope(() => tensor.setData(empty([...shape], { dtype: tensor.dtype, device: tensor.device })))
}

/** A parameter of a lazy layer, whose shape the layer's first input decides. Like `torch.nn.parameter.UninitializedParameter`. */
export class UninitializedParameter extends Parameter {
  constructor({ device, dtype, requiresGrad = true }: FactoryOptions & ParameterOptions = {}) {
    super(empty([0], { device, dtype }), { requiresGrad })
  }

  /** Give it a shape. From then on it is a {@link Parameter} whose elements are not initialized. */
  materialize(shape: readonly number[]): void {
    materialize(this, shape, Parameter)
  }

  /** @throws ConfigError, since it has none yet */
  override get shape(): number[] {
    throw noShape('UninitializedParameter')
  }
}

/** A buffer of a lazy layer, whose shape the layer's first input decides. Like `torch.nn.parameter.UninitializedBuffer`. */
export class UninitializedBuffer extends Tensor {
  constructor({ device, dtype }: FactoryOptions = {}) {
    super(unownedHandle(empty([0], { device, dtype })))
    freeWhenForgotten(this)
  }

  /** Give it a shape. From then on it is a plain tensor whose elements are not initialized. */
  materialize(shape: readonly number[]): void {
    materialize(this, shape, Tensor)
  }

  /** @throws ConfigError, since it has none yet */
  override get shape(): number[] {
    throw noShape('UninitializedBuffer')
  }
}

/** Return whether a tensor waits for its shape. */
export const isUninitialized = (tensor: unknown): tensor is UninitializedParameter | UninitializedBuffer =>
  tensor instanceof UninitializedParameter || tensor instanceof UninitializedBuffer

const optimized = new WeakSet<Tensor>()

/** Record that an optimizer keeps state for a tensor. */
export const setOptimized = (tensor: Tensor): void => void optimized.add(tensor)
/** Return whether an optimizer was created for a tensor. */
export const isOptimized = (tensor: Tensor): boolean => optimized.has(tensor)

/** Return an uninitialized parameter, which the layer's `resetParameters()` then fills. */
export const parameter = (shape: number[], { device, dtype }: FactoryOptions): Parameter =>
  scope(() => new Parameter(empty(shape, { device, dtype })))
