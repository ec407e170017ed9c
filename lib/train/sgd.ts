import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import type { Tensor } from '../tensor/index.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import type { StateSlot } from './optimizer-state.js'

export interface SGDOptions extends GroupOptions {
  /** Default 0: no momentum. */
  momentum: number
  /** Share of the gradient that does not enter the momentum buffer. Default 0. */
  dampening: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
  /** Nesterov momentum; needs momentum and no dampening. Default false. */
  nesterov: boolean
}

const DEFAULTS: SGDOptions = { lr: 1e-3, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false }

/** Stochastic gradient descent with `torch.optim.SGD`'s defaults, numbers and state; the update is ATen's fused kernel. */
export class SGD extends Optimizer<SGDOptions> {
  constructor(params: ParamsOrGroups<SGDOptions>, options: Partial<SGDOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<SGDOptions>): void {
    this.range(group, 'lr', group.lr)
    this.range(group, 'momentum', group.momentum)
    this.range(group, 'weightDecay', group.weightDecay)
    this.range(group, 'dampening', group.dampening, Number.NEGATIVE_INFINITY)
    if (group.nesterov && (group.momentum === 0 || group.dampening !== 0)) {
      throw new ConfigError('SGD with nesterov needs a momentum above 0 and dampening 0', { option: 'nesterov' })
    }
  }

  protected override queueUpdate(group: ParamGroup<SGDOptions>, pairs: Gradient[]): Promise<unknown>[] {
    if (group.momentum === 0) return [queue(group, pairs, [], false)]
    // The first step of a parameter fills its buffer with the gradient; others may have had theirs earlier.
    const fresh = pairs.filter(({ param }) => !this.hasState(param))
    const going = pairs.filter(({ param }) => this.hasState(param))
    return [fresh, going]
      .filter((some) => some.length > 0)
      .map((some) => {
        const states = some.map(({ param }) => this.stateOf(param, () => ({ momentum_buffer: param.zerosLike() })))
        const buffers = states.map((state) => state.momentum_buffer as Tensor)
        return queue(group, some, buffers, some === fresh)
      })
  }

  protected override stateSlots(_: ParamGroup<SGDOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { momentum_buffer: { shape, optional: true } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return { foreach: null, differentiable: false, fused: true }
  }
}

function queue(group: ParamGroup<SGDOptions>, pairs: Gradient[], buffers: Tensor[], isFirstStep: boolean) {
  const { lr, momentum, dampening, weightDecay, nesterov, maximize } = group
  return opAsync('aten::_fused_sgd_')(
    pairs.map(({ param }) => param),
    pairs.map(({ grad }) => grad),
    buffers,
    { weightDecay, momentum, lr, dampening, nesterov, maximize, isFirstStep },
  )
}
