import {
  argumentError,
  elementsOf,
  isArrayLike,
  isList,
  requireNumber,
  requireObject,
  requireOneOf,
  requireOptions,
  requireWhole,
  shown,
} from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'
import { type DType, type Tensor, tensor } from '../tensor/index.js'

/** Options of one field in `padCollate`. */
export interface CollateField {
  /** Value that pads every sample's list to the longest of the batch. Without it, lists must have equal lengths. */
  pad?: number
  /** Dtype of the tensor. Default: that of the sample's typed array; int64 for plain numbers and bigints, bool for booleans. */
  dtype?: DType
  /** Side to pad. Default 'right'; use 'left' for generation. */
  side?: 'right' | 'left'
  /** Round the padded length up to a multiple of this. Default 1. */
  multipleOf?: number
  /** Shape of one list element, for flattened features: `[80]` reads a typed array as [length, 80]. Default []. */
  elementShape?: readonly number[]
  /** Name of an attention mask to add to the batch: [batch, length] int64, 1 for data and 0 for padding. */
  mask?: string
}

type Masks<F extends Record<string, CollateField>> =
  Extract<F[keyof F], { pad: number }> extends never
    ? never
    : Extract<F[keyof F], { mask: string }> extends never
      ? 'attentionMask'
      : Extract<F[keyof F], { mask: string }>['mask']

/** Collated batch: every field, and the masks: those that fields name, else `attentionMask` of the first padded field. */
export type PaddedBatch<F extends Record<string, CollateField>> = Record<(keyof F & string) | Masks<F>, Tensor>

type Numeric = number | bigint | boolean
type NumericArray = ArrayLike<Numeric> & { constructor: unknown }
/** Value of a field: one number, which gives [batch], or a list, which gives [batch, length, ...elementShape]. */
export type CollateValue = Numeric | ArrayLike<Numeric>

/**
 * Return a collate function that pads: `padCollate({ inputIds: { pad: 1 }, labels: {} })` turns samples `{ inputIds: [0, 31414,
 * 2], labels: 1 }` into `{ inputIds: [batch, longest], labels: [batch], attentionMask }`. Fields that are not named are left
 * out.
 *
 * @throws DataError from the returned function, with field and sample, if a value is missing, not a number, a fraction in an
 *   integer field, or of another length than the batch's without `pad`
 */
export function padCollate<const F extends Record<string, CollateField>>(
  fields: F,
): (samples: readonly { readonly [K in keyof F]: CollateValue }[]) => PaddedBatch<F> {
  requireObject('padCollate', 'fields', fields)
  const entries = Object.entries(fields) as [string, CollateField][]
  for (const [name, field] of entries) check(name, field)
  const named = entries.some(([, field]) => field.mask !== undefined)
  const first = named ? undefined : entries.find(([, field]) => field.pad !== undefined)?.[0]
  return (samples) => {
    if (!isList(samples) || samples.length === 0) {
      throw new DataError(`padCollate: expected an array of samples as batch, got ${shown(samples)}`)
    }
    const batch: Record<string, Tensor> = {}
    for (const [name, field] of entries) {
      const values = elementsOf('padCollate', 'the batch', samples, (sample, i) => fieldOf(sample, name, i))
      const column = new Column(name, field, values)
      batch[name] = column.tensor()
      const mask = field.mask ?? (name === first ? 'attentionMask' : undefined)
      if (mask !== undefined) batch[mask] = column.mask()
    }
    return batch as PaddedBatch<F>
  }
}

function check(name: string, field: CollateField): void {
  const where = `padCollate.${name}`
  requireObject('padCollate', name, field)
  requireOptions(where, field, ['pad', 'side', 'multipleOf', 'elementShape', 'mask', 'dtype'])
  const { pad, side = 'right', multipleOf = 1, elementShape = [], mask } = field
  if (pad !== undefined) requireNumber(where, 'pad', pad)
  requireOneOf(where, 'side', side, ['right', 'left'])
  requireWhole(where, 'multipleOf', multipleOf, 1)
  if (!Array.isArray(elementShape)) throw argumentError(where, 'elementShape', 'an array of sizes', elementShape)
  for (const size of elementShape) requireWhole(where, 'elementShape', size, 1)
  if (mask === undefined) return
  if (typeof mask !== 'string') throw argumentError(where, 'mask', 'a name', mask)
  if (pad === undefined) throw new ConfigError(`${where}: expected a pad value with the mask, got none`, {})
}

function fieldOf(sample: unknown, field: string, place: number): CollateValue {
  const value = (sample as Record<string, unknown> | null | undefined)?.[field]
  if (isNumeric(value) || ArrayBuffer.isView(value)) return value as CollateValue
  if (isArrayLike(value)) {
    return elementsOf('padCollate', `field ${field} of sample ${place}`, value, (one) => {
      if (isNumeric(one)) return one
      throw new DataError(
        `padCollate: expected numbers in field ${field} of sample ${place} of the batch, got ${shown(one)}`,
        {
          field,
          sample: place,
        },
      )
    })
  }
  throw new DataError(
    `padCollate: expected a number or a list of numbers as field ${field} of sample ${place} of the batch, got ${shown(value)}`,
    {
      field,
      sample: place,
    },
  )
}

