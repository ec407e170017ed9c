import { ConfigError } from '../../../base/errors.js'
import type { Module } from '../../../nn/module.js'
import { noGrad, scope, type Tensor } from '../../../tensor/index.js'

/** Heads that answer somebody. Those of masked tokens and frames only serve pre-training, and are large. */
const ANSWERING = /^(selection_head|start_prediction_head|end_prediction_head|head)\./

/** Values that no file gave, by which it is seen whether something was put in their place since. */
export class FreshValues {
  readonly #sums: Map<string, number>

  constructor(network: Module, names: readonly string[]) {
    const own = network.stateDict()
    const found = names.filter((name) => ANSWERING.test(name) && own[name] && own[name].device !== 'meta')
    this.#sums = new Map(found.map((name) => [name, sumOf(own[name] as Tensor)]))
  }

  /** Those that are as they were made. */
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

/**
 * @param heads the heads that answer
 * @throws ConfigError naming the tensors of these heads that hold random numbers
 */
export function requireTrained(where: string, model: unknown, heads: readonly string[]): void {
  const untrained = (model as { untrainedHeads?: () => string[] } | null)?.untrainedHeads
  if (typeof untrained !== 'function') return
  // A bias begins with zeros, which training may leave.
  const names = untrained.call(model).filter((name) => heads.some((head) => name.startsWith(`${head}.`)))
  if (!names.some((name) => name.endsWith('.weight'))) return
  throw new ConfigError(
    `${where}: the model was loaded from a file without ${heads.join(', ')}, so ${names.join(', ')} hold random numbers: ` +
      'load one that has them, or train it first',
    { argument: 'model', tensors: names },
  )
}
