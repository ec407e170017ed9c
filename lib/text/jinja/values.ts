import { JinjaError, LIMITS, limit, typeError, type Work } from './errors.js'
import { floatText } from './numbers.js'
import { compareTexts, isPrintable, lengthOf, pointsOf } from './unicode.js'

// Python's values in a template. None is null, an int is a bigint, a float is a number, a str is a string, a list is an
// array; the others are the classes below. Templates cannot change them, except namespaces and iterators.

export class Tuple {
  constructor(readonly items: readonly Value[]) {}
}

/** A tuple of the filter `groupby`, whose items are also available as `grouper` and `list`. */
export class Group extends Tuple {}

/** A string that `escape` or `safe` marked as HTML. */
export class Markup {
  /** Distinguishes the type from others with a text. */
  readonly isMarkup = true

  constructor(readonly text: string) {}
}

export class Dict {
  readonly #entries = new Map<string, [Value, Value]>()

  static of(entries: Iterable<[string, Value]>): Dict {
    const dict = new Dict()
    for (const [key, value] of entries) dict.set(key, value)
    return dict
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(hash(key))?.[1]
  }

  has(key: Value): boolean {
    return this.#entries.has(hash(key))
  }

  set(key: Value, value: Value): void {
    const name = hash(key)
    const entry = this.#entries.get(name)
    if (entry === undefined) this.#entries.set(name, [key, value])
    else entry[1] = value
  }

  entries(): IterableIterator<[Value, Value]> {
    return this.#entries.values()
  }
}

/** Result of `keys()`, `values()` and `items()` of a dict. */
export class View {
  constructor(
    readonly dict: Dict,
    readonly kind: 'keys' | 'values' | 'items',
  ) {}
}

export class Range {
  readonly length: number

  constructor(
    readonly start: bigint,
    readonly stop: bigint,
    readonly step: bigint,
  ) {
    const span = step > 0n ? stop - start : start - stop
    const width = step > 0n ? step : -step
    const length = span <= 0n ? 0n : (span + width - 1n) / width
    if (length > BigInt(LIMITS.range)) {
      throw new JinjaError(
        'OverflowError',
        `Range too big. The sandbox blocks ranges larger than MAX_RANGE (${LIMITS.range}).`,
      )
    }
    this.length = Number(length)
  }

  at(index: number): bigint {
    return this.start + this.step * BigInt(index)
  }
}

/** Result of `map`, `select` and others: an iterator of lazily computed values. */
export class Iter implements Iterator<Value> {
  constructor(
    readonly source: Iterator<Value>,
    /** Name of the type in Python. */
    readonly name = 'generator',
  ) {}

  next(): IteratorResult<Value> {
    return this.source.next()
  }
}

export class Undefined {
  constructor(
    readonly message: string,
    readonly kind: 'UndefinedError' | 'SecurityError' = 'UndefinedError',
  ) {}

  static named(name: string): Undefined {
    return new Undefined(`'${name}' is undefined`)
  }

  fail(): never {
    throw new JinjaError(this.kind, this.message)
  }
}

export class Namespace {
  readonly values = new Map<string, Value>()
}

export interface CallArguments {
  args: Value[]
  kwargs: Map<string, Value>
}

/** A callable of a template: a macro, a method or a global function. */
export class Callable {
  constructor(
    /** Result of Python's `repr`. */
    readonly shown: string,
    readonly call: (callArgs: CallArguments) => Value,
  ) {}

  attribute(_name: string): Value | undefined {
    return undefined
  }
}

/** An object with attributes: `loop`, a cycler, a joiner or `self`. */
export abstract class Instance {
  abstract readonly typeName: string
  abstract text(work: Work): string
  abstract attribute(name: string): Value | undefined
  call?(callArgs: CallArguments): Value
  length?(): number
}

export type Value =
  | null
  | boolean
  | bigint
  | number
  | string
  | readonly Value[]
  | Tuple
  | Markup
  | Dict
  | View
  | Range
  | Iter
  | Undefined
  | Namespace
  | Callable
  | Instance

