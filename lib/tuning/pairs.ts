import { isList, shown } from '../base/check.js'
import { VoxtorchError } from '../base/errors.js'
import { commonLength } from '../base/words.js'
import type { BadRecords } from '../kit/records.js'
import type { ChatMessage } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { audioIdOf, encodeChat, hasAudio, type PromptAudio, promptAudio, type TuningModel } from './audio.js'
import { isConversation, plainTokens, type Records, recordsOf } from './records.js'
import type { PreferenceLoss, PreferenceSettings } from './settings.js'

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

/** With KTO: a prompt and an answer that is good or not. */
export interface LabeledRecord {
  prompt: string | readonly ChatMessage[]
  completion: string | readonly ChatMessage[]
  /** Whether the answer is desirable. */
  label: boolean
  /** Functions for the chat template, as JSON schemas. */
  tools?: readonly unknown[]
}

/** Token ids of a prompt and an answer, and the index of the answer's first token. */
export interface AnswerTokens {
  ids: number[]
  start: number
  /** Audio of the prompt. */
  audio?: PromptAudio
}

/** Tokens of a record: of a pair, or of the one answer of a labeled record. */
export interface PreferencePair {
  index: number
  chosen?: AnswerTokens
  rejected?: AnswerTokens
  /** With KTO: the prompt with the answers of another record. */
  klChosen?: AnswerTokens
  klRejected?: AnswerTokens
  /** Log-probabilities under the reference model, if they are computed before training. */
  reference?: { chosen: number; rejected: number; klChosen: number; klRejected: number }
}

interface Tokens {
  prompt: number[]
  chosen?: number[]
  rejected?: number[]
  audio?: PromptAudio | undefined
}

/** Return the tokens of records. Those that cannot be used go to `bad`. */
export async function pairsOf(
  model: TuningModel,
  tokenizer: Tokenizer,
  records: Records<PreferenceRecord | LabeledRecord>,
  settings: Pick<PreferenceSettings, 'maxLength' | 'truncationMode' | 'loss' | 'batchSize'>,
  bad: BadRecords,
  name: string,
): Promise<PreferencePair[]> {
  const { maxLength, truncationMode, loss, batchSize } = settings
  const cut = (prompt: number[], answer: number[], audio: PromptAudio | undefined): AnswerTokens => {
    const whole = [...prompt, ...answer]
    const media = audio && { audio }
    if (truncationMode === 'keep_start') return { ids: whole.slice(0, maxLength), start: prompt.length, ...media }
    const removed = Math.max(0, whole.length - maxLength)
    // The first token has no log-probability.
    return { ids: whole.slice(removed), start: Math.max(1, prompt.length - removed), ...media }
  }
  const pairs: PreferencePair[] = []
  const tokens: Tokens[] = []
  for await (const { record, refuse, root } of recordsOf(records, bad, name)) {
    const found = await tokensOf(model, tokenizer, record, loss, refuse, root)
    if (found === undefined) continue
    const { prompt, audio } = found
    const chosen = found.chosen && cut(prompt, found.chosen, audio)
    const rejected = found.rejected && cut(prompt, found.rejected, audio)
    const isEmpty = (answer: AnswerTokens | undefined) => answer !== undefined && answer.start >= answer.ids.length
    const longest = prompt.length + Math.max(found.chosen?.length ?? 0, found.rejected?.length ?? 0)
    if (isEmpty(chosen) || isEmpty(rejected)) {
      refuse(
        'truncated answer',
        `expected tokens of the ${isEmpty(chosen) ? 'chosen' : 'rejected'} answer within maxLength ${maxLength}, got a prompt of ${prompt.length}. Raise maxLength, or use truncationMode 'keep_end'.`,
      )
    } else if (audio && truncationMode === 'keep_end' && longest > maxLength) {
      refuse(
        'truncated audio',
        `expected prompt, audio and answer within maxLength ${maxLength}, got ${longest} tokens. Raise maxLength, or use truncationMode 'keep_start'.`,
      )
    } else if (chosen && rejected && equal(chosen.ids, rejected.ids)) {
      const where = equal(found.chosen ?? [], found.rejected ?? []) ? '' : ` within maxLength ${maxLength}`
      refuse('equal answers', `expected chosen and rejected answers that differ${where}, got equal ones.`)
    } else {
      pairs.push({ index: pairs.length, ...(chosen && { chosen }), ...(rejected && { rejected }) })
      tokens.push(found)
    }
  }
  if (loss !== 'kto') return pairs
  const at = (i: number) => tokens.at(i) as Tokens
  // The answer of another record may be longer than the own one: audio stays whole.
  const other = (prompt: number[], answer: number[], audio: PromptAudio | undefined) =>
    cut(prompt, audio ? answer.slice(0, Math.max(0, maxLength - prompt.length)) : answer, audio)
  for (const [i, pair] of pairs.entries()) {
    const { prompt, audio } = at(i)
    if (!pair.chosen || !pair.rejected) continue
    pair.klChosen = other(prompt, answerOf(at(i - 1), 'chosen'), audio)
    pair.klRejected = other(prompt, answerOf(at(i - 1), 'rejected'), audio)
  }
  const labeled = pairs.filter(({ chosen, rejected }) => !chosen || !rejected)
  for (const [i, pair] of labeled.entries()) {
    const { prompt, audio } = at(pair.index)
    const source = labeled[rotated(i, labeled.length, batchSize)] ?? pairs.at(pair.index - 1)
    const name = pair.chosen ? 'klChosen' : 'klRejected'
    pair[name] = other(prompt, answerOf(at((source as PreferencePair).index), 'chosen'), audio)
  }
  return pairs
}

