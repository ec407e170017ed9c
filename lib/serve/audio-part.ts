import { openClip, SPEECH_RATE } from '../audio/clip.js'
import type { ResampleQuality } from '../audio/resample.js'
import type { AudioFormat } from '../audio/sniff.js'
import { OutOfMemoryError, VoxtorchError } from '../base/errors.js'
import { scope } from '../tensor/index.js'
import { badRequest } from './api-error.js'
import { fromBase64 } from './base64.js'
import type { ChatPart } from './chat-model.js'

/** Of a clip as it is decoded: stereo at 48 kHz. More channels or a higher rate leave fewer seconds. */
const BYTES_A_SECOND = 4 * 2 * 48_000

/** What a request may call each format. */
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

/** A clip of a request whose fields have been checked, not its content. */
export interface EncodedAudio {
  type: 'encoded'
  data: string
  format: string
  /** Its place in the request, for errors. */
  param: string
}

/** Checks an `input_audio` part's fields. */
export function encodedAudio(value: unknown, param: string): EncodedAudio {
  const { data, format } = (typeof value === 'object' && value !== null ? value : {}) as Record<string, unknown>
  if (typeof data !== 'string' || data === '') throw badRequest('Audio data must be a base64 string.', `${param}.data`)
  if (typeof format !== 'string' || !Object.hasOwn(formats, format)) {
    const known = Object.keys(formats).join(', ')
    throw badRequest(`The audio format must be one of ${known}.`, `${param}.format`, 'unsupported_format')
  }
  return { type: 'encoded', data, format, param }
}

/**
 * Decodes a clip to samples as models are given them.
 * @param most seconds that are left for it
 * @param signal ends it when nobody waits for the answer any more
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

/** The same at a rate, or at the clip's own. */
export async function decodeClip(
  { data, format, param }: EncodedAudio,
  most: number,
  signal: AbortSignal,
  sampleRate: number | null,
  quality?: ResampleQuality,
): Promise<{ samples: Float32Array; sampleRate: number }> {
  const bytes = fromBase64(data, 'audio', `${param}.data`)
  try {
    return await scope(async () => {
      // A little more than allowed tells that there is more.
      const maxSeconds = most + 0.1
      const maxBytes = Math.ceil(BYTES_A_SECOND * maxSeconds)
      const limits = { maxSeconds, maxBytes, signal, sampleRate, quality, allowEmpty: true }
      const audio = await openClip({ where: 'serve' }, bytes, limits)
      const found = audio.source?.format as AudioFormat
      if (!formats[format]?.includes(found)) {
        throw badRequest(`The audio is ${found}, not ${format}.`, `${param}.format`, 'unsupported_format')
      }
      const samples = (await audio.samples.data()) as Float32Array
      const seconds = samples.length / audio.sampleRate
      if (samples.length === 0) throw badRequest('The audio is empty.', `${param}.data`, 'invalid_audio')
      if (seconds > most + 0.05) {
        throw badRequest(`The clips are longer than the server allows.`, `${param}.data`, 'audio_too_long')
      }
      return { samples, sampleRate: audio.sampleRate }
    })
  } catch (error) {
    if (!(error instanceof VoxtorchError) || error instanceof OutOfMemoryError) throw error
    const what = error.message.replace(/^the audio in memory: |^serve: /, '')
    throw badRequest(`The audio cannot be read: ${what}.`, `${param}.data`, 'invalid_audio')
  }
}
