import { type AudioClip, type LongAudio, openClip } from '../../audio/clip.js'
import { argumentError, requireObject, requireOneOf, requireOptions, shown } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { type ChangesOf, SIGNAL, settings } from '../../base/settings.js'
import { cat, ops, scope, type Tensor, tensor } from '../../tensor/index.js'
import type { ChatMessage } from '../../text/chat.js'
import type { Tokenizer } from '../../text/tokenizer.js'
import { requireTokenizer } from '../require-tokenizer.js'
import type { CompleteAudioLMConfig } from './config.js'
import { familyOf } from './config.js'

/** A part of a message: text, or an audio clip as a path, bytes or samples. */
export type AudioLMPart = string | { type: 'text'; text: string } | { type: 'audio'; audio: AudioClip }

/** A message of a conversation. */
export interface AudioLMMessage {
  role: string
  content: string | readonly AudioLMPart[]
}

export type AudioLMConversation = readonly AudioLMMessage[]

const FEATURES = settings({
  /**
   * Handling of a clip that is longer than the family takes: `'error'` (default) throws a DataError; `'cut'` keeps its beginning, as
   * transformers does; `'windows'` keeps all of it.
   */
  longAudio: { type: ['error', 'cut', 'windows'] },
  /** Aborts reading. */
  signal: { type: SIGNAL },
})

/** Options of `AudioLM.features`. @interface */
export type AudioLMFeatureOptions = ChangesOf<typeof FEATURES.table>

const PREPARE = settings({
  ...FEATURES.table,
  /** Whether to append the tokens that start the model's answer. Default true. */
  addGenerationPrompt: { type: 'boolean', default: true },
  /** Side of the padding of shorter conversations. Default `'left'`, for generation. */
  paddingSide: { type: ['left', 'right'], default: 'left' },
})

/** Options of `AudioLM.prepare`. @interface */
export type AudioLMPrepareOptions = ChangesOf<typeof PREPARE.table>

export interface AudioLMFeatures {
  /** Features of the windows of all clips, [windows, ...]. */
  inputFeatures: Tensor
  /** int64 [windows, steps]: 1 for audio; null for a family whose windows have no padding. */
  featuresMask: Tensor | null
  /** Number of tokens of each clip, for `prompt` of the model. */
  audioTokens: number[]
}

/** Inputs of `forward` and `generate`. */
export interface AudioLMPrepared {
  inputIds: Tensor
  attentionMask: Tensor
  inputFeatures?: Tensor
  featuresMask?: Tensor
}

/** Most audio tokens of a text: far above the number of positions of these networks. */
const MOST_TOKENS = 1 << 20

/** Read clips, and compute their features as the family's processor does. */
export async function audioFeatures(
  config: CompleteAudioLMConfig,
  clips: AudioClip | readonly AudioClip[],
  options: AudioLMFeatureOptions,
): Promise<AudioLMFeatures> {
  const where = 'AudioLM.features'
  const { longAudio = 'error', signal } = FEATURES.read(where, options)
  const isList = (value: unknown): value is readonly AudioClip[] => Array.isArray(value)
  const list = isList(clips) ? clips : [clips]
  if (list.length === 0) throw argumentError(where, 'clips', 'a clip, or several', clips)
  const family = familyOf(config)
  const { compute, mostSamples = Number.POSITIVE_INFINITY, stepDim = 2 } = family.features(config)
  const audioTokens: number[] = []
  return scope(async () => {
    const windows: Tensor[] = []
    const lengths: number[] = []
    for (const [i, clip] of list.entries()) {
      const limits = mostSamples === Number.POSITIVE_INFINITY ? {} : { mostSamples, longAudio: longAudio as LongAudio }
      const place = { where, argument: list.length > 1 ? `clips[${i}]` : 'clips' }
      const { samples } = await openClip(place, clip, { ...limits, ...(signal && { signal }) })
      const made = await compute(samples)
      const tokens = made.lengths.reduce((sum, steps) => sum + family.tokens(steps, config), 0)
      if (tokens === 0) {
        throw new DataError(
          `${where}: ${place.argument}: expected audio of at least one token, got ${samples.size(0)} samples.`,
          {
            samples: samples.size(0),
          },
        )
      }
      audioTokens.push(tokens)
      windows.push(made.features)
      lengths.push(...made.lengths)
    }
    const steps = Math.max(...windows.map((one) => one.size(stepDim)))
    const whole = windows.map((one) => padded(one, stepDim, steps))
    const inputFeatures = cat(whole, 0)
    if (family.wholeWindows) return { inputFeatures, featuresMask: null, audioTokens }
    const mask = lengths.map((length) => Array.from({ length: steps }, (_, step) => (step < length ? 1 : 0)))
    return { inputFeatures, featuresMask: tensor(mask, { dtype: 'int64', device: 'cpu' }), audioTokens }
  })
}

