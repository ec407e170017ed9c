import { isList, shown } from '../base/check.js'
import type { BadRecords } from '../kit/records.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { commonLength, isConversation, plainTokens, type Records, recordsOf } from './records.js'
import type { PreferenceSettings } from './settings.js'

/**
 * A prompt with a better and a worse answer. Conversations are rendered by the tokenizer's chat template; texts are joined as they are,
 * with the end-of-sequence token after the answer. Without `prompt`, the messages with which both conversations begin are the prompt.
 */
export interface PreferenceRecord {
  prompt?: string | readonly ChatMessage[]
  chosen: string | readonly ChatMessage[]
  rejected: string | readonly ChatMessage[]
  /** Functions for the chat template, as JSON schemas. */
  tools?: readonly unknown[]
}

/** Token ids of a prompt and an answer, and the index of the answer's first token. */
export interface AnswerTokens {
  ids: number[]
  start: number
}

/** Tokens of a record. */
export interface PreferencePair {
  index: number
  chosen: AnswerTokens
  rejected: AnswerTokens
  /** With KTO: the prompt with the answers of the record before. */
  klChosen?: AnswerTokens
  klRejected?: AnswerTokens
  /** Log-probabilities under the reference model, if they are computed before training. */
  reference?: { chosen: number; rejected: number; klChosen: number; klRejected: number }
}

interface Tokens {
  prompt: number[]
  chosen: number[]
  rejected: number[]
}

/** Return the tokens of records. Those that cannot be used go to `bad`. */
export async function pairsOf(
  tokenizer: Tokenizer,
  records: Records<PreferenceRecord>,
  settings: Pick<PreferenceSettings, 'maxLength' | 'truncationMode' | 'loss'>,
  bad: BadRecords,
  name: string,
): Promise<PreferencePair[]> {
  const { maxLength, truncationMode, loss } = settings
  const cut = (prompt: number[], answer: number[]): AnswerTokens => {
    const whole = [...prompt, ...answer]
    if (truncationMode === 'keep_start') return { ids: whole.slice(0, maxLength), start: prompt.length }
    const removed = Math.max(0, whole.length - maxLength)
    // The first token has no log-probability.
    return { ids: whole.slice(removed), start: Math.max(1, prompt.length - removed) }
  }
  const pairs: PreferencePair[] = []
  const tokens: Tokens[] = []
  for await (const { record, refuse } of recordsOf(records, bad, name)) {
    const found = await tokensOf(tokenizer, record, refuse)
    if (found === undefined) continue
    const [chosen, rejected] = [cut(found.prompt, found.chosen), cut(found.prompt, found.rejected)]
    const empty = chosen.start >= chosen.ids.length ? 'chosen' : rejected.start >= rejected.ids.length ? 'rejected' : ''
    if (empty !== '') {
      refuse(
        'truncated answer',
        `expected tokens of the ${empty} answer within maxLength ${maxLength}, got a prompt of ${found.prompt.length}. Raise maxLength, or use truncationMode 'keep_end'.`,
      )
    } else if (equal(chosen.ids, rejected.ids)) {
      const where = equal(found.chosen, found.rejected) ? '' : ` within maxLength ${maxLength}`
      refuse('equal answers', `expected chosen and rejected answers that differ${where}, got equal ones.`)
    } else {
      pairs.push({ index: pairs.length, chosen, rejected })
      tokens.push(found)
    }
  }
  if (loss !== 'kto') return pairs
  for (const [i, pair] of pairs.entries()) {
    const { prompt } = tokens[i] as Tokens
    const other = tokens.at(i - 1) as Tokens
    pair.klChosen = cut(prompt, other.chosen)
    pair.klRejected = cut(prompt, other.rejected)
  }
  return pairs
}

type Refuse = (reason: string, message: string) => void

