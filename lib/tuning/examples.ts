import { isList, shown } from '../base/check.js'
import { ConfigError, DataError, ShapeError } from '../base/errors.js'
import { commonLength } from '../base/words.js'
import type { BadRecords } from '../kit/records.js'
import type { ChatMessage, ChatOptions } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'
import { type MediaValue, mediaOf } from './clips.js'
import type { ConversationMedia, MediaTokens } from './media.js'
import { isConversation, type LocatedRecord, plainTokens, type Records, recordsOf } from './records.js'
import type { SftSettings } from './settings.js'
import { renderTurns, type Span } from './turns.js'

/**
 * A conversation, or a prompt with its completion. The content of a message is a text or a list of parts, `{ type: 'text', text }`, and
 * `{ type: 'audio', audio }` or `{ type: 'image', image }`. Clips of audio parts without `audio`, and those of audio tokens in texts, are in
 * `audio` or `audios`; images likewise in `image` or `images`.
 */
export interface SftRecord {
  messages?: readonly ChatMessage[]
  prompt?: string | readonly ChatMessage[]
  completion?: string | readonly ChatMessage[]
  /** Functions for the chat template, as JSON schemas. */
  tools?: readonly unknown[]
  /** An audio clip. */
  audio?: unknown
  /** Audio clips in the order of the conversation. */
  audios?: readonly unknown[]
  /** An image. */
  image?: unknown
  /** Images in the order of the conversation. */
  images?: readonly unknown[]
}

/** Tokens of a record. */
export interface SftExample {
  inputIds: number[]
  /** Token ids that contribute to the loss, -100 elsewhere. */
  labels: number[]
  /** Audio clips or images. */
  clips: MediaValue[]
  /** For metrics of generated answers. */
  answer?: { promptIds: number[]; clips: MediaValue[]; reference: string; endIds: number[] }
}

/** Numbers of records, turns and tokens that truncation to `maxLength` removed in part. */
export interface Truncated {
  records: number
  /** Turns of the assistant that were removed as a whole. */
  turns: number
  tokens: number
}

/** Tokenizer, model and settings that convert records to tokens. */
export interface RecordReader {
  tokenizer: Tokenizer
  /** Audio or images that the records may have; null for text alone. */
  media: ConversationMedia | null
  /** Whether a record without audio or images has no trainable parameter in its loss. */
  needsMedia?: boolean
  settings: Pick<SftSettings, 'maxLength' | 'truncationMode' | 'trainOn'>
}

/** A refused record: its reason and message. */
class Refused extends Error {
  constructor(
    readonly reason: string,
    message: string,
  ) {
    super(message)
  }
}

/**
 * Return the tokens of records. Those that cannot be used go to `bad`. Each clip and image is decoded, to count its tokens.
 * @param withAnswers whether to keep the prompts and references for metrics
 */
export async function examplesOf(
  reader: RecordReader,
  records: Records<SftRecord>,
  bad: BadRecords,
  name: string,
  withAnswers = false,
): Promise<{ examples: SftExample[]; truncated: Truncated }> {
  const examples: SftExample[] = []
  const truncated: Truncated = { records: 0, turns: 0, tokens: 0 }
  for await (const located of recordsOf(records, bad, name)) {
    try {
      examples.push(await exampleOf(reader, located, truncated, withAnswers))
    } catch (error) {
      if (error instanceof Refused) located.refuse(error.reason, error.message)
      else if (isOfRecord(error)) located.refuse('invalid record', error.message)
      else throw error
    }
  }
  return { examples, truncated }
}

/** Whether a record causes an error: unreadable data, or a message that the chat template rejects, whose error has its `reason`. */
const isOfRecord = (error: unknown): error is Error =>
  error instanceof DataError || (error instanceof ConfigError && 'reason' in error)

