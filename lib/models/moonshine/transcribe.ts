import { type AudioClip, openClip, SPEECH_RATE } from '../../audio/clip.js'
import { normalizeWav2Vec2 } from '../../audio/normalize.js'
import type { Segment, VoiceActivity } from '../../audio/silence.js'
import { requireFunction, requireNumber, requireOptions, requireSignal } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { noGrad, scope, type Tensor } from '../../tensor/index.js'
import { requireTokenizer } from '../require-tokenizer.js'
import { speechPieces } from '../whisper/speech-pieces.js'
import { FIRST_SAMPLES } from './config.js'
import type { Moonshine } from './moonshine.js'

export interface MoonshineTranscribeOptions {
  /**
   * Maximum number of tokens per second of audio, which ends repetitions. Default 6.5, as in the published models' examples; null: only
   * `maxPositionEmbeddings` limits a text.
   */
  maxTokensPerSecond?: number | null
  /** Maximum length of a piece in seconds. Default 30. */
  chunkSeconds?: number
  /** Voice activity detector for recordings longer than `chunkSeconds`. Default: SileroVad if its published weights are stored, else `energyVad`. */
  vad?: VoiceActivity
  /** Signal that cancels the transcription within one token. */
  signal?: AbortSignal
}

export interface MoonshineTranscription {
  text: string
  /** The pieces with text, and their times in seconds: one for a recording of at most `chunkSeconds`. */
  segments: { start: number; end: number; text: string }[]
}

export const MOONSHINE_TRANSCRIBE_KEYS = ['maxTokensPerSecond', 'chunkSeconds', 'vad', 'signal']

/** Implement `Moonshine.transcribe`. */
export async function transcribeMoonshine(
  model: Moonshine,
  audio: AudioClip,
  options: MoonshineTranscribeOptions,
): Promise<MoonshineTranscription> {
  const where = 'Moonshine.transcribe'
  requireOptions(where, options, MOONSHINE_TRANSCRIBE_KEYS)
  const { maxTokensPerSecond = 6.5, chunkSeconds = 30, vad, signal } = options
  if (maxTokensPerSecond !== null) requireNumber(where, 'maxTokensPerSecond', maxTokensPerSecond, { least: 0 })
  requireNumber(where, 'chunkSeconds', chunkSeconds, { least: 1 })
  if (vad !== undefined) requireFunction(where, 'vad', vad)
  requireSignal(where, signal)
  const tokenizer = requireTokenizer(where, model.tokenizer)
  signal?.throwIfAborted()
  return noGrad(() =>
    scope(async () => {
      const { samples } = await openClip({ where }, audio, { allowEmpty: true, signal: signal ?? undefined })
      const count = samples.size(0)
      if (count < FIRST_SAMPLES) {
        throw new DataError(`${where}: expected at least ${FIRST_SAMPLES} samples, got ${count}. Use a longer clip.`, {
          samples: count,
        })
      }
      const duration = count / SPEECH_RATE
      const pieces: Segment[] =
        duration <= chunkSeconds ? [[0, duration]] : (await speechPieces(samples, chunkSeconds, vad)).pieces
      const segments: MoonshineTranscription['segments'] = []
      for (const [start, end] of pieces) {
        signal?.throwIfAborted()
        const from = Math.round(start * SPEECH_RATE)
        const length = Math.min(Math.round(end * SPEECH_RATE), count) - from
        const limit = limitOf(model, length, maxTokensPerSecond)
        const tokens = await scope(() => tokensOf(model, samples.narrow(0, from, length), limit, signal))
        const text = tokenizer.decode(tokens, { skipSpecialTokens: true }).trim()
        if (text !== '') segments.push({ start, end, text })
      }
      return { text: segments.map(({ text }) => text).join(' '), segments }
    }),
  )
}

/** Return the maximum length of the text of a number of samples, with the start token. */
function limitOf(model: Moonshine, samples: number, tokensPerSecond: number | null): number {
  const most = model.generationConfig.maxLength ?? (model.config.maxPositionEmbeddings as number)
  if (tokensPerSecond === null) return most
  return Math.min(most, Math.max(2, Math.floor((samples * tokensPerSecond) / SPEECH_RATE)))
}

async function tokensOf(
  model: Moonshine,
  piece: Tensor,
  maxLength: number,
  signal: AbortSignal | undefined,
): Promise<number[]> {
  const { device } = model.parameters()[0] as Tensor
  const short = Math.max(0, FIRST_SAMPLES - piece.size(0))
  const samples = (short > 0 ? piece.constantPadNd([0, short]) : piece).to({ device })
  const inputValues = (model.normalizesAudio ? await normalizeWav2Vec2(samples) : samples).unsqueeze(0)
  const { tokens } = await model.generate({ inputValues }, { maxLength }, signal ? { signal } : {})
  return tokens[0] as number[]
}
