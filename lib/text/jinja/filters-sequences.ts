import { argumentError, bound, type Filter } from './arguments.js'
import { JinjaError, LIMITS, typeError, type Work } from './errors.js'
import type { Interpreter } from './interpreter.js'
import { parseInteger } from './numbers.js'
import { binary } from './operators.js'
import {
  type CallArguments,
  compare,
  Dict,
  equal,
  Group,
  Iter,
  indexOf,
  isIterable,
  isList,
  isText,
  itemOf,
  iterate,
  length,
  Range,
  rawText,
  slice,
  sorted,
  str,
  Tuple,
  toList,
  truthy,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'
export type Getter = (item: Value) => Value

/** Return a getter of a path such as `a.b.0`, as in jinja2's filters. */
export function getter(
  { access, work }: Interpreter,
  attribute: Value | undefined,
  { fold = false, standard }: { fold?: boolean; standard?: Value } = {},
): Getter {
  const parts: Value[] =
    attribute === undefined || attribute === null
      ? []
      : isText(attribute)
        ? rawText(attribute)
            .split('.')
            .map((part) => (/^\p{Nd}+$/u.test(part) ? (parseInteger(part, 10) ?? part) : part))
        : [attribute]
  return (item) => {
    work.spend(1 + parts.length)
    let value = item
    for (const part of parts) {
      value = access.item(value, part)
      if (standard !== undefined && standard !== null && value instanceof Undefined) value = standard
    }
    return fold && isText(value) ? rawText(value).toLowerCase() : value
  }
}

export const isFolded = (caseSensitive: Value | undefined): boolean => !truthy(caseSensitive ?? false)

export function* mapped(items: Iterator<Value>, use: (item: Value) => Value): Generator<Value> {
  for (let item = items.next(); !item.done; item = items.next()) yield use(item.value)
}

/** Create a generator, which like Python's does nothing before its first value is requested. */
export const lazily = (make: () => Iterator<Value>): Iter =>
  new Iter(
    (function* (): Generator<Value> {
      const items = make()
      for (let item = items.next(); !item.done; item = items.next()) yield item.value
    })(),
  )

export function selection(name: string, keeps: boolean, byAttribute: boolean): Filter {
  return (interpreter, value, { args, kwargs }) =>
    lazily(function* () {
      if (!truthy(value)) return
      if (byAttribute && args.length === 0) throw argumentError('Missing parameter for attribute name')
      const read = byAttribute ? getter(interpreter, args[0]!) : (item: Value) => item
      const [test, ...rest] = args.slice(byAttribute ? 1 : 0)
      const accepts = (item: Value): boolean => {
        if (test === undefined) return truthy(item)
        const known = nameOf(name, test)
        if (!interpreter.knows('test', known)) throw new JinjaError('TemplateRuntimeError', `No test named '${known}'.`)
        return interpreter.test(known, item, { args: rest, kwargs })
      }
      const items = iterate(value, interpreter.work)
      for (let item = items.next(); !item.done; item = items.next()) {
        if (accepts(read(item.value)) === keeps) yield item.value
      }
    })
}

export function nameOf(filter: string, value: Value): string {
  if (isText(value)) return rawText(value)
  throw new JinjaError('TemplateRuntimeError', `No ${filter === 'map' ? 'filter' : 'test'} named ${typeName(value)}.`)
}

export const map: Filter = (interpreter, value, { args, kwargs }) =>
  lazily(function* () {
    if (!truthy(value)) return
    const items = iterate(value, interpreter.work)
    if (args.length === 0 && kwargs.has('attribute')) {
      const { attribute, default: standard, ...rest } = Object.fromEntries(kwargs)
      const [unexpected] = Object.keys(rest)
      if (unexpected !== undefined) throw argumentError(`Unexpected keyword argument '${unexpected}'`)
      yield* mapped(items, getter(interpreter, attribute, { standard }))
      return
    }
    if (args.length === 0) throw argumentError('map requires a filter argument')
    const [name, ...rest] = args
    yield* mapped(items, (item) => {
      const known = nameOf('map', name!)
      if (!interpreter.knows('filter', known))
        throw new JinjaError('TemplateRuntimeError', `No filter named '${known}'.`)
      return interpreter.filter(known, item, { args: rest, kwargs })
    })
  })

export function extreme(name: 'min' | 'max'): Filter {
  return (interpreter, value, callArgs) => {
    const { work } = interpreter
    const [caseSensitive, attribute] = bound(name, callArgs, 0, 'case_sensitive', 'attribute')
    const keyOf = getter(interpreter, attribute, { fold: isFolded(caseSensitive) })
    let best: { item: Value; key: Value } | undefined
    const items = iterate(value, work)
    for (let item = items.next(); !item.done; item = items.next()) {
      const key = keyOf(item.value)
      const better = best === undefined || (name === 'min' ? compare(key, best.key, '<', work) < 0 : compare(key, best.key, '>', work) > 0) // biome-ignore format: one line
      if (better) best = { item: item.value, key }
    }
    return best === undefined ? new Undefined('No aggregated item, sequence was empty.') : best.item
  }
}

export function groupBy(interpreter: Interpreter, value: Value, callArgs: CallArguments): Value {
  const { work } = interpreter
  const [attribute, standard, caseSensitive] = bound('groupby', callArgs, 1, 'attribute', 'default', 'case_sensitive')
  const fold = isFolded(caseSensitive)
  const keyOf = getter(interpreter, attribute, { fold, standard })
  const groups: { key: Value; items: Value[] }[] = []
  for (const item of sorted(toList(value, work), keyOf, false, work)) {
    const key = keyOf(item)
    const last = groups.at(-1)
    if (last !== undefined && equal(last.key, key, work)) last.items.push(item)
    else groups.push({ key, items: [item] })
  }
  const shown = fold ? getter(interpreter, attribute, { standard }) : undefined
  return groups.map(({ key, items }) => new Group([shown ? shown(items[0]!) : key, items]))
}

export function sort(interpreter: Interpreter, value: Value, callArgs: CallArguments): Value {
  const { work } = interpreter
  const [reverse, caseSensitive, attribute] = bound('sort', callArgs, 0, 'reverse', 'case_sensitive', 'attribute')
  const names: Value[] = isText(attribute ?? null) ? rawText(attribute as string).split(',') : [attribute ?? null]
  const getters = names.map((name) => getter(interpreter, name, { fold: isFolded(caseSensitive) }))
  const keyOf = (item: Value): Value => getters.map((get) => get(item))
  return sorted(toList(value, work), keyOf, truthy(reverse ?? false), work)
}

export function dictSort({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [caseSensitive, by = 'key', reverse] = bound('dictsort', callArgs, 0, 'case_sensitive', 'by', 'reverse')
  if (by !== 'key' && by !== 'value') throw argumentError('You can only sort by either "key" or "value"')
  if (!(value instanceof Dict)) {
    if (value instanceof Undefined) value.fail()
    throw new JinjaError('AttributeError', `'${typeName(value)}' object has no attribute 'items'`)
  }
  const keyOf = (pair: Tuple): Value => {
    const item = pair.items[by === 'key' ? 0 : 1]!
    return isText(item) && isFolded(caseSensitive) ? rawText(item).toLowerCase() : item
  }
  const pairs = [...value.entries()].map((entry) => new Tuple(entry))
  return sorted(pairs, keyOf, truthy(reverse ?? false), work)
}

export function unique(interpreter: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [caseSensitive, attribute] = bound('unique', callArgs, 0, 'case_sensitive', 'attribute')
  const keyOf = getter(interpreter, attribute, { fold: isFolded(caseSensitive) })
  return lazily(function* () {
    const seen = new Dict()
    const items = iterate(value, interpreter.work)
    for (let item = items.next(); !item.done; item = items.next()) {
      const key = keyOf(item.value)
      if (seen.has(key)) continue
      seen.set(key, true)
      yield item.value
    }
  })
}

export function sum(interpreter: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [attribute, start = 0n] = bound('sum', callArgs, 0, 'attribute', 'start')
  if (isText(start)) throw typeError("sum() can't sum strings [use ''.join(seq) instead]")
  const read = attribute === undefined || attribute === null ? (item: Value) => item : getter(interpreter, attribute)
  let total: Value = start
  const items = iterate(value, interpreter.work)
  for (let item = items.next(); !item.done; item = items.next()) {
    total = binary('+', total, read(item.value), interpreter.work)
  }
  return total
}

export function joinFilter(interpreter: Interpreter, value: Value, callArgs: CallArguments): Value {
  const { work } = interpreter
  const [separator = '', attribute] = bound('join', callArgs, 0, 'd', 'attribute')
  const read = attribute === undefined || attribute === null ? (item: Value) => item : getter(interpreter, attribute)
  const by = str(separator, work)
  let text = ''
  let first = true
  const items = iterate(value, work)
  for (let item = items.next(); !item.done; item = items.next()) {
    text += (first ? '' : by) + str(read(item.value), work)
    first = false
    if (text.length > LIMITS.text) work.text(text.length)
  }
  work.text(text.length)
  return text
}

export function batch({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [size, fill] = bound('batch', callArgs, 1, 'linecount', 'fill_with')
  return lazily(function* () {
    let row: Value[] = []
    const items = iterate(value, work)
    for (let item = items.next(); !item.done; item = items.next()) {
      if (equal(BigInt(row.length), size!, work)) {
        yield row
        row = []
      }
      row.push(item.value)
    }
    if (row.length === 0) return
    if (fill !== undefined && fill !== null && compare(BigInt(row.length), size!, '<', work) < 0) {
      const missing = indexOf(size!) - row.length
      work.items(missing)
      for (let i = 0; i < missing; i++) row.push(fill)
    }
    yield row
  })
}

export function slices({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  const [count, fill] = bound('slice', callArgs, 1, 'slices', 'fill_with')
  return lazily(function* () {
    const items = toList(value, work)
    const wanted = indexOf(count!)
    if (wanted === 0) throw new JinjaError('ZeroDivisionError', 'integer division or modulo by zero')
    const size = Math.floor(items.length / wanted)
    const longer = items.length - size * wanted
    let offset = 0
    for (let i = 0; i < wanted; i++) {
      const start = offset + i * size
      if (i < longer) offset++
      work.spend(1 + size)
      const column = items.slice(start, offset + (i + 1) * size)
      if (fill !== undefined && fill !== null && i >= longer) column.push(fill)
      yield column
    }
  })
}

export function first({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  bound('first', callArgs, 0)
  const { done, value: item } = iterate(value, work).next()
  return done ? new Undefined('No first item, sequence was empty.') : item
}

/** Python's `reversed`; undefined instead of a TypeError. */
export function reversed(value: Value, work: Work): Value[] | undefined {
  if (value instanceof Undefined) value.fail()
  if (value instanceof Iter || !isIterable(value)) return undefined
  return toList(value, work).reverse()
}

export function last({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  bound('last', callArgs, 0)
  if (value instanceof Undefined) return new Undefined('No last item, sequence was empty.')
  if (isText(value) || isList(value) || value instanceof Tuple) {
    const size = length(value, work)
    if (size === 0) return new Undefined('No last item, sequence was empty.')
    return itemOf(value, -1n, work)!
  }
  const items = reversed(value, work)
  if (items === undefined) return notReversible(value)
  return items.length === 0 ? new Undefined('No last item, sequence was empty.') : items[0]!
}

export const notReversible = (value: Value): never => {
  throw typeError(`'${typeName(value)}' object is not reversible`)
}

export function reverse({ work }: Interpreter, value: Value, callArgs: CallArguments): Value {
  bound('reverse', callArgs, 0)
  if (isText(value)) {
    work.text(rawText(value).length)
    return slice(value, [undefined, undefined, -1n], work)
  }
  if (value instanceof Undefined) return new Iter([].values(), 'reversed')
  if (value instanceof Iter) return toList(value, work).reverse()
  const items = reversed(value, work)
  if (items === undefined) throw argumentError('argument must be iterable')
  const name = isList(value) ? 'list_reverseiterator' : value instanceof Dict ? 'dict_reversekeyiterator' : value instanceof View ? `dict_reverse${value.kind === 'items' ? 'item' : value.kind.slice(0, -1)}iterator` : value instanceof Range ? 'range_iterator' : 'reversed' // biome-ignore format: one line
  return new Iter(items.values(), name)
}
