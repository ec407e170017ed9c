/** Nesting beyond this is refused: code that walks values recursively would overflow its stack. */
export const MAX_DEPTH = 1000

/**
 * A quick look over JSON's bytes before anything is built from them: how deep they nest, and whether a number has so
 * many digits that it may not fit a double. Says nothing about the grammar.
 */
export class JsonScan {
  /** Some whole number has 16 digits or more. */
  wide = false
  #depth = 0
  #inString = false
  #escaped = false
  #digits = 0

  /** Looks at the next bytes; returns the index of the one that nests too deep, or -1. */
  push(bytes: Uint8Array): number {
    let inString = this.#inString
    let escaped = this.#escaped
    let depth = this.#depth
    let digits = this.#digits
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!
      if (inString) {
        if (escaped) escaped = false
        else if (byte === 0x5c) escaped = true
        else if (byte === 0x22) inString = false
        continue
      }
      if (byte >= 0x30 && byte <= 0x39) {
        if (++digits === 16) this.wide = true
        continue
      }
      // What follows the point of 0.1234567890123456 is not a whole number.
      digits = byte === 0x2e ? Number.NEGATIVE_INFINITY : 0
      if (byte === 0x22) inString = true
      else if (byte === 0x5b || byte === 0x7b) {
        if (++depth > MAX_DEPTH) return i
      } else if (byte === 0x5d || byte === 0x7d) depth--
    }
    this.#inString = inString
    this.#escaped = escaped
    this.#depth = depth
    this.#digits = digits
    return -1
  }
}
