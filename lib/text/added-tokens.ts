import { argumentError, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { AlignedText } from './aligned.js'
import { widthAt } from './models/model.js'
import { Trie } from './models/trie.js'
import { type Normalizer, normalized } from './normalizers.js'
import { STEP, type Steps } from './steps.js'

/** A token that is matched in the text before the model splits it. */
export interface AddedToken {
  content: string
  /** A control token such as `</s>`: skipped by `skipSpecialTokens`, never normalized. */
  special: boolean
  /** Matched only without a letter or digit directly before or after it. */
  singleWord: boolean
  /** Includes the spaces before it. */
  lstrip: boolean
  /** Includes the spaces after it. */
  rstrip: boolean
  /** Matched after normalization, in normalized form. */
  normalized: boolean
}

/** A section of text, with the id of its added token, or -1 for other text. */
export interface Section {
  from: number
  to: number
  id: number
}

/** Most characters of an added token; longer ones would make the search slower than linear. */
export const MAX_ADDED_LENGTH = 1024

/**
 * The added tokens of a tokenizer, in tries: adding a token takes time linear in its length, and a search takes time linear in the
 * length of the text, regardless of the number of tokens.
 */
export class AddedTokens {
  readonly #tokens = new Map<number, AddedToken>()
  readonly #ids = new Map<string, number>()
  /** Normalized text of tokens that the normalizer changes. */
  readonly #spelled = new Map<number, string>()
  readonly #raw = new Trie()
  readonly #normalized = new Trie()
  #next = 0
  #hasRaw = false
  #hasNormalized = false

  /**
   * @param normalizer normalizer of tokens that are matched in normalized text; `'raw'` if all tokens are matched in raw text
   */
  constructor(readonly normalizer: Normalizer | null | 'raw') {}

  get size(): number {
    return this.#tokens.size
  }

  /** The highest id of the added tokens + 1. */
  get next(): number {
    return this.#next
  }

  /** Number of steps of all searches so far. */
  get steps(): number {
    return this.#raw.steps + this.#normalized.steps
  }

  entries(): IterableIterator<[number, AddedToken]> {
    return this.#tokens.entries()
  }

  id(content: string): number | undefined {
    return this.#ids.get(content)
  }

  get(id: number): AddedToken | undefined {
    return this.#tokens.get(id)
  }

  /** Return the text of a token in decoded text: the normalized form if the token is matched in normalized text. */
  spelled(id: number): string | undefined {
    return this.#spelled.get(id) ?? this.#tokens.get(id)?.content
  }

  isSpecial(id: number): boolean {
    return this.#tokens.get(id)?.special === true
  }

  add(id: number, token: AddedToken): void {
    if (token.content === '') throw new ConfigError(`added token ${id}: expected a non-empty text`, { id })
    if (token.content.length > MAX_ADDED_LENGTH) {
      throw new ConfigError(
        `added token ${id}: expected at most ${MAX_ADDED_LENGTH} characters, got ${token.content.length}`,
        {
          id,
        },
      )
    }
    this.#spelled.delete(id)
    if (token.normalized && this.normalizer !== 'raw') {
      const sought = this.normalizer ? normalized(this.normalizer, new AlignedText(token.content)).text : token.content
      if (sought.length > MAX_ADDED_LENGTH) {
        throw new ConfigError(
          `added token ${id}: expected at most ${MAX_ADDED_LENGTH} characters after normalization, got ${sought.length}`,
          { id },
        )
      }
      if (sought !== '') this.#normalized.add(sought, id)
      if (sought !== token.content) this.#spelled.set(id, sought)
      this.#hasNormalized = true
    } else {
      this.#raw.add(token.content, id)
      this.#hasRaw = true
    }
    this.#tokens.set(id, token)
    this.#ids.set(token.content, id)
    this.#next = Math.max(this.#next, id + 1)
  }

  /** Split raw text at the tokens that are not normalized. */
  *splitRaw(text: string): Steps<Section[]> {
    return this.#hasRaw ? yield* this.#split(text, this.#raw) : whole(text)
  }

  /** Split normalized text at the other tokens. */
  *splitNormalized(text: string): Steps<Section[]> {
    return this.#hasNormalized ? yield* this.#split(text, this.#normalized) : whole(text)
  }

  *#split(text: string, trie: Trie): Steps<Section[]> {
    const sections: Section[] = []
    let last = 0
    let next = STEP
    for (let at = 0; at < text.length; ) {
      if (at >= next) {
        yield
        next = at + STEP
      }
      const stop = trie.longest(text, at)
      if (stop === -1) {
        at++
        continue
      }
      const id = trie.found
      const token = this.#tokens.get(id)!
      const begin = at
      at = stop
      if (token.singleWord && (endsWithWord(text, begin) || startsWithWord(text, stop))) continue
      const from = token.lstrip ? spacesBefore(text, begin, Math.min(last, begin)) : begin
      const to = token.rstrip ? spacesAfter(text, stop) : stop
      if (from > last) sections.push({ from: last, to: from, id: -1 })
      sections.push({ from, to, id })
      last = to
      at = Math.max(at, to)
    }
    if (last < text.length || text === '') sections.push({ from: last, to: text.length, id: -1 })
    return sections
  }
}

function whole(text: string): Section[] {
  return [{ from: 0, to: text.length, id: -1 }]
}

const word = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u
const space = /\p{White_Space}/u

function startsWithWord(text: string, at: number): boolean {
  return word.test(text.slice(at, at + 2))
}

function endsWithWord(text: string, at: number): boolean {
  if (at === 0) return false
  return word.test(text.slice(at >= 2 && widthAt(text, at - 2) === 2 ? at - 2 : at - 1, at))
}

function spacesBefore(text: string, at: number, least: number): number {
  let from = at
  while (from > least && space.test(text[from - 1]!)) from--
  return from
}

function spacesAfter(text: string, at: number): number {
  let to = at
  while (to < text.length && space.test(text[to]!)) to++
  return to
}

/** Input for an added token: its text, or an object with some of the fields. */
export type AddedTokenInput = string | ({ content: string } & Partial<AddedToken>)

export function completeToken(where: string, input: AddedTokenInput, special: boolean): AddedToken {
  if (typeof input === 'string') return { ...plain, content: input, special, normalized: !special }
  if (typeof input !== 'object' || input === null) throw argumentError(where, 'token', 'a text or an object', input)
  requireString(where, 'token.content', input.content)
  for (const name of ['special', 'singleWord', 'lstrip', 'rstrip', 'normalized'] as const) {
    const value = input[name]
    if (value !== undefined && typeof value !== 'boolean') {
      throw argumentError(where, `token.${name}`, 'true or false', value)
    }
  }
  const isSpecial = special || input.special === true
  return { ...plain, normalized: !isSpecial, ...input, special: isSpecial }
}

const plain = { singleWord: false, lstrip: false, rstrip: false }
