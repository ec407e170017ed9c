import { shown } from '../base/arguments.js'
import { ConfigError, DTypeError } from '../base/errors.js'
import { nearest } from '../base/words.js'

/** Element types, by PyTorch's names. */
export type DType =
  | 'float32'
  | 'float64'
  | 'float16'
  | 'bfloat16'
  | 'int64'
  | 'int32'
  | 'int16'
  | 'int8'
  | 'uint8'
  | 'uint16'
  | 'uint32'
  | 'uint64'
  | 'bool'
  | 'complex64'
  | 'complex128'
  | 'complex32'
  | 'float8_e4m3fn'
  | 'float8_e5m2'

/** `'cpu'`, `'cuda'` (the first device), `'cuda:1'`, or `'meta'` (shapes without memory). */
export type Device = 'cpu' | 'cuda' | 'meta' | `cuda:${number}`

/** Return the option of `to` for a name: a device's or a dtype's. */
export const targetOf = (name: string): { device?: Device; dtype?: DType } =>
  /^(cpu|cuda|meta)(:|$)/.test(name) ? { device: name as Device } : { dtype: name as DType }

export type TypedArray =
  | Float32Array
  | Float64Array
  | Int8Array
  | Uint8Array
  | Uint8ClampedArray
  | Int16Array
  | Uint16Array
  | Int32Array
  | Uint32Array
  | BigInt64Array
  | BigUint64Array

type View = new (buffer: ArrayBuffer) => TypedArray

interface DTypeFacts {
  /** Code in c10::ScalarType. */
  readonly code: number
  readonly bytes: number
  readonly kind: 'float' | 'integer' | 'bool' | 'complex'
  /** JavaScript's typed array for its bytes; null if it must be converted to float32 first. */
  readonly view: View | null
  /** NumPy's name: kind and bytes; undefined if NumPy has none. */
  readonly numpy?: string
  /** Name in safetensors. */
  readonly safetensors?: string
  /** Torch's storage class; newer dtypes have none. */
  readonly storage?: string
}

const facts: Record<DType, DTypeFacts> = {
  uint8: {
    code: 0,
    bytes: 1,
    kind: 'integer',
    view: Uint8Array,
    numpy: 'u1',
    safetensors: 'U8',
    storage: 'ByteStorage',
  },
  int8: { code: 1, bytes: 1, kind: 'integer', view: Int8Array, numpy: 'i1', safetensors: 'I8', storage: 'CharStorage' },
  int16: {
    code: 2,
    bytes: 2,
    kind: 'integer',
    view: Int16Array,
    numpy: 'i2',
    safetensors: 'I16',
    storage: 'ShortStorage',
  },
  int32: {
    code: 3,
    bytes: 4,
    kind: 'integer',
    view: Int32Array,
    numpy: 'i4',
    safetensors: 'I32',
    storage: 'IntStorage',
  },
  int64: {
    code: 4,
    bytes: 8,
    kind: 'integer',
    view: BigInt64Array,
    numpy: 'i8',
    safetensors: 'I64',
    storage: 'LongStorage',
  },
  float16: { code: 5, bytes: 2, kind: 'float', view: null, numpy: 'f2', safetensors: 'F16', storage: 'HalfStorage' },
  float32: {
    code: 6,
    bytes: 4,
    kind: 'float',
    view: Float32Array,
    numpy: 'f4',
    safetensors: 'F32',
    storage: 'FloatStorage',
  },
  float64: {
    code: 7,
    bytes: 8,
    kind: 'float',
    view: Float64Array,
    numpy: 'f8',
    safetensors: 'F64',
    storage: 'DoubleStorage',
  },
  complex32: { code: 8, bytes: 4, kind: 'complex', view: null },
  complex64: {
    code: 9,
    bytes: 8,
    kind: 'complex',
    view: Float32Array,
    numpy: 'c8',
    safetensors: 'C64',
    storage: 'ComplexFloatStorage',
  },
  complex128: {
    code: 10,
    bytes: 16,
    kind: 'complex',
    view: Float64Array,
    numpy: 'c16',
    storage: 'ComplexDoubleStorage',
  },
  bool: {
    code: 11,
    bytes: 1,
    kind: 'bool',
    view: Uint8Array,
    numpy: 'b1',
    safetensors: 'BOOL',
    storage: 'BoolStorage',
  },
  bfloat16: { code: 15, bytes: 2, kind: 'float', view: null, safetensors: 'BF16', storage: 'BFloat16Storage' },
  float8_e5m2: { code: 23, bytes: 1, kind: 'float', view: null, safetensors: 'F8_E5M2' },
  float8_e4m3fn: { code: 24, bytes: 1, kind: 'float', view: null, safetensors: 'F8_E4M3' },
  uint16: { code: 27, bytes: 2, kind: 'integer', view: Uint16Array, numpy: 'u2', safetensors: 'U16' },
  uint32: { code: 28, bytes: 4, kind: 'integer', view: Uint32Array, numpy: 'u4', safetensors: 'U32' },
  uint64: { code: 29, bytes: 8, kind: 'integer', view: BigUint64Array, numpy: 'u8', safetensors: 'U64' },
}

