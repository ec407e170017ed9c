import { defined, shown } from '../base/check.js'
import { nearest } from '../base/words.js'
import { ApiError, badRequest } from './api-error.js'
import { decodeAudio, decodeClip, type EncodedAudio, encodedAudio } from './audio-part.js'
import type { ChatAnswerOptions, ChatModel, ChatPart, ChatSpeech, ChatTurn } from './chat-model.js'
import { decodeMedia, type EncodedMedia, encodedMedia, isMediaPart, type MediaBudget } from './media-part.js'
import type { ServeLimits } from './options.js'
import { type SpokenRequest, spokenRequest, VOICE_SECONDS } from './speech-request.js'

type EncodedPart = ChatPart | EncodedAudio | EncodedMedia

/** A validated request to `/v1/chat/completions`. Its audio, images and videos are not decoded yet. */
export interface ChatRequest {
  messages: { role: ChatTurn['role']; content: EncodedPart[]; audioId?: string }[]
  options: Omit<ChatAnswerOptions, 'signal' | 'speech'>
  spoken: SpokenRequest | undefined
  stream: boolean
  includeUsage: boolean
}

type Fields = Record<string, unknown>

/** Validate the body of a request. @throws ApiError 400 naming the field, 404 for another model */
export function parseChatRequest(body: unknown, model: ChatModel, limits: ServeLimits): ChatRequest {
  if (!isFields(body)) throw badRequest(`body: expected a JSON object, got ${shown(body)}.`)
  checkNames(body)
  if (body.model != null && body.model !== model.name) {
    const wrong = shown(typeof body.model === 'string' ? body.model.slice(0, 100) : body.model)
    throw new ApiError(404, `model: expected "${model.name}", the model of this server, got ${wrong}.`, {
      code: 'model_not_found',
      param: 'model',
    })
  }
  const streamOptions = body.stream_options ?? {}
  if (!isFields(streamOptions)) throw badRequest(`expected an object, got ${shown(streamOptions)}.`, 'stream_options')
  const stream = flag(body, 'stream')
  return {
    messages: messagesOf(body.messages, limits, model),
    options: { ...optionsOf(body, limits), ...extrasOf(body, model) },
    spoken: spokenRequest(body, model, stream),
    stream,
    includeUsage: flag(streamOptions, 'include_usage', 'stream_options.include_usage'),
  }
}

/** Decode audio, images and videos, one after the other. Video files stay open until the budget is released. */
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
      const decodedPart =
        part.type === 'encoded'
          ? await decodeAudio(part, left, signal, model.clipQuality)
          : 'param' in part
            ? await decodeMedia(part, budget, model, signal)
            : part
      if (decodedPart.type === 'audio') left = Math.max(0, left - decodedPart.seconds)
      parts.push(decodedPart)
    }
    decoded.push({ role, content: parts, ...rest })
  }
  return decoded
}

/** Decode the reference clip of the voice. */
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

/** Supported fields. */
const supported =
  'messages model stream stream_options max_tokens max_completion_tokens temperature top_p top_k num_beams seed stop n modalities audio task score_labels views'.split(
    ' ',
  )
/** Fields of other interfaces, such as that of text completions. */
const RENAMED: Readonly<Record<string, string>> = Object.assign(Object.create(null), {
  ...{ prompt: 'messages', input: 'messages', max_new_tokens: 'max_tokens', max_length: 'max_tokens' },
})
/** Fields that do not concern the model. */
const ignored = 'user metadata store service_tier safety_identifier prompt_cache_key verbosity'.split(' ')
/** Unsupported fields that would change the answer, each with a check for its neutral value. */
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
    if (supported.includes(key) || ignored.includes(key) || value === null) continue
    const isNeutral = Object.hasOwn(neutral, key) ? neutral[key] : undefined
    if (isNeutral?.(value)) continue
    if (isNeutral) throw badRequest('not supported by this server. Leave it out.', key, 'unsupported_parameter')
    const near = RENAMED[key.slice(0, 100)] ?? nearest(key, [...supported, ...Object.keys(neutral)])
    throw badRequest(`unknown field.${near ? ` Did you mean "${near}"?` : ''}`, key.slice(0, 100), 'unknown_parameter')
  }
  if (body.n != null && body.n !== 1) {
    throw badRequest(`expected 1, got ${shown(body.n)}.`, 'n', 'unsupported_parameter')
  }
}