export const isText = (value: Value): value is string | Markup => typeof value === 'string' || value instanceof Markup
export const isList = (value: Value): value is readonly Value[] => Array.isArray(value)
export const isNumber = (value: Value): value is boolean | bigint | number =>
  typeof value === 'bigint' || typeof value === 'number' || typeof value === 'boolean'
export const isInteger = (value: Value): value is boolean | bigint =>
  typeof value === 'bigint' || typeof value === 'boolean'

/** Convert a bool to its int. */
export const plainNumber = (value: boolean | bigint | number): bigint | number =>
  typeof value === 'boolean' ? (value ? 1n : 0n) : value

/** Return the text of a str. */
export const rawText = (value: string | Markup): string => (typeof value === 'string' ? value : value.text)

export function typeName(value: Value): string {
  if (value === null) return 'NoneType'
  if (typeof value === 'boolean') return 'bool'
  if (typeof value === 'bigint') return 'int'
  if (typeof value === 'number') return 'float'
  if (typeof value === 'string') return 'str'
  if (isList(value)) return 'list'
  if (value instanceof Tuple) return 'tuple'
  if (value instanceof Markup) return 'Markup'
  if (value instanceof Dict) return 'dict'
  if (value instanceof View) return `dict_${value.kind}`
  if (value instanceof Range) return 'range'
  if (value instanceof Iter) return value.name
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Namespace) return 'TemplateNamespace'
  if (value instanceof Callable) return value.shown.startsWith('<Macro') ? 'Macro' : 'builtin_function_or_method'
  return value.typeName
}

/** Return the lookup text of a dict key: keys that are equal in Python have equal texts. */
function hash(key: Value): string {
  if (typeof key === 'string') return `s${key}`
  if (key === null) return 'None'
  if (typeof key === 'bigint' || typeof key === 'boolean') return `n${plainNumber(key)}`
  if (typeof key === 'number') return Number.isInteger(key) ? `n${BigInt(key)}` : `n${key}`
  if (key instanceof Markup) return `s${key.text}`
  if (key instanceof Tuple) {
    let text = 't'
    for (const item of key.items) {
      const part = hash(item)
      text += `${part.length}:${part}`
      if (text.length > LIMITS.width) throw limit('has a tuple that is too large as a key')
    }
    return text
  }
  if (key instanceof Undefined) return 'undefined'
  if (isList(key) || key instanceof Dict) throw typeError(`unhashable type: '${typeName(key)}'`)
  return `o${identity(key)}`
}

const identities = new WeakMap<object, number>()
let objects = 0

/** Return a unique number per object. */
function identity(value: object): number {
  let number = identities.get(value)
  if (number === undefined) identities.set(value, (number = ++objects))
  return number
}

export function truthy(value: Value): boolean {
  if (typeof value === 'string') return value !== ''
  if (typeof value === 'boolean') return value
  if (value === null) return false
  if (typeof value === 'bigint') return value !== 0n
  if (typeof value === 'number') return value !== 0
  if (isList(value)) return value.length > 0
  if (value instanceof Undefined) return false
  return sizeOf(value) !== 0
}

/** Python's `len`; undefined instead of a TypeError. */
function sizeOf(value: Value): number | undefined {
  if (typeof value === 'string') return lengthOf(value)
  if (isList(value)) return value.length
  if (value instanceof Tuple) return value.items.length
  if (value instanceof Dict) return value.size
  if (value instanceof Markup) return lengthOf(value.text)
  if (value instanceof View) return value.dict.size
  if (value instanceof Range) return value.length
  if (value instanceof Undefined) return 0
  return value instanceof Instance ? value.length?.() : undefined
}

export const hasLength = (value: Value): boolean => sizeOf(value) !== undefined

export function length(value: Value, work: Work): number {
  if (isText(value)) work.spend(1 + rawText(value).length / 64)
  const size = sizeOf(value)
  if (size === undefined) throw typeError(`object of type '${typeName(value)}' has no len()`)
  return size
}

