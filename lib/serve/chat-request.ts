import { nearest } from '../base/words.js'
import { ApiError, badRequest } from './api-error.js'
import { decodeAudio, decodeClip, type EncodedAudio, encodedAudio } from './audio-part.js'
import type { ChatAnswerOptions, ChatModel, ChatPart, ChatSpeech, ChatTurn } from './chat-model.js'
import { decodeMedia, type EncodedMedia, encodedMedia, isMediaPart, type MediaBudget } from './media-part.js'
import type { ServeLimits } from './options.js'
import { type SpokenRequest, spokenRequest, VOICE_SECONDS } from './speech-request.js'

type EncodedPart = ChatPart | EncodedAudio | EncodedMedia

/** A request to `/v1/chat/completions`, checked. Its clips, pictures and films are not decoded yet. */
export interface ChatRequest {
  messages: { role: ChatTurn['role']; content: EncodedPart[]; audioId?: string }[]
  options: Omit<ChatAnswerOptions, 'signal' | 'speech'>
  spoken: SpokenRequest | undefined
  stream: boolean
  includeUsage: boolean
}

type Fields = Record<string, unknown>

/** @throws ApiError 400 naming the field, 404 for another model */
export function parseChatRequest(body: unknown, model: ChatModel, limits: ServeLimits): ChatRequest {
  if (!isFields(body)) throw badRequest('The body must be a JSON object.')
  checkNames(body)
  if (body.model != null && body.model !== model.name) {
    const asked = typeof body.model === 'string' ? JSON.stringify(body.model.slice(0, 100)) : 'of that kind'
    throw new ApiError(404, `There is no model ${asked}, only "${model.name}".`, {
      code: 'model_not_found',
      param: 'model',
    })
  }
  const streamOptions = body.stream_options ?? {}
  if (!isFields(streamOptions)) throw badRequest('stream_options must be an object.', 'stream_options')
  const stream = flag(body, 'stream')
  return {
    messages: messagesOf(body.messages, limits, model),
    options: { ...optionsOf(body, limits), ...extrasOf(body, model) },
    spoken: spokenRequest(body, model, stream),
    stream,
    includeUsage: flag(streamOptions, 'include_usage', 'stream_options.include_usage'),
  }
}

/** Decodes clips, pictures and films, one after the other. Films are open until the budget is released. */
export async function decodeMessages(
  messages: ChatRequest['messages'],
  { maxAudioSeconds }: ServeLimits,
  budget: MediaBudget,
  model: ChatModel,
  signal: AbortSignal,
): Promise<ChatTurn[]> {
  let left = maxAudioSeconds
  const decoded: ChatTurn[] = []
  for (const { role, content, ...rest } of messages) {
    const parts: ChatPart[] = []
    for (const part of content) {
      signal.throwIfAborted()
      const whole =
        part.type === 'encoded'
          ? await decodeAudio(part, left, signal, model.clipQuality)
          : 'param' in part
            ? await decodeMedia(part, budget, model, signal)
            : part
      if (whole.type === 'audio') left = Math.max(0, left - whole.seconds)
      parts.push(whole)
    }
    decoded.push({ role, content: parts, ...rest })
  }
  return decoded
}

/** Decodes the clip whose voice is wanted. */
export async function decodeSpoken(
  spoken: SpokenRequest | undefined,
  signal: AbortSignal,
): Promise<ChatSpeech | undefined> {
  if (spoken === undefined) return undefined
  const { voice, steps } = spoken
  return {
    ...(voice && { voice: await decodeClip(voice, VOICE_SECONDS, signal, null) }),
    ...(steps !== undefined && { steps }),
  }
}

/** What is understood. */
const understood =
  'messages model stream stream_options max_tokens max_completion_tokens temperature top_p top_k num_beams seed stop n modalities audio task score_labels views'.split(
    ' ',
  )
/** What says nothing to the model. */
const ignored = 'user metadata store service_tier safety_identifier prompt_cache_key verbosity'.split(' ')
/** What would change the answer, and is refused unless it asks for nothing. */
const neutral: Record<string, (value: unknown) => boolean> = {
  frequency_penalty: (value) => value === 0,
  presence_penalty: (value) => value === 0,
  logprobs: (value) => value === false,
  logit_bias: (value) => isFields(value) && Object.keys(value).length === 0,
  tools: (value) => Array.isArray(value) && value.length === 0,
  tool_choice: (value) => value === 'none',
  response_format: (value) => isFields(value) && value.type === 'text',
}

