import { argumentError, defined, fieldOf, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { nearest } from '../base/words.js'
import type { GenerationConfig } from '../generation/config.js'
import type { GenerateOptions } from '../generation/generate.js'
import type { DecoderLM } from '../models/decoder/decoder-lm.js'
import { scope, tensor } from '../tensor/index.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** Options of `generate`, with these in addition: */
export interface TextGenerationOptions extends GenerationConfig, Pick<GenerateOptions, 'signal' | 'generator'> {
  /** Whether the output includes the prompt. Default true; a conversation is always returned in full. */
  returnFullText?: boolean
  /** Whether to add the tokenizer's special tokens to a prompt. Default true. */
  addSpecialTokens?: boolean
}

/** A text, or the messages of a conversation. */
export type TextGenerationInput = string | readonly ChatMessage[]

export interface TextGenerationOutput {
  generated_text: string
}

/** The message that `text-generation` adds to a conversation. */
export type GeneratedMessage = { role: 'assistant'; content: string }

export interface ChatGenerationOutput<M extends ChatMessage = ChatMessage> {
  /** The conversation with the answer at its end: `generated_text.at(-1)`. */
  generated_text: { at(index: -1): GeneratedMessage } & (M | GeneratedMessage)[]
}

const ROLES = ['system', 'developer', 'user', 'assistant', 'tool', 'function', 'ipython', 'environment']

/** Check the roles of messages. A template may ignore a message with an unknown role, such as 'usr'. */
function requireRoles(where: string, argument: string, messages: readonly ChatMessage[]): void {
  for (const [i, message] of messages.entries()) {
    const role = fieldOf(message, 'role')
    if (typeof role !== 'string' || ROLES.includes(role)) continue
    const near = nearest(role, ROLES, 2)
    if (near === undefined) continue
    throw new ConfigError(
      `${where}: ${argument}[${i}].role: expected 'system', 'user' or 'assistant', got ${shown(role)}. Did you mean '${near}'?`,
      { argument, role },
    )
  }
}

/** Generate `numReturnSequences` answers to each prompt. */
export async function generateTexts(
  where: string,
  model: DecoderLM,
  tokenizer: Tokenizer,
  prompts: readonly TextGenerationInput[],
  options: TextGenerationOptions,
): Promise<(TextGenerationOutput | ChatGenerationOutput)[][]> {
  const { returnFullText, addSpecialTokens = true, signal, generator, ...config } = options
  for (const [name, value] of Object.entries({ returnFullText, addSpecialTokens })) {
    if (value !== undefined && typeof value !== 'boolean') throw argumentError(where, name, 'true or false', value)
  }
  if (prompts.length === 0) return []
  prompts.forEach((prompt, i) => {
    if (Array.isArray(prompt)) requireRoles(where, prompts.length > 1 ? `prompts[${i}]` : 'messages', prompt)
  })
  const texts = prompts.map((prompt, i): [string, boolean] => {
    if (typeof prompt === 'string') return [prompt, addSpecialTokens]
    if (!Array.isArray(prompt)) throw argumentError(where, `prompts[${i}]`, 'a text or a list of messages', prompt)
    return [tokenizer.applyChatTemplate(prompt, { addGenerationPrompt: true, tokenize: false }), false]
  })
  const ids: number[][] = []
  for (const [text, adds] of texts) {
    const { inputIds } = await tokenizer.encodeAsync(text, { addSpecialTokens: adds, ...defined({ signal }) })
    ids.push(inputIds)
  }
  const empty = ids.findIndex((row) => row.length === 0)
  if (empty >= 0)
    throw new ConfigError(`${where}: prompts[${empty}]: expected at least one token, got none.`, { prompt: empty })
  const longest = Math.max(...ids.map((row) => row.length))
  const pad = (row: readonly number[], value: number, of: (id: number) => number) =>
    [...Array<number>(longest - row.length).fill(value), ...row.map(of)].map(BigInt)
  const { tokens } = await scope(async () => {
    const device = model.parameters()[0]?.device ?? 'cpu'
    const filler = tokenizer.padTokenId ?? tokenizer.eosTokenId ?? 0
    const inputIds = tensor(
      ids.map((row) => pad(row, filler, (id) => id)),
      { device },
    )
    const attentionMask = tensor(
      ids.map((row) => pad(row, 0, () => 1)),
      { device },
    )
    const { tokens } = await model.generate({ inputIds, attentionMask }, config, defined({ signal, generator }))
    return { tokens }
  })
  const each = tokens.length / prompts.length
  return prompts.map((prompt, i) =>
    tokens.slice(i * each, (i + 1) * each).map((answer) => {
      // Decode prompt and answer together, since SentencePiece drops a space at the beginning of a text.
      const read = (row: readonly number[]) => tokenizer.decode(row, { skipSpecialTokens: true })
      const row = ids[i] as number[]
      const text = read([...row, ...answer]).slice(read(row).length)
      if (typeof prompt !== 'string') {
        return { generated_text: [...prompt, { role: 'assistant', content: text }] } as ChatGenerationOutput
      }
      return { generated_text: (returnFullText ?? true) ? prompt + text : text }
    }),
  )
}
