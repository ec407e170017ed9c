import { setImmediate } from 'node:timers/promises'
import { listMayGrow, tooMuch } from '../../base/heap.js'
import { PyDict, type Site } from './objects.js'

/**
 * Resolvers of the caller for names that are not data. Their interfaces are those of npm's pickleparser, so that code for one
 * reader works with the other.
 */

type Resolvable = (new (...args: never[]) => unknown) | ((...args: never[]) => unknown)

/** Returns the class or function for a name in a pickle. */
export interface PickleNameResolver {
  /** Resolve a name. Undefined leaves it to the reader: data is read as usual, anything else is an error. */
  resolve(module: string, name: string): Resolvable | undefined
}

/** Returns the object outside the pickle for an id of Python's `persistent_id`. */
export interface PicklePersistentResolver {
  /** @param pid value of `persistent_id`, as a {@link PickleValue}; a string in protocol 0 */
  resolve(pid: unknown): unknown
}

/** Returns the class or function for a code of Python's `copyreg.add_extension`. */
export interface PickleExtensionResolver {
  resolve(extCode: number): unknown
}

export interface PickleResolvers {
  nameResolver?: PickleNameResolver | undefined
  persistentResolver?: PicklePersistentResolver | undefined
  extensionResolver?: PickleExtensionResolver | undefined
}

const MOST_ARGUMENTS = 2 ** 16 - 1

/** Value from the caller's code: known at once for a name or a code, otherwise after the file has been read. */
export class Resolved {
  /** Whether the value is known. */
  known = false
  value: unknown
  private readonly puts: ((value: unknown) => void)[] = []

  constructor(
    /** Its name in errors. */
    readonly name: string,
    readonly by: Resolving,
    /** Whether the file created it, and so may change it. */
    readonly isMade: boolean,
  ) {}

  give(value: unknown): void {
    this.known = true
    this.value = value
    for (const put of this.puts.splice(0)) put(value)
  }

  /** Return the value, or null until `put` is called with it. */
  settle(put: (value: unknown) => void): unknown {
    if (this.known) return this.value
    this.puts.push(put)
    return null
  }
}

/**
 * Calls that a pickle requests, in its order. They run after all of it has been read, when the arguments are in the caller's
 * form: while the machine runs, arrays are still in the file and dicts are incomplete.
 */
export class Resolving {
  /** Argument lists of calls; {@link finish} replaces their items by the caller's values. */
  readonly held: unknown[][] = []
  private readonly steps: (() => void)[] = []

  constructor(private readonly resolvers: PickleResolvers) {}

  get hasPersistent(): boolean {
    return this.resolvers.persistentResolver !== undefined
  }

  name(module: string, name: string): Resolved | undefined {
    const value: unknown = this.resolvers.nameResolver?.resolve(module, name)
    return value === undefined ? undefined : this.fixed(`${module}.${name}`, value)
  }

  extension(code: number, site: Site): Resolved {
    const { extensionResolver } = this.resolvers
    if (extensionResolver === undefined) {
      throw site.error('it uses the extension registry of the Python that wrote it. Pass an extensionResolver')
    }
    if (code <= 0) throw site.error(`it uses the extension code ${code}; they begin at 1`)
    const value = extensionResolver.resolve(code)
    if (value === undefined)
      throw site.error(`expected the extensionResolver to return a value for extension code ${code}, got undefined`)
    return this.fixed(`extension ${code}`, value)
  }

  persistent(id: unknown, site: Site): Resolved {
    const resolved = new Resolved('an object outside the pickle', this, false)
    const held = this.hold([id], site)
    this.step(site, () => resolved.give(this.resolvers.persistentResolver!.resolve(held[0])))
    return resolved
  }

  /** Call a function, or with `construct` a class. */
  call(target: Resolved, args: unknown, construct: boolean, site: Site, keywords?: PyDict): Resolved {
    const { name } = target
    if (!Array.isArray(args) || args.length > MOST_ARGUMENTS) {
      throw site.error(`it calls ${name} without a list of arguments, or with one of more than ${MOST_ARGUMENTS}`)
    }
    const resolved = new Resolved(`the result of ${name}`, this, true)
    this.hold(args, site)
    const held = this.hold([keywords ?? null], site)
    this.step(site, (fail) => {
      const { value } = target
      if (typeof value !== 'function') throw fail(`expected ${name} to be a function`)
      if ((construct || isClass(value)) && !isConstructor(value)) {
        throw fail(`expected ${name} to be a class`)
      }
      const result =
        construct || isClass(value) ? Reflect.construct(value, args) : Reflect.apply(value, undefined, args)
      if (keywords !== undefined && keywords.size > 0) giveKeywords(result, held[0], () => fail(needs(name, KEYWORDS)))
      resolved.give(result)
    })
    return resolved
  }

