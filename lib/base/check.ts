import { asTyped, optionsOf, requireKnown, requireRecord, shown } from './arguments.js'
import { ConfigError } from './errors.js'
import { LONGEST_LIST, listMayGrow, tooMuch } from './heap.js'

export { shown }

/** Return the error for a wrong argument: `<where>: expected <argument> to be <expected>, got <value>`. */
export function argumentError(where: string, argument: string, expected: string, value: unknown): ConfigError {
  return new ConfigError(`${where}: expected ${argument} to be ${expected}, got ${shown(value)}`, { argument, value })
}

export interface Range {
  least?: number
  /** Exclusive upper bound. */
  below?: number
}

export function requireNumber(where: string, argument: string, value: unknown, { least, below }: Range = {}): void {
  const good =
    typeof value === 'number' &&
    !Number.isNaN(value) &&
    !(least !== undefined && value < least) &&
    !(below !== undefined && value >= below)
  if (good) return
  const bounds = [least !== undefined && `of at least ${least}`, below !== undefined && `below ${below}`].filter(
    Boolean,
  )
  throw argumentError(where, argument, ['a number', bounds.join(' and ')].filter(Boolean).join(' '), value)
}

export function requireWhole(where: string, argument: string, value: unknown, least = 0): void {
  if (!Number.isSafeInteger(value) || (value as number) < least) {
    throw argumentError(where, argument, `an integer of at least ${least}`, value)
  }
}

export function requireBoolean(where: string, argument: string, value: unknown): void {
  if (typeof value !== 'boolean') throw argumentError(where, argument, 'true or false', value)
}

export function requireString(where: string, argument: string, value: unknown): void {
  if (typeof value !== 'string') throw argumentError(where, argument, 'a string', value)
}

export function requireFunction(where: string, argument: string, value: unknown): void {
  if (typeof value !== 'function') throw argumentError(where, argument, 'a function', value)
}

export function requireObject(where: string, argument: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) throw argumentError(where, argument, 'an object', value)
}

/**
 * Check that options are an object without unknown fields. An instance of a class with a known field may have more, such as the
 * module in `functional.dropout(x, 0.1, this)`.
 */
export function requireOptions(where: string, options: unknown, known: readonly string[]): void {
  requireRecord(where, options, known)
  requireKnown(where, options as object, known)
}

/**
 * Return options with their defaults.
 * @param defaults all options, with undefined for one without a default
 * @param others more known options, which are not returned
 * @throws ConfigError for an unknown option, and for a value other than a number where the default is one
 */
export function withDefaults<O extends object, const D extends { [K in keyof Required<O>]: O[K] | undefined }>(
  where: string,
  options: O,
  defaults: D,
  others: readonly string[] = [],
): { [K in keyof Required<O> & keyof D]: undefined extends D[K] ? O[K] : Exclude<O[K], undefined> } {
  const values: Record<string, unknown> = {
    ...defaults,
    ...optionsOf(options, where, [...Object.keys(defaults), ...others]),
  }
  const read = Object.entries(defaults).map(([name, preset]) => {
    const value = values[name]
    if (typeof preset === 'number') requireNumber(where, name, value)
    return [name, value]
  })
  return Object.fromEntries(read) as never
}

/** Check that a value is one of the allowed strings. */
export function requireOneOf(where: string, argument: string, value: unknown, words: readonly string[]): void {
  if (!words.includes(value as string))
    throw argumentError(where, argument, words.map((word) => `'${word}'`).join(', '), value)
}

/**
 * Return whether a value has elements 0 to length - 1: an array, a typed array, or an object with at least `length` keys. Only
 * the first and last elements of an array are checked; {@link elementsOf} finds holes.
 */
export function isArrayLike(value: unknown): value is ArrayLike<unknown> {
  if (typeof value !== 'object' || value === null) return false
  try {
    if (ArrayBuffer.isView(value)) return !(value instanceof DataView)
    const length = Number((value as { length?: unknown }).length)
    if (!Number.isInteger(length) || length < 0 || length > LONGEST_LIST) return false
    if (Array.isArray(value)) return length === 0 || (0 in value && length - 1 in value)
    return Object.keys(value).length >= length
  } catch {
    // The traps of a proxy may throw.
    return false
  }
}

