import { asTyped, optionsOf } from '../base/arguments.js'
import { ConfigError, DataError, DTypeError } from '../base/errors.js'
import { withArticle } from '../base/words.js'
import { op } from '../native/call.js'
import { currentDevice } from '../native/context.js'
import { Double, isComplex } from '../native/encode.js'
import { getDefaultDtype } from './default-dtype.js'
import { type Device, type DType, dtypeFacts, requireDevice, requireDType, type TypedArray } from './dtype.js'
import type { Generator } from './random.js'
import { fromTypedArray, isTensor, type Scalar, Tensor } from './tensor.js'

export interface TensorOptions {
  /** Dtype. Default: that of `setDefaultDtype` for functions that fill; see {@link tensor} for data. */
  dtype?: DType
  /** Device. Default: that of `withDevice`, else the CPU. Throws DeviceError if it does not exist. */
  device?: Device
  /** Record operations on the tensor for autograd. */
  requiresGrad?: boolean
}

export interface RandomOptions extends TensorOptions {
  generator?: Generator
}

const TENSOR = ['dtype', 'device', 'requiresGrad', 'shape']

/** Rectangular nested arrays of numbers, of any depth. */
export type TensorData = Scalar | TypedArray | readonly TensorData[]

const toOp = op('aten::to')
const requiresGradOp = op('aten::requires_grad_')

/**
 * Create a tensor from numbers, nested arrays, a typed array or a Buffer; the data is copied.
 *
 * Without a `dtype`: integers and bigints give int64 and any fraction gives float32, as in PyTorch; booleans give bool; `{ re,
 * im }` gives complex64; a typed array gives its own type. With `requiresGrad` integers give float32. `setDefaultDtype` sets another
 * dtype than float32. A Buffer contains the raw bytes of `dtype` (default uint8).
 *
 * @param options.shape shape of a flat typed array or Buffer; default one dimension
 * @throws DataError for ragged arrays; DTypeError for values that the dtype cannot represent
 */
export function tensor(data: TensorData, options: TensorOptions & { shape?: readonly number[] } = {}): Tensor {
  try {
    return fromData(data, options)
  } catch (error) {
    throw asTyped('tensor', error)
  }
}

function fromData(data: TensorData, options: TensorOptions & { shape?: readonly number[] }): Tensor {
  if (isTensor(data)) throw new ConfigError('tensor: expected JavaScript data, got a Tensor. Use clone() or to()')
  const { requiresGrad = false, shape } = optionsOf(options, 'tensor', TENSOR)
  requireDType('tensor: dtype', options.dtype)
  requireDevice('tensor: device', options.device)
  const device = options.device ?? (currentDevice() as Device | null) ?? 'cpu'
  const result = ArrayBuffer.isView(data)
    ? fromView(data as TypedArray, options.dtype, shape, device)
    : fromNested(data, options.dtype, requiresGrad, device, shape)
  return requiresGrad ? requiringGrad(result) : result
}

function requiringGrad(made: Tensor): Tensor {
  try {
    return requiresGradOp(made) as Tensor
  } catch (error) {
    made.dispose()
    throw error
  }
}

function fromView(
  data: TypedArray,
  wanted: DType | undefined,
  shape: readonly number[] | undefined,
  device: Device,
): Tensor {
  if (Buffer.isBuffer(data)) {
    const dtype = wanted ?? 'uint8'
    const { bytes } = dtypeFacts(dtype)
    if (shape === undefined && data.byteLength % bytes !== 0) {
      throw new DataError(
        `tensor: expected a multiple of ${bytes} bytes for ${dtype}, got a Buffer of ${data.byteLength} bytes`,
      )
    }
    return fromTypedArray(data, shape ?? [data.byteLength / bytes], dtype, device)
  }
  const dataDType = viewDType(data)
  if (wanted !== undefined && !holds(wanted, dataDType)) {
    const [low, high] = limits(wanted)
    for (const value of data) {
      const whole = typeof value === 'bigint' ? value : Math.trunc(value)
      if (!(whole >= low && whole <= high)) throw unfit(value, wanted)
    }
  }
  const result = fromTypedArray(data, shape ?? [data.length], dataDType, device)
  return wanted === undefined || wanted === dataDType ? result : replaced(result, wanted)
}

function viewDType(data: ArrayBufferView): DType {
  const name = Object.prototype.toString.call(data).slice(8, -1)
  const found = viewNames[name]
  if (found === undefined) throw new DTypeError(`tensor: expected a typed array or a Buffer, got a ${name}`)
  return found
}