const isNumeric = (value: unknown): value is Numeric =>
  typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean'

/** Values of one field of a batch. */
class Column {
  readonly #name: string
  readonly #field: CollateField
  readonly #rows: ArrayLike<Numeric>[]
  readonly #scalar: boolean
  /** Numbers in one list element, and list elements in a row of the batch. */
  readonly #element: number
  readonly #length: number

  constructor(name: string, field: CollateField, values: CollateValue[]) {
    this.#name = name
    this.#field = field
    this.#scalar = isNumeric(values[0])
    this.#rows = values.map((value) => (isNumeric(value) ? [value] : value))
    this.#element = (field.elementShape ?? []).reduce((product, size) => product * size, 1)
    const lengths = this.#rows.map((row) => row.length / this.#element)
    const multiple = field.multipleOf ?? 1
    const longest = lengths.reduce((most, length) => Math.max(most, length), 0)
    this.#length = field.pad === undefined ? (lengths[0] as number) : Math.ceil(longest / multiple) * multiple
    values.forEach((value, i) => {
      if (isNumeric(value) !== this.#scalar)
        throw this.#error(
          i,
          'a number in every sample, or a list in every sample',
          this.#scalar ? 'a list' : 'a number',
        )
      if (!Number.isInteger(lengths[i])) {
        throw this.#error(i, `a multiple of elementShape's ${this.#element} numbers`, `${this.#rows[i]?.length}`)
      }
      if (field.pad === undefined && lengths[i] !== this.#length) {
        throw this.#error(
          i,
          `of length ${this.#length}, as in sample 0`,
          `${lengths[i]}. Set a pad value for the field`,
        )
      }
    })
  }

  /** Return the field as [batch] or [batch, length, ...elementShape]. */
  tensor(): Tensor {
    const dtype = this.#field.dtype ?? inferred(this.#rows[0] as NumericArray)
    const width = this.#length * this.#element
    const data = this.#allocate(dtype, width)
    const big = data instanceof BigInt64Array
    const integer = big || !/^(b?float|complex)/.test(dtype)
    const { pad } = this.#field
    if (pad !== undefined && integer && !Number.isInteger(pad)) {
      throw argumentError(`padCollate.${this.#name}`, 'pad', `an integer, as the field is ${dtype}`, pad)
    }
    if (pad) data.fill((big ? BigInt(pad) : pad) as never)
    this.#rows.forEach((row, i) => {
      const start = i * width + this.#offset(row)
      if (data.constructor === (row as NumericArray).constructor) {
        data.set(row as never, start)
        return
      }
      for (let j = 0; j < row.length; j++) {
        const value = row[j] as Numeric
        if (!isNumeric(value) || (integer && typeof value === 'number' && !Number.isInteger(value))) {
          throw this.#error(i, `${dtype} numbers`, `${shown(value)}. Set another dtype for the field`)
        }
        data[start + j] = (big ? BigInt(value) : Number(value)) as never
      }
    })
    const count = this.#rows.length
    return tensor(data, {
      dtype,
      shape: this.#scalar ? [count] : [count, this.#length, ...(this.#field.elementShape ?? [])],
    })
  }

  /** Return the mask, [batch, length] int64. */
  mask(): Tensor {
    const data = new BigInt64Array(this.#rows.length * this.#length)
    this.#rows.forEach((row, i) => {
      const start = i * this.#length + this.#offset(row) / this.#element
      data.fill(1n, start, start + row.length / this.#element)
    })
    return tensor(data, { shape: [this.#rows.length, this.#length] })
  }

  #allocate(dtype: DType, width: number) {
    try {
      return new (storage(dtype))(this.#rows.length * width)
    } catch (cause) {
      throw new DataError(
        `padCollate: expected rows of field ${this.#name} that fit in memory, got ${this.#rows.length} rows of ${width} numbers`,
        {
          field: this.#name,
          cause,
        },
      )
    }
  }

  /** Return the index where a row's numbers begin. */
  #offset(row: ArrayLike<Numeric>): number {
    return this.#field.side === 'left' ? this.#length * this.#element - row.length : 0
  }

  #error(sample: number, expected: string, got: string): DataError {
    const where = `field ${this.#name} of sample ${sample} of the batch`
    return new DataError(`padCollate: expected ${where} to be ${expected}, got ${got}`, { field: this.#name, sample })
  }
}

const DTYPES = new Map<unknown, DType>([
  [Float32Array, 'float32'],
  [Float64Array, 'float64'],
  [Int8Array, 'int8'],
  [Int16Array, 'int16'],
  [Int32Array, 'int32'],
  [Uint8Array, 'uint8'],
  [BigInt64Array, 'int64'],
])

function inferred(row: NumericArray): DType {
  return DTYPES.get(row.constructor) ?? (typeof row[0] === 'boolean' ? 'bool' : 'int64')
}

const STORAGES = {
  float64: Float64Array,
  int8: Int8Array,
  int16: Int16Array,
  int32: Int32Array,
  int64: BigInt64Array,
  uint8: Uint8Array,
  bool: Uint8Array,
}

/** Return the typed array class to fill for a dtype; the tensor rounds half precision from float32. */
function storage(dtype: DType) {
  return STORAGES[dtype as keyof typeof STORAGES] ?? Float32Array
}
