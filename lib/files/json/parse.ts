import { MAX_DEPTH } from './scan.js'

/** Position and reason of a fault in JSON text; `offset` counts UTF-16 units from its beginning. */
export class JsonFault extends Error {
  constructor(
    readonly offset: number,
    message: string,
  ) {
    super(message)
  }
}

const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/y
const NUMBER = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y
const MAX_DIGITS = 4300
const BLANK = /[ \t\n\r]*/y
const WORDS: [string, unknown][] = [
  ['true', true],
  ['false', false],
  ['null', null],
  ['NaN', Number.NaN],
  ['Infinity', Number.POSITIVE_INFINITY],
  ['-Infinity', Number.NEGATIVE_INFINITY],
]

/**
 * Parse what `JSON.parse` rejects or rounds: NaN and the infinities as Python writes them, integers beyond 2^53 as bigint, and
 * report the exact position of an error. Several times slower.
 */
export function parseCarefully(text: string): unknown {
  let at = 0
  let depth = 0

  const fail = (what: string, offset = at): never => {
    throw new JsonFault(offset, what)
  }
  const match = (pattern: RegExp): RegExpExecArray | null => {
    pattern.lastIndex = at
    return pattern.exec(text)
  }
  const skipBlank = (): void => {
    at += match(BLANK)![0].length
  }
  const shownHere = (): string =>
    at >= text.length ? 'the text ends' : `found ${JSON.stringify(String.fromCodePoint(text.codePointAt(at)!))}`

  function value(): unknown {
    skipBlank()
    const character = text[at]
    if (character === '{') return nested(object)
    if (character === '[') return nested(array)
    if (character === '"') return string()
    for (const [word, meaning] of WORDS) {
      if (text.startsWith(word, at)) {
        at += word.length
        return meaning
      }
    }
    return number()
  }

  function nested<T>(read: () => T): T {
    if (++depth > MAX_DEPTH) fail(`nested deeper than ${MAX_DEPTH} levels`)
    at++
    const result = read()
    depth--
    return result
  }

  function array(): unknown[] {
    const items: unknown[] = []
    skipBlank()
    if (closed(']')) return items
    do items.push(value())
    while (another(']'))
    return items
  }

  function object(): Record<string, unknown> {
    const result: Record<string, unknown> = {}
    skipBlank()
    if (closed('}')) return result
    do {
      skipBlank()
      if (text[at] !== '"') fail(`expected a name in double quotes, ${shownHere()}`)
      const name = string()
      skipBlank()
      if (text[at] !== ':') fail(`expected ':' after a name, ${shownHere()}`)
      at++
      // A plain assignment of __proto__ would change the object's prototype.
      Object.defineProperty(result, name, { value: value(), writable: true, enumerable: true, configurable: true })
    } while (another('}'))
    return result
  }

  function closed(end: string): boolean {
    if (text[at] !== end) return false
    at++
    return true
  }

  function another(end: string): boolean {
    skipBlank()
    if (closed(end)) return false
    if (text[at] !== ',') fail(`expected ',' or '${end}', ${shownHere()}`)
    at++
    return true
  }

  function string(): string {
    const start = at++
    for (;;) {
      const code = text.charCodeAt(at)
      if (Number.isNaN(code)) fail('expected the end of a string', start)
      if (code === 0x22) break
      if (code < 0x20) fail('expected no control character in a string. Write it as \\n, \\t or \\u00…')
      if (code === 0x5c) {
        const escaped = match(ESCAPE) ?? fail('expected an escape of JSON')
        at += escaped[0].length
      } else at++
    }
    at++
    return JSON.parse(text.slice(start, at)) as string
  }

  function number(): number | bigint {
    const found = match(NUMBER) ?? fail(`expected a value, ${shownHere()}`)
    at += found[0].length
    const near = Number(found[0])
    const whole = found[1] === undefined && found[2] === undefined
    // Creating a bigint takes more than linear time. Python has the same limit.
    if (whole && found[0].length > MAX_DIGITS)
      fail(`expected an integer of at most ${MAX_DIGITS} digits`, at - found[0].length)
    return whole && !Number.isSafeInteger(near) ? BigInt(found[0]) : near
  }

  const result = value()
  skipBlank()
  if (at < text.length) fail(`expected the end, ${shownHere()}`)
  return result
}
