import { asTyped, optionsOf, shown } from '../base/arguments.js'
import { requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { isOptions } from '../native/encode.js'
import { isHandle } from '../native/handle.js'

/** Options as an argument, which may be left out where none of them is required. */
type Named<O> = Record<never, never> extends O ? [options?: O] : [options: O]

/** Arguments by position in the order of `N`, any number of them, then the others by name. */
type Arguments<O, N extends readonly unknown[]> = N extends readonly [infer Name extends keyof O, ...infer Rest]
  ? Named<O> | [value: O[Name], ...rest: Arguments<Omit<O, Name>, Rest>]
  : Named<O>

/** A function of tensors `R` and options `O`, which may also be passed by position in the order of `N`. */
export type ByPosition<R extends unknown[], O, N extends readonly unknown[], T> = (
  ...args: [...R, ...Arguments<O, N>]
) => T

/** {@link ByPosition} of a pooling function: with `returnIndices` it returns the indices too. */
export type WithIndices<O, N extends readonly unknown[], R extends unknown[], T> = ByPosition<
  R,
  O & { returnIndices: true },
  N,
  [output: T, indices: T]
> &
  ByPosition<R, O, N, T>

/** Whether a value holds arguments by name: any object but tensors and lists. */
const isNamed = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && !isHandle(value) && !Array.isArray(value) && !ArrayBuffer.isView(value)

/**
 * Let a function take its options by name and by position, as PyTorch's Python functions do: `conv2d(x, w, { stride: 2 })` and
 * `conv2d(x, w, null, 2)`.
 *
 * @param names options in PyTorch's order
 * @param run the function; its last parameter takes the options
 * @param keywords options by name only
 */
export function byPosition<R extends unknown[], O extends object, const N extends readonly (keyof O & string)[], T>(
  where: string,
  names: N,
  run: (...args: [...R, O]) => T,
  keywords: readonly (keyof O & string)[] = [],
): ByPosition<R, O, N, T> {
  const tensors = run.length - 1
  const known = [...names, ...keywords]
  const read = (args: unknown[]): unknown[] => {
    const leading = args.slice(0, tensors)
    while (leading.length < tensors) leading.push(undefined)
    const last = args.length > tensors ? args.at(-1) : undefined
    let options: Record<string, unknown> = {}
    if (isNamed(last)) {
      requireOptions(where, last, known)
      options = optionsOf(last, where, known) as Record<string, unknown>
    }
    const places = args.slice(tensors, isNamed(last) ? -1 : undefined)
    if (places.length > names.length) throw tooMany(where, places, names.length, tensors, known)
    places.forEach((value, i) => {
      if (value === undefined) return
      const name = names[i]!
      // An object of a class, such as a module with `training`, may have more fields than those that are meant.
      if (Object.hasOwn(options, name) && isOptions(last)) {
        throw new ConfigError(`${where}: expected ${name} once, got it by position and by name`, { argument: name })
      }
      options[name] = value
    })
    return [...leading, options]
  }
  const call = (...args: unknown[]): T => {
    let values = args
    try {
      // The usual calls need no sorting of arguments: layers make them for every input.
      if (args.length === tensors) values = [...args, {}]
      else if (args.length === tensors + 1 && isOptions(args[tensors])) requireOptions(where, args[tensors], known)
      else values = read(args)
      return run(...(values as unknown as [...R, O]))
    } catch (error) {
      // Proxies as arguments may throw anything, wherever they are read. Errors of a caller's function pass.
      throw hasFunction(values.at(-1)) ? error : asTyped(where, error)
    }
  }
  return call as ByPosition<R, O, N, T>
}

function hasFunction(options: unknown): boolean {
  try {
    return Object.values(options ?? {}).some((value) => typeof value === 'function')
  } catch {
    return false
  }
}

function tooMany(where: string, places: unknown[], most: number, tensors: number, known: string[]): ConfigError {
  const named = known.slice(most)
  if (places.length === most + 1 && named.length > 0) {
    return new ConfigError(
      `${where}: expected options to be an object, got ${shown(places[most])}. Write { ${named.join(', ')} }.`,
      { argument: 'options', value: places[most] },
    )
  }
  return new ConfigError(
    `${where}: expected at most ${tensors + known.length} arguments, got ${tensors + places.length}`,
  )
}
