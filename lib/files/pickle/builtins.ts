import { mapMayGrow, tooMuch } from '../../base/heap.js'
import { Payload } from './feed.js'
import { Callable, Marker, OldString, PyDict, PyRecord, type Site } from './objects.js'
import { Resolved } from './resolvers.js'
import { encodeLatin1 } from './text.js'

/** Global names by `module:name`, which is unambiguous. */
export type Globals = Map<string, Callable | Marker>

export function callable(module: string, name: string, call: Callable['call']): [string, Callable] {
  return [`${module}:${name}`, new Callable(`${module}.${name}`, call)]
}

export function marker(module: string, name: string, value?: string): [string, Marker] {
  return [`${module}:${name}`, new Marker(`${module}.${name}`, value)]
}

/** Return bytes where bytes are expected, also from the text that a Python 2 string became. */
export function bytesOf(value: unknown, site: Site): Uint8Array | Payload {
  if (value instanceof Uint8Array || value instanceof Payload) return value
  if (value instanceof OldString) return value.bytes
  if (typeof value === 'string') return latin1(value, site)
  throw site.error('expected bytes')
}

function latin1(text: string, site: Site): Uint8Array {
  site.charge(text.length)
  const bytes = encodeLatin1(text)
  if (bytes === undefined) throw site.error('expected bytes written as latin1 text, got other characters')
  return new Uint8Array(bytes)
}

function listOf(value: unknown, name: string, site: Site): readonly unknown[] {
  if (!Array.isArray(value)) throw site.error(`expected a list for a ${name}`, { global: name })
  site.charge(value.length)
  return value
}

function noArguments(name: string, args: readonly unknown[], site: Site): void {
  if (args.length > 0) throw site.error(`expected a call of ${name} without arguments`, { global: name })
}

function makeSet(args: readonly unknown[], site: Site): Set<unknown> {
  const set = new Set()
  for (const item of args.length === 0 ? [] : listOf(args[0], 'set', site)) {
    if (!mapMayGrow(set.size)) throw site.error(tooMuch())
    set.add(item)
  }
  return set
}

/** Build bytes() and bytearray(), as protocols 0 to 2 write them. */
function makeBytes(args: readonly unknown[], site: Site): Uint8Array | Payload {
  const [value, encoding] = args
  if (args.length === 0) return new Uint8Array(0)
  const bytes =
    value instanceof Payload && value.form === 'utf8' ? encode([value, encoding], site) : bytesOf(value, site)
  return bytes instanceof Uint8Array ? Uint8Array.from(bytes) : bytes
}

/** Apply `_codecs.encode(text, 'latin1')`: bytes in protocols without a bytes type. */
function encode(args: readonly unknown[], site: Site): Uint8Array | Payload {
  const [text, encoding] = args
  if (typeof encoding !== 'string' || !/^(latin-?1|iso-?8859-1)$/i.test(encoding)) {
    throw site.error('expected a text encoded in latin1', { global: '_codecs.encode' })
  }
  if (text instanceof Payload && text.form === 'utf8') {
    site.charge(text.length)
    return text.as('latin1')
  }
  if (typeof text !== 'string') throw site.error('expected a text to encode', { global: '_codecs.encode' })
  return latin1(text, site)
}

function makeComplex(args: readonly unknown[], site: Site): { re: number; im: number } {
  const [re, im] = args
  if (typeof re !== 'number' || typeof im !== 'number') throw site.error('expected two numbers for a complex number')
  return { re, im }
}

function makeDict(args: readonly unknown[], site: Site): PyDict {
  const dict = new PyDict()
  if (args.length === 0) return dict
  for (const pair of listOf(args[0], 'collections.OrderedDict', site)) {
    if (!Array.isArray(pair) || pair.length !== 2) throw site.error('expected pairs for an OrderedDict')
    if (!mapMayGrow(dict.size)) throw site.error(tooMuch())
    dict.set(pair[0], pair[1])
  }
  return dict
}

/** Build a Counter, which is written with its dict. */
function makeCounter(args: readonly unknown[], site: Site): PyDict {
  if (args.length === 0) return new PyDict()
  if (!(args[0] instanceof PyDict)) throw site.error('expected a dict for a Counter')
  return args[0]
}

function makeDefaultDict(args: readonly unknown[], site: Site): PyDict {
  const [factory = null, ...items] = args
  if (factory !== null && !(factory instanceof Marker) && !(factory instanceof Callable)) {
    throw site.error('expected a type as default of a defaultdict')
  }
  return makeDict(items, site)
}

const object = marker('builtins', 'object')

/** Apply `copyreg._reconstructor(cls, object, None)`: an instance in protocols 0 and 1. */
function reconstruct(args: readonly unknown[], site: Site): unknown {
  const [target, base, state] = args
  if (target instanceof Resolved && base === object[1] && state === null) return target.by.call(target, [], true, site)
  if (target instanceof Callable && target.name.startsWith(RECORD) && base === object[1] && state === null) {
    return target.call([], site)
  }
  const name = target instanceof Callable || target instanceof Marker ? target.name : 'a value that is not a class'
  throw site.error(`it rebuilds ${name}, which is not allowed`, { global: 'copyreg._reconstructor' })
}

const RECORD = 'record '

/** Return a class whose instances are read as their fields. */
export function recordClass(name: string): Callable {
  return new Callable(`${RECORD}${name}`, (args, site) => {
    noArguments(name, args, site)
    return new PyRecord(name)
  })
}

/** Names that plain Python data needs. */
export const builtinGlobals: Globals = new Map<string, Callable | Marker>([
  callable('_codecs', 'encode', encode),
  callable('builtins', 'bytearray', makeBytes),
  callable('builtins', 'bytes', makeBytes),
  callable('builtins', 'complex', makeComplex),
  callable('builtins', 'frozenset', makeSet),
  callable('builtins', 'set', makeSet),
  callable('collections', 'Counter', makeCounter),
  callable('collections', 'OrderedDict', makeDict),
  callable('collections', 'defaultdict', makeDefaultDict),
  callable('copyreg', '_reconstructor', reconstruct),
  ...['bool', 'dict', 'float', 'int', 'list', 'str', 'tuple'].map((name) => marker('builtins', name)),
  object,
])

/** Return the name of a module that has other names in other versions. */
export function moduleName(module: string): string {
  if (module === '__builtin__') return 'builtins'
  if (module === 'copy_reg') return 'copyreg'
  return module.startsWith('numpy._core.') ? `numpy.core.${module.slice(12)}` : module
}
