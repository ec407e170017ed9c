import { LARGEST_MAP } from '../../base/heap.js'
import { quoted } from '../byte-source.js'

/**
 * Reader of untrusted JSON by expectation: the caller names each value's kind, so that nothing unexpected is built. Stricter
 * than JSON.parse (no duplicate keys, integers only) and bounded in depth. The grammar is RFC 8259.
 */

/** Throw an error that says what is wrong, and at which byte of the text. */
export type JsonFailure = (what: string, byte: number) => never

/** Name of a value in an error; a function where building the text for each of a million values would take long. */
export type What = string | (() => string)

const called = (what: What): string => (typeof what === 'string' ? what : what())
/** Number of keys that are compared one by one; a Set is slower for so few. */
const FEW_KEYS = 16

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const BACKSLASH = 0x5c
const OPEN_BRACKET = 0x5b
const CLOSE_BRACKET = 0x5d
const OPEN_BRACE = 0x7b
const CLOSE_BRACE = 0x7d
const MAX_DEPTH = 32

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

export class JsonReader {
  #at = 0

  constructor(
    readonly bytes: Buffer,
    readonly fail: JsonFailure,
  ) {}

  /** Call `each` for every key, at its value, which it must read. */
  object(what: What, each: (key: string) => void): void {
    if (!this.#accept(OPEN_BRACE)) this.fail(`${called(what)} is not an object`, this.#at)
    if (this.#accept(CLOSE_BRACE)) return
    const few: string[] = []
    let keys: Set<string> | undefined
    do {
      this.#blanks()
      const begin = this.#at
      const key = this.string('a key')
      if (keys?.has(key) ?? few.includes(key)) this.fail(`${called(what)} has the key ${quoted(key)} twice`, begin)
      if (keys !== undefined) {
        if (keys.size === LARGEST_MAP) this.fail(`${called(what)} has more than ${LARGEST_MAP} keys`, begin)
        keys.add(key)
      } else if (few.push(key) === FEW_KEYS) keys = new Set(few)
      if (!this.#accept(COLON)) this.fail(`expected a : in ${called(what)}`, this.#at)
      each(key)
    } while (this.#accept(COMMA))
    if (!this.#accept(CLOSE_BRACE)) this.fail(`expected a , or } in ${called(what)}`, this.#at)
  }

  /** Read a list of at most `most` integers from 0 to 2^53 - 1. */
  wholes(what: What, most: number): number[] {
    if (!this.#accept(OPEN_BRACKET)) this.fail(`${called(what)} is not a list`, this.#at)
    const values: number[] = []
    if (this.#accept(CLOSE_BRACKET)) return values
    do {
      if (values.length === most) this.fail(`${called(what)} has more than ${most} numbers`, this.#at)
      values.push(this.#whole(what))
    } while (this.#accept(COMMA))
    if (!this.#accept(CLOSE_BRACKET)) this.fail(`expected a , or ] in ${called(what)}`, this.#at)
    return values
  }

  string(what: What): string {
    if (!this.#accept(QUOTE)) this.fail(`${called(what)} is not a text`, this.#at)
    const begin = this.#at
    const end = this.#closingQuote(begin)
    if (end < 0) this.fail(`${called(what)} does not end`, begin)
    this.#at = end + 1
    const plain = this.bytes.toString('latin1', begin, end)
    if (/^[\x20-\x5b\x5d-\x7f]*$/.test(plain)) return plain
    try {
      const value = JSON.parse(`"${utf8.decode(this.bytes.subarray(begin, end))}"`) as string
      if (!/\p{Surrogate}/u.test(value)) return value
    } catch {}
    return this.fail(`${called(what)} is not a text in UTF-8 with JSON's escapes`, begin)
  }

  /** Skip a null if one comes next, and return whether it did. */
  isNull(): boolean {
    this.#blanks()
    const begin = this.#at
    if (this.bytes[begin] === 0x6e && this.#word() === 'null') return true
    this.#at = begin
    return false
  }

  /** Skip an unused value. */
  skip(depth = 0): void {
    this.#blanks()
    const begin = this.#at
    if (depth > MAX_DEPTH) this.fail(`it is nested deeper than ${MAX_DEPTH} levels`, begin)
    switch (this.bytes[begin]) {
      case QUOTE:
        this.string('a value')
        return
      case OPEN_BRACE:
        return this.object('a value', () => this.skip(depth + 1))
      case OPEN_BRACKET:
        this.#at += 1
        if (this.#accept(CLOSE_BRACKET)) return
        do this.skip(depth + 1)
        while (this.#accept(COMMA))
        if (!this.#accept(CLOSE_BRACKET)) this.fail('expected a , or ] in a list', this.#at)
        return
    }
    const word = this.#word()
    if (!/^(?:true|false|null|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?)$/.test(word)) {
      this.fail(`expected a JSON value, got ${JSON.stringify(word)}`, begin)
    }
  }

  /** Return the end of a text that begins at `begin`; -1 without one. */
  #closingQuote(begin: number): number {
    const { bytes } = this
    for (let at = bytes.indexOf(QUOTE, begin); at >= 0; at = bytes.indexOf(QUOTE, at + 1)) {
      let first = at
      while (first > begin && bytes[first - 1] === BACKSLASH) first -= 1
      if ((at - first) % 2 === 0) return at
    }
    return -1
  }

  /** Check that only blanks follow. */
  end(): void {
    this.#blanks()
    if (this.#at < this.bytes.length) this.fail('expected the end of the file', this.#at)
  }

  #whole(what: What): number {
    this.#blanks()
    const begin = this.#at
    // Fast path for short texts, which are the majority.
    let at = begin
    let small = 0
    for (let byte = this.bytes[at]; byte !== undefined && byte >= 0x30 && byte <= 0x39; byte = this.bytes[++at]) {
      small = 10 * small + byte - 0x30
    }
    const digits = at - begin
    if (digits > 0 && digits < 16 && (digits === 1 || this.bytes[begin] !== 0x30) && !isWordByte(this.bytes[at])) {
      this.#at = at
      return small
    }
    const word = this.#word()
    const value = Number(word)
    if (!/^(?:0|[1-9]\d*)$/.test(word) || !Number.isSafeInteger(value)) {
      this.fail(
        `expected an integer below 2^53 in ${called(what)}, got ${word === '' ? 'something else' : word}`,
        begin,
      )
    }
    return value
  }

  /** Return the letters, digits and signs from here on, at most 40 of them, the longest number or keyword. */
  #word(): string {
    const begin = this.#at
    let at = begin
    while (at - begin < 40 && isWordByte(this.bytes[at])) at += 1
    this.#at = at
    return String.fromCharCode(...this.bytes.subarray(begin, at))
  }

  #accept(byte: number): boolean {
    this.#blanks()
    if (this.bytes[this.#at] !== byte) return false
    this.#at += 1
    return true
  }

  #blanks(): void {
    const { bytes } = this
    for (let byte = bytes[this.#at]; byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09; ) {
      this.#at += 1
      byte = bytes[this.#at]
    }
  }
}

function isWordByte(byte: number | undefined): boolean {
  if (byte === undefined) return false
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === 0x2b ||
    byte === 0x2d ||
    byte === 0x2e
  )
}