/** Return the index of the record whose answer goes with prompt i: the one before it in its batch of the data, as in TRL. */
function rotated(i: number, count: number, batchSize: number): number {
  const first = i - (i % batchSize)
  const last = Math.min(first + batchSize, count) - 1
  // The last batch may have one record, which takes the answer before it.
  return i > first || first === last ? i - 1 : last
}

const answerOf = ({ chosen, rejected }: Tokens, name: 'chosen' | 'rejected'): number[] =>
  (name === 'chosen' ? (chosen ?? rejected) : (rejected ?? chosen)) as number[]

type Refuse = (reason: string, message: string) => void

/** Return the tokens of a record; undefined if it was refused. */
async function tokensOf(
  model: TuningModel,
  tokenizer: Tokenizer,
  record: Record<string, unknown>,
  loss: PreferenceLoss,
  refuse: Refuse,
  root: string | undefined,
): Promise<Tokens | undefined> {
  // Parquet files have null for a missing value.
  const [prompt, chosen, rejected, completion] = ['prompt', 'chosen', 'rejected', 'completion'].map(
    (name) => record[name] ?? undefined,
  )
  const { label, tools } = record
  const invalid = (message: string): undefined => {
    refuse('invalid record', message)
  }
  const isLabeled = completion !== undefined
  if (isLabeled && loss !== 'kto') {
    return invalid(`completion: expected chosen and rejected with loss '${loss}', got a completion. Use loss 'kto'.`)
  }
  if (isLabeled && (chosen !== undefined || rejected !== undefined)) {
    return invalid('expected completion and label, or chosen and rejected, got both.')
  }
  if (isLabeled && typeof label !== 'boolean') return invalid(`label: expected true or false, got ${shown(label)}.`)
  const given = isLabeled ? { completion } : { chosen, rejected }
  for (const [name, value] of Object.entries({ ...given, ...(prompt !== undefined && { prompt }) })) {
    if (typeof value === 'string' || isConversation(value)) continue
    return invalid(`${name}: expected a text or a list of messages with role and content, got ${shown(value)}.`)
  }
  if (tools !== undefined && tools !== null && !isList(tools)) {
    return invalid(`tools: expected a list of JSON schemas, got ${shown(tools)}.`)
  }
  const parts = splitPrompt(prompt as Content | undefined, given as Partial<Record<AnswerName, Content>>)
  if (typeof parts === 'string') return invalid(parts)
  let audio: PromptAudio | undefined
  let messages = parts.prompt
  if (typeof messages !== 'string') {
    const withAudio = Object.entries(parts.answers).find(
      ([, answer]) => typeof answer !== 'string' && answer.some(hasAudio),
    )
    if (withAudio) return invalid(`${withAudio[0]}: expected a text, got audio. Audio may be in the prompt.`)
    try {
      ;({ messages, audio } = { audio: undefined, ...(await promptAudio(model, messages, 'prompt', root)) })
    } catch (error) {
      if (!(error instanceof VoxtorchError)) throw error
      refuse('invalid audio', error.message)
      return undefined
    }
  }
  const options = { tools: tools as readonly unknown[] | null | undefined, audio }
  const encode = async (answer: Content | null): Promise<number[]> =>
    typeof messages === 'string'
      ? plainTokens(tokenizer, messages, answer as string | null)
      : encodeChat(model, tokenizer, [...messages, ...((answer ?? []) as readonly ChatMessage[])], {
          ...{ ...options, addGenerationPrompt: answer === null },
        })
  const encoded: (readonly [AnswerName, number[]])[] = []
  let alone: number[]
  try {
    alone = await encode(null)
    for (const [name, answer] of Object.entries(parts.answers)) encoded.push([name as AnswerName, await encode(answer)])
  } catch (error) {
    if (!(error instanceof VoxtorchError) || (typeof messages !== 'string' && tokenizer.chatTemplate === null))
      throw error
    return invalid(error.message)
  }
  const audioId = audio === undefined ? audioIdOf(model) : null
  if (audioId !== null && encoded.some(([, ids]) => ids.includes(audioId))) {
    return invalid('expected messages with audio parts, got a text with an audio token.')
  }
  // Where the prompt's last tokens merge with the answer's first, the answer begins earlier.
  const start = Math.min(...encoded.map(([, ids]) => commonLength(alone, ids)))
  if (start === 0) return invalid('prompt: expected at least one token before the answers, got none.')
  const answers = encoded.map(([name, ids]) => [labeledName(name, label), ids.slice(start)])
  const [[, whole]] = encoded as [readonly [AnswerName, number[]]]
  return { prompt: whole.slice(0, start), audio, ...Object.fromEntries(answers) }
}