async function exampleOf(
  reader: RecordReader,
  located: LocatedRecord,
  truncated: Truncated,
  withAnswers: boolean,
): Promise<SftExample> {
  const found = await tokensOf(reader, located, withAnswers)
  const { maxLength, truncationMode } = reader.settings
  const { ids, turns, clips, answer } = found
  if (reader.needsMedia && clips.length === 0) {
    throw new Refused('clips', `expected ${reader.media?.type}, since the language model is frozen, got none.`)
  }
  const removed = Math.max(0, ids.length - maxLength)
  const first = truncationMode === 'keep_end' ? removed : 0
  const inputIds = ids.slice(first, first + maxLength)
  const labels = inputIds.map(() => -100)
  const ignored = new Set(reader.media?.ignoredIds)
  let lost = 0
  for (const [start, end] of turns) {
    // The first token of a record is never predicted.
    const [from, to] = [Math.max(start - first, 1), Math.min(end - first, inputIds.length)]
    for (let i = from; i < to; i++) if (!ignored.has(inputIds[i] as number)) labels[i] = inputIds[i] as number
    if (from >= to) lost++
  }
  if (lost === turns.length) {
    throw new Refused(
      'truncated answer',
      `expected tokens of an answer within maxLength ${maxLength}, got a record of ${ids.length} tokens whose answers are cut off. Raise maxLength, or use another truncationMode.`,
    )
  }
  const { media } = reader
  if (removed > 0 && media !== null && countOf(inputIds, media.id) !== countOf(ids, media.id)) {
    throw new Refused(
      `truncated ${media.type}`,
      `expected all ${media.type} tokens within maxLength ${maxLength}, got ${countOf(ids, media.id)} of which ${countOf(inputIds, media.id)} are kept. Raise maxLength.`,
    )
  }
  if (removed > 0) {
    truncated.records++
    truncated.turns += lost
    truncated.tokens += removed
  }
  return { inputIds, labels, clips, ...(answer && { answer }) }
}

const countOf = (ids: readonly number[], id: number): number => ids.reduce((sum, one) => sum + Number(one === id), 0)

interface Tokens {
  ids: number[]
  /** Ranges of tokens that the model generates. */
  turns: Span[]
  clips: MediaValue[]
  answer?: NonNullable<SftExample['answer']>
}

async function tokensOf(reader: RecordReader, { record, root }: LocatedRecord, withAnswers: boolean): Promise<Tokens> {
  const { tokenizer } = reader
  const [messages, prompt, completion, tools] = ['messages', 'prompt', 'completion', 'tools'].map(
    (key) => record[key] ?? undefined,
  )
  if ((messages === undefined) === (prompt === undefined && completion === undefined)) {
    throw new Refused('invalid record', 'expected messages, or prompt and completion, got both or neither.')
  }
  if (typeof prompt === 'string' && typeof completion === 'string') {
    if (completion === '') throw new Refused('empty answer', 'completion: expected an answer, got an empty one.')
    const alone = await plainTokens(tokenizer, prompt, null)
    const ids = await plainTokens(tokenizer, prompt, completion)
    const { media } = reader
    const type = ['audio', 'image'].find((one) => givenMedia(record, one).length > 0)
    if (type !== undefined || (media !== null && ids.includes(media.id))) {
      throw new Refused('clips', `prompt: expected messages with a record that has ${type ?? media?.type}, got a text.`)
    }
    if (withAnswers && alone.length === 0) {
      throw new Refused('no prompt', 'prompt: expected at least one token before the answer, got none.')
    }
    const answer = withAnswers && { promptIds: alone, clips: [], reference: completion, endIds: [] }
    return { ids, turns: [[commonLength(alone, ids), ids.length]], clips: [], ...(answer && { answer }) }
  }
  const lists = messages === undefined ? { prompt, completion } : { messages }
  for (const [name, value] of Object.entries(lists)) {
    if (isConversation(value)) continue
    const expected = name === 'messages' ? '' : ', or two texts'
    throw new Refused(
      'invalid record',
      `${name}: expected a list of messages with role and content${expected}, got ${shown(value)}.`,
    )
  }
  if (tools !== undefined && !isList(tools)) {
    throw new Refused('invalid record', `tools: expected a list of JSON schemas, got ${shown(tools)}.`)
  }
  const all = Object.values(lists).flat() as ChatMessage[]
  requireShort(all, tools)
  const read = await readConversation(reader, all, record, root)
  const template = templateOf(reader)
  const options = { ...template, ...(tools && { tools: tools as readonly unknown[] }) }
  const from = messages === undefined ? (prompt as readonly unknown[]).length : 0
  return chatTokens(reader, read, options, from, withAnswers)
}

