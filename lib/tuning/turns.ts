import { commonLength } from '../base/words.js'
import type { ChatMessage, ChatOptions } from '../text/chat.js'
import type { Tokenizer } from '../text/tokenizer.js'

/** Range in a rendered text, in UTF-16 units. */
export type Span = [start: number, end: number]

export interface RenderedConversation {
  text: string
  /** Text of each turn of the assistant that contributes to the loss, through its end-of-turn token. */
  spans: Span[]
}

/**
 * Render a conversation, and find the text that the model generates: `{% generation %}` blocks if the template has any, otherwise the
 * turns of the assistant. A turn begins where the rendered prompt before it ends, so it includes what the template adds, such as the
 * tags of an empty reasoning. Where the template renders earlier turns otherwise (Qwen3 drops their reasoning), it begins and ends where
 * the text differs from one with another content.
 * @param from index of the first message whose turns contribute
 * @param onlyLast whether only the last turn contributes
 * @returns the text with its spans, or the index of a message that the template does not render
 * @throws ConfigError if the template raises an exception; DataError as `applyChatTemplate`
 */
export function renderTurns(
  tokenizer: Tokenizer,
  messages: readonly ChatMessage[],
  options: Pick<ChatOptions, 'tools' | 'chatTemplate'>,
  { from = 0, onlyLast = false }: { from?: number; onlyLast?: boolean } = {},
): RenderedConversation | { missing: number } {
  const { text, generated } = tokenizer.renderChat(messages, options)
  const turns = messages.flatMap(({ role }, i) => (role === 'assistant' && i >= from ? [i] : []))
  const hasBlocks = generated.length > 0
  if (hasBlocks && !onlyLast && from === 0) return { text, spans: nonEmpty(generated) }
  const conversation = new Conversation(tokenizer, messages, options, text)
  const spans: Span[] = []
  for (const turn of onlyLast ? turns.slice(-1) : turns) {
    const span = conversation.spanOf(turn)
    if (span === undefined) return { missing: turn }
    spans.push(span)
  }
  if (!hasBlocks) return { text, spans }
  return { text, spans: nonEmpty(generated).filter((block) => spans.some((span) => overlap(block, span))) }
}

const nonEmpty = (spans: readonly Span[]): Span[] => spans.filter(([start, end]) => end > start)
const overlap = (one: Span, other: Span): boolean => one[0] < other[1] && other[0] < one[1]

/** Number of the first character of Unicode's private use area. */
const PRIVATE_USE = 0xe000

class Conversation {
  /** A character that the conversation does not have, so that both ends of the contents differ. */
  readonly mark: string

  constructor(
    readonly tokenizer: Tokenizer,
    readonly messages: readonly ChatMessage[],
    readonly options: Pick<ChatOptions, 'tools' | 'chatTemplate'>,
    readonly text: string,
  ) {
    const used = new Set(text)
    let code = PRIVATE_USE
    while (used.has(String.fromCharCode(code))) code++
    this.mark = String.fromCharCode(code)
  }

  /** Return the span of a turn; undefined if the template does not render it. */
  spanOf(turn: number): Span | undefined {
    const { text, messages, mark } = this
    const other = this.#render(this.#replaced(turn, mark))
    if (!other.includes(mark)) return undefined
    const start = commonLength(text, other)
    const end = text.length - commonEnd(text, other, start)
    const isLast = turn === messages.length - 1
    const [whole, marked] = isLast
      ? [text, other]
      : [this.#render(messages.slice(0, turn + 1)), this.#render(this.#replaced(turn, mark).slice(0, turn + 1))]
    const tail = whole.slice(whole.length - commonEnd(whole, marked, commonLength(whole, marked)))
    const prompt = turn === 0 ? '' : this.#render(messages.slice(0, turn), true)
    const begin = prompt !== '' && prompt.length <= end && text.startsWith(prompt) ? prompt.length : start
    return [begin, end + this.#endOf(tail, text.slice(end, end + tail.length))]
  }

  /** Return the number of characters of the whole tokens with which both an end of turn and the text after a content begin. */
  #endOf(tail: string, rest: string): number {
    if (tail === rest) return tail.length
    const [one, other] = [tail, rest].map((text) => this.tokenizer.encode(text, { addSpecialTokens: false }))
    const count = commonLength(one!.inputIds, other!.inputIds)
    return count === 0 ? 0 : one!.offsets[count - 1]![1]
  }

  #render(messages: readonly ChatMessage[], addGenerationPrompt = false): string {
    return this.tokenizer.renderChat(messages, { ...this.options, addGenerationPrompt }).text
  }

  #replaced(turn: number, mark: string): ChatMessage[] {
    return this.messages.map((message, i) => {
      if (i !== turn) return message
      const content = Array.isArray(message.content) ? [{ type: 'text', text: mark }] : mark
      return { role: message.role, content }
    })
  }
}

/** Return the number of equal characters at the end of two texts, without their first `start`. */
function commonEnd(one: string, other: string, start: number): number {
  const most = Math.min(one.length, other.length) - start
  let length = 0
  while (length < most && one[one.length - 1 - length] === other[other.length - 1 - length]) length++
  return length
}
