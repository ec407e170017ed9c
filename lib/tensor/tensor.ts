import { createHash } from 'node:crypto'
import { asTyped, optionsOf, shown } from '../base/arguments.js'
import { ConfigError, IndexError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { callNative, op, readNumbers } from '../native/call.js'
import { type Callback, registerCallback } from '../native/callbacks.js'
import { GRAD, INFERENCE, runInContext } from '../native/context.js'
import { type Complex, put, putEllipsis, Slice } from '../native/encode.js'
import type { MemoryFormat, TensorOperators } from '../native/generated/operators.js'
import { Handle, handleOf, isHandle } from '../native/handle.js'
import { queueNative } from '../native/jobs.js'
import { registerTensorClass } from '../native/objects.js'
import { type Device, type DType, deviceName, dtypeFacts, dtypeName, type TypedArray } from './dtype.js'

/** One element as JavaScript holds it. */
export type Scalar = number | bigint | boolean | Complex
/** Elements nested as deep as the tensor has dimensions. */
export type NestedArray = Scalar | NestedArray[]
/** What `at` and `setAt` take per dimension. */
export type Index = number | bigint | boolean | Slice | Tensor | readonly number[] | null | '...'

const BACKWARD: readonly (keyof BackwardOptions)[] = ['gradient', 'retainGraph', 'createGraph', 'inputs']

export interface BackwardOptions {
  /** The gradient of the tensor itself; may be left out for a tensor of one element. */
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
const moved = op('aten::to')
const convert = op('aten::to')
const flags = (tensor: Tensor, index: number): number => readNumbers(native.facts, () => put(tensor))[index]!

export interface Tensor extends TensorOperators {}

/**
 * An n-dimensional array in native memory, as PyTorch's. Operators carry ATen's names in camelCase and run at once on the
 * calling thread; what runs on the executor returns a promise.
 *
 * Tensors made inside a {@link scope} are freed at its end, others when they are disposed or forgotten.
 */
// biome-ignore lint/suspicious/noUnsafeDeclarationMerging: see above.
export class Tensor extends Handle {
  /** No proxy is a tensor. A revoked one must not even be asked for its prototype, which it answers with a TypeError. */
  static override [Symbol.hasInstance](value: unknown): boolean {
    const isObject = typeof value === 'object' && value !== null
    // biome-ignore lint/complexity/noThisInStatic: a subclass is asked about itself.
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

  /** How many elements to step over per dimension. */
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

  /** The number of dimensions, as `ndim`. */
  dim(): number {
    return this.ndim
  }

  /** The shape, or the size of one dimension; negative dimensions count from the end. */
  size(): number[]
  size(dim: number): number
  size(dim?: number): number | number[] {
    const { shape } = this
    if (dim === undefined) return shape
    const size = Number.isInteger(dim) ? shape.at(dim) : undefined
    if (size === undefined || dim < -shape.length) {
      throw new IndexError(`size: dimension ${String(dim)} is not in a tensor of ${shape.length} dimensions`, { dim })
    }
    return size
  }

  /** How many elements there are. */
  numel(): number {
    const facts = readNumbers(native.facts, () => put(this))
    const dims = facts[6]!
    let count = 1
    for (let i = 0; i < dims; i += 1) count *= facts[7 + i]!
    return count
  }

  /** Whether the elements lie in row-major order without gaps. */
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

  /** Whether no recorded operator made this tensor: only leaves get a `grad` by themselves. */
  get isLeaf(): boolean {
    return flags(this, 4) !== 0
  }

  /** The accumulated gradient. Each read gives a fresh handle on the same memory. Throws BusyError during backward. */
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

  /** The name of the recorded function that made this tensor, such as `'AddBackward0'`. */
  get gradFn(): string | null {
    return callNative(native.gradFnName, () => put(this), true) as string | null
  }

  /** Whether this object was freed. */
  get disposed(): boolean {
    return !native.isLive(handleOf(this))
  }

  /** Frees this object's hold on the memory. Harmless when repeated; any other use afterwards throws DisposedError. */
  dispose(): void {
    native.release(handleOf(this))
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /**
   * The only element of a tensor that has one. On CUDA it waits for the device. It is typed as the number that it is
   * mostly; where it is not, say so: `item<boolean>()` of a bool tensor, `item<Complex>()`, and `item<number | bigint>()`
   * where an int64 may be beyond 2^53, which comes as bigint.
   */
  item<T extends Scalar = number>(): T {
    if (this.dtype === 'uint64' && this.numel() === 1) return elements(this.dataSync(), 'uint64')[0] as T
    return item(this) as T
  }

  /** All elements as nested arrays: int64 as numbers (bigint beyond 2^53), complex as `{ re, im }`. */
  toArray(): NestedArray {
    const { shape, dtype } = this
    let count = 1
    for (const size of shape) {
      // Also on the way: [2^40, 0] has no elements, and 2^40 empty arrays.
      count *= size
      if (count > MOST_ELEMENTS)
        throw new ConfigError(`toArray() cannot hold [${shape}]; use data() for a typed array`, { shape })
    }
    return nest(elements(this.dataSync(), dtype), shape)
  }

  /** All elements in row-major order, read on the executor: does not block the event loop. */
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

  /** All elements in row-major order, now. On CUDA it waits for the device. */
  dataSync(): TypedArray {
    const source = readableOf(this)
    try {
      return view(bytesOf(source), source.dtype)
    } finally {
      if (source !== this) source.dispose()
    }
  }

  /**
   * A view or copy by index, one index a dimension: a number, a {@link slice}, `null` for a new axis, `'...'` for all
   * dimensions between, a boolean mask, or an index tensor or array. Plain numbers and slices give views.
   *
   * `x.at(0, slice(1, 5), null, mask)` is Python's `x[0, 1:5, None, mask]`, and `x.at()` its `x[()]`: a view of all.
   */
  at(...indices: Index[]): Tensor {
    const made: Tensor[] = []
    try {
      return callNative(
        native.getItem,
        () => {
          put(this)
          putIndices(indices.length === 0 ? ['...'] : indices, made)
        },
        true,
      ) as Tensor
    } finally {
      for (const tensor of made) tensor.dispose()
    }
  }

  /** Changes the elements that `at` would give: `x.setAt([0, slice(1, 5)], 7)` is Python's `x[0, 1:5] = 7`. */
  setAt(indices: readonly Index[], value: Tensor | Scalar): this {
    if (!isArray(indices)) throw new ConfigError(`setAt() takes an array of indices and a value, not ${shown(indices)}`)
    const made: Tensor[] = []
    try {
      callNative(
        native.setItem,
        () => {
          put(this)
          put(value)
          putIndices(indices.length === 0 ? ['...'] : indices, made)
        },
        false,
      )
    } finally {
      for (const tensor of made) tensor.dispose()
    }
    return this
  }

  /** Takes another tensor's memory, dtype and device while staying the same object for optimizers and graphs. */
  setData(source: Tensor): this {
    callNative(
      native.setData,
      () => {
        put(this)
        put(source)
      },
      false,
    )
    return this
  }

  /**
   * Computes the gradients of all leaves that this tensor depends on and adds them to their `grad`. Runs on the executor.
   * @throws GradientError when nothing was recorded, or the graph was freed by an earlier pass.
   */
  async backward(options: BackwardOptions = {}): Promise<void> {
    const {
      gradient = null,
      retainGraph = null,
      createGraph = false,
      inputs = [],
    } = optionsOf(options, 'backward', BACKWARD)
    for (const [name, value] of Object.entries({ retainGraph: retainGraph ?? false, createGraph })) {
      if (typeof value !== 'boolean')
        throw new ConfigError(`backward: ${name} must be true or false, got ${shown(value)}`)
    }
    await queueNative(native.backwardQueued, [this], [gradient], inputs, retainGraph, createGraph, true, false)
  }

  /** Keeps the gradient of a tensor that is not a leaf. */
  retainGrad(): this {
    retainGrad(this)
    return this
  }

  /**
   * Calls `hook` with each gradient of this tensor during backward; what it returns, if anything, replaces the gradient.
   * The hook must be synchronous. Returns a function that removes it.
   */
  // biome-ignore lint/suspicious/noConfusingVoidType: most hooks return nothing
  registerHook(hook: (gradient: Tensor) => Tensor | undefined | void): () => void {
    if (typeof hook !== 'function') throw new ConfigError(`registerHook needs a function, got ${typeof hook}`)
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
   * This tensor as another dtype, on another device, or both: `x.to('float16')`, `x.to('cuda')`,
   * `x.to({ device: 'cuda', dtype: 'bfloat16' })`, `x.to(other)`. Gives the same memory where nothing changes, unless
   * `copy` is set.
   * @throws DeviceError where there is no such device
   */
  to(target: DType | Device | Tensor | ToOptions, options: { copy?: boolean; nonBlocking?: boolean } = {}): Tensor {
    if (isTensor(target)) return moved(this, target, options) as Tensor
    let all: ToOptions
    try {
      if (typeof target !== 'string') all = { ...target, ...options }
      else if (/^(cpu|cuda|meta)(:|$)/.test(target)) all = { device: target as Device, ...options }
      else all = { dtype: target as DType, ...options }
    } catch (error) {
      throw asTyped('to', error)
    }
    return moved(this, all) as Tensor
  }

  /** This tensor where `condition` holds, `other` elsewhere. */
  where(condition: Tensor, other: Tensor | Scalar): Tensor {
    return whereOp(condition, this, other) as Tensor
  }

  /** The transpose of a matrix (all dimensions reversed). */
  get T(): Tensor {
    return reversed(this) as Tensor
  }

  /** The last two dimensions swapped. */
  get mT(): Tensor {
    return swapped(this) as Tensor
  }

  /** As float32. */
  float(): Tensor {
    return convert(this, 'float32') as Tensor
  }

  /** As float64. */
  double(): Tensor {
    return convert(this, 'float64') as Tensor
  }

  /** As float16. */
  half(): Tensor {
    return convert(this, 'float16') as Tensor
  }

  bfloat16(): Tensor {
    return convert(this, 'bfloat16') as Tensor
  }

  /** As int64. */
  long(): Tensor {
    return convert(this, 'int64') as Tensor
  }

  /** As int32. */
  int(): Tensor {
    return convert(this, 'int32') as Tensor
  }

  bool(): Tensor {
    return convert(this, 'bool') as Tensor
  }

  cpu(): Tensor {
    return moved(this, { device: 'cpu' }) as Tensor
  }

  /** On an NVIDIA device. Throws DeviceError where there is none. */
  cuda(index = 0): Tensor {
    if (!Number.isInteger(index)) throw new ConfigError(`cuda() takes the number of a device, not ${shown(index)}`)
    return moved(this, { device: `cuda:${index}` }) as Tensor
  }

  override toString(): string {
    return printer(this)
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return this.disposed ? 'Tensor(disposed)' : this.toString()
  }

  /** What JSON.stringify writes: the elements as {@link toArray} gives them, so a loss in a log is a number. */
  toJSON(): NestedArray {
    return this.toArray()
  }

  /**
   * Names dtype, shape and the elements' digest. Deep comparisons, of `node:assert`, vitest and jest, see no private
   * fields and would find all tensors equal; they do compare this, so it must tell what differs.
   */
  get [Symbol.toStringTag](): string {
    return `Tensor ${contents(this)}`
  }
}

registerTensorClass(Tensor)

// Outside the method: native code holds this closure, and must not hold the tensor through it.
function hookCallback(hook: (gradient: Tensor) => unknown, state: { active: boolean }): Callback {
  return inCallback((values) => {
    if (!state.active) return [null]
    const result = synchronous(hook(values[0] as Tensor), 'a gradient hook') ?? null
    if (result !== null && !(result instanceof Tensor)) {
      throw new ConfigError(`a gradient hook must return a Tensor or nothing, got ${typeof result}`)
    }
    return [result]
  })
}

const retainGrad = op('aten::retain_grad')

// print.ts needs the class; it puts itself here.
let printer: (tensor: Tensor) => string = () => 'tensor(...)'
export function registerPrinter(print: (tensor: Tensor) => string): void {
  printer = print
}

/** `Array.isArray`, which is false of a revoked proxy in place of a TypeError. */
function isArray(value: unknown): value is unknown[] {
  try {
    return Array.isArray(value)
  } catch {
    return false
  }
}

/** Whether a value is a tensor. */
export function isTensor(value: unknown): value is Tensor {
  return value instanceof Tensor
}

/** A range of indices, as Python's `start:stop:step`; null or nothing leaves an end open. */
export function slice(start: number | null = null, stop: number | null = null, step: number | null = null): Slice {
  for (const [name, value] of [
    ['start', start],
    ['stop', stop],
    ['step', step],
  ] as const) {
    if (value !== null && !Number.isSafeInteger(value)) {
      throw new ConfigError(`slice() needs integers or null, ${name} is ${shown(value)}`, { [name]: value })
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
          throw new ConfigError(`an index array holds ${shown(value)}, which is not an integer`)
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
          'an index must be an integer, slice(), null, "...", a boolean, a Tensor or an array of integers',
        )
      }
      put(index)
    } else {
      throw new ConfigError(
        `an index must be an integer, slice(), null, '...', a boolean, a Tensor or an array of integers; got ${typeof index}`,
      )
    }
  }
}

/** Equal for tensors of equal dtype, shape and elements; for one that cannot be read, equal to nothing. */
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

// As many as V8 holds in arrays without running out of heap.
const MOST_ELEMENTS = 2 ** 26

/** Copies a typed array's bytes into a new tensor. */
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

/** The tensor, or a float32 copy where JavaScript has no array for its dtype. */
function readableOf(tensor: Tensor): Tensor {
  const { dtype } = tensor
  const { view: array, kind } = dtypeFacts(dtype)
  if (array !== null) return tensor
  return convert(tensor, kind === 'complex' ? 'complex64' : 'float32') as Tensor
}

function view(bytes: ArrayBuffer, dtype: DType): TypedArray {
  const { view: View } = dtypeFacts(dtype)
  if (View === null) throw new ConfigError(`${dtype} has no typed array`)
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

/** Refuses a promise from code that native code waits for. */
export function synchronous<T>(value: T, what: string): T {
  if (typeof value === 'object' && value !== null && typeof (value as { then?: unknown }).then === 'function') {
    throw new ConfigError(`${what} must be synchronous, it returned a promise`)
  }
  return value
}

/** Runs a callback of native code under the grad mode and the scope that native code set up for it. */
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
