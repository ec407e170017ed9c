import { argumentError, requireNumber, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { TextGrid } from '../../../files/textgrid.js'

/** A word with its start and end in seconds; a pause has an empty text. */
export interface AlignedWord {
  text: string
  start: number
  end: number
}

/** A word, or several joined by spaces, with its units: from `start` to before `end`. */
export interface UnitWord {
  text: string
  start: number
  end: number
}

/** Return a transcript as in USDM's pre-training: lowercase, without ASCII punctuation except the apostrophe. */
export function ustmTranscript(text: string): string {
  requireString('ustmTranscript', 'text', text)
  return text
    .toLowerCase()
    .replace(/[!-&(-/:-@[-`{-~]/g, '')
    .trim()
}

/**
 * Return the words of the interval tier `tier` of a TextGrid.
 * @throws DataError if there is no such tier
 */
export function wordsOfTextGrid(grid: TextGrid, options: { tier?: string } = {}): AlignedWord[] {
  const where = 'wordsOfTextGrid'
  requireForm(where, 'grid', grid, { tiers: [{ kind: 'string', name: 'string' }] })
  requireOptions(where, options, ['tier'])
  const { tier: name = 'words' } = options
  requireString(where, 'tier', name)
  const tier = grid.tiers.find((one) => one.kind === 'interval' && one.name === name)
  if (tier?.kind === 'interval') {
    requireForm(where, 'intervals', tier.intervals, [{ text: 'string', minTime: 'number', maxTime: 'number' }])
    return tier.intervals.map(({ text, minTime, maxTime }) => ({ text: text.trim(), start: minTime, end: maxTime }))
  }
  const names = grid.tiers.map((one) => `'${one.name}' (${one.kind})`).join(', ')
  throw new DataError(`the TextGrid: expected an interval tier '${name}', got ${names || 'no tiers'}`, { tier: name })
}

/**
 * Return words with times, such as those of Whisper, with pauses in the gaps. Words that overlap are split in the middle.
 * @param seconds length of the clip
 * @throws DataError for times that go back, or lie outside of the clip
 */
export function wordsOfTimes(
  words: readonly { word: string; start: number; end: number }[],
  seconds: number,
): AlignedWord[] {
  const where = 'wordsOfTimes'
  requireForm(where, 'words', words, [{ word: 'string', start: 'number', end: 'number' }])
  requireNumber(where, 'seconds', seconds)
  if (!(seconds > 0)) throw argumentError(where, 'seconds', 'a number above 0', seconds)
  const result: AlignedWord[] = []
  for (const [i, { word, start, end }] of words.entries()) {
    const before = result.at(-1)
    if (!(start >= 0 && end >= start && start <= seconds) || (before && start < before.start)) {
      throw new DataError(
        `word ${i + 1}, ${JSON.stringify(word)}: expected times in order within 0 … ${seconds} s, got ${start} … ${end} s`,
        { word, start, end },
      )
    }
    let from = start
    const last = before?.end ?? 0
    if (before && start < last) {
      from = (start + last) / 2
      before.end = from
    } else if (start > last) result.push({ text: '', start: last, end: start })
    result.push({ text: word.trim(), start: from, end: Math.max(from, Math.min(end, seconds)) })
  }
  const last = result.at(-1)
  if (last && last.end < seconds) result.push({ text: '', start: last.end, end: seconds })
  return result
}

/** Round like Python's round: halves go to the even neighbor. */
export function roundHalfEven(value: number): number {
  const down = Math.floor(value)
  const rest = value - down
  if (rest !== 0.5) return Math.round(value)
  return down % 2 === 0 ? down : down + 1
}

/** Round to two decimals like Python's round. Only multiples of 1/8 can lie exactly between two. */
const hundredths = (value: number): number =>
  Number.isInteger(value * 8) ? roundHalfEven(value * 100) / 100 : Number(value.toFixed(2))

/**
 * Return the units of each word of an utterance. Pauses are split in half between their neighbors; words too short for a unit are joined
 * with a neighbor.
 * @param units number of units of the utterance
 * @returns null for fewer than three words, which the original leaves out
 * @throws DataError for words with gaps or overlaps
 */
export function unitWords(words: readonly AlignedWord[], units: number): UnitWord[] | null {
  requireWhole('unitWords', 'units', units, 1)
  requireForm('unitWords', 'words', words, [{ text: 'string', start: 'number', end: 'number' }])
  const last = words.at(-1)
  if (!last || !(last.end > 0)) return null
  const spoken = withoutPauses(words)
  const ratio = units / last.end
  const at = (seconds: number) => roundHalfEven(seconds * ratio)
  const placed = spoken.map(({ text, start, end }) => ({ text, start: at(start), end: at(end) }))
  for (const [i, word] of placed.entries()) {
    const before = placed[i - 1]
    if (word.end >= word.start && (!before || before.end === word.start)) continue
    throw new DataError(
      `expected words without gaps, got one between ${JSON.stringify(before?.text)} and ${JSON.stringify(word.text)}`,
      { start: word.start, before: before?.end },
    )
  }
  const joined = withoutEmpty(placed)
  return joined.length < 3 ? null : joined
}

function withoutPauses(words: readonly AlignedWord[]): AlignedWord[] {
  const merged: AlignedWord[] = []
  for (const word of words) {
    const before = merged.at(-1)
    if (word.text === '' && before?.text === '') before.end = word.end
    else merged.push({ ...word })
  }
  const found = merged.filter(({ text }) => text !== '')
  for (const [i, { text, start, end }] of merged.entries()) {
    if (text !== '') continue
    const [before, after] = [merged[i - 1], merged[i + 1]]
    const middle = hundredths((start + end) / 2)
    if (before && after) {
      before.end = middle
      after.start = middle
    } else if (after) after.start = start
    else if (before) before.end = end
  }
  return found
}

function withoutEmpty(words: readonly UnitWord[]): UnitWord[] {
  const left = words.map((word) => ({ ...word }))
  /** Join `count` words after `into` to it. */
  const absorb = (into: number, count: number) => {
    for (const { text, end } of left.splice(into + 1, count)) {
      const taker = left[into] as UnitWord
      taker.text = `${taker.text} ${text}`
      taker.end = end
    }
  }
  for (let i = 0; i < left.length; ) {
    const { start, end } = left[i] as UnitWord
    if (end > start || left.length === 1) i += 1
    else if (i === 0) absorb(0, 1)
    else {
      const next = left[i + 1]
      absorb(i - 1, next && next.end > next.start ? 2 : 1)
    }
  }
  return left
}
