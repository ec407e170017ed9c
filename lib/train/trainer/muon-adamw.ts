import { Linear } from '../../nn/linear.js'
import type { Module } from '../../nn/module.js'
import { NativeModule, nativeKind } from '../../nn/native-module.js'
import { outputLayerOf } from '../../nn/output-layer.js'
import type { Tensor } from '../../tensor/index.js'
import { type AdamOptions, AdamW } from '../adam.js'
import { Muon } from '../muon.js'
import type { OptimizerState, ParamGroup } from '../optimizer.js'
import type { DecayGroup } from '../parameter-groups.js'

/** State of both optimizers; null for one without parameters. */
interface State {
  muon: OptimizerState | null
  adamw: OptimizerState | null
}

/**
 * Muon for the matrices of hidden layers, and AdamW for the other parameters, as `torch.optim.Muon` advises. Muon's factor on the learning
 * rate is 'match_rms_adamw', so that both have AdamW's learning rate and weight decay.
 */
export class MuonWithAdamW {
  readonly #muon: Muon | undefined
  readonly #adamw: AdamW | undefined

  constructor(model: Module, groups: readonly DecayGroup[], options: Partial<AdamOptions>) {
    const hidden = hiddenMatrices(model)
    const { lr, masterWeights } = options
    const shared = { ...(lr !== undefined && { lr }), ...(masterWeights !== undefined && { masterWeights }) }
    const part = (isHidden: boolean) =>
      groups
        .map(({ params, weightDecay }) => ({
          params: params.filter((one) => hidden.has(one) === isHidden),
          weightDecay,
        }))
        .filter(({ params }) => params.length > 0)
    const [matrices, others] = [part(true), part(false)]
    this.#muon = matrices.length > 0 ? new Muon(matrices, { ...shared, adjustLrFn: 'match_rms_adamw' }) : undefined
    this.#adamw = others.length > 0 ? new AdamW(others, options) : undefined
  }

  /** Groups of Muon, then those of AdamW. */
  get groups(): (ParamGroup<Muon['defaults']> | ParamGroup<AdamOptions>)[] {
    return [...(this.#muon?.groups ?? []), ...(this.#adamw?.groups ?? [])]
  }

  async step(): Promise<void> {
    await this.#muon?.step()
    await this.#adamw?.step()
  }

  zeroGrad(): void {
    this.#muon?.zeroGrad()
    this.#adamw?.zeroGrad()
  }

  stateDict(): State {
    return { muon: this.#muon?.stateDict() ?? null, adamw: this.#adamw?.stateDict() ?? null }
  }

  loadStateDict({ muon, adamw }: State): void {
    if (muon) this.#muon?.loadStateDict(muon)
    if (adamw) this.#adamw?.loadStateDict(adamw)
  }

  dispose(): void {
    this.#muon?.dispose()
    this.#adamw?.dispose()
  }
}

/** Return the matrices of linear layers and their adapters, without those of output layers. */
export function hiddenMatrices(model: Module): ReadonlySet<Tensor> {
  const modules = model.namedModules()
  const heads = modules.flatMap(([path, module]) => {
    const layer = outputLayerOf(module)
    return layer === undefined ? [] : [path === '' ? layer.head : `${path}.${layer.head}`]
  })
  const layers = modules.filter(([path, module]) => isLinear(module) && !heads.includes(path)).map(([path]) => path)
  const inside = new Set(layers.map((path) => (path === '' ? 'weight' : `${path}.weight`)))
  const isAdapter = (name: string) => /\.lora_[AB]\./.test(name) && !heads.some((head) => name.startsWith(`${head}.`))
  const found = model
    .namedParameters()
    .filter(([name, { shape }]) => shape.length === 2 && (inside.has(name) || isAdapter(name)))
  return new Set(found.map(([, parameter]) => parameter))
}

const isLinear = (module: Module): boolean =>
  module instanceof NativeModule ? nativeKind(module) === 'Linear' : module instanceof Linear
