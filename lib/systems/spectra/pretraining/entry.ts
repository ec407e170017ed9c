import { SPEECH_RATE } from '../../../audio/clip.js'
import type { BadRecords } from '../../../kit/records.js'

/** Ten seconds: the longest slice, and the unit of the temporal labels. */
export const SPECTRA_SAMPLES = 10 * SPEECH_RATE

/**
 * A word of a slice: its text, its first sub-word token, the one after its last, its first sample and the one after its
 * last. Tokens count from the slice's own `<s>`, which is 0; samples are at 16 kHz and count from the slice's begin.
 */
export type SpectraWord = readonly [
  word: string,
  firstToken: number,
  endToken: number,
  startSample: number,
  endSample: number,
]

/** A slice of a dialog of at most ten seconds: the training form, and a line of `entries.jsonl`. */
export interface SpectraEntry {
  /** A .wav or .npy file, relative to the data's audio root. */
  audio: string
  /** Length of the audio where it is known. */
  samples?: number
  /** `<s>`, the words' sub-words, `</s>`. */
  inputIds: readonly number[]
  /** In order, none without a token. */
  words: readonly SpectraWord[]
  /** The entry of the turn before, -1 where there is none. */
  previous: number
  dialog?: string
  turn?: number
  speaker?: string
}

/**
 * The entry without the words that cannot be trained on: those without a token or out of order (`wordTokens`), that end
 * before they start (`wordTimes`), or that start where the audio has ended (`wordPastEnd`). Ends are cut to the audio's.
 */
export function withSoundWords(entry: SpectraEntry, samples: number, place: string, bad: BadRecords): SpectraEntry {
  const words: SpectraWord[] = []
  let next = 1
  const last = entry.inputIds.length - 1
  for (const word of entry.words) {
    const [text, first, end, start, stop] = word
    const fields = { entry: place, word: text }
    if (!(first >= next && end > first && end <= last)) {
      const range = `tokens ${first} to ${end} of ${entry.inputIds.length}`
      bad.note('wordTokens', `${place}: the word ${JSON.stringify(text)} has ${range}: give it its own`, fields)
    } else if (!(start >= 0 && stop >= start)) {
      const range = `samples ${start} to ${stop}`
      bad.note('wordTimes', `${place}: the word ${JSON.stringify(text)} has ${range}: correct its times`, fields)
    } else if (start >= samples) {
      const lengths = `at sample ${start} of ${samples}`
      bad.note('wordPastEnd', `${place}: the word ${JSON.stringify(text)} starts ${lengths}: cut the text`, fields)
    } else {
      words.push(stop <= samples ? word : [text, first, end, start, samples])
      next = end
    }
  }
  return { ...entry, words }
}

/** A sample's place as the temporal heads learn it: in ten seconds, rounded to 3 decimals, halves to even as in Python. */
export function timeLabel(sample: number): number {
  // The only quotients that lie in the middle of two decimals exactly are odd sixteenths.
  if (sample % 20000 === 10000) {
    const below = Math.floor(sample / 160)
    return (below + (below % 2)) / 1000
  }
  return Number((sample / SPECTRA_SAMPLES).toFixed(3))
}
