import { withoutEnd } from '../../base/words.js'
import { JinjaError, LIMITS, limit, typeError, valueError, type Work } from './errors.js'
import { exponential, fixed, floatText, general, toFloat, truncated } from './numbers.js'
import { lengthOf, pointsOf, textOf } from './unicode.js'
import {
  type CallArguments,
  Dict,
  integerText,
  isInteger,
  isList,
  isNumber,
  isText,
  plainNumber,
  Range,
  rawText,
  repr,
  str,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** A format specification of Python: `[[fill]align][sign][z][#][0][width][grouping][.precision][type]`. */
interface Spec {
  fill: string
  align: '' | '<' | '>' | '=' | '^'
  sign: '-' | '+' | ' '
  alternate: boolean
  width: number
  grouping: '' | ',' | '_'
  precision: number | undefined
  type: string
}

const specPattern = /^(?:([\s\S])?([<>=^]))?([-+ ])?(#)?(0)?(\d*)([,_]?)(?:\.(\d+))?([a-zA-Z%]?)$/u

function sizeOf(digits: string): number {
  const size = Number(digits)
  if (!(size <= LIMITS.width)) throw limit(`formats a value with a width or precision above ${LIMITS.width}`)
  return size
}

/** Python's `format(value, spec)`. */
export function formatValue(value: Value, text: string, work: Work): string {
  if (text === '') return str(value, work)
  const found = specPattern.exec(text)
  if (isNumber(value) && typeof value !== 'boolean') return formatNumber(value, specOf(found, text, value), work)
  if (typeof value === 'boolean') {
    const spec = specOf(found, text, value)
    return formatNumber(value ? 1n : 0n, spec, work)
  }
  if (!isText(value)) throw typeError(`unsupported format string passed to ${typeName(value)}.__format__`)
  const spec = specOf(found, text, value)
  if (spec.type !== '' && spec.type !== 's') unknownCode(spec.type, 'str')
  if (spec.grouping !== '') throw valueError(`Cannot specify '${spec.grouping}' with 's'.`)
  if (spec.sign !== '-') throw valueError('Sign not allowed in string format specifier')
  if (spec.align === '=') throw valueError("'=' alignment not allowed in string format specifier")
  let body = rawText(value)
  if (spec.precision !== undefined) body = textOf(pointsOf(body).slice(0, spec.precision))
  return padded(body, '', { ...spec, align: spec.align || '<' }, work)
}

const unknownCode = (type: string, name: string): never => {
  throw valueError(`Unknown format code '${type}' for object of type '${name}'`)
}

function specOf(found: RegExpExecArray | null, text: string, value: Value): Spec {
  if (found === null) {
    throw valueError(`Invalid format specifier '${text.slice(0, 100)}' for object of type '${typeName(value)}'`)
  }
  const [, fill, align, sign, hash, zero, width, grouping, precision, type] = found
  return {
    fill: fill ?? (zero ? '0' : ' '),
    align: (align as Spec['align']) ?? (zero && !isText(value) ? '=' : ''),
    sign: (sign as Spec['sign']) ?? '-',
    alternate: hash !== undefined,
    width: sizeOf(width || '0'),
    grouping: (grouping as Spec['grouping']) ?? '',
    precision: precision === undefined ? undefined : sizeOf(precision),
    type: type ?? '',
  }
}

const radixes: Record<string, number> = { d: 10, b: 2, o: 8, x: 16, X: 16, n: 10, '': 10 }

function formatNumber(value: bigint | number, spec: Spec, work: Work): string {
  const { type } = spec
  if (typeof value === 'bigint' && type in radixes) return formatInteger(value, spec, work)
  if (typeof value === 'bigint' && type === 'c') {
    return padded(String.fromCodePoint(Number(value)), '', { ...spec, align: spec.align || '<' }, work)
  }
  if (!'eEfFgG%n'.includes(type)) unknownCode(type, typeName(value))
  const float = toFloat(value)
  work.text((spec.precision ?? 0) + 310)
  const negative = float < 0 || Object.is(float, -0)
  const size = Math.abs(float)
  const body = Number.isFinite(float) ? digitsOf(size, spec) : Number.isNaN(float) ? 'nan' : 'inf'
  const cased = 'EFG'.includes(type) && type !== '' ? body.toUpperCase() : body
  const sign = negative ? '-' : spec.sign === '-' ? '' : spec.sign
  return padded(grouped(cased, spec), sign, { ...spec, align: spec.align || '>' }, work)
}

function digitsOf(size: number, { type, precision, alternate }: Spec): string {
  switch (type.toLowerCase()) {
    case 'f':
      return fixed(size, precision ?? 6) + (alternate && precision === 0 ? '.' : '')
    case 'e': {
      const text = exponential(size, precision ?? 6, 'e')
      return alternate && precision === 0 ? text.replace('e', '.e') : text
    }
    case '%':
      return `${fixed(size * 100, precision ?? 6)}%`
    case '': {
      // As repr without a precision, else as `g` with at least one decimal.
      if (precision === undefined) return floatText(size)
      const text = general(size, precision, 'e', alternate)
      return /[.e]/.test(text) ? text : Math.abs(size) < 10 ** Math.max(1, precision) && text.length < Math.max(1, precision) ? `${text}.0` : exponentOf(size, precision) // biome-ignore format: one line
    }
    default:
      return general(size, precision ?? 6, 'e', alternate)
  }
}

/** Return the digits of a format without a type. Python uses an exponent if all digits of the precision are before the point. */
function exponentOf(size: number, precision: number): string {
  const [digits = '', power] = exponential(size, Math.max(1, precision) - 1, 'e').split('e')
  if (power === undefined) return digits // an infinity
  return `${digits.includes('.') ? withoutEnd(withoutEnd(digits, /0/), /\./) : digits}e${power}`
}

function formatInteger(value: bigint, spec: Spec, work: Work): string {
  const { type, precision } = spec
  if (precision !== undefined) throw valueError('Precision not allowed in integer format specifier')
  const size = value < 0n ? -value : value
  const digits = radixes[type] === 10 ? integerText(size) : size.toString(radixes[type])
  const prefix = spec.alternate && radixes[type] !== 10 ? `0${type}` : ''
  const sign = value < 0n ? '-' : spec.sign === '-' ? '' : spec.sign
  const body = type === 'X' ? digits.toUpperCase() : digits
  if (spec.grouping === ',' && radixes[type] !== 10) throw valueError(`Cannot specify ',' with '${type}'.`)
  const size4 = radixes[type] === 10 ? 3 : 4
  return padded(grouped(body, spec, size4), sign + prefix, { ...spec, align: spec.align || '>' }, work)
}

/** Insert group separators into the digits before the point, including padding zeros. */
function grouped(body: string, { grouping, width, align, fill }: Spec, size = 3): string {
  if (grouping === '') return body
  const whole = size === 3 ? (/^\d+/.exec(body)?.[0] ?? '') : body
  const rest = body.slice(whole.length)
  let digits = whole
  if (align === '=' && fill === '0') {
    const length = (count: number): number => count + Math.floor((count - 1) / size) + rest.length
    while (length(digits.length) < width) digits = `0${digits}`
  }
  const first = digits.length % size || size
  let text = digits.slice(0, first)
  for (let i = first; i < digits.length; i += size) text += grouping + digits.slice(i, i + size)
  return text + rest
}

function padded(body: string, sign: string, { fill, align, width }: Spec, work: Work): string {
  const missing = width - lengthOf(body) - sign.length
  if (missing <= 0) return sign + body
  work.text(width + body.length)
  if (align === '=') return sign + fill.repeat(missing) + body
  if (align === '<') return sign + body + fill.repeat(missing)
  if (align === '>') return fill.repeat(missing) + sign + body
  const left = missing >> 1
  return fill.repeat(left) + sign + body + fill.repeat(missing - left)
}

const conversion = /%(?:\(([^()]*)\))?([-+ #0]*)(\*|\d*)(?:\.(\*|\d*))?[hlL]?([\s\S])?/gu

/** Python's `text % values`. */
export function printf(text: string, values: Value, work: Work): string {
  const isTuple = values instanceof Tuple
  const list = isTuple ? values.items : [values]
  let used = 0
  let usesNames = false
  const next = (): Value => {
    if (used >= list.length) throw typeError('not enough arguments for format string')
    return list[used++]!
  }
  let result = ''
  let from = 0
  for (const found of text.matchAll(conversion)) {
    const [whole, name, flags = '', width = '', precision, type] = found
    result += text.slice(from, found.index)
    from = found.index + whole.length
    if (type === undefined) throw valueError('incomplete format')
    if (type === '%') {
      result += '%'
      continue
    }
    let value: Value
    const star = (size: string): number => {
      if (size !== '*') return sizeOf(size || '0')
      const argument = next()
      if (!isInteger(argument)) throw typeError('* wants int')
      return Number(plainNumber(argument))
    }
    const wide = star(width)
    const digits = precision === undefined ? undefined : star(precision)
    if (name !== undefined) {
      if (!(values instanceof Dict)) throw typeError('format requires a mapping')
      usesNames = true
      const item = values.get(name)
      if (item === undefined) throw new JinjaError('KeyError', `'${name}'`)
      value = item
    } else value = next()
    const align = flags.includes('-') || wide < 0 ? '<' : flags.includes('0') && !'srac'.includes(type) ? '=' : '>'
    const spec: Spec = {
      fill: align === '=' ? '0' : ' ',
      align,
      sign: flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '-',
      alternate: flags.includes('#'),
      width: sizeOf(String(Math.abs(wide))),
      grouping: '',
      precision: digits,
      type,
    }
    result += converted(value, spec, work)
    if (result.length > LIMITS.text) work.text(result.length)
  }
  result += text.slice(from)
  work.text(result.length)
  // A mapping may have items that the text does not use.
  const mayHoldMore =
    usesNames || values instanceof Dict || isList(values) || values instanceof Range || values instanceof Undefined
  if (used < list.length && !mayHoldMore) throw typeError('not all arguments converted during string formatting')
  return result
}

function converted(value: Value, spec: Spec, work: Work): string {
  const { type, precision } = spec
  if ('sra'.includes(type)) {
    let text = type === 's' ? str(value, work) : repr(value, work)
    if (type === 'a') text = ascii(text)
    return padded(precision === undefined ? text : textOf(pointsOf(text).slice(0, precision)), '', spec, work)
  }
  if (type === 'c') {
    if (isText(value) && lengthOf(rawText(value)) === 1) return padded(rawText(value), '', spec, work)
    if (!isInteger(value)) throw typeError('%c requires int or char')
    return padded(String.fromCodePoint(Number(plainNumber(value))), '', spec, work)
  }
  if (value instanceof Undefined && !'oxX'.includes(type)) value.fail()
  if ('diuoxX'.includes(type)) {
    if (!isNumber(value) || (typeof value === 'number' && !'diu'.includes(type))) {
      const wanted = 'diu'.includes(type) ? 'a real number is required' : 'an integer is required'
      throw typeError(`%${type} format: ${wanted}, not ${typeName(value)}`)
    }
    const plain = plainNumber(value)
    const integer = typeof plain === 'number' ? truncated(plain) : plain
    const size = integer < 0n ? -integer : integer
    const radix = radixes[type] ?? 10
    let digits = radix === 10 ? integerText(size) : size.toString(radix)
    if (precision !== undefined) {
      work.text(precision)
      digits = digits.padStart(precision, '0')
    }
    if (type === 'X') digits = digits.toUpperCase()
    const sign = integer < 0n ? '-' : spec.sign === '-' ? '' : spec.sign
    return padded(digits, sign + (spec.alternate && radix !== 10 ? `0${type}` : ''), spec, work)
  }
  if ('eEfFgG'.includes(type)) {
    if (!isNumber(value)) throw typeError(`must be real number, not ${typeName(value)}`)
    return formatNumber(toFloat(plainNumber(value)), spec, work)
  }
  throw valueError(`unsupported format character '${type}' (0x${type.codePointAt(0)!.toString(16)})`)
}

export const ascii = (text: string): string =>
  text.replace(/[\u0080-\u{10ffff}]/gu, (point) => {
    const code = point.codePointAt(0)!.toString(16)
    const size = code.length <= 2 ? 2 : code.length <= 4 ? 4 : 8
    return `\\${size === 2 ? 'x' : size === 4 ? 'u' : 'U'}${code.padStart(size, '0')}`
  })

/** Look up a field such as `{a.b[0]}` as `str.format` does. */
export interface Lookup {
  attribute(value: Value, name: string): Value
  item(value: Value, key: Value): Value
}

/** Python's `text.format(*args, **kwargs)`. */
export function formatText(text: string, callArgs: CallArguments, lookup: Lookup, work: Work): string {
  const counter = { automatic: 0, manual: false }
  return formatFields(text, callArgs, lookup, work, counter, 2)
}

interface Counter {
  automatic: number
  manual: boolean
}

function formatFields(
  text: string,
  callArgs: CallArguments,
  lookup: Lookup,
  work: Work,
  counter: Counter,
  depth: number,
): string {
  if (depth < 0) throw valueError('Max string recursion exceeded')
  let result = ''
  for (let at = 0; at < text.length; ) {
    const brace = nextBrace(text, at)
    result += text.slice(at, brace)
    if (brace === text.length) break
    if (text[brace] === text[brace + 1]) {
      result += text[brace]
      at = brace + 2
      continue
    }
    if (text[brace] === '}') throw valueError("Single '}' encountered in format string")
    const end = fieldEnd(text, brace + 1)
    const field = text.slice(brace + 1, end)
    at = end + 1
    const [, name, , kind, , spec = ''] = /^((?:[^[:!]|\[[^\]]*\]?)*)(!([\s\S]?))?(:([\s\S]*))?/u.exec(field)!
    let value = fieldOf(name!, callArgs, lookup, counter)
    if (kind === 's') value = str(value, work)
    else if (kind === 'r' || kind === 'a') {
      const shown = repr(value, work)
      value = kind === 'a' ? ascii(shown) : shown
    } else if (kind !== undefined) throw valueError(`Unknown conversion specifier ${kind}`)
    result += formatValue(value, formatFields(spec, callArgs, lookup, work, counter, depth - 1), work)
    work.text(result.length / 8)
  }
  work.text(result.length)
  return result
}

function nextBrace(text: string, from: number): number {
  const [open, close] = [text.indexOf('{', from), text.indexOf('}', from)]
  if (open === -1 && close === -1) return text.length
  return open === -1 ? close : close === -1 ? open : Math.min(open, close)
}

function fieldEnd(text: string, from: number): number {
  let open = 1
  for (let i = from; i < text.length; i++) {
    if (text[i] === '{') open++
    else if (text[i] === '}' && --open === 0) return i
  }
  throw valueError(
    text.length === from ? "Single '{' encountered in format string" : "expected '}' before end of string",
  )
}

function fieldOf(name: string, callArgs: CallArguments, lookup: Lookup, counter: Counter): Value {
  const first = /^[^.[]*/.exec(name)![0]
  let value: Value | undefined
  if (first === '' || /^\d+$/.test(first)) {
    if (first === '' ? counter.manual : counter.automatic > 0) {
      throw valueError(
        first === ''
          ? 'cannot switch from manual field specification to automatic field numbering'
          : 'cannot switch from automatic field numbering to manual field specification',
      )
    }
    if (first !== '') counter.manual = true
    value = callArgs.args[first === '' ? counter.automatic++ : Number(first)]
    if (value === undefined) {
      throw new JinjaError('IndexError', `Replacement index ${first || counter.automatic - 1} out of range for positional args tuple`) // biome-ignore format: one line
    }
  } else {
    value = callArgs.kwargs.get(first)
    if (value === undefined) throw new JinjaError('KeyError', `'${first}'`)
  }
  let at = first.length
  while (at < name.length) {
    if (name[at] === '.') {
      const attribute = /^[^.[]*/.exec(name.slice(at + 1, at + 1 + MAX_NAME))![0]
      if (attribute === '') throw valueError('Empty attribute in format string')
      value = lookup.attribute(value, attribute)
      at += 1 + attribute.length
    } else if (name[at] === '[') {
      const end = name.indexOf(']', at)
      if (end === -1) throw valueError("Missing ']' in format string")
      const key = name.slice(at + 1, end)
      if (key === '') throw valueError('Empty attribute in format string')
      value = lookup.item(value, /^\d+$/.test(key) ? BigInt(key.slice(0, 20)) : key)
      at = end + 1
    } else throw valueError("Only '.' or '[' may follow ']' in format field specifier")
  }
  return value
}

const MAX_NAME = 1000
