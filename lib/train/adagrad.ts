import { noGrad, type Tensor, tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { gradientsOf } from './gradients.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface AdagradOptions extends GroupOptions {
  /** Decay of the learning rate: step t uses lr / (1 + (t - 1) lrDecay). Default 0. */
  lrDecay: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
  /** Initial value of the sum of squares. Default 0. */
  initialAccumulatorValue: number
  /** Added to the denominator. Default 1e-10. */
  eps: number
}

const DEFAULTS: AdagradOptions = {
  lr: 0.01,
  lrDecay: 0,
  weightDecay: 0,
  initialAccumulatorValue: 0,
  eps: 1e-10,
  maximize: false,
}

/**
 * Adagrad (Duchi, Hazan and Singer 2011), with the defaults, numbers and state of `torch.optim.Adagrad`. The update uses ATen's
 * multi-tensor kernels, which every device has.
 */
export class Adagrad extends Optimizer<AdagradOptions> {
  constructor(params: ParamsOrGroups<AdagradOptions>, options: Partial<AdagradOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<AdagradOptions>): void {
    super.checkOptions(group)
    this.range(group, 'lrDecay', group.lrDecay)
    this.range(group, 'initialAccumulatorValue', group.initialAccumulatorValue)
  }

  /** Add a group; like PyTorch, create its state before the first gradient. */
  override addGroup(added: { params: Iterable<Tensor> } & Partial<AdagradOptions>): void {
    super.addGroup(added)
    const group = this.groups.at(-1) as ParamGroup<AdagradOptions>
    const step = (device: Tensor['device']) => tensor(0, { dtype: 'float32', device })
    for (const param of group.params.map((one) => this.steppedOn(group, one))) {
      noGrad(() => this.stateOf(param, () => ({ step: step(param.device), ...accumulator(group, param) })))
    }
  }

  protected override queueUpdate(group: ParamGroup<AdagradOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, lrDecay, eps } = group
    const jobs: Job[] = []
    const run = foreach(jobs)
    const counted = this.counted(pairs, jobs, (param) => accumulator(group, param))
    for (const { step, pairs: same, params, column } of counted) {
      const sums = column('sum')
      const grads = gradientsOf(same, run, group)
      run.addcmul(sums, grads, grads, 1)
      const deviations = copies(sums, run)
      run.sqrt(deviations)
      run.add(deviations, eps)
      run.addcdiv(params, grads, deviations, -lr / (1 + (step - 1) * lrDecay))
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<AdagradOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, sum: { shape } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return { foreach: null, differentiable: false, fused: null }
  }
}

const accumulator = ({ initialAccumulatorValue }: AdagradOptions, param: Tensor) => ({
  sum: param.emptyLike().fill_(initialAccumulatorValue),
})
