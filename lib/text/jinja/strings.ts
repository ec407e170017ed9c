import { LIMITS, limit, typeError, unsupported, valueError, type Work } from './errors.js'
import { formatText, type Lookup } from './format.js'
import { isPrintable, isSpace, lengthOf, pointAt, pointsOf, textOf, titleCase, trimEnd, trimStart } from './unicode.js'
import {
  type CallArguments,
  Dict,
  indexOf,
  isInteger,
  isText,
  iterate,
  Markup,
  plainNumber,
  rawText,
  sliceBounds,
  Tuple,
  truthy,
  typeName,
  Undefined,
  type Value,
} from './values.js'

export const escapeHtml = (text: string): string => text.replace(/[&<>"']/g, (character) => htmlEscapes[character]!)

const htmlEscapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&#34;', "'": '&#39;' }

/** Python's `str.capitalize`. */
export function capitalize(text: string): string {
  if (text === '') return ''
  const first = String.fromCodePoint(text.codePointAt(0)!)
  // Lowercased as a whole, because the form of a sigma depends on its context.
  const lower = text.toLowerCase()
  return titleCase(first) + lower.slice(first.toLowerCase().length)
}

/** Python's `str.strip`, `lstrip` and `rstrip`: `chars` is a set of characters. */
export function strip(text: string, chars: string | null, sides: 'left' | 'right' | 'both'): string {
  if (chars === null) {
    const right = sides === 'left' ? text : trimEnd(text)
    return sides === 'right' ? right : trimStart(right)
  }
  const set = new Set(chars)
  const points = pointsOf(text)
  let [from, to] = [0, points.length]
  if (sides !== 'right') while (from < to && set.has(points[from]!)) from++
  if (sides !== 'left') while (to > from && set.has(points[to - 1]!)) to--
  return textOf(points.slice(from, to))
}

/** Python's `str.replace`; `count` below 0 replaces all. */
export function replace(text: string, old: string, by: string, count: number, work: Work): string {
  if (count === 0) return text
  const limitOf = count < 0 ? Number.POSITIVE_INFINITY : count
  if (old === '') {
    const points = pointsOf(text)
    const places = Math.min(points.length + 1, limitOf)
    work.text(text.length + by.length * places)
    let result = ''
    for (let i = 0; i < points.length; i++) result += (i < places ? by : '') + points[i]
    return places > points.length ? result + by : result
  }
  const parts = splitAt(text, old, limitOf, work)
  work.text(text.length + Math.max(0, by.length - old.length) * (parts.length - 1))
  return parts.join(by)
}

function splitAt(text: string, separator: string, most: number, work: Work): string[] {
  work.spend(1 + text.length / 16)
  const parts: string[] = []
  let from = 0
  for (let at = text.indexOf(separator); at !== -1 && parts.length < most; at = text.indexOf(separator, from)) {
    parts.push(text.slice(from, at))
    from = at + separator.length
    if (parts.length >= LIMITS.items) throw limit(`makes a list of more than ${LIMITS.items} items`)
  }
  parts.push(text.slice(from))
  work.items(parts.length)
  return parts
}

function splitAtLast(text: string, separator: string, most: number, work: Work): string[] {
  work.spend(1 + text.length / 16)
  const parts: string[] = []
  let to = text.length
  while (parts.length < most && to >= separator.length) {
    const at = text.lastIndexOf(separator, to - separator.length)
    if (at === -1) break
    parts.push(text.slice(at + separator.length, to))
    to = at
    if (parts.length >= LIMITS.items) throw limit(`makes a list of more than ${LIMITS.items} items`)
  }
  parts.push(text.slice(0, to))
  work.items(parts.length)
  return parts.reverse()
}

/** Python's `str.split()` without a separator. */
export function words(text: string, most: number, work: Work): string[] {
  work.spend(1 + text.length / 16)
  const parts: string[] = []
  let at = 0
  const skip = (space: boolean): void => {
    while (at < text.length && isSpace(text.charCodeAt(at)) === space) at++
  }
  for (skip(true); at < text.length; skip(true)) {
    if (parts.length === most) {
      parts.push(text.slice(at))
      break
    }
    const from = at
    skip(false)
    parts.push(text.slice(from, at))
  }
  work.items(parts.length)
  return parts
}

function wordsFromEnd(text: string, most: number, work: Work): string[] {
  work.spend(1 + text.length / 16)
  const parts: string[] = []
  let to = text.length
  const skip = (space: boolean): void => {
    while (to > 0 && isSpace(text.charCodeAt(to - 1)) === space) to--
  }
  for (skip(true); to > 0; skip(true)) {
    if (parts.length === most) {
      parts.push(text.slice(0, to))
      break
    }
    const end = to
    skip(false)
    parts.push(text.slice(to, end))
  }
  work.items(parts.length)
  return parts.reverse()
}

/** Python's `str.splitlines`. */
export function splitLines(text: string, keepEnds: boolean, work: Work): string[] {
  work.spend(1 + text.length / 16)
  const lines: string[] = []
  let from = 0
  // biome-ignore lint/suspicious/noControlCharactersInRegex: Python's line ends
  for (const { 0: end, index } of text.matchAll(/\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g)) {
    lines.push(text.slice(from, keepEnds ? index + end.length : index))
    from = index + end.length
    if (lines.length >= LIMITS.items) throw limit(`makes a list of more than ${LIMITS.items} items`)
  }
  if (from < text.length) lines.push(text.slice(from))
  work.items(lines.length)
  return lines
}

/** Python's `str.center` with spaces: the extra one is on the left if the width is odd. */
export function center(text: string, width: number, fill: string, work: Work): string {
  const missing = width - lengthOf(text)
  if (missing <= 0) return text
  const left = (missing >> 1) + (missing & width & 1)
  return pad(left, fill, work) + text + pad(missing - left, fill, work)
}

export function pad(count: number, fill: string, work: Work): string {
  if (count <= 0) return ''
  if (count > LIMITS.width) throw limit(`pads a text to more than ${LIMITS.width} columns`)
  work.text(count * fill.length)
  return fill.repeat(count)
}

function all(text: string, test: (point: string) => boolean): boolean {
  if (text === '') return false
  for (const point of text) if (!test(point)) return false
  return true
}

const lowerCase = /^\p{Lowercase}$/u
const upperCase = /^\p{Uppercase}$/u
const otherTitle = /^\p{Lt}$/u
const letter = /^\p{L}$/u
const decimal = /^\p{Nd}$/u
// Characters with Unicode's Numeric_Type=Digit, such as superscripts.
const digit =
  /^[\p{Nd}\u00b2\u00b3\u00b9\u1369-\u1371\u19da\u2070\u2074-\u2079\u2080-\u2089\u2460-\u2468\u2474-\u247c\u2488-\u2490\u24ea\u24f5-\u24fd\u24ff\u2776-\u277e\u2780-\u2788\u278a-\u2792\u{10a40}-\u{10a43}\u{10e60}-\u{10e68}\u{11052}-\u{1105a}\u{1f100}-\u{1f10a}]$/u
const numeric =
  /^[\p{N}\u3405\u3483\u382a\u3b4d\u4e00\u4e03\u4e07\u4e09\u4e24\u4e5d\u4e8c\u4e94\u4e96\u4ebf\u4ec0-\u4edf\u4ee8\u4f0d\u4f70\u5104\u5146\u5169\u516b\u516d\u5341-\u5345\u534c\u53c1-\u53c4\u56db\u58f1\u58f9\u5e7a\u5efe\u5eff\u5f0c-\u5f0e\u5f10\u62fe\u634c\u67d2\u6f06\u7396\u767e\u8086\u842c\u8cae\u8cb3\u8d30\u9621\u9646\u964c\u9678\u96f6]$/u

function cased(text: string, good: RegExp, bad: RegExp): boolean {
  let found = false
  for (const point of text) {
    if (bad.test(point) || otherTitle.test(point)) return false
    found ||= good.test(point)
  }
  return found
}

export const isLower = (text: string): boolean => cased(text, lowerCase, upperCase)
export const isUpper = (text: string): boolean => cased(text, upperCase, lowerCase)

function isTitle(text: string): boolean {
  let [found, inWord] = [false, false]
  for (const point of text) {
    const upper = upperCase.test(point) || otherTitle.test(point)
    const lower = !upper && lowerCase.test(point)
    if ((upper && inWord) || (lower && !inWord)) return false
    inWord = upper || lower
    found ||= inWord
  }
  return found
}

function title(text: string): string {
  let result = ''
  let inWord = false
  const lower = text.toLowerCase()
  const sameLength = lower.length === text.length
  let at = 0
  for (const point of text) {
    result += inWord ? (sameLength ? lower.slice(at, at + point.length) : point.toLowerCase()) : titleCase(point)
    inWord = lowerCase.test(point) || upperCase.test(point) || otherTitle.test(point)
    at += point.length
  }
  return result
}

function swapCase(text: string): string {
  let result = ''
  for (const point of text) {
    result += upperCase.test(point) ? point.toLowerCase() : lowerCase.test(point) ? point.toUpperCase() : point
  }
  return result
}

/** Full case folding: lower case of upper case, with the exceptions in Unicode's CaseFolding.txt. */
function caseFold(text: string): string {
  let result = ''
  for (const point of text) {
    const code = point.codePointAt(0)!
    // Cherokee folds to upper case.
    if ((code >= 0x13a0 && code <= 0x13f5) || point === 'ı') result += point
    else if (code >= 0xab70 && code <= 0xabbf) result += point.toUpperCase()
    else if (code >= 0x13f8 && code <= 0x13fd) result += point.toUpperCase()
    else if (point === 'İ') result += 'i̇'
    else result += point.toUpperCase().toLowerCase().replaceAll('ς', 'σ')
  }
  return result
}

function expandTabs(text: string, size: number, work: Work): string {
  let result = ''
  let column = 0
  for (const point of text) {
    if (point === '\t') {
      const missing = size > 0 ? size - (column % size) : 0
      result += pad(missing, ' ', work)
      column += missing
    } else {
      result += point
      column = point === '\n' || point === '\r' ? 0 : column + 1
    }
  }
  return result
}

function zfill(text: string, width: number, work: Work): string {
  const zeros = pad(width - lengthOf(text), '0', work)
  return /^[+-]/.test(text) ? text[0] + zeros + text.slice(1) : zeros + text
}

/** Read the arguments of a built-in method, which are positional-only unless listed in `names`. */
export class Reader {
  #at = 0

  constructor(
    readonly method: string,
    readonly callArgs: CallArguments,
    least: number,
    most: number,
    readonly names: readonly string[] = [],
  ) {
    const { args, kwargs } = callArgs
    for (const key of kwargs.keys()) {
      if (!names.includes(key)) throw typeError(`${method}() takes no keyword arguments`)
      if (names.indexOf(key) < args.length) {
        throw typeError(`argument for ${method}() given by name ('${key}') and position`)
      }
    }
    const count = args.length + kwargs.size
    if (count < least || count > most) {
      const wanted = least === most ? `${least === 1 ? 'exactly one argument' : `exactly ${least} arguments`}` : count < least ? `at least ${least} argument${least === 1 ? '' : 's'}` : `at most ${most} argument${most === 1 ? '' : 's'}` // biome-ignore format: one line
      throw typeError(`${method}() takes ${wanted} (${count} given)`)
    }
  }

  value(): Value | undefined {
    const at = this.#at++
    const name = this.names[at]
    return at < this.callArgs.args.length
      ? this.callArgs.args[at]
      : name === undefined
        ? undefined
        : this.callArgs.kwargs.get(name)
  }

  text(): string {
    const value = this.value()!
    if (value instanceof Undefined || !isText(value)) {
      throw typeError(`${this.method}() argument ${this.#at} must be str, not ${typeName(value)}`)
    }
    return rawText(value)
  }

  textOrNone(): string | null {
    const value = this.value()
    if (value === undefined || value === null) return null
    if (!isText(value)) throw typeError(`${this.method} arg must be None or str`)
    return rawText(value)
  }

  integer(standard?: number): number {
    const value = this.value()
    return value === undefined ? standard! : indexOf(value)
  }

  flag(): boolean {
    return truthy(this.value() ?? false)
  }

  fill(): string {
    const value = this.value()
    if (value === undefined) return ' '
    if (!isText(value)) throw typeError(`The fill character must be a unicode character, not ${typeName(value)}`)
    if (lengthOf(rawText(value)) !== 1) throw typeError('The fill character must be exactly one character long')
    return rawText(value)
  }
}

type Method = (text: string, callArgs: CallArguments, work: Work, lookup: Lookup) => Value

const reads =
  (least: number, most: number, name: string, use: (text: string, read: Reader, work: Work) => Value): Method =>
  (text, callArgs, work) => {
    work.spend(1 + text.length / 8)
    return use(text, new Reader(name, callArgs, least, most, keywords[name]), work)
  }

const keywords: Record<string, readonly string[]> = {
  split: ['sep', 'maxsplit'],
  rsplit: ['sep', 'maxsplit'],
  splitlines: ['keepends'],
  expandtabs: ['tabsize'],
}

const plainMethod = (name: string, use: (text: string, work: Work) => Value): [string, Method] => [
  name,
  reads(0, 0, name, (text, _read, work) => use(text, work)),
]

/** `find` and related methods, on the part of the text that two further arguments select. */
function search(name: string, last: boolean, fails: boolean): [string, Method] {
  return [
    name,
    reads(1, 3, name, (text, read) => {
      const wanted = read.text()
      const size = lengthOf(text)
      const [from, to] = sliceBounds([read.value(), read.value()], size)
      const part = from === 0 && to === size ? text : textOf(pointsOf(text).slice(from, Math.max(from, to)))
      const unit = from > size || from > to ? -1 : last ? part.lastIndexOf(wanted) : part.indexOf(wanted)
      if (unit === -1 && fails) throw valueError('substring not found')
      return unit === -1 ? -1n : BigInt(from + pointAt(part, unit))
    }),
  ]
}

function ends(name: 'startswith' | 'endswith'): [string, Method] {
  return [
    name,
    reads(1, 3, name, (text, read) => {
      const wanted = read.value()!
      const size = lengthOf(text)
      const [from, to] = sliceBounds([read.value(), read.value()], size)
      const part = from === 0 && to === size ? text : textOf(pointsOf(text).slice(from, Math.max(from, to)))
      return (wanted instanceof Tuple ? wanted.items : [wanted]).some((one) => {
        if (!isText(one)) {
          throw typeError(
            wanted instanceof Tuple
              ? `tuple for ${name} must only contain str, not ${typeName(one)}`
              : `${name} first arg must be str or a tuple of str, not ${typeName(one)}`,
          )
        }
        if (from > size || from > to) return false
        return name === 'startswith' ? part.startsWith(rawText(one)) : part.endsWith(rawText(one))
      })
    }),
  ]
}

function partition(name: string, last: boolean): [string, Method] {
  return [
    name,
    reads(1, 1, name, (text, read, work) => {
      const separator = read.text()
      if (separator === '') throw valueError('empty separator')
      work.text(text.length)
      const at = last ? text.lastIndexOf(separator) : text.indexOf(separator)
      if (at === -1) return new Tuple(last ? ['', '', text] : [text, '', ''])
      return new Tuple([text.slice(0, at), separator, text.slice(at + separator.length)])
    }),
  ]
}

function splitting(name: string, last: boolean): [string, Method] {
  return [
    name,
    reads(0, 2, name, (text, read, work) => {
      const separator = read.textOrNone()
      const maxSplit = read.integer(-1)
      const most = maxSplit < 0 ? Number.POSITIVE_INFINITY : maxSplit
      if (separator === '') throw valueError('empty separator')
      if (separator === null) return last ? wordsFromEnd(text, most, work) : words(text, most, work)
      return last ? splitAtLast(text, separator, most, work) : splitAt(text, separator, most, work)
    }),
  ]
}

function padding(name: 'ljust' | 'rjust' | 'center'): [string, Method] {
  return [
    name,
    reads(1, 2, name, (text, read, work) => {
      const width = read.integer()
      const fill = read.fill()
      if (name === 'center') return center(text, width, fill, work)
      const missing = pad(width - lengthOf(text), fill, work)
      return name === 'ljust' ? text + missing : missing + text
    }),
  ]
}

function format(text: string, callArgs: CallArguments, work: Work, lookup: Lookup): Value {
  return formatText(text, callArgs, lookup, work)
}

/** Python 3's methods of `str`. */
export const textMethods: ReadonlyMap<string, Method> = new Map<string, Method>([
  plainMethod('capitalize', capitalize),
  plainMethod('casefold', caseFold),
  plainMethod('isalnum', (text) =>
    all(text, (point) => letter.test(point) || digit.test(point) || numeric.test(point)),
  ),
  plainMethod('isalpha', (text) => all(text, (point) => letter.test(point))),
  plainMethod('isascii', (text) => !/[\u0080-\uffff]/.test(text)),
  plainMethod('isdecimal', (text) => all(text, (point) => decimal.test(point))),
  plainMethod('isdigit', (text) => all(text, (point) => digit.test(point))),
  plainMethod('isidentifier', (text) => /^[\p{ID_Start}_]\p{ID_Continue}*$/u.test(text)),
  plainMethod('islower', isLower),
  plainMethod('isnumeric', (text) => all(text, (point) => numeric.test(point) || digit.test(point))),
  plainMethod('isprintable', (text) => text === '' || all(text, isPrintable)),
  plainMethod('isspace', (text) => all(text, (point) => isSpace(point.codePointAt(0)!))),
  plainMethod('istitle', isTitle),
  plainMethod('isupper', isUpper),
  plainMethod('lower', (text) => text.toLowerCase()),
  plainMethod('swapcase', (text) => swapCase(text)),
  plainMethod('title', (text) => title(text)),
  plainMethod('upper', (text) => text.toUpperCase()),
  [
    'count',
    reads(1, 3, 'count', (text, read, work) => {
      const wanted = read.text()
      const [from, to] = sliceBounds([read.value(), read.value()], lengthOf(text))
      const part = textOf(pointsOf(text).slice(from, Math.max(from, to)))
      if (wanted === '') return from > lengthOf(text) ? 0n : BigInt(Math.max(0, to - from + 1))
      return BigInt(splitAt(part, wanted, Number.POSITIVE_INFINITY, work).length - 1)
    }),
  ],
  [
    'encode',
    () => {
      throw unsupported('str.encode, whose result is bytes,')
    },
  ],
  ends('endswith'),
  ['expandtabs', reads(0, 1, 'expandtabs', (text, read, work) => expandTabs(text, read.integer(8), work))],
  search('find', false, false),
  ['format', format],
  [
    'format_map',
    (text, callArgs, work, lookup) => {
      const [map] = callArgs.args
      if (callArgs.args.length !== 1 || callArgs.kwargs.size > 0) {
        throw typeError(`format_map() takes exactly one argument (${callArgs.args.length} callArgs)`)
      }
      const kwargs = new Map<string, Value>()
      if (!(map instanceof Dict)) throw typeError(`'${typeName(map!)}' object is not subscriptable`)
      for (const [key, value] of map.entries()) if (isText(key)) kwargs.set(rawText(key), value)
      return formatText(text, { args: [], kwargs }, lookup, work)
    },
  ],
  search('index', false, true),
  ['join', reads(1, 1, 'join', (text, read, work) => join(read.value()!, text, work))],
  padding('ljust'),
  padding('rjust'),
  padding('center'),
  ['lstrip', reads(0, 1, 'lstrip', (text, read) => strip(text, read.textOrNone(), 'left'))],
  ['rstrip', reads(0, 1, 'rstrip', (text, read) => strip(text, read.textOrNone(), 'right'))],
  ['strip', reads(0, 1, 'strip', (text, read) => strip(text, read.textOrNone(), 'both'))],
  ['maketrans', (_text, callArgs) => makeTranslation(callArgs)],
  partition('partition', false),
  partition('rpartition', true),
  [
    'removeprefix',
    reads(1, 1, 'removeprefix', (text, read) => {
      const prefix = read.text()
      return text.startsWith(prefix) ? text.slice(prefix.length) : text
    }),
  ],
  [
    'removesuffix',
    reads(1, 1, 'removesuffix', (text, read) => {
      const suffix = read.text()
      return suffix !== '' && text.endsWith(suffix) ? text.slice(0, -suffix.length) : text
    }),
  ],
  [
    'replace',
    reads(2, 3, 'replace', (text, read, work) => replace(text, read.text(), read.text(), read.integer(-1), work)),
  ],
  search('rfind', true, false),
  search('rindex', true, true),
  splitting('rsplit', true),
  splitting('split', false),
  ['splitlines', reads(0, 1, 'splitlines', (text, read, work) => splitLines(text, read.flag(), work))],
  ends('startswith'),
  ['translate', reads(1, 1, 'translate', (text, read, work) => translate(text, read.value()!, work))],
  ['zfill', reads(1, 1, 'zfill', (text, read, work) => zfill(text, read.integer(), work))],
])

/** Python's `str.join`. */
export function join(items: Value, separator: string, work: Work): string {
  let result = ''
  let index = 0
  const list = iterate(items, work)
  for (let item = list.next(); !item.done; item = list.next(), index++) {
    if (!isText(item.value)) {
      throw typeError(`sequence item ${index}: expected str instance, ${typeName(item.value)} found`)
    }
    result += (index > 0 ? separator : '') + rawText(item.value)
    if (result.length > LIMITS.text) work.text(result.length)
  }
  work.text(result.length)
  return result
}

function makeTranslation({ args }: CallArguments): Value {
  const table = new Dict()
  const [first, second, third] = args
  if (args.length === 1) {
    if (!(first instanceof Dict)) throw typeError('if you give only one argument to maketrans it must be a dict')
    for (const [key, value] of first.entries()) {
      if (isText(key) && lengthOf(rawText(key)) !== 1) {
        throw valueError('string keys in translate table must be of length 1')
      }
      table.set(isText(key) ? BigInt(rawText(key).codePointAt(0)!) : key, value)
    }
    return table
  }
  if (!isText(first ?? null) || !isText(second ?? null)) throw typeError('maketrans() argument must be str')
  const [from, to] = [[...rawText(first as string)], [...rawText(second as string)]]
  if (from.length !== to.length) throw valueError('the first two maketrans arguments must have equal length')
  for (const [i, point] of from.entries()) table.set(BigInt(point.codePointAt(0)!), BigInt(to[i]!.codePointAt(0)!))
  if (third !== undefined) for (const point of rawText(third as string)) table.set(BigInt(point.codePointAt(0)!), null)
  return table
}

function translate(text: string, table: Value, work: Work): string {
  if (!(table instanceof Dict)) throw typeError(`'${typeName(table)}' object is not subscriptable`)
  let result = ''
  for (const point of text) {
    const by = table.get(BigInt(point.codePointAt(0)!))
    if (by === undefined) result += point
    else if (by === null) continue
    else if (isText(by)) result += rawText(by)
    else if (isInteger(by)) result += String.fromCodePoint(Number(plainNumber(by)))
    else throw typeError('character mapping must return integer, None or str')
    if (result.length > LIMITS.text) work.text(result.length)
  }
  work.text(result.length)
  return result
}

/** Methods of escaped text, whose results are escaped text too. */
export function markupResult(value: Value): Value {
  if (typeof value === 'string') return new Markup(value)
  if (Array.isArray(value)) return value.map(markupResult)
  return value instanceof Tuple ? new Tuple(value.items.map(markupResult)) : value
}
