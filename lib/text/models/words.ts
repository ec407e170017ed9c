import type { Fields } from '../fields.js'
import { readVocabulary, type TokenModel, type Tokens, Vocabulary, widthAt } from './model.js'

abstract class WordModel implements TokenModel {
  abstract readonly kind: 'WordPiece' | 'WordLevel'
  protected readonly vocabulary: Vocabulary

  constructor(
    ids: ReadonlyMap<string, number>,
    protected readonly unk: number | undefined,
  ) {
    this.vocabulary = new Vocabulary(ids)
  }

  abstract tokenize(text: string, into: Tokens): void

  get size(): number {
    return this.vocabulary.size
  }

  tokenToId(token: string): number | undefined {
    return this.vocabulary.id(token)
  }

  idToToken(id: number): string | undefined {
    return this.vocabulary.token(id)
  }

  entries(): IterableIterator<[string, number]> {
    return this.vocabulary.entries()
  }

  protected push(into: Tokens, id: number | undefined, start: number, end: number): void {
    if (id === undefined) return
    into.ids.push(id)
    into.starts.push(start)
    into.ends.push(end)
  }
}

/** WordPiece, BERT's model: longest match first, from the left (Schuster and Nakajima 2012). */
export class WordPiece extends WordModel {
  readonly kind = 'WordPiece'
  /** UTF-16 units of the longest entry, with or without the prefix: the maximum length of a piece. */
  readonly #longest: number

  constructor(
    ids: ReadonlyMap<string, number>,
    unk: number | undefined,
    readonly prefix: string,
    readonly maxCharacters: number,
  ) {
    super(ids, unk)
    let longest = 0
    for (const token of ids.keys()) longest = Math.max(longest, token.length)
    this.#longest = longest
  }

  tokenize(text: string, into: Tokens): void {
    const before = into.ids.length
    if (this.#isShort(text) && this.#pieces(text, into)) return
    for (const column of [into.ids, into.starts, into.ends]) column.length = before
    this.push(into, this.unk, 0, text.length)
  }

  /** A character has at most two units. */
  #isShort(text: string): boolean {
    return text.length <= 2 * this.maxCharacters && [...text].length <= this.maxCharacters
  }

  #pieces(text: string, into: Tokens): boolean {
    for (let start = 0; start < text.length; ) {
      let end = Math.min(text.length, start + this.#longest)
      if (end > start + 1 && end < text.length && widthAt(text, end - 1) === 2) end--
      let id: number | undefined
      while (end > start) {
        const part = text.slice(start, end)
        id = this.vocabulary.id(start === 0 ? part : this.prefix + part)
        if (id !== undefined) break
        end -= end - start >= 2 && widthAt(text, end - 2) === 2 ? 2 : 1
      }
      if (id === undefined) return false
      this.push(into, id, start, end)
      start = end
    }
    return true
  }
}

/** WordLevel: whole words only. */
export class WordLevel extends WordModel {
  readonly kind = 'WordLevel'

  tokenize(text: string, into: Tokens): void {
    this.push(into, this.vocabulary.id(text) ?? this.unk, 0, text.length)
  }
}

export function readWordPiece(fields: Fields): WordPiece {
  const ids = readVocabulary(fields)
  const unk = ids.get(fields.string('unk_token', '[UNK]'))
  if (unk === undefined) fields.fail('unk_token: expected a token of the vocabulary, got another')
  const maxCharacters = Math.min(fields.whole('max_input_chars_per_word', 100), 10_000)
  return new WordPiece(ids, unk, fields.string('continuing_subword_prefix', '##'), maxCharacters)
}

export function readWordLevel(fields: Fields): WordLevel {
  const ids = readVocabulary(fields)
  return new WordLevel(ids, ids.get(fields.string('unk_token', '<unk>')))
}
