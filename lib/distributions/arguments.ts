import { argumentError, requireOptions } from '../base/check.js'
import { ConfigError, DTypeError, ShapeError } from '../base/errors.js'
import { isOptions } from '../native/encode.js'
import { Tensor } from '../tensor/index.js'

/** A parameter of a distribution: a tensor, or one number for all elements. */
export type Value = Tensor | number

export interface DistributionOptions {
  /** Check parameters and samples against their constraints. Default: true; see `Distribution.setDefaultValidateArgs`. */
  validateArgs?: boolean | undefined
}

/** Arguments of the constructor of `Distribution` after the shapes. */
export interface Setup extends DistributionOptions {
  parameters?: Record<string, Value>
}

/**
 * Return the arguments of a constructor by name. They may be positional, or fields of a last plain object, together with `validateArgs`.
 * Arguments that are null or undefined are absent.
 */
export function namedArguments(
  where: string,
  names: readonly string[],
  args: readonly unknown[],
): Record<string, unknown> & DistributionOptions {
  const last = args.at(-1)
  const options = isOptions(last) ? last : undefined
  const positional = options === undefined ? args : args.slice(0, -1)
  if (positional.length > names.length) {
    throw new ConfigError(
      `${where}: expected at most ${names.length} arguments (${names.join(', ')}) and options, got ${positional.length}`,
      {},
    )
  }
  const found: Record<string, unknown> = {}
  positional.forEach((value, i) => {
    if (value !== undefined && value !== null) found[names[i]!] = value
  })
  if (options === undefined) return found
  requireOptions(where, options, [...names, 'validateArgs'])
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue
    if (Object.hasOwn(found, name))
      throw new ConfigError(`${where}: expected ${name} once, got it as an argument and as an option`, {
        argument: name,
      })
    found[name] = value
  }
  if (found.validateArgs !== undefined && typeof found.validateArgs !== 'boolean')
    throw argumentError(where, 'validateArgs', 'true or false', found.validateArgs)
  return found
}

/** Check that a parameter is a number or a floating-point tensor, and return it. */
export function requireValue(where: string, name: string, value: unknown, integers = false): Value {
  if (typeof value === 'number') return value
  const tensor = requireTensor(where, name, value)
  if (!integers && !tensor.dtype.includes('float')) {
    throw new DTypeError(
      `${where}: expected ${name} to be a floating-point tensor, got ${tensor.dtype}. ` +
        "tensor() makes int64 of integers, so pass { dtype: 'float32' } there",
      { argument: name, dtype: tensor.dtype },
    )
  }
  return tensor
}

/** Check that a parameter is a floating-point tensor of at least `dims` dimensions. */
export function requireMatrix(where: string, name: string, value: unknown, dims: number): Tensor {
  const tensor = requireValue(where, name, requireTensor(where, name, value)) as Tensor
  if (tensor.ndim >= dims) return tensor
  throw new ShapeError(`${where}: expected ${name} to have at least ${dims} dimensions, got shape [${tensor.shape}]`, {
    argument: name,
    shape: tensor.shape,
  })
}

export function requireTensor(where: string, name: string, value: unknown): Tensor {
  if (value instanceof Tensor) return value
  throw argumentError(where, name, 'a tensor', value)
}

/** Return the only one of several arguments that is present. */
export function exactlyOne(where: string, names: readonly string[], found: Record<string, unknown>): string {
  const present = names.filter((name) => found[name] !== undefined)
  if (present.length === 1) return present[0]!
  throw new ConfigError(
    `${where}: expected exactly one of ${names.join(', ')}, got ${present.length === 0 ? 'none' : present.join(' and ')}`,
    {},
  )
}

/** Return the arguments of the constructor of a distribution over single numbers whose parameters broadcast. */
export function elementwise(
  where: string,
  names: readonly string[],
  args: readonly unknown[],
  defaults: Record<string, number> = {},
): [batchShape: number[], eventShape: number[], setup: Setup] {
  const { validateArgs, ...found } = namedArguments(where, names, args)
  const parameters: Record<string, Value> = {}
  for (const name of names) parameters[name] = requireValue(where, name, found[name] ?? defaults[name])
  return [broadcastParameters(where, parameters), [], { validateArgs, parameters }]
}

/** Return the arguments of the constructor of such a distribution with `probs` or `logits`. */
export function withProbsOrLogits(
  where: string,
  names: readonly string[],
  args: readonly unknown[],
  defaults: Record<string, number> = {},
): [batchShape: number[], eventShape: number[], setup: Setup] {
  const { validateArgs, ...found } = namedArguments(where, names, args)
  const chosen = exactlyOne(where, ['probs', 'logits'], found)
  const parameters: Record<string, Value> = { [chosen]: requireValue(where, chosen, found[chosen]) }
  for (const name of names) {
    if (name === 'probs' || name === 'logits') continue
    parameters[name] = requireValue(where, name, found[name] ?? defaults[name], name === 'totalCount')
  }
  return [broadcastParameters(where, parameters), [], { validateArgs, parameters }]
}

const broadcastParameters = (where: string, parameters: Record<string, Value>): number[] =>
  broadcastShapes(
    where,
    Object.fromEntries(
      Object.entries(parameters).flatMap(([name, value]) => (value instanceof Tensor ? [[name, value.shape]] : [])),
    ),
  )

/** Return the shape that all shapes broadcast to. @throws ShapeError that names the shapes */
export function broadcastShapes(where: string, shapes: Record<string, readonly number[]>): number[] {
  const result: number[] = []
  for (const shape of Object.values(shapes)) {
    for (let i = 1; i <= shape.length; i += 1) {
      const size = shape[shape.length - i]!
      const known = result[result.length - i]
      if (known === undefined) result.unshift(size)
      else if (known === 1) result[result.length - i] = size
      else if (size !== 1 && size !== known) {
        const list = Object.entries(shapes).map(([name, one]) => `${name} [${one}]`)
        throw new ShapeError(`${where}: expected shapes that broadcast, got ${list.join(', ')}`, { shapes })
      }
    }
  }
  return result
}

/** Check a shape, and return a copy. */
export function requireShape(where: string, name: string, shape: unknown): number[] {
  let good = false
  try {
    good = Array.isArray(shape) && shape.every((size) => Number.isSafeInteger(size) && size >= 0)
  } catch {
    // The traps of a proxy may throw.
  }
  if (good) return [...(shape as number[])]
  throw argumentError(where, name, 'a list of integers of at least 0, such as [3]', shape)
}
