import { asTyped, optionsOf } from '../base/arguments.js'
import { ConfigError, DataError, DTypeError } from '../base/errors.js'
import { op } from '../native/call.js'
import { currentContext } from '../native/context.js'
import { Double, isComplex } from '../native/encode.js'
import { type Device, type DType, dtypeFacts, type TypedArray } from './dtype.js'
import type { Generator } from './random.js'
import { fromTypedArray, isTensor, type Scalar, type Tensor } from './tensor.js'

export interface TensorOptions {
  /** Default: float32 for functions that fill; see {@link tensor} for data. */
  dtype?: DType
  /** Default: that of `withDevice`, else the CPU. Throws DeviceError where there is no such device. */
  device?: Device
  /** Record operations on it for autograd. */
  requiresGrad?: boolean
}

export interface RandomOptions extends TensorOptions {
  generator?: Generator
}

const TENSOR = ['dtype', 'device', 'requiresGrad', 'shape']

/** Numbers nested to any depth, rectangular. */
export type TensorData = Scalar | TypedArray | readonly TensorData[]

const toOp = op('aten::to')
const requiresGradOp = op('aten::requires_grad_')

/**
 * Makes a tensor from numbers, nested arrays, a typed array or a Buffer; the data is copied.
 *
 * Without a `dtype`: integers and bigints give int64 and any fraction gives float32, as in PyTorch; booleans give
 * bool; `{ re, im }` gives complex64; a typed array gives its own type. With `requiresGrad` integers give float32.
 * A Buffer holds the raw bytes of `dtype` (uint8 when none is given).
 *
 * @param options.shape the shape of a flat typed array or Buffer; default one dimension
 * @throws DataError for ragged arrays, DTypeError for values that the dtype cannot hold
 */
export function tensor(data: TensorData, options: TensorOptions & { shape?: readonly number[] } = {}): Tensor {
  try {
    return fromData(data, options)
  } catch (error) {
    throw asTyped('tensor', error)
  }
}

function fromData(data: TensorData, options: TensorOptions & { shape?: readonly number[] }): Tensor {
  if (isTensor(data)) throw new ConfigError('tensor() copies JavaScript data; use clone() or to() for a Tensor')
  const { requiresGrad = false, shape } = optionsOf(options, 'tensor', TENSOR)
  if (options.dtype !== undefined) dtypeFacts(options.dtype)
  const device = options.device ?? (currentContext().deviceName as Device | null) ?? 'cpu'
  const made = ArrayBuffer.isView(data)
    ? fromView(data as TypedArray, options.dtype, shape, device)
    : fromNested(data, options.dtype, requiresGrad, device, shape)
  return requiresGrad ? requiringGrad(made) : made
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
      throw new DataError(`a Buffer of ${data.byteLength} bytes does not hold whole ${dtype} values of ${bytes} bytes`)
    }
    return fromTypedArray(data, shape ?? [data.byteLength / bytes], dtype, device)
  }
  const own = viewDType(data)
  if (wanted !== undefined && !holds(wanted, own)) {
    const [low, high] = limits(wanted)
    for (const value of data) {
      const whole = typeof value === 'bigint' ? value : Math.trunc(value)
      if (!(whole >= low && whole <= high)) throw unfit(value, wanted)
    }
  }
  const made = fromTypedArray(data, shape ?? [data.length], own, device)
  return wanted === undefined || wanted === own ? made : replaced(made, wanted)
}

function viewDType(data: ArrayBufferView): DType {
  const name = Object.prototype.toString.call(data).slice(8, -1)
  const found = viewNames[name]
  if (found === undefined) throw new DTypeError(`tensor() cannot read a ${name}; use a typed array or a Buffer`)
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
      throw new DataError('tensor() was given arrays nested deeper than the 64 dimensions of a tensor')
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
    const made = fromTypedArray(parts, size, dtype === 'complex128' ? dtype : 'complex64', device)
    return dtype === 'complex32' ? replaced(made, dtype) : made
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
        throw new DTypeError(`${number} is not an integer and cannot be ${dtype}`, { value, dtype })
      }
      if (number < low || number > high) throw unfit(number, dtype)
      values[i] = wide ? BigInt(number) : Number(number)
    }
  }
  return fromTypedArray(values, size, dtype, device)
}

/** The least and the greatest number of an integer dtype. */
function limits(dtype: DType): [bigint, bigint] {
  const bits = BigInt(8 * dtypeFacts(dtype).bytes)
  return dtype.startsWith('u') ? [0n, 2n ** bits - 1n] : [-(2n ** (bits - 1n)), 2n ** (bits - 1n) - 1n]
}

/** Whether every value of `own` is within the limits of `wanted`. */
function holds(wanted: DType, own: DType): boolean {
  if (wanted === own || dtypeFacts(wanted).kind !== 'integer') return true
  if (dtypeFacts(own).kind !== 'integer') return false
  const [low, high] = limits(wanted)
  const [least, greatest] = limits(own)
  return low <= least && greatest <= high
}

