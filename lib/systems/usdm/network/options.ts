import type { AudioClip } from '../../../audio/clip.js'
import { requireObject } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy, instanceOf, SIGNAL, settings, unchecked } from '../../../base/settings.js'
import type { ContinuousBatching } from '../../../generation/batching.js'
import type { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { UnitExtractor } from '../../../models/units/unit-extractor.js'
import type { Device } from '../../../tensor/index.js'
import { ANSWER_SETTINGS, SAMPLING_SETTINGS } from '../configuration/settings.js'
import type { UsdmTurn } from '../data/prompt.js'
import type { UsdmTokenizer } from '../data/text.js'
import { UsdmCache } from './cache.js'
import type { UsdmFinish, UsdmSampling } from './passes.js'
import type { UsdmVocoder, UsdmVoice, UsdmVoicebox } from './speech.js'

/** The networks and the tokenizer of a USDM. */
export interface UsdmParts {
  /** With an embedding for each token of the tokenizer. */
  llm: DecoderLM
  tokenizer: UsdmTokenizer
  /** Audio encoder and centroids, with as many units as the tokenizer. */
  units: UnitExtractor
  /** Default: none; replies are then text and units. */
  voicebox?: UsdmVoicebox | null
  /** A vocoder for 22.05 kHz, with 256 samples per frame. */
  vocoder?: UsdmVocoder | null
  /**
   * Device that parts are moved to while they work, and back to the CPU after it: encoding, generation and speaking do not need memory
   * at the same time. Default: parts are not moved.
   */
  offload?: Device
}

/** A question: a clip, or its units. */
export type UsdmQuestion = AudioClip | { units: ArrayLike<number> }

export const RESPOND = ANSWER_SETTINGS.extend({
  /** Turns before this one. Default none. */
  history: { type: unchecked<readonly UsdmTurn[]>() },
  /**
   * Clip of the voice to reply in, at most a minute long, or a result of `voice`. Default: a random voice of the Voicebox, another
   * one each time.
   */
  reference: { type: unchecked<AudioClip | UsdmVoice>() },
  /** Sampling of all three passes. Default: greedy decoding. */
  sampling: {
    type: checkedBy<UsdmSampling>((where, name, value) => {
      requireObject(where, name, value)
      SAMPLING_SETTINGS.read(`${where}, ${name}`, value as UsdmSampling)
    }),
  },
  /** KV cache of the earlier turns. Default: each call encodes the whole conversation. */
  cache: { type: instanceOf(UsdmCache) },
  /** Continuous batching with other replies. */
  batching: { type: unchecked<ContinuousBatching>() },
  /** Stops within one token, or one Voicebox evaluation; the call throws the signal's reason. */
  signal: { type: SIGNAL },
})

/** Options of `Usdm.respond`. @interface */
export type UsdmRespondOptions = ChangesOf<typeof RESPOND.table>

/**
 * Units of the first piece of speech, and of each later piece. A BigVGAN of the published size looks 40 frames ahead, so fewer than 42
 * units give no audio yet.
 */
export const PIECES = { firstUnits: 50, chunkUnits: 100 } as const

/** Settings of the pieces of a streamed reply. */
export const PIECE_SETTINGS = settings({
  /** Units of the first piece of speech. Default 50, one second; a BigVGAN of the published size needs at least 42. */
  firstUnits: { type: 'integer', min: 1, default: PIECES.firstUnits },
  /** Units of each later piece. Default 100. */
  chunkUnits: { type: 'integer', min: 1, default: PIECES.chunkUnits },
})

export const STREAM = RESPOND.extend(PIECE_SETTINGS.table)

/** Options of `Usdm.stream`. @interface */
export type UsdmStreamOptions = ChangesOf<typeof STREAM.table>

export const VOICE = settings({
  /** Maximum seconds. A longer clip is refused before it is encoded, as every reply is conditioned on all of it. Default 60. */
  maxSeconds: { type: 'number', infinite: true, default: 60 },
  signal: { type: SIGNAL },
})

/** Options of `Usdm.voice`. @interface */
export type UsdmVoiceOptions = ChangesOf<typeof VOICE.table>

export interface UsdmReply {
  /** Transcript of the question. */
  transcript: string
  /** Text of the reply. */
  text: string
  units: number[]
  /** Audio of the reply, from -1 to 1; null without a Voicebox and a vocoder, or with `audio: false`. */
  wav: { samples: Float32Array; sampleRate: number } | null
  /** Why each of the three passes ended. */
  finish: { transcript: UsdmFinish; text: UsdmFinish; units: UsdmFinish }
  /** This turn, for `history` of the next question. */
  turn: UsdmTurn
}

/** Events of `stream`, in this order. `text` is the whole text so far. */
export type UsdmEvent =
  | { type: 'question'; units: Int32Array }
  | { type: 'transcript'; text: string }
  | { type: 'text'; text: string }
  /** The next units, and the next audio samples, which lag behind the units. */ // language: lag behind
  | { type: 'speech'; units: number[]; samples: Float32Array | null }
  | { type: 'reply'; reply: UsdmReply }

const SPEAKING: readonly (keyof UsdmRespondOptions)[] = ['reference', 'steps', 'solver', 'guidance']

/** @throws ConfigError for options without effect */
export function checkRespond(where: string, usdm: UsdmParts, options: UsdmRespondOptions): void {
  const { audio } = options
  const speaks = usdm.voicebox != null && usdm.vocoder != null
  if (audio && !speaks) {
    const missing = usdm.voicebox ? 'vocoder' : 'Voicebox'
    throw new ConfigError(
      `${where}: expected a Usdm with a ${missing} for audio: true, got one without. Set audio: false.`,
      { argument: 'audio' },
    )
  }
  if (audio ?? speaks) return
  const unread = SPEAKING.find((name) => options[name] !== undefined)
  if (unread === undefined) return
  throw new ConfigError(`${where}: expected ${unread} only with audio, got it without. Leave it out.`, {
    argument: unread,
  })
}

/** @throws ConfigError for parts that do not match each other */
export function checkParts({ llm, tokenizer, units, voicebox, vocoder }: Omit<Required<UsdmParts>, 'offload'>): void {
  const rows = llm.config.vocabSize ?? 32_000
  const fail = (message: string, fields: object) => new ConfigError(`Usdm: ${message}`, { ...fields })
  if (rows < tokenizer.vocabSize) {
    throw fail(
      `expected a language model with at least ${tokenizer.vocabSize} embeddings, one per token, got ${rows}. Use one trained with this tokenizer (resizeTokenEmbeddings adds untrained rows).`,
      { rows, tokens: tokenizer.vocabSize },
    )
  }
  if (units.units !== tokenizer.units) {
    throw fail(`expected as many centroids as units in the tokenizer, ${tokenizer.units}, got ${units.units}`, {
      centroids: units.units,
      units: tokenizer.units,
    })
  }
  const most = voicebox?.config.nTokens ?? 10_000
  if (voicebox && most !== tokenizer.units) {
    throw fail(`expected a Voicebox with ${tokenizer.units} units, like the tokenizer, got ${most}`, {
      units: tokenizer.units,
      most,
    })
  }
  if (vocoder && (vocoder.sampleRate !== 22_050 || vocoder.samplesPerFrame !== 256)) {
    throw fail(
      `expected a vocoder with 256 samples per frame at 22050 Hz, got ${vocoder.samplesPerFrame} at ${vocoder.sampleRate} Hz`,
      { sampleRate: vocoder.sampleRate, samplesPerFrame: vocoder.samplesPerFrame },
    )
  }
}
