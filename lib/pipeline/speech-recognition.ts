import type { AudioClip } from '../audio/clip.js'
import { ConfigError } from '../base/errors.js'
import type { CtcTranscribeOptions } from '../models/encoders/ctc-transcribe.js'
import type { TranscribeOptions, WhisperSkipped } from '../models/whisper/options.js'
import { Whisper } from '../models/whisper/whisper.js'
import { scope } from '../tensor/index.js'
import type { NetworkOf } from './load.js'

/** Those of `Whisper.transcribe` and of `transcribe` of the CTC networks, each for its own, and: */
export interface SpeechRecognitionOptions
  extends Omit<TranscribeOptions, 'timestamps'>,
    Omit<CtcTranscribeOptions, 'timestamps' | 'chunkSeconds' | 'strideSeconds'> {
  /**
   * Adds `chunks`: true those of sentences (Whisper), `'word'` those of words, `'char'` those of characters (CTC).
   * Default false.
   */
  returnTimestamps?: boolean | 'word' | 'char'
  /** Of the CTC networks: hears pieces of so many seconds. Default 0: the whole recording. Whisper always goes by windows. */
  chunkLengthS?: number
  /** How much of its neighbours a piece hears on each side, in seconds. Default a sixth of `chunkLengthS`. */
  strideLengthS?: number
}

export interface SpeechRecognitionOutput {
  text: string
  /** With `returnTimestamps`; seconds from the beginning of the recording. */
  chunks?: { text: string; timestamp: [start: number, end: number] }[]
  /** Of Whisper: the parts without a text, with their reasons; absent where there are none. */
  skipped?: WhisperSkipped[]
}

interface Stretch {
  text: string
  start: number
  end: number
}
const chunksOf = (stretches: readonly Stretch[]): Required<SpeechRecognitionOutput>['chunks'] =>
  stretches.map(({ text, start, end }) => ({ text, timestamp: [start, end] }))

export function recognize(
  where: string,
  model: NetworkOf<'automatic-speech-recognition'>,
  audio: AudioClip,
  options: SpeechRecognitionOptions,
): Promise<SpeechRecognitionOutput> {
  const { returnTimestamps = false, chunkLengthS, strideLengthS, ...rest } = options
  const wrong = (argument: string, problem: string) => new ConfigError(`${where}: ${problem}`, { argument })
  for (const other of ['timestamps', 'chunkSeconds', 'strideSeconds']) {
    if (other in rest)
      throw wrong(
        other,
        `${other} is called ${other === 'timestamps' ? 'returnTimestamps' : `${other.slice(0, 5)}LengthS`} here`,
      )
  }
  const known: unknown[] = model instanceof Whisper ? [false, true, 'word'] : [false, 'word', 'char']
  if (!known.includes(returnTimestamps)) {
    throw wrong(
      'returnTimestamps',
      `of ${model.constructor.name} returnTimestamps is ${known.map((one) => JSON.stringify(one)).join(', ')}`,
    )
  }
  return scope(async () => {
    if (model instanceof Whisper) {
      if (chunkLengthS !== undefined || strideLengthS !== undefined) {
        throw wrong(
          'chunkLengthS',
          'Whisper hears recordings of any length window by window; leave chunkLengthS and strideLengthS out',
        )
      }
      const timestamps = returnTimestamps === 'word' ? 'word' : true
      const { text, segments, skipped } = await model.transcribe(audio, { ...rest, timestamps })
      const output = { text, ...(skipped.length > 0 && { skipped }) }
      if (returnTimestamps === false) return output
      const stretches = timestamps === 'word' ? segments.flatMap(({ words = [] }) => words) : segments
      return { ...output, chunks: chunksOf(stretches) }
    }
    const pieces = {
      ...(chunkLengthS ? { chunkSeconds: chunkLengthS } : {}),
      ...(strideLengthS === undefined ? {} : { strideSeconds: strideLengthS }),
    }
    const timestamps = returnTimestamps as false | 'word' | 'char'
    const { text, words = [], chars = [] } = await model.transcribe(audio, { ...rest, ...pieces, timestamps })
    return timestamps === false ? { text } : { text, chunks: chunksOf(timestamps === 'word' ? words : chars) }
  })
}
