import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'

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

/** `'cpu'`, `'cuda'` (the first), `'cuda:1'`, or `'meta'` (shapes without memory). */
export type Device = 'cpu' | 'cuda' | 'meta' | `cuda:${number}`

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
  /** The number of c10::ScalarType. */
  readonly code: number
  readonly bytes: number
  readonly kind: 'float' | 'integer' | 'bool' | 'complex'
  /** How JavaScript sees its bytes; null where it must be converted to float32 first. */
  readonly view: View | null
}

const facts: Record<DType, DTypeFacts> = {
  uint8: { code: 0, bytes: 1, kind: 'integer', view: Uint8Array },
  int8: { code: 1, bytes: 1, kind: 'integer', view: Int8Array },
  int16: { code: 2, bytes: 2, kind: 'integer', view: Int16Array },
  int32: { code: 3, bytes: 4, kind: 'integer', view: Int32Array },
  int64: { code: 4, bytes: 8, kind: 'integer', view: BigInt64Array },
  float16: { code: 5, bytes: 2, kind: 'float', view: null },
  float32: { code: 6, bytes: 4, kind: 'float', view: Float32Array },
  float64: { code: 7, bytes: 8, kind: 'float', view: Float64Array },
  complex32: { code: 8, bytes: 4, kind: 'complex', view: null },
  complex64: { code: 9, bytes: 8, kind: 'complex', view: Float32Array },
  complex128: { code: 10, bytes: 16, kind: 'complex', view: Float64Array },
  bool: { code: 11, bytes: 1, kind: 'bool', view: Uint8Array },
  bfloat16: { code: 15, bytes: 2, kind: 'float', view: null },
  float8_e5m2: { code: 23, bytes: 1, kind: 'float', view: null },
  float8_e4m3fn: { code: 24, bytes: 1, kind: 'float', view: null },
  uint16: { code: 27, bytes: 2, kind: 'integer', view: Uint16Array },
  uint32: { code: 28, bytes: 4, kind: 'integer', view: Uint32Array },
  uint64: { code: 29, bytes: 8, kind: 'integer', view: BigUint64Array },
}

const names: (DType | undefined)[] = []
for (const name of Object.keys(facts) as DType[]) names[facts[name].code] = name

export function dtypeFacts(dtype: DType): DTypeFacts {
  const found = typeof dtype === 'string' ? facts[dtype] : undefined
  if (found === undefined || !Object.hasOwn(facts, dtype)) {
    throw new ConfigError(`${shown(dtype)} is not a dtype; use one of ${Object.keys(facts).join(', ')}`, { dtype })
  }
  return found
}

/** The name for a c10::ScalarType number. */
export function dtypeName(code: number): DType {
  return names[code] ?? (`dtype#${code}` as DType)
}

export function deviceName(type: number, index: number): Device {
  if (type === 0) return 'cpu'
  if (type === 1) return `cuda:${Math.max(index, 0)}`
  return type === 14 ? 'meta' : (`device#${type}` as Device)
}

/** The native device word: 0 for none, else 1 + type * 256 + index (255 where none was named). */
export function deviceWord(device: Device | null): number {
  if (device === null) return 0
  const match = typeof device === 'string' ? /^(cpu|meta|cuda)(?::(\d{1,2}))?$/.exec(device) : null
  if (match === null) {
    throw new ConfigError(`${shown(device)} is not a device; use 'cpu', 'cuda', 'cuda:0' or 'meta'`, { device })
  }
  const type = match[1] === 'cpu' ? 0 : match[1] === 'cuda' ? 1 : 14
  return 1 + type * 256 + (match[2] === undefined ? 255 : Number(match[2]))
}
