import { shown } from '../base/arguments.js'
import { requireNumber, requireOptions } from '../base/check.js'
import { ConfigError, DTypeError, IndexError, ShapeError } from '../base/errors.js'
import { type DType, Tensor } from '../tensor/index.js'
import { sameShape } from './text.js'

/**
 * Sentences for the usual mistakes, where libtorch's own would not help. They are looked for only after the operator
 * has refused, so a call that works pays nothing; and where looking fails too, the operator's error stands.
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

/** For code that looks at its arguments before it hands them to an operator, which would check them. */
export function requireTensors(where: string, ...values: unknown[]): void {
  for (const value of values) {
    if (value instanceof Tensor) continue
    throw new ConfigError(`${where} needs a tensor, not ${shown(value)}`, {})
  }
}

/** Whether gradients can flow through a dtype. */
export const isFloating = (dtype: DType): boolean => typeof dtype === 'string' && /^(b?float|complex)/.test(dtype)

/** Whole JS numbers make int64 tensors, which no layer takes. */
export function notFloating(where: string, input: Tensor): DTypeError | false {
  return (
    !isFloating(input.dtype) &&
    new DTypeError(
      `${where} needs a floating-point input, not ${input.dtype}; tensor() makes int64 of integers, ` +
        "so pass { dtype: 'float32' } there or convert with .to({ dtype: 'float32' })",
      { dtype: input.dtype },
    )
  )
}

export function otherType(where: string, input: Tensor, weight: Tensor): DTypeError | false {
  return (
    input.dtype !== weight.dtype &&
    new DTypeError(
      `${where}: the input is ${input.dtype} and the weight ${weight.dtype}; convert one of them with .to({ dtype })`,
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
      `${where}: dimension ${axis} of the input must have size ${expected}, but the input is [${input.shape}]`,
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
    new ShapeError(`${where} needs ${layout}, but the input is [${input.shape}]`, {
      shape: input.shape,
      expected: ranks,
    })
  )
}

/** Losses that would silently broadcast, for instance [batch, 1] against [batch]. */
export function requireSameShape(where: string, input: Tensor, target: Tensor): void {
  requireTensors(where, input, target)
  const [a, b] = [input.shape, target.shape]
  if (!sameShape(a, b)) {
    throw new ShapeError(`${where}: input [${a}] and target [${b}] must have the same shape; reshape or expand one`, {
      shape: a,
      expected: b,
    })
  }
}

/** Class or token numbers that are not integers, or out of range. */
export function badIndices(where: string, indices: Tensor, count: number, ignored?: number): Error | false {
  if (!/^u?int/.test(indices.dtype)) {
    return new DTypeError(
      `${where} needs integer indices (int64), not ${indices.dtype}; convert with .to({ dtype: 'int64' })`,
      {
        dtype: indices.dtype,
      },
    )
  }
  for (const index of indices.dataSync()) {
    const value = Number(index)
    if (value !== ignored && (value < 0 || value >= count)) {
      return new IndexError(`${where}: index ${value} is out of range, there are ${count}`, {
        index: value,
        size: count,
      })
    }
  }
  return false
}

/** A layer's options: its own, and where and in which dtype its parameters are made. */
export function layerOptions<O extends object>(layer: string, options: O, ...own: (keyof O & string)[]): O {
  requireOptions(layer, options, [...own, 'device', 'dtype'])
  return options
}

/** Sizes given to a constructor: whole and positive. */
export function requireSizes(layer: string, sizes: Record<string, number>): void {
  for (const [name, value] of Object.entries(sizes)) {
    if (!Number.isSafeInteger(value) || value < 1) {
      throw new ConfigError(`${layer}: ${name} must be a positive integer, not ${shown(value)}`, {
        argument: name,
        value,
      })
    }
  }
}

/** One integer for each spatial dimension, from one for all or a list. */
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
  throw new ConfigError(`${layer}: ${name} needs ${dims} integers of at least ${least}, not ${shown(value)}`, {
    argument: name,
    value,
  })
}

/** Settings that a constructor keeps for an operator: numbers, not NaN. */
export function requireSettings(layer: string, settings: Record<string, unknown>): void {
  for (const [name, value] of Object.entries(settings)) requireNumber(layer, name, value)
}

/** Layers that are all made at once: a slip must not fill the memory with them. */
export function requireLayers(layer: string, numLayers: number): void {
  requireSizes(layer, { numLayers })
  if (numLayers > 10_000) throw new ConfigError(`${layer}: numLayers ${numLayers} is more than 10000`, { numLayers })
}

export function requireProbability(layer: string, p: number): void {
  if (typeof p !== 'number' || !(p >= 0 && p <= 1)) {
    throw new ConfigError(`${layer}: the probability p must be in [0, 1], not ${shown(p)}`, { p })
  }
}

/** Numbers that are computed with before an operator would check them. */
export function requireNumbers(where: string, values: Record<string, number>): void {
  for (const [name, value] of Object.entries(values)) {
    if (typeof value !== 'number') throw new ConfigError(`${where}: ${name} must be a number, not ${shown(value)}`, {})
  }
}