const names: (DType | undefined)[] = []
for (const name of Object.keys(facts) as DType[]) names[facts[name].code] = name

/** All dtypes. */
export const dtypes = Object.keys(facts) as readonly DType[]

/** Return the dtypes by their names in another format. */
export const dtypesBy = (format: 'numpy' | 'safetensors' | 'storage'): Map<string, DType> =>
  new Map(
    dtypes.flatMap((dtype) => {
      const name = facts[dtype][format]
      return name === undefined ? [] : [[name, dtype]]
    }),
  )

export function dtypeFacts(dtype: DType): DTypeFacts {
  const found = typeof dtype === 'string' ? facts[dtype] : undefined
  if (found === undefined || !Object.hasOwn(facts, dtype)) {
    throw dtypeError('dtype', dtype, dtypes)
  }
  return found
}

/** Return the name of a c10::ScalarType code. */
export function dtypeName(code: number): DType {
  return names[code] ?? (`dtype#${code}` as DType)
}

export function deviceName(type: number, index: number): Device {
  if (type === 0) return 'cpu'
  if (type === 1) return `cuda:${Math.max(index, 0)}`
  return type === 14 ? 'meta' : (`device#${type}` as Device)
}

const DEVICE = /^(cpu|meta|cuda)(?::(\d{1,2}))?$/

/** Dtypes of a network's weights. */
/** Dtypes that the weights of a network may have. */
export const NETWORK_DTYPES: readonly DType[] = ['float32', 'bfloat16', 'float16', 'float64']

/** Names of dtypes in PyTorch, transformers.js and safetensors. */
const DTYPE_ALIASES: Readonly<Record<string, DType>> = {
  ...{ float: 'float32', fp32: 'float32', f32: 'float32', single: 'float32' },
  ...{ half: 'float16', fp16: 'float16', f16: 'float16', bf16: 'bfloat16' },
  ...{ double: 'float64', fp64: 'float64', f64: 'float64' },
  ...{ long: 'int64', int: 'int32', short: 'int16', char: 'int8', byte: 'uint8', boolean: 'bool' },
}

/** Quantization schemes by transformers.js's names of quantized dtypes. */
const QUANTIZED: Readonly<Record<string, 'int8' | 'nf4'>> = {
  ...{ q8: 'int8', int8: 'int8', uint8: 'int8' },
  ...{ q4: 'nf4', q4f16: 'nf4', bnb4: 'nf4', nf4: 'nf4', fp4: 'nf4', int4: 'nf4', uint4: 'nf4' },
}

/** Names of devices in other programs. */
const DEVICE_ALIASES: Readonly<Record<string, Device>> = {
  ...{ gpu: 'cuda', webgpu: 'cuda', nvidia: 'cuda', wasm: 'cpu' },
}

const lookUp = <T>(table: Readonly<Record<string, T>>, value: unknown): T | undefined =>
  typeof value === 'string' && Object.hasOwn(table, value.toLowerCase()) ? table[value.toLowerCase()] : undefined

