import { LIMITS, limit, typeError, type Work } from './errors.js'
import { printf } from './format.js'
import { arithmetic, unsupportedOperands } from './numbers.js'
import { escapeHtml } from './strings.js'
import {
  isInteger,
  isList,
  isNumber,
  isText,
  Markup,
  plainNumber,
  rawText,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.js'

/** `+ - * / // % **` of Python. */
export function binary(operator: string, left: Value, right: Value, work: Work): Value {
  if (isNumber(left) && isNumber(right)) {
    const result = arithmetic(operator, plainNumber(left), plainNumber(right))
    if (typeof result === 'bigint' && (result > LARGE || result < -LARGE)) work.spend(result.toString(16).length)
    return result
  }
  if (operator === '%' && isText(left)) {
    if (right instanceof Undefined && !(left instanceof Markup)) return printf(rawText(left), right, work)
    return left instanceof Markup ? new Markup(printf(left.text, escaped(right), work)) : printf(left, right, work)
  }
  if (left instanceof Undefined) left.fail()
  if (right instanceof Undefined) right.fail()
  if (operator === '+') return add(left, right, work)
  if (operator === '*') {
    if (isInteger(right)) return repeated(left, right, work)
    if (isInteger(left)) return repeated(right, left, work)
    const [sequence, other] = isSequence(left) ? [left, right] : [right, left]
    if (isSequence(sequence)) throw typeError(`can't multiply sequence by non-int of type '${typeName(other)}'`)
  }
  throw unsupportedOperands(operator, typeName(left), typeName(right))
}

const LARGE = 1n << 64n

const isSequence = (value: Value): boolean => isText(value) || isList(value) || value instanceof Tuple

function add(left: Value, right: Value, work: Work): Value {
  if (isText(left) && isText(right)) {
    const escapes = left instanceof Markup || right instanceof Markup
    const part = (value: string | Markup): string =>
      escapes && typeof value === 'string' ? escapeHtml(value) : rawText(value)
    const [a, b] = [part(left), part(right)]
    work.joined(a.length + b.length, Math.max(a.length, b.length))
    return escapes ? new Markup(a + b) : a + b
  }
  if (isList(left) && isList(right)) {
    work.items(left.length + right.length)
    return [...left, ...right]
  }
  if (left instanceof Tuple && right instanceof Tuple) {
    work.items(left.items.length + right.items.length)
    return new Tuple([...left.items, ...right.items])
  }
  if (isSequence(left) && !(left instanceof Markup)) {
    const type = typeName(left)
    throw typeError(`can only concatenate ${type} (not "${typeName(right)}") to ${type}`)
  }
  throw unsupportedOperands('+', typeName(left), typeName(right))
}

function repeated(value: Value, by: boolean | bigint, work: Work): Value {
  const times = plainNumber(by) as bigint
  const count = times < 0n ? 0 : Number(times)
  const checked = (size: number, most: number): number => {
    if (size * count > most) throw limit(`repeats a sequence to more than ${most} items`)
    return size === 0 ? 0 : count
  }
  if (isText(value)) {
    const text = rawText(value)
    const times = checked(text.length, LIMITS.text)
    work.text(text.length * times)
    return value instanceof Markup ? new Markup(text.repeat(times)) : text.repeat(times)
  }
  const items = isList(value) ? value : value instanceof Tuple ? value.items : undefined
  if (items === undefined) throw unsupportedOperands('*', typeName(value), typeName(by))
  const turns = checked(items.length, LIMITS.items)
  work.items(items.length * turns)
  const result: Value[] = []
  for (let i = 0; i < turns; i++) for (const item of items) result.push(item)
  return isList(value) ? result : new Tuple(result)
}

/** Escape the values of a format whose text is escaped. */
function escaped(value: Value): Value {
  if (value instanceof Tuple) return new Tuple(value.items.map(escaped))
  return typeof value === 'string' ? escapeHtml(value) : value
}

/** `+x` and `-x`. */
export function unary(operator: string, value: Value): Value {
  if (value instanceof Undefined) value.fail()
  if (!isNumber(value)) throw typeError(`bad operand type for unary ${operator}: '${typeName(value)}'`)
  const number = plainNumber(value)
  return operator === '-' ? -number : number
}
