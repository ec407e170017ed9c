import { type Piece, type WhisperWord, withPunctuation } from './words.js'

export interface TimedPiece extends Piece {
  /** In seconds from the beginning of the recording. */
  start: number
  end: number
  probability: number
}

/** A segment of a window, with its text in pieces whose punctuation stands alone. */
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

/** The usual word is the median of a window, but no longer than this, in seconds. */
const MOST_USUAL = 0.7
/** A segment's own time is believed rather than its word's where the word reaches beyond it by more seconds. */
const TOLERANCE = 0.5
const SENTENCE_ENDS = '.。!！?？'

/**
 * The words of a window without the pauses that the alignment gave them, as openai/whisper does by default: none beside the
 * end of a sentence, and neither of the first two of a segment behind a pause, is longer than twice the median; the first
 * and last word of a segment keep near its own times, or else the segment begins and ends with them. Punctuation takes no
 * time, and stays in its segment. Where the next window begins does not change, which in openai/whisper it does.
 *
 * @param spokenUntil where the last word before this window ended
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

/** Where the last word ends, for the next window. */
export const endOfSpeech = (segments: SpokenSegment[]): number | undefined =>
  segments.flatMap(({ words }) => words).at(-1)?.end ?? segments.at(-1)?.end

/** Without the noise of a difference, since equal lengths are to be equal. */
const lengthOf = ({ start, end }: { start: number; end: number }): number =>
  hundredths(hundredths(end) - hundredths(start))

function limitedAtSentences(pieces: TimedPiece[], most: number): TimedPiece[] {
  // As nothing has a length there is nothing to shorten.
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
