import { ConfigError, VoxtorchError } from './errors.js'
import { didYouMean, shortened } from './words.js'

/** What an argument is, for an error: never throws, whatever it is. */
export function shown(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 1000 ? `${value.slice(0, 100)}…` : value)
  if (typeof value === 'function') return 'a function'
  if (typeof value !== 'object' || value === null) return String(value)
  try {
    if (Array.isArray(value)) return `an array of ${value.length}`
    const name: unknown = value.constructor?.name
    return typeof name === 'string' && name !== '' ? `a ${name}` : 'a null-prototype object'
  } catch {
    // A proxy may refuse every question.
    return 'an object that cannot be looked at'
  }
}

/**
 * Return what was thrown while arguments were read as an error of ours: proxies and getters of a caller throw anything, which
 * becomes the `cause` of a ConfigError.
 */
export function asTyped(where: string, thrown: unknown): VoxtorchError {
  let reason = 'something that is no Error'
  try {
    if (thrown instanceof VoxtorchError) return thrown
    if (thrown instanceof Error && typeof thrown.message === 'string') reason = thrown.message.slice(0, 500)
  } catch {
    // What was thrown may itself refuse to be looked at.
  }
  return new ConfigError(`${where}: expected arguments that can be read, got one that throws: ${reason}`, {
    cause: thrown,
  })
}

/** Something that is going to be called. */
export function requireFunction<F>(fn: F): F {
  if (typeof fn !== 'function') throw new ConfigError(`a function was expected, not ${shown(fn)}`)
  return fn
}

/** Options that are going to be taken apart: an object, or left out. Those that are known are read here, where it may fail. */
export function optionsOf<O extends object>(options: O, where?: string, known: readonly string[] = []): O {
  if (typeof options !== 'object' || options === null)
    throw new ConfigError(`options must be an object, not ${shown(options)}`)
  if (where === undefined) return options
  requireKnown(where, options, known)
  try {
    const read = known.map((name) => [name, Reflect.get(options, name)] as const)
    return Object.fromEntries(read.filter(([, value]) => value !== undefined)) as O
  } catch (error) {
    throw asTyped(where, error)
  }
}

/** Refuses an option that nobody reads. An instance of a class may have more fields than it is asked for. */
export function requireKnown(where: string, options: object, known: readonly string[]): void {
  let keys: string[]
  try {
    const kind = Object.getPrototypeOf(options)
    if (kind !== null && Object.getPrototypeOf(kind) !== null && !Array.isArray(options)) return
    keys = Object.keys(options)
    // Whoever takes the options apart would meet what a getter throws.
    for (const name of known) Reflect.get(options, name)
  } catch (error) {
    throw asTyped(where, error)
  }
  for (const key of keys) {
    if (known.includes(key)) continue
    throw new ConfigError(`${where}: there is no option '${shortened(key)}'${didYouMean(key, known)}`, { key })
  }
}