/** The template renders a conversation some times for each message: this many characters take about a second. */
const MOST_RENDERED = 2 ** 26

function requireShort(messages: readonly ChatMessage[], tools: unknown): void {
  const partsOf = (content: unknown): unknown[] =>
    isList(content)
      ? content.map((part: unknown) => (typeof part === 'string' ? part : (part as { text?: unknown } | null)?.text))
      : [content]
  const characters = messages.reduce(
    (sum, { content, role, ...others }, i) => {
      const texts = partsOf(content).map((part) => lengthOf(part, `messages[${i}].content`))
      const fields = Object.entries(others).map(
        ([name, value]) => name.length + lengthOf(value, `messages[${i}].${name}`),
      )
      return [...texts, ...fields].reduce((a, b) => a + b, sum + 32)
    },
    lengthOf(tools, 'tools'),
  )
  if (characters * messages.length <= MOST_RENDERED) return
  throw new Refused(
    'long conversation',
    `messages: expected at most ${MOST_RENDERED} for the number of messages times their characters, got ${messages.length} messages of ${characters} characters. Split the conversation.`,
  )
}

/** Return the number of characters of a value as JSON, with bigints as numbers. @param name field of the value */
function lengthOf(value: unknown, name: string): number {
  if (typeof value === 'string') return value.length
  if (value instanceof Uint8Array || value == null) return 0
  try {
    return JSON.stringify(value, (_, one) => (typeof one === 'bigint' ? `${one}` : one))?.length ?? 0
  } catch (error) {
    throw new Refused(
      'invalid record',
      `${name}: expected a value that JSON can represent: ${(error as Error).message}`,
    )
  }
}

/** Return the template of the model, in place of the tokenizer's. */
const templateOf = ({ media }: RecordReader): Pick<ChatOptions, 'chatTemplate'> =>
  media?.chatTemplate === undefined ? {} : { chatTemplate: media.chatTemplate }

interface Conversation {
  messages: ChatMessage[]
  clips: MediaValue[]
  /** Tokens of each clip. */
  tokens: MediaTokens[]
  /** Number of clips before each message. */
  clipsBefore: number[]
}

async function chatTokens(
  reader: RecordReader,
  { messages, clips, tokens, clipsBefore }: Conversation,
  options: Pick<ChatOptions, 'tools' | 'chatTemplate'>,
  from: number,
  withAnswers: boolean,
): Promise<Tokens> {
  const { tokenizer, settings } = reader
  const onlyLast = settings.trainOn === 'last'
  const rendered = renderTurns(tokenizer, messages, options, { from, onlyLast })
  if ('missing' in rendered) {
    throw new Refused(
      'invalid record',
      `messages[${rendered.missing}]: expected a message that the chat template renders, got one that it leaves out.`,
    )
  }
  if (rendered.spans.length === 0) {
    throw new Refused('no answer', 'expected a message of the assistant, got none.')
  }
  const { ids, turns } = await encoded(reader, rendered.text, rendered.spans, tokens)
  const lastTurn = turns.at(-1) as Span
  const { eosTokenId } = tokenizer
  // Without an end token in the template, as in GLM's, the answer would never end.
  const ends = () => ids.slice(Math.max(lastTurn[0], ids.length - 3)).filter((id) => tokenizer.isSpecial(id))
  if (lastTurn[1] === ids.length && eosTokenId !== null && ends().length === 0) {
    ids.push(eosTokenId)
    lastTurn[1] = ids.length
  }
  const last = messages.map(({ role }) => role).lastIndexOf('assistant')
  if (!withAnswers) return { ids, turns, clips }
  if (last === 0) throw new Refused('no prompt', 'expected a message before the last answer, got none.')
  const prompt = messages.slice(0, last)
  const { text } = tokenizer.renderChat(prompt, { ...options, addGenerationPrompt: true })
  const before = last < clipsBefore.length ? (clipsBefore[last] as number) : clips.length
  const { ids: promptIds } = await encoded(reader, text, [], tokens.slice(0, before))
  const answer = {
    ...{ promptIds, clips: clips.slice(0, before), reference: textOf(messages[last] as ChatMessage) },
    endIds: ends(),
  }
  return { ids, turns, clips, answer }
}

