import { ConfigError } from '../base/errors.js'
import type { Tokenizer } from '../text/index.js'
import type { GenerateStep } from './generate.js'

export interface StreamTextOptions {
  /** Which row's text; default 0. */
  row?: number
  /** Leaves out special tokens such as the end of the text. Default true. */
  skipSpecialTokens?: boolean
}

/**
 * The text of one row of a stream as it becomes certain: a token that ends inside a character or word piece is held back
 * until the rest has come, so that the parts joined are what decoding all ids gives. transformers' `TextIteratorStreamer`.
 *
 * ```ts
 * for await (const text of streamText(tokenizer, model.stream({ inputIds }))) process.stdout.write(text)
 * ```
 * @throws ConfigError where the stream has no such row
 */
export async function* streamText(
  tokenizer: Tokenizer,
  steps: AsyncIterable<GenerateStep>,
  options: StreamTextOptions = {},
): AsyncGenerator<string, void, void> {
  const { row = 0, skipSpecialTokens = true } = options
  const decoder = tokenizer.decodeStream({ skipSpecialTokens })
  for await (const { tokens, finishReasons } of steps) {
    const token = tokens[row]
    if (token === undefined) throw new ConfigError(`streamText: there is no row ${row}, only ${tokens.length}`, { row })
    const text = token === null ? '' : decoder.push(token)
    if (text !== '') yield text
    if (finishReasons[row] !== null) break
  }
  const rest = decoder.end()
  if (rest !== '') yield rest
}
