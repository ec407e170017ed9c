import { optionsOf, requireFunction } from '../base/arguments.js'
import { ConfigError, GradientError } from '../base/errors.js'
import { native } from '../native/addon.js'
import { callNative, op } from '../native/call.js'
import { type Callback, registerCallback } from '../native/callbacks.js'
import { currentContext, GRAD } from '../native/context.js'
import { put } from '../native/encode.js'
import { queueNative } from '../native/jobs.js'
import { keepForever } from './scope.js'
import { inCallback, synchronous, Tensor } from './tensor.js'

export interface GradOptions {
  /** One gradient per output; may be left out for outputs with one element. */
  gradOutputs?: readonly (Tensor | null)[]
  /** Keep the graph for another pass. Default: `createGraph`. */
  retainGraph?: boolean
  /** Record the pass, so that its results can be differentiated again. */
  createGraph?: boolean
  /** Return null, instead of throwing, for inputs that the outputs do not depend on. */
  allowUnused?: boolean
}

/**
 * Return the gradients of `outputs` with respect to `inputs`, without changing any `grad`. Runs on the executor.
 * @throws GradientError if an input is not used and `allowUnused` is not set
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  inputs: Tensor | readonly Tensor[],
  options: GradOptions = {},
): Promise<(Tensor | null)[]> {
  const {
    gradOutputs = [],
    retainGraph = null,
    createGraph = false,
    allowUnused = false,
  } = optionsOf(options, 'grad', ['gradOutputs', 'retainGraph', 'createGraph', 'allowUnused'])
  return queueNative(
    native.backwardQueued,
    listOf(outputs),
    gradOutputs,
    listOf(inputs),
    retainGraph,
    createGraph,
    false,
    allowUnused,
  ) as Promise<(Tensor | null)[]>
}

/** Compute and accumulate the gradients of several tensors at once; see {@link Tensor.backward}. */
export async function backward(
  tensors: Tensor | readonly Tensor[],
  options: {
    gradients?: readonly (Tensor | null)[]
    retainGraph?: boolean
    createGraph?: boolean
    inputs?: readonly Tensor[]
  } = {},
): Promise<void> {
  const {
    gradients = [],
    retainGraph = null,
    createGraph = false,
    inputs = [],
  } = optionsOf(options, 'backward', ['gradients', 'retainGraph', 'createGraph', 'inputs'])
  await queueNative(native.backwardQueued, listOf(tensors), gradients, inputs, retainGraph, createGraph, true, false)
}

function listOf(tensors: Tensor | readonly Tensor[]): readonly Tensor[] {
  return tensors instanceof Tensor ? [tensors] : tensors
}

type Declarations = [
  saved: readonly (Tensor | null)[],
  dirty: readonly Tensor[],
  fixed: readonly Tensor[],
  materialize: boolean,
]
let declarations: (context: FunctionContext) => Declarations

/**
 * Context that an {@link AutogradFunction} shares between forward and backward. Store values other than tensors as its fields.
 */
export class FunctionContext {
  /** Tensors passed to {@link saveForBackward}; new handles at each backward pass. */
  savedTensors: (Tensor | null)[] = []
  /** For each input of `forward`, whether it was a tensor that requires a gradient. */
  needsInputGrad: boolean[] = [];
  // biome-ignore lint/suspicious/noExplicitAny: users store any values on it.
  [name: string]: any

  #saved: readonly (Tensor | null)[] = []
  #dirty: readonly Tensor[] = []
  #fixed: readonly Tensor[] = []
  #materialize = true

  /** Save inputs or outputs for backward, guarded against later in-place changes. Call at most once. */
  saveForBackward(...tensors: (Tensor | null)[]): void {
    this.#saved = tensors
  }

  /** Declare inputs that `forward` changed in place. */
  markDirty(...tensors: Tensor[]): void {
    this.#dirty = tensors
  }

  /** Declare outputs without a gradient. */
  markNonDifferentiable(...tensors: Tensor[]): void {
    this.#fixed = tensors
  }

  /** Set whether `backward` receives missing output gradients as zeros (default) or as null. */
  setMaterializeGrads(value: boolean): void {
    this.#materialize = value
  }

  static {
    declarations = (context) => [context.#saved, context.#dirty, context.#fixed, context.#materialize]
  }
}

/** One tensor or several. */
export type FunctionResult = Tensor | readonly Tensor[]
/** One gradient per argument of `forward`; null for none and for arguments that are not tensors. */
export type FunctionGradients = Tensor | null | undefined | readonly (Tensor | null | undefined)[]

/**
 * An operation with a custom gradient.
 *
 * ```ts
 * class Square extends AutogradFunction {
 *   static forward(ctx: FunctionContext, x: Tensor) {
 *     ctx.saveForBackward(x)
 *     return x.mul(x)
 *   }
 *   static backward(ctx: FunctionContext, gradient: Tensor) {
 *     const [x] = ctx.savedTensors
 *     return gradient.mul(x!).mul(2)
 *   }
 * }
 * const y = Square.apply(x)
 * ```
 *
 * Both methods must be synchronous: the executor calls `backward` and waits for it. An error that it throws rejects the promise
 * of the backward pass, with its own stack.
 */
// biome-ignore lint/complexity/noStaticOnlyClass: users extend it.
export abstract class AutogradFunction {
  // biome-ignore lint/suspicious/noExplicitAny: subclasses narrow the arguments.
  static forward(_ctx: FunctionContext, ..._args: any[]): FunctionResult {
    throw new ConfigError('AutogradFunction: expected a static forward(ctx, ...args), got none')
  }

