import { ConfigError, DataError } from '../../../base/errors.js'
import type { Tokenizer } from '../../../text/index.js'
import type { EmoVerseTask } from '../published/wording.js'
import type { SwiftRecord } from './entry.js'

/** How turns are written for a language model, as ms-swift has it for InternVL2. */
interface Template {
  /** What stands before and behind the system text, left out where there is none. */
  system: [before: string, behind: string]
  /** What stands before and behind a question. */
  user: [before: string, behind: string]
  /** Behind each answer: what ends it. */
  end: string
}

const CHATML: Template = {
  system: ['<|im_start|>system\n', '<|im_end|>'],
  user: ['<|im_start|>user\n', '<|im_end|><|im_start|>assistant\n'],
  end: '<|im_end|>',
}

export const EMOVERSE_TEMPLATES: Readonly<Record<'hermes2' | 'internlm2' | 'phi3', Template>> = {
  hermes2: CHATML,
  internlm2: CHATML,
  phi3: {
    system: ['<|system|>\n', '<|end|>'],
    user: ['<|user|>\n', '<|end|><|assistant|>\n'],
    end: '<|end|>',
  },
}
export type EmoVerseTemplate = keyof typeof EMOVERSE_TEMPLATES

/** The template whose end of an answer a tokenizer has as one token. @throws ConfigError for one that has neither */
export function templateOf(tokenizer: Tokenizer): EmoVerseTemplate {
  if (tokenizer.tokenToId('<|im_end|>') !== undefined) return 'hermes2'
  if (tokenizer.tokenToId('<|end|>') !== undefined) return 'phi3'
  throw new ConfigError('The tokenizer has neither <|im_end|> nor <|end|>: say which template its model knows', {
    argument: 'template',
  })
}

/** A text as pieces, of which those that are learnt are told apart. */
interface Piece {
  text: string
  isLearnt: boolean
}

/**
 * A conversation as pieces, each of which is made tokens by itself: what is asked, with all around it, and each answer with its
 * end. All answers are learnt, those of the history too.
 */
export function piecesOf(
  record: SwiftRecord,
  { template, system, answer }: { template: EmoVerseTemplate; system: string | null; answer: boolean },
): Piece[] {
  const { system: around, user, end } = EMOVERSE_TEMPLATES[template]
  const said = record.system ?? system
  const pieces: Piece[] = []
  let before = said === null || said === '' ? '' : `${around[0]}${said}${around[1]}`
  const turns = [...(record.history ?? []), [record.query, record.response] as const]
  for (const [i, [query, response]] of turns.entries()) {
    pieces.push({ text: `${before}${user[0]}${query}${user[1]}`, isLearnt: false })
    before = ''
    if (i === turns.length - 1 && !answer) break
    if (response === null) throw new DataError('it has no response', { reason: 'response' })
    pieces.push({ text: `${response}${end}`, isLearnt: true })
  }
  return pieces
}

export interface EncodedText {
  inputIds: number[]
  /** What each token is to be predicted as; -100 for what is not learnt. */
  labels: number[]
}

const NOT_LEARNT = -100

/** Pieces as tokens; the token that begins a text stands in front where the tokenizer puts one there. */
export function encodePieces(tokenizer: Tokenizer, pieces: readonly Piece[]): EncodedText {
  const begin = tokenizer.bosTokenId
  const begins = begin !== null && tokenizer.encode('').inputIds[0] === begin
  const inputIds = begins ? [begin] : []
  const labels = inputIds.map(() => NOT_LEARNT)
  for (const { text, isLearnt } of pieces) {
    const ids = tokenizer.encode(text, { addSpecialTokens: false }).inputIds
    for (const id of ids) {
      inputIds.push(id)
      labels.push(isLearnt ? id : NOT_LEARNT)
    }
  }
  return { inputIds, labels }
}

const IDENTIFIERS: readonly [RegExp, EmoVerseTask][] = [
  [/<sentiment>/, 'MSA'],
  [/<emotion>/, 'MER'],
  [/<expression>/, 'FER'],
  [/<reason>/, 'ERI'],
  [/^Target utterance:/m, 'ECPE'],
]

/** The task that a question names by its identifier; 'other' where it names none. */
export const taskOf = ({ query }: Pick<SwiftRecord, 'query'>): EmoVerseTask | 'other' =>
  IDENTIFIERS.find(([pattern]) => pattern.test(query))?.[1] ?? 'other'
