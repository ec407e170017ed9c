import { expect } from 'vitest'
import type { Tensor } from '../../lib/index.js'
import { expectClose } from '../helpers.js'

/** Number of optimizer steps in each of the tutorials. */
export const STEPS = 20

// Each step adds roundings of float32 in another order, and Adam's first steps divide a gradient by its own size, which carries
// the relative error of the smallest gradient into the weights.
export const TOLERANCE = 1e-4

/** Compare a state dictionary with that of PyTorch: the same names in the same order, and close values. */
export function expectWeights(
  actual: Record<string, Tensor>,
  expected: Record<string, Tensor>,
  tolerance = TOLERANCE,
): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort())
  for (const [name, weight] of Object.entries(expected)) expectClose(actual[name]!, weight, tolerance, name)
}
