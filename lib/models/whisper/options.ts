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
import { filmSound } from '../../vision/film-sound.js'
import { melBinsOf, windowOf } from './config.js'
import { languageCode, tokenKinds } from './tokens.js'
import type { Whisper } from './whisper.js'
import type { WhisperWord } from './words.js'

/** A path, also of a film, whose sound npm's `node-av` reads; the bytes of a sound file, what `readAudio` gave, or samples [n] at 16 kHz. */
export type WhisperAudio = AudioClip

export interface TranscribeOptions {
  /** A code or an English name. Default: that of the model's folder; null, or where the folder has none, detects it. */
  language?: string | null
  /** Windows in which the language is looked for, as faster-whisper's `language_detection_segments`. Default 1: the first. */
  languageDetectionSegments?: number
  /** The first window whose language is more probable decides; else the language of most windows. Default 0.5. */
  languageDetectionThreshold?: number
  /** `'translate'` writes English. Default: that of the model's folder, else `'transcribe'`. */
  task?: 'transcribe' | 'translate'
  /**
   * How audio at another rate becomes 16 kHz; see {@link ResampleQuality}. Default `'auto'`: speech at a lower rate, such as a
   * telephone's 8 kHz, is read without a mirror image above its band.
   */
  resampling?: ResampleQuality
  /** Without them each window is one segment; with `'word'` segments have words with their times too. Default true. */
  timestamps?: boolean | 'word'
  /**
   * With `timestamps: 'word'`: takes pauses out of words, as openai/whisper does, which shortens long words beside the ends
   * of sentences and segments. Segments then begin and end with their words, and punctuation has no time of its own. The
   * tokens stay the same. Default false: as transformers.
   */
  trimPauses?: boolean
  /** At temperature 0. Default: that of `generationConfig`, else 1. */
  beams?: number
  /** With beams. Default: that of `generationConfig`, else 1. */
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
  /**
   * A text that stands before the first: names and words to expect, or a style. With `batchSize`, before each piece. It may
   * not spell special tokens.
   */
  initialPrompt?: string
  /** Puts `initialPrompt` before every window, as openai/whisper's `carry_initial_prompt`. Default false: before the first. */
  carryInitialPrompt?: boolean
  /**
   * Cuts the recording where nobody speaks into pieces of a window at most, and transcribes so many of them at once, as
   * faster-whisper's batched mode does: quicker for long recordings. Where a window of a piece ends with a pair of timestamps,
   * the rest of the piece is another window, as in transformers; so is what follows the last timestamp of a window where `vad`
   * finds a second of speech or more. Silence between pieces is left out and reported as `skipped`. No
   * piece goes on from the text of another, so `conditionOnPrevious` has no effect. Up to 8 rows share one pass over the weights.
   * Default: windows one after the other.
   */
  batchSize?: number
  /**
   * With `batchSize`: what finds speech, such as {@link SileroVad}'s `segments`, or `energyVad`. Default: SileroVad where
   * `fetchWeights('silero-vad')` has stored its weights, else `energyVad`.
   */
  vad?: VoiceActivity
  /** Most tokens of a window. Default: `maxNewTokens` or `maxLength` of `generationConfig`, or as there is room for. */
  maxNewTokens?: number
  /** Anything else that `generate` knows, such as `suppressTokens`. Options that have a name here are refused there. */
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

/** A part of the recording without a transcript, in seconds. */
export interface WhisperSkipped {
  start: number
  end: number
  /**
   * `'vad'`: no speech was found there, by `vad`, or without `batchSize` by `energyVad`. `'noSpeech'`: the network took the
   * window for silence by `noSpeechThreshold` and `logprobThreshold`. `'noText'`: there is speech or another sound, and the
   * network wrote nothing about a second or more. Such a part may lie within a segment, whose text then passes over it: that
   * is found by the alignment of the text (as for `timestamps: 'word'`) where there are few tokens for the sound.
   */
  reason: 'vad' | 'noSpeech' | 'noText'
}

export interface WhisperTranscription {
  text: string
  /** A code; null where the network knows English only. */
  language: string | null
  /** Among all languages, where the language was detected; else null. */
  languageProbability: number | null
  segments: WhisperSegment[]
  /** What was left out, in order. */
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
/** `prompt`: the tokens of `initialPrompt`. */
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

const KEYS = [
  ...Object.keys(defaults),
  ...['language', 'initialPrompt', 'batchSize', 'vad', 'maxNewTokens', 'generation', 'generator', 'signal'],
]

/** Keys of `generation` that `transcribe` sets by itself, with the option in whose place they stand. */
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

/** What the network's folder sets for options that a call leaves out. */
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

/** Checked, and with what was left out. */
export function settingsOf(model: Whisper, options: TranscribeOptions): Settings {
  const bad = (problem: string): never => {
    throw new ConfigError(`Whisper.transcribe: ${problem}`, { ...options })
  }
  requireOptions('Whisper.transcribe', options, KEYS)
  const settings = { ...defaults, ...folderDefaults(model), ...defined(options), prompt: [] as number[] } as Settings
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
  requireOneOf('Whisper.transcribe', 'resampling', settings.resampling, RESAMPLE_QUALITIES)
  requireWhole('Whisper.transcribe', 'languageDetectionSegments', settings.languageDetectionSegments, 1)
  requireNumber('Whisper.transcribe', 'languageDetectionThreshold', settings.languageDetectionThreshold, { least: 0 })
  if (typeof settings.carryInitialPrompt !== 'boolean') {
    bad(`carryInitialPrompt: expected true or false, got ${shown(settings.carryInitialPrompt)}`)
  }
  if (settings.carryInitialPrompt && !settings.initialPrompt)
    bad('carryInitialPrompt: expected an initialPrompt to carry')
  const own = optionsOf(settings.generation ?? {}) as GenerationConfig
  for (const [key, advice] of Object.entries(OWN) as [keyof GenerationConfig, string][]) {
    if (own[key] !== undefined) bad(`generation.${key}: expected no such key, got ${shown(own[key])}; ${advice}`)
  }
  const generation = generationConfig(own)
  if (generation.maxNewTokens != null) {
    if (options.maxNewTokens !== undefined && options.maxNewTokens !== generation.maxNewTokens) {
      bad(
        `maxNewTokens is ${options.maxNewTokens} and generation.maxNewTokens ${generation.maxNewTokens}; set one of them`,
      )
    }
    settings.maxNewTokens = generation.maxNewTokens
  }
  if (settings.maxNewTokens !== undefined) requireWhole('Whisper.transcribe', 'maxNewTokens', settings.maxNewTokens, 1)
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
  settings.prompt = promptOf(model, settings.initialPrompt)
  if (settings.language != null) languageCode(model.tokens, settings.language)
  if (task === 'translate' && Object.keys(model.tokens.languages).length === 0) {
    bad('this Whisper knows English only and does not translate')
  }
  return settings
}

/** The tokens of a prompt, none of which may be special, as transformers' `get_prompt_ids` has it. */
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

/** [n] at 16 kHz, where the network is. */
export async function samplesOf(
  model: Whisper,
  audio: WhisperAudio,
  quality: ResampleQuality = defaults.resampling,
): Promise<Tensor> {
  const { samples } = await openClip({ where: 'Whisper.transcribe' }, await filmSound(audio), {
    allowEmpty: true,
    quality,
  })
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
