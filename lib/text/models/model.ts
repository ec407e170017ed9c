import { quoted } from '../../files/byte-source.js'
import type { Fields } from '../fields.js'
import type { Steps } from '../steps.js'

/** Tokens of one text, in three columns. Offsets are in UTF-16 units of the argument of `tokenize`. */
export interface Tokens {
  ids: number[]
  starts: number[]
  ends: number[]
}

export const noTokens = (): Tokens => ({ ids: [], starts: [], ends: [] })

/** A vocabulary, and the algorithm that splits a pre-token into its entries. */
export interface TokenModel {
  readonly kind: 'BPE' | 'Unigram' | 'WordPiece' | 'WordLevel' | 'SentencePiece'
  readonly size: number
  tokenize(text: string, into: Tokens): void
  /** Tokenize in steps, for long pre-tokens. */
  steps?(text: string, into: Tokens): Steps<void>
  tokenToId(token: string): number | undefined
  idToToken(id: number): string | undefined
  entries(): IterableIterator<[string, number]>
}

/** Mapping between tokens and ids. */
export class Vocabulary {
  readonly #ids: ReadonlyMap<string, number>
  readonly #tokens = new Map<number, string>()

  constructor(ids: ReadonlyMap<string, number>) {
    this.#ids = ids
    for (const [token, id] of ids) this.#tokens.set(id, token)
  }

  get size(): number {
    return this.#ids.size
  }

  id(token: string): number | undefined {
    return this.#ids.get(token)
  }

  token(id: number): string | undefined {
    return this.#tokens.get(id)
  }

  entries(): IterableIterator<[string, number]> {
    return this.#ids.entries()
  }
}

/** Return the length of the character at `i`: 2 for a surrogate pair. */
export function widthAt(text: string, i: number): number {
  const unit = text.charCodeAt(i)
  if (unit < 0xd800 || unit >= 0xdc00 || i + 1 >= text.length) return 1
  const low = text.charCodeAt(i + 1)
  return low >= 0xdc00 && low < 0xe000 ? 2 : 1
}

const encoder = new TextEncoder()

/** Return the byte fallback tokens of a text, such as `<0xE2>`. */
export function byteTokens(text: string): string[] {
  return Array.from(encoder.encode(text), (byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`)
}

const MAX_ID = 2 ** 30

/** Read `vocab`, an object of ids by token. */
export function readVocabulary(fields: Fields): Map<string, number> {
  const vocab = fields.object('vocab')
  const ids = new Map<string, number>()
  for (const token of Object.keys(vocab.values)) {
    const id = vocab.values[token]
    if (!Number.isInteger(id) || (id as number) < 0 || (id as number) > MAX_ID) {
      throw vocab.error(quoted(token), 'an id', id)
    }
    ids.set(token, id as number)
  }
  return ids
}
