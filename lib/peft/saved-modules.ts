import type { Module } from '../nn/module.js'
import { NativeModule } from '../nn/native-module.js'
import { Parameter } from '../nn/parameter.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

type State = Record<string, Tensor>

/**
 * A module that trains in full with an adapter (`modulesToSave`). Each adapter has its own values of the module's parameters
 * and persistent buffers, and so has the network without an adapter. The module's tensors stay the same objects and switch to
 * the memory of the active adapter.
 */
export class SavedModule {
  readonly path: string
  readonly module: Module
  /** Adapter whose values are active; null is the network without an adapter. */
  #owner: string | null = null
  /** Values of the adapters that are not active. */
  readonly #aside = new Map<string | null, State>()
  /** Fields of other modules that used the same parameters. */
  readonly #tied: { module: Module; field: string; shared: Parameter }[] = []

  /** @param network untie the module from the other modules of this network, so that it has its own values */
  constructor(path: string, module: Module, network: Module) {
    this.path = path
    this.module = module
    const inside = new Set(module.modules())
    const outside = network.modules().filter((other) => !inside.has(other) && !(other instanceof NativeModule))
    const shared = new Set(outside.flatMap((other) => parametersOf(other).map(([, parameter]) => parameter)))
    const copies = new Map<Parameter, Parameter>()
    for (const part of inside) {
      if (part instanceof NativeModule) continue
      for (const [field, parameter] of parametersOf(part)) {
        if (!shared.has(parameter)) continue
        const copy = copies.get(parameter) ?? scope(() => new Parameter(parameter.detach().clone()))
        copies.set(parameter, copy)
        this.#tied.push({ module: part, field, shared: parameter })
        Reflect.set(part, field, copy)
      }
    }
  }

  /** Restore the sharing of parameters with other modules; no adapter may be active. */
  retie(): void {
    for (const { module, field, shared } of this.#tied.splice(0)) {
      const copy = Reflect.get(module, field) as Parameter
      Reflect.set(module, field, shared)
      copy.dispose()
    }
  }

  /** Give an adapter a copy of the network's own values. */
  add(name: string): void {
    const networkValues = this.#owner === null ? this.#state() : (this.#aside.get(null) as State)
    this.#aside.set(
      name,
      mapped(networkValues, (tensor) => tensor.detach().clone()),
    )
  }

  has(name: string | null): boolean {
    return this.#owner === name || this.#aside.has(name)
  }

  /** Return an adapter's values: the module's own tensors while it is active. */
  valuesOf(name: string): State {
    return this.#owner === name ? this.#state() : (this.#aside.get(name) ?? {})
  }

  /** Copy the values of one adapter to another. */
  copy(from: string, to: string): void {
    const [values, targets] = [this.valuesOf(from), this.valuesOf(to)]
    noGrad(() => {
      for (const [key, target] of Object.entries(targets)) target.copy_(values[key] as Tensor)
    })
  }

  /** Activate an adapter's values, or those of the network without one. Gradients of others are dropped. */
  activate(name: string | null): void {
    if (name === this.#owner || !this.#aside.has(name)) return
    const state = this.#state()
    const next = this.#aside.get(name) as State
    this.#aside.set(
      this.#owner,
      mapped(state, (tensor) => tensor.detach()),
    )
    scope(() =>
      noGrad(() => {
        for (const [key, tensor] of Object.entries(state)) {
          // The network may have moved to another device since these values were active.
          const value = next[key] as Tensor
          tensor.setData(value.to({ device: tensor.device, dtype: tensor.dtype }))
          value.dispose()
          if (tensor.requiresGrad && tensor.grad) tensor.grad = null
        }
      }),
    )
    this.#aside.delete(name)
    this.#owner = name
  }

  /** Drop an adapter's values; it must not be active. */
  remove(name: string | null): void {
    for (const tensor of Object.values(this.#aside.get(name) ?? {})) tensor.dispose()
    this.#aside.delete(name)
  }

  /** Make the current values the network's own. */
  settle(): void {
    if (this.#owner === null) return
    this.remove(null)
    this.#owner = null
  }

  #state(): State {
    return this.module.stateDict()
  }
}

const parametersOf = (module: Module): [string, Parameter][] =>
  Object.entries(module).filter((entry): entry is [string, Parameter] => entry[1] instanceof Parameter)

const mapped = (state: State, fn: (tensor: Tensor) => Tensor): State =>
  scope(() =>
    noGrad(() => Object.fromEntries(Object.entries(state).map(([key, tensor]) => [key, keepForever(fn(tensor))]))),
  )
