import { argumentError, requireObject } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import type { ChangesOf } from '../base/settings.js'
import { ops, scope, Tensor, zeros } from '../tensor/index.js'
import { BETA_LOSS, DPO_LOSS, KTO_LOSS, requireBeta, SIMPO_LOSS } from './settings.js'

/** Log-probabilities of the answers of pairs. */
export interface PairLogps {
  /** Log-probability of each chosen answer, [pairs]. */
  chosenLogps: Tensor
  /** Log-probability of each rejected answer, [pairs]. */
  rejectedLogps: Tensor
}

/** Log-probabilities of the answers of pairs under the model and under the reference model. */
export interface ReferencedLogps extends PairLogps {
  /** Under the reference model, [pairs]. */
  refChosenLogps: Tensor
  /** Under the reference model, [pairs]. */
  refRejectedLogps: Tensor
}

/** A preference loss, and the rewards that it implies. */
export interface PreferenceLossOutput {
  /** Mean over the pairs, []. */
  loss: Tensor
  /** β times the log-probability, relative to the reference where there is one, [pairs]; without gradients. */
  chosenRewards: Tensor
  rejectedRewards: Tensor
}

/** @interface */
export type DpoLossOptions = ChangesOf<typeof DPO_LOSS.table>
/** @interface */
export type IpoLossOptions = ChangesOf<typeof BETA_LOSS.table>
/** @interface */
export type KtoLossOptions = ChangesOf<typeof KTO_LOSS.table>
/** @interface */
export type OrpoLossOptions = ChangesOf<typeof BETA_LOSS.table>
/** @interface */
export type SimpoLossOptions = ChangesOf<typeof SIMPO_LOSS.table>

/**
 * Return DPO's loss (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290), equation 7: −log σ(β Δ), where Δ is the
 * log-ratio to the reference of the chosen answer minus that of the rejected one. With `labelSmoothing` it is the conservative
 * loss of https://ericmitchell.ai/cdpo.pdf. Log-probabilities are sums over the tokens of an answer.
 * @throws ShapeError for log-probabilities of unequal shapes; ConfigError for a wrong option
 */
export function dpoLoss(logps: ReferencedLogps, options: DpoLossOptions = {}): PreferenceLossOutput {
  const { beta, labelSmoothing } = DPO_LOSS.read('dpoLoss', options)
  requireBeta('dpoLoss', beta)
  requireLogps('dpoLoss', logps, REFERENCED)
  return scope(() => {
    const { chosen, rejected } = ratiosOf(logps)
    return { loss: sigmoidLoss(chosen.sub(rejected).mul(beta), labelSmoothing), ...rewards(beta, chosen, rejected) }
  })
}

/**
 * Return IPO's loss (Azar et al. 2023, https://arxiv.org/abs/2310.12036), equation 17: (Δ − 1 / 2β)², where Δ is the difference of
 * the log-ratios to the reference, each divided by the number of tokens of its answer, as IPO's authors and TRL do.
 * @param logps with `chosenLengths` and `rejectedLengths`, the numbers of tokens of the answers, [pairs]
 * @throws ShapeError for inputs of unequal shapes; ConfigError for a wrong option
 */
export function ipoLoss(
  logps: ReferencedLogps & { chosenLengths: Tensor; rejectedLengths: Tensor },
  options: IpoLossOptions = {},
): PreferenceLossOutput {
  const { beta } = BETA_LOSS.read('ipoLoss', options)
  requireBeta('ipoLoss', beta)
  requireLogps('ipoLoss', logps, [...REFERENCED, 'chosenLengths', 'rejectedLengths'])
  return scope(() => {
    const { chosen, rejected } = ratiosOf(logps)
    const mean = (ratios: Tensor, lengths: Tensor) => ratios.div(lengths.clamp({ min: 1 }))
    const delta = mean(chosen, logps.chosenLengths).sub(mean(rejected, logps.rejectedLengths))
    return {
      loss: delta
        .sub(1 / (2 * beta))
        .square()
        .mean(),
      ...rewards(beta, chosen, rejected),
    }
  })
}

/**
 * Return KTO's loss (Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306), equation 7: the mean over all answers of
 * w (1 − σ(±β (log-ratio − KL))). KL is the mean log-ratio of answers to other prompts, at least 0, and has no gradient. The numbers
 * of chosen and rejected answers may differ.
 * @param logps with `klLogps` and `refKlLogps`, [answers]: log-probabilities of answers to other prompts; without them KL is 0
 * @returns also `kl`, the estimate, []
 * @throws ShapeError for inputs of unequal shapes; ConfigError for a wrong option
 */
export function ktoLoss(
  logps: ReferencedLogps & { klLogps?: Tensor | null; refKlLogps?: Tensor | null },
  options: KtoLossOptions = {},
): PreferenceLossOutput & { kl: Tensor } {
  const { beta, desirableWeight, undesirableWeight } = KTO_LOSS.read('ktoLoss', options)
  requireBeta('ktoLoss', beta)
  const { klLogps, refKlLogps } = logps
  requireLogps('ktoLoss', logps, ['chosenLogps', 'refChosenLogps'])
  requireLogps('ktoLoss', logps, ['rejectedLogps', 'refRejectedLogps'])
  if (klLogps || refKlLogps) requireLogps('ktoLoss', logps, ['klLogps', 'refKlLogps'])
  return scope(() => {
    const { chosen, rejected } = ratiosOf(logps)
    const kl =
      klLogps && refKlLogps
        ? klLogps.sub(refKlLogps).mean().detach().clamp({ min: 0 })
        : zeros([], { dtype: chosen.dtype, device: chosen.device as 'cpu' })
    const losses = ops.cat([
      // 1 − σ(x) is σ(−x), without cancellation.
      kl.sub(chosen).mul(beta).sigmoid().mul(desirableWeight),
      rejected.sub(kl).mul(beta).sigmoid().mul(undesirableWeight),
    ])
    return { loss: losses.mean(), ...rewards(beta, chosen, rejected), kl }
  })
}

