import { LazyTensor } from '../../../files/pickle/tensors.js'
import { Tensor, tensor } from '../../../tensor/index.js'

/** A waveform as a file holds it. */
export type Waveform = Tensor | LazyTensor

/** What the fields of a sample that differ between layouts may be. */
export interface Forms {
  third: FieldForm
  fourth: FieldForm
}

export interface FieldForm {
  /** As many 0s and 1s as there are tokens. */
  turnIds: boolean
  /** Token numbers; also an empty list. */
  ids: boolean
  /** Samples of audio, or none. */
  waveform: boolean
  /** One whole number. */
  index: boolean
}

const NOTHING: FieldForm = { turnIds: false, ids: false, waveform: false, index: false }

/** What the fourth and fifth fields of a sample may be. */
export function formsOf(sample: readonly unknown[], ids: readonly number[]): Forms {
  return { third: formOf(sample[3], ids), fourth: formOf(sample[4], ids) }
}

function formOf(value: unknown, ids: readonly number[]): FieldForm {
  if (value === null) return { ...NOTHING, ids: true, waveform: true }
  if (isArray(value)) {
    if (value.shape.length === 0) return { ...NOTHING, index: isWhole(value) }
    const whole = isWhole(value)
    const [length = 0] = value.shape
    const binary = whole && value instanceof Tensor && length === ids.length && isBinary(numbersOf(value))
    return { ...NOTHING, turnIds: binary, ids: whole || length === 0, waveform: !whole }
  }
  if (typeof value === 'number') return { ...NOTHING, index: Number.isInteger(value) }
  if (!Array.isArray(value) || !value.every((item) => typeof item === 'number')) return NOTHING
  const whole = value.every((item) => Number.isInteger(item) && item >= 0)
  const turnIds = value.length === ids.length && isBinary(value)
  // Python's 0.0 and 0 are alike here: a list of zeros may be a waveform of silence.
  return { turnIds, ids: whole, waveform: !whole || value.every((item) => item === 0), index: false }
}

export const isArray = (value: unknown): value is Waveform => value instanceof Tensor || value instanceof LazyTensor

const isWhole = (value: Waveform): boolean => /^(u?int|bool)/.test(value.dtype)
const isBinary = (values: readonly number[]): boolean => values.every((value) => value === 0 || value === 1)

/** A list or array of whole numbers as plain numbers; undefined for anything else. */
export async function wholeNumbers(value: unknown): Promise<readonly number[] | undefined> {
  if (value instanceof LazyTensor) {
    const read = await value.read()
    try {
      return wholeList(numbersOf(read))
    } finally {
      read.dispose()
    }
  }
  if (value instanceof Tensor) return value.ndim === 1 && isWhole(value) ? wholeList(numbersOf(value)) : undefined
  return Array.isArray(value) ? wholeList(value) : undefined
}

const wholeList = (values: readonly unknown[]): readonly number[] | undefined =>
  values.every((value) => Number.isSafeInteger(value) && (value as number) >= 0)
    ? (values as readonly number[])
    : undefined

function numbersOf(value: Tensor): number[] {
  return (value.toArray() as (number | bigint | boolean)[]).map(Number)
}

/** One number, also where it is an array of one. */
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
 * A waveform: an array as it is, or a view of it where it is [1, samples]; a list of numbers as float32; null for an empty
 * one or None. Undefined for anything else.
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
