import type { Tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface AdamaxOptions extends GroupOptions {
  /** Decay of the running averages of the gradient and of its infinity norm. Default [0.9, 0.999]. */
  betas: [number, number]
  /** Added to the gradient's absolute value. Default 1e-8. */
  eps: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
}

const DEFAULTS: AdamaxOptions = { lr: 2e-3, betas: [0.9, 0.999], eps: 1e-8, weightDecay: 0, maximize: false }

/** Adamax, Adam by the infinity norm (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980, section 7.1), with
 * `torch.optim.Adamax`'s defaults, numbers and state. */
export class Adamax extends Optimizer<AdamaxOptions> {
  constructor(params: ParamsOrGroups<AdamaxOptions>, options: Partial<AdamaxOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override queueUpdate(group: ParamGroup<AdamaxOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, eps } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const make = (param: Tensor) => ({ exp_avg: param.zerosLike(), exp_inf: param.zerosLike() })
    for (const { step, pairs: same, params, column } of this.counted(pairs, jobs, make)) {
      const grads = gradientsOf(same, run, group)
      const [means, norms] = [column('exp_avg'), column('exp_inf')]
      run.lerp(means, grads, 1 - betas[0])
      const sizes = copies(grads, run, params)
      run.abs(sizes)
      run.add(sizes, eps)
      run.mul(norms, betas[1])
      run.maximum(norms, sizes)
      run.addcdiv(params, means, norms, -lr / (1 - betas[0] ** step))
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<AdamaxOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, exp_avg: { shape }, exp_inf: { shape } }
  }
}