function checkNames(body: Fields): void {
  for (const [key, value] of Object.entries(body)) {
    if (understood.includes(key) || ignored.includes(key) || value === null) continue
    const harmless = Object.hasOwn(neutral, key) ? neutral[key] : undefined
    if (harmless?.(value)) continue
    if (harmless) throw badRequest(`${key} is not supported.`, key, 'unsupported_parameter')
    const near = nearest(key, [...understood, ...Object.keys(neutral)])
    const name = JSON.stringify(key.slice(0, 100))
    throw badRequest(
      `There is no field ${name}${near ? `; did you mean "${near}"?` : '.'}`,
      key.slice(0, 100),
      'unknown_parameter',
    )
  }
  if (body.n != null && body.n !== 1) throw badRequest('n must be 1.', 'n', 'unsupported_parameter')
}

function messagesOf(value: unknown, limits: ServeLimits, model: ChatModel): ChatRequest['messages'] {
  const speaks = model.outputModalities?.includes('audio') === true
  if (!Array.isArray(value) || value.length === 0)
    throw badRequest('messages must be a list that is not empty.', 'messages')
  if (value.length > limits.maxMessages)
    throw badRequest(`There are more than ${limits.maxMessages} messages.`, 'messages')
  let clips = 0
  let media = 0
  let characters = 0
  const messages = value.map((message: unknown, i) => {
    const param = `messages[${i}]`
    if (!isFields(message)) throw badRequest('A message must be an object.', param)
    const role = message.role === 'developer' ? 'system' : message.role
    if (role !== 'system' && role !== 'user' && role !== 'assistant') {
      throw badRequest('A role must be "system", "user" or "assistant".', `${param}.role`)
    }
    const audioId = speaks && role === 'assistant' ? audioIdOf(message.audio, `${param}.audio`) : undefined
    if (audioId !== undefined) return { role, content: [], audioId } as ChatRequest['messages'][number]
    const content = contentOf(message.content, `${param}.content`, model)
    for (const part of content) if (part.type === 'text') characters += part.text.length
    if (characters > limits.maxTextLength) {
      const most = `The texts have more than ${limits.maxTextLength} characters.`
      throw badRequest(most, `${param}.content`, 'text_too_long')
    }
    const sounds = content.filter(({ type }) => type === 'encoded').length
    if (sounds > 0 && role !== 'user') throw badRequest('Only a user sends audio.', `${param}.content`)
    clips += sounds
    if (clips > limits.maxAudioParts) {
      throw badRequest(`There are more than ${limits.maxAudioParts} clips.`, `${param}.content`, 'too_many_clips')
    }
    const seen = content.filter(({ type }) => type === 'encoded-image' || type === 'encoded-video').length
    if (seen > 0 && role !== 'user') throw badRequest('Only a user sends pictures and films.', `${param}.content`)
    media += seen
    if (media > limits.maxMediaParts) {
      const most = `There are more than ${limits.maxMediaParts} pictures and films.`
      throw badRequest(most, `${param}.content`, 'too_many_pictures')
    }
    return { role, content } as ChatRequest['messages'][number]
  })
  if (messages.at(-1)?.role !== 'user') throw badRequest("The last message must be the user's.", 'messages')
  return messages
}

/** Of an answer that was heard. */
function audioIdOf(value: unknown, param: string): string | undefined {
  if (value == null) return undefined
  if (isFields(value) && typeof value.id === 'string' && /^[\w-]{1,200}$/.test(value.id)) return value.id
  throw badRequest('audio must have the id of an earlier answer.', param)
}

const MOST_PARTS = 256