export function isIterable(value: Value): boolean {
  return value instanceof Iter || (sizeOf(value) !== undefined && !(value instanceof Namespace))
}

/** Python's `iter`. */
export function iterate(value: Value, work: Work): Iterator<Value> {
  return value instanceof Iter ? value : counted(itemsOf(value), work)
}

function* counted(items: Iterable<Value>, work: Work): Generator<Value> {
  for (const item of items) {
    work.spend(1)
    yield item
  }
}

function itemsOf(value: Value): Iterable<Value> {
  if (isList(value)) return value
  if (typeof value === 'string') return value
  if (value instanceof Tuple) return value.items
  if (value instanceof Dict) return keys(value)
  if (value instanceof View) return viewItems(value)
  if (value instanceof Range) return rangeItems(value)
  if (value instanceof Undefined) return []
  if (value instanceof Markup) return value.text
  throw typeError(`'${typeName(value)}' object is not iterable`)
}

function* keys(dict: Dict): Generator<Value> {
  for (const [key] of dict.entries()) yield key
}

function* viewItems({ dict, kind }: View): Generator<Value> {
  for (const [key, value] of dict.entries()) {
    yield kind === 'keys' ? key : kind === 'values' ? value : new Tuple([key, value])
  }
}

function* rangeItems(range: Range): Generator<Value> {
  for (let i = 0; i < range.length; i++) yield range.at(i)
}

/** Python's `list`. */
export function toList(value: Value, work: Work): Value[] {
  const size = value instanceof Iter ? 0 : (sizeOf(value) ?? 0)
  work.items(size)
  const list: Value[] = []
  const items = iterate(value, work)
  for (let item = items.next(); !item.done; item = items.next()) {
    if (list.length >= LIMITS.items) throw limit(`makes a list of more than ${LIMITS.items} items`)
    list.push(item.value)
  }
  return list
}

/** Python's `str`. */
export function str(value: Value, work: Work): string {
  if (typeof value === 'string') return value
  if (value instanceof Markup) return value.text
  if (value instanceof Undefined) return ''
  return repr(value, work)
}

/** Python's `repr`. */
export function repr(value: Value, work: Work): string {
  work.spend(1)
  if (value === null) return 'None'
  if (typeof value === 'boolean') return value ? 'True' : 'False'
  if (typeof value === 'bigint') return integerText(value)
  if (typeof value === 'number') return floatText(value)
  if (typeof value === 'string') return quoted(value, work)
  if (value instanceof Markup) return `Markup(${quoted(value.text, work)})`
  if (value instanceof Undefined) return 'Undefined'
  if (value instanceof Callable) return value.shown
  if (value instanceof Iter) return `<${value.name} object at 0x7f0000000000>`
  if (value instanceof Range) {
    const { start, stop, step } = value
    return `range(${start}, ${stop}${step === 1n ? '' : `, ${step}`})`
  }
  work.enter()
  const text = container(value, work)
  work.text(text.length)
  work.leave()
  return text
}

function container(value: readonly Value[] | Tuple | Dict | View | Namespace | Instance, work: Work): string {
  if (value instanceof Instance) return value.text(work)
  const list = (items: Iterable<Value>): string => joined(items, (item) => repr(item, work), work)
  if (isList(value)) return `[${list(value)}]`
  if (value instanceof Tuple) return `(${list(value.items)}${value.items.length === 1 ? ',' : ''})`
  if (value instanceof View) return `dict_${value.kind}([${list(viewItems(value))}])`
  const entries = value instanceof Dict ? value.entries() : value.values.entries()
  const pair = ([key, item]: readonly [Value, Value]): string => `${repr(key, work)}: ${repr(item, work)}`
  const text = `{${joined(entries, pair, work)}}`
  return value instanceof Dict ? text : `<Namespace ${text}>`
}

