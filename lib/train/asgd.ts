import { type Tensor, tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface ASGDOptions extends GroupOptions {
  /** Decay of the weights, multiplied by the step's learning rate. Default 1e-4. */
  lambd: number
  /** Exponent of the decay of the learning rate. Default 0.75. */
  alpha: number
  /** First step at which weights are averaged. Default 1e6. */
  t0: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
}

const DEFAULTS: ASGDOptions = { lr: 0.01, lambd: 1e-4, alpha: 0.75, t0: 1e6, weightDecay: 0, maximize: false }

/** Averaged stochastic gradient descent (Polyak and Juditsky 1992), with `torch.optim.ASGD`'s defaults, numbers and state;
 * the averages are `ax` of the state. */
export class ASGD extends Optimizer<ASGDOptions> {
  constructor(params: ParamsOrGroups<ASGDOptions>, options: Partial<ASGDOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<ASGDOptions>): void {
    for (const option of ['lr', 'weightDecay'] as const) this.range(group, option, group[option])
    for (const option of ['lambd', 'alpha', 't0'] as const) {
      this.range(group, option, group[option], Number.NEGATIVE_INFINITY)
    }
  }

  protected override queueUpdate(group: ParamGroup<ASGDOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, lambd, alpha, t0 } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const counted = this.counted(pairs, jobs, (param) => ({
      eta: tensor(lr, { dtype: 'float32', device: param.device }),
      mu: tensor(1, { dtype: 'float32', device: param.device }),
      ax: param.zerosLike(),
    }))
    for (const { step, pairs: same, params, column } of counted) {
      const grads = gradientsOf(same, run, group)
      const averages = column('ax')
      const rates = column('eta').map((eta) => this.numberOf(eta))
      const shares = column('mu').map((mu) => this.numberOf(mu))
      const scaled = copies(grads, run, params)
      run.mul(scaled, rates)
      run.mul(
        params,
        rates.map((rate) => 1 - lambd * rate),
      )
      run.sub(params, scaled)
      const toward = copies(params, run)
      run.sub(toward, averages)
      run.mul(toward, shares)
      run.add(averages, toward)
      const all = <T>(value: T) => params.map(() => value)
      this.setNumbers(column('eta'), all(lr / (1 + lambd * lr * step) ** alpha), jobs)
      this.setNumbers(column('mu'), all(1 / Math.max(1, step - t0)), jobs)
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<ASGDOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, eta: NUMBER, mu: NUMBER, ax: { shape } }
  }
}
