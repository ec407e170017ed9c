import { heapHolds, LARGEST_MAP, LONGEST_LIST, tooMuch } from '../../base/heap.js'

/** Maximum nesting: code that traverses values recursively would overflow its stack. */
export const MAX_DEPTH = 1000

// Bytes on V8's heap, measured: an empty list or object with its place in another, a key that no other object has, a list's
// element, and the overhead of a text beyond its characters (short ones are often shared).
const COLLECTION = 64
const OWN_KEY = 80
const ELEMENT = 8
const TEXT = 24
/** Maximum length of a text that is mostly shared with an existing one. */
const SHORT = 10
/** Number of keys above which an object is a hash table. */
const MANY_KEYS = 1000
/** Bytes of the new object shape that V8 creates for a key that no object had before. */
const NEW_KIND = 300
const KIND_BITS = 25
/** Shapes are counted in texts longer than this, where they may matter. */
const LONG = 2 ** 20

/** Limits of a kind of file, below the general ones. */
export interface JsonLimits {
  depth?: number
  /** Maximum number of values in lists and objects, including these. */
  values?: number
}

/**
 * Scan JSON's bytes before anything is built from them: nesting depth, memory use, and whether a number has so many digits that
 * it may not fit a double. Does not check the grammar.
 */
export class JsonScan {
  /** Whether some integer has 16 digits or more. */
  wide = false
  #depth = 0
  #values = 0
  readonly #limits: JsonLimits
  #inString = false
  #escaped = false
  #digits = 0
  #text = 0
  #cost = 0
  /** Number of commas so far in the open collections, by depth. */
  readonly #commas = [0]
  readonly #isList = [false]
  #crowded = false
  #hash = 0
  #length = 0
  /** One bit per hash of a key that occurred. */
  #kinds: Uint32Array | undefined

  constructor(limits: JsonLimits = {}) {
    this.#limits = limits
  }

  /** Scan the next bytes; returns the index of the one that nests too deep, or -1. */
  push(bytes: Uint8Array): number {
    let inString = this.#inString
    let escaped = this.#escaped
    let depth = this.#depth
    let digits = this.#digits
    let text = this.#text
    let cost = this.#cost
    let hash = this.#hash
    const commas = this.#commas
    const deepest = this.#limits.depth ?? MAX_DEPTH
    this.#length += bytes.length
    if (this.#length > LONG) this.#kinds ??= new Uint32Array(2 ** (KIND_BITS - 5))
    const kinds = this.#kinds
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i]!
      if (inString) {
        if (escaped) escaped = false
        else if (byte === 0x5c) escaped = true
        else if (byte === 0x22) {
          inString = false
          if (text > SHORT) cost += TEXT + text
        }
        text++
        hash = Math.imul(hash ^ byte, 0x01000193)
        continue
      }
      if (byte >= 0x30 && byte <= 0x39) {
        if (++digits === 16) this.wide = true
        continue
      }
      // Digits after the decimal point of 0.1234567890123456 are not an integer.
      digits = byte === 0x2e ? Number.NEGATIVE_INFINITY : 0
      if (byte === 0x22) {
        inString = true
        text = 0
        hash = 0x811c9dc5
      } else if (byte === 0x3a) {
        if (kinds !== undefined && commas[depth]! < MANY_KEYS) {
          const bit = (hash ^ (hash >>> 15)) & (2 ** KIND_BITS - 1)
          if ((kinds[bit >>> 5]! & (1 << (bit & 31))) === 0) {
            kinds[bit >>> 5]! |= 1 << (bit & 31)
            cost += NEW_KIND
          }
        }
      } else if (byte === 0x2c) {
        const count = ++commas[depth]!
        this.#values++
        const inList = this.#isList[depth]!
        cost += inList || count < MANY_KEYS ? ELEMENT : OWN_KEY
        if (count >= (inList ? LONGEST_LIST : LARGEST_MAP)) this.#crowded = true
      } else if (byte === 0x5b || byte === 0x7b) {
        if (++depth > deepest) return i
        this.#values++
        commas[depth] = 0
        this.#isList[depth] = byte === 0x5b
        cost += COLLECTION
      } else if ((byte === 0x5d || byte === 0x7d) && depth > 0) depth--
    }
    this.#inString = inString
    this.#escaped = escaped
    this.#depth = depth
    this.#digits = digits
    this.#text = text
    this.#hash = hash
    this.#cost = cost
    return -1
  }

  /** Return why the scanned JSON must not be built, since it would end the process; undefined if it may. */
  tooMuch(): string | undefined {
    const { values = Number.POSITIVE_INFINITY } = this.#limits
    if (this.#values > values) return `expected at most ${values} values, got more`
    return this.#crowded || (this.#cost > 2 ** 20 && !heapHolds(this.#cost)) ? tooMuch() : undefined
  }
}