  /** Give an object its state: with its `__setstate__`, or as fields. */
  build(target: Resolved, state: unknown, site: Site): void {
    for (const part of [state].flat()) if (part instanceof PyDict) site.charge(part.size)
    const held = this.hold([state], site)
    this.change(target, site, (object, fail) => {
      const [given] = held
      if (typeof object.__setstate__ === 'function') object.__setstate__(given)
      // With __slots__ the state is a pair: the dict and the slots.
      else for (const part of Array.isArray(given) && given.length === 2 ? given : [given]) fill(object, part, fail)
    })
    const fill = (object: Fields, part: unknown, fail: Fail): void => {
      if (part === null) return
      const isFields = part instanceof Map || (typeof part === 'object' && Object.getPrototypeOf(part) === null)
      if (!isFields) throw fail(`expected a dict as state of ${target.name}; ${needs('its class', '__setstate__')}`)
      for (const [key, value] of part instanceof Map ? part : Object.entries(part as object))
        setField(object, key, value, fail)
    }
  }

  /** Apply APPENDS, SETITEMS and ADDITEMS to an object of a caller's class, such as one that extends Array or Map. */
  extend(target: Resolved, how: 'push' | 'set' | 'add', items: unknown[], site: Site): void {
    this.hold(items, site)
    this.change(target, site, (object, fail) => {
      const method = how === 'add' && typeof object.add !== 'function' ? 'push' : how
      if (typeof object[method] === 'function') {
        const width = how === 'set' ? 2 : 1
        for (let i = 0; i < items.length; i += width) object[method](...items.slice(i, i + width))
      } else if (how === 'set') for (let i = 0; i < items.length; i += 2) setField(object, items[i], items[i + 1], fail)
      else throw fail(`expected a method ${method} of ${target.name}, which the pickle adds items to`)
    })
  }

  /** Run the calls. */
  async run(): Promise<void> {
    let until = performance.now() + 10
    for (const [i, step] of this.steps.entries()) {
      step()
      if (i % 100 === 0 && performance.now() > until) {
        await setImmediate()
        until = performance.now() + 10
      }
    }
  }

  private fixed(name: string, value: unknown): Resolved {
    const resolved = new Resolved(name, this, false)
    resolved.give(value)
    return resolved
  }

  private hold<T extends unknown[]>(list: T, site: Site): T {
    site.charge(list.length)
    if (!listMayGrow(this.held.length)) throw site.error(tooMuch())
    this.held.push(list)
    return list
  }

  private change(target: Resolved, site: Site, work: (object: Fields, fail: Fail) => void): void {
    const { name, isMade } = target
    if (!isMade) throw site.error(`it changes ${name}, which it did not create`)
    this.step(site, (fail) => {
      const { value } = target
      if ((typeof value !== 'object' && typeof value !== 'function') || value === null) {
        throw fail(`expected ${name}, which the pickle changes, to be an object`)
      }
      work(value as Fields, fail)
    })
  }

  private step(site: Site, work: (fail: Fail) => void): void {
    if (!listMayGrow(this.steps.length)) throw site.error(tooMuch())
    const { place, position: byte } = site
    this.steps.push(() =>
      work((what, fields) => place.error(`byte ${byte} of the pickle: ${what}`, { byte, ...fields })),
    )
  }
}

type Fail = (what: string, fields?: Record<string, unknown>) => Error
// biome-ignore lint/suspicious/noExplicitAny: any object of the caller.
type Fields = Record<string, any>

const KEYWORDS = '__setnewargs_ex__'
const needs = (name: string, method: string): string => `${name} needs a method ${method} for it`

/** Pass the keywords of `new` as pickleparser does: the arguments first, then a call with the dict of keywords. */
function giveKeywords(object: unknown, keywords: unknown, fail: () => Error): void {
  const method: unknown = (object as Fields | null)?.[KEYWORDS]
  if (typeof method !== 'function') throw fail()
  method.call(object, keywords)
}

/** Set a field like an assignment, except for the name that would set the prototype. */
function setField(object: Fields, key: unknown, value: unknown, fail: Fail): void {
  if (typeof key !== 'string' && typeof key !== 'number') throw fail('expected a name for each field')
  try {
    if (key !== '__proto__') object[key] = value
    else Object.defineProperty(object, key, { value, enumerable: true, configurable: true, writable: true })
  } catch (cause) {
    throw fail(`it sets the field ${key}: ${(cause as Error).message}`, { cause })
  }
}

/** Return whether a value is a class, which can only be called with `new`. */
const isClass = (value: object): boolean => /^class\b/.test(Function.prototype.toString.call(value))

function isConstructor(value: unknown): value is new (...args: unknown[]) => unknown {
  try {
    Reflect.construct(Object, [], value as never)
    return true
  } catch {
    return false
  }
}
