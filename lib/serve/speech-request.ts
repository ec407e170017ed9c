import { shown } from '../base/check.js'
import { nearest } from '../base/words.js'
import { badRequest } from './api-error.js'
import { type EncodedAudio, encodedAudio } from './audio-part.js'
import type { ChatModel } from './chat-model.js'

/** Options of a spoken answer; the reference clip is not decoded yet. */
export interface SpokenRequest {
  /** Format of the audio: a WAV file, or 16-bit samples. */
  format: 'wav' | 'pcm16'
  voice?: EncodedAudio
  steps?: number
}

/** Longest reference clip, in seconds. */
export const VOICE_SECONDS = 60

const FORMATS = ['wav', 'pcm16']
const FIELDS = ['format', 'voice', 'reference', 'steps']
const MOST_STEPS = 1000

type Fields = Record<string, unknown>
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * Read `modalities` and `audio` of OpenAI's API, with two additional fields in `audio`: `reference`, a clip of the voice to
 * use in the form of `input_audio`, and `steps`, the steps of the solver.
 * @returns undefined for a text-only answer
 * @throws ApiError 400 naming the field
 */
export function spokenRequest(body: Fields, model: ChatModel, stream: boolean): SpokenRequest | undefined {
  const { modalities = null, audio = null } = body
  const output = modalities ?? ['text']
  const known = Array.isArray(output) && output.length > 0 && output.every((one) => one === 'text' || one === 'audio')
  if (!known || !output.includes('text')) {
    throw badRequest(`expected ["text"] or ["text", "audio"], got ${shown(modalities)}.`, 'modalities')
  }
  if (!output.includes('audio')) {
    if (audio === null) return undefined
    throw badRequest('expected "audio" in modalities too. Set modalities to ["text", "audio"].', 'audio')
  }
  if (!model.outputModalities?.includes('audio')) {
    throw badRequest(`expected ["text"], the only output of ${model.name}.`, 'modalities', 'unsupported_value')
  }
  if (body.stop != null) {
    throw badRequest('not supported with audio output. Leave it out.', 'stop', 'unsupported_parameter')
  }
  if (audio !== null && !isFields(audio)) throw badRequest(`expected an object, got ${shown(audio)}.`, 'audio')
  const fields = audio ?? {}
  for (const key of Object.keys(fields)) {
    if (FIELDS.includes(key)) continue
    const near = nearest(key, FIELDS)
    const hint = near ? ` Did you mean "${near}"?` : ''
    throw badRequest(
      `expected ${FIELDS.join(', ')}, got ${shown(key.slice(0, 100))}.${hint}`,
      'audio',
      'unknown_parameter',
    )
  }
  const { format = stream ? 'pcm16' : 'wav', voice = null, reference = null, steps = null } = fields
  if (!FORMATS.includes(format as string)) {
    throw badRequest(
      `expected one of ${FORMATS.join(', ')}, got ${shown(format)}.`,
      'audio.format',
      'unsupported_format',
    )
  }
  if (stream && format !== 'pcm16') {
    throw badRequest('expected "pcm16" for a streamed answer, got "wav".', 'audio.format', 'unsupported_format')
  }
  if (voice !== null && voice !== 'default') {
    throw badRequest(
      `expected "default", got ${shown(voice)}. For another voice send a clip as audio.reference.`,
      'audio.voice',
      'unsupported_value',
    )
  }
  if (steps !== null && !(Number.isSafeInteger(steps) && (steps as number) >= 1 && (steps as number) <= MOST_STEPS)) {
    throw badRequest(`expected an integer from 1 to ${MOST_STEPS}, got ${shown(steps)}.`, 'audio.steps')
  }
  return {
    format: format as 'wav' | 'pcm16',
    ...(reference !== null && { voice: encodedAudio(reference, 'audio.reference') }),
    ...(steps !== null && { steps: steps as number }),
  }
}
