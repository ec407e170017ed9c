import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { logMelSpectrogram } from '../../audio/features.js'
import type { VoiceActivity } from '../../audio/silence.js'
import { shown } from '../../base/arguments.js'
import { defined, requireFunction, requireOptions, requireSignal, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import type { GenerationConfig } from '../../generation/config.js'
import type { Generator, Tensor } from '../../tensor/index.js'
import { filmSound } from '../../vision/film-sound.js'
import { melBinsOf, windowOf } from './config.js'
import { languageCode } from './tokens.js'
import type { Whisper } from './whisper.js'
import type { WhisperWord } from './words.js'

/** A path, also of a film, whose sound npm's `node-av` reads; the bytes of a sound file, what `readAudio` gave, or samples [n] at 16 kHz. */
export type WhisperAudio = AudioClip

export interface TranscribeOptions {
  /** A code or an English name; by default it is detected in the first window. */
  language?: string | null
  /** `'translate'` writes English. Default `'transcribe'`. */
  task?: 'transcribe' | 'translate'
  /** Without them each window is one segment; with `'word'` segments have words with their times too. Default true. */
  timestamps?: boolean | 'word'
  /**
   * With `timestamps: 'word'`: takes pauses out of words, as openai/whisper does, which shortens long words beside the ends
   * of sentences and segments. Segments then begin and end with their words, and punctuation has no time of its own. The
   * tokens stay the same. Default false: as transformers.
   */
  trimPauses?: boolean
  /** At temperature 0. Default 1. */
  beams?: number
  /** With beams. Default 1. */
  lengthPenalty?: number
  /** What is tried one after the other: 0 takes the likeliest, above 0 draws. Default 0, 0.2, 0.4, 0.6, 0.8, 1. */
  temperature?: number | number[]
  /** The next temperature is tried where the text's bytes over its compressed bytes are above. Default 2.4; null: never. */
  compressionRatioThreshold?: number | null
  /** The next temperature is tried where the tokens' mean log probability is below. Default -1; null: never. */
  logprobThreshold?: number | null
  /** A window is silence where this is exceeded and `logprobThreshold` is not reached. Default 0.6; null: never. */
  noSpeechThreshold?: number | null
  /** The text so far is the beginning of what each window goes on from. Default true. */
  conditionOnPrevious?: boolean
  /** A text that stands before the first: names and words to expect, or a style. With `batchSize`, before each piece. */
  initialPrompt?: string
  /**
   * Cuts the recording where nobody speaks into pieces of a window at most, and writes so many of them at once, as
   * faster-whisper's batched mode does: quicker for long recordings. What is silent is not heard, and no piece goes on from
   * the text of another, so `conditionOnPrevious` has no say. Up to 8 rows share one reading of the weights. Default: windows
   * one after the other.
   */
  batchSize?: number
  /** With `batchSize`: what finds speech, such as {@link SileroVad}'s `segments`. Default `energyVad`. */
  vad?: VoiceActivity
  /** Most tokens of a window. Default: as there is room for. */
  maxNewTokens?: number
  /** Anything else that `generate` knows, such as `suppressTokens`. */
  generation?: GenerationConfig
  /** Draws of temperatures above 0. */
  generator?: Generator
  /** Gives up within one token. */
  signal?: AbortSignal
}

export interface WhisperSegment {
  /** In seconds from the beginning of the recording. */
  start: number
  end: number
  text: string
  /** With their timestamps. */
  tokens: number[]
  /** With `timestamps: 'word'`. */
  words?: WhisperWord[]
  /** These four are of the window that the segment is from. */
  avgLogprob: number
  compressionRatio: number
  noSpeechProb: number
  temperature: number
}

export interface WhisperTranscription {
  text: string
  /** A code; null where the network knows English only. */
  language: string | null
  segments: WhisperSegment[]
}

const HOP = 160
export const SECONDS_PER_STEP = HOP / SPEECH_RATE

type Defaulted = Pick<
  TranscribeOptions,
  | 'task'
  | 'timestamps'
  | 'trimPauses'
  | 'beams'
  | 'lengthPenalty'
  | 'temperature'
  | 'compressionRatioThreshold'
  | 'logprobThreshold'
  | 'noSpeechThreshold'
  | 'conditionOnPrevious'
>
export type Settings = TranscribeOptions & Required<Defaulted>

const defaults: Required<Defaulted> = {
  task: 'transcribe',
  timestamps: true,
  trimPauses: false,
  beams: 1,
  lengthPenalty: 1,
  temperature: [0, 0.2, 0.4, 0.6, 0.8, 1],
  compressionRatioThreshold: 2.4,
  logprobThreshold: -1,
  noSpeechThreshold: 0.6,
  conditionOnPrevious: true,
}

const KEYS = [
  ...Object.keys(defaults),
  ...['language', 'initialPrompt', 'batchSize', 'vad', 'maxNewTokens', 'generation', 'generator', 'signal'],
]

/** Checked, and with what was left out. */
export function settingsOf(model: Whisper, options: TranscribeOptions): Settings {
  const bad = (problem: string): never => {
    throw new ConfigError(`Whisper.transcribe: ${problem}`, { ...options })
  }
  requireOptions('Whisper.transcribe', options, KEYS)
  const settings = { ...defaults, ...defined(options) } as Settings
  const { task, temperature } = settings
  requireSignal('Whisper.transcribe', settings.signal)
  if (task !== 'transcribe' && task !== 'translate') bad(`task must be 'transcribe' or 'translate', not ${shown(task)}`)
  const temperatures = [temperature].flat()
  if (temperatures.length === 0 || !temperatures.every((one) => typeof one === 'number' && one >= 0)) {
    bad(`temperature must be a number from 0 or a list of them, not ${shown(temperature)}`)
  }
  if (typeof settings.timestamps !== 'boolean' && settings.timestamps !== 'word') {
    bad(`timestamps must be true, false or 'word', not ${shown(settings.timestamps)}`)
  }
  if (typeof settings.trimPauses !== 'boolean') {
    bad(`trimPauses must be true or false, not ${shown(settings.trimPauses)}`)
  }
  if (settings.trimPauses && settings.timestamps !== 'word') bad("trimPauses is for timestamps: 'word'")
  const { batchSize, vad } = settings
  if (batchSize !== undefined) {
    requireWhole('Whisper.transcribe', 'batchSize', batchSize, 1)
    if (options.conditionOnPrevious) bad('conditionOnPrevious is without batchSize: pieces are written at once')
  }
  if (vad !== undefined) {
    requireFunction('Whisper.transcribe', 'vad', vad)
    if (batchSize === undefined) bad('vad is for batchSize')
  }
  if (model.tokenizer === null) {
    bad('there is no tokenizer; set model.tokenizer = await Tokenizer.fromPretrained(directory)')
  }
  if (settings.language != null) languageCode(model.tokens, settings.language)
  if (task === 'translate' && Object.keys(model.tokens.languages).length === 0) {
    bad('this Whisper knows English only and does not translate')
  }
  return settings
}

/** [n] at 16 kHz, where the network is. */
export async function samplesOf(model: Whisper, audio: WhisperAudio): Promise<Tensor> {
  const { samples } = await openClip({ where: 'Whisper.transcribe' }, await filmSound(audio), { allowEmpty: true })
  return samples.to({ device: (model.parameters()[0] as Tensor).device })
}

/** [numMelBins, steps of at least a window] and how many steps are audio. What is short is followed by silence. */
export async function spectrogramOf(model: Whisper, samples: Tensor): Promise<{ mel: Tensor; steps: number }> {
  const length = windowOf(model.config) * HOP
  const count = samples.shape[0] as number
  const mel = await logMelSpectrogram(samples, {
    nMels: melBinsOf(model.config),
    length: count <= length ? length : null,
  })
  return { mel, steps: Math.floor(count / HOP) }
}
