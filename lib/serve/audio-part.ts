import { openClip, SPEECH_RATE } from '../audio/clip.js'
import type { ResampleQuality } from '../audio/resample.js'
import type { AudioFormat } from '../audio/sniff.js'
import { shown } from '../base/check.js'
import { OutOfMemoryError, VoxtorchError } from '../base/errors.js'
import { scope } from '../tensor/index.js'
import { badRequest } from './api-error.js'
import { fromBase64 } from './base64.js'
import type { ChatPart } from './chat-model.js'

/** Bytes of one decoded second of 48 kHz stereo. With more channels or a higher rate, fewer seconds fit the limit. */
const BYTES_PER_SECOND = 4 * 2 * 48_000

/** Values of a request's `format`, each with the formats that it allows. */
const formats: Record<string, AudioFormat[]> = {
  wav: ['wav'],
  flac: ['flac'],
  mp3: ['mp3'],
  ogg: ['vorbis', 'opus', 'flac'],
  vorbis: ['vorbis'],
  opus: ['opus'],
  m4a: ['m4a'],
  mp4: ['m4a'],
  aac: ['aac', 'm4a'],
}

/** An audio clip of a request: its fields are checked, its content is not decoded yet. */
export interface EncodedAudio {
  type: 'encoded'
  data: string
  format: string
  /** Path of the part in the request, for errors. */
  param: string
}

/** Check the fields of an `input_audio` part. @throws ApiError 400 naming the field */
export function encodedAudio(value: unknown, param: string): EncodedAudio {
  const { data, format } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  if (typeof data !== 'string' || data === '') {
    throw badRequest(`expected a base64 string, got ${shown(data)}.`, `${param}.data`)
  }
  if (typeof format !== 'string' || !Object.hasOwn(formats, format)) {
    const known = Object.keys(formats).join(', ')
    throw badRequest(`expected one of ${known}, got ${shown(format)}.`, `${param}.format`, 'unsupported_format')
  }
  return { type: 'encoded', data, format, param }
}

/**
 * Decode a clip to 16 kHz mono samples, the input of models.
 * @param most seconds that the conversation may still have
 * @param signal aborts the decoding, as when the client has disconnected
 */
export async function decodeAudio(
  part: EncodedAudio,
  most: number,
  signal: AbortSignal,
  quality?: ResampleQuality,
): Promise<ChatPart> {
  const { samples, sampleRate } = await decodeClip(part, most, signal, SPEECH_RATE, quality)
  return { type: 'audio', samples, seconds: samples.length / sampleRate }
}

/** Decode a clip to mono samples at `sampleRate`, or at the clip's rate for null. */
export async function decodeClip(
  { data, format, param }: EncodedAudio,
  most: number,
  signal: AbortSignal,
  sampleRate: number | null,
  quality?: ResampleQuality,
): Promise<{ samples: Float32Array; sampleRate: number }> {
  const bytes = fromBase64(data, `${param}.data`)
  try {
    return await scope(async () => {
      // Decode a little more than allowed, to detect a clip that is too long.
      const maxSeconds = most + 0.1
      const maxBytes = Math.ceil(BYTES_PER_SECOND * maxSeconds)
      const limits = { maxSeconds, maxBytes, signal, sampleRate, quality, allowEmpty: true }
      const audio = await openClip({ where: 'serve' }, bytes, limits)
      const detected = audio.source?.format as AudioFormat
      if (!formats[format]?.includes(detected)) {
        const message = `expected the format of the data, ${detected}, got ${shown(format)}.`
        throw badRequest(message, `${param}.format`, 'unsupported_format')
      }
      const samples = (await audio.samples.data()) as Float32Array
      const seconds = samples.length / audio.sampleRate
      if (samples.length === 0) {
        throw badRequest('expected audio with samples, got an empty clip.', `${param}.data`, 'invalid_audio')
      }
      if (seconds > most + 0.05) {
        const left = Number(most.toFixed(2))
        throw badRequest(
          `expected at most ${left} s more audio in this conversation (maxAudioSeconds), got a longer clip.`,
          `${param}.data`,
          'audio_too_long',
        )
      }
      return { samples, sampleRate: audio.sampleRate }
    })
  } catch (error) {
    if (!(error instanceof VoxtorchError) || error instanceof OutOfMemoryError) throw error
    const what = error.message.replace(/^the audio in memory: |^serve: /, '')
    throw badRequest(`cannot decode the audio: ${what.replace(/\.$/, '')}.`, `${param}.data`, 'invalid_audio')
  }
}
