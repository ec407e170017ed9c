import type { Module } from '../nn/module.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

type State = Record<string, Tensor>

/**
 * A module that trains as a whole beside an adapter (`modulesToSave`). Each adapter has values of its own for its
 * parameters and persistent buffers, and so has the network without any; the module's tensors stay the same objects and
 * take the memory of whoever is active.
 */
export class SavedModule {
  readonly path: string
  readonly module: Module
  /** Who the values belong to; null stands for the network without an adapter. */
  #owner: string | null = null
  /** The values of those that are not active. */
  readonly #aside = new Map<string | null, State>()

  constructor(path: string, module: Module) {
    this.path = path
    this.module = module
  }

  /** Gives an adapter a copy of the network's own values. */
  add(name: string): void {
    const own = this.#owner === null ? this.#state() : (this.#aside.get(null) as State)
    this.#aside.set(
      name,
      mapped(own, (tensor) => tensor.detach().clone()),
    )
  }

  has(name: string | null): boolean {
    return this.#owner === name || this.#aside.has(name)
  }

  /** An adapter's values: the module's own tensors while it is active. */
  valuesOf(name: string): State {
    return this.#owner === name ? this.#state() : (this.#aside.get(name) ?? {})
  }

  /** Puts an adapter's values in place, or those of the network without one. Gradients of others are dropped. */
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
          // The network may have moved since these were put aside.
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

  /** Forgets an adapter's values; it must not be active. */
  remove(name: string | null): void {
    for (const tensor of Object.values(this.#aside.get(name) ?? {})) tensor.dispose()
    this.#aside.delete(name)
  }

  /** The present values become the network's own. */
  settle(): void {
    if (this.#owner === null) return
    this.remove(null)
    this.#owner = null
  }

  #state(): State {
    return this.module.stateDict()
  }
}

const mapped = (state: State, fn: (tensor: Tensor) => Tensor): State =>
  scope(() =>
    noGrad(() => Object.fromEntries(Object.entries(state).map(([key, tensor]) => [key, keepForever(fn(tensor))]))),
  )
