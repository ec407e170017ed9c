import { misuse } from '../base/check.js'

/** Text that ends in U+FFFD for so many tokens is no character that still comes: the time of a push stays bounded. */
const MAX_HELD = 256
/** Tokens without any text are remembered up to this number. */
const MAX_SILENT = 64

/**
 * Text token by token. A token that ends in the middle of a character is held back until the rest has come. All that it
 * returned, joined, is what `decode` gives for all ids; only bytes that are no UTF-8 at all may differ.
 */
export class DecodeStream {
  readonly #decode: (ids: number[]) => string
  readonly #skips: (id: number) => boolean
  /** The last tokens: those before `#shown` have been returned, and stay so that spaces come out right. */
  #ids: number[] = []
  #shown = 0
  #text = ''
  /** How many tokens have come since the text ended in a whole character. */
  #held = 0

  /** @param skips whether an id is left out, as if it had never come */
  constructor(decode: (ids: number[]) => string, skips: (id: number) => boolean) {
    this.#decode = decode
    this.#skips = skips
  }

  /**
   * Takes the next id.
   * @returns the text that is certain now, `''` while there is none
   * @throws ConfigError when it is no id
   */
  push(id: number | bigint): string {
    const number = Number(id)
    if (!Number.isSafeInteger(number) || number < 0) throw misuse('DecodeStream.push', 'id', 'an integer', id)
    if (this.#skips(number)) return ''
    this.#ids.push(number)
    const text = this.#decode(this.#ids)
    // As tokenizers' DecodeStream: several characters may be open at once, and U+FFFD may be one that was meant.
    if (text.endsWith('\ufffd') && ++this.#held < MAX_HELD) return ''
    return this.#show(text)
  }

  /** The text that was held back, when there will be no more ids. The stream can then be used afresh. */
  end(): string {
    const rest = this.#show(this.#decode(this.#ids))
    this.#ids = []
    this.#shown = 0
    this.#text = ''
    this.#held = 0
    return rest
  }

  #show(text: string): string {
    let common = this.#text.length
    // A decoder may take back what it said of the last token, when the next one joins it.
    if (!text.startsWith(this.#text)) {
      common = 0
      while (common < text.length && text[common] === this.#text[common]) common++
    }
    const fresh = text.slice(common)
    this.#held = 0
    if (fresh !== '' || this.#ids.length - this.#shown > MAX_SILENT) {
      this.#ids = this.#ids.slice(this.#shown)
      this.#shown = this.#ids.length
      this.#text = this.#decode(this.#ids)
    }
    return fresh
  }
}
