import { argumentError } from '../base/check.js'
import { isHalf } from '../tensor/dtype.js'
import type { DType, Tensor } from '../tensor/index.js'
import { foreach, type Job, queuedOps, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface AdafactorOptions extends GroupOptions {
  /** Exponent of the step number in the decay of the squared-gradient average. Default -0.8. */
  beta2Decay: number
  /** Minimum of the squared gradient (null: the dtype's machine epsilon) and of the weights' scale. Default [null, 1e-3]. */
  eps: [number | null, number]
  /** Maximum root mean square of an update; larger updates are scaled down to it. Default 1. */
  d: number
  /** Decoupled weight decay. Default 0. */
  weightDecay: number
}

const DEFAULTS: AdafactorOptions = {
  lr: 0.01,
  beta2Decay: -0.8,
  eps: [null, 1e-3],
  d: 1,
  weightDecay: 0,
  maximize: false,
}

const EPSILON: Partial<Record<DType, number>> = {
  float64: 2 ** -52,
  float32: 2 ** -23,
  bfloat16: 2 ** -7,
  float16: 2 ** -10,
}

/**
 * Adafactor (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235): stores only the row and column means of a matrix's
 * squared gradients. Arithmetic, defaults and state are those of `torch.optim.Adafactor`: updates are proportional to the
 * weights' scale, decay is by `lr` alone, and there is no momentum. transformers' class of the same name, which T5 was tuned
 * with, is {@link TransformersAdafactor}.
 */
export class Adafactor extends Optimizer<AdafactorOptions> {
  constructor(params: ParamsOrGroups<AdafactorOptions>, options: Partial<AdafactorOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<AdafactorOptions>): void {
    const { eps } = group
    for (const option of ['lr', 'weightDecay'] as const) this.range(group, option, group[option])
    this.range(group, 'd', group.d, 1)
    this.range(group, 'beta2Decay', group.beta2Decay, Number.NEGATIVE_INFINITY)
    if (group.beta2Decay > 0) throw argumentError('Adafactor', 'beta2Decay', 'a number of at most 0', group.beta2Decay)
    if (!Array.isArray(eps) || eps.length !== 2)
      throw argumentError('Adafactor', 'eps', 'two numbers, or null and one', eps)
    for (const one of eps) if (one !== null || one === eps[1]) this.range(group, 'eps', one as number)
  }

  protected override queueUpdate(group: ParamGroup<AdafactorOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const jobs: Job[] = []
    const run = foreach(jobs)
    for (const { step, pairs: same, column } of this.counted(pairs, jobs, factors)) {
      const grads = gradientsOf(same, run, { maximize: group.maximize })
      same.forEach(({ param }, i) => {
        const slots = Object.keys(factors(param))
        const state = Object.fromEntries(slots.map((slot) => [slot, column(slot)[i] as Tensor]))
        updateOne(group, param, grads[i] as Tensor, state, step, jobs)
      })
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<AdafactorOptions>, { shape }: Tensor): Record<string, StateSlot> {
    if (shape.length < 2) return { step: NUMBER, variance: { shape } }
    const [row, column] = factorShapes(shape)
    return { step: NUMBER, row_var: { shape: row }, col_var: { shape: column } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return { foreach: null }
  }
}

const factorShapes = (shape: readonly number[]): [row: number[], column: number[]] => [
  [...shape.slice(0, -1), 1],
  [...shape.slice(0, -2), 1, shape.at(-1) as number],
]

function factors(param: Tensor): Record<string, Tensor> {
  if (param.ndim < 2) return { variance: param.zerosLike() }
  const [row, column] = factorShapes(param.shape)
  return { row_var: param.newZeros(row), col_var: param.newZeros(column) }
}

function updateOne(
  { lr, beta2Decay, eps, d, weightDecay }: AdafactorOptions,
  param: Tensor,
  grad: Tensor,
  state: Record<string, Tensor>,
  step: number,
  jobs: Job[],
): void {
  const queue = queuedOps(jobs)
  // PyTorch keeps these numbers in float64 on the host; half precision would round them before they scale an update.
  const dtype = isHalf(param.dtype) ? 'float32' : param.dtype
  const number = () => param.newZeros([], { dtype })
  const share = step ** beta2Decay
  const least = eps[0] ?? (EPSILON[param.dtype] as number)
  const size = 1 / Math.sqrt(param.numel())
  const rate = number() // max(eps, root mean square of the weights) times the relative learning rate
  queue('linalg_vector_norm', param, 2, null, false, { dtype, out: rate })
  queue('mul_', rate, size)
  queue('clamp_min_', rate, eps[1])
  queue('mul_', rate, Math.min(lr, 1 / Math.sqrt(step)))
  if (weightDecay !== 0) queue('mul_', param, 1 - lr * weightDecay)

  const update = param.emptyLike()
  const { row_var: row, col_var: column, variance } = state
  if (row && column) {
    for (const [kept, dim] of [
      [row, -1],
      [column, -2],
    ] as const) {
      const mean = kept.emptyLike()
      queue('linalg_vector_norm', grad, 2, [dim], true, { out: mean })
      queue('square_', mean)
      queue('div_', mean, grad.size(dim))
      queue('lerp_', kept, mean, share)
    }
    const total = param.newZeros([...param.shape.slice(0, -2), 1, 1])
    queue('mean', row, [-2], true, { out: total })
    queue('clamp_min_', total, least)
    queue('matmul', row, column, { out: update })
    queue('div_', update, total)
  } else if (variance) {
    queue('mul', grad, grad, { out: update })
    queue('lerp_', variance, update, share)
    queue('copy_', update, variance)
  }
  queue('clamp_min_', update, least * least)
  queue('rsqrt_', update)
  queue('mul_', update, grad)
  const large = number()
  queue('linalg_vector_norm', update, 2, null, false, { dtype, out: large })
  queue('mul_', large, size / d)
  queue('clamp_min_', large, 1)
  queue('div_', rate, large)
  const scaled = dtype === param.dtype ? update : param.newEmpty(param.shape, { dtype })
  if (scaled !== update) queue('copy_', scaled, update)
  queue('mul_', scaled, rate)
  queue('sub_', param, scaled)
}
