import { argumentError, isArrayLike, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { ChangesOf } from '../../../base/settings.js'
import { SEGMENT_SETTINGS } from '../configuration/settings.js'
import { UsdmTokenizer } from '../data/text.js'
import type { UnitWord } from './words.js'

/** A random generator, such as `Random`: uniform numbers from 0 to below 1. */
export interface Draws {
  float(): number
}

/** A segment of an utterance: its words, and its units. */
export interface UstmSegment {
  text: string
  units: number[]
}

/** Options of `ustmSegments`. @interface */
export type SegmentOptions = ChangesOf<typeof SEGMENT_SETTINGS.table>

/**
 * Split an utterance into segments of about ten seconds that start at words. For S segments of N units, boundary k is at the word nearest
 * to a draw from a normal distribution with mean kN/S and standard deviation N/2S, truncated at two standard deviations.
 */
export function ustmSegments(
  words: readonly UnitWord[],
  units: ArrayLike<number>,
  draws: Draws,
  options: SegmentOptions = {},
): UstmSegment[] {
  const where = 'ustmSegments'
  requireForm(where, 'draws', draws, { float: 'function' })
  const { segmentUnits, compat } = SEGMENT_SETTINGS.read(where, options)
  requireForm(where, 'words', words, [{ text: 'string', start: 'number', end: 'number' }])
  if (!isArrayLike(units)) throw argumentError(where, 'units', 'a list of units', units)
  const total = words.at(-1)?.end ?? 0
  if (total === 0 || total > units.length) {
    throw new DataError(`expected words within the ${units.length} units, got words up to unit ${total}`, {
      words: total,
    })
  }
  const count = Math.floor(total / segmentUnits) + 1
  const starts = [...words.map(({ start }) => start), total]
  const bounds = new Set([0, words.length])
  for (let k = 1; k < count; k++) {
    const draw = () => ((k + 0.5 * cutNormal(draws)) * total) / count
    const place = draw()
    let best = 0
    let least = Number.POSITIVE_INFINITY
    for (const [i, start] of starts.entries()) {
      const distance = Math.abs(start - (compat === 'published' && i > 0 ? draw() : place))
      if (distance >= least) continue
      best = i
      least = distance
    }
    bounds.add(best)
  }
  const sorted = [...bounds].sort((a, b) => a - b)
  return sorted.slice(1).map((to, i) => {
    const segmentWords = words.slice(sorted[i], to)
    const [first, last] = [segmentWords[0] as UnitWord, segmentWords.at(-1) as UnitWord]
    return {
      text: segmentWords.map(({ text }) => text).join(' '),
      units: Array.from({ length: last.end - first.start }, (_, unit) => units[first.start + unit] as number),
    }
  })
}

/** Draw from the standard normal distribution truncated to -2 … 2 (Box-Muller with rejection). */
function cutNormal(draws: Draws): number {
  for (;;) {
    const radius = Math.sqrt(-2 * Math.log(1 - draws.float()))
    const value = radius * Math.cos(2 * Math.PI * draws.float())
    if (Math.abs(value) <= 2) return value
    if (Number.isNaN(value)) {
      throw argumentError('ustmSegments', 'the result of draws.float()', 'a number from 0 to below 1', value)
    }
  }
}

/**
 * Return one sequence for USDM's pre-training: BOS; each segment as speech or as text, at random; `<|continue|>` where the modality
 * changes between segments; at random, `<|correspond|>` with the same segment in the other modality; EOS. As a grammar:
 * `BOS (continue? main (correspond other)?)+ EOS`.
 * @returns ids
 */
export function ustmSequence(tokenizer: UsdmTokenizer, segments: readonly UstmSegment[], draws: Draws): number[] {
  if (!(tokenizer instanceof UsdmTokenizer))
    throw argumentError('ustmSequence', 'tokenizer', 'a UsdmTokenizer', tokenizer)
  if (!Array.isArray(segments) || segments.length === 0) {
    throw argumentError('ustmSequence', 'segments', 'a list of segments', segments)
  }
  requireForm('ustmSequence', 'segments', segments, [{ text: 'string', units: 'object' }])
  requireForm('ustmSequence', 'draws', draws, { float: 'function' })
  const { bos, eos, ...ids } = tokenizer.ids
  const result = bos === null ? [] : [bos]
  let last: 'text' | 'units' | undefined
  const append = ({ text, units }: UstmSegment, modality: 'text' | 'units') => {
    for (const id of tokenizer.encode([modality === 'text' ? text : { units }], { addBos: false })) result.push(id)
    last = modality
  }
  for (const segment of segments) {
    const main = draws.float() >= 0.5 ? 'units' : 'text'
    if (last !== undefined && last !== main) result.push(ids.continue)
    append(segment, main)
    if (draws.float() < 0.5) continue
    result.push(ids.correspond)
    append(segment, main === 'units' ? 'text' : 'units')
  }
  result.push(eos)
  return result
}

/**
 * Pack sequences into rows of at most `capacity` tokens, in order: each row takes as many as fit, sorted from the longest to the
 * shortest.
 * @param lengths of the sequences
 * @returns the indices of the sequences in each row; none is dropped
 * @throws DataError for a sequence longer than a row
 */
export function ustmPacks(lengths: ArrayLike<number>, capacity = 8192): number[][] {
  if (!isArrayLike(lengths)) throw argumentError('ustmPacks', 'lengths', 'a list of lengths', lengths)
  requireWhole('ustmPacks', 'capacity', capacity, 1)
  const rows: number[][] = []
  let left = 0
  for (let i = 0; i < lengths.length; i++) {
    const length = lengths[i] as number
    requireWhole('ustmPacks', `lengths[${i}]`, length)
    if (length > capacity) {
      throw new DataError(`expected sequences of at most ${capacity} tokens, got ${length} in sequence ${i}`, {
        length,
      })
    }
    if (rows.length === 0 || length > left) {
      rows.push([])
      left = capacity
    }
    rows.at(-1)?.push(i)
    left -= length
  }
  for (const row of rows) row.sort((a, b) => (lengths[b] as number) - (lengths[a] as number) || a - b)
  return rows
}