/** Append zeros to a dimension. */
function padded(features: Tensor, dim: 1 | 2, steps: number): Tensor {
  const more = steps - features.size(dim)
  if (more === 0) return features
  // Pairs from the last dimension on.
  const pairs = Array<number>(2 * (features.ndim - dim) - 1).fill(0)
  return ops.constantPadNd(features, [...pairs, more])
}

/** Return a text with each audio token repeated as often as its clip has tokens. @param token text of the audio token */
export function audioPrompt(token: string, text: string, audioTokens: readonly number[]): string {
  const where = 'AudioLM.prompt'
  if (typeof text !== 'string') throw argumentError(where, 'text', 'a string', text)
  if (!Array.isArray(audioTokens)) throw argumentError(where, 'audioTokens', 'a list of counts', audioTokens)
  for (const count of audioTokens as unknown[]) {
    if (!Number.isSafeInteger(count) || (count as number) < 1) {
      throw argumentError(where, 'audioTokens', 'counts of at least 1', count)
    }
  }
  const parts = text.split(token)
  if (parts.length - 1 !== audioTokens.length) {
    throw new DataError(
      `${where}: expected ${parts.length - 1} clips for ${parts.length - 1} times ${token} in the text, got ${audioTokens.length}.`,
      { placeholders: parts.length - 1, clips: audioTokens.length },
    )
  }
  const tokens = audioTokens.reduce((sum, count) => sum + count, 0)
  if (tokens > MOST_TOKENS) {
    throw new ConfigError(`${where}: expected at most ${MOST_TOKENS} audio tokens, got ${tokens}. Use shorter clips.`, {
      tokens,
    })
  }
  return parts.map((part, i) => (i === 0 ? part : token.repeat(audioTokens[i - 1] as number) + part)).join('')
}

/** Render conversations with the chat template, and compute the features of their clips. */
export async function prepareConversations(
  model: { config: CompleteAudioLMConfig; tokenizer: Tokenizer | null; audioToken: string },
  conversations: AudioLMConversation | readonly AudioLMConversation[],
  options: AudioLMPrepareOptions,
): Promise<AudioLMPrepared> {
  const where = 'AudioLM.prepare'
  const { addGenerationPrompt, paddingSide, ...reading } = PREPARE.read(where, options)
  const { config, audioToken } = model
  const tokenizer = requireTokenizer(where, model.tokenizer)
  if (!Array.isArray(conversations) || conversations.length === 0) {
    throw argumentError(where, 'conversations', 'a list of messages, or several', conversations)
  }
  const isMany = Array.isArray(conversations[0])
  const all = (isMany ? conversations : [conversations]) as readonly AudioLMConversation[]
  const rows = all.map((messages, i) => {
    const { messages: parts, clips } = clipsOf(isMany ? `conversations[${i}]` : 'messages', messages)
    const rendered = templateMessages({ config, audioToken }, parts)
    return { text: renderChat(config, tokenizer, rendered, addGenerationPrompt), clips }
  })
  return prepareTexts({ config, tokenizer, audioToken }, rows, { paddingSide, ...reading })
}

/** Render messages with the tokenizer's chat template, or else the family's. */
export function renderChat(
  config: CompleteAudioLMConfig,
  tokenizer: Tokenizer,
  messages: ChatMessage[],
  addGenerationPrompt: boolean,
): string {
  const { chatTemplate } = familyOf(config)
  const template = tokenizer.chatTemplate !== null || chatTemplate === undefined ? {} : { chatTemplate }
  return tokenizer.applyChatTemplate(messages, { addGenerationPrompt, tokenize: false, ...template })
}

/** Return messages as the family's chat template takes them. */
export const templateMessages = (
  { config, audioToken }: { config: CompleteAudioLMConfig; audioToken: string },
  messages: ChatMessage[],
): ChatMessage[] =>
  familyOf(config).hasTextMessages ? messages.map((message) => withText(message, audioToken)) : messages