/** Return the error for a wrong device. @param where caller and argument, or the option of a command */
export function deviceError(where: string, value: unknown): ConfigError {
  const near =
    lookUp(DEVICE_ALIASES, value) ?? (typeof value === 'string' ? nearest(value, ['cpu', 'cuda'], 2) : undefined)
  const hint = near === undefined ? '' : ` Did you mean ${quoted(where, near)}?`
  const names = ['cpu', 'cuda', 'cuda:0'].map((name) => quoted(where, name))
  return new ConfigError(
    `${where}: expected a device, ${names[0]}, ${names[1]} or ${names[2]}, got ${shown(value)}.${hint}`,
    {
      argument: 'device',
      value,
    },
  )
}

/** Return the error for a dtype that is not one of `known`. */
export function dtypeError(where: string, value: unknown, known: readonly DType[]): ConfigError | DTypeError {
  const scheme = known === NETWORK_DTYPES ? lookUp(QUANTIZED, value) : undefined
  const device = lookUp(DEVICE_ALIASES, value)
  const near = lookUp(DTYPE_ALIASES, value) ?? (typeof value === 'string' ? nearest(value, known, 3) : undefined)
  const option = where.startsWith('--') ? `--quantize ${scheme}` : `{ quantize: '${scheme}' }`
  const hint = scheme
    ? ` Quantization is another option: ${option}.`
    : device
      ? ` Did you mean the device ${quoted(where, device)}?`
      : near !== undefined && known.includes(near as DType)
        ? ` Did you mean ${quoted(where, near)}?`
        : ''
  const Class = (dtypes as readonly unknown[]).includes(value) ? DTypeError : ConfigError
  const list = `${known.slice(0, -1).join(', ')} or ${known.at(-1)}`
  return new Class(`${where}: expected ${list}, got ${shown(value)}.${hint}`, { argument: 'dtype', value })
}

/** Names are in quotes in code, but not on a command line. */
const quoted = (where: string, name: string): string => (where.startsWith('--') ? name : `'${name}'`)

/** Check a device, which may be left out. @throws ConfigError that suggests the nearest, also for `gpu` or `webgpu` */
export function requireDevice(where: string, device: unknown): void {
  if (device === undefined || (typeof device === 'string' && DEVICE.test(device))) return
  throw deviceError(where, device)
}

/** Check a dtype, which may be left out. @throws ConfigError that suggests the nearest, also for `fp32` or `half` */
export function requireDType(where: string, dtype: unknown): void {
  if (dtype === undefined || (dtypes as readonly unknown[]).includes(dtype)) return
  throw dtypeError(where, dtype, dtypes)
}

/**
 * Check the dtype of a network's weights, which may be left out.
 * @throws ConfigError that suggests the nearest, also for transformers.js's `fp16` or `q4`; DTypeError for a dtype that is not
 *   floating point
 */
export function requireNetworkDType(where: string, dtype: unknown): void {
  if (dtype === undefined || (NETWORK_DTYPES as readonly unknown[]).includes(dtype)) return
  throw dtypeError(where, dtype, NETWORK_DTYPES)
}

/**
 * Return the error for a wrong device or dtype among the arguments that no form of an operator takes; undefined for another
 * mistake.
 */
export function placementError(message: string): Error | undefined {
  const where = /^no form of '(\w+)'/.exec(message)?.[1] ?? 'operator'
  const [, name, value] = /[(,] ?(device|dtype): '([^'\n]{0,100})'/.exec(message.split('; it has:', 1)[0] ?? '') ?? []
  if (name === 'device' && !DEVICE.test(value as string)) return deviceError(`${where}: device`, value)
  if (name !== 'dtype' || (dtypes as readonly unknown[]).includes(value)) return undefined
  return dtypeError(`${where}: dtype`, value, dtypes)
}

/** Encode a device for native code: 0 for none, else 1 + type * 256 + index (255 without an index). */
export function deviceWord(device: Device | null): number {
  if (device === null) return 0
  const match = typeof device === 'string' ? DEVICE.exec(device) : null
  if (match === null) {
    throw deviceError('device', device)
  }
  const type = match[1] === 'cpu' ? 0 : match[1] === 'cuda' ? 1 : 14
  return 1 + type * 256 + (match[2] === undefined ? 255 : Number(match[2]))
}

/** Return whether a dtype is bfloat16 or float16. */
export const isHalf = (dtype: DType): boolean => dtype === 'bfloat16' || dtype === 'float16'
