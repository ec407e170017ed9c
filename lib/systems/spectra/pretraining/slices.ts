import type { BadRecords } from '../../../kit/records.js'

/** A word and when it is spoken, in seconds of its audio file. */
export interface SpectraSpokenWord {
  word: string
  start: number
  end: number
}

/** A word in tenths of a second, as slices count. */
export interface UnitWord {
  word: string
  start: number
  end: number
}

/** Longest word, and longest slice before its first word's start counts anew, in tenths of a second. */
const [LONGEST_WORD, LONGEST_SLICE] = [30, 99]

/** Tenths of a second, halves to even as Python rounds. */
function units(seconds: number): number {
  const exact = seconds * 10
  const below = Math.floor(exact)
  const rest = exact - below
  return rest === 0.5 ? below + (below % 2) : Math.round(exact)
}

/**
 * Cuts the words of a recording into slices of less than ten seconds: times in tenths, words of more than 3 s cut to 3 s
 * (to their end where they begin with a capital, to their start otherwise), ends a tenth later, text in lower case, and
 * greedily as many words in a slice as end within 9.9 s of its start. A word that ends before it starts, or starts before
 * the word before it, is noted and left out.
 */
export function sliceWords(words: readonly SpectraSpokenWord[], place: string, bad: BadRecords): UnitWord[][] {
  const slices: UnitWord[][] = []
  let begin = 0
  let latest = Number.NEGATIVE_INFINITY
  for (const spoken of words) {
    const { word, start, end } = spoken
    if (!(start >= latest && end >= start && start >= 0)) {
      const times = `from ${start} to ${end} s`
      bad.note('wordTimes', `${place}: the word ${JSON.stringify(word)} is spoken ${times}: correct its times`, {
        word,
        start,
        end,
      })
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
