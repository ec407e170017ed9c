import type { BadRecords } from '../../../kit/records.js'

/** A word with its start and end, in seconds of its audio file. */
export interface SpectraSpokenWord {
  word: string
  start: number
  end: number
}

/** A word with times in tenths of a second. */
export interface UnitWord {
  word: string
  start: number
  end: number
}

/** Maximum length of a word, and maximum end of a word after the start of its slice, in tenths of a second. */
const [LONGEST_WORD, LONGEST_SLICE] = [30, 99]

/** Convert seconds to tenths, rounding halves to even like Python. */
function units(seconds: number): number {
  const exact = seconds * 10
  const below = Math.floor(exact)
  const rest = exact - below
  return rest === 0.5 ? below + (below % 2) : Math.round(exact)
}

/**
 * Cut the words of a recording into slices of less than ten seconds. Times are in tenths of a second; words longer than 3 s are cut to 3 s
 * (the last 3 s if they start with a capital letter, else the first); ends are moved by a tenth; text is lowercased. A slice takes as many
 * words as end within 9.9 s of its start. A word that ends before it starts, or starts before the previous word, is noted and left out.
 */
export function sliceWords(words: readonly SpectraSpokenWord[], place: string, bad: BadRecords): UnitWord[][] {
  const slices: UnitWord[][] = []
  let begin = 0
  let latest = Number.NEGATIVE_INFINITY
  for (const spoken of words) {
    const { word, start, end } = spoken
    if (!(start >= latest && end >= start && start >= 0)) {
      const times = `from ${start} to ${end} s`
      bad.note(
        'wordTimes',
        `${place}: word ${JSON.stringify(word)}: expected times in order, got ${times}. Correct them.`,
        {
          word,
          start,
          end,
        },
      )
      continue
    }
    latest = start
    const unit = clamped(spoken)
    const slice = slices.at(-1)
    if (slice === undefined || unit.end - begin > LONGEST_SLICE) {
      slices.push([unit])
      begin = unit.start
    } else slice.push({ ...unit, start: Math.max(unit.start, begin) })
  }
  return slices
}

function clamped({ word, start, end }: SpectraSpokenWord): UnitWord {
  let [from, to] = [units(start), units(end)]
  if (to - from > LONGEST_WORD) {
    const first = word[0] as string
    if (first !== first.toLowerCase()) from = to - LONGEST_WORD
    else to = from + LONGEST_WORD
  }
  return { word: word.toLowerCase(), start: from, end: to + 1 }
}
