import { argumentError, requireObject, shown } from '../base/check.js'
import { ConfigError, ShapeError } from '../base/errors.js'
import type { ChangesOf } from '../base/settings.js'
import { ops, scope, Tensor } from '../tensor/index.js'
import { GRPO_ADVANTAGES, GRPO_LOSS } from './grpo-settings.js'

/** Log-probabilities and advantages of sampled answers. */
export interface GrpoLossInputs {
  /** Log-probabilities of the tokens under the model, [answers, time]. */
  logps: Tensor
  /** Under the model that sampled the answers, [answers, time]. Default: `logps` without gradient, as in the first step with answers. */
  oldLogps?: Tensor | null
  /** Under the reference model, [answers, time]; required with `beta` above 0. */
  refLogps?: Tensor | null
  /** 1 for the tokens of the answers and 0 elsewhere, [answers, time]. */
  mask: Tensor
  /** Advantage of each answer, [answers]. */
  advantages: Tensor
}

/** @interface */
export type GrpoLossOptions = ChangesOf<typeof GRPO_LOSS.table> & {
  /** With lossType 'dr_grpo': the length by which the sum over an answer is divided. */
  maxCompletionLength?: number
  /** With lossType 'dapo': number of tokens by which the sum is divided. Default: those of `mask`. */
  numItems?: number
}

/** @interface */
export type GrpoAdvantageOptions = ChangesOf<typeof GRPO_ADVANTAGES.table>

/** GRPO's loss, with means over the tokens. */
export interface GrpoLossOutput {
  loss: Tensor
  /** Mean KL divergence from the reference, []; null with `beta` 0. Without gradient. */
  kl: Tensor | null
  /** Fraction of tokens whose ratio was clipped, []. Without gradient. */
  clipRatio: Tensor
}

/**
 * Return GRPO's loss (Shao et al. 2024, https://arxiv.org/abs/2402.03300), equation 3, per token: −min(r A, clip(r, 1 − ε, 1 + ε_high) A)
 * + β KL, where r is the ratio of the token's probability to that under the model that sampled it, and KL = π_ref / π − log(π_ref / π) − 1.
 * `lossType` selects the normalization: 'grpo', 'bnpo' (https://arxiv.org/abs/2412.05479), 'dr_grpo' (https://arxiv.org/abs/2503.20783) or
 * 'dapo' (https://arxiv.org/abs/2503.14476).
 * @throws ShapeError for inputs of unequal shapes; ConfigError for a wrong option
 */
export function grpoLoss(inputs: GrpoLossInputs, options: GrpoLossOptions = {}): GrpoLossOutput {
  const { maxCompletionLength, numItems, ...rest } = options ?? {}
  const { beta, epsilon, epsilonHigh, lossType, useBiasCorrectionKl } = GRPO_LOSS.read('grpoLoss', rest)
  const { logps, oldLogps, refLogps, mask, advantages } = inputs ?? {}
  requireInputs(inputs, beta)
  if (lossType === 'dr_grpo') requirePositive('maxCompletionLength', maxCompletionLength, "with lossType 'dr_grpo'")
  if (numItems !== undefined) requirePositive('numItems', numItems, '')
  return scope(() => {
    const weights = mask.to({ dtype: logps.dtype, device: logps.device as 'cpu' })
    const total = weights.sum().clamp({ min: 1 })
    const meanOf = (values: Tensor) => values.detach().mul(weights).sum().div(total)
    const ratio = logps.sub(oldLogps ?? logps.detach()).exp()
    const [low, high] = [1 - epsilon, 1 + (epsilonHigh ?? epsilon)]
    const gain = advantages.to({ dtype: logps.dtype, device: logps.device as 'cpu' }).unsqueeze(1)
    let losses = ops.minimum(ratio.mul(gain), ratio.clamp({ min: low, max: high }).mul(gain)).neg()
    let kl: Tensor | null = null
    if (beta > 0) {
      const difference = (refLogps as Tensor).sub(logps)
      const divergence = difference.exp().sub(difference).sub(1)
      const weighted = useBiasCorrectionKl ? divergence.mul(ratio) : divergence
      losses = losses.add(weighted.mul(beta))
      kl = meanOf(weighted)
    }
    const clipped = ratio
      .lt(low)
      .logicalAnd(gain.lt(0))
      .logicalOr(ratio.gt(high).logicalAnd(gain.gt(0)))
    const sums = losses.mul(weights)
    const ofAll = (count: number) => sums.sum().div(count)
    const loss =
      lossType === 'grpo'
        ? sums
            .sum(1)
            .div(weights.sum(1).clamp({ min: 1 }))
            .mean()
        : lossType === 'dr_grpo'
          ? ofAll(logps.size(0) * (maxCompletionLength as number))
          : lossType === 'dapo' && numItems !== undefined
            ? ofAll(numItems)
            : sums.sum().div(total)
    return { loss, kl, clipRatio: meanOf(clipped.to(logps.dtype)) }
  })
}

