import { nearest } from '../base/words.js'
import { badRequest } from './api-error.js'
import { type EncodedAudio, encodedAudio } from './audio-part.js'
import type { ChatModel } from './chat-model.js'

/** How a request wants its answer spoken; the clip is not decoded yet. */
export interface SpokenRequest {
  /** Of the sound: a whole file, or 16-bit samples. */
  format: 'wav' | 'pcm16'
  voice?: EncodedAudio
  steps?: number
}

/** Of a clip whose voice is taken. */
export const VOICE_SECONDS = 60

const FORMATS = ['wav', 'pcm16']
const FIELDS = ['format', 'voice', 'reference', 'steps']
const MOST_STEPS = 1000

type Fields = Record<string, unknown>
const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/**
 * Reads `modalities` and `audio` of OpenAI's API, with two fields of our own in `audio`: `reference`, a clip as in `input_audio`
 * whose voice is taken, and `steps` of the solver.
 * @returns undefined where the answer is text alone
 * @throws ApiError 400 naming the field
 */
export function spokenRequest(body: Fields, model: ChatModel, stream: boolean): SpokenRequest | undefined {
  const { modalities = null, audio = null } = body
  const asked = modalities ?? ['text']
  const known = Array.isArray(asked) && asked.length > 0 && asked.every((one) => one === 'text' || one === 'audio')
  if (!known || !asked.includes('text')) {
    throw badRequest('modalities must be ["text"] or ["text", "audio"].', 'modalities')
  }
  if (!asked.includes('audio')) {
    if (audio === null) return undefined
    throw badRequest('audio is for modalities with "audio".', 'audio')
  }
  if (!model.outputModalities?.includes('audio')) {
    throw badRequest(`${model.name} answers in text alone.`, 'modalities', 'unsupported_value')
  }
  if (body.stop != null) throw badRequest('stop is for answers in text alone.', 'stop', 'unsupported_parameter')
  if (audio !== null && !isFields(audio)) throw badRequest('audio must be an object.', 'audio')
  const fields = audio ?? {}
  for (const key of Object.keys(fields)) {
    if (FIELDS.includes(key)) continue
    const near = nearest(key, FIELDS)
    const name = JSON.stringify(key.slice(0, 100))
    throw badRequest(
      `There is no field ${name} in audio${near ? `; did you mean "${near}"?` : '.'}`,
      'audio',
      'unknown_parameter',
    )
  }
  const { format = stream ? 'pcm16' : 'wav', voice = null, reference = null, steps = null } = fields
  if (!FORMATS.includes(format as string)) {
    throw badRequest(`audio.format must be one of ${FORMATS.join(', ')}.`, 'audio.format', 'unsupported_format')
  }
  if (stream && format !== 'pcm16') {
    throw badRequest('Streamed audio is pcm16.', 'audio.format', 'unsupported_format')
  }
  if (voice !== null && voice !== 'default') {
    throw badRequest(
      'The only voice is "default"; a clip in audio.reference gives another.',
      'audio.voice',
      'unsupported_value',
    )
  }
  if (steps !== null && !(Number.isSafeInteger(steps) && (steps as number) >= 1 && (steps as number) <= MOST_STEPS)) {
    throw badRequest(`audio.steps must be a whole number from 1 to ${MOST_STEPS}.`, 'audio.steps')
  }
  return {
    format: format as 'wav' | 'pcm16',
    ...(reference !== null && { voice: encodedAudio(reference, 'audio.reference') }),
    ...(steps !== null && { steps: steps as number }),
  }
}
