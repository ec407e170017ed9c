import { shown } from '../base/arguments.js'
import { ConfigError } from '../base/errors.js'
import { AutogradFunction, type FunctionContext, Tensor } from '../tensor/index.js'
import { intoScope, keepForever } from '../tensor/scope.js'
import type { Module } from './module.js'

/**
 * One gradient per argument or output of a forward pass; null for what is not a tensor, and for an output that was not used. Zeros for
 * an argument that no gradient reaches.
 */
export type Gradients = readonly (Tensor | null)[]
/** Hook called with the gradients of the outputs; a result other than undefined replaces them. */
export type FullBackwardPreHook<M extends Module = Module> = (
  module: M,
  gradOutput: Gradients,
  // biome-ignore lint/suspicious/noConfusingVoidType: most hooks return nothing.
) => Tensor | Gradients | undefined | void
/** Hook called with the gradients of the inputs and outputs; a result other than undefined replaces those of the inputs. */
export type FullBackwardHook<M extends Module = Module> = (
  module: M,
  gradInput: Gradients,
  gradOutput: Gradients,
  // biome-ignore lint/suspicious/noConfusingVoidType: most hooks return nothing.
) => Tensor | Gradients | undefined | void

/** Identity whose backward lets a watch see the gradients and replace them. */
class WatchedTensors extends AutogradFunction {
  static override forward(
    ctx: FunctionContext,
    seen: (gradients: (Tensor | null)[]) => Gradients,
    fill: boolean,
    ...tensors: Tensor[]
  ): Tensor[] {
    ctx.seen = seen
    ctx.markNonDifferentiable(...tensors.filter((tensor) => !tensor.requiresGrad))
    ctx.setMaterializeGrads(fill)
    return tensors
  }

  static override backward(ctx: FunctionContext, ...gradients: (Tensor | null)[]): Gradients {
    return ctx.seen(gradients)
  }
}

/** One forward pass of a module with hooks on its backward pass. */
export class BackwardWatch {
  readonly #module: Module
  readonly #preHooks: Iterable<FullBackwardPreHook>
  readonly #hooks: Iterable<FullBackwardHook>
  /** Number of the forward pass's arguments. */
  #count = 0
  #watchesInputs = false
  /** Gradients of the outputs between the two ends of the backward pass. */
  #gradOutput: Gradients | undefined

  constructor(module: Module, preHooks: Iterable<FullBackwardPreHook>, hooks: Iterable<FullBackwardHook>) {
    this.#module = module
    this.#preHooks = preHooks
    this.#hooks = hooks
  }

  /** Return the arguments with watched tensors. */
  inputs(args: unknown[]): unknown[] {
    this.#count = args.length
    const places = tensorPlaces(args)
    this.#watchesInputs = requiresGrad(args, places)
    if (!this.#watchesInputs) return args
    return watched(args, places, true, (gradients) =>
      this.#reachedInputs(spread(gradients, places, args.length), places),
    )
  }

  /** Return the output with watched tensors. */
  outputs(output: unknown): unknown {
    if (output instanceof Tensor) return (this.#watchOutputs([output]) as Tensor[])[0]
    if (Array.isArray(output)) return this.#watchOutputs(output)
    if (typeof output === 'object' && output !== null && Object.getPrototypeOf(output) === Object.prototype) {
      const values = this.#watchOutputs(Object.values(output))
      return Object.fromEntries(Object.keys(output).map((name, i) => [name, values[i]]))
    }
    throw new ConfigError(
      `${this.#module.constructor.name}: expected a forward that returns a tensor, an array or an object of tensors, since full backward hooks watch it, got ${shown(output)}`,
      {},
    )
  }

  #watchOutputs(values: unknown[]): unknown[] {
    const places = tensorPlaces(values)
    if (!requiresGrad(values, places)) return values
    return watched(values, places, false, (gradients) => {
      const gradOutput = this.#reachedOutputs(spread(gradients, places, values.length))
      return places.map((place) => gradOutput[place] ?? null)
    })
  }

  /** Run the pre-hooks, and keep what they return for the hooks. */
  #reachedOutputs(gradients: Gradients): Gradients {
    let gradOutput = gradients
    for (const hook of this.#preHooks) {
      gradOutput = this.#replaced('a full backward pre-hook', hook(this.#module, gradOutput), gradOutput)
    }
    if (this.#watchesInputs) {
      // The two ends of a pass are two callbacks, and the scope of the first ends before the second.
      for (const gradient of gradOutput) if (gradient) keepForever(gradient)
      this.#gradOutput = gradOutput
      return gradOutput
    }
    const none: Gradients = new Array(this.#count).fill(null)
    for (const hook of this.#hooks) {
      const result = hook(this.#module, none, gradOutput)
      const list = this.#replaced('a full backward hook', result, none)
      if (list.some((gradient) => gradient !== null)) {
        throw new ConfigError(
          `${this.#module.constructor.name}: expected a full backward hook without gradients in its result, since no input requires one, got ${shown(result)}`,
          {},
        )
      }
    }
    return gradOutput
  }

  #reachedInputs(gradients: Gradients, places: readonly number[]): Gradients {
    const gradOutput = this.#gradOutput
    this.#gradOutput = undefined
    let gradInput = gradients
    // Without it, the gradient reached the inputs by another way than the outputs.
    if (gradOutput) {
      for (const gradient of gradOutput) if (gradient) intoScope(gradient)
      for (const hook of this.#hooks) {
        gradInput = this.#replaced('a full backward hook', hook(this.#module, gradInput, gradOutput), gradInput)
      }
    }
    return places.map((place) => gradInput[place] ?? null)
  }

  /** Return a hook's result as a list, or the gradients that it was called with. */
  #replaced(hook: string, result: unknown, gradients: Gradients): Gradients {
    if (result === undefined) return gradients
    const list: unknown[] = Array.isArray(result) ? result : [result]
    const fits = list.every((gradient) => gradient === null || gradient instanceof Tensor)
    if (fits && list.length === gradients.length) return list as Gradients
    throw new ConfigError(
      `${this.#module.constructor.name}: expected ${hook} to return ${gradients.length} gradients (or null), or undefined, got ${shown(result)}`,
      {},
    )
  }
}

function tensorPlaces(values: readonly unknown[]): number[] {
  return values.flatMap((value, place) => (value instanceof Tensor ? [place] : []))
}

function requiresGrad(values: readonly unknown[], places: readonly number[]): boolean {
  return places.some((place) => (values[place] as Tensor).requiresGrad)
}

function watched(
  values: unknown[],
  places: readonly number[],
  fill: boolean,
  seen: (gradients: Gradients) => Gradients,
): unknown[] {
  const tensors = WatchedTensors.apply(seen, fill, ...places.map((place) => values[place] as Tensor))
  const result = [...values]
  places.forEach((place, i) => {
    result[place] = tensors[i]
  })
  return result
}

/** Return gradients at the places of their tensors among all values. */
function spread(gradients: Gradients, places: readonly number[], count: number): Gradients {
  const all: (Tensor | null)[] = new Array(count).fill(null)
  places.forEach((place, i) => {
    all[place] = gradients[i] ?? null
  })
  return all
}
