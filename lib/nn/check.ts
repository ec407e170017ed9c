import { asTyped, shown } from '../base/arguments.js'
import { requireNumber, requireOptions, withDefaults } from '../base/check.js'
import { ConfigError, DTypeError, IndexError, ShapeError } from '../base/errors.js'
import { requireDevice, requireDType } from '../tensor/dtype.js'
import { type DType, Tensor } from '../tensor/index.js'
import { sameShape } from './text.js'

/**
 * Return a clearer error for a common mistake, or the operator's own error. The reasons are checked only after the operator has
 * thrown, so a valid call costs nothing; if a check throws, the operator's error is returned.
 */
export function explain(error: unknown, reasons: () => (Error | false)[]): unknown {
  try {
    const reason = reasons().find((candidate) => candidate instanceof Error)
    if (!reason) return error
    reason.cause = error
    return reason
  } catch {
    return error
  }
}

/** Check for tensors in code that reads its arguments before an operator checks them. */
export function requireTensors(where: string, ...values: unknown[]): void {
  for (const value of values) {
    if (value instanceof Tensor) continue
    throw new ConfigError(`${where}: expected a tensor, got ${shown(value)}`, {})
  }
}

/** Inputs that are tensors in every network. Others, such as lengths, may be arrays. */
const TENSORS = /(?:ids|mask|values|embeds|features|labels)$/i

/**
 * Check the inputs of a network: an object whose fields are tensors, flags, caches or lists. A text or an array of numbers, where
 * a tensor is expected, is the usual mistake.
 */
export function requireTensorInputs(where: string, inputs: unknown): void {
  if (typeof inputs !== 'object' || inputs === null || inputs instanceof Tensor || Array.isArray(inputs)) {
    throw new ConfigError(
      `${where}: expected inputs to be an object of tensors, got ${shown(inputs)}. Write { inputIds: tensor([ids]) } or the network's own inputs.`,
      { argument: 'inputs' },
    )
  }
  let entries: [string, unknown][]
  try {
    entries = Object.entries(inputs)
  } catch (error) {
    throw asTyped(where, error)
  }
  for (const [name, value] of entries) {
    if (!TENSORS.test(name)) continue
    const isList = Array.isArray(value) && !(value[0] instanceof Tensor)
    if (!isList && typeof value !== 'string' && !ArrayBuffer.isView(value)) continue
    const advice = /ids$/i.test(name) ? 'tensor([ids])' : 'tensor(…)'
    throw new ConfigError(`${where}: ${name}: expected a tensor, got ${shown(value)}. Write ${advice}.`, {
      argument: name,
    })
  }
}

/** Return whether gradients can flow through a dtype. */
export const isFloating = (dtype: DType): boolean => typeof dtype === 'string' && /^(b?float|complex)/.test(dtype)

/** Return an error for an integer input: JavaScript integers make int64 tensors, which no layer takes. */
export function notFloating(where: string, input: Tensor): DTypeError | false {
  return (
    !isFloating(input.dtype) &&
    new DTypeError(
      `${where}: expected a floating-point input, got ${input.dtype}. tensor() makes int64 of integers, ` +
        "so pass { dtype: 'float32' } there or convert with .to({ dtype: 'float32' })",
      { dtype: input.dtype },
    )
  )
}

export function otherType(where: string, input: Tensor, weight: Tensor): DTypeError | false {
  return (
    input.dtype !== weight.dtype &&
    new DTypeError(
      `${where}: expected input and weight of one dtype, got ${input.dtype} and ${weight.dtype}. Convert one with .to({ dtype })`,
      { dtype: input.dtype, expected: weight.dtype },
    )
  )
}

export function otherSize(where: string, input: Tensor, dim: number, expected: number): ShapeError | false {
  const axis = dim < 0 ? input.ndim + dim : dim
  const actual = input.shape[axis]
  return (
    actual !== expected &&
    new ShapeError(
      `${where}: expected dimension ${axis} of the input to have size ${expected}, got shape [${input.shape}]`,
      {
        shape: input.shape,
        expected,
      },
    )
  )
}

export function otherRank(where: string, input: Tensor, ranks: number[], layout: string): ShapeError | false {
  requireTensors(where, input)
  return (
    !ranks.includes(input.ndim) &&
    new ShapeError(`${where}: expected an input ${layout}, got shape [${input.shape}]`, {
      shape: input.shape,
      expected: ranks,
    })
  )
}