const viewNames: Record<string, DType> = {
  Float16Array: 'float16',
  Float32Array: 'float32',
  Float64Array: 'float64',
  Int8Array: 'int8',
  Uint8Array: 'uint8',
  Uint8ClampedArray: 'uint8',
  Int16Array: 'int16',
  Uint16Array: 'uint16',
  Int32Array: 'int32',
  Uint32Array: 'uint32',
  BigInt64Array: 'int64',
  BigUint64Array: 'uint64',
}

function replaced(source: Tensor, dtype: DType): Tensor {
  try {
    return toOp(source, dtype) as Tensor
  } finally {
    source.dispose()
  }
}

function fromNested(
  data: TensorData,
  wanted: DType | undefined,
  requiresGrad: boolean,
  device: Device,
  reshaped: readonly number[] | undefined,
): Tensor {
  const shape: number[] = []
  for (let level: unknown = data; Array.isArray(level); level = level[0]) {
    shape.push(level.length)
    if (shape.length > 64)
      throw new DataError('tensor: expected at most 64 nested arrays, the dimensions of a tensor, got more')
  }
  const flat: Scalar[] = []
  flatten(data, shape, 0, [], flat)
  const dtype = wanted ?? inferDType(flat, requiresGrad)
  const { view: View, kind } = dtypeFacts(dtype)
  const size = reshaped ?? shape
  if (kind === 'complex') {
    const parts = dtype === 'complex128' ? new Float64Array(flat.length * 2) : new Float32Array(flat.length * 2)
    flat.forEach((value, i) => {
      const { re, im } = typeof value === 'object' ? value : { re: Number(value), im: 0 }
      parts[2 * i] = re
      parts[2 * i + 1] = im
    })
    const result = fromTypedArray(parts, size, dtype === 'complex128' ? dtype : 'complex64', device)
    return dtype === 'complex32' ? replaced(result, dtype) : result
  }
  if (View === null) return replaced(fromTypedArray(Float32Array.from(flat, toNumber), size, 'float32', device), dtype)
  const values = new View(new ArrayBuffer(flat.length * dtypeFacts(dtype).bytes)) as Float64Array | BigInt64Array
  const wide = values instanceof BigInt64Array || (values as unknown) instanceof BigUint64Array
  const [low, high] = limits(dtype)
  for (let i = 0; i < flat.length; i += 1) {
    const value = flat[i]!
    if (kind === 'float') values[i] = toNumber(value)
    else if (kind === 'bool') values[i] = toNumber(value) !== 0 ? 1 : 0
    else {
      const number = typeof value === 'bigint' ? value : toNumber(value)
      if (typeof number === 'number' && !Number.isInteger(number)) {
        throw new DTypeError(`tensor: expected an integer for ${dtype}, got ${number}`, { value, dtype })
      }
      if (number < low || number > high) throw unfit(number, dtype)
      values[i] = wide ? BigInt(number) : Number(number)
    }
  }
  return fromTypedArray(values, size, dtype, device)
}

/** Return the minimum and maximum of an integer dtype. */
function limits(dtype: DType): [bigint, bigint] {
  const bits = BigInt(8 * dtypeFacts(dtype).bytes)
  return dtype.startsWith('u') ? [0n, 2n ** bits - 1n] : [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n]
}

/** Return whether every value of `own` is within the limits of `wanted`. */
function holds(wanted: DType, own: DType): boolean {
  if (wanted === own || dtypeFacts(wanted).kind !== 'integer') return true
  if (dtypeFacts(own).kind !== 'integer') return false
  const [low, high] = limits(wanted)
  const [least, greatest] = limits(own)
  return low <= least && greatest <= high
}

function unfit(value: number | bigint, dtype: DType): DTypeError {
  return new DTypeError(`tensor: expected a value in the range of ${dtype}, got ${value}`, { value, dtype })
}

function toNumber(value: Scalar): number {
  if (typeof value === 'object') throw new DTypeError('tensor: expected a complex dtype for a complex number')
  return Number(value)
}

function inferDType(values: readonly Scalar[], requiresGrad: boolean): DType {
  let result: DType | undefined = values.length === 0 ? undefined : 'bool'
  for (const value of values) {
    if (typeof value === 'object') return getDefaultDtype() === 'float64' ? 'complex128' : 'complex64'
    if (typeof value === 'boolean') continue
    const integer = typeof value === 'bigint' || Number.isInteger(value)
    if (!integer) result = undefined
    else if (result === 'bool') result = 'int64'
  }
  return result === undefined || (result === 'int64' && requiresGrad) ? getDefaultDtype() : result
}

