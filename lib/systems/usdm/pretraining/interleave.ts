import { isArrayLike, misuse, requireOptions, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { UsdmTokenizer } from '../data/text.js'
import type { UnitWord } from './words.js'

/** What draws: `Random`, or anything like it. Numbers are uniform from 0 to below 1. */
export interface Draws {
  float(): number
}

/** A stretch of an utterance: its words, and its units. */
export interface UstmSegment {
  text: string
  units: number[]
}

export interface SegmentOptions {
  /** Units of a segment, about: 500 for 10 seconds. Default 500. */
  segmentUnits?: number
  /**
   * The original draws a place anew for each word that it might be: 'published'. By default one place is drawn for each boundary,
   * and the nearest word begins there.
   */
  compat?: 'published'
}

/**
 * Divides an utterance into segments of some ten seconds that begin where words do. For S segments of N units boundary k is at
 * the word nearest to a draw from a normal distribution of mean kN/S and deviation N/2S, cut at two deviations.
 */
export function ustmSegments(
  words: readonly UnitWord[],
  units: ArrayLike<number>,
  draws: Draws,
  options: SegmentOptions = {},
): UstmSegment[] {
  const where = 'ustmSegments'
  requireForm(where, 'draws', draws, { float: 'function' })
  requireSegmentOptions(where, options)
  const { segmentUnits = 500, compat } = options
  requireForm(where, 'words', words, [{ text: 'string', start: 'number', end: 'number' }])
  if (!isArrayLike(units)) throw misuse(where, 'units', 'a list of units', units)
  const total = words.at(-1)?.end ?? 0
  if (total === 0 || total > units.length) {
    throw new DataError(`the words reach to unit ${total}, and there are ${units.length}`, { words: total })
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
    const own = words.slice(sorted[i], to)
    const [first, last] = [own[0] as UnitWord, own.at(-1) as UnitWord]
    return {
      text: own.map(({ text }) => text).join(' '),
      units: Array.from({ length: last.end - first.start }, (_, unit) => units[first.start + unit] as number),
    }
  })
}

/** @internal */
export function requireSegmentOptions(where: string, options: { [K in keyof SegmentOptions]: unknown }): void {
  requireOptions(where, options, ['segmentUnits', 'compat'])
  const { segmentUnits = 500, compat } = options
  requireWhole(where, 'segmentUnits', segmentUnits, 1)
  if (compat !== undefined && compat !== 'published') throw misuse(where, 'compat', "'published'", compat)
}

/** Standard normal from -2 to 2 (Box and Muller, drawn again where it lies outside). */
function cutNormal(draws: Draws): number {
  for (;;) {
    const radius = Math.sqrt(-2 * Math.log(1 - draws.float()))
    const value = radius * Math.cos(2 * Math.PI * draws.float())
    if (Math.abs(value) <= 2) return value
    if (Number.isNaN(value)) throw misuse('ustmSegments', 'what is drawn', 'a number from 0 to below 1', value)
  }
}

/**
 * One sequence of USDM's pre-training: BOS, each segment as speech or as text by chance, `<|continue|>` where the modality changes
 * between segments, and by chance `<|correspond|>` with the same segment in the other modality; EOS. As a grammar:
 * `BOS (continue? main (correspond other)?)+ EOS`.
 * @returns ids
 */
export function ustmSequence(tokenizer: UsdmTokenizer, segments: readonly UstmSegment[], draws: Draws): number[] {
  if (!(tokenizer instanceof UsdmTokenizer)) throw misuse('ustmSequence', 'tokenizer', 'a UsdmTokenizer', tokenizer)
  if (!Array.isArray(segments) || segments.length === 0) {
    throw misuse('ustmSequence', 'segments', 'a list of segments', segments)
  }
  requireForm('ustmSequence', 'segments', segments, [{ text: 'string', units: 'object' }])
  requireForm('ustmSequence', 'draws', draws, { float: 'function' })
  const { bos, eos, ...ids } = tokenizer.ids
  const result = bos === null ? [] : [bos]
  let last: 'text' | 'units' | undefined
  const say = ({ text, units }: UstmSegment, modality: 'text' | 'units') => {
    for (const id of tokenizer.encode([modality === 'text' ? text : { units }], { addBos: false })) result.push(id)
    last = modality
  }
  for (const segment of segments) {
    const main = draws.float() >= 0.5 ? 'units' : 'text'
    if (last !== undefined && last !== main) result.push(ids.continue)
    say(segment, main)
    if (draws.float() < 0.5) continue
    result.push(ids.correspond)
    say(segment, main === 'units' ? 'text' : 'units')
  }
  result.push(eos)
  return result
}

/**
 * Sequences as rows of at most `capacity` tokens, in the order they come: each row takes as many as fit, and its members stand
 * from the longest to the shortest.
 * @param lengths of the sequences
 * @returns their places, row by row; none is lost
 * @throws DataError for a sequence that is longer than a row
 */
export function ustmPacks(lengths: ArrayLike<number>, capacity = 8192): number[][] {
  if (!isArrayLike(lengths)) throw misuse('ustmPacks', 'lengths', 'a list of lengths', lengths)
  requireWhole('ustmPacks', 'capacity', capacity, 1)
  const rows: number[][] = []
  let left = 0
  for (let i = 0; i < lengths.length; i++) {
    const length = lengths[i] as number
    requireWhole('ustmPacks', `lengths[${i}]`, length)
    if (length > capacity) throw new DataError(`sequence ${i} has ${length} tokens, more than ${capacity}`, { length })
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
