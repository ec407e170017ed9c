import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import type { Segment, VoiceActivity } from '../../audio/silence.js'
import { argumentError, defined } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { type ChangesOf, functionOf, SIGNAL, settings } from '../../base/settings.js'
import type { GenerationConfig } from '../../generation/config.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import type { ChatMessage } from '../../text/chat.js'
import { requireTokenizer } from '../require-tokenizer.js'
import { speechPieces } from '../whisper/speech-pieces.js'
import type { AudioLM } from './audio-lm.js'
import { familyOf } from './config.js'
import { type AudioLMPrepared, prepareTexts, renderChat } from './processor.js'

const SETTINGS = settings({
  /**
   * Language of the speech, for families whose request may name it: a code of two letters, with Qwen3-ASR also an English name. Default: the
   * model finds out.
   */
  language: { type: 'string' },
  /** Instruction to the model. Default: the family's; Qwen3-ASR takes context such as names here. Voxtral has none. */
  prompt: { type: 'string' },
  /** Number of pieces that are transcribed at once. Default 1. */
  batchSize: { type: 'integer', min: 1, default: 1 },
  /**
   * Maximum length of a piece in seconds. A longer recording is split at pauses. Default: the longest that the family is used with, from 30
   * (Qwen2-Audio) to 1800 (Voxtral).
   */
  chunkSeconds: { type: 'number', min: 0.1 },
  /** Voice activity detector for recordings longer than `chunkSeconds`. Default: SileroVad if its published weights are stored, else `energyVad`. */
  vad: { type: functionOf<VoiceActivity>() },
  /** Maximum number of tokens of a piece. Default: 32, and 10 per second. */
  maxNewTokens: { type: 'integer', min: 1 },
  /** Beam size. Default 1, greedy decoding. */
  numBeams: { type: 'integer', min: 1, default: 1 },
  /** Cancels the transcription within one token. */
  signal: { type: SIGNAL },
})

/** Options of `AudioLM.transcribe`. @interface */
export type AudioLMTranscribeOptions = ChangesOf<typeof SETTINGS.table>

export interface AudioLMTranscription {
  text: string
  /** Language that the answer names (Qwen3-ASR), or else the option; null if neither does. */
  language: string | null
  /** The pieces of the recording, and their times in seconds. `isComplete` is false if `maxNewTokens` ended the text. */
  segments: { start: number; end: number; text: string; isComplete: boolean }[]
  /** Parts of a recording longer than `chunkSeconds`, in seconds, in which the voice activity detector found no speech. */
  skipped: { start: number; end: number }[]
}

/** Tokens of a piece by default: speech has up to 8 a second. */
const LEAST_TOKENS = 32
const TOKENS_PER_SECOND = 10

/** Seconds of a piece that is not transcribed: some families need 70 ms for an audio token, and no word is shorter. */
const SHORTEST = 0.1
/** Seconds between pieces that are reported. */
const LEAST_SKIPPED = 0.02

interface Piece {
  clip: number
  /** Number of the piece in its recording. */
  index: number
  samples: Tensor
  start: number
  end: number
}

/** Return the name of a language in the family's requests; null without one. @throws ConfigError for another language */
function languageIn(model: AudioLM, where: string, language: string | undefined): string | null {
  if (language === undefined) return null
  const { languages } = familyOf(model.config).transcription
  const { modelType } = model.config
  if (languages === null) {
    throw new ConfigError(
      `${where}: language: expected none for ${modelType}, whose request names no language, got ${JSON.stringify(language)}. Leave it out.`,
      { option: 'language' },
    )
  }
  const asked = language.toLowerCase()
  if (languages === 'codes') {
    if (/^[a-z]{2}$/.test(asked)) return asked
    throw argumentError(where, 'language', 'a code of two letters, such as en', language)
  }
  const found = Object.entries(languages).find(([code, name]) => asked === code || asked === name.toLowerCase())
  if (found !== undefined) return found[1]
  throw argumentError(where, 'language', `one of ${Object.keys(languages).join(', ')}`, language)
}

