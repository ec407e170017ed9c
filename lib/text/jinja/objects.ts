import { JinjaError, typeError, unsupported, type Work } from './errors.js'
import type { Lookup } from './format.js'
import { escapeHtml, join, markupResult, textMethods } from './strings.js'
import {
  type CallArguments,
  Callable,
  Dict,
  equal,
  Group,
  Instance,
  isInteger,
  isList,
  isNumber,
  isText,
  itemOf,
  iterate,
  Markup,
  Namespace,
  plainNumber,
  Range,
  rawText,
  sliceBounds,
  str,
  Tuple,
  toList,
  typeName,
  Undefined,
  type Value,
  View,
} from './values.js'

/** Methods that change a list or a dict, which jinja2's ImmutableSandboxedEnvironment forbids. */
const changing: Record<string, ReadonlySet<string>> = {
  list: new Set(['append', 'clear', 'pop', 'reverse', 'insert', 'sort', 'extend', 'remove']),
  dict: new Set(['clear', 'pop', 'popitem', 'setdefault', 'update']),
}

/** Attributes of Python's types that templates do not use. */
const known: Record<string, readonly string[]> = {
  int: ['to_bytes', 'from_bytes'],
  bool: ['to_bytes', 'from_bytes'],
  float: ['hex', 'fromhex'],
  str: [],
  generator: ['close', 'send', 'throw', 'gi_frame', 'gi_code', 'gi_running', 'gi_yieldfrom'],
}

/** Attributes with double underscores, which the sandbox hides, of types that have more than `object`. */
const hidden = new Set(
  'class delattr dir doc eq format ge getattribute getstate gt hash init init_subclass le lt ne new reduce reduce_ex repr setattr sizeof str subclasshook'
    .split(' ')
    .map((name) => `__${name}__`),
)

type Attribute = Value | typeof forbidden | undefined
const forbidden = Symbol('forbidden')

/** Python's `getattr`; undefined instead of an AttributeError. */
function attributeOf(value: Value, name: string, work: Work, lookup: Lookup): Attribute {
  if (value instanceof Undefined) return hidden.has(name) ? forbidden : value.fail()
  if (value instanceof Namespace) return value.values.get(name)
  if (name.startsWith('_')) return hidden.has(name) ? forbidden : undefined
  const type = typeName(value)
  if (Object.hasOwn(changing, type) && changing[type]!.has(name)) return forbidden
  if (value instanceof Instance) return value.attribute(name)
  if (isText(value)) {
    if (value instanceof Markup && (name === 'unescape' || name === 'striptags')) {
      throw unsupported(`Markup.${name}`)
    }
    const method = textMethods.get(name)
    if (method === undefined) return undefined
    const text = rawText(value)
    if (value instanceof Markup && name === 'join') {
      // All joined values are escaped first.
      return new Callable('<bound method Markup.join>', (callArgs) => {
        const [items] = positional(name, callArgs, 1, 1)
        const parts = toList(items!, work).map((item) =>
          item instanceof Markup ? item.text : escapeHtml(str(item, work)),
        )
        return new Markup(join(parts, text, work))
      })
    }
    return new Callable(`<built-in method ${name} of ${type} object at 0x7f0000000000>`, (callArgs) => {
      const result = method(text, callArgs, work, lookup)
      return value instanceof Markup ? markupResult(result) : result
    })
  }
  const method = methodOf(value, name, work)
  if (method !== undefined) {
    if (typeof method !== 'function') return method
    return new Callable(`<built-in method ${name} of ${type} object at 0x7f0000000000>`, method)
  }
  if (Object.hasOwn(known, type) && known[type]!.includes(name)) throw unsupported(`${type}.${name}`)
  return undefined
}

type Method = (callArgs: CallArguments) => Value

/** Return the arguments of a method with positional-only parameters. */
function positional(name: string, { args, kwargs }: CallArguments, least: number, most: number): readonly Value[] {
  if (kwargs.size > 0) throw typeError(`${name}() takes no keyword arguments`)
  if (args.length < least || args.length > most) {
    throw typeError(`${name}() takes from ${least} to ${most} arguments (${args.length} callArgs)`)
  }
  return args
}

