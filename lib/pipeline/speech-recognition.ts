import type { AudioClip } from '../audio/clip.js'
import { defined, requireOptions, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { CTC_TRANSCRIBE_KEYS, type CtcTranscribeOptions } from '../models/encoders/ctc-transcribe.js'
import { Moonshine } from '../models/moonshine/moonshine.js'
import { MOONSHINE_TRANSCRIBE_KEYS, type MoonshineTranscribeOptions } from '../models/moonshine/transcribe.js'
import { ParakeetModel } from '../models/parakeet/head.js'
import { PARAKEET_TRANSCRIBE_KEYS, type ParakeetTranscribeOptions } from '../models/parakeet/transcribe.js'
import { TRANSCRIBE_KEYS, type TranscribeOptions, type WhisperSkipped } from '../models/whisper/options.js'
import { Whisper } from '../models/whisper/whisper.js'
import { scope } from '../tensor/index.js'
import type { NetworkOf } from './load.js'

/** Options of `Whisper.transcribe`, or of `transcribe` of a CTC network, Parakeet or Moonshine, with these in addition: */
export interface SpeechRecognitionOptions
  extends Omit<TranscribeOptions, 'timestamps'>,
    Omit<CtcTranscribeOptions, 'timestamps' | 'chunkSeconds' | 'strideSeconds'>,
    Pick<MoonshineTranscribeOptions, 'maxTokensPerSecond'>,
    Pick<ParakeetTranscribeOptions, 'numBeams'> {
  /**
   * Whether to return `chunks`: true for sentences (Whisper, Parakeet) or pieces between pauses
   * (Moonshine), `'word'` for words, `'char'` for characters (CTC) or tokens
   * (Parakeet).
   * Default false.
   */
  returnTimestamps?: boolean | 'word' | 'char'
  /**
   * Length of chunks in seconds, for CTC networks and Parakeet. Default 0: the whole recording. Moonshine splits at pauses, and its default
   * is 30. Whisper always uses its own windows.
   */
  chunkLengthS?: number
  /** Overlap of chunks on each side, in seconds. Default: a sixth of `chunkLengthS`. */
  strideLengthS?: number
}

export interface SpeechRecognitionOutput {
  text: string
  /** Chunks with `returnTimestamps`; times in seconds from the start of the recording. */
  chunks?: { text: string; timestamp: [start: number, end: number] }[]
  /** Whisper only: parts of the recording without text, with reasons. */
  skipped?: WhisperSkipped[]
}

interface Stretch {
  text: string
  start: number
  end: number
}
const chunksOf = (stretches: readonly Stretch[]): Required<SpeechRecognitionOutput>['chunks'] =>
  stretches.map(({ text, start, end }) => ({ text, timestamp: [start, end] }))

const OWN = ['returnTimestamps', 'chunkLengthS', 'strideLengthS']
const RENAMED = ['timestamps', 'chunkSeconds', 'strideSeconds']
const WHISPER_OPTIONS = [...OWN, ...TRANSCRIBE_KEYS.filter((key) => !RENAMED.includes(key))]
const CTC_OPTIONS = [...OWN, ...CTC_TRANSCRIBE_KEYS.filter((key) => !RENAMED.includes(key))]
const PARAKEET_OPTIONS = [...OWN, ...PARAKEET_TRANSCRIBE_KEYS.filter((key) => !RENAMED.includes(key))]

const MOONSHINE_OPTIONS = [
  'returnTimestamps',
  'chunkLengthS',
  ...MOONSHINE_TRANSCRIBE_KEYS.filter((key) => !RENAMED.includes(key)),
]

export function recognize(
  where: string,
  model: NetworkOf<'automatic-speech-recognition'>,
  audio: AudioClip,
  options: SpeechRecognitionOptions,
): Promise<SpeechRecognitionOutput> {
  const { returnTimestamps = false, chunkLengthS, strideLengthS, ...rest } = options
  const wrong = (argument: string, problem: string) => new ConfigError(`${where}: ${problem}`, { argument })
  for (const other of RENAMED) {
    if (other in rest)
      throw wrong(
        other,
        `expected ${other === 'timestamps' ? 'returnTimestamps' : `${other.slice(0, 5)}LengthS`}, its name in a pipeline, got ${other}.`,
      )
  }
  const isParakeet = model instanceof ParakeetModel
  const isMoonshine = model instanceof Moonshine
  const others = isMoonshine ? MOONSHINE_OPTIONS : isParakeet ? PARAKEET_OPTIONS : CTC_OPTIONS
  requireOptions(where, options, model instanceof Whisper ? WHISPER_OPTIONS : others)
  const timed = isParakeet ? [false, true, 'word', 'char'] : [false, 'word', 'char']
  const known: unknown[] = model instanceof Whisper ? [false, true, 'word'] : isMoonshine ? [false, true] : timed
  if (!known.includes(returnTimestamps)) {
    throw wrong(
      'returnTimestamps',
      `returnTimestamps: expected ${known.map((one) => JSON.stringify(one)).join(', ')} for ${model.constructor.name}, got ${shown(returnTimestamps)}.`,
    )
  }
  return scope(async () => {
    if (model instanceof Whisper) {
      if (chunkLengthS !== undefined || strideLengthS !== undefined) {
        throw wrong(
          'chunkLengthS',
          'expected no chunkLengthS and strideLengthS for Whisper, which uses its own windows, got one of them. Leave them out.',
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
    if (model instanceof Moonshine) {
      const { chunkSeconds } = pieces
      const { maxTokensPerSecond, vad, signal } = rest
      const { text, segments } = await model.transcribe(
        audio,
        defined({ chunkSeconds, maxTokensPerSecond, vad, signal }),
      )
      return returnTimestamps === false ? { text } : { text, chunks: chunksOf(segments) }
    }
    if (model instanceof ParakeetModel) {
      const timestamps = (returnTimestamps === true ? 'segment' : returnTimestamps) as
        | false
        | 'segment'
        | 'word'
        | 'char'
      const { signal, numBeams, lengthPenalty } = rest
      const { text, ...found } = await model.transcribe(
        audio,
        defined({ signal, numBeams, lengthPenalty, ...pieces, timestamps }),
      )
      if (timestamps === false) return { text }
      const { [`${timestamps}s` as const]: stretches = [] } = found
      return { text, chunks: chunksOf(stretches) }
    }
    const timestamps = returnTimestamps as false | 'word' | 'char'
    const { text, words = [], chars = [] } = await model.transcribe(audio, { ...rest, ...pieces, timestamps })
    return timestamps === false ? { text } : { text, chunks: chunksOf(timestamps === 'word' ? words : chars) }
  })
}
