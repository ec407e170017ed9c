import { argumentError } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import type { Tensor } from '../tensor/index.js'
import { foreach, type Job, queuedOps, started } from './foreach.js'
import { type Gradient, gradientsOf } from './gradients.js'
import { type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import { NUMBER, type StateSlot } from './optimizer-state.js'

export interface TransformersAdafactorOptions extends GroupOptions {
  /** Learning rate if `relativeStep` is false, which it is by default when `lr` is set. */
  lr: number
  /** Minimum added to the squared gradient, and minimum scale of the weights. Default [1e-30, 1e-3]. */
  eps: [number, number]
  /** Maximum root mean square of an update; larger updates are scaled down to it. Default 1. */
  clipThreshold: number
  /** Exponent of the step number in the decay of the squared-gradient average. Default -0.8. */
  decayRate: number
  /** Decay of the running average of the updates; null, the default, disables it. */
  beta1: number | null
  /** Decoupled weight decay, multiplied by the learning rate. Default 0. */
  weightDecay: number
  /** Multiply the learning rate by the root mean square of the weights. Default true. */
  scaleParameter: boolean
  /** Use the learning rate min(1e-2, 1 / √step) instead of `lr`. Default true, unless `lr` is set. */
  relativeStep: boolean
  /** Increase the learning rate by 1e-6 per step at first; requires `relativeStep`. Default false. */
  warmupInit: boolean
}

const DEFAULTS: TransformersAdafactorOptions = {
  lr: 0,
  eps: [1e-30, 1e-3],
  clipThreshold: 1,
  decayRate: -0.8,
  beta1: null,
  weightDecay: 0,
  scaleParameter: true,
  relativeStep: true,
  warmupInit: false,
  maximize: false,
}

/**
 * Adafactor (Shazeer and Stern 2018, https://arxiv.org/abs/1804.04235) with the arithmetic, defaults and state of
 * `transformers.optimization.Adafactor`, which is fairseq's. The Trainer's `optim: 'adafactor'` uses it with `scaleParameter`
 * and `relativeStep` false. PyTorch's is {@link Adafactor}. With `masterWeights`, bfloat16 and float16 parameters are updated
 * in float32, as in transformers.
 */
export class TransformersAdafactor extends Optimizer<TransformersAdafactorOptions> {
  constructor(
    params: ParamsOrGroups<TransformersAdafactorOptions>,
    options: Partial<TransformersAdafactorOptions> = {},
  ) {
    super(params, options?.lr === undefined ? DEFAULTS : { ...DEFAULTS, relativeStep: false }, options)
  }

  protected override checkOptions(group: ParamGroup<TransformersAdafactorOptions>): void {
    for (const option of ['lr', 'weightDecay'] as const) this.range(group, option, group[option])
    this.pair(group, 'eps', group.eps)
    this.range(group, 'clipThreshold', group.clipThreshold, Number.MIN_VALUE)
    this.range(group, 'decayRate', group.decayRate, Number.NEGATIVE_INFINITY)
    if (group.beta1 !== null) this.range(group, 'beta1', group.beta1, 0, 1)
    for (const option of ['scaleParameter', 'relativeStep', 'warmupInit'] as const) {
      if (typeof group[option] !== 'boolean')
        throw argumentError('TransformersAdafactor', option, 'a boolean', group[option])
    }
    if (group.warmupInit && !group.relativeStep) {
      throw new ConfigError('TransformersAdafactor.warmupInit: expected relativeStep: true with it, got false', {
        option: 'warmupInit',
      })
    }
  }

  protected override queueUpdate(
    group: ParamGroup<TransformersAdafactorOptions>,
    pairs: Gradient[],
  ): Promise<unknown>[] {
    const jobs: Job[] = []
    const make = (param: Tensor) => stateOf(group, param)
    for (const { step, pairs: same, column } of this.counted(pairs, jobs, make)) {
      const grads = gradientsOf(same, foreach(jobs), { maximize: group.maximize })
      same.forEach(({ param }, i) => {
        const state = Object.fromEntries(Object.keys(make(param)).map((slot) => [slot, column(slot)[i] as Tensor]))
        updateOne(group, param, grads[i] as Tensor, state, step, jobs)
      })
    }
    return started(jobs)
  }

  protected override stateSlots(
    group: ParamGroup<TransformersAdafactorOptions>,
    { shape }: Tensor,
  ): Record<string, StateSlot> {
    const [row, column] = factorShapes(shape)
    return {
      step: NUMBER,
      RMS: NUMBER,
      exp_avg: { shape, optional: group.beta1 === null },
      ...(shape.length < 2
        ? { exp_avg_sq: { shape } }
        : { exp_avg_sq_row: { shape: row }, exp_avg_sq_col: { shape: column } }),
    }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return {}
  }
}

const factorShapes = (shape: readonly number[]): [row: number[], column: number[]] => [
  shape.slice(0, -1),
  [...shape.slice(0, -2), ...shape.slice(-1)],
]

function stateOf({ beta1 }: TransformersAdafactorOptions, param: Tensor): Record<string, Tensor> {
  const [row, column] = factorShapes(param.shape)
  return {
    RMS: param.newZeros([], { dtype: 'float32' }),
    ...(beta1 !== null && { exp_avg: param.zerosLike() }),
    ...(param.ndim < 2
      ? { exp_avg_sq: param.zerosLike() }
      : { exp_avg_sq_row: param.newZeros(row), exp_avg_sq_col: param.newZeros(column) }),
  }
}

function updateOne(
  group: TransformersAdafactorOptions,
  param: Tensor,
  grad: Tensor,
  state: Record<string, Tensor>,
  step: number,
  jobs: Job[],
): void {
  const { eps, clipThreshold, decayRate, beta1, weightDecay, scaleParameter, relativeStep, warmupInit } = group
  const queue = queuedOps(jobs)
  const size = 1 / Math.sqrt(param.numel())
  const kept = 1 - step ** decayRate
  const rate = param.newZeros([])
  queue('linalg_vector_norm', param, 2, null, false, { out: rate })
  queue('mul_', rate, size)
  queue('copy_', state.RMS, rate)
  if (scaleParameter) queue('clamp_min_', rate, eps[1])
  else queue('fill_', rate, 1)
  queue('mul_', rate, relativeStep ? Math.min(warmupInit ? 1e-6 * step : 1e-2, 1 / Math.sqrt(step)) : group.lr)

  const update = param.emptyLike()
  queue('mul', grad, grad, { out: update })
  queue('add_', update, eps[0])
  const average = (into: Tensor, value: Tensor) => {
    queue('mul_', into, kept)
    queue('add_', into, value, { alpha: 1 - kept })
  }
  const { exp_avg_sq_row: row, exp_avg_sq_col: column, exp_avg_sq: square, exp_avg: mean } = state
  if (row && column) {
    for (const [into, dim] of [
      [row, -1],
      [column, -2],
    ] as const) {
      const now = into.emptyLike()
      queue('mean', update, [dim], false, { out: now })
      average(into, now)
    }
    const whole = param.newZeros([...row.shape.slice(0, -1), 1])
    queue('mean', row, [-1], true, { out: whole })
    const [byRow, byColumn] = [row.emptyLike(), column.emptyLike()]
    queue('div', row, whole, { out: byRow })
    queue('rsqrt_', byRow)
    queue('rsqrt', column, { out: byColumn })
    queue('mul', byRow.unsqueeze(-1), byColumn.unsqueeze(-2), { out: update })
  } else if (square) {
    average(square, update)
    queue('rsqrt', square, { out: update })
  }
  queue('mul_', update, grad)
  const large = param.newZeros([])
  queue('linalg_vector_norm', update, 2, null, false, { out: large })
  queue('mul_', large, size / clipThreshold)
  queue('clamp_min_', large, 1)
  queue('div_', update, large)
  queue('mul_', update, rate)
  if (mean && beta1 !== null) {
    queue('mul_', mean, beta1)
    queue('add_', mean, update, { alpha: 1 - beta1 })
  }
  if (weightDecay !== 0) {
    queue('mul_', rate, -weightDecay)
    queue('add_', rate, 1)
    queue('mul_', param, rate)
  }
  queue('sub_', param, mean ?? update)
}