function joined<T>(items: Iterable<T>, textOf: (item: T) => string, work: Work): string {
  let text = ''
  let first = true
  for (const item of items) {
    text += first ? textOf(item) : `, ${textOf(item)}`
    first = false
    if (text.length > LIMITS.text) work.text(text.length)
  }
  return text
}

export function integerText(value: bigint): string {
  if (value > MAX_DECIMAL || value < -MAX_DECIMAL) {
    throw new JinjaError(
      'ValueError',
      'Exceeds the limit (4300 digits) for integer string conversion; use sys.set_int_max_str_digits() to increase the limit',
    )
  }
  return value.toString()
}

const MAX_DECIMAL = 10n ** 4300n - 1n

const escapes: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t', '\\': '\\\\' }
const plain = /^[ !#-&(-[\]-~]*$/

function quoted(text: string, work: Work): string {
  work.text(text.length)
  if (plain.test(text)) return `'${text}'`
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'"
  let result = quote
  for (const point of text) {
    if (point === quote) result += `\\${point}`
    else if (point in escapes) result += escapes[point]
    else if (isPrintable(point)) result += point
    else {
      const code = point.codePointAt(0)!.toString(16)
      result += code.length <= 2 ? `\\x${code.padStart(2, '0')}` : code.length <= 4 ? `\\u${code.padStart(4, '0')}` : `\\U${code.padStart(8, '0')}` // biome-ignore format: one line
    }
  }
  return result + quote
}

/** Python's `==`. */
export function equal(a: Value, b: Value, work: Work): boolean {
  work.spend(1)
  if (a === b) return true
  if (isNumber(a) && isNumber(b)) {
    // biome-ignore lint/suspicious/noDoubleEquals: an int and a float can be equal
    return plainNumber(a) == plainNumber(b)
  }
  if (isText(a) && isText(b)) {
    work.spend(Math.min(rawText(a).length, rawText(b).length) / 64)
    return rawText(a) === rawText(b)
  }
  if (isList(a) && isList(b)) return equalItems(a, b, work)
  if (a instanceof Tuple && b instanceof Tuple) return equalItems(a.items, b.items, work)
  if (a instanceof Undefined && b instanceof Undefined) return true
  if (a instanceof Dict && b instanceof Dict) {
    if (a.size !== b.size) return false
    return nested(work, () => {
      for (const [key, value] of a.entries()) {
        const other = b.get(key)
        if (other === undefined || !equal(value, other, work)) return false
      }
      return true
    })
  }
  if (a instanceof Range && b instanceof Range) {
    if (a.length !== b.length) return false
    return a.length === 0 || (a.start === b.start && (a.length === 1 || a.step === b.step))
  }
  if (a instanceof View && b instanceof View && a.kind !== 'values' && b.kind !== 'values') {
    if (a.dict.size !== b.dict.size) return false
    for (const item of viewItems(a)) if (!contains(b, item, work)) return false
    return true
  }
  return false
}

function equalItems(a: readonly Value[], b: readonly Value[], work: Work): boolean {
  return a.length === b.length && nested(work, () => a.every((item, i) => equal(item, b[i]!, work)))
}

function nested<T>(work: Work, walk: () => T): T {
  work.enter()
  const result = walk()
  work.leave()
  return result
}

/** Python's comparison: the sign of the order of two values, NaN if they are unordered. */
export function compare(a: Value, b: Value, operator: string, work: Work): number {
  work.spend(1)
  if (a instanceof Undefined) a.fail()
  if (b instanceof Undefined) b.fail()
  if (isNumber(a) && isNumber(b)) {
    const [x, y] = [plainNumber(a), plainNumber(b)]
    return x < y ? -1 : x > y ? 1 : x >= y ? 0 : Number.NaN
  }
  if (isText(a) && isText(b)) {
    work.spend(Math.min(rawText(a).length, rawText(b).length) / 8)
    return compareTexts(rawText(a), rawText(b))
  }
  const [x, y] = isList(a) && isList(b) ? [a, b] : a instanceof Tuple && b instanceof Tuple ? [a.items, b.items] : []
  if (x !== undefined && y !== undefined) {
    return nested(work, () => {
      for (let i = 0; i < x.length && i < y.length; i++) {
        if (!equal(x[i]!, y[i]!, work)) return compare(x[i]!, y[i]!, operator, work)
      }
      return x.length - y.length
    })
  }
  throw typeError(`'${operator}' not supported between instances of '${typeName(a)}' and '${typeName(b)}'`)
}

/** Whether a result of {@link compare} satisfies an operator. */
export function ordered(operator: string, order: number): boolean {
  if (operator === '<') return order < 0
  if (operator === '<=') return order <= 0
  return operator === '>' ? order > 0 : order >= 0
}

/** Python's `sorted`, stable. */
export function sorted<T>(items: readonly T[], keyOf: (item: T) => Value, reverse: boolean, work: Work): T[] {
  work.items(items.length)
  const keyed = items.map((item) => ({ item, key: keyOf(item) }))
  // A reversed stable sort keeps the order of equal items.
  if (reverse) keyed.reverse()
  keyed.sort((a, b) => (compare(a.key, b.key, '<', work) < 0 ? -1 : compare(b.key, a.key, '<', work) < 0 ? 1 : 0))
  if (reverse) keyed.reverse()
  return keyed.map(({ item }) => item)
}

/** Python's `in`. */
export function contains(container: Value, item: Value, work: Work): boolean {
  if (isText(container)) {
    const text = rawText(container)
    work.spend(1 + text.length / 64)
    if (isText(item)) return text.includes(rawText(item))
    throw typeError(`'in <string>' requires string as left operand, not ${typeName(item)}`)
  }
  if (container instanceof Dict) return container.has(item)
  if (container instanceof View && container.kind !== 'values') {
    if (container.kind === 'keys') return container.dict.has(item)
    if (!(item instanceof Tuple) || item.items.length !== 2) return false
    const value = container.dict.get(item.items[0]!)
    return value !== undefined && equal(value, item.items[1]!, work)
  }
  if (container instanceof Namespace || (!isIterable(container) && !(container instanceof Iter))) {
    throw typeError(`argument of type '${typeName(container)}' is not iterable`)
  }
  const items = iterate(container, work)
  for (let one = items.next(); !one.done; one = items.next()) if (equal(one.value, item, work)) return true
  return false
}

/** Convert a position or size to a JavaScript number; huge values are clamped. */
export function indexOf(
  value: Value,
  complaint = (type: string) => `'${type}' object cannot be interpreted as an integer`,
): number {
  // biome-ignore format: one line
  if (value instanceof Undefined) value.fail()
  if (!isInteger(value)) throw typeError(complaint(typeName(value)))
  const integer = plainNumber(value) as bigint
  if (integer > 2n ** 53n) return 2 ** 53
  return integer < -(2n ** 53n) ? -(2 ** 53) : Number(integer)
}

/** Return start, end and step of a slice. */
export function sliceBounds(bounds: readonly (Value | undefined)[], size: number): [number, number, number] {
  const complaint = (): string => 'slice indices must be integers or None or have an __index__ method'
  const [start, stop, step] = bounds.map((bound) =>
    bound === undefined || bound === null ? undefined : indexOf(bound, complaint),
  )
  const by = step ?? 1
  if (by === 0) throw new JinjaError('ValueError', 'slice step cannot be zero')
  const [least, most] = by > 0 ? [0, size] : [-1, size - 1]
  const clip = (at: number): number => Math.min(Math.max(at < 0 ? at + size : at, least), most)
  return [
    start === undefined ? (by > 0 ? 0 : size - 1) : clip(start),
    stop === undefined ? (by > 0 ? size : -1) : clip(stop),
    by,
  ]
}

export function slice(value: Value, bounds: readonly (Value | undefined)[], work: Work): Value {
  if (value instanceof Undefined) value.fail()
  if (isText(value)) {
    work.text(rawText(value).length)
    const points = pointsOf(rawText(value))
    const [from, to, by] = sliceBounds(bounds, points.length)
    const cut =
      by === 1
        ? typeof points === 'string'
          ? points.slice(from, to)
          : points.slice(from, to).join('')
        : stepped((i) => points[i]!, from, to, by).join('')
    return typeof value === 'string' ? cut : new Markup(cut)
  }
  if (value instanceof Range) {
    const [from, to, by] = sliceBounds(bounds, value.length)
    return new Range(value.at(from), value.at(to), value.step * BigInt(by))
  }
  const items = isList(value) ? value : value instanceof Tuple ? value.items : undefined
  if (items === undefined) {
    if (value instanceof Dict) throw typeError("unhashable type: 'slice'")
    throw typeError(`'${typeName(value)}' object is not subscriptable`)
  }
  work.items(items.length)
  const [from, to, by] = sliceBounds(bounds, items.length)
  const cut = by === 1 ? items.slice(from, to) : stepped((i) => items[i]!, from, to, by)
  return isList(value) ? cut : new Tuple(cut)
}

function stepped<T>(at: (index: number) => T, from: number, to: number, by: number): T[] {
  const result: T[] = []
  for (let i = from; by > 0 ? i < to : i > to; i += by) result.push(at(i))
  return result
}

/** Return the item at an index or key; undefined instead of a TypeError or LookupError. */
export function itemOf(value: Value, index: Value, work: Work): Value | undefined {
  if (value instanceof Undefined) value.fail()
  if (value instanceof Dict) {
    return isList(index) || index instanceof Dict ? undefined : value.get(index)
  }
  if (!isInteger(index)) return undefined
  if (isText(value)) work.spend(1 + rawText(value).length / 64)
  const points = isText(value) ? pointsOf(rawText(value)) : undefined
  const items = points ?? (isList(value) ? value : value instanceof Tuple ? value.items : value)
  if (!(typeof items === 'string' || Array.isArray(items) || items instanceof Range)) return undefined
  const at = indexOf(index)
  const from = at < 0 ? at + items.length : at
  if (from < 0 || from >= items.length) return undefined
  if (items instanceof Range) return items.at(from)
  const item = items[from] as Value
  return value instanceof Markup ? new Markup(item as string) : item
}

/** Convert a JavaScript value for a template: objects become dicts, safe integers ints, other numbers floats. */
export function fromOutside(value: unknown, work: Work): Value {
  work.spend(1)
  switch (typeof value) {
    case 'undefined':
      return null
    case 'boolean':
    case 'bigint':
      return value
    case 'string':
      work.text(value.length)
      return value
    case 'number':
      return Number.isSafeInteger(value) && !Object.is(value, -0) ? BigInt(value) : value
    case 'symbol':
    case 'function':
      return `<${typeof value}>`
  }
  if (value === null) return null
  return nested(work, () => {
    if (Array.isArray(value)) {
      work.items(value.length)
      return Array.from(value, (item) => fromOutside(item, work))
    }
    const entries = value instanceof Map ? [...value] : fieldsOf(value as object)
    // Images, audio and tensors: templates only test whether they exist.
    if (entries === undefined) return `<${(value as object).constructor?.name ?? 'object'}>`
    const dict = new Dict()
    for (const [key, item] of entries) {
      if (item !== undefined) dict.set(typeof key === 'string' ? key : fromOutside(key, work), fromOutside(item, work))
    }
    return dict
  })
}

function fieldsOf(value: object): [unknown, unknown][] | undefined {
  if (ArrayBuffer.isView(value)) return undefined
  const fields = Object.entries(value)
  const prototype: unknown = Object.getPrototypeOf(value)
  const isPlain = prototype === null || prototype === Object.prototype || Object.getPrototypeOf(prototype) === null
  return isPlain || fields.length > 0 ? fields : undefined
}
