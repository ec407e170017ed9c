import { argumentError, requireOneOf, requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { empty, type Tensor } from '../tensor/index.js'
import { type Job, queuedOps, started } from './foreach.js'
import { type Gradient, type GroupOptions, Optimizer, type ParamGroup, type ParamsOrGroups } from './optimizer.js'
import type { StateSlot } from './optimizer-state.js'

export interface MuonOptions extends GroupOptions {
  /** Decoupled weight decay: each step subtracts lr · weightDecay · parameter. Default 0.1. */
  weightDecay: number
  /** Weight of the past in the average of the gradients. Default 0.95. */
  momentum: number
  /** Nesterov momentum. Default true. */
  nesterov: boolean
  /** Coefficients a, b and c of the Newton–Schulz iteration. Default [3.4445, -4.775, 2.0315]. */
  nsCoefficients: readonly [number, number, number]
  /** Least norm that the update is divided by. Default 1e-7. */
  eps: number
  /** Newton–Schulz iterations. Default 5. */
  nsSteps: number
  /**
   * Factor on the learning rate for a matrix [rows, columns]: 'original' (also null) √max(1, rows / columns), 'match_rms_adamw' 0.2
   * √max(rows, columns), with which AdamW's learning rate and weight decay fit. Default null.
   */
  adjustLrFn: 'original' | 'match_rms_adamw' | null
}

const DEFAULTS: MuonOptions = {
  lr: 1e-3,
  weightDecay: 0.1,
  momentum: 0.95,
  nesterov: true,
  nsCoefficients: [3.4445, -4.775, 2.0315],
  eps: 1e-7,
  nsSteps: 5,
  adjustLrFn: null,
  maximize: false,
}

/**
 * Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon/): the momentum of each matrix is orthogonalized, in bfloat16, before
 * it updates the matrix. Defaults, numbers and state are those of `torch.optim.Muon`. For the matrices of hidden layers only; use
 * AdamW for biases, norms, embeddings and output layers.
 */
export class Muon extends Optimizer<MuonOptions> {
  constructor(params: ParamsOrGroups<MuonOptions>, options: Partial<MuonOptions> = {}) {
    super(params, DEFAULTS, options)
  }

  protected override checkOptions(group: ParamGroup<MuonOptions>): void {
    for (const name of ['lr', 'weightDecay', 'momentum', 'eps'] as const) this.range(group, name, group[name])
    requireWhole('Muon', 'nsSteps', group.nsSteps)
    if (group.nsSteps >= 100) throw argumentError('Muon', 'nsSteps', 'an integer below 100', group.nsSteps)
    const { nsCoefficients, adjustLrFn } = group
    if (!Array.isArray(nsCoefficients) || nsCoefficients.length !== 3) {
      throw argumentError('Muon', 'nsCoefficients', 'three numbers', nsCoefficients)
    }
    for (const one of nsCoefficients) this.range(group, 'nsCoefficients', one, Number.NEGATIVE_INFINITY)
    if (adjustLrFn !== null) requireOneOf('Muon', 'adjustLrFn', adjustLrFn, ['original', 'match_rms_adamw'])
    for (const { shape } of group.params) {
      if (shape.length === 2) continue
      throw new ConfigError(
        `Muon: expected matrices, got a parameter of shape [${shape}]. Give biases, norms and embeddings to another optimizer, such as AdamW`,
        { shape },
      )
    }
  }

  protected override queueUpdate(group: ParamGroup<MuonOptions>, pairs: Gradient[]): Promise<unknown>[] {
    const { lr, weightDecay, momentum, nesterov, maximize } = group
    const jobs: Job[] = []
    const run = queuedOps(jobs)
    for (const { param, grad } of pairs) {
      const { momentum_buffer: buffer } = this.stateOf(param, () => ({ momentum_buffer: param.zerosLike() }))
      const average = buffer as Tensor
      let gradient = grad
      if (maximize) {
        gradient = param.emptyLike()
        run('neg', grad, { out: gradient })
      }
      run('lerp_', average, gradient, 1 - momentum)
      let update = average
      if (nesterov) {
        update = param.emptyLike()
        run('lerp', gradient, average, momentum, { out: update })
      }
      const orthogonal = orthogonalized(update, group, run)
      run('mul_', param, 1 - lr * weightDecay)
      run('add_', param, orthogonal, { alpha: -lr * factor(param.shape as [number, number], group) })
    }
    return started(jobs)
  }

  protected override stateSlots(_: ParamGroup<MuonOptions>, { shape }: Tensor): Record<string, StateSlot> {
    return { momentum_buffer: { shape } }
  }

  protected override fixedOptions(): Record<string, unknown> {
    return {}
  }
}

function factor([rows, columns]: [number, number], { adjustLrFn }: MuonOptions): number {
  return adjustLrFn === 'match_rms_adamw'
    ? 0.2 * Math.sqrt(Math.max(rows, columns))
    : Math.sqrt(Math.max(1, rows / columns))
}

/** Queue the Newton–Schulz iteration, and return the tensor that will hold its result. */
function orthogonalized(update: Tensor, group: MuonOptions, run: ReturnType<typeof queuedOps>): Tensor {
  const [rows, columns] = update.shape as [number, number]
  const { device } = update
  const isTall = rows > columns
  const matrix = (...shape: number[]): Tensor => empty(shape, { dtype: 'bfloat16', device })
  const half = matrix(rows, columns)
  const norm = matrix()
  run('copy_', half, update)
  let x = isTall ? half.t() : half
  run('linalg_vector_norm', x, 2, { out: norm })
  run('clamp_min_', norm, group.eps)
  run('div_', x, norm)
  const [least, most] = [Math.min(rows, columns), Math.max(rows, columns)]
  const gram = matrix(least, least)
  const polynomial = matrix(least, least)
  const results = [matrix(least, most), matrix(least, most)] as const
  const [a, b, c] = group.nsCoefficients
  for (let step = 0; step < group.nsSteps; step++) {
    const next = results[step % 2] as Tensor
    run('mm', x, x.t(), { out: gram })
    run('addmm', gram, gram, gram, { beta: b, alpha: c, out: polynomial })
    run('addmm', x, polynomial, x, { beta: a, out: next })
    x = next
  }
  return isTall ? x.t() : x
}
