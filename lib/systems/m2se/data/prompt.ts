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

/** The template whose end of an answer a tokenizer has as one token. @throws ConfigError for one that has neither */
export function templateOf(tokenizer: Tokenizer): InternVLTemplate {
  if (tokenizer.tokenToId('<|im_end|>') !== undefined) return 'hermes2'
  if (tokenizer.tokenToId('<|end|>') !== undefined) return 'phi3'
  throw new ConfigError('The tokenizer has neither <|im_end|> nor <|end|>: say which template its model knows', {
    argument: 'template',
  })
}

export interface EncodedText {
  inputIds: number[]
  /** What each token is to be predicted as; -100 for what is not learnt. */
  labels: number[]
}

export interface EncodeRecordOptions {
  template: InternVLTemplate
  system: string | null
  /** Whether it ends with the answer. */
  answer: boolean
  /** Tiles of each of its pictures, and frames of each of its films; without them markers are words like others. */
  images?: readonly number[]
  videos?: readonly number[]
  /** Tokens of each of its sounds. */
  audios?: readonly number[]
  tileTokens?: number
  /** Default: the tokenizer's `<IMG_CONTEXT>`. */
  imgContextTokenId?: number
}

/**
 * A record as tokens, as ms-swift 2.6 writes it. All answers are learnt, those of the history too; without `answer` it ends where
 * the answer begins.
 * @throws DataError for a record without an answer where it is wanted, and where markers and media are not as many
 */
export function encodeRecord(
  tokenizer: Tokenizer,
  record: EmoVerseQuestion,
  options: EncodeRecordOptions,
): EncodedText {
  const { inputIds, labels } = internVLPrompt(tokenizer, ...promptOf(record, options))
  return { inputIds, labels }
}

/** The same, while other work of the process runs. */
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
  if (answer && response === null) throw new DataError('it has no response', { reason: 'response' })
  const said = record.system ?? system
  const turns = [...history, [query, answer ? response : null] as const]
  return [{ turns, system: said === '' ? null : said, images, videos, audios }, options]
}

const IDENTIFIERS: readonly [RegExp, EmoVerseTask][] = [
  [/<sentiment>/, 'MSA'],
  [/<emotion>/, 'MER'],
  [/<expression>/, 'FER'],
  [/<reason>/, 'ERI'],
  [/^Target utterance:/m, 'ECPE'],
]

/** The task that a question names by its identifier; 'other' where it names none. */
export const taskOf = ({ query }: Pick<EmoVerseQuestion, 'query'>): EmoVerseTask | 'other' =>
  IDENTIFIERS.find(([pattern]) => pattern.test(query))?.[1] ?? 'other'