function contentOf(value: unknown, param: string, model: ChatModel): EncodedPart[] {
  if (typeof value === 'string') return [{ type: 'text', text: value }]
  if (!Array.isArray(value) || value.length === 0) throw badRequest('Content must be a text or a list of parts.', param)
  if (value.length > MOST_PARTS) throw badRequest(`There are more than ${MOST_PARTS} parts.`, param)
  return value.map((part: unknown, i) => {
    const place = `${param}[${i}]`
    if (!isFields(part)) throw badRequest('A part must be an object.', place)
    if (part.type === 'input_audio') return encodedAudio(part.input_audio, `${place}.input_audio`)
    if (isMediaPart(part.type)) return encodedMedia(part.type, part[part.type], place, model)
    if (part.type !== 'text') {
      const types = '"text", "input_audio", "image_url" or "video_url"'
      throw badRequest(`A part must be of type ${types}.`, `${place}.type`)
    }
    if (typeof part.text !== 'string') throw badRequest('A text must be a string.', `${place}.text`)
    return { type: 'text', text: part.text }
  })
}

function optionsOf(body: Fields, limits: ServeLimits): ChatRequest['options'] {
  const { maxNewTokens: most, defaultNewTokens } = limits
  const length = number(body, 'max_completion_tokens', 1, most, true) ?? number(body, 'max_tokens', 1, most, true)
  const given = {
    temperature: number(body, 'temperature', 0, 2),
    topP: number(body, 'top_p', 0, 1),
    topK: number(body, 'top_k', 0, 1e6, true),
    numBeams: number(body, 'num_beams', 1, 16, true),
    seed: number(body, 'seed', 0, Number.MAX_SAFE_INTEGER, true),
    stop: stopOf(body.stop),
  }
  const present = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  return { maxNewTokens: length ?? defaultNewTokens, ...present }
}

const MOST_LABELS = 64

/** What is not OpenAI's: a task of the model's, probabilities of labels, and what is looked at. */
function extrasOf(body: Fields, model: ChatModel): Pick<ChatAnswerOptions, 'task' | 'labels' | 'views'> {
  const { task = null, score_labels: labels = null } = body
  const views = flag(body, 'views')
  const { tasks = [], extras = [] } = model
  if (task !== null && !tasks.some(({ id }) => id === task)) {
    const known = tasks.length === 0 ? 'it has none' : `one of ${tasks.map(({ id }) => id).join(', ')}`
    throw badRequest(`${model.name} has no such task: ${known}.`, 'task', 'unsupported_value')
  }
  if (labels !== null) {
    if (!extras.includes('label_scores')) throw lacks(model, 'score_labels')
    const good =
      Array.isArray(labels) &&
      labels.length >= 2 &&
      labels.length <= MOST_LABELS &&
      labels.every((label) => typeof label === 'string' && label.trim() !== '' && label.length <= 256) &&
      new Set(labels).size === labels.length
    const wanted = `score_labels must be 2 to ${MOST_LABELS} different texts of up to 256 characters.`
    if (!good) throw badRequest(wanted, 'score_labels')
  }
  if (views && !extras.includes('views')) throw lacks(model, 'views')
  return {
    ...(task !== null && { task: task as string }),
    ...(labels !== null && { labels: labels as string[] }),
    ...(views && { views }),
  }
}

const lacks = (model: ChatModel, field: string) =>
  badRequest(`${model.name} gives no ${field}.`, field, 'unsupported_value')

function number(body: Fields, key: string, least: number, most: number, whole = false): number | undefined {
  const value = body[key]
  if (value == null) return undefined
  const good = typeof value === 'number' && value >= least && value <= most && (!whole || Number.isSafeInteger(value))
  if (!good) throw badRequest(`${key} must be a ${whole ? 'whole ' : ''}number from ${least} to ${most}.`, key)
  return value
}

function flag(body: Fields, key: string, param = key): boolean {
  const value = body[key] ?? false
  if (typeof value !== 'boolean') throw badRequest(`${param} must be true or false.`, param)
  return value
}

function stopOf(value: unknown): string[] | undefined {
  if (value == null) return undefined
  const texts = typeof value === 'string' ? [value] : value
  const good =
    Array.isArray(texts) &&
    texts.length <= 4 &&
    texts.every((text) => typeof text === 'string' && text !== '' && text.length <= 256)
  if (!good) throw badRequest('stop must be up to 4 texts of 1 to 256 characters.', 'stop')
  return texts.length === 0 ? undefined : texts
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