/** Return whether a value is an array with its first and last elements. False for a proxy whose traps throw. */
export function isList(value: unknown): value is unknown[] {
  return isArrayLike(value) && Array.isArray(value)
}

/**
 * Copy the elements of an array-like through `read`, which throws on an invalid element, `undefined` included. A false
 * `length` therefore allocates no memory beyond the elements that exist.
 * @throws ConfigError if there are more elements than a list may hold, or if reading one fails
 */
export function elementsOf<T>(
  where: string,
  argument: string,
  list: ArrayLike<unknown>,
  read: (value: unknown, index: number) => T,
): T[] {
  const elements: T[] = []
  try {
    for (let i = 0; i < list.length; i++) {
      if (!listMayGrow(i))
        throw new ConfigError(`${where}: expected ${argument} to be shorter; ${tooMuch()}`, { argument })
      elements.push(read(list[i], i))
    }
  } catch (cause) {
    throw asTyped(`${where}, ${argument}`, cause)
  }
  return elements
}

/** Return a `read` function for {@link elementsOf} that takes any element but `undefined`. */
export const present =
  (where: string, argument: string) =>
  <T>(value: T, index: number): T => {
    if (value !== undefined) return value
    throw argumentError(where, `${argument}[${index}]`, 'defined, since a list has no holes', value)
  }

/** Return a field of any value; undefined if it is missing or reading it throws, as with a revoked proxy. */
export function fieldOf(value: unknown, name: PropertyKey): unknown {
  try {
    return (value as Record<PropertyKey, unknown> | null | undefined)?.[name]
  } catch {
    return undefined
  }
}

/** Return bytes as a Uint8Array. @throws ConfigError if their memory was transferred to another thread */
export function bytesOf(where: string, argument: string, value: Uint8Array | ArrayBuffer): Uint8Array {
  if (value instanceof Uint8Array) return value
  try {
    return new Uint8Array(value)
  } catch {
    throw argumentError(where, argument, 'bytes that were not transferred to another thread', value)
  }
}

/** Return the items of an iterable as an array. @throws ConfigError for a list with holes, or more items than a list may hold */
export function listOf<T>(where: string, argument: string, value: Iterable<T>, what: string): T[] {
  if (typeof value === 'string' || typeof fieldOf(value, Symbol.iterator) !== 'function') {
    throw argumentError(where, argument, `an iterable of ${what}`, value)
  }
  // Iterating a typed array whose memory was transferred to another thread throws; its length is 0.
  if (ArrayBuffer.isView(value) && value.byteLength === 0) return []
  if (Array.isArray(value)) {
    return elementsOf(where, argument, value, (item, i) => {
      if (item === undefined && !(i in value))
        throw argumentError(where, argument, `a list without holes, as at [${i}]`, value)
      return item as T
    })
  }
  const items: T[] = []
  for (const item of value) {
    if (!listMayGrow(items.length))
      throw new ConfigError(`${where}: ${argument} does not end; ${tooMuch()}`, { argument })
    items.push(item)
  }
  return items
}

/** Check an abort signal, which may be left out. Signals of a polyfill are accepted: only their methods are checked. */
export function requireSignal(where: string, signal: unknown): void {
  if (signal === undefined || signal === null) return
  const { throwIfAborted, addEventListener } = signal as Partial<AbortSignal>
  if (typeof throwIfAborted === 'function' && typeof addEventListener === 'function') return
  throw argumentError(where, 'signal', 'an AbortSignal', signal)
}

/** Return a promise that rejects when the signal aborts. The job itself keeps running, and its result is ignored. */
export function abortable<T>(signal: AbortSignal | undefined, job: Promise<T>): Promise<T> {
  if (!signal) return job
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason)
    if (signal.aborted) stop()
    signal.addEventListener('abort', stop, { once: true })
    job.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop))
  })
}

type Defined<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>
}

/** Return an object without its undefined fields, so that a callee's defaults apply. */
export const defined = <T extends object>(values: T): Defined<T> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never
