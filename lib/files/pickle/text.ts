import { isUtf8 } from 'node:buffer'

/**
 * Texts and numbers in pickles, parsed like CPython. Each function returns undefined for invalid input.
 */

/** Decode UTF-8 with lone surrogates: Python's 'surrogatepass'. */
export function decodeUtf8(bytes: Buffer, start = 0, end = bytes.length): string | undefined {
  const text = bytes.toString('utf8', start, end)
  // Node inserts U+FFFD for invalid bytes, but a text may contain that character itself.
  if (!text.includes('\ufffd')) return text
  return isUtf8(bytes.subarray(start, end)) ? text : decodeWithSurrogates(bytes, start, end)
}

function decodeWithSurrogates(bytes: Buffer, start: number, end: number): string | undefined {
  const parts: string[] = []
  let begin = start
  for (let at = start; at + 2 < end; at += 1) {
    if (bytes[at] !== 0xed || bytes[at + 1]! < 0xa0) continue
    const second = bytes[at + 1]!
    const third = bytes[at + 2]!
    if (second > 0xbf || third < 0x80 || third > 0xbf) return undefined
    if (!isUtf8(bytes.subarray(begin, at))) return undefined
    parts.push(bytes.toString('utf8', begin, at), String.fromCharCode(0xd000 | ((second & 63) << 6) | (third & 63)))
    begin = at + 3
    at += 2
  }
  if (!isUtf8(bytes.subarray(begin, end))) return undefined
  parts.push(bytes.toString('utf8', begin, end))
  return parts.join('')
}

/** Return the latin1 bytes of a text; undefined if it has other characters. */
export function encodeLatin1(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'latin1')
  return bytes.toString('latin1') === text ? bytes : undefined
}

/** Decode the text of protocol 0: latin1 with \uXXXX and \UXXXXXXXX. */
export function decodeRawUnicodeEscape(bytes: Buffer): string | undefined {
  const text = bytes.toString('latin1')
  if (!text.includes('\\')) return text
  let broken = false
  // A backslash consumes the next character, so that the second of two does not start an escape.
  const decoded = text.replace(/\\(?:u([\s\S]{0,4})|U([\s\S]{0,8})|[^uU])/g, (whole, short?: string, long?: string) => {
    const digits = short ?? long
    if (digits === undefined) return whole
    const code = /^(?:[0-9a-fA-F]{4}|[0-9a-fA-F]{8})$/.test(digits) ? Number.parseInt(digits, 16) : -1
    if (digits.length !== (short === undefined ? 8 : 4) || code < 0 || code > 0x10ffff) {
      broken = true
      return ''
    }
    return String.fromCodePoint(code)
  })
  return broken ? undefined : decoded
}

const escapes: Record<string, number> = { a: 7, b: 8, f: 12, n: 10, r: 13, t: 9, v: 11, '\\': 92, "'": 39, '"': 34 }

/** Return the bytes of a Python 2 string from its `repr`, quotes included. */
export function decodeStringEscape(line: Buffer): Buffer | undefined {
  const first = line[0]
  if (line.length < 2 || (first !== 39 && first !== 34) || line[line.length - 1] !== first) return undefined
  const text = line.toString('latin1', 1, line.length - 1)
  let broken = false
  const decoded = text.replace(/\\(x[\s\S]{0,2}|[0-7]{1,3}|[\s\S]|$)/g, (whole, name: string) => {
    const code = escapes[name]
    if (code !== undefined) return String.fromCharCode(code)
    if (/^[0-7]/.test(name)) return String.fromCharCode(Number.parseInt(name, 8) & 255)
    if (/^x[0-9a-fA-F]{2}$/.test(name)) return String.fromCharCode(Number.parseInt(name.slice(1), 16))
    if (name === '' || name[0] === 'x') broken = true
    return whole
  })
  return broken ? undefined : Buffer.from(decoded, 'latin1')
}

/** Convert an int to a number if that is exact, else to a bigint. */
export function narrowed(value: bigint): number | bigint {
  return value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
}

/** Parse a decimal int. Like CPython, at most 4,300 digits. */
export function parseInteger(text: string): number | bigint | undefined {
  const match = /^[ \t\v\f\r]*([+-]?)(\d+)L?[ \t\v\f\r]*$/.exec(text)
  if (match === null || match[2]!.length > 4300) return undefined
  const value = BigInt(match[2]!)
  return narrowed(match[1] === '-' ? -value : value)
}

export function parseFloatText(text: string): number | undefined {
  const match = /^\s*([+-]?)(?:(inf(?:inity)?)|(nan)|((?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?))\s*$/i.exec(text)
  if (match === null) return undefined
  const size =
    match[2] !== undefined ? Number.POSITIVE_INFINITY : match[3] !== undefined ? Number.NaN : Number(match[4])
  return match[1] === '-' ? -size : size
}

/** Parse two's complement of any width, least significant byte first. */
export function littleEndianInteger(bytes: Buffer, start: number, end: number): number | bigint {
  const length = end - start
  if (length === 0) return 0
  if (length <= 6) return bytes.readIntLE(start, length)
  if (length === 8) return narrowed(bytes.readBigInt64LE(start))
  const size = BigInt(`0x${Buffer.from(bytes.subarray(start, end)).reverse().toString('hex')}`)
  return narrowed(BigInt.asIntN(8 * length, size))
}
