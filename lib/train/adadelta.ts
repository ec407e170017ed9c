import { argumentError } from '../base/check.js'
import type { Tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface AdadeltaOptions extends GroupOptions {
  /** Decay of the running averages of the squared gradient and the squared step. Default 0.9. */
  rho: number
  /** Added to both averages. Default 1e-6. */
  eps: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
}

const DEFAULTS: AdadeltaOptions = { lr: 1, rho: 0.9, eps: 1e-6, weightDecay: 0, maximize: false }

/** Adadelta (Zeiler 2012, https://arxiv.org/abs/1212.5701), with the defaults, numbers and state of `torch.optim.Adadelta`. */
export class Adadelta extends Optimizer<AdadeltaOptions> {
  constructor(params: ParamsOrGroups<AdadeltaOptions>, options: Partial<AdadeltaOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<AdadeltaOptions>): void {
    super.checkOptions(group)
    this.range(group, 'rho', group.rho)
    if (group.rho > 1) throw argumentError('Adadelta', 'rho', 'a number from 0 to 1', group.rho)
  }

  protected override queueUpdate(group: ParamGroup<AdadeltaOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, rho, eps } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const make = (param: Tensor) => ({ square_avg: param.zerosLike(), acc_delta: param.zerosLike() })
    for (const { pairs: same, params, column } of this.counted(pairs, jobs, make)) {
      const grads = gradientsOf(same, run, group)
      const [squares, moved] = [column('square_avg'), column('acc_delta')]
      run.mul(squares, rho)
      run.addcmul(squares, grads, grads, 1 - rho)
      const [deviations, steps] = [copies(squares, run), copies(moved, run)]
      for (const one of [deviations, steps]) {
        run.add(one, eps)
        run.sqrt(one)
      }
      run.div(steps, deviations)
      run.mul(steps, grads)
      run.mul(moved, rho)
      run.addcmul(moved, steps, steps, 1 - rho)
      run.add(params, steps, { alpha: -lr })
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<AdadeltaOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, square_avg: { shape }, acc_delta: { shape } }
  }
}
