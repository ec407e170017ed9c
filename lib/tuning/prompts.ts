import { isList, shown } from '../base/check.js'
import { VoxtorchError } from '../base/errors.js'
import type { BadRecords } from '../kit/records.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { encodeChat, type PromptAudio, promptAudio, type TuningModel } from './audio.js'
import { plain, recordsOf } from './pairs.js'

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

/** Return the prompts of records, or of the records of a JSON Lines file. Records that cannot be used go to `bad`. */
export async function promptsOf(
  model: TuningModel,
  tokenizer: Tokenizer,
  records: readonly PromptRecord[] | string,
  maxLength: number,
  bad: BadRecords,
  name: string,
): Promise<Prompt[]> {
  const prompts: Prompt[] = []
  for await (const { record, place, fields } of recordsOf(records, bad, name)) {
    const refuse = (reason: string, message: string) => bad.note(reason, `${place}: ${message}`, fields)
    const { prompt, tools } = (typeof record === 'object' && record !== null ? record : {}) as Partial<PromptRecord>
    const isMessage = (one: unknown) => typeof (one as ChatMessage | null)?.role === 'string'
    const isGood =
      typeof prompt === 'string' ? prompt !== '' : isList(prompt) && prompt.length > 0 && prompt.every(isMessage)
    if (!isGood || Array.isArray(record)) {
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
      found = await tokensOf(model, tokenizer, prompt as string | readonly ChatMessage[], tools)
    } catch (error) {
      if (!(error instanceof VoxtorchError)) throw error
      refuse('invalid record', error.message)
      continue
    }
    const { ids } = found
    if (ids.length === 0 || ids.length > maxLength) {
      refuse('long prompt', `prompt: expected 1 to ${maxLength} tokens (maxLength), got ${ids.length}.`)
      continue
    }
    prompts.push({ index: prompts.length, ...found, record: record as PromptRecord, place, fields })
  }
  return prompts
}

async function tokensOf(
  model: TuningModel,
  tokenizer: Tokenizer,
  prompt: string | readonly ChatMessage[],
  tools: readonly unknown[] | null | undefined,
): Promise<{ ids: number[]; audio?: PromptAudio }> {
  if (typeof prompt === 'string') return { ids: await plain(tokenizer, prompt, null) }
  const { messages, audio } = await promptAudio(model, prompt, 'prompt')
  const ids = await encodeChat(model, tokenizer, messages, { addGenerationPrompt: true, tools, audio })
  return { ids, ...(audio && { audio }) }
}