/** Name of an answer in a record. */
type AnswerName = 'chosen' | 'rejected' | 'completion'

const labeledName = (name: AnswerName, label: unknown): 'chosen' | 'rejected' =>
  name === 'completion' ? (label === true ? 'chosen' : 'rejected') : name

type Content = string | readonly ChatMessage[]

interface Parts {
  prompt: Content
  answers: Partial<Record<AnswerName, Content>>
}

/** Separate prompt and answers, or return what is wrong with them. */
function splitPrompt(prompt: Content | undefined, answers: Partial<Record<AnswerName, Content>>): Parts | string {
  const { chosen, rejected } = answers
  if (prompt === undefined && isList(chosen) && isList(rejected)) {
    let shared = 0
    const most = Math.min(chosen.length, rejected.length) - 1
    while (shared < most && JSON.stringify(chosen[shared]) === JSON.stringify(rejected[shared])) shared++
    if (shared === 0) return 'prompt: expected one, or conversations that begin with the same message, got neither.'
    const rest = { chosen: chosen.slice(shared), rejected: rejected.slice(shared) }
    return splitPrompt(chosen.slice(0, shared) as Content, rest as Partial<Record<AnswerName, Content>>)
  }
  if (prompt === undefined) return 'prompt: expected a text, got none.'
  const isText = typeof prompt === 'string'
  if (Object.values(answers).some((answer) => (typeof answer === 'string') !== isText)) {
    const all = ['prompt', ...Object.keys(answers).slice(0, -1)].join(', ')
    return `expected ${all} and ${Object.keys(answers).at(-1)} to be all texts or all lists of messages, got both.`
  }
  const isEmpty = (answer: Content) =>
    typeof answer === 'string' ? answer === '' : answer.every(({ content }) => content === '' || content == null)
  const empty = Object.entries(answers).find(([, answer]) => isEmpty(answer))
  if (empty) return `${empty[0]}: expected an answer, got an empty one.`
  return { prompt, answers }
}

const equal = (one: readonly number[], other: readonly number[]): boolean =>
  one.length === other.length && commonLength(one, other) === one.length