/** Return a message whose parts are one text, with the audio token for a clip. */
function withText(message: ChatMessage, audioToken: string): ChatMessage {
  const { content } = message
  if (!Array.isArray(content)) return message
  const parts = content as readonly { type: string; text?: string }[]
  return { ...message, content: parts.map(({ type, text }) => (type === 'audio' ? audioToken : text)).join('') }
}

/** Encode texts with one audio token for each of their clips, and compute the features of the clips. */
export async function prepareTexts(
  { config, tokenizer, audioToken }: { config: CompleteAudioLMConfig; tokenizer: Tokenizer; audioToken: string },
  texts: readonly { text: string; clips: readonly AudioClip[] }[],
  { paddingSide = 'left', ...reading }: AudioLMFeatureOptions & Pick<AudioLMPrepareOptions, 'paddingSide'>,
): Promise<AudioLMPrepared> {
  return scope(async () => {
    const clips = texts.flatMap((one) => one.clips)
    const features = clips.length > 0 ? await audioFeatures(config, clips, reading) : undefined
    let at = 0
    const rows: number[][] = []
    for (const { text, clips } of texts) {
      const count = clips.length
      const whole = audioPrompt(audioToken, text, features?.audioTokens.slice(at, at + count) ?? [])
      at += count
      const { signal } = reading
      rows.push((await tokenizer.encodeAsync(whole, { addSpecialTokens: false, ...(signal && { signal }) })).inputIds)
    }
    const longest = Math.max(...rows.map((row) => row.length))
    const filler = fillerId(config, tokenizer)
    const pad = (row: readonly number[], value: number) => {
      const padding = Array<number>(longest - row.length).fill(value)
      return (paddingSide === 'left' ? [...padding, ...row] : [...row, ...padding]).map(BigInt)
    }
    const prepared: AudioLMPrepared = {
      inputIds: tensor(
        rows.map((row) => pad(row, filler)),
        { device: 'cpu' },
      ),
      attentionMask: tensor(
        rows.map((row) => pad(Array<number>(row.length).fill(1), 0)),
        { device: 'cpu' },
      ),
    }
    if (features) prepared.inputFeatures = features.inputFeatures
    if (features?.featuresMask) prepared.featuresMask = features.featuresMask
    return prepared
  })
}

/** Return the id of padding. Of GLM-ASR's tokens, the one for padding is also that of audio. */
export function fillerId(config: CompleteAudioLMConfig, { padTokenId, eosTokenId }: Tokenizer): number {
  const audioId = config[familyOf(config).token.key]
  return [padTokenId, eosTokenId, 0].find((id) => id != null && id !== audioId) ?? 1
}

/** Return a conversation for the template, with its clips in order. */
export function clipsOf(name: string, messages: AudioLMConversation): { messages: ChatMessage[]; clips: AudioClip[] } {
  const where = 'AudioLM.prepare'
  if (!Array.isArray(messages)) throw argumentError(where, name, 'a list of messages', messages)
  const clips: AudioClip[] = []
  const rendered = (messages as AudioLMConversation).map((message, i) => {
    const place = `${name}[${i}]`
    requireObject(where, place, message)
    const { role, content } = message
    if (typeof content === 'string') return { ...message, role, content }
    if (!Array.isArray(content)) throw argumentError(where, `${place}.content`, 'a text or a list of parts', content)
    const parts = (content as readonly AudioLMPart[]).map((part, j) => {
      if (typeof part === 'string') return { type: 'text', text: part }
      const inside = `${place}.content[${j}]`
      requireObject(where, inside, part)
      requireOneOf(where, `${inside}.type`, part.type, ['text', 'audio'])
      if (part.type === 'text') {
        requireOptions(`${where}: ${inside}`, part, ['type', 'text'])
        if (typeof part.text !== 'string') throw argumentError(where, `${inside}.text`, 'a text', part.text)
        return { type: 'text', text: part.text }
      }
      requireOptions(`${where}: ${inside}`, part, ['type', 'audio'])
      if (part.audio === undefined || part.audio === null) {
        throw argumentError(where, `${inside}.audio`, 'a path, bytes or samples', shown(part.audio))
      }
      clips.push(part.audio)
      // Templates ask for the type, or for this field.
      return { type: 'audio', audio: '' }
    })
    return { ...message, role, content: parts }
  })
  return { messages: rendered, clips }
}
