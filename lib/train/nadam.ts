import { type Tensor, tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface NAdamOptions extends GroupOptions {
  /** Decay of the running averages of the gradient and of its square. Default [0.9, 0.999]. */
  betas: [number, number]
  /** Added to the denominator. Default 1e-8. */
  eps: number
  /** L2 penalty, added to the gradient unless `decoupledWeightDecay` is set. Default 0. */
  weightDecay: number
  /** Apply the weight decay decoupled from the gradient, as AdamW does. Default false. */
  decoupledWeightDecay: boolean
  /** Decay of the momentum warm-up. Default 4e-3. */
  momentumDecay: number
}

const DEFAULTS: NAdamOptions = {
  lr: 2e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  weightDecay: 0,
  momentumDecay: 4e-3,
  decoupledWeightDecay: false,
  maximize: false,
}

/** Adam with Nesterov momentum (Dozat 2016), with the defaults, numbers and state of `torch.optim.NAdam`. */
export class NAdam extends Optimizer<NAdamOptions> {
  constructor(params: ParamsOrGroups<NAdamOptions>, options: Partial<NAdamOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<NAdamOptions>): void {
    super.checkOptions(group)
    this.range(group, 'momentumDecay', group.momentumDecay)
  }

  protected override queueUpdate(group: ParamGroup<NAdamOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, eps, weightDecay, momentumDecay, decoupledWeightDecay, maximize } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const counted = this.counted(pairs, jobs, (param) => ({
      mu_product: tensor(1, { dtype: 'float32', device: param.device }),
      exp_avg: param.zerosLike(),
      exp_avg_sq: param.zerosLike(),
    }))
    const momentumAt = (step: number) => betas[0] * (1 - 0.5 * 0.96 ** (step * momentumDecay))
    for (const { step, pairs: same, params, column } of counted) {
      const grads = gradientsOf(same, run, { maximize, weightDecay: decoupledWeightDecay ? 0 : weightDecay })
      if (decoupledWeightDecay && weightDecay !== 0) run.mul(params, 1 - lr * weightDecay)
      const [now, next] = [momentumAt(step), momentumAt(step + 1)]
      const products = column('mu_product').map((product) => Math.fround(this.numberOf(product) * Math.fround(now)))
      this.setNumbers(column('mu_product'), products, jobs)
      const [means, squares] = [column('exp_avg'), column('exp_avg_sq')]
      run.lerp(means, grads, 1 - betas[0])
      run.mul(squares, betas[1])
      run.addcmul(squares, grads, grads, 1 - betas[1])
      const deviations = copies(squares, run)
      run.div(deviations, 1 - betas[1] ** step)
      run.sqrt(deviations)
      run.add(deviations, eps)
      const ofGradient = products.map((product) => (-lr * (1 - now)) / (1 - product))
      const ofMean = products.map((product) => (-lr * next) / (1 - product * next))
      run.addcdiv(params, grads, deviations, ofGradient)
      run.addcdiv(params, means, deviations, ofMean)
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<NAdamOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, mu_product: NUMBER, exp_avg: { shape }, exp_avg_sq: { shape } }
  }
}
