import { requireFunction } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { callNative, op } from '../native/call.js'
import { registerCallback } from '../native/callbacks.js'
import { currentContext, GRAD, runInContext } from '../native/context.js'
import { putAll } from '../native/encode.js'
import { clearAutocastCache, enableGrad, isGradEnabled, scope } from './scope.js'
import { inCallback, synchronous, Tensor } from './tensor.js'

const randomStates = op('voxtorch::random_states') as () => Tensor[]
const leafOf = op('voxtorch::detached_leaf') as (input: Tensor, requiresGrad: boolean) => Tensor
const setRandomStates = op('voxtorch::set_random_states') as (states: Tensor[]) => void

/** One tensor or several. */
type Outputs = Tensor | readonly Tensor[]

/**
 * Run `fn(...inputs)` without storing activations: backward runs `fn` again with the same random numbers, so that dropout is
 * the same, and the same autocast. Results are bit-identical, and so are gradients, except where an input has other uses too:
 * its gradient is then summed in another order. Memory drops to that of the inputs and outputs, for one more forward pass (Chen
 * et al. 2016, https://arxiv.org/abs/1604.06174).
 *
 * ```ts
 * const hidden = checkpoint((x: Tensor) => layer.forward(x), input)
 * ```
 *
 * Other tensors that `fn` uses must be leaves, like parameters. `fn` must be synchronous, do the same each time and return new
 * tensors, each of which may be differentiated once.
 *
 * @throws ConfigError if `fn` returns anything but tensors, or a promise
 */
export function checkpoint<A extends unknown[], R extends Outputs>(fn: (...inputs: A) => R, ...inputs: A): R {
  requireFunction(fn)
  if (!isGradEnabled()) return fn(...inputs)
  const { flags } = currentContext()
  const places: number[] = []
  inputs.forEach((input, place) => {
    if (input instanceof Tensor) places.push(place)
  })
  const tensors = places.map((place) => inputs[place] as Tensor)
  const needs = tensors.map((input) => input.requiresGrad)
  const constants = inputs.map((input) => (input instanceof Tensor ? null : input))
  const run = (given: readonly Tensor[]): { outputs: R; list: readonly Tensor[]; cut: Tensor[] } => {
    const cut = given.map((input, i) => leafOf(input, needs[i] as boolean))
    const args = [...constants]
    for (const [i, place] of places.entries()) args[place] = cut[i]
    const outputs = synchronous(
      enableGrad(() => fn(...(args as A))),
      'checkpoint',
    )
    const list: readonly Tensor[] = outputs instanceof Tensor ? [outputs] : outputs
    if (!Array.isArray(list) || !list.every((output) => output instanceof Tensor)) {
      throw new ConfigError('checkpoint: expected a function that returns a Tensor or an array of Tensors')
    }
    return { outputs, list, cut }
  }

  return scope(() => {
    const random = randomStates()
    const first = run(tensors)
    // The graph of the first run is only needed to find its parameters.
    const captured = leavesOf(first.list, first.cut)
    const outputs = first.list.map((output) => output.detach())
    const count = tensors.length
    const kept = [...tensors, ...captured, ...random]
    const id = registerCallback(
      inCallback(([, saved], kind) => {
        if (kind === 0) return [outputs.splice(0), kept.splice(0), [], [], false]
        const all = saved as Tensor[]
        const parameters = all.slice(count, count + captured.length)
        const now = randomStates()
        setRandomStates(all.slice(count + captured.length))
        try {
          const again = runInContext({ ...currentContext(), flags: flags | GRAD }, () => run(all.slice(0, count)))
          const wanted = [...again.cut.filter((_, i) => needs[i]), ...parameters]
          return [again.list, wanted]
        } finally {
          setRandomStates(now)
          // Otherwise operations after the next step would find outdated casted weights.
          clearAutocastCache()
        }
      }),
    )
    const differentiable = [...tensors.filter((_, i) => needs[i]), ...captured]
    const results = callNative(native.applyFunction, () => putAll(id, differentiable), true) as Tensor[]
    return (first.outputs instanceof Tensor ? results[0] : results) as R
  })
}

/** Return the leaves that tensors are computed from and that require a gradient, without the given ones. */
function leavesOf(outputs: readonly Tensor[], without: readonly Tensor[]): Tensor[] {
  return callNative(native.graphLeaves, () => putAll(outputs, without), true) as Tensor[]
}