function messagesOf(value: unknown, limits: ServeLimits, model: ChatModel): ChatRequest['messages'] {
  const speaks = model.outputModalities?.includes('audio') === true
  if (!Array.isArray(value) || value.length === 0)
    throw badRequest(`expected a non-empty list, got ${shown(value)}.`, 'messages')
  if (value.length > limits.maxMessages)
    throw badRequest(`expected at most ${limits.maxMessages} messages (maxMessages), got ${value.length}.`, 'messages')
  let clips = 0
  let media = 0
  let characters = 0
  const messages = value.map((message: unknown, i) => {
    const param = `messages[${i}]`
    if (!isFields(message)) throw badRequest(`expected an object, got ${shown(message)}.`, param)
    const role = message.role === 'developer' ? 'system' : message.role
    if (role !== 'system' && role !== 'user' && role !== 'assistant') {
      throw badRequest(`expected "system", "user" or "assistant", got ${shown(role)}.`, `${param}.role`)
    }
    const audioId = speaks && role === 'assistant' ? audioIdOf(message.audio, `${param}.audio`) : undefined
    if (audioId !== undefined) return { role, content: [], audioId } as ChatRequest['messages'][number]
    const content = contentOf(message.content, `${param}.content`, model)
    for (const part of content) if (part.type === 'text') characters += part.text.length
    if (characters > limits.maxTextLength) {
      const message = `expected at most ${limits.maxTextLength} characters in all messages (maxTextLength), got more.`
      throw badRequest(message, `${param}.content`, 'text_too_long')
    }
    const audioParts = content.filter(({ type }) => type === 'encoded').length
    if (audioParts > 0 && role !== 'user') {
      throw badRequest(`expected audio in user messages only, got it in the role "${role}".`, `${param}.content`)
    }
    clips += audioParts
    if (clips > limits.maxAudioParts) {
      const message = `expected at most ${limits.maxAudioParts} audio clips (maxAudioParts), got more.`
      throw badRequest(message, `${param}.content`, 'too_many_clips')
    }
    const mediaParts = content.filter(({ type }) => type === 'encoded-image' || type === 'encoded-video').length
    if (mediaParts > 0 && role !== 'user') {
      const message = `expected images and videos in user messages only, got one in the role "${role}".`
      throw badRequest(message, `${param}.content`)
    }
    media += mediaParts
    if (media > limits.maxMediaParts) {
      const message = `expected at most ${limits.maxMediaParts} images and videos (maxMediaParts), got more.`
      throw badRequest(message, `${param}.content`, 'too_many_pictures')
    }
    return { role, content } as ChatRequest['messages'][number]
  })
  if (messages.at(-1)?.role !== 'user') throw badRequest('expected a user message as the last one.', 'messages')
  return messages
}

/** Read the id of an earlier spoken answer. */
function audioIdOf(value: unknown, param: string): string | undefined {
  if (value == null) return undefined
  if (isFields(value) && typeof value.id === 'string' && /^[\w-]{1,200}$/.test(value.id)) return value.id
  throw badRequest(`expected an object with the id of an earlier spoken answer, got ${shown(value)}.`, param)
}

const MOST_PARTS = 256

function contentOf(value: unknown, param: string, model: ChatModel): EncodedPart[] {
  if (typeof value === 'string') return [{ type: 'text', text: value }]
  if (!Array.isArray(value) || value.length === 0) {
    throw badRequest(`expected a string or a non-empty list of parts, got ${shown(value)}.`, param)
  }
  if (value.length > MOST_PARTS) throw badRequest(`expected at most ${MOST_PARTS} parts, got ${value.length}.`, param)
  return value.map((part: unknown, i) => {
    const place = `${param}[${i}]`
    if (!isFields(part)) throw badRequest(`expected an object, got ${shown(part)}.`, place)
    if (part.type === 'input_audio') return encodedAudio(part.input_audio, `${place}.input_audio`)
    if (isMediaPart(part.type)) return encodedMedia(part.type, part[part.type], place, model)
    if (part.type !== 'text') {
      const types = '"text", "input_audio", "image_url" or "video_url"'
      throw badRequest(`expected ${types}, got ${shown(part.type)}.`, `${place}.type`)
    }
    if (typeof part.text !== 'string') throw badRequest(`expected a string, got ${shown(part.text)}.`, `${place}.text`)
    return { type: 'text', text: part.text }
  })
}

