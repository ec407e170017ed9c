import { expect } from 'vitest'
import { type Module, noGrad, type Tensor } from '../../lib/index.js'
import { type Fixture, tensorsOf } from '../helpers.js'

/** snake_case keys of a fixture as options. */
export const camelKeys = <T>(record: Record<string, T>): Record<string, T> =>
  Object.fromEntries(
    Object.entries(record).map(([key, value]) => [
      key.replace(/_([a-z0-9])/g, (_, c: string) => c.toUpperCase()),
      value,
    ]),
  )

/** Copies a case's parameters in; every name must be there. */
export function loadParameters<C>(module: Module, file: Fixture<C>, name: string): void {
  noGrad(() => module.loadStateDict({ ...bufferState(module), ...tensorsOf(file, name, 'param') }))
}

// Buffers that transformers does not save are not in a fixture either.
function bufferState(module: Module): Record<string, Tensor> {
  return Object.fromEntries(module.namedBuffers())
}

/**
 * Every parameter's gradient against the case's `grad`, and none where it has none. What is nearly 0 beside the largest
 * gradient of the network (the bias of an attention's keys is 0 in exact arithmetic) is measured against a hundredth of
 * that.
 */
export function expectGradients<C>(module: Module, file: Fixture<C>, name: string, tolerance = 1e-5): void {
  const expected = tensorsOf(file, name, 'grad')
  const largest = (tensor: Tensor) => tensor.abs().max().item() as number
  const scale = Math.max(...Object.values(expected).map(largest)) / 100
  for (const [key, parameter] of module.namedParameters()) {
    const gradient = expected[key]
    if (!gradient) {
      expect(parameter.grad, `${name}: gradient of ${key}`).toBeNull()
      continue
    }
    expect(parameter.grad, `${name}: gradient of ${key}`).not.toBeNull()
    const error = largest((parameter.grad as Tensor).sub(gradient)) / Math.max(largest(gradient), scale)
    expect(error, `${name}: gradient of ${key}`).toBeLessThanOrEqual(tolerance)
  }
}
