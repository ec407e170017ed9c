import { isList, shown } from '../base/check.js'
import { VoxtorchError } from '../base/errors.js'
import type { BadRecords } from '../kit/records.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { audioIdOf, encodeChat, type PromptAudio, promptAudio, type TuningModel } from './audio.js'
import { isConversation, plainTokens, type Records, recordsOf } from './records.js'

/** A prompt for GRPO: a text, or messages, for an AudioLM with audio parts. Reward functions get the further fields. */
export interface PromptRecord {
  prompt: string | readonly ChatMessage[]
  /** Functions for the chat template, as JSON schemas. */
  tools?: readonly unknown[]
  [field: string]: unknown
}

/** Tokens of a prompt, with its record and the place of that. */
export interface Prompt {
  index: number
  ids: number[]
  audio?: PromptAudio
  record: PromptRecord
  place: string
  fields: Record<string, unknown>
}

/** Return the prompts of records. Those that cannot be used go to `bad`. */
export async function promptsOf(
  model: TuningModel,
  tokenizer: Tokenizer,
  records: Records<PromptRecord>,
  maxLength: number,
  bad: BadRecords,
  name: string,
): Promise<Prompt[]> {
  const prompts: Prompt[] = []
  for await (const { record, place, fields, refuse, root } of recordsOf(records, bad, name)) {
    const { prompt, tools } = record
    if (typeof prompt === 'string' ? prompt === '' : !isConversation(prompt)) {
      refuse(
        'invalid record',
        `prompt: expected a text or a list of messages with role and content, got ${shown(prompt)}.`,
      )
      continue
    }
    if (tools !== undefined && tools !== null && !isList(tools)) {
      refuse('invalid record', `tools: expected a list of JSON schemas, got ${shown(tools)}.`)
      continue
    }
    let found: { ids: number[]; audio?: PromptAudio }
    try {
      found = await tokensOf(model, tokenizer, prompt as PromptRecord['prompt'], tools, root)
    } catch (error) {
      if (!(error instanceof VoxtorchError)) throw error
      refuse('invalid record', error.message)
      continue
    }
    const { ids } = found
    const audioId = found.audio === undefined ? audioIdOf(model) : null
    if (audioId !== null && ids.includes(audioId)) {
      refuse('invalid record', 'prompt: expected messages with audio parts, got a text with an audio token.')
      continue
    }
    if (ids.length === 0 || ids.length > maxLength) {
      refuse('long prompt', `prompt: expected 1 to ${maxLength} tokens (maxLength), got ${ids.length}.`)
      continue
    }
    prompts.push({ index: prompts.length, ...found, record: record as unknown as PromptRecord, place, fields })
  }
  return prompts
}

async function tokensOf(
  model: TuningModel,
  tokenizer: Tokenizer,
  prompt: string | readonly ChatMessage[],
  tools: readonly unknown[] | null | undefined,
  root: string | undefined,
): Promise<{ ids: number[]; audio?: PromptAudio }> {
  if (typeof prompt === 'string') return { ids: await plainTokens(tokenizer, prompt, null) }
  const { messages, audio } = await promptAudio(model, prompt, 'prompt', root)
  const ids = await encodeChat(model, tokenizer, messages, { addGenerationPrompt: true, tools, audio })
  return { ids, ...(audio && { audio }) }
}
