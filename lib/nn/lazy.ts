import { requireRecord } from '../base/arguments.js'
import { fieldOf } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { scope, type Tensor, zeros } from '../tensor/index.js'
import {
  BatchNorm1d,
  BatchNorm2d,
  BatchNorm3d,
  type BatchNormOptions,
  InstanceNorm1d,
  InstanceNorm2d,
  InstanceNorm3d,
  type InstanceNormOptions,
} from './batch-norm.js'
import { otherRank, requireTensors } from './check.js'
import { Conv1d, Conv2d, Conv3d, type ConvLayerOptions } from './conv.js'
import { ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, type ConvTransposeOptions } from './conv-transpose.js'
import { Linear, type LinearOptions } from './linear.js'
import type { Module } from './module.js'
import { type FactoryOptions, isUninitialized, UninitializedBuffer, UninitializedParameter } from './parameter.js'

/** A layer that a lazy one becomes. */
type LayerClass = { readonly prototype: Module; readonly name: string }

interface Recipe {
  /** Class that the layer becomes at its first forward pass. */
  becomes: LayerClass
  /** Fields whose value is the input's size, by name. */
  size: string
  /** Return that size of an input. */
  sizeOf(input: Tensor): number
  /** Return that size, where a tensor that was loaded decides it. */
  sizeFrom(name: string, shape: readonly number[]): number | undefined
  /** Return the shape of a tensor for a size. */
  shapeOf(name: string, size: number): number[]
}

const recipes = new WeakMap<Module, Recipe>()

/** Replace a layer's parameters and buffers by ones without a shape. */
function makeLazy(layer: Module, tensors: readonly string[], factory: FactoryOptions, recipe: Recipe): void {
  recipes.set(layer, recipe)
  Reflect.set(layer, recipe.size, 0)
  for (const name of tensors) {
    const before: unknown = Reflect.get(layer, name)
    if (before === null || before === undefined) continue
    ;(before as Tensor).dispose()
    const options = { device: factory.device, dtype: factory.dtype }
    scope(() => {
      if (name.startsWith('running_')) layer.registerBuffer(name, new UninitializedBuffer(options))
      else Reflect.set(layer, name, new UninitializedParameter(options))
    })
  }
  // A state dictionary has the shapes too.
  const remove = layer.registerLoadStateDictPreHook((_, state, prefix) => {
    for (const name of tensors) {
      const tensor: unknown = Reflect.get(layer, name)
      const key = `${prefix}${name}`
      if (!isUninitialized(tensor) || !Object.hasOwn(state, key)) continue
      const { shape } = state[key] as Tensor
      tensor.materialize(shape)
      const size = recipe.sizeFrom(name, shape)
      if (size !== undefined) Reflect.set(layer, recipe.size, size)
    }
    if (tensors.every((name) => !isUninitialized(Reflect.get(layer, name)))) remove()
  })
}

/** Before a forward pass: initialize a lazy layer for its input, and make it the layer that it stands for. */
function settle(layer: Module, input: Tensor): void {
  const recipe = recipes.get(layer)
  if (!recipe) return
  const open = Object.entries(layer).filter(([, tensor]) => isUninitialized(tensor))
  if (open.length > 0) {
    requireTensors(recipe.becomes.name, input)
    const size = recipe.sizeOf(input)
    for (const [name, tensor] of open as [string, UninitializedParameter][])
      tensor.materialize(recipe.shapeOf(name, size))
    Reflect.set(layer, recipe.size, size)
    ;(layer as Module & { resetParameters(): void }).resetParameters()
  }
  recipes.delete(layer)
  Object.setPrototypeOf(layer, recipe.becomes.prototype)
}

/** Return a subclass whose layers settle in their first forward pass. */
const lazy = <A extends unknown[], M extends Module>(Layer: new (...args: A) => M): (new (...args: A) => M) =>
  class extends (Layer as unknown as new (...args: unknown[]) => Module) {
    override forward(...args: never[]): unknown {
      settle(this, args[0] as unknown as Tensor)
      return super.forward(...args)
    }
  } as never

/** Return the options with the meta device, where a layer takes no memory before its shape is known. */
function onMeta<O extends object>(layer: string, options: O): O & { device: 'meta' } {
  requireRecord(layer, options)
  return { ...options, device: 'meta' }
}

