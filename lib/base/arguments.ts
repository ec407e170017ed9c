import { asTyped, ConfigError } from './errors.js'
import { didYouMean } from './words.js'

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

/** Something that is going to be called. */
export function requireFunction<F>(fn: F): F {
  if (typeof fn !== 'function') throw new ConfigError(`a function was expected, not ${shown(fn)}`)
  return fn
}

/** Options that are going to be taken apart: an object, or left out. */
export function optionsOf<O extends object>(options: O, where?: string, known: readonly string[] = []): O {
  if (typeof options !== 'object' || options === null)
    throw new ConfigError(`options must be an object, not ${shown(options)}`)
  if (where !== undefined) requireKnown(where, options, known)
  return options
}

/** Refuses an option that nobody reads. An instance of a class may have more fields than it is asked for. */
export function requireKnown(where: string, options: object, known: readonly string[]): void {
  let keys: string[]
  try {
    const kind = Object.getPrototypeOf(options)
    if (kind !== null && Object.getPrototypeOf(kind) !== null && !Array.isArray(options)) return
    keys = Object.keys(options)
  } catch (error) {
    throw asTyped(where, error)
  }
  for (const key of keys) {
    if (known.includes(key)) continue
    throw new ConfigError(`${where}: there is no option '${key}'${didYouMean(key, known)}`, { key })
  }
}
