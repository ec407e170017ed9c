import { createHash } from 'node:crypto'
import { asTyped, optionsOf, shown } from '../base/arguments.js'
import { ConfigError, DeviceError, DTypeError, GradientError, IndexError, ShapeError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { callNative, op, readNumbers } from '../native/call.js'
import { type Callback, registerCallback } from '../native/callbacks.js'
import { GRAD, INFERENCE, runInContext } from '../native/context.js'
import { type Complex, put, putEllipsis, Slice } from '../native/encode.js'
import { registerArgumentMistake } from '../native/failure.js'
import type { MemoryFormat, TensorOperators } from '../native/generated/operators.js'
import { Handle, handleOf, isHandle } from '../native/handle.js'
import { queueNative } from '../native/jobs.js'
import { registerTensorClass } from '../native/objects.js'
import {
  type Device,
  type DType,
  deviceName,
  dtypeFacts,
  dtypeName,
  placementError,
  type TypedArray,
  targetOf,
} from './dtype.js'
import { renewIdentity } from './identity.js'

/** One element as a JavaScript value. */
export type Scalar = number | bigint | boolean | Complex
/** Elements nested as deep as the tensor has dimensions. */
export type NestedArray = Scalar | NestedArray[]
/** Index for one dimension in `at` and `setAt`. */
export type Index = number | bigint | boolean | Slice | Tensor | readonly number[] | null | '...'

const BACKWARD: readonly (keyof BackwardOptions)[] = ['gradient', 'retainGraph', 'createGraph', 'inputs']

export interface BackwardOptions {
  /** Gradient of the tensor itself; may be left out for a tensor with one element. */
  gradient?: Tensor
  /** Keep the graph for another backward pass. Default: `createGraph`. */
  retainGraph?: boolean
  /** Record the backward pass itself, for higher-order gradients. */
  createGraph?: boolean
  /** Accumulate into these leaves only. */
  inputs?: readonly Tensor[]
}

export interface ToOptions {
  dtype?: DType
  device?: Device
  /** Always make a copy. */
  copy?: boolean
  /** Do not wait for copies between pinned memory and a CUDA device. */
  nonBlocking?: boolean
  memoryFormat?: MemoryFormat
}

const item = op('aten::item')
const whereOp = op('aten::where')
const reversed = op('aten::numpy_T')
const swapped = op('aten::mT')
const adjoint = op('aten::adjoint')
const resolved = op('aten::conj')
const expand = op('aten::expand')
const copyInto = op('aten::copy_')
const moved = op('aten::to')
const convert = op('aten::to')
const flags = (tensor: Tensor, index: number): number => readNumbers(native.facts, () => put(tensor))[index]!

export interface Tensor extends TensorOperators {}

/**
 * An n-dimensional array in native memory, like PyTorch's. Operators have ATen's names in camelCase and run synchronously on
 * the calling thread; those that run on the executor return a promise.
 *
 * Tensors created inside a {@link scope} are freed at its end, others when they are disposed or garbage collected.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: see above.
export class Tensor extends Handle {
  /** False for any proxy. Reading the prototype of a revoked one would throw a TypeError. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    const isObject = typeof value === 'object' && value !== null
    // biome-ignore lint/complexity/noThisInStatic: the subclass.
    return isObject && isHandle(value) && Function.prototype[Symbol.hasInstance].call(this, value)
  }

  /** The size of each dimension. */
  get shape(): number[] {
    const facts = readNumbers(native.facts, () => put(this))
    const dims = facts[6]!
    const shape: number[] = new Array(dims)
    for (let i = 0; i < dims; i += 1) shape[i] = facts[7 + i]!
    return shape
  }

  /** Number of elements between neighbors in each dimension. */
  get strides(): number[] {
    const facts = readNumbers(native.facts, () => put(this))
    const dims = facts[6]!
    return Array.from(facts.subarray(7 + dims, 7 + 2 * dims))
  }

  get ndim(): number {
    return flags(this, 6)
  }

  get dtype(): DType {
    return dtypeName(flags(this, 0))
  }

  get device(): Device {
    const facts = readNumbers(native.facts, () => put(this))
    return deviceName(facts[1]!, facts[2]!)
  }

  /** Return the number of dimensions, like `ndim`. */
  dim(): number {
    return this.ndim
  }

  /** Return the shape, or the size of one dimension; negative dimensions count from the end. */
  size(): number[]
  size(dim: number): number
  size(dim?: number): number | number[] {
    const { shape } = this
    if (dim === undefined) return shape
    const size = Number.isInteger(dim) ? shape.at(dim) : undefined
    if (size === undefined || dim < -shape.length) {
      throw new IndexError(`size: expected a dimension of a tensor of ${shape.length} dimensions, got ${String(dim)}`, {
        dim,
      })
    }
    return size
  }

  /** Return the number of elements. */
  numel(): number {
    const facts = readNumbers(native.facts, () => put(this))
    const dims = facts[6]!
    let count = 1
    for (let i = 0; i < dims; i += 1) count *= facts[7 + i]!
    return count
  }

  /** Return whether the elements lie in row-major order without gaps. */
  isContiguous(): boolean {
    return flags(this, 5) !== 0
  }

  /** Whether gradients are recorded for this tensor. */
  get requiresGrad(): boolean {
    return flags(this, 3) !== 0
  }

  set requiresGrad(value: boolean) {
    this.requiresGrad_(value)
  }

  /** Whether no recorded operator created this tensor: only leaves get a `grad` automatically. */
  get isLeaf(): boolean {
    return flags(this, 4) !== 0
  }

  /** Accumulated gradient. Each read returns a new handle on the same memory. Throws BusyError during backward. */
  get grad(): Tensor | null {
    return callNative(native.gradient, () => put(this), true) as Tensor | null
  }

  set grad(value: Tensor | null) {
    callNative(
      native.setGradient,
      () => {
        put(this)
        put(value)
      },
      false,
    )
  }

  /** Name of the recorded function that created this tensor, such as `'AddBackward0'`. */
  get gradFn(): string | null {
    return callNative(native.gradFnName, () => put(this), true) as string | null
  }

  /** Whether this object was disposed. */
  get disposed(): boolean {
    return !native.isLive(handleOf(this))
  }

  /** Free this object's hold on the memory. May be called twice; any other use afterwards throws DisposedError. */
  dispose(): void {
    native.release(handleOf(this))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /**
   * Return the only element of a tensor with one element. On CUDA it waits for the device. The type is number by default; pass
   * it otherwise: `item<boolean>()` for a bool tensor, `item<Complex>()`, and `item<number | bigint>()` if an int64 may exceed
   * 2^53, which is returned as bigint.
   */
  item<T extends Scalar = number>(): T {
    if (this.dtype === 'uint64' && this.numel() === 1) return elements(this.dataSync(), 'uint64')[0] as T
    return item(this) as T
  }

  /** Return all elements as nested arrays: int64 as numbers (bigint beyond 2^53), complex as `{ re, im }`. */
  toArray(): NestedArray {
    const { shape, dtype } = this
    let count = 1
    for (const size of shape) {
      // Check the intermediate products too: [2^40, 0] has no elements, but 2^40 empty arrays.
      count *= size
      if (count > MOST_ELEMENTS)
        throw new ConfigError(
          `toArray: expected a tensor that fits in nested arrays, got shape [${shape}]. Use data() for a typed array`,
          { shape },
        )
    }
    return nest(elements(this.dataSync(), dtype), shape)
  }

  /** Return all elements in row-major order, read on the executor: does not block the event loop. */
  async data(): Promise<TypedArray> {
    const source = readableOf(this)
    try {
      const copy = (await queueNative(native.readQueued, source)) as Tensor
      try {
        return view(bytesOf(copy), copy.dtype)
      } finally {
        copy.dispose()
      }
    } finally {
      if (source !== this) source.dispose()
    }
  }

  /** Return all elements in row-major order, synchronously. On CUDA it waits for the device. */
  dataSync(): TypedArray {
    const source = readableOf(this)
    try {
      return view(bytesOf(source), source.dtype)
    } finally {
      if (source !== this) source.dispose()
    }
  }

  /**
   * Return a view or copy by index, one index per dimension: a number, a {@link slice}, `null` for a new axis, `'...'` for all
   * dimensions between, a boolean mask, or an index tensor or array. Plain numbers and slices return views.
   *
   * `x.at(0, slice(1, 5), null, mask)` is Python's `x[0, 1:5, None, mask]`, and `x.at()` its `x[()]`: a view of all.
   */
  at(...indices: Index[]): Tensor {
    const temporaries: Tensor[] = []
    try {
      return callNative(
        native.getItem,
        () => {
          put(this)
          putIndices(indices.length === 0 ? ['...'] : indices, temporaries)
        },
        true,
      ) as Tensor
    } finally {
      for (const tensor of temporaries) tensor.dispose()
    }
  }

  /** Set the elements that `at` would return: `x.setAt([0, slice(1, 5)], 7)` is Python's `x[0, 1:5] = 7`. */
  setAt(indices: readonly Index[], value: Tensor | Scalar): this {
    if (!isArray(indices)) throw new ConfigError(`setAt: expected an array of indices, got ${shown(indices)}`)
    const temporaries: Tensor[] = []
    try {
      callNative(
        native.setItem,
        () => {
          put(this)
          put(value)
          putIndices(indices.length === 0 ? ['...'] : indices, temporaries)
        },
        false,
      )
    } finally {
      for (const tensor of temporaries) tensor.dispose()
    }
    return this
  }

  /** Use another tensor's memory, dtype and device; optimizers and graphs keep this object. */
  setData(source: Tensor): this {
    callNative(
      native.setData,
      () => {
        put(this)
        put(source)
      },
      false,
    )
    renewIdentity(this)
    return this
  }

  /**
   * Compute the gradients of all leaves that this tensor depends on and add them to their `grad`. Runs on the executor. A tensor in
   * place of the options is `gradient`, as in PyTorch.
   * @throws GradientError if nothing was recorded, or an earlier pass freed the graph
   */
  async backward(options: BackwardOptions | Tensor = {}): Promise<void> {
    const {
      gradient = null,
      retainGraph = null,
      createGraph = false,
      inputs = [],
    } = options instanceof Tensor ? { gradient: options } : optionsOf(options, 'backward', BACKWARD)
    for (const [name, value] of Object.entries({ retainGraph: retainGraph ?? false, createGraph })) {
      if (typeof value !== 'boolean')
        throw new ConfigError(`backward: expected ${name} to be true or false, got ${shown(value)}`)
    }
    await queueNative(native.backwardQueued, [this], [gradient], inputs, retainGraph, createGraph, true, false)
  }

  /** Keep the gradient of a tensor that is not a leaf. */
  retainGrad(): this {
    retainGrad(this)
    return this
  }

  /**
   * Call `hook` with each gradient of this tensor during backward; a result other than undefined replaces the gradient. The
   * hook must be synchronous. Returns a function that removes it.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: most hooks return nothing
  registerHook(hook: (gradient: Tensor) => Tensor | undefined | void): () => void {
    if (typeof hook !== 'function') throw new ConfigError(`registerHook: expected a function, got ${typeof hook}`)
    const state = { active: true }
    const id = registerCallback(hookCallback(hook, state))
    const position = callNative(
      native.registerHook,
      () => {
        put(this)
        put(id)
      },
      true,
    )
    return () => {
      state.active = false
      if (this.disposed) return
      callNative(
        native.removeHook,
        () => {
          put(this)
          put(position)
        },
        false,
      )
    }
  }

  /**
   * Call `hook` with this parameter each time that a backward pass has added to its `grad`. The hook may read, change or clear
   * `grad` and change the parameter in place, so that an update needs no second copy of all gradients. It must be synchronous;
   * an `optimizer.step()` that it calls runs after the pass. Returns a function that removes it.
   * @throws GradientError if this tensor is not a leaf that requires a gradient
   */
  registerPostAccumulateGradHook(hook: (parameter: this) => void): () => void {
    if (typeof hook !== 'function') {
      throw new ConfigError(`registerPostAccumulateGradHook: expected a function, got ${shown(hook)}`)
    }
    if (!this.requiresGrad || !this.isLeaf) {
      throw new GradientError(
        'registerPostAccumulateGradHook: expected a leaf that requires a gradient, got another tensor. Use registerHook() for the gradient of a result',
      )
    }
    const id = registerCallback(accumulateCallback(new WeakRef<Tensor>(this), hook as (parameter: Tensor) => void))
    const write = (number: unknown) => () => {
      put(this)
      put(number)
    }
    const position = callNative(native.registerAccumulateHook, write(id), true)
    return () => {
      if (!this.disposed) callNative(native.removeAccumulateHook, write(position), false)
    }
  }

  /**
   * Return this tensor in another dtype, on another device, or both: `x.to('float16')`, `x.to('cuda')`, `x.to({ device: 'cuda',
   * dtype: 'bfloat16' })`, `x.to(other)`. Shares the memory if nothing changes, unless `copy` is set.
   * @throws DeviceError if the device does not exist
   */
  to(target: DType | Device | Tensor | ToOptions, options: { copy?: boolean; nonBlocking?: boolean } = {}): Tensor {
    if (isTensor(target)) return moved(this, target, options) as Tensor
    let all: ToOptions
    try {
      all = { ...(typeof target === 'string' ? targetOf(target) : target), ...options }
    } catch (error) {
      throw asTyped('to', error)
    }
    return moved(this, all) as Tensor
  }

  /** Return this tensor where `condition` holds, and `other` elsewhere. */
  where(condition: Tensor, other: Tensor | Scalar): Tensor {
    return whereOp(condition, this, other) as Tensor
  }

  /** Transpose of a matrix (all dimensions reversed). */
  get T(): Tensor {
    return reversed(this) as Tensor
  }

  /** Tensor with the last two dimensions swapped. */
  get mT(): Tensor {
    return swapped(this) as Tensor
  }

  /** Convert to float32. */
  float(): Tensor {
    return convert(this, 'float32') as Tensor
  }

  /** Convert to float64. */
  double(): Tensor {
    return convert(this, 'float64') as Tensor
  }

  /** Convert to float16. */
  half(): Tensor {
    return convert(this, 'float16') as Tensor
  }

  bfloat16(): Tensor {
    return convert(this, 'bfloat16') as Tensor
  }

  /** Convert to int64. */
  long(): Tensor {
    return convert(this, 'int64') as Tensor
  }

  /** Convert to int32. */
  int(): Tensor {
    return convert(this, 'int32') as Tensor
  }

  bool(): Tensor {
    return convert(this, 'bool') as Tensor
  }

  cpu(): Tensor {
    return moved(this, { device: 'cpu' }) as Tensor
  }

  /** Move to an NVIDIA device. Throws DeviceError if it does not exist. */
  cuda(index = 0): Tensor {
    if (!Number.isInteger(index)) throw new ConfigError(`cuda: expected the index of a device, got ${shown(index)}`)
    return moved(this, { device: `cuda:${index}` }) as Tensor
  }

  /** Convert to uint8. */
  byte(): Tensor {
    return convert(this, 'uint8') as Tensor
  }

  /** Convert to int8. */
  char(): Tensor {
    return convert(this, 'int8') as Tensor
  }

  /** Convert to int16. */
  short(): Tensor {
    return convert(this, 'int16') as Tensor
  }

  /** Convert to complex64. */
  cfloat(): Tensor {
    return convert(this, 'complex64') as Tensor
  }

  /** Convert to complex128. */
  cdouble(): Tensor {
    return convert(this, 'complex128') as Tensor
  }

  /** Whether the tensor is on the CPU. */
  get isCpu(): boolean {
    return this.device === 'cpu'
  }

  /** Whether the tensor is on an NVIDIA device. */
  get isCuda(): boolean {
    return this.device.startsWith('cuda')
  }

  /** Whether the tensor has a shape but no memory. */
  get isMeta(): boolean {
    return this.device === 'meta'
  }

  /** Conjugate transpose of a matrix. @throws ShapeError unless the tensor has two dimensions, or none */
  get H(): Tensor {
    const { shape } = this
    if (shape.length !== 0 && shape.length !== 2) {
      throw new ShapeError(`H: expected a matrix, got shape [${shape}]. For batches of matrices call adjoint()`, {
        shape,
      })
    }
    return (shape.length === 0 ? resolved(this) : adjoint(this)) as Tensor
  }

  /** Size of an element in bytes. */
  get itemsize(): number {
    return dtypeFacts(this.dtype).bytes
  }

  /** Number of bytes of all elements. */
  get nbytes(): number {
    return this.numel() * this.itemsize
  }

  /** Return the size of an element in bytes, like `itemsize`. */
  elementSize(): number {
    return this.itemsize
  }

  /** Return the number of dimensions, like `ndim`. */
  ndimension(): number {
    return this.ndim
  }

  /** Return the number of elements, like `numel`. */
  nelement(): number {
    return this.numel()
  }

  /** Return all elements as nested arrays, like {@link toArray}. */
  tolist(): NestedArray {
    return this.toArray()
  }

  /** Return the dimensions in the order of memory, from the largest stride to the smallest. */
  dimOrder(): number[] {
    const { strides } = this
    return strides.map((_, dim) => dim).sort((a, b) => strides[b]! - strides[a]! || a - b)
  }

  /** Change each element in place by a function, slowly; on the CPU only. */
  apply_(fn: (value: number) => number): this {
    return changed(this, 'apply_', fn, [])
  }

  /** Change each element in place by a function of it and the element of `other` at its place, slowly; on the CPU only. */
  map_(other: Tensor, fn: (value: number, other: number) => number): this {
    return changed(this, 'map_', fn, [other])
  }

  override toString(): string {
    return printer(this)
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.disposed ? 'Tensor(disposed)' : this.toString()
  }

  /** Return the elements like {@link toArray} for JSON.stringify, so a loss in a log is a number. */
  toJSON(): NestedArray {
    return this.toArray()
  }

  /**
   * Text with dtype, shape and a digest of the elements. Deep comparisons of `node:assert`, vitest and jest ignore private
   * fields, so all tensors would be equal; they compare this text, so it must show differences.
   */
  get [Symbol.toStringTag](): string {
    return `Tensor ${contents(this)}`
  }
}

/** Write what `fn` returns for the elements of a tensor and of `others`, which broadcast to its shape. */
function changed<T extends Tensor>(
  tensor: T,
  where: string,
  fn: (...values: never[]) => number,
  others: readonly Tensor[],
): T {
  if (typeof fn !== 'function') throw new ConfigError(`${where}: expected a function, got ${shown(fn)}`)
  if (tensor.device !== 'cpu')
    throw new DeviceError(`${where}: expected a tensor on the CPU, got one on ${tensor.device}`)
  if (tensor.requiresGrad) throw new ConfigError(`${where}: expected a tensor that requires no gradient`)
  const { shape, dtype } = tensor
  if (dtype.startsWith('complex')) throw new DTypeError(`${where}: expected real elements, got ${dtype}`, { dtype })
  const sources = [tensor, ...others.map((other) => expand(other, shape) as Tensor)]
  try {
    const lists = sources.map((source) => elements(source.dataSync(), source.dtype) as number[])
    const values = lists[0]!.map((_, i) => fn(...(lists.map((list) => Number(list[i])) as never[])))
    const flat = convert(fromTypedArray(Float64Array.from(values), shape, 'float64', 'cpu'), dtype) as Tensor
    copyInto(tensor, flat)
    flat.dispose()
  } finally {
    for (const source of sources) if (source !== tensor && !others.includes(source)) source.dispose()
  }
  return tensor
}

registerTensorClass(Tensor)
registerArgumentMistake(placementError)

// Outside the method: native code holds this closure, which must not reference the tensor.
function hookCallback(hook: (gradient: Tensor) => unknown, state: { active: boolean }): Callback {
  return inCallback((values) => {
    if (!state.active) return [null]
    const result = synchronous(hook(values[0] as Tensor), 'a gradient hook') ?? null
    if (result !== null && !(result instanceof Tensor)) {
      throw new ConfigError(`registerHook: expected the hook to return a Tensor or undefined, got ${typeof result}`)
    }
    return [result]
  })
}

function accumulateCallback(parameter: WeakRef<Tensor>, hook: (parameter: Tensor) => void): Callback {
  return inCallback(([handle]) => {
    synchronous(hook(parameter.deref() ?? (handle as Tensor)), 'a hook of registerPostAccumulateGradHook')
    return []
  })
}

const retainGrad = op('aten::retain_grad')

// print.ts needs the class, and registers itself here.
let printer: (tensor: Tensor) => string = () => 'tensor(...)'
export function registerPrinter(print: (tensor: Tensor) => string): void {
  printer = print
}

/** `Array.isArray`, but false for a revoked proxy instead of a TypeError. */
function isArray(value: unknown): value is unknown[] {
  try {
    return Array.isArray(value)
  } catch {
    return false
  }
}

/** Return whether a value is a tensor. */
export function isTensor(value: unknown): value is Tensor {
  return value instanceof Tensor
}

/** Return a range of indices like Python's `start:stop:step`; null leaves an end open. */
export function slice(start: number | null = null, stop: number | null = null, step: number | null = null): Slice {
  for (const [name, value] of [
    ['start', start],
    ['stop', stop],
    ['step', step],
  ] as const) {
    if (value !== null && !Number.isSafeInteger(value)) {
      throw new ConfigError(`slice: expected ${name} to be an integer or null, got ${shown(value)}`, { [name]: value })
    }
  }
  return new Slice(start, stop, step)
}

function putIndices(indices: readonly Index[], made: Tensor[]): void {
  for (const index of indices) {
    if (index === '...') putEllipsis()
    else if (Array.isArray(index)) {
      for (const value of index) {
        if (!Number.isSafeInteger(value))
          throw new ConfigError(`Tensor.at: expected integers in an index array, got ${shown(value)}`)
      }
      const list = fromTypedArray(BigInt64Array.from(index as number[], BigInt), [index.length], 'int64', 'cpu')
      made.push(list)
      put(list)
    } else if (
      typeof index === 'object' ||
      typeof index === 'number' ||
      typeof index === 'boolean' ||
      typeof index === 'bigint'
    ) {
      if (typeof index === 'object' && index !== null && !(index instanceof Slice) && !(index instanceof Tensor)) {
        throw new ConfigError(
          'Tensor.at: expected an integer, slice(), null, "...", a boolean, a Tensor or an array of integers as index',
        )
      }
      put(index)
    } else {
      throw new ConfigError(
        `Tensor.at: expected an integer, slice(), null, '...', a boolean, a Tensor or an array of integers as index, got ${typeof index}`,
      )
    }
  }
}

/** Return a text that is equal for tensors of equal dtype, shape and elements, and unique for one that cannot be read. */
function contents(tensor: Tensor): string {
  try {
    const { dtype, shape } = tensor
    const values = readableOf(tensor)
    try {
      return `${dtype} [${shape}] ${createHash('sha1')
        .update(new Uint8Array(bytesOf(values)))
        .digest('hex')}`
    } finally {
      if (values !== tensor) values.dispose()
    }
  } catch {
    unreadable += 1
    return `without elements, ${unreadable}`
  }
}

let unreadable = 0

// Maximum number of elements that V8 holds in arrays without running out of heap.
const MOST_ELEMENTS = 2 ** 26

/** Copy a typed array's bytes into a new tensor. */
export function fromTypedArray(view: ArrayBufferView, shape: readonly number[], dtype: DType, device: string): Tensor {
  return callNative(
    () => native.fromBytes(view),
    () => {
      put(shape)
      put(dtype)
      put(device)
    },
    true,
  ) as Tensor
}

/** Copy values to the elements of a contiguous float32 tensor of the CPU, from element `offset` on. */
export function copyFloats(tensor: Tensor, offset: number, values: Float32Array): void {
  callNative(
    () => native.copyFloats(values),
    () => {
      put(tensor)
      put(offset)
    },
    false,
  )
}

function bytesOf(tensor: Tensor): ArrayBuffer {
  let bytes: ArrayBuffer | undefined
  callNative(
    () => {
      bytes = native.toBytes()
    },
    () => put(tensor),
    false,
  )
  return bytes as ArrayBuffer
}

/** Return the tensor, or a float32 copy if JavaScript has no array for its dtype. */
function readableOf(tensor: Tensor): Tensor {
  const { dtype } = tensor
  const { view: array, kind } = dtypeFacts(dtype)
  if (array !== null) return tensor
  return convert(tensor, kind === 'complex' ? 'complex64' : 'float32') as Tensor
}

function view(bytes: ArrayBuffer, dtype: DType): TypedArray {
  const { view: View } = dtypeFacts(dtype)
  if (View === null) throw new ConfigError(`expected a dtype with a typed array, got ${dtype}`)
  return new View(bytes)
}

function elements(data: TypedArray, dtype: DType): Scalar[] {
  const { kind } = dtypeFacts(dtype)
  if (kind === 'bool') return Array.from(data as Uint8Array, (value) => value !== 0)
  if (kind === 'complex') {
    const parts = data as Float64Array
    return Array.from({ length: parts.length / 2 }, (_, i) => ({ re: parts[2 * i]!, im: parts[2 * i + 1]! }))
  }
  if (data instanceof BigInt64Array || data instanceof BigUint64Array) {
    return Array.from(data as BigInt64Array, (value) => {
      const number = Number(value)
      return Number.isSafeInteger(number) ? number : value
    })
  }
  return Array.from(data as Float64Array)
}

function nest(values: Scalar[], shape: readonly number[]): NestedArray {
  if (shape.length === 0) return values[0] as Scalar
  let position = 0
  const level = (dim: number): NestedArray[] => {
    const size = shape[dim]!
    if (dim === shape.length - 1) {
      const row = values.slice(position, position + size)
      position += size
      return row
    }
    return Array.from({ length: size }, () => level(dim + 1))
  }
  return level(0)
}

/** Reject a promise from code that native code waits for. */
export function synchronous<T>(value: T, what: string): T {
  if (typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function') {
    throw new ConfigError(`expected ${what} to be synchronous, got a promise`)
  }
  return value
}

/** Run a callback of native code with the grad mode and the scope that native code set up for it. */
export function inCallback(run: (values: unknown[], kind: number) => unknown[]): Callback {
  return (kind, values, flagWord, scope) =>
    runInContext(
      {
        scope: { id: scope, parent: null, open: true },
        flags: flagWord & (GRAD | INFERENCE),
        device: 0,
        deviceName: null,
      },
      () => run(values, kind),
    )
}
