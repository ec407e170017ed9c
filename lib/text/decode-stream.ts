import { argumentError } from '../base/check.js'

/** Most tokens to hold back for a text that ends in U+FFFD; after that it is not an incomplete character. Bounds the time of a push. */
const MAX_HELD = 256
/** Most tokens without text to keep. */
const MAX_SILENT = 64

/**
 * Incremental decoder. A token that ends within a character is held back until the character is complete. The concatenated
 * results equal `decode` of all ids; only invalid UTF-8 may differ.
 */
export class DecodeStream {
  readonly #decode: (ids: number[]) => string
  readonly #skips: (id: number) => boolean
  /** The last tokens. Those before `#shown` were returned already, and are kept as context for spaces. */
  #ids: number[] = []
  #shown = 0
  #text = ''
  /** Number of tokens since the text ended in a complete character. */
  #held = 0

  /** @param skips whether an id is ignored */
  constructor(decode: (ids: number[]) => string, skips: (id: number) => boolean) {
    this.#decode = decode
    this.#skips = skips
  }

  /**
   * Decode the next id.
   * @returns the text that is complete now, possibly `''`
   * @throws ConfigError for a value that is not an id
   */
  push(id: number | bigint): string {
    const number = Number(id)
    if (!Number.isSafeInteger(number) || number < 0)
      throw argumentError('DecodeStream.push', 'id', 'an integer of at least 0', id)
    if (this.#skips(number)) return ''
    this.#ids.push(number)
    const text = this.#decode(this.#ids)
    // As in tokenizers' DecodeStream. Several characters can be incomplete, and U+FFFD can be part of the text.
    if (text.endsWith('\ufffd') && ++this.#held < MAX_HELD) return ''
    return this.#show(text)
  }

  /** Return the text that was held back, after the last id. The stream can be reused. */
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
    // A decoder may change the text of the last token when the next one is appended.
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
