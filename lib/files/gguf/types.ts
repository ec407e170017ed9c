import type { DType } from '../../tensor/dtype.js'

/** Type of a tensor's values, by the format's names. */
export type GgufType =
  | 'F32'
  | 'F16'
  | 'Q4_0'
  | 'Q4_1'
  | 'Q5_0'
  | 'Q5_1'
  | 'Q8_0'
  | 'Q8_1'
  | 'Q2_K'
  | 'Q3_K'
  | 'Q4_K'
  | 'Q5_K'
  | 'Q6_K'
  | 'Q8_K'
  | 'IQ2_XXS'
  | 'IQ2_XS'
  | 'IQ3_XXS'
  | 'IQ1_S'
  | 'IQ4_NL'
  | 'IQ3_S'
  | 'IQ2_S'
  | 'IQ4_XS'
  | 'I8'
  | 'I16'
  | 'I32'
  | 'I64'
  | 'F64'
  | 'IQ1_M'
  | 'BF16'
  | 'TQ1_0'
  | 'TQ2_0'
  | 'MXFP4'

/** Types that `saveGguf` writes. */
export const GGUF_SAVE_TYPES = ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0'] as const
export type GgufSaveType = (typeof GGUF_SAVE_TYPES)[number]

interface TypeFacts {
  /** Code in files. */
  readonly code: number
  /** Number of values in a block; the length of a row is a multiple of it. */
  readonly block: number
  /** Number of bytes of a block. */
  readonly bytes: number
  /** Dtype of types without blocks. */
  readonly dtype?: DType
  /** Whether native code can dequantize its blocks. */
  readonly isRead?: true
}

/** Block and byte sizes are those of ggml's `type_traits`. */
export const TYPES: Readonly<Record<GgufType, TypeFacts>> = {
  F32: { code: 0, block: 1, bytes: 4, dtype: 'float32' },
  F16: { code: 1, block: 1, bytes: 2, dtype: 'float16' },
  Q4_0: { code: 2, block: 32, bytes: 18, isRead: true },
  Q4_1: { code: 3, block: 32, bytes: 20, isRead: true },
  Q5_0: { code: 6, block: 32, bytes: 22, isRead: true },
  Q5_1: { code: 7, block: 32, bytes: 24, isRead: true },
  Q8_0: { code: 8, block: 32, bytes: 34, isRead: true },
  Q8_1: { code: 9, block: 32, bytes: 36 },
  Q2_K: { code: 10, block: 256, bytes: 84, isRead: true },
  Q3_K: { code: 11, block: 256, bytes: 110, isRead: true },
  Q4_K: { code: 12, block: 256, bytes: 144, isRead: true },
  Q5_K: { code: 13, block: 256, bytes: 176, isRead: true },
  Q6_K: { code: 14, block: 256, bytes: 210, isRead: true },
  Q8_K: { code: 15, block: 256, bytes: 292 },
  IQ2_XXS: { code: 16, block: 256, bytes: 66 },
  IQ2_XS: { code: 17, block: 256, bytes: 74 },
  IQ3_XXS: { code: 18, block: 256, bytes: 98 },
  IQ1_S: { code: 19, block: 256, bytes: 50 },
  IQ4_NL: { code: 20, block: 32, bytes: 18, isRead: true },
  IQ3_S: { code: 21, block: 256, bytes: 110 },
  IQ2_S: { code: 22, block: 256, bytes: 82 },
  IQ4_XS: { code: 23, block: 256, bytes: 136, isRead: true },
  I8: { code: 24, block: 1, bytes: 1, dtype: 'int8' },
  I16: { code: 25, block: 1, bytes: 2, dtype: 'int16' },
  I32: { code: 26, block: 1, bytes: 4, dtype: 'int32' },
  I64: { code: 27, block: 1, bytes: 8, dtype: 'int64' },
  F64: { code: 28, block: 1, bytes: 8, dtype: 'float64' },
  IQ1_M: { code: 29, block: 256, bytes: 56 },
  BF16: { code: 30, block: 1, bytes: 2, dtype: 'bfloat16' },
  TQ1_0: { code: 34, block: 256, bytes: 54 },
  TQ2_0: { code: 35, block: 256, bytes: 66 },
  MXFP4: { code: 39, block: 32, bytes: 17, isRead: true },
}

export const typesByCode: ReadonlyMap<number, GgufType> = new Map(
  Object.entries(TYPES).map(([name, { code }]) => [code, name as GgufType]),
)

/** Types whose values can be loaded. */
export const READ_TYPES: readonly string[] = Object.entries(TYPES)
  .filter(([, { dtype, isRead }]) => dtype !== undefined || isRead)
  .map(([name]) => name)

/** Type of a metadata value; `…[]` for arrays. Arrays of arrays are `array[]`. */
export type GgufValueType = GgufElementType | `${GgufElementType}[]` | 'array[]'

export type GgufElementType =
  | 'uint8'
  | 'int8'
  | 'uint16'
  | 'int16'
  | 'uint32'
  | 'int32'
  | 'float32'
  | 'bool'
  | 'string'
  | 'uint64'
  | 'int64'
  | 'float64'

/** Value of metadata. 64-bit integers are numbers if exact, else bigints. */
export type GgufValue =
  | string
  | number
  | bigint
  | boolean
  | readonly string[]
  | readonly boolean[]
  | readonly number[]
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array
  | readonly GgufValue[]

/** Header of one tensor. */
export interface GgufTensor {
  readonly type: GgufType
  /** Shape in row-major order: the last size is the length of a row. The file stores the sizes in reverse. */
  readonly shape: readonly number[]
  /** Index in `paths` of the file that contains it: 0, unless the model is split. */
  readonly shard: number
  /** Offset in that file of its first byte. */
  readonly offset: number
  /** Number of bytes. */
  readonly bytes: number
}

type NumberArrays = Partial<
  Record<
    GgufElementType,
    { bytes: number; make(buffer: ArrayBuffer): Exclude<GgufValue, string | number | bigint | boolean> }
  >
>

/** Types of values by their codes in the format. */
export const VALUE_TYPES: readonly (GgufElementType | 'array')[] = [
  'uint8',
  'int8',
  'uint16',
  'int16',
  'uint32',
  'int32',
  'float32',
  'bool',
  'string',
  'array',
  'uint64',
  'int64',
  'float64',
]

export const ARRAYS: NumberArrays = {
  uint8: { bytes: 1, make: (buffer) => new Uint8Array(buffer) },
  int8: { bytes: 1, make: (buffer) => new Int8Array(buffer) },
  uint16: { bytes: 2, make: (buffer) => new Uint16Array(buffer) },
  int16: { bytes: 2, make: (buffer) => new Int16Array(buffer) },
  uint32: { bytes: 4, make: (buffer) => new Uint32Array(buffer) },
  int32: { bytes: 4, make: (buffer) => new Int32Array(buffer) },
  float32: { bytes: 4, make: (buffer) => new Float32Array(buffer) },
  uint64: { bytes: 8, make: (buffer) => new BigUint64Array(buffer) },
  int64: { bytes: 8, make: (buffer) => new BigInt64Array(buffer) },
  float64: { bytes: 8, make: (buffer) => new Float64Array(buffer) },
}
