import type { Tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface RMSpropOptions extends GroupOptions {
  /** Decay of the running average of the squared gradient. Default 0.99. */
  alpha: number
  /** Added to the denominator. Default 1e-8. */
  eps: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
  /** Momentum factor. Default 0. */
  momentum: number
  /** Divide by an estimate of the gradient's variance instead of its square. Default false. */
  centered: boolean
}

const DEFAULTS: RMSpropOptions = {
  lr: 0.01,
  alpha: 0.99,
  eps: 1e-8,
  weightDecay: 0,
  momentum: 0,
  centered: false,
  maximize: false,
}

/** RMSprop (Tieleman and Hinton 2012), centered as in https://arxiv.org/abs/1308.0850 if asked to, with `torch.optim.RMSprop`'s
 * defaults, numbers and state. */
export class RMSprop extends Optimizer<RMSpropOptions> {
  constructor(params: ParamsOrGroups<RMSpropOptions>, options: Partial<RMSpropOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<RMSpropOptions>): void {
    for (const option of ['lr', 'alpha', 'eps', 'weightDecay', 'momentum'] as const)
      this.range(group, option, group[option])
  }

  protected override queueUpdate(group: ParamGroup<RMSpropOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, alpha, eps, momentum, centered } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const counted = this.counted(pairs, jobs, (param) => ({
      square_avg: param.zerosLike(),
      ...(momentum > 0 && { momentum_buffer: param.zerosLike() }),
      ...(centered && { grad_avg: param.zerosLike() }),
    }))
    for (const { pairs: same, params, column } of counted) {
      const grads = gradientsOf(same, run, group)
      const squares = column('square_avg')
      run.mul(squares, alpha)
      run.addcmul(squares, grads, grads, 1 - alpha)
      const deviations = copies(squares, run)
      if (centered) {
        const means = column('grad_avg')
        run.lerp(means, grads, 1 - alpha)
        run.addcmul(deviations, means, means, -1)
      }
      run.sqrt(deviations)
      run.add(deviations, eps)
      if (momentum === 0) {
        run.addcdiv(params, grads, deviations, -lr)
        continue
      }
      const momenta = column('momentum_buffer')
      run.mul(momenta, momentum)
      run.addcdiv(momenta, grads, deviations, 1)
      run.add(params, momenta, { alpha: -lr })
    }
    return started(jobs)
  }

  protected override stateSlots(group: ParamGroup<RMSpropOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return {
      step: NUMBER,
      square_avg: { shape },
      momentum_buffer: { shape, optional: group.momentum === 0 },
      grad_avg: { shape, optional: !group.centered },
    }
  }
}
