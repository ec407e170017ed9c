import { LazyTensor } from '../../../files/pickle/tensors.js'
import { Tensor, tensor } from '../../../tensor/index.js'

/** A waveform in a file. */
export type Waveform = Tensor | LazyTensor

/** Possible contents of the fields that differ between layouts. */
export interface Forms {
  third: FieldForm
  fourth: FieldForm
}

export interface FieldForm {
  /** 0s and 1s, one per token. */
  turnIds: boolean
  /** Token ids, or an empty list. */
  ids: boolean
  /** Audio samples, or none. */
  waveform: boolean
  /** A single integer. */
  index: boolean
}

const NOTHING: FieldForm = { turnIds: false, ids: false, waveform: false, index: false }

/** Return the possible contents of the fourth and fifth field of a sample. */
export function formsOf(sample: readonly unknown[], ids: readonly number[]): Forms {
  return { third: formOf(sample[3], ids), fourth: formOf(sample[4], ids) }
}

function formOf(value: unknown, ids: readonly number[]): FieldForm {
  if (value === null) return { ...NOTHING, ids: true, waveform: true }
  if (isArray(value)) {
    if (value.shape.length === 0) return { ...NOTHING, index: isIntegerArray(value) }
    const whole = isIntegerArray(value)
    const [length = 0] = value.shape
    const binary = whole && value instanceof Tensor && length === ids.length && isBinary(numbersOf(value))
    return { ...NOTHING, turnIds: binary, ids: whole || length === 0, waveform: !whole }
  }
  if (typeof value === 'number') return { ...NOTHING, index: Number.isInteger(value) }
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'number')) return NOTHING
  const whole = value.every((item) => Number.isInteger(item) && item >= 0)
  const turnIds = value.length === ids.length && isBinary(value)
  // Python's 0.0 and 0 are equal here: a list of zeros may be silent audio.
  return { turnIds, ids: whole, waveform: !whole || value.every((item) => item === 0), index: false }
}

export const isArray = (value: unknown): value is Waveform => value instanceof Tensor || value instanceof LazyTensor

const isIntegerArray = (value: Waveform): boolean => /^(u?int|bool)/.test(value.dtype)
const isBinary = (values: readonly number[]): boolean => values.every((value) => value === 0 || value === 1)

/** Return a list or array of integers as numbers; undefined for other values. */
export async function integersOf(value: unknown): Promise<readonly number[] | undefined> {
  if (value instanceof LazyTensor) {
    const read = await value.read()
    try {
      return integerList(numbersOf(read))
    } finally {
      read.dispose()
    }
  }
  if (value instanceof Tensor)
    return value.ndim === 1 && isIntegerArray(value) ? integerList(numbersOf(value)) : undefined
  return Array.isArray(value) ? integerList(value) : undefined
}

const integerList = (values: readonly unknown[]): readonly number[] | undefined =>
  values.every((value) => Number.isSafeInteger(value) && (value as number) >= 0)
    ? (values as readonly number[])
    : undefined

function numbersOf(value: Tensor): number[] {
  return (value.toArray() as (number | bigint | boolean)[]).map(Number)
}

/** Return a single number, or the only element of an array. */
export async function oneNumber(value: unknown): Promise<number | undefined> {
  if (typeof value === 'number') return value
  if (typeof value === 'bigint' || typeof value === 'boolean') return Number(value)
  if (Array.isArray(value)) return value.length === 1 ? oneNumber(value[0]) : undefined
  if (!isArray(value) || value.shape.some((size) => size !== 1)) return undefined
  if (value instanceof Tensor) return Number(value.item())
  const read = await value.read()
  try {
    return Number(read.item())
  } finally {
    read.dispose()
  }
}

/**
 * Return a waveform: an array as it is, or its view for [1, samples]; a list of numbers as float32; null for an empty one or None;
 * undefined for other values.
 */
export function waveformOf(value: unknown): Waveform | null | undefined {
  if (value === null) return null
  if (value instanceof Tensor) {
    if (!/^float/.test(value.dtype)) return undefined
    if (value.numel() === 0) return null
    if (value.ndim === 2 && value.size(0) === 1) return value.select(0, 0)
    return value.ndim === 1 ? value : undefined
  }
  if (value instanceof LazyTensor) {
    if (!/^float/.test(value.dtype) || value.shape.length !== 1) return undefined
    return value.shape[0] === 0 ? null : value
  }
  if (!Array.isArray(value)) return undefined
  if (value.length === 0) return null
  if (!value.every((item) => typeof item === 'number')) return undefined
  return tensor(Float32Array.from(value as number[]))
}
