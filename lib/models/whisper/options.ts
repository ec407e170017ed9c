import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { logMelSpectrogram } from '../../audio/features.js'
import { RESAMPLE_QUALITIES, type ResampleQuality } from '../../audio/resample.js'
import type { VoiceActivity } from '../../audio/silence.js'
import { optionsOf, shown } from '../../base/arguments.js'
import {
  defined,
  requireFunction,
  requireNumber,
  requireOneOf,
  requireOptions,
  requireSignal,
  requireString,
  requireWhole,
} from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { type GenerationConfig, generationConfig } from '../../generation/config.js'
import type { Generator, Tensor } from '../../tensor/index.js'
import { videoAudio } from '../../vision/video-audio.js'
import { melBinsOf, windowOf } from './config.js'
import { languageCode, tokenKinds } from './tokens.js'
import type { Whisper } from './whisper.js'
import type { WhisperWord } from './words.js'

/** The path of an audio or video file (the audio of videos is read by npm's `node-av`), its bytes, a result of `readAudio`, or samples [n] at 16 kHz. */
export type WhisperAudio = AudioClip

export interface TranscribeOptions {
  /** A code or an English name; null: detected. Default: that of the model's folder, else detected. */
  language?: string | null
  /** Number of windows for language detection, like faster-whisper's `language_detection_segments`. Default 1: only the first. */
  languageDetectionSegments?: number
  /** The first window with a language above this probability decides; else the most frequent language. Default 0.5. */
  languageDetectionThreshold?: number
  /** `'translate'` translates to English. Default: that of the model's folder, else `'transcribe'`. */
  task?: 'transcribe' | 'translate'
  /**
   * Resampling of audio to 16 kHz; see {@link ResampleQuality}. Default `'auto'`: speech at a lower rate, such as 8 kHz of a telephone, is
   * resampled without mirror images above its band.
   */
  resampling?: ResampleQuality
  /** false: each window is one segment; `'word'`: segments also have words with times. Default true. */
  timestamps?: boolean | 'word'
  /**
   * With `timestamps: 'word'`: remove pauses from words, as openai/whisper does, which shortens long words at the ends of sentences and
   * segments. Segments then start and end with their words, and punctuation has no duration. Tokens are unchanged. Default false, as in
   * transformers.
   */
  trimPauses?: boolean
  /** Number of beams at temperature 0. Default: that of `generationConfig`, else 1. */
  beams?: number
  /** Length penalty of beam search. Default: that of `generationConfig`, else 1. */
  lengthPenalty?: number
  /** Temperatures to try in sequence: 0 is greedy or beam search, above 0 is sampling. Default 0, 0.2, 0.4, 0.6, 0.8, 1. */
  temperature?: number | number[]
  /** Try the next temperature if the text's bytes divided by its compressed bytes exceed this. Default 2.4; null: never. */
  compressionRatioThreshold?: number | null
  /** Try the next temperature if the mean log probability of the tokens is below this. Default -1; null: never. */
  logprobThreshold?: number | null
  /** A window is silent if its no-speech probability exceeds this and `logprobThreshold` is not reached. Default 0.6; null: never. */
  noSpeechThreshold?: number | null
  /** Use the text so far as the prompt of each window. Default true. */
  conditionOnPrevious?: boolean
  /**
   * A text before the first window: names and words to expect, or a style. With `batchSize`, before each piece. It must not contain special
   * tokens.
   */
  initialPrompt?: string
  /** Put `initialPrompt` before every window, like openai/whisper's `carry_initial_prompt`. Default false: only before the first. */
  carryInitialPrompt?: boolean
  /**
   * Split the recording at silence into pieces of at most one window, and transcribe this many of them at once, like faster-whisper's batched
   * mode. This is faster for long recordings. If a window of a piece ends with a pair of timestamps, the rest of the piece is another window,
   * as in transformers; so is the part after the last timestamp of a window if `vad` finds a second of speech or more in it. Silence between
   * pieces is left out and reported as `skipped`. Pieces do not use the text of others, so `conditionOnPrevious` has no effect. Up to 8 rows
   * share one pass over the weights. Default: windows in sequence.
   */
  batchSize?: number
  /**
   * With `batchSize`: the speech detector, such as `segments` of `SileroVad`, or `energyVad`. Default: SileroVad if
   * `fetchWeights('silero-vad')` has stored its weights, else `energyVad`.
   */
  vad?: VoiceActivity
  /** Maximum tokens of a window. Default: `maxNewTokens` or `maxLength` of `generationConfig`, else the rest of the context. */
  maxNewTokens?: number
  /** Further options of `generate`, such as `suppressTokens`. Options that `TranscribeOptions` has are an error here. */
  generation?: GenerationConfig
  /** Random generator for temperatures above 0. */
  generator?: Generator
  /** Stops within one token. */
  signal?: AbortSignal
}