/** Check that shapes are equal, since losses silently broadcast, for instance [batch, 1] against [batch]. */
export function requireSameShape(where: string, input: Tensor, target: Tensor): void {
  requireTensors(where, input, target)
  const [a, b] = [input.shape, target.shape]
  if (!sameShape(a, b)) {
    throw new ShapeError(
      `${where}: expected input and target of the same shape, got [${a}] and [${b}]. Reshape or expand one`,
      {
        shape: a,
        expected: b,
      },
    )
  }
}

/** Return an error for class or token indices that are not integers, or out of range. */
export function badIndices(where: string, indices: Tensor, count: number, ignored?: number): Error | false {
  if (!/^u?int/.test(indices.dtype)) {
    return new DTypeError(
      `${where}: expected integer indices (int64), got ${indices.dtype}. Convert with .to({ dtype: 'int64' })`,
      {
        dtype: indices.dtype,
      },
    )
  }
  for (const index of indices.dataSync()) {
    const value = Number(index)
    if (value !== ignored && (value < 0 || value >= count)) {
      return new IndexError(`${where}: expected indices from 0 to ${count - 1}, got ${value}`, {
        index: value,
        size: count,
      })
    }
  }
  return false
}

/** A default for each option. */
export type Defaults<O> = { [K in keyof O]-?: Exclude<O[K], undefined> }

/**
 * Set the fields of a layer to its options, or to their defaults.
 * @param others known options that are not fields
 * @throws ConfigError for an unknown option, and for a value other than a number where the default is one
 */
export function setOptions<O extends object>(
  layer: object,
  options: O,
  defaults: Defaults<O>,
  others: readonly string[] = [],
): void {
  Object.assign(layer, withDefaults<object, object>(layer.constructor.name, options, defaults, others))
}

/** Check a layer's options: its own, and device and dtype of its parameters. */
export function layerOptions<O extends object>(layer: string, options: O, ...own: (keyof O & string)[]): O {
  requireOptions(layer, options, [...own, 'device', 'dtype'])
  const { device, dtype } = options as { device?: unknown; dtype?: unknown }
  requireDevice(`${layer}: device`, device)
  requireDType(`${layer}: dtype`, dtype)
  return options
}

/** Check sizes given to a constructor: positive integers. */
export function requireSizes(layer: string, sizes: Record<string, number>): void {
  for (const [name, value] of Object.entries(sizes)) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new ConfigError(`${layer}: expected ${name} to be a positive integer, got ${shown(value)}`, {
        argument: name,
        value,
      })
    }
  }
}

/** Return one integer for each spatial dimension, from one for all or a list. */
export function sizeList(
  layer: string,
  name: string,
  value: number | readonly number[],
  dims: number,
  least = 0,
): number[] {
  const sizes = typeof value === 'number' ? Array<number>(dims).fill(value) : value
  const good = Array.isArray(sizes) && sizes.length === dims
  if (good && sizes.every((size) => Number.isSafeInteger(size) && size >= least)) return [...sizes]
  throw new ConfigError(`${layer}: expected ${name} to be ${dims} integers of at least ${least}, got ${shown(value)}`, {
    argument: name,
    value,
  })
}

/** Check settings that a constructor keeps for an operator: numbers, not NaN. */
export function requireSettings(layer: string, settings: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(settings)) requireNumber(layer, name, value)
}

/** Check the number of layers that are created at once, so that a typing error cannot fill the memory. */
export function requireLayers(layer: string, numLayers: number): void {
  requireSizes(layer, { numLayers })
  if (numLayers > 10_000)
    throw new ConfigError(`${layer}: expected numLayers of at most 10000, got ${numLayers}`, { numLayers })
}

export function requireProbability(layer: string, p: number): void {
  if (typeof p !== 'number' || !(p >= 0 && p <= 1)) {
    throw new ConfigError(`${layer}: expected the probability p in [0, 1], got ${shown(p)}`, { p })
  }
}

/** Check numbers that are used in computations before an operator would check them. */
export function requireNumbers(where: string, values: Record<string, number>): void {
  for (const [name, value] of Object.entries(values)) {
    if (typeof value !== 'number')
      throw new ConfigError(`${where}: expected ${name} to be a number, got ${shown(value)}`, {})
  }
}
