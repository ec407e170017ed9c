import type { AudioClip } from '../../../audio/clip.js'
import {
  misuse,
  requireNumber,
  requireOneOf,
  requireOptions,
  requireSignal,
  requireString,
  requireWhole,
} from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { ContinuousBatching } from '../../../generation/batching.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { UnitExtractor } from '../../../models/units/unit-extractor.js'
import type { Device } from '../../../tensor/index.js'
import type { UsdmTurn } from '../data/prompt.js'
import type { UsdmTokenizer } from '../data/text.js'
import { UsdmCache } from './cache.js'
import type { UsdmFinish, UsdmSampling } from './passes.js'
import type { UsdmSpeaking, UsdmVocoder, UsdmVoice, UsdmVoicebox } from './speech.js'

/** The networks and the tokenizer, ready for use. */
export interface UsdmParts {
  /** With a row of its embeddings for each of the tokenizer's tokens. */
  llm: DecoderLM
  tokenizer: UsdmTokenizer
  /** What hears; it has as many units as the tokenizer. */
  units: UnitExtractor
  /** Default: none, so that replies are text and units. */
  voicebox?: UsdmVoicebox | null
  /** Of 22.05 kHz, with 256 samples for each frame. */
  vocoder?: UsdmVocoder | null
  /**
   * Where parts go while they work, and come back from to the CPU: hearing, writing and speaking need no room at the same time.
   * Default: they stay where they are.
   */
  offload?: Device
}

/** Something said: a clip, or its units where they are known. */
export type UsdmQuestion = AudioClip | { units: ArrayLike<number> }

export interface UsdmRespondOptions extends UsdmSpeaking {
  /** Turns before this one. Default none. */
  history?: readonly UsdmTurn[]
  /**
   * A clip whose voice the reply is spoken in, of a minute at most, or what `voice` made of one. Default: the Voicebox's own, another
   * each time.
   */
  reference?: AudioClip | UsdmVoice
  /** What was said, where it is known. Default: the first pass writes it. */
  transcript?: string
  /** What to reply, to have it spoken. Default: the second pass writes it. */
  reply?: string
  /** Of all three passes. Default: the likeliest token each time. */
  sampling?: UsdmSampling
  /** Units of the reply, 50 for each second. Default: what there is room for. */
  maxUnits?: number
  /** Tokens of the transcript and of the reply, each. Default: what there is room for. */
  maxTextTokens?: number
  /** Forbids what the published model may say and should not: padding, `<|continue|>`, line breaks in the reply. Default false. */
  strict?: boolean
  /** Whether there is sound in the end. Default: where there are a Voicebox and a vocoder. */
  audio?: boolean
  /** Of all that is drawn: tokens, and the noise that speech is made of. Default: another each time. */
  seed?: number | bigint
  /** What was read in earlier turns. Default: each call reads all of it. */
  cache?: UsdmCache
  /** Writes in passes that are shared with other replies. */
  batching?: ContinuousBatching
  /** Ends it within a token, or an evaluation of the Voicebox; what was awaited throws the signal's reason. */
  signal?: AbortSignal
}

/**
 * Units of the first piece of speech, and of each later one: a BigVGAN of the published size looks 40 frames ahead, so that fewer than
 * 42 units make no sound yet.
 */
export const PIECES = { firstUnits: 50, chunkUnits: 100 } as const

/** Of a clip whose voice is taken: each reply is made behind all of it. */
export const REFERENCE_SECONDS = 60

export interface UsdmVoiceOptions {
  /** A longer clip is refused before it is heard. Default 60. */
  maxSeconds?: number
  signal?: AbortSignal
}

export interface UsdmStreamOptions extends UsdmRespondOptions {
  /** Units of the first piece of speech. Default 50, a second; with a BigVGAN of the published size at least 42 are wanted for sound. */
  firstUnits?: number
  /** Units of each later one. Default 100. */
  chunkUnits?: number
}

export interface UsdmReply {
  /** What was heard. */
  transcript: string
  /** The reply. */
  text: string
  units: number[]
  /** The reply as sound, from -1 to 1; null without a Voicebox and a vocoder, or where none was asked for. */
  wav: { samples: Float32Array; sampleRate: number } | null
  /** Why each of the three ended. */
  finish: { transcript: UsdmFinish; text: UsdmFinish; units: UsdmFinish }
  /** For the next question's `history`. */
  turn: UsdmTurn
}