/**
 * {@link Linear} whose input size is that of its first input. Until then its parameters have no shape: create the optimizer after
 * the first forward pass, or after `loadStateDict`. Afterwards it is a Linear.
 */
export class LazyLinear extends lazy(Linear) {
  constructor(outFeatures: number, options: LinearOptions = {}) {
    super(1, outFeatures, onMeta('LazyLinear', options))
    makeLazy(this, ['weight', 'bias'], options, {
      becomes: Linear,
      size: 'inFeatures',
      sizeOf: (input) => input.size(-1),
      sizeFrom: (name, shape) => (name === 'weight' ? shape[1] : undefined),
      shapeOf: (name, size) => (name === 'weight' ? [outFeatures, size] : [outFeatures]),
    })
  }
}

type AnyConvolution = Module & {
  inChannels: number
  outChannels: number
  groups: number
  kernelSize: number[]
}

/** Make a convolution lazy: `transposed` has its weight [in, out / groups, ...], others [out, in / groups, ...]. */
function lazyConvolution(
  layer: AnyConvolution,
  becomes: LayerClass,
  factory: FactoryOptions,
  transposed: boolean,
): void {
  const { outChannels, groups, kernelSize } = layer
  const dims = kernelSize.length
  makeLazy(layer, ['weight', 'bias'], factory, {
    becomes,
    size: 'inChannels',
    sizeOf: (input) => {
      const wrong = otherRank(
        becomes.name,
        input,
        [dims + 1, dims + 2],
        `[batch, channels, ...] with ${dims} more dimensions`,
      )
      if (wrong) throw wrong
      const channels = input.size(-dims - 1)
      if (channels % groups === 0) return channels
      throw new ConfigError(
        `${becomes.name}: expected a multiple of groups ${groups} as channels of the input, got ${channels}`,
      )
    },
    sizeFrom: (name, shape) =>
      name === 'weight' ? (transposed ? shape[0] : (shape[1] as number) * groups) : undefined,
    shapeOf: (name, size) => {
      if (name === 'bias') return [outChannels]
      const sizes = transposed ? [size, outChannels / groups] : [outChannels, size / groups]
      return [...sizes, ...kernelSize]
    },
  })
}

/** Channels that satisfy every check of a convolution before the input is known. */
const anyChannels = (options: { groups?: number }): number => (fieldOf(options, 'groups') as number | undefined) ?? 1

/** {@link Conv1d} whose input channels are those of its first input; see {@link LazyLinear}. */
export class LazyConv1d extends lazy(Conv1d) {
  constructor(outChannels: number, kernelSize: number | number[], options: ConvLayerOptions = {}) {
    super(anyChannels(options), outChannels, kernelSize, onMeta('LazyConv1d', options))
    lazyConvolution(this, Conv1d, options, false)
  }
}

/** {@link Conv2d} whose input channels are those of its first input; see {@link LazyLinear}. */
export class LazyConv2d extends lazy(Conv2d) {
  constructor(outChannels: number, kernelSize: number | number[], options: ConvLayerOptions = {}) {
    super(anyChannels(options), outChannels, kernelSize, onMeta('LazyConv2d', options))
    lazyConvolution(this, Conv2d, options, false)
  }
}

/** {@link Conv3d} whose input channels are those of its first input; see {@link LazyLinear}. */
export class LazyConv3d extends lazy(Conv3d) {
  constructor(outChannels: number, kernelSize: number | number[], options: ConvLayerOptions = {}) {
    super(anyChannels(options), outChannels, kernelSize, onMeta('LazyConv3d', options))
    lazyConvolution(this, Conv3d, options, false)
  }
}

/** {@link ConvTranspose1d} whose input channels are those of its first input; see {@link LazyLinear}. */
export class LazyConvTranspose1d extends lazy(ConvTranspose1d) {
  constructor(outChannels: number, kernelSize: number | number[], options: ConvTransposeOptions = {}) {
    super(anyChannels(options), outChannels, kernelSize, onMeta('LazyConvTranspose1d', options))
    lazyConvolution(this, ConvTranspose1d, options, true)
  }
}

