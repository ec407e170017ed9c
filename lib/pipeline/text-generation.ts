import { argumentError, defined } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
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

export interface ChatGenerationOutput {
  /** The conversation with the answer, whose role is `assistant`. */
  generated_text: ChatMessage[]
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
        return { generated_text: [...prompt, { role: 'assistant', content: text }] }
      }
      return { generated_text: (returnFullText ?? true) ? prompt + text : text }
    }),
  )
}