/** Return the tokens of a record; undefined if it was refused. */
async function tokensOf(
  tokenizer: Tokenizer,
  { chosen, rejected, tools, ...record }: Record<string, unknown>,
  refuse: Refuse,
): Promise<Tokens | undefined> {
  // Parquet files have null for a missing value.
  const prompt = record.prompt ?? undefined
  const invalid = (message: string) => refuse('invalid record', message)
  for (const [name, value] of Object.entries({ chosen, rejected, ...(prompt !== undefined && { prompt }) })) {
    if (typeof value === 'string' || isConversation(value)) continue
    invalid(`${name}: expected a text or a list of messages with role and content, got ${shown(value)}.`)
    return undefined
  }
  if (tools !== undefined && tools !== null && !isList(tools)) {
    invalid(`tools: expected a list of JSON schemas, got ${shown(tools)}.`)
    return undefined
  }
  const parts = splitPrompt(prompt as Content | undefined, chosen as Content, rejected as Content)
  if (typeof parts === 'string') {
    invalid(parts)
    return undefined
  }
  const encode = async (answer: Content | null): Promise<number[]> =>
    typeof parts.prompt === 'string'
      ? plainTokens(tokenizer, parts.prompt, answer as string | null)
      : chat(tokenizer, parts.prompt, answer as readonly ChatMessage[] | null, tools as readonly unknown[] | undefined)
  const alone = await encode(null)
  const [better, worse] = [await encode(parts.chosen), await encode(parts.rejected)]
  // Where the prompt's last tokens merge with the answer's first, the answer begins earlier.
  const start = Math.min(commonLength(alone, better), commonLength(alone, worse))
  if (start === 0) {
    invalid('prompt: expected at least one token before the answers, got none.')
    return undefined
  }
  return { prompt: better.slice(0, start), chosen: better.slice(start), rejected: worse.slice(start) }
}

type Content = string | readonly ChatMessage[]

interface Parts {
  prompt: Content
  chosen: Content
  rejected: Content
}

/** Separate prompt and answers, or return what is wrong with them. */
function splitPrompt(prompt: Content | undefined, chosen: Content, rejected: Content): Parts | string {
  if (prompt === undefined && typeof chosen !== 'string' && typeof rejected !== 'string') {
    let shared = 0
    const most = Math.min(chosen.length, rejected.length) - 1
    while (shared < most && JSON.stringify(chosen[shared]) === JSON.stringify(rejected[shared])) shared++
    if (shared === 0) return 'prompt: expected one, or conversations that begin with the same message, got neither.'
    return splitPrompt(chosen.slice(0, shared), chosen.slice(shared), rejected.slice(shared))
  }
  if (prompt === undefined) return 'prompt: expected a text, got none.'
  const isText = typeof prompt === 'string'
  if ((typeof chosen === 'string') !== isText || (typeof rejected === 'string') !== isText) {
    return 'expected prompt, chosen and rejected to be all texts or all lists of messages, got both.'
  }
  const isEmpty = (answer: Content) =>
    typeof answer === 'string' ? answer === '' : answer.every(({ content }) => content === '' || content == null)
  if (isEmpty(chosen) || isEmpty(rejected)) {
    return `${isEmpty(chosen) ? 'chosen' : 'rejected'}: expected an answer, got an empty one.`
  }
  return { prompt, chosen, rejected }
}

async function chat(
  tokenizer: Tokenizer,
  prompt: readonly ChatMessage[],
  answer: readonly ChatMessage[] | null,
  tools: readonly unknown[] | null | undefined,
): Promise<number[]> {
  const text = tokenizer.applyChatTemplate([...prompt, ...(answer ?? [])], {
    ...{ tokenize: false, addGenerationPrompt: answer === null },
    ...(tools && { tools }),
  })
  return (await tokenizer.encodeAsync(text, { addSpecialTokens: false })).inputIds
}

const equal = (one: readonly number[], other: readonly number[]): boolean =>
  one.length === other.length && commonLength(one, other) === one.length
