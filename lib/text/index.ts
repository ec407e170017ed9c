export type { AddedToken, AddedTokenInput } from './added-tokens.js'
export type { BatchEncoding, BatchOptions, TensorBatch } from './batch.js'
export type { ChatEncoding, ChatMessage, ChatOptions } from './chat.js'
export {
  type CtcDecodeOptions,
  type CtcOffset,
  type CtcText,
  CtcTokenizer,
  type CtcTokenizerOptions,
} from './ctc-tokenizer.js'
export type { DecodeStream } from './decode-stream.js'
export type { Encoding } from './encoding.js'
export { type DecodeOptions, type EncodeOptions, Tokenizer, Tokenizer as AutoTokenizer } from './tokenizer.js'
export type { TruncationOptions } from './truncation.js'
