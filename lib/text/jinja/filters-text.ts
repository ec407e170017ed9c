import { argumentError, bound } from './arguments.js'
import { JinjaError, typeError, valueError, type Work } from './errors.js'
import type { Interpreter } from './interpreter.js'
import {
  arithmetic,
  fixed,
  parseFloatText,
  parseInteger,
  roundFloat,
  roundInteger,
  toFloat,
  truncated,
} from './numbers.js'
import { escapeHtml, pad, splitLines, strip } from './strings.js'
import { isSpace, lengthOf, pointsOf, textOf } from './unicode.js'
import {
  type CallArguments,
  Dict,
  indexOf,
  isIterable,
  isList,
  isNumber,
  isText,
  length,
  Markup,
  plainNumber,
  rawText,
  str,
  toList,
  truthy,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'
export function indent({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [width = 4n, first, blank] = bound('indent', callArgs, 0, 'width', 'first', 'blank')
  if (value instanceof Undefined) value.fail()
  if (isList(value)) throw new JinjaError('AttributeError', "'list' object has no attribute 'splitlines'")
  if (!isText(value)) throw typeError(`unsupported operand type(s) for +=: '${typeName(value)}' and 'str'`)
  const by = isText(width) ? rawText(width) : pad(indexOf(width), ' ', work)
  const lines = splitLines(`${rawText(value)}\n`, false, work)
  work.text(rawText(value).length + by.length * lines.length)
  const text = truthy(blank ?? false)
    ? lines.join(`\n${by}`)
    : lines.map((line, i) => (i > 0 && line !== '' ? by + line : line)).join('\n')
  return truthy(first ?? false) ? by + text : text
}

export function truncate({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [size = 255n, killWords, end = '...', leeway] = bound(
    'truncate',
    callArgs,
    0,
    'length',
    'killwords',
    'end',
    'leeway',
  )
  const most = indexOf(size)
  const mark = str(end, work)
  const slack = leeway === undefined || leeway === null ? 5 : indexOf(leeway)
  const markSize = lengthOf(mark)
  if (most < markSize) throw new JinjaError('AssertionError', `expected length >= ${markSize}, got ${most}`)
  if (slack < 0) throw new JinjaError('AssertionError', `expected leeway >= 0, got ${slack}`)
  if (length(value, work) <= most + slack) return value
  if (!isText(value)) throw typeError(`'${typeName(value)}' object cannot be truncated`)
  const text = textOf(pointsOf(rawText(value)).slice(0, most - markSize))
  if (truthy(killWords ?? false)) return text + mark
  const space = text.lastIndexOf(' ')
  return (space === -1 ? text : text.slice(0, space)) + mark
}

/** Python's `textwrap.wrap` of each line, with jinja2's options. */
export function wordWrap({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [width = 79n, breakLong = true, newline, hyphens = true] = bound(
    'wordwrap',
    callArgs,
    0,
    'width',
    'break_long_words',
    'wrapstring',
    'break_on_hyphens',
  )
  if (value instanceof Undefined) value.fail()
  if (!isText(value))
    throw new JinjaError('AttributeError', `'${typeName(value)}' object has no attribute 'splitlines'`)
  const columns = indexOf(width)
  const by = newline === undefined || newline === null ? '\n' : str(newline, work)
  const lines = splitLines(rawText(value), false, work)
  return lines.map((line) => wrapped(line, columns, truthy(breakLong), truthy(hyphens)).join(by)).join(by)
}

export function wrapped(line: string, width: number, breaksLong: boolean, hyphens: boolean): string[] {
  const chunks = chunksOf(line, hyphens).reverse()
  if (width <= 0 && chunks.length > 0) throw valueError(`invalid width ${width} (must be > 0)`)
  const lines: string[] = []
  const blank = (chunk: string | undefined): boolean => chunk !== undefined && strip(chunk, null, 'both') === ''
  while (chunks.length > 0) {
    if (lines.length > 0 && blank(chunks.at(-1))) chunks.pop()
    const row: string[] = []
    let size = 0
    while (chunks.length > 0 && size + lengthOf(chunks.at(-1)!) <= width) {
      size += lengthOf(chunks.at(-1)!)
      row.push(chunks.pop()!)
    }
    const long = chunks.at(-1)
    if (long !== undefined && lengthOf(long) > width) {
      if (breaksLong) {
        const points = pointsOf(long)
        let end = Math.max(1, width - size)
        if (hyphens && points.length > end) {
          const hyphen = textOf(points.slice(0, end)).lastIndexOf('-')
          if (hyphen > 0 && /[^-]/.test(textOf(points.slice(0, hyphen)))) end = hyphen + 1
        }
        if (width - size >= 1 || row.length === 0) {
          row.push(textOf(points.slice(0, end)))
          chunks[chunks.length - 1] = textOf(points.slice(end))
        }
      } else if (row.length === 0) row.push(chunks.pop()!)
    }
    if (blank(row.at(-1))) row.pop()
    if (row.length > 0) lines.push(row.join(''))
  }
  return lines
}

/** Split into words and the blanks between them; with `hyphens`, also after hyphens between letters. */
export function chunksOf(line: string, hyphens: boolean): string[] {
  const pieces = line.match(/[\t\n\v\f\r ]+|[^\t\n\v\f\r ]+/g) ?? []
  if (!hyphens) return pieces
  return pieces.flatMap((piece) => {
    if (!piece.includes('-')) return [piece]
    const parts: string[] = []
    let from = 0
    for (let i = 1; i < piece.length; i++) {
      // After a hyphen between two letters and a letter, and before or after a run of hyphens.
      const dash = /^-{2,}(?=\w)/.exec(piece.slice(i, i + 100))
      if (dash && /[\w!"'&.,?]/.test(piece[i - 1]!)) {
        parts.push(piece.slice(from, i), dash[0])
        from = i + dash[0].length
        i = from
      } else if (
        piece[i - 1] === '-' &&
        i >= 3 &&
        from < i &&
        /[\p{L}_]{2}-$/u.test(piece.slice(Math.max(from, i - 3), i)) &&
        /^[\p{L}_]-?[\p{L}_]/u.test(piece.slice(i))
      ) {
        // biome-ignore format: one line
        parts.push(piece.slice(from, i))
        from = i
      }
    }
    parts.push(piece.slice(from))
    return parts.filter((part) => part !== '')
  })
}

export function toInt({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [standard = 0n, base = 10n] = bound('int', callArgs, 0, 'default', 'base')
  if (value instanceof Undefined) value.fail()
  const radix = indexOf(base)
  if (isText(value)) {
    work.spend(1 + rawText(value).length)
    const badBase = radix !== 0 && (radix < 2 || radix > 36)
    const integer = badBase ? undefined : parseInteger(rawText(value), radix)
    if (integer !== undefined) return integer
    const float = parseFloatText(rawText(value))
    return float === undefined || !Number.isFinite(float) ? standard : truncated(float)
  }
  if (!isNumber(value)) return standard
  const number = plainNumber(value)
  if (typeof number === 'bigint') return number
  if (Number.isNaN(number)) return standard
  // jinja2's filter catches the OverflowError of an infinity only when converting from text.
  return truncated(number)
}

export function toFloatFilter({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [standard = 0] = bound('float', callArgs, 0, 'default')
  if (value instanceof Undefined) value.fail()
  if (isText(value)) {
    work.spend(1 + rawText(value).length)
    return parseFloatText(rawText(value)) ?? standard
  }
  return isNumber(value) ? toFloat(plainNumber(value)) : standard
}

export function round(_interpreter: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [precision = 0n, method = 'common'] = bound('round', callArgs, 0, 'precision', 'method')
  if (method !== 'common' && method !== 'ceil' && method !== 'floor') {
    throw argumentError('method must be common, ceil or floor')
  }
  if (value instanceof Undefined && method !== 'common') value.fail()
  if (!isNumber(value)) throw typeError(`type ${typeName(value)} doesn't define __round__ method`)
  const number = plainNumber(value)
  if (method === 'common') {
    if (precision === null) return typeof number === 'bigint' ? number : truncated(roundFloat(number, 0))
    const digits = indexOf(precision)
    return typeof number === 'bigint' ? roundInteger(number, digits) : roundFloat(number, digits)
  }
  const unit = arithmetic('**', 10n, BigInt(indexOf(precision)))
  const scaled = arithmetic('*', number, unit)
  const whole =
    typeof scaled === 'bigint' ? scaled : truncated(method === 'ceil' ? Math.ceil(scaled) : Math.floor(scaled))
  return arithmetic('/', whole, unit)
}

export function fileSize({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [binaryUnits] = bound('filesizeformat', callArgs, 0, 'binary')
  if (value instanceof Undefined) value.fail()
  const number = isText(value)
    ? parseFloatText(rawText(value))
    : isNumber(value)
      ? toFloat(plainNumber(value))
      : undefined
  if (number === undefined) {
    throw isText(value)
      ? valueError(`could not convert string to float: ${rawText(value).slice(0, 100)}`)
      : typeError(`float() argument must be a string or a real number, not '${typeName(value)}'`)
  }
  work.spend(1)
  const isBinary = truthy(binaryUnits ?? false)
  const base = isBinary ? 1024 : 1000
  if (number === 1) return '1 Byte'
  if (number < base) return `${truncated(number)} Bytes`
  const prefixes = isBinary ? 'KiB MiB GiB TiB PiB EiB ZiB YiB' : 'kB MB GB TB PB EB ZB YB'
  const units = prefixes.split(' ')
  let at = 0
  let unit = base ** 2
  for (; at < units.length - 1 && number >= unit; at++) unit = base ** (at + 3)
  return `${fixed((base * number) / unit, 1)} ${units[at]}`
}

export const unreserved = /^[A-Za-z0-9_.~-]$/

export function quotedUrl(value: Value, isQuery: boolean, work: Work): string {
  const text = str(value, work)
  work.text(text.length * 9)
  let result = ''
  for (const byte of Buffer.from(text)) {
    const character = String.fromCharCode(byte)
    if (unreserved.test(character) || (character === '/' && !isQuery)) result += character
    else if (character === ' ' && isQuery) result += '+'
    else result += `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return result
}

export function urlEncode({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  bound('urlencode', callArgs, 0)
  if (isText(value) || !(isIterable(value) || value instanceof Undefined)) return quotedUrl(value, false, work)
  const pairs = value instanceof Dict ? new View(value, 'items') : value
  const parts: string[] = []
  for (const pair of toList(pairs, work)) {
    const items = toList(pair, work)
    if (items.length !== 2) throw valueError(`not enough values to unpack (expected 2, got ${items.length})`)
    parts.push(`${quotedUrl(items[0]!, true, work)}=${quotedUrl(items[1]!, true, work)}`)
  }
  return parts.join('&')
}

export function xmlAttributes({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [autospace = true] = bound('xmlattr', callArgs, 0, 'autospace')
  if (value instanceof Undefined) value.fail()
  if (!(value instanceof Dict))
    throw new JinjaError('AttributeError', `'${typeName(value)}' object has no attribute 'items'`)
  const parts: string[] = []
  for (const [key, item] of value.entries()) {
    if (item === null || item instanceof Undefined) continue
    if (!isText(key)) throw typeError(`expected string or bytes-like object, got '${typeName(key)}'`)
    if (/[\t\n\v\f\r />=]/.test(rawText(key)))
      throw valueError(`Invalid character in attribute name: '${rawText(key)}'`)
    parts.push(`${escapeHtml(rawText(key))}="${escapedText(item, work)}"`)
  }
  const text = parts.join(' ')
  return truthy(autospace) && text !== '' ? ` ${text}` : text
}

export const escapedText = (value: Value, work: Work): string =>
  value instanceof Markup ? value.text : escapeHtml(str(value, work))

/** jinja2's filter `title`, which differs from Python's method: words begin after blanks, hyphens and opening brackets. */
export function titled(text: string): string {
  let result = ''
  let from = 0
  const begins = (unit: string): boolean => '-({[<'.includes(unit) || isSpace(unit.charCodeAt(0))
  const flush = (to: number): void => {
    if (to === from) return
    const [first] = pointsOf(text.slice(from, Math.min(to, from + 2))) as Iterable<string>
    result += first!.toUpperCase() + text.slice(from + first!.length, to).toLowerCase()
    from = to
  }
  for (let i = 0; i < text.length; i++) {
    if (!begins(text[i]!)) continue
    flush(i)
    while (i < text.length && begins(text[i]!)) i++
    result += text.slice(from, i)
    from = i
  }
  flush(text.length)
  return result
}