function methodOf(value: Value, name: string, work: Work): Value | Method | undefined {
  if (value instanceof Dict) return dictMethod(value, name, work)
  if (isList(value) || value instanceof Tuple) {
    const items = isList(value) ? value : value.items
    if (value instanceof Group && name === 'grouper') return items[0]
    if (value instanceof Group && name === 'list') return items[1]
    if (name === 'copy' && isList(value)) return (callArgs) => positional(name, callArgs, 0, 0) && [...value]
    return itemMethod(items, name, typeName(value), work)
  }
  if (value instanceof Range) {
    if (name === 'start' || name === 'stop' || name === 'step') return value[name]
    return name === 'count' || name === 'index' ? itemMethod(toList(value, work), name, 'range', work) : undefined
  }
  if (value instanceof View) {
    if (name === 'mapping') return value.dict
    if (name === 'isdisjoint' && value.kind !== 'values') throw unsupported(`dict_${value.kind}.isdisjoint`)
    return undefined
  }
  if (value instanceof Callable) return value.attribute(name)
  if (isNumber(value)) return numberMethod(plainNumber(value), name)
  return undefined
}

function dictMethod(dict: Dict, name: string, work: Work): Method | undefined {
  switch (name) {
    case 'get':
      return (callArgs) => {
        const [key, standard = null] = positional(name, callArgs, 1, 2)
        return lacking(dict.get(key!), () => standard)
      }
    case 'items':
    case 'keys':
    case 'values':
      return (callArgs) => positional(name, callArgs, 0, 0) && new View(dict, name)
    case 'copy':
      return (callArgs) => positional(name, callArgs, 0, 0) && copied(dict, work)
    case 'fromkeys':
      return (callArgs) => {
        const [keys, value = null] = positional(name, callArgs, 1, 2)
        const result = new Dict()
        for (const key of toList(keys!, work)) result.set(key, value)
        return result
      }
    default:
      return undefined
  }
}

function copied(dict: Dict, work: Work): Dict {
  work.items(dict.size)
  const result = new Dict()
  for (const [key, value] of dict.entries()) result.set(key, value)
  return result
}

function itemMethod(items: readonly Value[], name: string, type: string, work: Work): Method | undefined {
  if (name === 'count') {
    return (callArgs) => {
      const [wanted] = positional(name, callArgs, 1, 1)
      return BigInt(items.filter((item) => equal(item, wanted!, work)).length)
    }
  }
  if (name !== 'index') return undefined
  return (callArgs) => {
    const [wanted, start, stop] = positional(name, callArgs, 1, 3)
    const [from, to] = sliceBounds([start, stop], items.length)
    for (let i = from; i < to; i++) if (equal(items[i]!, wanted!, work)) return BigInt(i)
    throw new JinjaError('ValueError', type === 'list' ? 'the wanted value is not in list' : `${type}.index(x): x not in ${type}`) // biome-ignore format: one line
  }
}

function numberMethod(value: bigint | number, name: string): Value | Method | undefined {
  const isInt = typeof value === 'bigint'
  switch (name) {
    case 'real':
      return value
    case 'imag':
      return isInt ? 0n : 0
    case 'conjugate':
      return () => value
    case 'numerator':
      return isInt ? value : undefined
    case 'denominator':
      return isInt ? 1n : undefined
    case 'is_integer':
      return isInt ? undefined : () => Number.isInteger(value)
    case 'bit_length':
      return isInt ? () => BigInt(value === 0n ? 0 : (value < 0n ? -value : value).toString(2).length) : undefined
    case 'bit_count':
      return isInt ? () => BigInt(value.toString(2).replace(/[^1]/g, '').length) : undefined
    case 'as_integer_ratio':
      if (!isInt) throw unsupported('float.as_integer_ratio')
      return () => new Tuple([value, 1n])
    default:
      return undefined
  }
}

