import { GradientError } from '../base/errors.js'
import { op } from '../native/call.js'
import type { Tensor } from '../tensor/index.js'
import { type Job, started } from './foreach.js'
import { type Gradient, isSparse } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface SparseAdamOptions extends GroupOptions {
  /** Decay rates of the averages of the gradient and of its square. Default [0.9, 0.999]. */
  betas: readonly [number, number]
  /** Added to the denominator. Default 1e-8. */
  eps: number
}

const DEFAULTS: SparseAdamOptions = { lr: 1e-3, betas: [0.9, 0.999], eps: 1e-8, maximize: false }

const coalesced = op('aten::coalesce') as (tensor: Tensor) => Tensor
const indicesOf = op('aten::_indices') as (tensor: Tensor) => Tensor
const valuesOf = op('aten::_values') as (tensor: Tensor) => Tensor

/**
 * Adam for sparse gradients, such as those of `new Embedding(n, d, { sparse: true })`: only the rows that a gradient has are updated,
 * and their averages with them. Defaults, numbers and state are those of `torch.optim.SparseAdam`. The update runs on this thread.
 */
export class SparseAdam extends Optimizer<SparseAdamOptions> {
  constructor(params: ParamsOrGroups<SparseAdamOptions>, options: Partial<SparseAdamOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override gradients(params: Tensor[]): Gradient[] {
    return params.flatMap((param) => {
      const { grad } = param
      if (!grad) return []
      if (isSparse(grad)) return [{ param, grad }]
      throw new GradientError(
        `SparseAdam: expected a sparse gradient for the parameter of shape [${param.shape}], got a dense one. Use Adam, or { sparse: true } in the embedding`,
        { shape: param.shape },
      )
    })
  }

  protected override queueUpdate(group: ParamGroup<SparseAdamOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, betas, eps, maximize } = group
    const jobs: Job[] = []
    const counted = this.counted(pairs, jobs, (param) => ({
      exp_avg: param.zerosLike(),
      exp_avg_sq: param.zerosLike(),
    }))
    for (const { step, pairs } of counted) {
      const size = (lr * Math.sqrt(1 - betas[1] ** step)) / (1 - betas[0] ** step)
      for (const { param, grad } of pairs) {
        const state = this.stateOf(param, () => ({})) as { exp_avg: Tensor; exp_avg_sq: Tensor }
        // One entry for each element, since the update is not linear.
        const whole = coalesced(grad)
        const places = [...indicesOf(whole).unbind(0)]
        const values = maximize ? valuesOf(whole).neg() : valuesOf(whole)
        if (values.numel() === 0) continue
        const average = state.exp_avg.index(places).lerp(values, 1 - betas[0])
        const square = state.exp_avg_sq.index(places).lerp(values.square(), 1 - betas[1])
        state.exp_avg.indexPut_(places, average)
        state.exp_avg_sq.indexPut_(places, square)
        param.indexPut_(places, average.div(square.sqrt().add(eps)).mul(-size), true)
      }
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<SparseAdamOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { step: NUMBER, exp_avg: { shape }, exp_avg_sq: { shape } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return {}
  }
}
