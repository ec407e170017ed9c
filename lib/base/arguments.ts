import { ConfigError, VoxtorchError } from './errors.js'
import { didYouMean, shortened, withArticle } from './words.js'

/** Describe a value for an error message. Never throws. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 1000 ? `${value.slice(0, 100)}…` : value)
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'object' || value === null) return String(value)
  try {
    if (Array.isArray(value)) return `an array of length ${value.length}`
    const name: unknown = value.constructor?.name
    return typeof name === 'string' && name !== '' ? withArticle(name) : 'a null-prototype object'
  } catch {
    // The traps of a proxy may throw.
    return 'an object that cannot be read'
  }
}

/**
 * Return a VoxtorchError for a value thrown while arguments were read. Proxies and getters of a caller may throw anything,
 * which becomes the `cause` of a ConfigError.
 */
export function asTyped(where: string, thrown: unknown): VoxtorchError {
  let reason = 'a value that is not an Error'
  try {
    if (thrown instanceof VoxtorchError) return thrown
    if (thrown instanceof Error && typeof thrown.message === 'string') reason = thrown.message.slice(0, 500)
  } catch {
    // The thrown value may itself be a proxy whose traps throw.
  }
  return new ConfigError(`${where}: expected arguments that can be read, got one that throws: ${reason}`, {
    cause: thrown,
  })
}

/** Check that a value is a function, and return it. */
export function requireFunction<F>(fn: F): F {
  if (typeof fn !== 'function') throw new ConfigError(`expected a function, got ${shown(fn)}`)
  return fn
}

/**
 * Check that options are an object, and copy the known ones. Without `known` return the object itself.
 * @throws ConfigError if the value is not an object of options (see {@link requireRecord}), if an option is unknown, or if reading it throws
 */
export function optionsOf<O extends object>(options: O, where: string, known?: readonly string[]): O {
  requireRecord(where, options, known)
  if (known === undefined) return options
  requireKnown(where, options, known)
  try {
    const read = known.map((name) => [name, Reflect.get(options, name)] as const)
    return Object.fromEntries(read.filter(([, value]) => value !== undefined)) as O
  } catch (error) {
    throw asTyped(where, error)
  }
}

/**
 * Check that a value is an object of options, or of other values by name. An instance of a class, such as a Tensor or a Map, would
 * be read as one without any, so it is refused unless one of its own fields is a known option.
 */
export function requireRecord(
  where: string,
  options: unknown,
  known: readonly string[] = [],
  argument = 'options',
): void {
  try {
    if (typeof options === 'object' && options !== null && isRecord(options, known)) return
  } catch (error) {
    throw asTyped(where, error)
  }
  const names = known.length > 3 ? [...known.slice(0, 3), '…'] : known
  const advice = names.length > 0 ? `. Write { ${names.join(', ')} }.` : ''
  throw new ConfigError(`${where}: expected ${argument} to be an object, got ${shown(options)}${advice}`, {
    argument,
    value: options,
  })
}

function isRecord(options: object, known: readonly string[]): boolean {
  if (Array.isArray(options)) return false
  const kind = Object.getPrototypeOf(options)
  if (kind === null || Object.getPrototypeOf(kind) === null) return true
  return known.some((name) => Object.hasOwn(options, name)) || Reflect.get(options, 'constructor') === Object
}

/** Check that an object has only known options. An instance of a class may have other fields. */
export function requireKnown(where: string, options: object, known: readonly string[]): void {
  let keys: string[]
  try {
    const kind = Object.getPrototypeOf(options)
    if (kind !== null && Object.getPrototypeOf(kind) !== null && !Array.isArray(options)) return
    keys = Object.keys(options)
    // A getter that throws would otherwise throw where the options are destructured.
    for (const name of known) Reflect.get(options, name)
  } catch (error) {
    throw asTyped(where, error)
  }
  for (const key of keys) {
    if (known.includes(key)) continue
    throw new ConfigError(`${where}: expected a known option, got '${shortened(key)}'${didYouMean(key, known)}`, {
      key,
    })
  }
}
