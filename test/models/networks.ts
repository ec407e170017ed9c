import { expect } from 'vitest'
import { type Module, manualSeed, noGrad, randn, type Tensor } from '../../lib/index.js'
import { type Fixture, ROUNDING, tensorsOf } from '../helpers.js'

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
  const state = module.stateDict()
  return Object.fromEntries(module.namedBuffers().filter(([name]) => name in state))
}

/** How a repeated pass takes a tensor of its inputs: in float64, and moved a little. */
export type As = <T>(input: T) => T

const largest = (tensor: Tensor) => tensor.abs().max().item() as number

/**
 * Every parameter's gradient against the case's `grad`, and none where it has none. What is nearly 0 beside the largest
 * gradient of the network (the bias of an attention's keys is 0 in exact arithmetic) is measured against a hundredth of
 * that.
 *
 * Without `again` the gradients are equal within `tolerance`. Where rounding comes near that, `again` repeats the forward
 * and backward pass on `as(input)` of every input, and the tolerances are the network's own, not a processor's: in float64
 * the gradients equal the fixture's, which were computed in float64, within `exact`; in float32 each is as near to the
 * float64 one as 16 times what that moves by where every weight and input moves by a rounding to float32, or 16 roundings
 * of the network's largest gradient, where terms of that size cancel. Most lie within 3 times, the worst found within 8.
 */
export async function expectGradients<C>(
  module: Module,
  file: Fixture<C>,
  name: string,
  {
    tolerance = 1e-5,
    exact = 4 * ROUNDING.float32,
    again,
  }: { tolerance?: number; exact?: number; again?: (as: As) => Promise<unknown> } = {},
): Promise<void> {
  const expected = tensorsOf(file, name, 'grad')
  const most = Math.max(...Object.values(expected).map(largest))
  const compare = (found: Tensor, wanted: Tensor, limit: number, label: string) => {
    const error = largest(found.sub(wanted)) / Math.max(largest(wanted), most / 100)
    expect(error, `${name}: ${label}`).toBeLessThanOrEqual(limit)
  }
  for (const [key, { grad }] of module.namedParameters()) {
    if (expected[key]) expect(grad, `${name}: gradient of ${key}`).not.toBeNull()
    else expect(grad, `${name}: gradient of ${key}`).toBeNull()
    if (!again && grad) compare(grad, expected[key] as Tensor, tolerance, `gradient of ${key}`)
  }
  if (!again) return

  const single = gradientsOf(module)
  const passes = await inFloat64(module, again)
  for (const key of Object.keys(single)) {
    const [double, moved] = [passes.exact[key] as Tensor, passes.moved.map((pass) => pass[key] as Tensor)]
    compare(double, expected[key] as Tensor, exact, `float64 gradient of ${key}`)
    const sensitivity = Math.max(...moved.map((other) => largest(other.sub(double)))) / MOVE
    const limit = (16 * ROUNDING.float32 * Math.max(most, sensitivity)) / Math.max(largest(double), most / 100)
    compare((single[key] as Tensor).double(), double, limit, `float32 gradient of ${key} beside the float64 one`)
  }
}

// Small enough for a first derivative, far above float64's own rounding.
const MOVE = 1e-9

const gradientsOf = (module: Module): Record<string, Tensor> =>
  Object.fromEntries(
    module.namedParameters().flatMap(([key, { grad }]) => (grad ? [[key, grad.detach().clone()] as const] : [])),
  )

/** The gradients in float64, and those of four networks with weights and inputs a little elsewhere. The module is left as it was. */
async function inFloat64(module: Module, pass: (as: As) => Promise<unknown>) {
  const given = module.parameters().map((parameter) => parameter.detach().clone())
  const run = async (move: number) => {
    const shaken = (x: Tensor) => x.double().mul(randn(x.shape, { dtype: 'float64' }).mul(move).add(1))
    noGrad(() => module.parameters().forEach((parameter, i) => void parameter.copy_(shaken(given[i] as Tensor))))
    module.zeroGrad()
    await pass(((input: Tensor | undefined) => (input?.isFloatingPoint() ? shaken(input.detach()) : input)) as As)
    return gradientsOf(module)
  }
  manualSeed(0)
  module.to({ dtype: 'float64' })
  try {
    const exact = await run(0)
    const moved = []
    for (let i = 0; i < 4; i += 1) moved.push(await run(MOVE))
    return { exact, moved }
  } finally {
    module.to({ dtype: 'float32' })
    noGrad(() => module.parameters().forEach((parameter, i) => void parameter.copy_(given[i] as Tensor)))
  }
}