function unsafe(value: Value, name: string): Undefined {
  return new Undefined(`access to attribute '${name}' of '${typeName(value)}' object is unsafe.`, 'SecurityError')
}

/** Return jinja2's description of an object in messages about missing attributes. */
function described(value: Value): string {
  if (value === null) return 'None'
  return value instanceof Namespace || value instanceof Markup || value instanceof Instance
    ? `${modules[typeName(value)] ?? 'jinja2.runtime'}.${typeName(value)} object`
    : `${typeName(value)} object`
}

const modules: Record<string, string> = {
  Markup: 'markupsafe',
  TemplateNamespace: 'transformers.utils.chat_template_utils',
  TemplateDict: 'transformers.utils.chat_template_utils',
  Cycler: 'jinja2.utils',
  Joiner: 'jinja2.utils',
}

const noAttribute = (value: Value, name: string): Undefined =>
  new Undefined(`'${described(value)}' has no attribute '${name}'`)

/** Replace a missing value; None is a value. */
const lacking = (value: Value | undefined, otherwise: () => Value): Value => (value === undefined ? otherwise() : value)

/** Attribute and item access of jinja2's sandbox. */
export class Access implements Lookup {
  constructor(readonly work: Work) {}

  /** `value.name` */
  attribute(value: Value, name: string): Value {
    const attribute = attributeOf(value, name, this.work, this)
    if (attribute === forbidden) return unsafe(value, name)
    return lacking(attribute, () => lacking(itemOf(value, name, this.work), () => noAttribute(value, name)))
  }

  /** `value[key]` */
  item(value: Value, key: Value): Value {
    const item = itemOf(value, key, this.work)
    if (item !== undefined) return item
    if (isText(key)) {
      const name = rawText(key)
      const attribute = attributeOf(value, name, this.work, this)
      if (attribute === forbidden) return unsafe(value, name)
      return lacking(attribute, () => noAttribute(value, name))
    }
    return new Undefined(`${described(value)} has no element ${isInteger(key) ? plainNumber(key) : typeName(key)}`)
  }

  /** `value | attr(name)` */
  ownAttribute(value: Value, name: string): Value {
    const attribute = attributeOf(value, name, this.work, this)
    if (attribute === forbidden) return unsafe(value, name)
    return lacking(attribute, () => noAttribute(value, name))
  }
}

export function call(callee: Value, callArgs: CallArguments): Value {
  if (callee instanceof Undefined) callee.fail()
  if (callee instanceof Callable) return callee.call(callArgs)
  if (callee instanceof Instance && callee.call) return callee.call(callArgs)
  throw typeError(`'${typeName(callee)}' object is not callable`)
}

/** Python's `dict(...)`. */
export function dictOf({ args, kwargs }: CallArguments, work: Work): Dict {
  if (args.length > 1) throw typeError(`dict expected at most 1 argument, got ${args.length}`)
  const [first] = args
  let dict = new Dict()
  if (first instanceof Dict) dict = copied(first, work)
  else if (first !== undefined) {
    let index = 0
    const items = iterate(first, work)
    for (let item = items.next(); !item.done; item = items.next(), index++) {
      const pair = toList(item.value, work)
      if (pair.length !== 2) {
        throw new JinjaError(
          'ValueError',
          `dictionary update sequence element #${index} has length ${pair.length}; 2 is required`,
        )
      }
      dict.set(pair[0]!, pair[1]!)
    }
  }
  for (const [key, value] of kwargs) dict.set(key, value)
  return dict
}

/** Set an attribute of a namespace, whose names transformers restricts. */
export function setAttribute(namespace: Namespace, name: string, value: Value): void {
  if (name.startsWith('_')) {
    throw new JinjaError(
      'SecurityError',
      `Chat templates cannot store underscore-prefixed attributes on a namespace, but got '${name}'. Please rename the attribute.`,
    )
  }
  namespace.values.set(name, value)
}