/**
 * Return ORPO's loss (Hong et al. 2024, https://arxiv.org/abs/2403.07691), equation 6: the supervised loss of the chosen answers,
 * minus β log σ(log odds ratio). It needs no reference model. Log-probabilities are means over the tokens of an answer.
 * @param logps with `nllLoss`, []: mean cross-entropy of the chosen conversations
 * @throws ShapeError for inputs of unequal shapes; ConfigError for a wrong option
 */
export function orpoLoss(logps: PairLogps & { nllLoss: Tensor }, options: OrpoLossOptions = {}): PreferenceLossOutput {
  const { beta } = BETA_LOSS.read('orpoLoss', options)
  requireBeta('orpoLoss', beta)
  requireLogps('orpoLoss', logps, PAIR)
  if (!(logps.nllLoss instanceof Tensor)) throw argumentError('orpoLoss', 'nllLoss', 'a tensor', logps.nllLoss)
  return scope(() => {
    const { chosenLogps: chosen, rejectedLogps: rejected, nllLoss } = logps
    const logOdds = chosen.sub(rejected).sub(log1mexp(chosen).sub(log1mexp(rejected)))
    const loss = nllLoss.sub(ops.logSigmoid(logOdds).mul(beta).mean())
    return { loss, ...rewards(beta, chosen, rejected) }
  })
}

/**
 * Return SimPO's loss (Meng et al. 2024, https://arxiv.org/abs/2405.14734), equation 6: −log σ(β Δ − γ), where Δ is the difference of
 * the log-probabilities, means over the tokens of an answer. It needs no reference model.
 * @throws ShapeError for inputs of unequal shapes; ConfigError for a wrong option
 */
export function simpoLoss(logps: PairLogps, options: SimpoLossOptions = {}): PreferenceLossOutput {
  const { beta, labelSmoothing, simpoGamma } = SIMPO_LOSS.read('simpoLoss', options)
  requireBeta('simpoLoss', beta)
  requireLogps('simpoLoss', logps, PAIR)
  return scope(() => {
    const { chosenLogps: chosen, rejectedLogps: rejected } = logps
    const margin = chosen.sub(rejected).mul(beta).sub(simpoGamma)
    return { loss: sigmoidLoss(margin, labelSmoothing), ...rewards(beta, chosen, rejected) }
  })
}

function ratiosOf({ chosenLogps, rejectedLogps, refChosenLogps, refRejectedLogps }: ReferencedLogps) {
  return { chosen: chosenLogps.sub(refChosenLogps), rejected: rejectedLogps.sub(refRejectedLogps) }
}

const rewards = (beta: number, chosen: Tensor, rejected: Tensor) => ({
  chosenRewards: chosen.detach().mul(beta),
  rejectedRewards: rejected.detach().mul(beta),
})

function sigmoidLoss(margins: Tensor, smoothing: number): Tensor {
  const loss = ops.logSigmoid(margins).neg()
  if (smoothing === 0) return loss.mean()
  return loss
    .mul(1 - smoothing)
    .sub(ops.logSigmoid(margins.neg()).mul(smoothing))
    .mean()
}

const HALF = -Math.LN2
/** The nearest to 0 that a log-probability is taken for: of 0, which float32 rounds to, odds and gradients are not finite. */
const CERTAIN = -1e-7

/** log(1 − exp(x)) of x < 0, in the form that loses no digits on each side of −log 2 (Mächler 2012). */
function log1mexp(logps: Tensor): Tensor {
  const x = logps.clamp({ max: CERTAIN })
  // The form that is not selected must be finite, or its gradient would be NaN.
  const small = ops.log1p(x.clamp({ max: HALF }).exp().neg())
  const large = ops
    .expm1(x.clamp({ min: HALF }))
    .neg()
    .log()
  return ops.where(x.lt(HALF), small, large)
}

const PAIR = ['chosenLogps', 'rejectedLogps'] as const
const REFERENCED = [...PAIR, 'refChosenLogps', 'refRejectedLogps'] as const

/** Check that inputs are tensors of one shape [answers]. */
function requireLogps(where: string, inputs: object, names: readonly string[]): void {
  requireObject(where, 'the log-probabilities', inputs)
  let answers: number | undefined
  for (const name of names) {
    const value: unknown = Reflect.get(inputs, name)
    if (!(value instanceof Tensor)) throw argumentError(where, name, 'a tensor', value)
    if (value.shape.length === 1 && value.size(0) === (answers ?? value.size(0))) {
      answers = value.size(0)
      continue
    }
    throw new ShapeError(
      `${where}: expected ${names.join(', ')} of one shape [answers], got ${name} of shape [${value.shape}].`,
      { argument: name, shape: value.shape },
    )
  }
}
