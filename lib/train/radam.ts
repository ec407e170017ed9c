import type { Tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface RAdamOptions extends GroupOptions {
  /** Decay of the running averages of the gradient and of its square. Default [0.9, 0.999]. */
  betas: [number, number]
  /** Added to the denominator. Default 1e-8. */
  eps: number
  /** L2 penalty, added to the gradient unless `decoupledWeightDecay` is set. Default 0. */
  weightDecay: number
  /** Apply the weight decay decoupled from the gradient, as AdamW does. Default false. */
  decoupledWeightDecay: boolean
}

const DEFAULTS: RAdamOptions = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  decoupledWeightDecay: false,
  maximize: false,
}

/** Return the factor that rectifies the variance of the adaptive rate; undefined in the first steps, where it is not defined. */
function rectification(beta2: number, step: number): number | undefined {
  const longest = 2 / (1 - beta2) - 1
  const length = longest - (2 * step * beta2 ** step) / (1 - beta2 ** step)
  if (length <= 5) return undefined
  return Math.sqrt(((length - 4) * (length - 2) * longest) / ((longest - 4) * (longest - 2) * length))
}

/** Adam that rectifies the variance of its first steps (Liu et al. 2020, https://arxiv.org/abs/1908.03265), with
 * `torch.optim.RAdam`'s defaults, numbers and state. */
export class RAdam extends Optimizer<RAdamOptions> {
  constructor(params: ParamsOrGroups<RAdamOptions>, options: Partial<RAdamOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override queueUpdate(group: ParamGroup<RAdamOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, eps, weightDecay, decoupledWeightDecay, maximize } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const make = (param: Tensor) => ({ exp_avg: param.zerosLike(), exp_avg_sq: param.zerosLike() })
    for (const { step, pairs: same, params, column } of this.counted(pairs, jobs, make)) {
      const grads = gradientsOf(same, run, { maximize, weightDecay: decoupledWeightDecay ? 0 : weightDecay })
      if (decoupledWeightDecay && weightDecay !== 0) run.mul(params, 1 - lr * weightDecay)
      const [means, squares] = [column('exp_avg'), column('exp_avg_sq')]
      run.lerp(means, grads, 1 - betas[0])
      run.mul(squares, betas[1])
      run.addcmul(squares, grads, grads, 1 - betas[1])
      const rate = lr / (1 - betas[0] ** step)
      const rectified = rectification(betas[1], step)
      if (rectified === undefined) {
        run.add(params, means, { alpha: -rate })
        continue
      }
      const deviations = copies(squares, run)
      run.sqrt(deviations)
      run.add(deviations, eps)
      run.addcdiv(params, means, deviations, -rate * rectified * Math.sqrt(1 - betas[1] ** step))
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<RAdamOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, exp_avg: { shape }, exp_avg_sq: { shape } }
  }
}