/** Encode a rendered text, with the tokens of clips in their places. */
async function encoded(
  { tokenizer, media }: RecordReader,
  text: string,
  spans: readonly Span[],
  tokens: readonly MediaTokens[],
): Promise<{ ids: number[]; turns: Span[] }> {
  let whole = text
  let moved = (at: number) => at
  if (media !== null) {
    const { token } = media
    const places = placesOf(text, token)
    if (places.length !== tokens.length) {
      throw new Refused(
        'clips',
        `expected ${places.length} ${media.name}s for ${places.length} times ${token} in the rendered conversation, got ${tokens.length}.`,
      )
    }
    whole = text.split(token).reduce((before, part, i) => before + tokens[i - 1]!.text + part)
    moved = (at) =>
      places.reduce((sum, place, i) => (place < at ? sum + tokens[i]!.text.length - token.length : sum), at)
  }
  const { inputIds, offsets } = await tokenizer.encodeAsync(whole, { addSpecialTokens: false })
  const [found, expected] = [countOf(inputIds, media?.id ?? -1), tokens.reduce((sum, { count }) => sum + count, 0)]
  if (found !== expected) {
    throw new Refused('clips', `expected ${expected} ${media?.type} tokens in the rendered conversation, got ${found}.`)
  }
  const before = media?.beginId === undefined ? [] : [media.beginId]
  const shift = before.length
  const turns = spans.map(([start, end]): Span => {
    const [first, last] = [moved(start), moved(end)]
    const begin = offsets.findIndex(([from, to]) => to > first && from < last)
    if (begin < 0) return [0, 0]
    let stop = begin
    while (stop < offsets.length && offsets[stop]![0] < last) stop++
    return [begin + shift, stop + shift]
  })
  return { ids: [...before, ...inputIds], turns }
}

function placesOf(text: string, token: string): number[] {
  const places: number[] = []
  for (let at = text.indexOf(token); at >= 0; at = text.indexOf(token, at + token.length)) places.push(at)
  return places
}

