/** Whether Python's `str.isspace` is true for a UTF-16 unit. */
export function isSpace(code: number): boolean {
  if (code < 0x80) return (code >= 9 && code <= 13) || (code >= 0x1c && code <= 0x20)
  return (
    code === 0x85 ||
    code === 0xa0 ||
    code === 0x1680 ||
    (code >= 0x2000 && code <= 0x200a) ||
    code === 0x2028 ||
    code === 0x2029 ||
    code === 0x202f ||
    code === 0x205f ||
    code === 0x3000
  )
}

export function trimEnd(text: string): string {
  let end = text.length
  while (end > 0 && isSpace(text.charCodeAt(end - 1))) end--
  return text.slice(0, end)
}

export function trimStart(text: string): string {
  let start = 0
  while (start < text.length && isSpace(text.charCodeAt(start))) start++
  return text.slice(start)
}

const surrogate = /[\ud800-\udfff]/

/** Return the code points of a text, which Python counts; the text itself if each is one UTF-16 unit. */
export type Points = string | readonly string[]

// Cached, because templates index the same text many times.
let lastText = ''
let lastPoints: Points = ''

export function pointsOf(text: string): Points {
  if (text === lastText) return lastPoints
  const points = surrogate.test(text) ? Array.from(text) : text
  if (text.length > 64) {
    lastText = text
    lastPoints = points
  }
  return points
}

export const textOf = (points: Points): string => (typeof points === 'string' ? points : points.join(''))

export const lengthOf = (text: string): number => pointsOf(text).length

/** Convert a position in UTF-16 units to code points. */
export const pointAt = (text: string, unit: number): number => {
  const points = pointsOf(text)
  return typeof points === 'string' ? unit : lengthOf(text.slice(0, unit))
}

/** Compare texts by code points, as Python does; by UTF-16 units, U+1F600 would be before U+FFFD. */
export function compareTexts(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i)
    const y = b.charCodeAt(i)
    if (x === y) continue
    const high = x >= 0xd800 && x <= 0xdfff
    return high !== (y >= 0xd800 && y <= 0xdfff) ? (high ? 1 : -1) : x - y
  }
  return a.length - b.length
}

// Characters whose title case is neither the upper case nor its first letter followed by lower case (Unicode 14).
const titles: Record<string, string> = { ŉ: 'ʼN' }
for (const letters of ['Ǆǅǆ', 'Ǉǈǉ', 'Ǌǋǌ', 'Ǳǲǳ']) for (const letter of letters) titles[letter] = letters[1]!
for (let code = 0x10d0; code <= 0x10ff; code++) {
  if (code !== 0x10fb && code !== 0x10fc) titles[String.fromCharCode(code)] = String.fromCharCode(code)
}
for (let code = 0x1f80; code <= 0x1faf; code++) titles[String.fromCharCode(code)] = String.fromCharCode(code | 8)
for (const [small, title] of ['ᾳᾼ', 'ᾼᾼ', 'ῃῌ', 'ῌῌ', 'ῳῼ', 'ῼῼ']) titles[small!] = title!
const IOTA = '\u0345'
for (const code of [0x1fb2, 0x1fb4, 0x1fb7, 0x1fc2, 0x1fc4, 0x1fc7, 0x1ff2, 0x1ff4, 0x1ff7]) {
  const letter = String.fromCharCode(code)
  titles[letter] = letter.toUpperCase().slice(0, -1) + IOTA
}

export function titleCase(character: string): string {
  const known = titles[character]
  if (known !== undefined) return known
  const upper = character.toUpperCase()
  const first = String.fromCodePoint(upper.codePointAt(0)!)
  return upper.length === first.length ? upper : first + upper.slice(first.length).toLowerCase()
}

const printable = /[^\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{Zs}]/u

/** Python's `str.isprintable` of one code point. */
export const isPrintable = (point: string): boolean => point === ' ' || printable.test(point)

/** Return the value of a decimal digit of any script: digits are in groups of ten, from 0 to 9. */
export function digitValue(digit: string): number {
  const code = digit.codePointAt(0)!
  if (code < 0x80) return code - 48
  let first = code
  while (code - first < 9 && /^\p{Nd}$/u.test(String.fromCodePoint(first - 1))) first--
  // Groups of digits can be adjacent: the mathematical ones begin at U+1D7CE.
  return code >= 0x1d7ce && code <= 0x1d7ff ? (code - 0x1d7ce) % 10 : code - first
}