  // biome-ignore lint/suspicious/noExplicitAny: subclasses narrow the arguments.
  static backward(_ctx: FunctionContext, ..._gradients: any[]): FunctionGradients {
    throw new ConfigError('AutogradFunction: expected a static backward(ctx, ...gradients), got none')
  }

  /** Run `forward` and record `backward`. */
  static apply<F extends FunctionClass>(this: F, ...args: Tail<Parameters<F['forward']>>): ReturnType<F['forward']> {
    if (depth >= MAX_DEPTH) {
      throw new GradientError(
        // biome-ignore lint/complexity/noThisInStatic: the subclass.
        `${this.name}.apply: expected at most ${MAX_DEPTH} nested functions, got one more. Apply them one after the other`,
      )
    }
    const places: number[] = []
    const inputs: Tensor[] = []
    args.forEach((argument, place) => {
      if (!(argument instanceof Tensor)) return
      places.push(place)
      inputs.push(argument)
    })
    const context = new FunctionContext()
    const recording = (currentContext().flags & GRAD) !== 0
    context.needsInputGrad = args.map((argument) => argument instanceof Tensor && argument.requiresGrad && recording)
    const run: Run = { args, single: false }
    // biome-ignore lint/complexity/noThisInStatic: the subclass.
    const id = registerCallback(callbackOf(this, context, places, args.length, run))
    let outputs: Tensor[]
    try {
      outputs = callNative(
        native.applyFunction,
        () => {
          put(id)
          put(inputs)
        },
        true,
      ) as Tensor[]
    } finally {
      run.args = []
    }
    return (run.single ? outputs[0] : outputs) as ReturnType<F['forward']>
  }
}

// Each level crosses native code and uses much of the stack, whose overflow V8 cannot always recover from there.
const MAX_DEPTH = 100
let depth = 0

interface Run {
  /** Emptied after forward. */
  args: unknown[]
  /** Whether forward returned a tensor and not an array. */
  single: boolean
}

/** Return the function that native code calls. It lives as long as the graph, so it must not reference forward's arguments. */
function callbackOf(
  Class: FunctionClass,
  context: FunctionContext,
  places: readonly number[],
  count: number,
  run: Run,
): Callback {
  const forward = (): unknown[] => {
    const result = synchronous(Class.forward(context, ...run.args), `${Class.name}.forward`)
    run.single = result instanceof Tensor
    const outputs = run.single ? [result] : result
    if (!Array.isArray(outputs) || !outputs.every((output) => output instanceof Tensor)) {
      throw new ConfigError(`${Class.name}.forward: expected a Tensor or an array of Tensors as result`)
    }
    // Tensors that forward stores on the context must outlive forward's scope.
    for (const value of Object.values(context)) if (value instanceof Tensor) keepForever(value)
    const [saved, dirty, fixed, materialize] = declarations(context)
    return [outputs, saved, dirty, fixed, materialize]
  }

  const backward = ([gradients, saved]: unknown[]): unknown[] => {
    context.savedTensors = saved as (Tensor | null)[]
    try {
      const result = synchronous(Class.backward(context, ...(gradients as Tensor[])), `${Class.name}.backward`)
      const list = Array.isArray(result) ? result : [result]
      if (list.length !== count && list.length !== places.length) {
        throw new ConfigError(
          `${Class.name}.backward: expected ${count} gradients (or null), one per argument of forward, got ${list.length}`,
        )
      }
      const picked = list.length === count ? places.map((place) => list[place]) : list
      return [picked.map((gradient) => gradient ?? null)]
    } finally {
      context.savedTensors = []
    }
  }

  return inCallback((values, kind) => {
    depth += 1
    try {
      return kind === 0 ? forward() : backward(values)
    } finally {
      depth -= 1
    }
  })
}

interface FunctionClass {
  readonly name: string
  // biome-ignore lint/suspicious/noExplicitAny: narrowed by subclasses.
  forward(ctx: FunctionContext, ...args: any[]): FunctionResult
  // biome-ignore lint/suspicious/noExplicitAny: narrowed by subclasses.
  backward(ctx: FunctionContext, ...gradients: any[]): FunctionGradients
}

type Tail<T extends unknown[]> = T extends [unknown, ...infer Rest] ? Rest : never

const setDetectAnomaly = op('voxtorch::set_detect_anomaly')
let anomalyDepth = 0

/**
 * Make backward passes of operations inside `fn` fail at the first NaN, with the name of the function that produced it. For the
 * whole process, and slow: for debugging.
 */
export async function detectAnomaly<T>(fn: () => T | Promise<T>): Promise<T> {
  if (anomalyDepth === 0) setDetectAnomaly(true)
  anomalyDepth += 1
  try {
    return await requireFunction(fn)()
  } finally {
    anomalyDepth -= 1
    if (anomalyDepth === 0) setDetectAnomaly(false)
  }
}