/** Check messages, and decode their clips. */
async function readConversation(
  { media }: RecordReader,
  messages: readonly ChatMessage[],
  record: Record<string, unknown>,
  root: string | undefined,
): Promise<Conversation> {
  const type = media?.type
  const given = type === undefined ? [] : givenMedia(record, type)
  for (const other of ['audio', 'image']) {
    if (other === type || givenMedia(record, other).length === 0) continue
    const model = type === undefined ? 'a DecoderLM' : `a model of ${type}`
    throw new Refused('clips', `expected no ${other} for ${model}, got some.`)
  }
  const values: [name: string, value: unknown][] = []
  const clipsBefore: number[] = []
  let taken = 0
  const read = messages.map((message, i): ChatMessage => {
    clipsBefore.push(values.length)
    const place = `messages[${i}]`
    const { content } = message
    let parts: { type: string; text?: string }[] | undefined
    if (isList(content)) {
      parts = content.map((part: unknown, j) => {
        const inside = `${place}.content[${j}]`
        const fields = partOf(part)
        const { type: kind = typeof part === 'string' ? 'text' : undefined, text } = fields
        if (kind === 'text' && typeof (text ?? part) === 'string') return { type: kind, text: (text ?? part) as string }
        if (type === undefined || kind !== type) {
          const expected =
            type === undefined ? "parts of type 'text' for a DecoderLM" : `parts of type 'text' or '${type}'`
          throw new Refused('invalid record', `${inside}: expected ${expected}, got ${shown(kind ?? part)}.`)
        }
        values.push([inside, fields[type] ?? fields.path ?? given[taken++]])
        // Templates test the type, or this field.
        return { type, [type]: '' }
      })
    } else if (typeof content !== 'string' && content !== null && content !== undefined) {
      throw new Refused(
        'invalid record',
        `${place}.content: expected a text or a list of parts, got ${shown(content)}.`,
      )
    }
    const own = parts === undefined ? message : { ...message, content: media ? parts : joined(parts) }
    if (message.role === 'assistant' && textOf(own).trim() === '' && !hasFields(own)) {
      throw new Refused('empty answer', `${place}: expected an answer of the assistant, got an empty one.`)
    }
    return own
  })
  if (values.length === 0 && given.length > 0 && media !== null) {
    for (const [i, value] of given.entries()) values.push([`${type}s[${i}]`, value])
    taken = given.length
    // The text of the messages has the places.
    clipsBefore.length = 0
    let before = 0
    for (const { content } of read) {
      clipsBefore.push(before)
      before += placesOf(textOf({ role: '', content }), media.token).length
    }
  }
  if (taken !== given.length) {
    throw new Refused(
      'clips',
      `expected ${taken} ${media?.name}s in ${type} or ${type}s, as the messages have places for, got ${given.length}.`,
    )
  }
  const clips: MediaValue[] = []
  const tokens: MediaTokens[] = []
  for (const [name, value] of values) {
    try {
      const clip = mediaOf(type as 'audio', value, root, name)
      clips.push(clip)
      tokens.push(await (media as ConversationMedia).tokensOf(clip))
    } catch (error) {
      if (!(error instanceof DataError || error instanceof ShapeError || isWrongValue(error))) throw error
      throw new Refused('clips', error.message.startsWith(name) ? error.message : `${name}: ${error.message}`)
    }
  }
  return { messages: media?.templateMessages?.(read) ?? read, clips, tokens, clipsBefore }
}

/** Whether the value of an audio or image part causes a ConfigError; others are about the model. */
const isWrongValue = (error: unknown): error is ConfigError =>
  error instanceof ConfigError && /^(?:clips|image)(?:\.|$)/.test(String((error as { argument?: unknown }).argument))

const partOf = (part: unknown): Record<string, unknown> =>
  typeof part === 'object' && part !== null ? dropNulls(part as Record<string, unknown>) : {}
const dropNulls = (part: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(Object.entries(part).filter(([, value]) => value !== null))
const joined = (parts: readonly { text?: string }[]): string => parts.map(({ text = '' }) => text).join('')

/** Whether a message of the assistant says something besides its content. */
const hasFields = ({ role: _, content: __, ...fields }: ChatMessage): boolean =>
  Object.values(fields).some((value) => (isList(value) ? value.length > 0 : value != null && value !== ''))

function textOf({ content }: ChatMessage): string {
  if (typeof content === 'string') return content
  return isList(content) ? joined(content as { text?: string }[]) : ''
}

function givenMedia(record: Record<string, unknown>, type: string): readonly unknown[] {
  const [one, list] = [record[type], record[`${type}s`]]
  if (list != null && !isList(list)) {
    throw new Refused('invalid record', `${type}s: expected a list, got ${shown(list)}.`)
  }
  return [...(one == null ? [] : [one]), ...((list as readonly unknown[] | null | undefined) ?? [])]
}
