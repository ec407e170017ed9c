import type { Module } from '../nn/module.js'
import { noGrad, scope, type Tensor } from '../tensor/index.js'

/** Sums of newly initialized weights, which show later whether training or loading has changed them. */
export class FreshValues {
  readonly #sums: Map<string, number>

  /** @param names of tensors in the network's state dictionary; those that it lacks or that have no values are left out */
  constructor(network: Module, names: readonly string[]) {
    const own = network.stateDict()
    const found = names.filter((name) => own[name] && own[name].device !== 'meta')
    this.#sums = new Map(found.map((name) => [name, sumOf(own[name] as Tensor)]))
  }

  /** Return the names whose values are still the initial ones. */
  left(network: Module): string[] {
    const own = network.stateDict()
    for (const [name, sum] of this.#sums) {
      const now = own[name]
      if (!now || now.device === 'meta' || sumOf(now) !== sum) this.#sums.delete(name)
    }
    return [...this.#sums.keys()]
  }
}

/** Training changes every weight, so any function of all of them would do. */
const sumOf = (tensor: Tensor): number =>
  scope(() => noGrad(() => Number(tensor.detach().to({ dtype: 'float64', device: 'cpu' }).square().sum().item())))