function optionsOf(body: Fields, limits: ServeLimits): ChatRequest['options'] {
  const { maxNewTokens: most, defaultNewTokens } = limits
  const length = number(body, 'max_completion_tokens', 1, most, true) ?? number(body, 'max_tokens', 1, most, true)
  const sampling = {
    temperature: number(body, 'temperature', 0, 2),
    topP: number(body, 'top_p', 0, 1),
    topK: number(body, 'top_k', 0, 1e6, true),
    numBeams: number(body, 'num_beams', 1, 16, true),
    seed: number(body, 'seed', 0, Number.MAX_SAFE_INTEGER, true),
    stop: stopOf(body.stop),
  }
  return { maxNewTokens: length ?? defaultNewTokens, ...defined(sampling) }
}

const MOST_LABELS = 64

/** Read the fields that OpenAI's API lacks: `task`, `score_labels` and `views`. */
function extrasOf(body: Fields, model: ChatModel): Pick<ChatAnswerOptions, 'task' | 'labels' | 'views'> {
  const { task = null, score_labels: labels = null } = body
  const views = flag(body, 'views')
  const { tasks = [], extras = [] } = model
  if (task !== null && !tasks.some(({ id }) => id === task)) {
    const ids = tasks.map(({ id }) => id).join(', ')
    const expected = tasks.length === 0 ? `none, as ${model.name} has no tasks` : `a task of ${model.name}: ${ids}`
    throw badRequest(`expected ${expected}; got ${shown(task)}.`, 'task', 'unsupported_value')
  }
  if (labels !== null) {
    if (!extras.includes('label_scores')) throw lacks(model, 'score_labels')
    const good =
      Array.isArray(labels) &&
      labels.length >= 2 &&
      labels.length <= MOST_LABELS &&
      labels.every((label) => typeof label === 'string' && label.trim() !== '' && label.length <= 256) &&
      new Set(labels).size === labels.length
    const expected = `2 to ${MOST_LABELS} different non-blank strings of up to 256 characters`
    if (!good) throw badRequest(`expected ${expected}, got ${shown(labels)}.`, 'score_labels')
  }
  if (views && !extras.includes('views')) throw lacks(model, 'views')
  return {
    ...(task !== null && { task: task as string }),
    ...(labels !== null && { labels: labels as string[] }),
    ...(views && { views }),
  }
}

const lacks = (model: ChatModel, field: string) =>
  badRequest(`not supported by ${model.name}. Leave it out.`, field, 'unsupported_value')

function number(body: Fields, key: string, least: number, most: number, whole = false): number | undefined {
  const value = body[key]
  if (value == null) return undefined
  const good = typeof value === 'number' && value >= least && value <= most && (!whole || Number.isSafeInteger(value))
  if (!good) {
    const kind = whole ? 'an integer' : 'a number'
    throw badRequest(`expected ${kind} from ${least} to ${most}, got ${shown(value)}.`, key)
  }
  return value
}

function flag(body: Fields, key: string, param = key): boolean {
  const value = body[key] ?? false
  if (typeof value !== 'boolean') throw badRequest(`expected true or false, got ${shown(value)}.`, param)
  return value
}

function stopOf(value: unknown): string[] | undefined {
  if (value == null) return undefined
  const texts = typeof value === 'string' ? [value] : value
  const good =
    Array.isArray(texts) &&
    texts.length <= 4 &&
    texts.every((text) => typeof text === 'string' && text !== '' && text.length <= 256)
  if (!good) throw badRequest(`expected up to 4 strings of 1 to 256 characters, got ${shown(value)}.`, 'stop')
  return texts.length === 0 ? undefined : texts
}

const isFields = (value: unknown): value is Fields =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