/**
 * Return the advantages of answers: each reward minus the mean of its group, divided by a standard deviation + 1e-4. Groups are
 * `numGenerations` consecutive answers.
 * @param rewards for each answer the rewards of the reward functions, which are summed with `rewardWeights`; null for an answer that a
 *   function does not score. An answer that no function scores has the advantage 0, and does not count for its group
 * @throws ConfigError for a wrong option or reward, and for incomplete groups
 */
export function grpoAdvantages(
  rewards: readonly (readonly (number | null)[])[],
  options: GrpoAdvantageOptions = {},
): number[] {
  const where = 'grpoAdvantages'
  const { numGenerations, rewardWeights, scaleRewards } = GRPO_ADVANTAGES.read(where, options)
  if (!Array.isArray(rewards) || rewards.length === 0 || rewards.length % numGenerations !== 0) {
    const got = Array.isArray(rewards) ? `${rewards.length}` : shown(rewards)
    throw new ConfigError(
      `${where}: rewards: expected those of whole groups of ${numGenerations} answers, got ${got}.`,
      {
        argument: 'rewards',
      },
    )
  }
  const sums = rewards.map((row, i) => weightedSum(where, row, rewardWeights, i))
  const groups = Array.from({ length: sums.length / numGenerations }, (_, i) =>
    sums.slice(i * numGenerations, (i + 1) * numGenerations),
  )
  const ofBatch = deviationOf(sums)
  return groups.flatMap((group) => {
    const mean = meanOf(group)
    const divisor = scaleRewards === 'none' ? 1 : (scaleRewards === 'group' ? deviationOf(group) : ofBatch) + 1e-4
    return group.map((reward) => {
      const advantage = (reward - mean) / divisor
      return Number.isNaN(advantage) ? 0 : advantage
    })
  })
}

/** Return the weighted sum of an answer's rewards; NaN if no function scores it. */
export function weightedSum(
  where: string,
  rewards: readonly (number | null)[],
  weights: readonly number[] | undefined,
  answer: number,
): number {
  if (!Array.isArray(rewards) || rewards.length === 0) {
    throw argumentError(where, `rewards[${answer}]`, 'a list of numbers', rewards)
  }
  if (weights !== undefined && weights.length !== rewards.length) {
    throw new ConfigError(
      `${where}: rewardWeights: expected a weight for each of ${rewards.length} reward functions, got ${weights.length}.`,
      { argument: 'rewardWeights' },
    )
  }
  let sum = Number.NaN
  for (const [i, reward] of rewards.entries()) {
    if (reward === null) continue
    if (!Number.isFinite(reward)) throw argumentError(where, `rewards[${answer}][${i}]`, 'a number or null', reward)
    sum = (Number.isNaN(sum) ? 0 : sum) + reward * (weights?.[i] ?? 1)
  }
  return sum
}

const scored = (values: readonly number[]) => values.filter((value) => !Number.isNaN(value))

/** Return the mean of the values that are not NaN. */
export function meanOf(values: readonly number[]): number {
  const found = scored(values)
  return found.reduce((sum, value) => sum + value, 0) / found.length
}

/** Return the standard deviation, with Bessel's correction, of the values that are not NaN; NaN for fewer than two. */
export function deviationOf(values: readonly number[]): number {
  const found = scored(values)
  const mean = meanOf(found)
  return Math.sqrt(found.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (found.length - 1))
}

function requirePositive(name: string, value: unknown, when: string): void {
  if (typeof value === 'number' && Number.isFinite(value) && value > 0) return
  throw argumentError('grpoLoss', name, `a number above 0${when && ` ${when}`}`, value)
}

/** Check that inputs are tensors [answers, time], and [answers] for the advantages. */
function requireInputs(inputs: GrpoLossInputs, beta: number): void {
  const where = 'grpoLoss'
  requireObject(where, 'the inputs', inputs)
  const { logps } = inputs
  if (!(logps instanceof Tensor)) throw argumentError(where, 'logps', 'a tensor', logps)
  if (logps.ndim !== 2) {
    throw new ShapeError(`${where}: logps: expected [answers, time], got [${logps.shape}].`, { shape: logps.shape })
  }
  for (const name of ['oldLogps', 'refLogps', 'mask', 'advantages'] as const) {
    const value: unknown = inputs[name]
    const optional = name === 'oldLogps' || (name === 'refLogps' && beta === 0)
    if (optional && (value === undefined || value === null)) continue
    if (!(value instanceof Tensor)) {
      throw argumentError(where, name, name === 'refLogps' ? 'a tensor with beta above 0' : 'a tensor', value)
    }
    const expected = name === 'advantages' ? logps.shape.slice(0, 1) : logps.shape
    if (value.shape.length === expected.length && value.shape.every((size, i) => size === expected[i])) continue
    throw new ShapeError(
      `${where}: ${name}: expected [${expected}] for logps of [${logps.shape}], got [${value.shape}].`,
      {
        argument: name,
        shape: value.shape,
      },
    )
  }
}
