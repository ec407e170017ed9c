import type { Tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { gradientsOf } from './gradients.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import type { StateSlot } from './optimizer-state.js'

export interface LionOptions extends GroupOptions {
  /** Coefficients of the momentum in the update, and in its own running average. Default [0.9, 0.99]. */
  betas: [number, number]
  /** Decoupled weight decay. Default 0. */
  weightDecay: number
}

const DEFAULTS: LionOptions = { lr: 1e-4, betas: [0.9, 0.99], weightDecay: 0, maximize: false }

/**
 * Lion (Chen et al. 2023, https://arxiv.org/abs/2302.06675): updates by the sign of the momentum, with one state tensor per
 * parameter. Use a learning rate 3 to 10 times lower than AdamW's, and a weight decay as many times higher.
 */
export class Lion extends Optimizer<LionOptions> {
  constructor(params: ParamsOrGroups<LionOptions>, options: Partial<LionOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override queueUpdate(group: ParamGroup<LionOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, weightDecay, maximize } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const params = pairs.map(({ param }) => param)
    const momenta = params.map((param) => this.stateOf(param, () => ({ exp_avg: param.zerosLike() })).exp_avg as Tensor)
    const grads = gradientsOf(pairs, run, { maximize })
    if (weightDecay !== 0) run.mul(params, 1 - lr * weightDecay)
    const steps = copies(momenta, run)
    run.mul(steps, betas[0])
    run.add(steps, grads, { alpha: 1 - betas[0] })
    run.sign(steps)
    run.add(params, steps, { alpha: -lr })
    run.mul(momenta, betas[1])
    run.add(momenta, grads, { alpha: 1 - betas[1] })
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<LionOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { exp_avg: { shape } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return { foreach: null }
  }
}