export interface WhisperSegment {
  /** In seconds from the start of the recording. */
  start: number
  end: number
  text: string
  /** Including timestamp tokens. */
  tokens: number[]
  /** With `timestamps: 'word'`. */
  words?: WhisperWord[]
  /** Statistics of the window that contains the segment. */
  avgLogprob: number
  compressionRatio: number
  noSpeechProb: number
  temperature: number
}

/** A part of the recording without a transcript, in seconds. */
export interface WhisperSkipped {
  start: number
  end: number
  /**
   * `'vad'`: no speech was detected, by `vad`, or without `batchSize` by `energyVad`; `'noSpeech'`: the window counts as silence
   * by `noSpeechThreshold` and `logprobThreshold`; `'noText'`: there is speech or other audio, and the network generated no text
   * for a second or more. Such a part may lie within a segment whose text passes over it; the alignment of the text finds it
   * (as for `timestamps: 'word'`) in windows with few tokens for their audio.
   */
  reason: 'vad' | 'noSpeech' | 'noText'
}

export interface WhisperTranscription {
  text: string
  /** A code; null for an English-only model. */
  language: string | null
  /** Probability among all languages, if the language was detected; else null. */
  languageProbability: number | null
  segments: WhisperSegment[]
  /** Parts without a transcript, in order. */
  skipped: WhisperSkipped[]
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
  | 'resampling'
  | 'languageDetectionSegments'
  | 'languageDetectionThreshold'
  | 'carryInitialPrompt'
>
/** `prompt` has the tokens of `initialPrompt`. */
export type Settings = TranscribeOptions & Required<Defaulted> & { prompt: number[] }

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
  resampling: 'auto',
  languageDetectionSegments: 1,
  languageDetectionThreshold: 0.5,
  carryInitialPrompt: false,
}

/** Options of `transcribe`. */
export const TRANSCRIBE_KEYS = [
  ...Object.keys(defaults),
  ...['language', 'initialPrompt', 'batchSize', 'vad', 'maxNewTokens', 'generation', 'generator', 'signal'],
]

/** Keys of `generation` that `transcribe` sets, with the option to use instead. */
const OWN: Partial<Record<keyof GenerationConfig, string>> = {
  doSample: 'set temperature of transcribe',
  temperature: 'set temperature of transcribe',
  numBeams: 'set beams of transcribe',
  lengthPenalty: 'set lengthPenalty of transcribe',
  returnTimestamps: 'set timestamps of transcribe',
  maxLength: 'set maxNewTokens of transcribe',
  noTimestampsTokenId: 'set model.tokens',
  lastTimestampTokenId: 'set model.tokenizer',
  eosTokenId: 'set model.generationConfig',
  numReturnSequences: 'transcribe returns one text',
  outputScores: 'transcribe returns none',
  outputLogits: 'transcribe returns none',
  outputLogprobs: 'transcribe returns none; see avgLogprob',
}

/** Return the defaults of the network's folder for options of `transcribe`. */
function folderDefaults({ transcribeDefaults, generationConfig }: Whisper): Partial<TranscribeOptions> {
  const { numBeams, lengthPenalty, maxNewTokens, maxLength } = generationConfig
  const most = maxNewTokens ?? maxLength
  return {
    ...transcribeDefaults,
    ...(numBeams !== undefined && { beams: numBeams }),
    ...(lengthPenalty != null && { lengthPenalty }),
    ...(most != null && { maxNewTokens: most }),
  }
}

