import { ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { isHalf } from '../tensor/dtype.js'
import type { Tensor } from '../tensor/index.js'
import { copies, foreach, type Job, started } from './foreach.js'
import { gradientsOf } from './gradients.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import type { StateSlot } from './optimizer-state.js'

export interface SGDOptions extends GroupOptions {
  /** Momentum factor. Default 0. */
  momentum: number
  /** Fraction of the gradient that does not enter the momentum buffer. Default 0. */
  dampening: number
  /** L2 penalty, added to the gradient. Default 0. */
  weightDecay: number
  /** Nesterov momentum; needs momentum and no dampening. Default false. */
  nesterov: boolean
}

const DEFAULTS: SGDOptions = { lr: 1e-3, momentum: 0, dampening: 0, weightDecay: 0, nesterov: false, maximize: false }

/** Stochastic gradient descent with the defaults, numbers and state of `torch.optim.SGD`. */
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
      throw new ConfigError('SGD.nesterov: expected a momentum above 0 and dampening 0 with it', { option: 'nesterov' })
    }
  }

  protected override queueUpdate(group: ParamGroup<SGDOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const update = isHalf((pairs[0] as Gradient).param.dtype) ? composed : fused
    if (group.momentum === 0) return update(group, pairs, [], false)
    // The first step of a parameter fills its buffer with the gradient; other parameters may already have buffers.
    const fresh = pairs.filter(({ param }) => !this.hasState(param))
    const going = pairs.filter(({ param }) => this.hasState(param))
    return [fresh, going]
      .filter((some) => some.length > 0)
      .flatMap((some) => {
        const states = some.map(({ param }) => this.stateOf(param, () => ({ momentum_buffer: param.zerosLike() })))
        const buffers = states.map((state) => state.momentum_buffer as Tensor)
        return update(group, some, buffers, some === fresh)
      })
  }

  protected override stateSlots(_: ParamGroup<SGDOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { momentum_buffer: { shape, optional: true } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    // `fused` stays null: with true, PyTorch would continue from this state with its fused kernel.
    return { foreach: null, differentiable: false, fused: null }
  }
}

const fusedStep = opAsync('aten::_fused_sgd_')

/** Queue the update as one fused kernel, for float32 and float64. */
function fused(group: SGDOptions, pairs: Gradient[], buffers: Tensor[], isFirstStep: boolean): Promise<unknown>[] {
  const { lr, momentum, dampening, weightDecay, nesterov, maximize } = group
  const options = { weightDecay, momentum, lr, dampening, nesterov, maximize, isFirstStep }
  return [
    fusedStep(
      pairs.map(({ param }) => param),
      pairs.map(({ grad }) => grad),
      buffers,
      options,
    ),
  ]
}

/**
 * Queue the update as `torch.optim.SGD` computes it by default, for bfloat16 and float16. In PyTorch 2.13 the CPU's
 * `_fused_sgd_` is wrong in both wherever a tensor fills a vector register: 50 steps with momentum end 15 % of the largest
 * weight away from float64, against 0.4 % this way. ATen's other fused optimizers, `_fused_adam_` and `_fused_adamw_`, are as
 * close to float64 as the default path in every dtype, and do not overflow in float16 if eps is 0 there.
 * test/train/precision-reference.test.ts compares them all.
 */
function composed(group: SGDOptions, pairs: Gradient[], buffers: Tensor[], isFirstStep: boolean): Promise<unknown>[] {
  const { lr, momentum, dampening, nesterov } = group
  const jobs: Job[] = []
  const run = foreach(jobs)
  const params = pairs.map(({ param }) => param)
  const grads = gradientsOf(pairs, run, group)
  let steps = grads
  if (momentum !== 0) {
    if (isFirstStep) run.copy(buffers, grads)
    else {
      run.mul(buffers, momentum)
      run.add(buffers, grads, { alpha: 1 - dampening })
    }
    steps = buffers
    if (nesterov) {
      steps = copies(grads, run, params)
      run.add(steps, buffers, { alpha: momentum })
    }
  }
  run.add(params, steps, { alpha: -lr })
  return started(jobs)
}
