import { ConfigError } from '../base/errors.js'
import type { Tokenizer } from '../text/index.js'
import type { GenerateStep } from './generate.js'

export interface StreamTextOptions {
  /** Index of the row. Default 0. */
  row?: number
  /** Whether to leave out special tokens such as the end of the text. Default true. */
  skipSpecialTokens?: boolean
}

/**
 * Decode one row of a stream to text. A token that ends inside a character or word piece is held back until the rest arrives, so that the
 * joined parts equal the decoding of all ids. transformers' `TextIteratorStreamer`.
 *
 * ```ts
 * for await (const text of streamText(tokenizer, model.stream({ inputIds }))) process.stdout.write(text)
 * ```
 * @throws ConfigError if the stream lacks this row
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
    if (token === undefined)
      throw new ConfigError(`streamText.row: expected an index below ${tokens.length}, got ${row}.`, { row })
    const text = token === null ? '' : decoder.push(token)
    if (text !== '') yield text
    if (finishReasons[row] !== null) break
  }
  const rest = decoder.end()
  if (rest !== '') yield rest
}