/** {@link ConvTranspose2d} whose input channels are those of its first input; see {@link LazyLinear}. */
export class LazyConvTranspose2d extends lazy(ConvTranspose2d) {
  constructor(outChannels: number, kernelSize: number | number[], options: ConvTransposeOptions = {}) {
    super(anyChannels(options), outChannels, kernelSize, onMeta('LazyConvTranspose2d', options))
    lazyConvolution(this, ConvTranspose2d, options, true)
  }
}

/** {@link ConvTranspose3d} whose input channels are those of its first input; see {@link LazyLinear}. */
export class LazyConvTranspose3d extends lazy(ConvTranspose3d) {
  constructor(outChannels: number, kernelSize: number | number[], options: ConvTransposeOptions = {}) {
    super(anyChannels(options), outChannels, kernelSize, onMeta('LazyConvTranspose3d', options))
    lazyConvolution(this, ConvTranspose3d, options, true)
  }
}

/** Make a normalization with running statistics lazy. */
function lazyNorm(
  layer: Module,
  becomes: LayerClass,
  factory: FactoryOptions,
  channelsOf: (input: Tensor) => number,
): void {
  const { device } = factory
  const counter = Reflect.get(layer, 'num_batches_tracked') as Tensor | null | undefined
  if (counter) {
    counter.dispose()
    layer.registerBuffer('num_batches_tracked', zeros([], { device, dtype: 'int64' }))
  }
  makeLazy(layer, ['weight', 'bias', 'running_mean', 'running_var'], factory, {
    becomes,
    size: 'numFeatures',
    sizeOf: channelsOf,
    sizeFrom: (_, shape) => shape[0],
    shapeOf: (_, size) => [size],
  })
}

/** {@link BatchNorm1d} whose channels are those of its first input; see {@link LazyLinear}. */
export class LazyBatchNorm1d extends lazy(BatchNorm1d) {
  constructor(options: BatchNormOptions = {}) {
    super(1, onMeta('LazyBatchNorm1d', options))
    lazyNorm(this, BatchNorm1d, options, (input) => input.size(1))
  }
}

/** {@link BatchNorm2d} whose channels are those of its first input; see {@link LazyLinear}. */
export class LazyBatchNorm2d extends lazy(BatchNorm2d) {
  constructor(options: BatchNormOptions = {}) {
    super(1, onMeta('LazyBatchNorm2d', options))
    lazyNorm(this, BatchNorm2d, options, (input) => input.size(1))
  }
}

/** {@link BatchNorm3d} whose channels are those of its first input; see {@link LazyLinear}. */
export class LazyBatchNorm3d extends lazy(BatchNorm3d) {
  constructor(options: BatchNormOptions = {}) {
    super(1, onMeta('LazyBatchNorm3d', options))
    lazyNorm(this, BatchNorm3d, options, (input) => input.size(1))
  }
}

/**
 * {@link InstanceNorm1d} whose channels are those of its first input; see {@link LazyLinear}. As in PyTorch, `affine` and
 * `trackRunningStats` are true by default here.
 */
export class LazyInstanceNorm1d extends lazy(InstanceNorm1d) {
  constructor(options: InstanceNormOptions = {}) {
    super(1, { affine: true, trackRunningStats: true, ...onMeta('LazyInstanceNorm1d', options) })
    lazyNorm(this, InstanceNorm1d, options, (input) => input.size(-2))
  }
}

/**
 * {@link InstanceNorm2d} whose channels are those of its first input; see {@link LazyLinear}. As in PyTorch, `affine` and
 * `trackRunningStats` are true by default here.
 */
export class LazyInstanceNorm2d extends lazy(InstanceNorm2d) {
  constructor(options: InstanceNormOptions = {}) {
    super(1, { affine: true, trackRunningStats: true, ...onMeta('LazyInstanceNorm2d', options) })
    lazyNorm(this, InstanceNorm2d, options, (input) => input.size(-3))
  }
}

/**
 * {@link InstanceNorm3d} whose channels are those of its first input; see {@link LazyLinear}. As in PyTorch, `affine` and
 * `trackRunningStats` are true by default here.
 */
export class LazyInstanceNorm3d extends lazy(InstanceNorm3d) {
  constructor(options: InstanceNormOptions = {}) {
    super(1, { affine: true, trackRunningStats: true, ...onMeta('LazyInstanceNorm3d', options) })
    lazyNorm(this, InstanceNorm3d, options, (input) => input.size(-4))
  }
}
