import { misuse } from '../data/check.js'
import { opAsync } from '../native/call.js'
import type { Tensor } from '../tensor/index.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import type { StateSlot } from './optimizer-state.js'

export interface LionOptions extends GroupOptions {
  /** Weights of the momentum in the step, and in its own update. Default [0.9, 0.99]. */
  betas: [number, number]
  /** Taken off the weights by itself. Default 0. */
  weightDecay: number
}

const DEFAULTS: LionOptions = { lr: 1e-4, betas: [0.9, 0.99], weightDecay: 0, maximize: false }

const [mul, add, sign, neg] = ['mul_', 'add_', 'sign_', 'neg_'].map((name) => opAsync(`aten::_foreach_${name}`)) as [
  Queued,
  Queued,
  Queued,
  Queued,
]
type Queued = ReturnType<typeof opAsync>

/**
 * Lion (Chen et al. 2023, https://arxiv.org/abs/2302.06675): the sign of the momentum, with one state tensor for each
 * parameter. Its learning rate is 3 to 10 times below AdamW's and its decay as much above.
 */
export class Lion extends Optimizer<LionOptions> {
  constructor(params: ParamsOrGroups<LionOptions>, options: Partial<LionOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<LionOptions>): void {
    this.range(group, 'lr', group.lr)
    this.range(group, 'weightDecay', group.weightDecay)
    if (!Array.isArray(group.betas) || group.betas.length !== 2) {
      throw misuse('Lion', 'betas', 'two numbers', group.betas)
    }
    for (const beta of group.betas) this.range(group, 'betas', beta, 0, 1)
  }

  protected override queueUpdate(group: ParamGroup<LionOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, weightDecay, maximize } = group
    const params = pairs.map(({ param }) => param)
    const momenta = pairs.map(
      ({ param }) => this.stateOf(param, () => ({ exp_avg: param.zerosLike() })).exp_avg as Tensor,
    )
    const jobs: Promise<unknown>[] = []
    const grads = pairs.map(({ grad, owned }) => (maximize && !owned ? grad.clone() : grad))
    if (maximize) jobs.push(neg(grads))
    if (weightDecay !== 0) jobs.push(mul(params, 1 - lr * weightDecay))
    const steps = momenta.map((momentum) => momentum.emptyLike())
    jobs.push(
      copy(steps, momenta),
      mul(steps, betas[0]),
      add(steps, grads, { alpha: 1 - betas[0] }),
      sign(steps),
      add(params, steps, { alpha: -lr }),
      mul(momenta, betas[1]),
      add(momenta, grads, { alpha: 1 - betas[1] }),
    )
    return jobs
  }

  protected override stateSlots(_: ParamGroup<LionOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { exp_avg: { shape } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return { foreach: null }
  }
}

const copy = opAsync('aten::_foreach_copy_')
