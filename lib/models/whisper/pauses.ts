import { type Piece, type WhisperWord, withPunctuation } from './words.js'

export interface TimedPiece extends Piece {
  /** In seconds from the beginning of the recording. */
  start: number
  end: number
  probability: number
}

/** A segment of a window. Its text is in pieces, with separate punctuation. */
export interface AlignedSegment {
  start: number
  end: number
  pieces: TimedPiece[]
}

export interface SpokenSegment {
  start: number
  end: number
  words: WhisperWord[]
}

/** Maximum of the median word length in a window, in seconds. */
const MOST_USUAL = 0.7
/** If a word extends beyond its segment by more than this, in seconds, the segment's time is used. */
const TOLERANCE = 0.5
const SENTENCE_ENDS = '.。!！?？'

/**
 * Remove pauses from the words of a window, as openai/whisper does by default. A word next to the end of a sentence, and the first two words
 * of a segment after a pause, last at most twice the median. The first and last word of a segment stay close to its times, or else the
 * segment starts and ends with them. Punctuation has no duration, and stays in its segment. Unlike in openai/whisper, the start of the next
 * window does not change.
 *
 * @param spokenUntil end of the last word before this window
 */
export function withoutPauses(segments: AlignedSegment[], spokenUntil: number): SpokenSegment[] {
  const pieces = segments.flatMap((segment) => segment.pieces)
  const median = Math.min(MOST_USUAL, medianOf(pieces.map(lengthOf).filter((length) => length !== 0)))
  const limited = limitedAtSentences(pieces, 2 * median)
  let [next, until] = [0, spokenUntil]
  return segments.map(({ start, end, pieces }) => {
    const own = limited.slice(next, next + pieces.length)
    next += pieces.length
    const words = withPunctuation(own).map(({ text, start, end, probability }) => {
      return { text, start: hundredths(start), end: hundredths(end), probability }
    })
    const spoken = trimmed({ start, end, words }, median, until)
    if (words.length > 0) until = spoken.end
    return spoken
  })
}

/** Return the end of the last word, for the next window. */
export const endOfSpeech = (segments: SpokenSegment[]): number | undefined =>
  segments.flatMap(({ words }) => words).at(-1)?.end ?? segments.at(-1)?.end

/** Return a length rounded to hundredths, so that equal lengths compare as equal. */
const lengthOf = ({ start, end }: { start: number; end: number }): number =>
  hundredths(hundredths(end) - hundredths(start))

function limitedAtSentences(pieces: TimedPiece[], most: number): TimedPiece[] {
  // All lengths are 0, so there is nothing to shorten.
  if (most === 0) return pieces
  return pieces.map((piece, i) => {
    const before = pieces[i - 1]
    if (before === undefined || lengthOf(piece) <= most) return piece
    if (SENTENCE_ENDS.includes(piece.text)) return { ...piece, end: piece.start + most }
    if (SENTENCE_ENDS.includes(before.text)) return { ...piece, start: piece.end - most }
    return piece
  })
}

function trimmed(segment: SpokenSegment, median: number, spokenUntil: number): SpokenSegment {
  let { start, end } = segment
  const words = segment.words.map((word) => ({ ...word }))
  const [first, second, last] = [words[0], words[1], words.at(-1)]
  if (first === undefined || last === undefined) return segment
  const most = 2 * median
  const isLong = first.end - first.start > most || (second !== undefined && second.end - first.start > 2 * most)
  if (first.end - spokenUntil > 4 * median && isLong) {
    if (second !== undefined && second.end - second.start > most) {
      second.start = Math.max(second.end / 2, second.end - most)
      first.end = second.start
    }
    first.start = Math.max(0, first.end - most)
  }
  if (start < first.end && start - TOLERANCE > first.start) {
    first.start = Math.max(0, Math.min(first.end - median, start))
  } else start = first.start
  if (end > last.start && end + TOLERANCE < last.end) last.end = Math.max(last.start + median, end)
  else end = last.end
  return { start, end, words }
}

function medianOf(numbers: number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? 0
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2
}

const hundredths = (seconds: number): number => Math.round(seconds * 100) / 100
