import { misuse, requireString } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { AlignedText } from './aligned.js'
import { widthAt } from './models/model.js'
import { Trie } from './models/trie.js'
import { type Normalizer, normalized } from './normalizers.js'
import { STEP, type Steps } from './steps.js'

/** A token that is found in the text as it is, before the model cuts anything. */
export interface AddedToken {
  content: string
  /** It belongs to the model's control, as `</s>`: skipped on decoding, never normalised. */
  special: boolean
  /** Found only where no letter or digit touches it. */
  singleWord: boolean
  /** Takes the spaces before it along. */
  lstrip: boolean
  /** Takes the spaces after it along. */
  rstrip: boolean
  /** Looked for after normalisation, in normalised form. */
  normalized: boolean
}

/** A stretch of text, with the id of the added token that it is, or -1. */
export interface Section {
  from: number
  to: number
  id: number
}

/** Longer ones would make the search slower than linear. */
export const MAX_ADDED_LENGTH = 1024

/**
 * The added tokens of a tokenizer. Tries hold them: adding one costs its length, and the search costs the text's length,
 * however many there are.
 */
export class AddedTokens {
  readonly #tokens = new Map<number, AddedToken>()
  readonly #ids = new Map<string, number>()
  /** How tokens are spelled that a normalizer changes. */
  readonly #spelled = new Map<number, string>()
  readonly #raw = new Trie()
  readonly #normalized = new Trie()
  #next = 0
  #hasRaw = false
  #hasNormalized = false

  /**
   * @param normalizer with which tokens that are looked for in normalised text are normalised too; `'raw'` when all are
   *   looked for in the text as it is
   */
  constructor(readonly normalizer: Normalizer | null | 'raw') {}

  get size(): number {
    return this.#tokens.size
  }

  /** The first id above those of all added tokens. */
  get next(): number {
    return this.#next
  }

  /** Steps of all searches so far. */
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

  /** The text of a token in a decoded text: normalized, where the token is looked for in normalized text. */
  spelled(id: number): string | undefined {
    return this.#spelled.get(id) ?? this.#tokens.get(id)?.content
  }

  isSpecial(id: number): boolean {
    return this.#tokens.get(id)?.special === true
  }

  add(id: number, token: AddedToken): void {
    if (token.content === '') throw new ConfigError(`the added token ${id} is empty`, { id })
    if (token.content.length > MAX_ADDED_LENGTH) {
      throw new ConfigError(
        `the added token ${id} has ${token.content.length} characters, more than ${MAX_ADDED_LENGTH}`,
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
          `the added token ${id} has ${sought.length} characters once it is normalised, more than ${MAX_ADDED_LENGTH}`,
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

  /** Cuts raw text at the tokens that are not normalised. */
  *splitRaw(text: string): Steps<Section[]> {
    return this.#hasRaw ? yield* this.#split(text, this.#raw) : whole(text)
  }

  /** Cuts normalised text at the others. */
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

/** A token as a caller gives it: its text, or an object with some of the fields. */
export type AddedTokenInput = string | ({ content: string } & Partial<AddedToken>)

export function completeToken(where: string, input: AddedTokenInput, special: boolean): AddedToken {
  if (typeof input === 'string') return { ...plain, content: input, special, normalized: !special }
  if (typeof input !== 'object' || input === null) throw misuse(where, 'token', 'a text or an object', input)
  requireString(where, 'token.content', input.content)
  for (const name of ['special', 'singleWord', 'lstrip', 'rstrip', 'normalized'] as const) {
    const value = input[name]
    if (value !== undefined && typeof value !== 'boolean') {
      throw new ConfigError(`${where}: token.${name} must be true or false`, { argument: `token.${name}`, value })
    }
  }
  const isSpecial = special || input.special === true
  return { ...plain, normalized: !isSpecial, ...input, special: isSpecial }
}

const plain = { singleWord: false, lstrip: false, rstrip: false }
