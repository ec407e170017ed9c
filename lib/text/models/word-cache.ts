import type { Tokens } from './model.js'

const MAX_WORDS = 60_000
const MAX_LENGTH = 256

/** Cache of tokenized words, cleared when full. */
export class WordCache {
  readonly #words = new Map<string, Tokens>()

  get(word: string, cut: () => Tokens): Tokens {
    const known = this.#words.get(word)
    if (known !== undefined) return known
    const tokens = cut()
    if (word.length <= MAX_LENGTH) {
      if (this.#words.size >= MAX_WORDS) this.#words.clear()
      this.#words.set(owned(word), tokens)
    }
    return tokens
  }
}

/** Copy a slice, because V8's slice of a long text keeps the whole text in memory. */
function owned(word: string): string {
  return word.length < 13 ? word : Buffer.from(word).toString()
}
