import { ConfigError, DataError } from '../../../base/errors.js'
import {
  type InternVLConversation,
  type InternVLPromptOptions,
  type InternVLTemplate,
  internVLPrompt,
  internVLPromptAsync,
} from '../../../models/internvl/prompt.js'
import type { Tokenizer } from '../../../text/index.js'
import type { EmoVerseTask } from '../published/wording.js'
import type { EmoVerseQuestion } from './entry.js'

/** Return the chat template whose end token the tokenizer has. @throws ConfigError if it has neither */
export function templateOf(tokenizer: Tokenizer): InternVLTemplate {
  if (tokenizer.tokenToId('<|im_end|>') !== undefined) return 'hermes2'
  if (tokenizer.tokenToId('<|end|>') !== undefined) return 'phi3'
  throw new ConfigError(
    'template: expected a tokenizer with <|im_end|> or <|end|>, got neither. Set the template that the model was trained with.',
    {
      argument: 'template',
    },
  )
}

export interface EncodedText {
  inputIds: number[]
  /** Label of each token; -100 for tokens that do not contribute to the loss. */
  labels: number[]
}

export interface EncodeRecordOptions {
  template: InternVLTemplate
  system: string | null
  /** Whether the text ends with the answer. */
  answer: boolean
  /** Number of tiles of each image. Without it markers are plain text. */
  images?: readonly number[]
  /** Number of frames of each video. */
  videos?: readonly number[]
  /** Number of tokens of each audio clip. */
  audios?: readonly number[]
  tileTokens?: number
  /** Default: the tokenizer's `<IMG_CONTEXT>`. */
  imgContextTokenId?: number
}

/**
 * Encode a record as tokens, as ms-swift 2.6 does. All answers contribute to the loss, those of the history too. Without `answer` the text
 * ends where the answer begins.
 * @throws DataError for a record without a required answer, and for different numbers of markers and media
 */
export function encodeRecord(
  tokenizer: Tokenizer,
  record: EmoVerseQuestion,
  options: EncodeRecordOptions,
): EncodedText {
  const { inputIds, labels } = internVLPrompt(tokenizer, ...promptOf(record, options))
  return { inputIds, labels }
}

/** Do the same as {@link encodeRecord} without blocking the event loop. */
export async function encodeRecordAsync(
  tokenizer: Tokenizer,
  record: EmoVerseQuestion,
  options: EncodeRecordOptions,
  signal?: AbortSignal,
): Promise<EncodedText> {
  const { inputIds, labels } = await internVLPromptAsync(tokenizer, ...promptOf(record, options), signal)
  return { inputIds, labels }
}

function promptOf(
  { query, response = null, history = [], ...record }: EmoVerseQuestion,
  { system, answer, images = [], videos = [], audios = [], ...options }: EncodeRecordOptions,
): [InternVLConversation, InternVLPromptOptions] {
  if (answer && response === null) throw new DataError('response: expected a string, got none.', { reason: 'response' })
  const systemPrompt = record.system ?? system
  const turns = [...history, [query, answer ? response : null] as const]
  return [{ turns, system: systemPrompt === '' ? null : systemPrompt, images, videos, audios }, options]
}

const IDENTIFIERS: readonly [RegExp, EmoVerseTask][] = [
  [/<sentiment>/, 'MSA'],
  [/<emotion>/, 'MER'],
  [/<expression>/, 'FER'],
  [/<reason>/, 'ERI'],
  [/^Target utterance:/m, 'ECPE'],
]

/** Return the task that a question's identifier names, or 'other'. */
export const taskOf = ({ query }: Pick<EmoVerseQuestion, 'query'>): EmoVerseTask | 'other' =>
  IDENTIFIERS.find(([pattern]) => pattern.test(query))?.[1] ?? 'other'