/** Transcribe clips in batches of pieces, and yield each transcript when it and those before it are ready. */
export async function* transcribeClips(
  model: AudioLM,
  clips: readonly AudioClip[],
  options: AudioLMTranscribeOptions,
): AsyncGenerator<AudioLMTranscription, void, void> {
  const where = 'AudioLM.transcribe'
  const { language: asked, prompt, batchSize, chunkSeconds, vad, numBeams, ...rest } = SETTINGS.read(where, options)
  const { signal, maxNewTokens } = rest
  const { config, audioToken } = model
  const { transcription, features } = familyOf(config)
  const tokenizer = requireTokenizer(where, model.tokenizer)
  if (prompt !== undefined && transcription.prompt === null) {
    throw new ConfigError(
      `${where}: prompt: expected none for ${config.modelType}, whose request has no instruction, got a text. Leave it out.`,
      { option: 'prompt' },
    )
  }
  const language = languageIn(model, where, asked)
  const { mostSamples = Number.POSITIVE_INFINITY } = features(config)
  const limit = mostSamples / SPEECH_RATE
  const most = chunkSeconds ?? Math.min(limit, transcription.seconds)
  if (most > limit) {
    throw new ConfigError(`${where}: chunkSeconds: expected at most ${limit} for ${config.modelType}, got ${most}.`, {
      chunkSeconds: most,
    })
  }
  const request = transcription.request({ prompt: prompt ?? transcription.prompt ?? '', language, audioToken })
  const messages = request.messages.map(({ role, content }) => ({
    role,
    content:
      typeof content === 'string'
        ? content
        : content.map((part) =>
            typeof part === 'string' ? { type: 'text', text: part } : { type: 'audio', audio: '' },
          ),
  }))
  const text = renderChat(config, tokenizer, messages as ChatMessage[], true) + (request.answerStart ?? '')
  const generation = { doSample: false, numBeams }
  const { parse = (answer: string) => ({ text: answer, language: null }) } = transcription

  const found: (Pick<AudioLMTranscription, 'language' | 'skipped'> & {
    segments: (AudioLMTranscription['segments'][number] | null)[]
  })[] = []
  const queue: Piece[] = []
  let next = 0
  const flush = async () => {
    const pieces = queue.splice(0, batchSize)
    try {
      const answers = await noGrad(() =>
        scope(async () => {
          const texts = pieces.map(({ samples }) => ({ text, clips: [samples] }))
          const inputs = await prepareTexts({ config, tokenizer, audioToken }, texts, defined({ signal }))
          const limits = pieces.map(({ start, end }) => roomFor(where, model, inputs, maxNewTokens, end - start))
          const settings: GenerationConfig = { ...generation, maxNewTokens: Math.max(...limits), ...endOf(model) }
          const control = { maxNewTokensPerRow: limits, ...defined({ signal }) }
          const { tokens, finishReasons } = await model.generate(inputs, settings, control)
          return tokens.map((row, i) => ({
            ...parse(tokenizer.decode(row, { skipSpecialTokens: true }).trim()),
            isComplete: finishReasons[i] !== 'length',
          }))
        }),
      )
      for (const [i, { clip, index, start, end }] of pieces.entries()) {
        const { text, language, isComplete } = answers[i] as (typeof answers)[number]
        const one = found[clip] as (typeof found)[number]
        one.segments[index] = { start, end, text, isComplete }
        one.language ??= language
      }
    } finally {
      for (const { samples } of pieces) samples.dispose()
    }
  }
  const ready = function* (): Generator<AudioLMTranscription> {
    for (; next < found.length; next += 1) {
      const { segments, language: named, skipped } = found[next] as (typeof found)[number]
      if (segments.includes(null)) return
      const all = segments as AudioLMTranscription['segments']
      const text = all
        .map((one) => one.text)
        .filter((one) => one !== '')
        .join(' ')
      yield { text, language: named ?? language, segments: all, skipped }
    }
  }
  try {
    for (const [clip, input] of clips.entries()) {
      signal?.throwIfAborted()
      const argument = clips.length > 1 ? `clips[${clip}]` : 'clips'
      const { pieces, duration } = await piecesOf({ where, argument }, input, most, defined({ vad, signal }))
      const segments: (typeof found)[number]['segments'] = pieces.map(() => null)
      found.push({ segments, language: null, skipped: between(pieces, duration) })
      for (const [index, { samples, start, end }] of pieces.entries()) {
        if (end - start >= SHORTEST) {
          queue.push({ clip, index, samples, start, end })
          continue
        }
        samples.dispose()
        segments[index] = { start, end, text: '', isComplete: true }
      }
      while (queue.length >= batchSize) await flush()
      yield* ready()
    }
    while (queue.length > 0) await flush()
    yield* ready()
  } finally {
    for (const { samples } of queue) samples.dispose()
  }
}

