import type { Tokens } from './model.js'

const MAX_WORDS = 60_000
const MAX_LENGTH = 256

/** How words were cut before. When it is full it starts again. */
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

/** A copy: the slice that V8 makes of a long text keeps all of that text alive. */
function owned(word: string): string {
  return word.length < 13 ? word : Buffer.from(word).toString()
}
