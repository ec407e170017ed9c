import { Module } from '../nn/module.js'
import { NativeModule } from '../nn/native-module.js'
import type { NetworkOptions } from '../nn/parameter.js'
import { noGrad, type Tensor } from '../tensor/index.js'
import { withSeed } from '../tensor/random.js'

export type HeadFactory = NetworkOptions & { initialize?: boolean }

/** Makes a network whose layers, written here or in native code, draw their first values from the seed. */
export function seeded<M>({ seed, ...factory }: HeadFactory, make: (factory: HeadFactory) => M): M {
  return withSeed(seed, () => make(factory), factory.device)
}

/** Layers written here over a network that runs in native code, as transformers' classes `…For…`. */
export abstract class HeadNetwork extends Module {
  /** Standard deviation of the layers' first weights. */
  protected readonly firstStd: number = 0.02

  /** Gives the layers their first values, unless those come from a file: the last act of a constructor. */
  protected begin({ initialize = true }: HeadFactory): void {
    if (!initialize) return
    const trunks = this.namedChildren().flatMap(([field, child]) =>
      child instanceof NativeModule ? [`${field}.`] : [],
    )
    const own = Object.keys(this.stateDict()).filter((name) => !trunks.some((trunk) => name.startsWith(trunk)))
    this.initialize(own)
  }

  /** Gives the parameters and buffers with these names fresh values, from the default generator. */
  initialize(names: string[]): this {
    const left = new Set(names)
    for (const [field, child] of this.namedChildren()) {
      if (!(child instanceof NativeModule)) continue
      const inside = names.filter((name) => name.startsWith(`${field}.`))
      for (const name of inside) left.delete(name)
      if (inside.length > 0) child.initialize(inside.map((name) => name.slice(field.length + 1)))
    }
    const state = this.stateDict()
    noGrad(() => {
      for (const name of left) this.initial(name, state[name] as Tensor)
    })
    return this
  }

  /** Fills a parameter of the layers. */
  protected initial(_name: string, values: Tensor): void {
    if (values.ndim < 2) values.zero_()
    else values.normal_(0, this.firstStd)
  }
}
