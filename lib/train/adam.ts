import { opAsync } from '../native/call.js'
import { type Tensor, tensor } from '../tensor/index.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface AdamOptions extends GroupOptions {
  /** Decay of the running averages of the gradient and of its square. Default [0.9, 0.999]. */
  betas: [number, number]
  /** Added to the denominator. Default 1e-8. */
  eps: number
  /** Weight decay. Adam: an L2 penalty added to the gradient, default 0. AdamW: decoupled from the gradient, default 0.01. */
  weightDecay: number
  /** Divide by the maximum of the squared-gradient average so far (AMSGrad). Default false. */
  amsgrad: boolean
}

abstract class AdamFamily extends Optimizer<AdamOptions> {
  protected abstract readonly operator: string
  protected abstract readonly decoupled: boolean

  protected override queueUpdate(group: ParamGroup<AdamOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, weightDecay, eps, amsgrad, maximize } = group
    const states = pairs.map(({ param }) =>
      this.stateOf(param, () => ({
        step: tensor(0, { dtype: 'float32', device: param.device }),
        exp_avg: param.zerosLike(),
        exp_avg_sq: param.zerosLike(),
        ...(amsgrad && { max_exp_avg_sq: param.zerosLike() }),
      })),
    )
    const column = (key: string) => states.map((state) => state[key])
    const steps = column('step')
    return [
      opAsync('aten::_foreach_add_')(steps, 1),
      opAsync(this.operator)(
        pairs.map(({ param }) => param),
        pairs.map(({ grad }) => grad),
        column('exp_avg'),
        column('exp_avg_sq'),
        amsgrad ? column('max_exp_avg_sq') : [],
        steps,
        { lr, beta1: betas[0], beta2: betas[1], weightDecay, eps, amsgrad, maximize },
      ),
    ]
  }

  protected override stateSlots({ amsgrad }: ParamGroup<AdamOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return {
      step: NUMBER,
      exp_avg: { shape },
      exp_avg_sq: { shape },
      max_exp_avg_sq: { shape, optional: !amsgrad },
    }
  }

  protected override fixedOptions(): Record<string, unknown> {
    const { decoupled } = this
    return { foreach: null, capturable: false, differentiable: false, fused: true, decoupled_weight_decay: decoupled }
  }
}

const DEFAULTS = {
  lr: 1e-3,
  betas: [0.9, 0.999],
  eps: 1e-8,
  amsgrad: false,
  maximize: false,
} satisfies Partial<AdamOptions>

/**
 * Adam with decoupled weight decay (Loshchilov and Hutter 2019, https://arxiv.org/abs/1711.05101), with the defaults, numbers
 * and state of `torch.optim.AdamW`. The update is ATen's fused kernel.
 */
export class AdamW extends AdamFamily {
  protected override readonly operator = 'aten::_fused_adamw_'
  protected override readonly decoupled = true

  constructor(params: ParamsOrGroups<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, { ...DEFAULTS, weightDecay: 0.01 }, options)
  }
}

/** Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980), with the defaults, numbers and state of `torch.optim.Adam`. */
export class Adam extends AdamFamily {
  protected override readonly operator = 'aten::_fused_adam_'
  protected override readonly decoupled = false

  constructor(params: ParamsOrGroups<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, { ...DEFAULTS, weightDecay: 0 }, options)
  }
}
