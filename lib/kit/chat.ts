import { misuse, requireOneOf } from '../base/check.js'
import { ConfigError } from '../base/errors.js'

/** A message of a conversation; what its parts are is the model's. */
export interface ChatMessage<P> {
  role: 'system' | 'user' | 'assistant'
  content: readonly P[]
}

/**
 * @param describe what of a message matters: whether it is empty, and whether it is text alone
 * @throws ConfigError naming the message, unless user and assistant take turns, after a system message at most, and the user
 * has the last word; what system and assistant say must be text, and what the user says not empty
 */
export function requireConversation<P>(
  where: string,
  messages: readonly ChatMessage<P>[],
  describe: (message: ChatMessage<P>, name: string) => { isEmpty: boolean; isText: boolean },
): void {
  if (!Array.isArray(messages) || messages.length === 0) throw misuse(where, 'messages', 'a list of messages', messages)
  let expected: 'user' | 'assistant' = 'user'
  for (const [i, message] of (messages as readonly ChatMessage<P>[]).entries()) {
    const name = `messages[${i}]`
    requireOneOf(where, `${name}.role`, message?.role, ['system', 'user', 'assistant'])
    if (!Array.isArray(message.content)) throw misuse(where, `${name}.content`, 'a list of parts', message.content)
    const { isEmpty, isText } = describe(message, name)
    if (message.role === 'system') {
      if (i > 0 || !isText) throw wrong(i, 'a system message comes first and is text')
      continue
    }
    if (message.role !== expected) throw wrong(i, `the ${expected} has the word, not the ${message.role}`)
    if (message.role === 'assistant' && !isText) throw wrong(i, 'a reply is text')
    if (message.role === 'user' && isEmpty) throw wrong(i, 'it is empty')
    expected = expected === 'user' ? 'assistant' : 'user'
  }
  if (expected === 'user') throw wrong(messages.length - 1, 'the last message must be one of the user')
}

const wrong = (index: number, what: string): ConfigError =>
  new ConfigError(`messages[${index}] cannot be asked: ${what}`, { argument: 'messages', index })

/** @throws ConfigError for a message with parts of other types, naming it */
export function requireParts(
  where: string,
  { content }: ChatMessage<{ type: string }>,
  name: string,
  known: readonly string[],
): void {
  const other = content.find((part) => !known.includes(part?.type))
  if (other === undefined) return
  const takes = known.join(' and ')
  throw new ConfigError(`${where} takes ${takes} alone, but ${name} has ${String(other?.type)}`, { argument: name })
}

const SHORT_TEXT = 16_384

/** What `requireRoom` asks of a tokenizer. */
interface Counter {
  exceeds(text: string, options: { maxTokens: number; signal?: AbortSignal }): Promise<boolean>
}

/**
 * Refuse a conversation whose texts alone have more tokens than a network has positions, before any of it is encoded: the
 * texts are read in slices, and no further than it takes to know.
 * @throws ConfigError
 */
export async function requireRoom(
  where: string,
  tokenizer: Counter,
  room: number | undefined,
  messages: readonly ChatMessage<{ type: string; text?: unknown }>[],
  signal?: AbortSignal,
): Promise<void> {
  if (room === undefined || !Array.isArray(messages)) return
  const parts = (messages as readonly ChatMessage<{ text?: unknown }>[]).flatMap((message) => message?.content ?? [])
  const text = parts.flatMap((part) => (typeof part?.text === 'string' ? [part.text] : [])).join('\n')
  // Encoding that takes no longer than a slice does, and tells exactly.
  if (text.length <= SHORT_TEXT) return
  if (await tokenizer.exceeds(text, { maxTokens: room, ...(signal && { signal }) })) {
    throw new ConfigError(`${where}: expected a conversation of at most ${room} tokens, got more. Send less text.`, {
      maxPositionEmbeddings: room,
    })
  }
}

/** A piece of an answer, and how many tokens it took. */
export interface AnswerPiece {
  text: string
  tokens: number
}

/** An answer up to the first of some texts, which is left out. What may become one of them is held back. */
export async function* untilStop<D extends AnswerPiece>(
  answer: AsyncIterable<D>,
  stops: readonly string[],
): AsyncGenerator<D | AnswerPiece, void, void> {
  const ends = stops.filter((stop) => stop !== '')
  let held = ''
  for await (const piece of answer) {
    held += piece.text
    const places = ends.map((stop) => held.indexOf(stop)).filter((place) => place >= 0)
    const found = places.length > 0
    const certain = found ? Math.min(...places) : held.length - mostHeld(held, ends)
    yield { ...piece, text: held.slice(0, certain) }
    if (found) return
    held = held.slice(certain)
  }
  if (held !== '') yield { text: held, tokens: 0 }
}

/** How many letters at the end may be the beginning of a stop. */
function mostHeld(text: string, stops: readonly string[]): number {
  const overlap = (stop: string) => {
    for (let length = Math.min(stop.length - 1, text.length); length > 0; length--) {
      if (text.endsWith(stop.slice(0, length))) return length
    }
    return 0
  }
  return Math.max(0, ...stops.map(overlap))
}

interface Conversation<C> {
  cache: C
  text: string
  isBusy: boolean
}

/**
 * What a model has computed of the latest conversations, each of which is known by its text: the next turn's begins with it.
 * It owns the caches: `dispose()` it.
 */
export class Conversations<C extends { dispose(): void }> {
  /** The latest comes last. */
  readonly #all: Conversation<C>[] = []

  /** @param most conversations that are kept */
  constructor(
    readonly makeCache: () => C,
    readonly most: number,
  ) {}

  /**
   * The cache of the conversation that this text goes on from, else a new one in place of the oldest; none where all are
   * busy. `leave` it when the turn is over.
   */
  take(text: string): { cache: C; leave(): void } | undefined {
    const free = this.#all.filter(({ isBusy }) => !isBusy)
    const alike = ({ text: before }: Conversation<C>) => commonLength(before, text)
    const best = [...free].sort((a, b) => alike(b) - alike(a))[0]
    const isNext = best !== undefined && alike(best) === best.text.length
    const room = this.#all.length < this.most
    const found = isNext || !room ? (isNext ? best : free[0]) : { cache: this.makeCache(), text, isBusy: true }
    if (!found) return undefined
    const at = this.#all.indexOf(found)
    if (at >= 0) this.#all.splice(at, 1)
    this.#all.push(found)
    found.text = text
    found.isBusy = true
    const leave = () => {
      found.isBusy = false
    }
    return { cache: found.cache, leave }
  }

  /** Frees what is kept of all conversations. */
  dispose(): void {
    for (const { cache } of this.#all.splice(0)) cache.dispose()
  }
}

function commonLength(a: string, b: string): number {
  const most = Math.min(a.length, b.length)
  let same = 0
  while (same < most && a[same] === b[same]) same += 1
  return same
}