function flatten(data: unknown, shape: readonly number[], depth: number, path: number[], out: Scalar[]): void {
  if (depth === shape.length) {
    const type = typeof data
    if (
      type === 'number' ||
      type === 'boolean' ||
      type === 'bigint' ||
      (typeof data === 'object' && data !== null && isComplex(data))
    ) {
      out.push(data as Scalar)
      return
    }
    const got = Array.isArray(data) ? `an array of ${data.length}` : data === null ? 'null' : withArticle(type)
    throw new DataError(
      `tensor: expected a number${where(path)}, got ${got}. Nested arrays must all have the same depth`,
      { path },
    )
  }
  if (!Array.isArray(data) || data.length !== shape[depth]) {
    const got = Array.isArray(data) ? `${data.length}` : withArticle(typeof data)
    throw new DataError(
      `tensor: expected an array of ${shape[depth]}${where(path)}, got ${got}. Nested arrays must be rectangular`,
      { path },
    )
  }
  for (let i = 0; i < data.length; i += 1) {
    path.push(i)
    flatten(data[i], shape, depth + 1, path, out)
    path.pop()
  }
}

function where(path: readonly number[]): string {
  return path.length === 0 ? '' : ` at [${path.join('][')}]`
}

/** Wrap a factory operator: options by name, `requiresGrad` afterwards. */
function factory(name: string): (...args: unknown[]) => Tensor {
  const make = op(`aten::${name}`)
  return (...args) => {
    const last = args[args.length - 1]
    if (typeof last !== 'object' || last === null) return make(...args) as Tensor
    let taken: TensorOptions
    try {
      if (!('requiresGrad' in last)) return make(...args) as Tensor
      taken = { ...(last as TensorOptions) }
    } catch (error) {
      throw asTyped(name, error)
    }
    const { requiresGrad, ...rest } = taken
    const result = make(...args.slice(0, -1), rest) as Tensor
    return requiresGrad === true ? requiringGrad(result) : result
  }
}

const make = {
  zeros: factory('zeros'),
  ones: factory('ones'),
  empty: factory('empty'),
  full: factory('full'),
  rand: factory('rand'),
  randn: factory('randn'),
  randint: factory('randint'),
  randperm: factory('randperm'),
  arange: factory('arange'),
  linspace: factory('linspace'),
  eye: factory('eye'),
  zerosLike: factory('zeros_like'),
  onesLike: factory('ones_like'),
  emptyLike: factory('empty_like'),
  fullLike: factory('full_like'),
  randLike: factory('rand_like'),
  randnLike: factory('randn_like'),
}

/** Return a tensor of zeros: `zeros([2, 3])`. Default dtype float32. */
export const zeros = (shape: readonly number[], options: TensorOptions = {}): Tensor => make.zeros(shape, options)
/** Return a tensor of ones. Default dtype float32. */
export const ones = (shape: readonly number[], options: TensorOptions = {}): Tensor => make.ones(shape, options)
/** Return an uninitialized tensor. */
export const empty = (shape: readonly number[], options: TensorOptions = {}): Tensor => make.empty(shape, options)
/** Return a tensor filled with one value; its dtype follows the value (see {@link tensor}). */
export const full = (shape: readonly number[], value: Scalar, options: TensorOptions = {}): Tensor =>
  make.full(shape, value, options)
/** Return uniform random numbers in [0, 1). */
export const rand = (shape: readonly number[], options: RandomOptions = {}): Tensor => make.rand(shape, options)
/** Return standard normal random numbers. */
export const randn = (shape: readonly number[], options: RandomOptions = {}): Tensor => make.randn(shape, options)
/** Return random integers in [low, high), int64: `randint(high, shape)` from 0, or `randint(low, high, shape)`. */
export function randint(high: number, shape: readonly number[], options?: RandomOptions): Tensor
export function randint(low: number, high: number, shape: readonly number[], options?: RandomOptions): Tensor
export function randint(...args: (number | readonly number[] | RandomOptions | undefined)[]): Tensor {
  return make.randint(...args.filter((argument) => argument !== undefined))
}
/** Return a random permutation of 0 to n - 1, int64. */
export const randperm = (n: number, options: RandomOptions = {}): Tensor => make.randperm(n, options)
/** Return `steps` evenly spaced numbers from `start` to `end`, both included. */
export const linspace = (start: number, end: number, steps: number, options: TensorOptions = {}): Tensor =>
  make.linspace(start, end, steps, options)
/** Return the n × n identity matrix (n × m if m is given). */
export function eye(n: number, m?: number | TensorOptions, options: TensorOptions = {}): Tensor {
  return typeof m === 'number' ? make.eye(n, m, options) : make.eye(n, m ?? options)
}

