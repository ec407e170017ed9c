import { SPEECH_RATE } from '../../../audio/clip.js'
import { settings } from '../../../base/settings.js'
import type { BadRecords } from '../../../kit/records.js'

export const BAD_ITEM_SETTINGS = settings({
  /** Action for turns, words and slices that cannot be used: 'skip' (default) leaves them out and counts them; 'stop' throws. */
  onBadRecord: { type: ['stop', 'skip'] },
  /** Older name of `onBadRecord`, with 'error' for 'stop'. */
  onProblem: { type: ['skip', 'stop', 'error'] },
})

/** Ten seconds in samples: the maximum length of a slice, and the unit of the temporal labels. */
export const SPECTRA_SAMPLES = 10 * SPEECH_RATE

/**
 * A word of a slice: its text, its first token, the token after its last, its first sample and the sample after its last. Token 0 is the
 * slice's own `<s>`; samples are at 16 kHz and count from the start of the slice.
 */
export type SpectraWord = readonly [
  word: string,
  firstToken: number,
  endToken: number,
  startSample: number,
  endSample: number,
]

/** A slice of a dialog of at most ten seconds: a line of `entries.jsonl`. */
export interface SpectraEntry {
  /** A .wav or .npy file, relative to the data's audio root. */
  audio: string
  /** Number of samples, if it is known. */
  samples?: number
  /** `<s>`, the tokens of the words, `</s>`. */
  inputIds: readonly number[]
  /** Words in order, each with at least one token. */
  words: readonly SpectraWord[]
  /** Index of the previous turn's entry, -1 without one. */
  previous: number
  dialog?: string
  turn?: number
  speaker?: string
}

/**
 * Return the entry without the words that training cannot use: words without tokens or out of order (`wordTokens`), words that end before
 * they start (`wordTimes`), and words that start after the end of the audio (`wordPastEnd`). Ends are clipped to the audio.
 */
export function withUsableWords(entry: SpectraEntry, samples: number, place: string, bad: BadRecords): SpectraEntry {
  const words: SpectraWord[] = []
  let next = 1
  const last = entry.inputIds.length - 1
  for (const word of entry.words) {
    const [text, first, end, start, stop] = word
    const fields = { entry: place, word: text }
    if (!(first >= next && end > first && end <= last)) {
      const range = `tokens ${first} to ${end} of ${entry.inputIds.length}`
      bad.note(
        'wordTokens',
        `${place}: word ${JSON.stringify(text)}: expected its own tokens, got ${range}. Correct them.`,
        fields,
      )
    } else if (!(start >= 0 && stop >= start)) {
      const range = `samples ${start} to ${stop}`
      bad.note(
        'wordTimes',
        `${place}: word ${JSON.stringify(text)}: expected an end after the start, got ${range}. Correct its times.`,
        fields,
      )
    } else if (start >= samples) {
      const lengths = `at sample ${start} of ${samples}`
      bad.note(
        'wordPastEnd',
        `${place}: word ${JSON.stringify(text)}: expected a start within the audio, got ${lengths}. Shorten the text.`,
        fields,
      )
    } else {
      words.push(stop <= samples ? word : [text, first, end, start, samples])
      next = end
    }
  }
  return { ...entry, words }
}

/** Return the temporal label of a sample: in units of ten seconds, rounded to 3 decimals, halves to even as in Python. */
export function timeLabel(sample: number): number {
  // The only quotients exactly between two decimals are odd sixteenths.
  if (sample % 20000 === 10000) {
    const below = Math.floor(sample / 160)
    return (below + (below % 2)) / 1000
  }
  return Number((sample / SPECTRA_SAMPLES).toFixed(3))
}