/** What `stream` gives, in this order; texts are all that is there of them so far. */
export type UsdmEvent =
  | { type: 'question'; units: Int32Array }
  | { type: 'transcript'; text: string }
  | { type: 'text'; text: string }
  /** The next units, and the next sound, which comes later than its units. */
  | { type: 'speech'; units: number[]; samples: Float32Array | null }
  | { type: 'reply'; reply: UsdmReply }

const SPEAKING: readonly (keyof UsdmRespondOptions)[] = ['reference', 'steps', 'solver', 'guidance']
export const RESPOND: readonly (keyof UsdmRespondOptions)[] = [
  ...SPEAKING,
  'history',
  'transcript',
  'reply',
  'sampling',
  'maxUnits',
  'maxTextTokens',
  'strict',
  'audio',
  'seed',
  'cache',
  'batching',
  'signal',
]
export const STREAM: readonly (keyof UsdmStreamOptions)[] = [...RESPOND, 'firstUnits', 'chunkUnits']

/** @throws ConfigError for wrong options, and for those that nobody would read */
export function checkRespond(where: string, usdm: UsdmParts, options: UsdmRespondOptions): void {
  const { sampling = {}, maxUnits, maxTextTokens, strict, audio, steps, solver, guidance, cache, signal } = options
  const speaks = usdm.voicebox != null && usdm.vocoder != null
  requireOptions(`${where}, sampling`, sampling, ['temperature', 'topP', 'topK'])
  requireNumber(where, 'sampling.temperature', sampling.temperature ?? 0, { least: 0 })
  requireNumber(where, 'sampling.topP', sampling.topP ?? 1, { least: 0, below: 1.000001 })
  requireWhole(where, 'sampling.topK', sampling.topK ?? 0)
  for (const [name, value] of Object.entries({ maxUnits, maxTextTokens, steps })) {
    if (value !== undefined) requireWhole(where, name, value, 1)
  }
  for (const [name, value] of Object.entries({ transcript: options.transcript, reply: options.reply })) {
    if (value !== undefined) requireString(where, name, value)
  }
  for (const [name, value] of Object.entries({ strict, audio })) {
    if (value !== undefined && typeof value !== 'boolean') throw misuse(where, name, 'true or false', value)
  }
  if (solver !== undefined) requireOneOf(where, 'solver', solver, ['euler', 'heun'])
  if (guidance !== undefined) requireNumber(where, 'guidance', guidance, { least: 0 })
  if (cache !== undefined && !(cache instanceof UsdmCache)) throw misuse(where, 'cache', 'a UsdmCache', cache)
  requireSignal(where, signal)
  if (audio && !speaks) {
    const lacks = usdm.voicebox ? 'vocoder' : 'Voicebox'
    throw new ConfigError(`${where}: there is no ${lacks} to make sound with`, { argument: 'audio' })
  }
  if (audio ?? speaks) return
  const unread = SPEAKING.find((name) => options[name] !== undefined)
  if (unread === undefined) return
  throw new ConfigError(`${where}: ${unread} is for a reply with sound, and none is made`, { argument: unread })
}

/** @throws ConfigError for parts that do not fit each other */
export function checkParts({ llm, tokenizer, units, voicebox, vocoder }: Omit<Required<UsdmParts>, 'offload'>): void {
  const rows = llm.config.vocabSize ?? 32_000
  const fail = (message: string, fields: object) => new ConfigError(`Usdm: ${message}`, { ...fields })
  if (rows < tokenizer.vocabSize) {
    throw fail(
      `the language model has ${rows} rows, and the tokenizer ${tokenizer.vocabSize} tokens: it was not trained with these (resizeTokenEmbeddings adds rows)`,
      { rows, tokens: tokenizer.vocabSize },
    )
  }
  if (units.units !== tokenizer.units) {
    throw fail(`there are ${units.units} centroids, and ${tokenizer.units} units in the tokenizer`, {
      centroids: units.units,
      units: tokenizer.units,
    })
  }
  const most = voicebox?.config.nTokens ?? 10_000
  if (voicebox && most !== tokenizer.units) {
    throw fail(`the Voicebox has ${most} units, and the tokenizer ${tokenizer.units}`, { units: tokenizer.units, most })
  }
  if (vocoder && (vocoder.sampleRate !== 22_050 || vocoder.samplesPerFrame !== 256)) {
    throw fail(
      `the vocoder makes ${vocoder.samplesPerFrame} samples of a frame at ${vocoder.sampleRate} Hz, and the Voicebox's frames are 256 at 22050 Hz`,
      { sampleRate: vocoder.sampleRate, samplesPerFrame: vocoder.samplesPerFrame },
    )
  }
}
