import { optionsOf, shown } from '../base/arguments.js'
import { argumentError, listOf } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import { didYouMean } from '../base/words.js'
import { Module, NativeModule } from '../nn/index.js'
import { setMember, type TensorPlace, tensorPlaces } from '../nn/module.js'
import { listed } from '../nn/text.js'
import { noGrad, ops, type Tensor } from '../tensor/index.js'

export interface FunctionalCallOptions {
  /** Whether a tensor given for one name of a tied parameter stands for all of its names. Default: true. */
  tieWeights?: boolean
  /** Whether every parameter and buffer must be given. Default: false. */
  strict?: boolean
}

/**
 * Call a module's `forward` with tensors in place of its parameters and buffers, by their names in the state dictionary. The module
 * is unchanged afterwards. `args` is an array of arguments, or the only one. Like `torch.func.functional_call`.
 *
 * ```ts
 * const parameters = Object.fromEntries(model.namedParameters())
 * const loss = (p) => functional.mseLoss(func.functionalCall(model, p, x), y)
 * const gradients = func.grad(loss)(parameters)
 * ```
 *
 * @throws ConfigError for a name that the module lacks, or a tensor of a native network, whose weights are native code's
 */
export function functionalCall<M extends Module>(
  module: M,
  tensors: Readonly<Record<string, Tensor>> | readonly Readonly<Record<string, Tensor>>[],
  args: unknown = [],
  options: FunctionalCallOptions = {},
): ReturnType<M['forward']> {
  const { tieWeights = true, strict = false } = optionsOf(options, 'functionalCall', ['tieWeights', 'strict'])
  const given: Record<string, Tensor> = Object.assign({}, ...(Array.isArray(tensors) ? tensors : [tensors]))
  const places = placesOf(module)
  for (const name of Object.keys(given)) {
    if (places.has(name)) continue
    throw new ConfigError(
      `functionalCall: expected names of ${module.constructor.name}'s parameters and buffers, got '${name}'${didYouMean(name, places.keys())}`,
      { name },
    )
  }
  const replacements = new Map<string, Tensor>(Object.entries(given))
  if (tieWeights) {
    for (const [name, { tensor }] of places) {
      const alias = [...places].find(([other, place]) => place.tensor === tensor && Object.hasOwn(given, other))
      if (alias && !replacements.has(name)) replacements.set(name, given[alias[0]] as Tensor)
    }
  }
  const missing = [...places.keys()].filter((name) => !replacements.has(name))
  if (strict && missing.length > 0) {
    throw new ConfigError(
      `functionalCall: expected a tensor for each name, since strict is true, got none for ${listed(missing)}`,
    )
  }
  const restore: (() => void)[] = []
  const undo = () => {
    for (const step of restore.reverse()) step()
  }
  try {
    for (const [name, tensor] of replacements) {
      const { owner, member, tensor: before } = places.get(name) as TensorPlace
      if (owner instanceof NativeModule) {
        throw new ConfigError(
          `functionalCall: expected layers in TypeScript, got '${name}' of a native network, which reads its own weights`,
          { name },
        )
      }
      setMember(owner, member, tensor)
      restore.push(() => setMember(owner, member, before))
    }
    const output = (module.forward as (...args: unknown[]) => unknown)(...(Array.isArray(args) ? args : [args]))
    if (!(output instanceof Promise)) {
      undo()
      return output as ReturnType<M['forward']>
    }
    return output.finally(undo) as ReturnType<M['forward']>
  } catch (error) {
    undo()
    throw error
  }
}

/** Return the place of each tensor of a module by its name; a tied one has a place under each of its names. */
function placesOf(module: Module): Map<string, TensorPlace> {
  if (!(module instanceof Module)) throw new ConfigError(`functionalCall: expected a Module, got ${shown(module)}`)
  return new Map(tensorPlaces(module).map((place) => [place.name, place]))
}

/**
 * Stack the parameters and the buffers of modules of one architecture: `[parameters, buffers]`, by name, with the module as first
 * dimension. With `functionalCall` and `vmap` they run as an ensemble. The parameters are new leaves. Like
 * `torch.func.stack_module_state`.
 */
export function stackModuleState(modules: readonly Module[]): [Record<string, Tensor>, Record<string, Tensor>] {
  const all = listOf('stackModuleState', 'modules', modules, 'modules')
  const [first] = all
  if (!first) throw new ConfigError('stackModuleState: expected at least one module, got none')
  for (const module of all) {
    if (!(module instanceof Module)) throw argumentError('stackModuleState', 'a module', 'a Module', module)
    if (module.constructor === first.constructor && module.training === first.training) continue
    throw new ConfigError(
      `stackModuleState: expected modules of one class, all in training or all in evaluation mode, got ${module.constructor.name} next to ${first.constructor.name}`,
    )
  }
  const stacked = (named: (module: Module) => [string, Tensor][], learned: boolean): Record<string, Tensor> => {
    const states = all.map((module) => new Map(named(module)))
    return Object.fromEntries(
      named(first).map(([name, { shape, requiresGrad }]) => {
        const tensors = states.map((state) => state.get(name))
        if (tensors.every((tensor) => tensor?.shape.join() === shape.join())) {
          const tensor = noGrad(() => ops.stack(tensors as Tensor[]))
          return [name, learned && requiresGrad ? tensor.requiresGrad_(true) : tensor]
        }
        throw new ShapeError(`stackModuleState: expected '${name}' of shape [${shape}] in each module`, { name })
      }),
    )
  }
  return [stacked((module) => module.namedParameters(), true), stacked((module) => module.namedBuffers(), false)]
}
