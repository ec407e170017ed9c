import { ConfigError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface RpropOptions extends GroupOptions {
  /** Factors on the step size when the gradient's sign has changed and when it has not. Default [0.5, 1.2]. */
  etas: [number, number]
  /** Minimum and maximum step size. Default [1e-6, 50]. */
  stepSizes: [number, number]
}

const DEFAULTS: RpropOptions = { lr: 0.01, etas: [0.5, 1.2], stepSizes: [1e-6, 50], maximize: false }

/** Resilient backpropagation (Riedmiller and Braun 1993), with `torch.optim.Rprop`'s defaults, numbers and state. For whole
 * batches: of the gradient it looks at the sign. */
export class Rprop extends Optimizer<RpropOptions> {
  constructor(params: ParamsOrGroups<RpropOptions>, options: Partial<RpropOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<RpropOptions>): void {
    this.range(group, 'lr', group.lr)
    this.pair(group, 'etas', group.etas)
    this.pair(group, 'stepSizes', group.stepSizes)
    const [minus, plus] = group.etas
    if (!(minus > 0 && minus < 1 && plus > 1)) {
      throw new ConfigError(`Rprop: expected etas to be a number in (0, 1) and one above 1, got [${group.etas}]`, {
        option: 'etas',
      })
    }
  }

  protected override queueUpdate(group: ParamGroup<RpropOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, etas, stepSizes } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const make = (param: Tensor) => ({ prev: param.zerosLike(), step_size: param.emptyLike().fill_(lr) })
    for (const { pairs: same, params, column } of this.counted(pairs, jobs, make)) {
      const grads = copies(gradientsOf(same, run, group), run, params)
      const [before, sizes] = [column('prev'), column('step_size')]
      const kept = copies(grads, run, params)
      run.mul(kept, before)
      run.sign(kept)
      // 1 if the sign is the same, -1 if it has changed. Each factor is a number plus zeros, so it is exact.
      const turned = copies(kept, run)
      run.clamp_max(turned, 0)
      run.clamp_min(kept, 0)
      const factors = copies(turned, run)
      run.sub(factors, kept)
      run.add(factors, 1)
      run.add(factors, kept, { alpha: etas[1] })
      run.add(factors, turned, { alpha: -etas[0] })
      run.mul(sizes, factors)
      run.clamp_min(sizes, stepSizes[0])
      run.clamp_max(sizes, stepSizes[1])
      // If the sign has changed, skip the step and store a gradient of 0.
      run.add(turned, 1)
      run.mul(grads, turned)
      run.copy(before, grads)
      run.sign(grads)
      run.addcmul(params, grads, sizes, -1)
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<RpropOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, prev: { shape }, step_size: { shape } }
  }
}