/** Validate the options, and fill in defaults. */
export function settingsOf(model: Whisper, options: TranscribeOptions): Settings {
  const bad = (problem: string): never => {
    throw new ConfigError(`Whisper.transcribe: ${problem}`, { ...options })
  }
  requireOptions('Whisper.transcribe', options, TRANSCRIBE_KEYS)
  const settings = { ...defaults, ...folderDefaults(model), ...defined(options), prompt: [] as number[] } as Settings
  const { task, temperature } = settings
  requireSignal('Whisper.transcribe', settings.signal)
  if (task !== 'transcribe' && task !== 'translate')
    bad(`task: expected 'transcribe' or 'translate', got ${shown(task)}`)
  const temperatures = [temperature].flat()
  if (temperatures.length === 0 || !temperatures.every((one) => typeof one === 'number' && one >= 0)) {
    bad(`temperature: expected a number of at least 0 or a list of them, got ${shown(temperature)}`)
  }
  if (typeof settings.timestamps !== 'boolean' && settings.timestamps !== 'word') {
    bad(`timestamps: expected true, false or 'word', got ${shown(settings.timestamps)}`)
  }
  if (typeof settings.trimPauses !== 'boolean') {
    bad(`trimPauses: expected true or false, got ${shown(settings.trimPauses)}`)
  }
  if (settings.trimPauses && settings.timestamps !== 'word')
    bad(`trimPauses: expected timestamps 'word' with it, got ${shown(settings.timestamps)}`)
  requireOneOf('Whisper.transcribe', 'resampling', settings.resampling, RESAMPLE_QUALITIES)
  requireWhole('Whisper.transcribe', 'languageDetectionSegments', settings.languageDetectionSegments, 1)
  requireNumber('Whisper.transcribe', 'languageDetectionThreshold', settings.languageDetectionThreshold, { least: 0 })
  if (typeof settings.carryInitialPrompt !== 'boolean') {
    bad(`carryInitialPrompt: expected true or false, got ${shown(settings.carryInitialPrompt)}`)
  }
  if (settings.carryInitialPrompt && !settings.initialPrompt)
    bad('carryInitialPrompt: expected an initialPrompt with it, got none')
  const own = optionsOf(settings.generation ?? {}, 'Whisper.transcribe: generation') as GenerationConfig
  for (const [key, advice] of Object.entries(OWN) as [keyof GenerationConfig, string][]) {
    if (own[key] !== undefined) bad(`generation.${key}: expected no such key, got ${shown(own[key])}; ${advice}`)
  }
  const generation = generationConfig(own)
  if (generation.maxNewTokens != null) {
    if (options.maxNewTokens !== undefined && options.maxNewTokens !== generation.maxNewTokens) {
      bad(
        `maxNewTokens: expected the value of generation.maxNewTokens, ${generation.maxNewTokens}, got ${options.maxNewTokens}. Set only one of them.`,
      )
    }
    settings.maxNewTokens = generation.maxNewTokens
  }
  if (settings.maxNewTokens !== undefined) requireWhole('Whisper.transcribe', 'maxNewTokens', settings.maxNewTokens, 1)
  const { batchSize, vad } = settings
  if (batchSize !== undefined) {
    requireWhole('Whisper.transcribe', 'batchSize', batchSize, 1)
    if (options.conditionOnPrevious)
      bad('conditionOnPrevious: expected false with batchSize, got true. Pieces are transcribed in parallel.')
  }
  if (vad !== undefined) {
    requireFunction('Whisper.transcribe', 'vad', vad)
    if (batchSize === undefined) bad('vad: expected batchSize with it, got none')
  }
  if (model.tokenizer === null) {
    bad(
      'expected a model with a tokenizer, got one without. Set model.tokenizer = await Tokenizer.fromPretrained(directory).',
    )
  }
  settings.prompt = promptOf(model, settings.initialPrompt)
  if (settings.language != null) languageCode(model.tokens, settings.language)
  if (task === 'translate' && Object.keys(model.tokens.languages).length === 0) {
    bad("task: expected 'transcribe' for an English-only model, got 'translate'")
  }
  return settings
}

/** Return the tokens of a prompt. Special tokens are an error, as in transformers' `get_prompt_ids`. */
function promptOf(model: Whisper, initialPrompt: string | undefined): number[] {
  if (initialPrompt === undefined) return []
  requireString('Whisper.transcribe', 'initialPrompt', initialPrompt)
  const text = initialPrompt.trim()
  const { tokenizer } = model
  if (text === '' || tokenizer === null) return []
  const ids = tokenizer.encode(` ${text}`, { addSpecialTokens: false }).inputIds
  const { isText } = tokenKinds(model)
  const special = ids.find((id) => !isText(id))
  if (special === undefined) return ids
  throw new ConfigError(
    `Whisper.transcribe: initialPrompt: expected text without special tokens, got ${shown(tokenizer.idToToken(special))}. Remove it from the prompt.`,
    { argument: 'initialPrompt', token: special },
  )
}

/** Return the samples [n] at 16 kHz on the network's device. */
export async function samplesOf(
  model: Whisper,
  audio: WhisperAudio,
  quality: ResampleQuality = defaults.resampling,
): Promise<Tensor> {
  const { samples } = await openClip({ where: 'Whisper.transcribe' }, await videoAudio(audio), {
    allowEmpty: true,
    quality,
  })
  return samples.to({ device: (model.parameters()[0] as Tensor).device })
}

/** Return the spectrogram [numMelBins, steps], padded with silence to at least a window, and its number of steps with audio. */
export async function spectrogramOf(model: Whisper, samples: Tensor): Promise<{ mel: Tensor; steps: number }> {
  const length = windowOf(model.config) * HOP
  const count = samples.shape[0] as number
  const mel = await logMelSpectrogram(samples, {
    nMels: melBinsOf(model.config),
    length: count <= length ? length : null,
  })
  return { mel, steps: Math.floor(count / HOP) }
}