function unfit(value: number | bigint, dtype: DType): DTypeError {
  return new DTypeError(`${value} does not fit in ${dtype}`, { value, dtype })
}

function toNumber(value: Scalar): number {
  if (typeof value === 'object') throw new DTypeError('a complex number needs a complex dtype')
  return Number(value)
}

function inferDType(values: readonly Scalar[], requiresGrad: boolean): DType {
  let result: DType = values.length === 0 ? 'float32' : 'bool'
  for (const value of values) {
    if (typeof value === 'object') return 'complex64'
    if (typeof value === 'boolean') continue
    const integer = typeof value === 'bigint' || Number.isInteger(value)
    if (!integer) result = 'float32'
    else if (result === 'bool') result = 'int64'
  }
  return result === 'int64' && requiresGrad ? 'float32' : result
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
    const got = Array.isArray(data) ? `an array of ${data.length}` : data === null ? 'null' : `a ${type}`
    throw new DataError(
      `tensor() expected a number${where(path)}, got ${got}; nested arrays must all have the same depth`,
      { path },
    )
  }
  if (!Array.isArray(data) || data.length !== shape[depth]) {
    const got = Array.isArray(data) ? `${data.length}` : `a ${typeof data}`
    throw new DataError(
      `tensor() expected an array of ${shape[depth]}${where(path)}, got ${got}; nested arrays must be rectangular`,
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

/** Wraps a factory operator: options by name, `requiresGrad` afterwards. */
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
    const made = make(...args.slice(0, -1), rest) as Tensor
    return requiresGrad === true ? requiringGrad(made) : made
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

/** A tensor of zeros: `zeros([2, 3])`. float32 unless told. */
export const zeros = (shape: readonly number[], options: TensorOptions = {}): Tensor => make.zeros(shape, options)
/** A tensor of ones. float32 unless told. */
export const ones = (shape: readonly number[], options: TensorOptions = {}): Tensor => make.ones(shape, options)
/** A tensor whose values are whatever was in memory. */
export const empty = (shape: readonly number[], options: TensorOptions = {}): Tensor => make.empty(shape, options)
/** A tensor filled with one value; its dtype follows the value (see {@link tensor}). */
export const full = (shape: readonly number[], value: Scalar, options: TensorOptions = {}): Tensor =>
  make.full(shape, value, options)
/** Uniform random numbers in [0, 1). */
export const rand = (shape: readonly number[], options: RandomOptions = {}): Tensor => make.rand(shape, options)
/** Standard normal random numbers. */
export const randn = (shape: readonly number[], options: RandomOptions = {}): Tensor => make.randn(shape, options)
/** Random integers in [low, high), int64. */
export const randint = (low: number, high: number, shape: readonly number[], options: RandomOptions = {}): Tensor =>
  make.randint(low, high, shape, options)
/** The numbers 0 to n - 1 in random order, int64. */
export const randperm = (n: number, options: RandomOptions = {}): Tensor => make.randperm(n, options)
/** `steps` numbers evenly from `start` to `end`, both included. */
export const linspace = (start: number, end: number, steps: number, options: TensorOptions = {}): Tensor =>
  make.linspace(start, end, steps, options)
/** The n × n identity (n × m when m is given). */
export function eye(n: number, m?: number | TensorOptions, options: TensorOptions = {}): Tensor {
  return typeof m === 'number' ? make.eye(n, m, options) : make.eye(n, m ?? options)
}

/** Evenly spaced numbers: `arange(end)`, `arange(start, end)` or `arange(start, end, step)`; int64 when all are whole. */
export function arange(end: number, options?: TensorOptions): Tensor
export function arange(start: number, end: number, options?: TensorOptions): Tensor
export function arange(start: number, end: number, step: number, options?: TensorOptions): Tensor
export function arange(...args: (number | TensorOptions | undefined)[]): Tensor {
  return make.arange(...args.filter((argument) => argument !== undefined))
}

/** Zeros of another tensor's shape, dtype and device. */
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

/** Joins tensors along an existing dimension. */
export const cat = (tensors: readonly Tensor[], dim = 0): Tensor => catOp(tensors, dim) as Tensor
/** Joins tensors along a new dimension. */
export const stack = (tensors: readonly Tensor[], dim = 0): Tensor => stackOp(tensors, dim) as Tensor

export interface UniqueOptions {
  /** Ascending values. Default true; CUDA sorts always. */
  sorted?: boolean
  /** Also where in the values each element is. Default false: empty. */
  returnInverse?: boolean
  /** Also how often each value comes. Default false: empty. */
  returnCounts?: boolean
  /** Compare slices along this dimension. Default: elements. */
  dim?: number | null
}

/** The distinct elements (or slices) of a tensor, as `torch.unique`: `[values, inverse, counts]`, the latter two int64. */
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

/** A number that stays a floating point one where JavaScript cannot tell: `x.mul(double(2))` promotes an int64 `x`. */
export function double(value: number): number {
  return new Double(value) as unknown as number
}
