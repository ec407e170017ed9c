import { opAsync } from '../native/call.js'
import { noGrad, type Tensor, tensor } from '../tensor/index.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface AdagradOptions extends GroupOptions {
  /** The rate of step t is lr / (1 + (t - 1) lrDecay). Default 0. */
  lrDecay: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
  /** What the sum of squares begins with. Default 0. */
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

const [add, addcdiv, addcmul, copy, mul, neg, reciprocal, sqrt] = [
  'add',
  'addcdiv',
  'addcmul',
  'copy',
  'mul',
  'neg',
  'reciprocal',
  'sqrt',
].map((name) => opAsync(`aten::_foreach_${name}_`)) as [Queued, Queued, Queued, Queued, Queued, Queued, Queued, Queued]
type Queued = ReturnType<typeof opAsync>

/**
 * Adagrad (Duchi, Hazan and Singer 2011), with `torch.optim.Adagrad`'s defaults, numbers and state; the update is
 * made of ATen's multi-tensor kernels, which every device has.
 */
export class Adagrad extends Optimizer<AdagradOptions> {
  constructor(params: ParamsOrGroups<AdagradOptions>, options: Partial<AdagradOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<AdagradOptions>): void {
    for (const option of ['lr', 'lrDecay', 'weightDecay', 'initialAccumulatorValue', 'eps'] as const) {
      this.range(group, option, group[option])
    }
  }

  /** As in PyTorch, state is there before the first gradient. */
  override addGroup(added: { params: Iterable<Tensor> } & Partial<AdagradOptions>): void {
    super.addGroup(added)
    const group = this.groups.at(-1) as ParamGroup<AdagradOptions>
    for (const param of group.params) this.accumulatorOf(group, this.steppedOn(group, param))
  }

  private accumulatorOf(group: ParamGroup<AdagradOptions>, param: Tensor) {
    return this.stateOf(param, () => ({
      step: tensor(0, { dtype: 'float32', device: param.device }),
      sum: noGrad(() => param.emptyLike().fill_(group.initialAccumulatorValue)),
    }))
  }

  protected override queueUpdate(group: ParamGroup<AdagradOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, lrDecay, weightDecay, eps, maximize } = group
    const states = pairs.map(({ param }) => this.accumulatorOf(group, param))
    const params = pairs.map(({ param }) => param)
    const steps = states.map(({ step }) => step as Tensor)
    const sums = states.map(({ sum }) => sum as Tensor)
    const changed = maximize || weightDecay !== 0 || lrDecay !== 0
    const grads = pairs.map(({ grad, owned }) => (changed && !owned ? grad.clone() : grad))
    const deviations = sums.map((sum) => sum.emptyLike())
    const shares = lrDecay === 0 ? [] : steps.map((step) => step.emptyLike())
    const jobs = [add(steps, 1)]
    if (maximize) jobs.push(neg(grads))
    if (weightDecay !== 0) jobs.push(add(grads, params, { alpha: weightDecay }))
    jobs.push(addcmul(sums, grads, grads, 1), copy(deviations, sums), sqrt(deviations), add(deviations, eps))
    if (lrDecay === 0) return [...jobs, addcdiv(params, grads, deviations, -lr)]
    return [
      ...jobs,
      copy(shares, steps),
      add(shares, -1),
      mul(shares, lrDecay),
      add(shares, 1),
      reciprocal(shares),
      mul(grads, shares),
      addcdiv(params, grads, deviations, -lr),
    ]
  }

  protected override stateSlots(_: ParamGroup<AdagradOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, sum: { shape } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return { foreach: null, differentiable: false, fused: null }
  }
}
