import { elementsOf, isArrayLike, shown } from '../../base/check.js'
import { DataError, ShapeError } from '../../base/errors.js'
import { withoutEnd } from '../../base/words.js'
import { Tensor } from '../../tensor/index.js'
import { requireSameCount } from './metric.js'

/** One number for each sample: an array, a typed array, or a tensor of shape [samples]. */
export type Values = ArrayLike<number | boolean | bigint> | Tensor

/** Return finite numbers, one for each sample, after checking them. */
export function valuesOf(role: string, values: Values): number[] {
  if (values instanceof Tensor && values.ndim !== 1) {
    throw new ShapeError(`Metric: expected ${role} of shape [samples], got [${values.shape}]`, {
      shape: values.shape,
    })
  }
  const raw: unknown = values instanceof Tensor ? values.toArray() : values
  if (!isArrayLike(raw)) {
    throw new DataError(`Metric: expected ${role} to be a list of numbers, got ${shown(raw)}`, { role })
  }
  return elementsOf('Metric', role, raw, (value, i) => {
    const number = ['number', 'boolean', 'bigint'].includes(typeof value) ? Number(value) : Number.NaN
    if (Number.isFinite(number)) return number
    throw new DataError(`Metric: expected ${role}[${i}] to be a finite number, got ${shown(value)}`, { role, index: i })
  })
}

/** Return two lists of finite numbers of equal length, at least one. */
export function valuePairs(targets: Values, predictions: Values): { truth: number[]; guess: number[] } {
  const truth = valuesOf('targets', targets)
  const guess = valuesOf('predictions', predictions)
  requireSameCount('Metric', guess.length, truth.length)
  if (truth.length === 0) throw new DataError('Metric: expected at least one sample, got none')
  return { truth, guess }
}

// White space as Python defines it, which determines the words of sacrebleu and jiwer. JavaScript's \s includes U+FEFF and
// lacks U+001C to U+001F and U+0085.
const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000'
const SPACES = new RegExp(`[${SPACE}]+`, 'u')
const SEVERAL = new RegExp(`[${SPACE}]{2,}`, 'gu')
const START = new RegExp(`^[${SPACE}]+`, 'u')
const ONE = new RegExp(`[${SPACE}]`, 'u')

/** Split like Python's `text.split()`. */
export const splitWords = (text: string): string[] => text.split(SPACES).filter((word) => word !== '')

/** Strip like Python's `text.strip()`. */
export const strip = (text: string): string => stripEnd(text.replace(START, ''))

/** Strip like Python's `text.rstrip()`. */
export const stripEnd = (text: string): string => withoutEnd(text, ONE)

/** Replace runs of two or more white-space characters with one space. */
export const squeeze = (text: string): string => text.replace(SEVERAL, ' ')