/**
 * Return evenly spaced numbers: `arange(end)`, `arange(start, end)` or `arange(start, end, step)`; int64 if all arguments are
 * integers.
 */
export function arange(end: number, options?: TensorOptions): Tensor
export function arange(start: number, end: number, options?: TensorOptions): Tensor
export function arange(start: number, end: number, step: number, options?: TensorOptions): Tensor
export function arange(...args: (number | TensorOptions | undefined)[]): Tensor {
  return make.arange(...args.filter((argument) => argument !== undefined))
}

/** Return zeros with another tensor's shape, dtype and device. */
export const zerosLike = (like: Tensor, options: TensorOptions = {}): Tensor => make.zerosLike(like, options)
export const onesLike = (like: Tensor, options: TensorOptions = {}): Tensor => make.onesLike(like, options)
export const emptyLike = (like: Tensor, options: TensorOptions = {}): Tensor => make.emptyLike(like, options)
export const fullLike = (like: Tensor, value: Scalar, options: TensorOptions = {}): Tensor =>
  make.fullLike(like, value, options)
export const randLike = (like: Tensor, options: TensorOptions = {}): Tensor => make.randLike(like, options)
export const randnLike = (like: Tensor, options: TensorOptions = {}): Tensor => make.randnLike(like, options)

const catOp = op('aten::cat')
const uniqueOp = op('aten::_unique2')
const uniqueDimOp = op('aten::unique_dim')
const stackOp = op('aten::stack')

/** Concatenate tensors along an existing dimension. */
export const cat = (tensors: readonly Tensor[], dim = 0): Tensor => catOp(tensors, dim) as Tensor
/** Stack tensors along a new dimension. */
export const stack = (tensors: readonly Tensor[], dim = 0): Tensor => stackOp(tensors, dim) as Tensor

export interface UniqueOptions {
  /** Sort the values in ascending order. Default true; CUDA always sorts. */
  sorted?: boolean
  /** Also return the index of each element in the values. Default false: empty. */
  returnInverse?: boolean
  /** Also return how often each value occurs. Default false: empty. */
  returnCounts?: boolean
  /** Compare slices along this dimension. Default: elements. */
  dim?: number | null
}

/**
 * Return the distinct elements (or slices) of a tensor, like `torch.unique`: `[values, inverse, counts]`, the latter two int64.
 */
export function unique(input: Tensor, options: UniqueOptions = {}): [Tensor, Tensor, Tensor] {
  const {
    sorted = true,
    returnInverse = false,
    returnCounts = false,
    dim = null,
  } = optionsOf(options, 'unique', ['sorted', 'returnInverse', 'returnCounts', 'dim'])
  if (dim !== null) return uniqueDimOp(input, dim, sorted, returnInverse, returnCounts) as [Tensor, Tensor, Tensor]
  return uniqueOp(input, sorted, returnInverse, returnCounts) as [Tensor, Tensor, Tensor]
}

/** Mark a number as floating point where JavaScript cannot tell: `x.mul(asFloat(2))` promotes an int64 `x`. */
export function asFloat(value: number): number {
  return new Double(value) as unknown as number
}

declare module './tensor.js' {
  interface Tensor {
    /** Create a tensor from data on this tensor's device, in this tensor's dtype unless `dtype` says otherwise. */
    newTensor(data: TensorData, options?: TensorOptions): Tensor
    /** Return the distinct elements (or slices): `[values, inverse, counts]`, see {@link unique}. */
    unique(options?: UniqueOptions): [Tensor, Tensor, Tensor]
    /** Compute the derivative of order `n` of the digamma function of each element. */
    polygamma(n: number): Tensor
    /** Convert to a sparse tensor of coordinates and values, like `toSparse`. */
    toSparseCoo(): Tensor
  }
}

const polygamma = op('aten::polygamma')

const methods = {
  newTensor(this: Tensor, data: TensorData, options: TensorOptions = {}): Tensor {
    return tensor(data, { dtype: this.dtype, device: this.device, ...optionsOf(options, 'newTensor', TENSOR) })
  },
  unique(this: Tensor, options: UniqueOptions = {}): [Tensor, Tensor, Tensor] {
    return unique(this, options)
  },
  polygamma(this: Tensor, n: number): Tensor {
    return polygamma(n, this) as Tensor
  },
  toSparseCoo(this: Tensor): Tensor {
    return this.toSparse()
  },
}
for (const [name, value] of Object.entries(methods)) {
  Object.defineProperty(Tensor.prototype, name, { value, writable: true, configurable: true })
}
