import { asTyped, requireKnown, shown } from './arguments.js'
import { ConfigError } from './errors.js'
import { LONGEST_LIST, listMayGrow, tooMuch } from './heap.js'

export { shown }

/** One sentence shape everywhere: where, which argument, what was expected, what came. */
export function misuse(where: string, argument: string, expected: string, value: unknown): ConfigError {
  return new ConfigError(`${where}: ${argument} must be ${expected}, not ${shown(value)}`, { argument, value })
}

export interface Range {
  least?: number
  /** The value must be lower. */
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
  throw misuse(where, argument, ['a number', bounds.join(' and ')].filter(Boolean).join(' '), value)
}

export function requireWhole(where: string, argument: string, value: unknown, least = 0): void {
  if (!Number.isSafeInteger(value) || (value as number) < least) {
    throw misuse(where, argument, `a whole number of at least ${least}`, value)
  }
}

export function requireString(where: string, argument: string, value: unknown): void {
  if (typeof value !== 'string') throw misuse(where, argument, 'a string', value)
}

export function requireFunction(where: string, argument: string, value: unknown): void {
  if (typeof value !== 'function') throw misuse(where, argument, 'a function', value)
}

export function requireObject(where: string, argument: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) throw misuse(where, argument, 'an object', value)
}

/**
 * Options are an object, and none is one that nobody reads. An instance of a class may have more, as the module in
 * `functional.dropout(x, 0.1, this)` does.
 */
export function requireOptions(where: string, options: unknown, known: readonly string[]): void {
  requireObject(where, 'options', options)
  requireKnown(where, options as object, known)
}

/** Checks one of a few words. */
export function requireOneOf(where: string, argument: string, value: unknown, words: readonly string[]): void {
  if (!words.includes(value as string))
    throw misuse(where, argument, words.map((word) => `'${word}'`).join(', '), value)
}

/**
 * Whether something has elements 0 to length - 1: an array, a typed array, or an object that holds as many as its `length`
 * claims. Of arrays only the ends are looked at; {@link elementsOf} finds any hole.
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
    // A proxy may refuse every question.
    return false
  }
}

/** Whether something is an array with its ends; false, too, of a proxy that refuses to say. */
export function isList(value: unknown): value is unknown[] {
  return isArrayLike(value) && Array.isArray(value)
}

/**
 * Copy the elements of an array-like through `read`, which throws on an element it does not take, `undefined` included: so
 * a `length` is believed only as far as there are elements, and takes no memory beyond them.
 * @throws ConfigError for more than a list may hold, and where reading an element fails
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
      if (!listMayGrow(i)) throw new ConfigError(`${where}: ${argument} is too long; ${tooMuch()}`, { argument })
      elements.push(read(list[i], i))
    }
  } catch (cause) {
    throw asTyped(`${where}, ${argument}`, cause)
  }
  return elements
}

/** `read` of {@link elementsOf} for elements of any kind. */
export const present =
  (where: string, argument: string) =>
  <T>(value: T, index: number): T => {
    if (value !== undefined) return value
    throw misuse(where, `${argument}[${index}]`, 'there: the list has a hole', value)
  }

/** A field of anything, undefined where there is none or reading it fails, as of a revoked proxy. */
export function fieldOf(value: unknown, name: PropertyKey): unknown {
  try {
    return (value as Record<PropertyKey, unknown> | null | undefined)?.[name]
  } catch {
    return undefined
  }
}

/** Bytes that a caller handed over. @throws ConfigError where their memory went to another thread */
export function bytesOf(where: string, argument: string, value: Uint8Array | ArrayBuffer): Uint8Array {
  if (value instanceof Uint8Array) return value
  try {
    return new Uint8Array(value)
  } catch {
    throw misuse(where, argument, 'bytes that were not transferred to another thread', value)
  }
}

/** The items of something iterable. */
export function listOf<T>(where: string, argument: string, value: Iterable<T>, what: string): T[] {
  if (typeof value === 'string' || typeof fieldOf(value, Symbol.iterator) !== 'function') {
    throw misuse(where, argument, `an iterable of ${what}`, value)
  }
  // Of a typed array whose memory went to another thread nothing is left, and to go through it throws.
  if (ArrayBuffer.isView(value) && value.byteLength === 0) return []
  if (Array.isArray(value)) {
    return elementsOf(where, argument, value, (item, i) => {
      if (item === undefined && !(i in value))
        throw misuse(where, argument, `a list without holes, as at [${i}]`, value)
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

/** Checks what may abort something; nothing is right too. A polyfill's signals are no AbortSignal, and work. */
export function requireSignal(where: string, signal: unknown): void {
  if (signal === undefined || signal === null) return
  const { throwIfAborted, addEventListener } = signal as Partial<AbortSignal>
  if (typeof throwIfAborted === 'function' && typeof addEventListener === 'function') return
  throw misuse(where, 'signal', 'an AbortSignal', signal)
}

/** Rejects as soon as the signal says so; what runs meanwhile is nobody's business any more. */
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

/** Without what is undefined, so that a receiver's defaults hold. */
export const defined = <T extends object>(values: T): Defined<T> =>
  Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as never
