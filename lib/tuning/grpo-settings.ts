// Settings with command-line options, apart from modules that load libtorch, which `--help` must not do.
import { settings, type ValuesOf } from '../base/settings.js'
import { PREFERENCE_SETTINGS } from './settings.js'

/** Kinds of GRPO's loss, by TRL's names. */
export const GRPO_LOSSES = ['grpo', 'bnpo', 'dr_grpo', 'dapo'] as const
export type GrpoLossType = (typeof GRPO_LOSSES)[number]

/** Options of `grpoLoss`. */
export const GRPO_LOSS = settings({
  /** Weight of the KL divergence from the reference model; 0 needs no reference. Default 0. */
  beta: { type: 'number', default: 0, help: 'weight of the KL divergence from the reference model; 0 needs none' },
  /** Clipping range of the probability ratio below 1. Default 0.2. */
  epsilon: { type: 'number', default: 0.2, help: 'clipping range of the probability ratio' },
  /** Clipping range above 1; null for `epsilon`. Default null. */
  epsilonHigh: {
    ...{ type: 'number', nullable: true, default: null, defaultText: 'epsilon' },
    help: 'clipping range of the probability ratio above 1',
  },
  /**
   * Normalization of the sum over the tokens: 'grpo' is the mean over answers of the means over their tokens, 'bnpo' the mean over the tokens
   * of a batch, 'dr_grpo' divides by answers times `maxCompletionLength`, and 'dapo' by the tokens of the whole step. Default 'dapo'.
   */
  lossType: { type: GRPO_LOSSES, default: 'dapo', help: 'normalization of the loss over the tokens' },
  /** Whether to multiply the KL divergence by the probability ratio, which makes its gradient unbiased. Default true. */
  useBiasCorrectionKl: {
    ...{ type: 'boolean', default: true },
    help: 'multiply the KL divergence by the probability ratio; --no-use-bias-correction-kl does not',
  },
})

/** Options of `grpoAdvantages`. */
export const GRPO_ADVANTAGES = settings({
  /** Number of answers per prompt. Default 8. */
  numGenerations: { type: 'integer', min: 2, default: 8, help: 'answers per prompt' },
  /** Weight of each reward function. Default: 1 each. */
  rewardWeights: { type: 'numbers', min: Number.NEGATIVE_INFINITY },
  /** Standard deviation by which the rewards are divided: that of the group, of all groups of a step, or none. Default 'group'. */
  scaleRewards: {
    type: ['group', 'batch', 'none'],
    default: 'group',
    help: 'standard deviation by which rewards are divided',
  },
})

const { maxLength, batchSize, evalBatchSize, learningRate, ...TRAINING } = PREFERENCE_SETTINGS.pick(
  ...(['maxLength', 'onBadRecord', 'loraplusLrRatio', 'epochs', 'maxSteps', 'batchSize', 'evalBatchSize'] as const),
  ...([
    'accumulation',
    'learningRate',
    'warmupRatio',
    'weightDecay',
    'maxGradNorm',
    'seed',
    'saveSteps',
    'logSteps',
  ] as const),
).table

/** Settings of GRPO, by TRL's names in camelCase where it has them. */
export const GRPO_SETTINGS = settings({
  ...GRPO_LOSS.table,
  ...GRPO_ADVANTAGES.table,
  /** Optimizer steps with the answers of each prompt. Default 1. */
  numIterations: { type: 'integer', min: 1, default: 1, help: 'optimizer steps with the same answers' },
  /** Maximum number of tokens of an answer. Default 512. */
  maxCompletionLength: { type: 'integer', min: 1, default: 512, help: 'maximum number of tokens of an answer' },
  /** Whether answers that reach `maxCompletionLength` do not contribute to the loss. Default false. */
  maskTruncatedCompletions: {
    ...{ type: 'boolean', default: false },
    help: 'leave answers that reach the maximum length out of the loss',
  },
  /**
   * Sampling: number above 0 by which the logits are divided. Log-probabilities in the loss, and of the reference, have the same temperature.
   * Default 1.
   */
  temperature: { type: 'number', default: 1, help: 'sampling temperature, also of the log-probabilities in the loss' },
  /** Sampling: keep only the k most likely tokens; 0 for all. Default 0. */
  topK: { type: 'integer', default: 0, help: 'sampling: keep the k most likely tokens; 0 for all' },
  /** Sampling: keep the fewest top tokens whose probabilities sum to at least this value. Default 1. */
  topP: { type: 'number', default: 1, help: 'sampling: keep the top tokens of this total probability' },
  /** Sequences that are generated together. Default 16. */
  maxNumSeqs: { type: 'integer', min: 1, default: 16, help: 'answers that are sampled together' },
  /** Maximum number of tokens of a prompt; a longer one is a bad record. Default 1024. */
  maxLength: { ...maxLength, min: 1, help: 'maximum number of tokens of a prompt' },
  /**
   * Action for a reward that is NaN, infinite or not a number, or whose function throws: 'stop' throws, 'skip' counts it and leaves the answer
   * unscored by that function. Default 'stop'.
   */
  onBadReward: {
    type: ['stop', 'skip'],
    default: 'stop',
    help: 'stop at, or skip and count, a reward that is NaN or whose function throws',
  },
  /** Prompts per batch, each with `numGenerations` answers. Default 1. */
  batchSize: { ...batchSize, default: 1, help: 'prompts per batch, each with all its answers' },
  /** Prompts per batch of evaluation. Default 8. */
  evalBatchSize: { ...evalBatchSize, help: 'prompts per batch of evaluation' },
  /** Peak learning rate. Default 1e-6, for all weights; adapters need about ten times as much. */
  learningRate,
  ...TRAINING,
  /** Passes over the prompts. Default 1. */
  epochs: { ...TRAINING.epochs, help: 'passes over the prompts' },
})

export type GrpoSettings = ValuesOf<typeof GRPO_SETTINGS.table>