/** Return the parts of a recording that no piece has. */
function between(pieces: readonly { start: number; end: number }[], duration: number): AudioLMTranscription['skipped'] {
  const starts = [0, ...pieces.map(({ end }) => end)]
  const ends = [...pieces.map(({ start }) => start), duration]
  return starts
    .map((start, i) => ({ start, end: ends[i] as number }))
    .filter(({ start, end }) => end - start >= LEAST_SKIPPED)
}

/** Return the tokens that end an answer: those of the model, or else of the tokenizer. */
export function endOf({ generationConfig, tokenizer }: AudioLM): GenerationConfig {
  const end = generationConfig.eosTokenId ?? tokenizer?.eosTokenId ?? null
  return end === null ? {} : { eosTokenId: end }
}

/** Read a clip, and cut it into pieces at pauses if it is longer than `most` seconds. */
function piecesOf(
  place: { where: string; argument: string },
  clip: AudioClip,
  most: number,
  { vad, signal }: { vad?: VoiceActivity; signal?: AbortSignal },
): Promise<{ pieces: { samples: Tensor; start: number; end: number }[]; duration: number }> {
  return noGrad(() =>
    scope(async () => {
      const { samples } = await openClip(place, clip, defined({ signal }))
      const count = samples.size(0)
      const duration = count / SPEECH_RATE
      const parts: Segment[] = duration <= most ? [[0, duration]] : (await speechPieces(samples, most, vad)).pieces
      const pieces = parts.map(([start, end]) => {
        const from = Math.round(start * SPEECH_RATE)
        const length = Math.min(Math.round(end * SPEECH_RATE), count, from + Math.floor(most * SPEECH_RATE)) - from
        return { samples: samples.narrow(0, from, length), start, end }
      })
      return { pieces, duration }
    }),
  )
}

/** Return the maximum number of new tokens. @throws ConfigError if the prompt leaves too few positions */
function roomFor(
  where: string,
  { decoder }: AudioLM,
  { inputIds }: AudioLMPrepared,
  asked: number | undefined,
  seconds: number,
): number {
  const wanted = asked ?? LEAST_TOKENS + Math.ceil(TOKENS_PER_SECOND * seconds)
  const { maxPositionEmbeddings: most } = decoder.config
  if (most === undefined) return wanted
  const left = most - inputIds.size(1)
  if (left < (asked ?? Math.min(wanted, LEAST_TOKENS))) {
    throw new ConfigError(
      `${where}: expected at most ${most} tokens for a piece and its transcript, but ${seconds.toFixed(1)} s of audio have ${inputIds.size(1)} with the request. Set chunkSeconds to a smaller value.`,
      { tokens: inputIds.size(1), maxPositionEmbeddings: most },
    )
  }
  return Math.min(left, wanted)
}
