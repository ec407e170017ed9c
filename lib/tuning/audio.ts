import type { AudioClip } from '../audio/clip.js'
import { argumentError, isList } from '../base/check.js'
import { AudioLM } from '../models/audio-lm/audio-lm.js'
import { familyOf } from '../models/audio-lm/config.js'
import { type AudioLMConversation, audioPrompt, clipsOf, templateMessages } from '../models/audio-lm/processor.js'
import { DecoderLM } from '../models/decoder/decoder-lm.js'
import { PeftModel } from '../peft/model.js'
import { scope, type Tensor, tensor } from '../tensor/index.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { clipOf } from './clips.js'

/** A model that answers: to texts, or to texts with audio. */
export type TuningModel = DecoderLM | AudioLM

/** Return the network of a model with or without adapters. */
export function tuningModel(where: string, model: TuningModel | PeftModel<TuningModel>): TuningModel {
  const network = model instanceof PeftModel ? model.model : model
  if (network instanceof DecoderLM || network instanceof AudioLM) return network
  throw argumentError(where, 'model', 'a DecoderLM, an AudioLM, or a PeftModel of one', model)
}

/** Return the id of the audio token; null for a model of texts. */
export const audioIdOf = (model: TuningModel): number | null =>
  model instanceof AudioLM ? (model.config[familyOf(model.config).token.key] as number) : null

/** Audio clips of a prompt, and the number of audio tokens of each. */
export interface PromptAudio {
  clips: readonly AudioClip[]
  audioTokens: readonly number[]
}

/** Audio of the rows of a batch: the features of each prompt once, however many rows have it. */
export interface AudioBatch {
  inputFeatures: Tensor
  featuresMask: Tensor | null
  /** For each audio token of the rows, in order, its index among the embeddings of the features; int64 [tokens]. */
  places: Tensor
}

/**
 * Return messages for the chat template, and their audio.
 * @throws VoxtorchError for parts that the model does not read, and for clips that cannot be read
 */
export async function promptAudio(
  model: TuningModel,
  messages: readonly ChatMessage[],
  name: string,
  root?: string,
): Promise<{ messages: readonly ChatMessage[]; audio?: PromptAudio }> {
  if (!messages.some(hasAudio)) return { messages }
  if (!(model instanceof AudioLM)) throw argumentError('messages', name, 'text alone with a DecoderLM', 'audio')
  const { messages: rendered, clips } = clipsOf(name, withClips(messages, name, root))
  const audioTokens = await scope(async () => (await model.features(clips)).audioTokens)
  return { messages: templateMessages(model, rendered), audio: { clips, audioTokens } }
}

/** Return messages whose audio parts hold clips. Parquet files have a column for each field of the parts, null where it is not used. */
const withClips = (messages: readonly ChatMessage[], name: string, root: string | undefined): AudioLMConversation =>
  messages.map((message, i) => {
    const { content } = message
    if (!isList(content)) return message
    const parts = content.map((part: unknown, j) => {
      if (typeof part !== 'object' || part === null) return part
      const given = Object.fromEntries(Object.entries(part).filter(([, value]) => value !== null))
      if (given.type !== 'audio') return given
      const { audio, path, ...others } = given
      return { ...others, audio: clipOf(audio ?? path, root, `${name}[${i}].content[${j}]`) }
    })
    return { ...message, content: parts }
  }) as unknown as AudioLMConversation

/** Whether a message has an audio part. */
export const hasAudio = ({ content }: ChatMessage): boolean =>
  Array.isArray(content) && content.some((part) => (part as { type?: unknown } | null)?.type === 'audio')

/** Render a conversation with the chat template, and return its token ids. */
export async function encodeChat(
  model: TuningModel,
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: {
    addGenerationPrompt: boolean
    tools?: readonly unknown[] | null | undefined
    audio?: PromptAudio | undefined
  },
): Promise<number[]> {
  const { addGenerationPrompt, tools, audio } = options
  const family = model instanceof AudioLM && tokenizer.chatTemplate === null ? familyOf(model.config) : undefined
  const text = tokenizer.applyChatTemplate(messages, {
    ...{ tokenize: false, addGenerationPrompt },
    ...(tools && { tools }),
    ...(family?.chatTemplate !== undefined && { chatTemplate: family.chatTemplate }),
  })
  const whole = model instanceof AudioLM ? audioPrompt(model.audioToken, text, audio?.audioTokens ?? []) : text
  return (await tokenizer.encodeAsync(whole, { addSpecialTokens: false })).inputIds
}

/** Compute the features of the clips of rows; undefined if no row has any. Rows may share the same audio object. */
export async function audioBatch(
  model: TuningModel,
  rows: readonly (PromptAudio | undefined)[],
): Promise<AudioBatch | undefined> {
  const prompts = [...new Set(rows.filter((row) => row !== undefined))]
  if (prompts.length === 0 || !(model instanceof AudioLM)) return undefined
  const { inputFeatures, featuresMask } = await model.features(prompts.flatMap(({ clips }) => clips))
  const starts = new Map<PromptAudio, number>()
  let at = 0
  for (const prompt of prompts) {
    starts.set(prompt, at)
    at += countOf(prompt)
  }
  const places = rows.flatMap((row) => {
    if (row === undefined) return []
    const start = starts.get(row) as number
    return Array.from({ length: countOf(row) }, (_, i) => start + i)
  })
  return { inputFeatures, featuresMask, places: tensor(places, { dtype: 'int64', device: 'cpu' }) }
}

const countOf = ({ audioTokens }: PromptAudio): number => audioTokens.reduce((sum, count) => sum + count, 0)

/** Return the embeddings of the audio tokens of rows, [tokens, hiddenSize]. */
export async function audioEmbeds(
  model: AudioLM,
  { inputFeatures, featuresMask, places }: AudioBatch,
): Promise<Tensor> {
  const states = await model.encodeAudio({ inputFeatures, ...(featuresMask && { featuresMask }) })
  const embeds = await model.projectAudio(states, featuresMask)
  return embeds.indexSelect(0, places.to({ device: embeds.device as 'cpu' }))
}
