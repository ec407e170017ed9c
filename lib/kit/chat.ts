import { argumentError, requireOneOf, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { commonLength } from '../base/words.js'

/** A message of a conversation. The types of its parts depend on the model. */
export interface ChatMessage<P> {
  role: 'system' | 'user' | 'assistant'
  content: readonly P[]
}

/**
 * Check a conversation: an optional system message, then user and assistant in turn, the last message from the user. System and
 * assistant messages are text; user messages are not empty.
 * @param describe function that tells whether a message is empty, and whether it is only text
 * @throws ConfigError that names the message
 */
export function requireConversation<P>(
  where: string,
  messages: readonly ChatMessage<P>[],
  describe: (message: ChatMessage<P>, name: string) => { isEmpty: boolean; isText: boolean },
): void {
  if (!Array.isArray(messages) || messages.length === 0)
    throw argumentError(where, 'messages', 'a list of messages', messages)
  let expected: 'user' | 'assistant' = 'user'
  for (const [i, message] of (messages as readonly ChatMessage<P>[]).entries()) {
    const name = `messages[${i}]`
    requireOneOf(where, `${name}.role`, message?.role, ['system', 'user', 'assistant'])
    if (!Array.isArray(message.content))
      throw argumentError(where, `${name}.content`, 'a list of parts', message.content)
    const { isEmpty, isText } = describe(message, name)
    if (message.role === 'system') {
      if (i > 0 || !isText)
        throw wrong(
          i,
          i > 0
            ? 'expected the system message first, got it later'
            : 'expected text in the system message, got other parts',
        )
      continue
    }
    if (message.role !== expected) throw wrong(i, `expected role '${expected}', got '${message.role}'`)
    if (message.role === 'assistant' && !isText)
      throw wrong(i, 'expected text in the reply of the assistant, got other parts')
    if (message.role === 'user' && isEmpty) throw wrong(i, 'expected a text or a file, got an empty message')
    expected = expected === 'user' ? 'assistant' : 'user'
  }
  if (expected === 'user')
    throw wrong(
      messages.length - 1,
      `expected the last message from the user, got one from the ${messages.at(-1)?.role}`,
    )
}

const wrong = (index: number, what: string): ConfigError =>
  new ConfigError(`messages[${index}]: ${what}. Change the conversation.`, { argument: 'messages', index })

/** Check the types of a message's parts. @throws ConfigError that names the message */
export function requireParts(
  where: string,
  { content }: ChatMessage<{ type: string }>,
  name: string,
  known: readonly string[],
): void {
  const other = content.find((part) => !known.includes(part?.type))
  if (other === undefined) return
  throw new ConfigError(
    `${where}: ${name}: expected parts of type ${known.join(' or ')}, got ${shown(other?.type)}. Leave the part out.`,
    { argument: name },
  )
}

const SHORT_TEXT = 16_384

/** Tokenizer interface of `requireRoom`. */
interface Counter {
  exceeds(text: string, options: { maxTokens: number; signal?: AbortSignal }): Promise<boolean>
}

/**
 * Refuse a conversation with more text tokens than the network has positions, before it is encoded. The text is tokenized in
 * slices, only until the limit is exceeded.
 * @throws ConfigError for a conversation that is too long
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
  // A short text is encoded at once anyway, which gives the exact count.
  if (text.length <= SHORT_TEXT) return
  if (await tokenizer.exceeds(text, { maxTokens: room, ...(signal && { signal }) })) {
    throw new ConfigError(`${where}: expected a conversation of at most ${room} tokens, got more. Send less text.`, {
      maxPositionEmbeddings: room,
    })
  }
}

/** A piece of an answer, and the number of its tokens. */
export interface AnswerPiece {
  text: string
  tokens: number
}

/** Yield an answer up to the first stop text, which is left out. Text that may become a stop text is held back. */
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

/** Return the number of characters at the end that may be the beginning of a stop text. */
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
 * Caches of the latest conversations, found again by their text, with which the next turn's prompt begins. Call `dispose()` to
 * free them.
 */
export class Conversations<C extends { dispose(): void }> {
  /** Least recently used first. */
  readonly #all: Conversation<C>[] = []

  /** @param most maximum number of conversations */
  constructor(
    readonly makeCache: () => C,
    readonly most: number,
  ) {}

  /**
   * Return the cache of the conversation that this text continues, otherwise a new one that replaces the least recently used one;
   * undefined if all are busy. Call `leave()` at the end of the turn.
   */
  take(text: string): { cache: C; leave(): void } | undefined {
    const free = this.#all.filter(({ isBusy }) => !isBusy)
    const alike = ({ text: before }: Conversation<C>) => commonLength(before, text)
    const best = [...free].sort((a, b) => alike(b) - alike(a))[0]
    const isNext = best !== undefined && alike(best) === best.text.length
    const hasSpace = this.#all.length < this.most
    const found = isNext || !hasSpace ? (isNext ? best : free[0]) : { cache: this.makeCache(), text, isBusy: true }
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

  /** Free all caches. */
  dispose(): void {
    for (const { cache } of this.#all.splice(0)) cache.dispose()
  }
}
