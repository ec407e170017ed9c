// Settings with command-line options, apart from modules that load libtorch, which `--help` must not do.
import { argumentError, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type SettingTable, settings, type ValuesOf } from '../base/settings.js'
import { TRAINING } from '../kit/training-settings.js'

/** Kinds of preference losses, by TRL's names. */
export const PREFERENCE_LOSSES = ['sigmoid', 'ipo', 'kto', 'orpo', 'simpo'] as const
export type PreferenceLoss = (typeof PREFERENCE_LOSSES)[number]

const BETA = {
  /** Weight of the deviation from the reference: the higher, the closer the model stays to it. Above 0. Default 0.1. */
  beta: {
    type: 'number',
    default: 0.1,
    help: 'strength of the preference loss: higher values stay closer to the reference',
  },
} as const satisfies SettingTable

const LABEL_SMOOTHING = {
  /** Probability that a pair is in the wrong order, for the losses 'sigmoid' and 'simpo', below 0.5. Default 0. */
  labelSmoothing: {
    ...{ type: 'number', below: 0.5, default: 0 },
    help: 'sigmoid and simpo: probability that a pair is in the wrong order',
  },
} as const satisfies SettingTable

/** Options of `dpoLoss`. */
export const DPO_LOSS = settings({ ...BETA, ...LABEL_SMOOTHING })
/** Options of `ipoLoss` and `orpoLoss`. */
export const BETA_LOSS = settings(BETA)
/** Options of `ktoLoss`. */
export const KTO_LOSS = settings({
  ...BETA,
  /** Weight of chosen answers in the loss. Default 1. */
  desirableWeight: { type: 'number', default: 1, help: 'kto: weight of chosen answers' },
  /** Weight of rejected answers in the loss. Default 1. */
  undesirableWeight: { type: 'number', default: 1, help: 'kto: weight of rejected answers' },
})
/** Options of `simpoLoss`. */
export const SIMPO_LOSS = settings({
  ...BETA,
  ...LABEL_SMOOTHING,
  /** Target margin between the rewards of a pair, γ in the paper. Default 0.5. */
  simpoGamma: { type: 'number', default: 0.5, help: 'simpo: target margin between the rewards of a pair' },
})

/** Check that β is positive. */
export function requireBeta(where: string, beta: number): void {
  if (!(beta > 0)) throw argumentError(where, 'beta', 'a number above 0', beta)
}

/** Options of LoRA+. */
export const LORA_PLUS = settings({
  lr: { type: 'number', required: true },
  loraplusLrRatio: {
    ...{ type: 'number', min: 1, required: true },
    help: "LoRA+: learning rate of the adapters' matrices B as a multiple of that of A, for example 16",
  },
  loraplusLrEmbedding: { type: 'number', default: 1e-6 },
  loraplusWeightDecay: { type: 'number', default: 0 },
})

/** Settings of preference training, by TRL's names in camelCase where it has them. */
export const PREFERENCE_SETTINGS = settings({
  /**
   * Loss: 'sigmoid' is DPO. 'ipo' and 'kto' compare with a reference model too, 'orpo' and 'simpo' do not. KTO treats the answers of a
   * pair separately. Default 'sigmoid'.
   */
  loss: {
    type: PREFERENCE_LOSSES,
    default: 'sigmoid',
    help: 'loss; sigmoid is DPO; orpo and simpo need no reference model',
    aliases: ['loss-type'],
  },
  ...SIMPO_LOSS.table,
  ...KTO_LOSS.table,
  /**
   * Compute the reference's log-probabilities once, before training, and keep two numbers per pair. Default: at each step with
   * adapters alone, once where other weights train.
   */
  precomputeRefLogProbs: {
    ...{ type: 'boolean', defaultText: 'with --no-lora' },
    help: "compute the reference model's log-probabilities once, before training",
  },
  /** Maximum number of tokens of prompt and answer; longer ones are truncated. Default 1024. */
  maxLength: { type: 'integer', min: 2, default: 1024, help: 'maximum number of tokens of prompt and answer' },
  /** End of a text that is kept when it is truncated. Default 'keep_start'. */
  truncationMode: {
    type: ['keep_start', 'keep_end'],
    ...{ default: 'keep_start', help: 'end of a long text that is kept' },
  },
  /** Action for a record that cannot be used: 'stop' throws, 'skip' leaves it out and counts it. Default 'stop'. */
  onBadRecord: {
    type: ['stop', 'skip'],
    ...{ default: 'stop', help: 'stop at, or skip and count, a record that cannot be used' },
  },
  /** Noise of NEFTune on the token embeddings; null for none. Default null. */
  neftuneNoiseAlpha: {
    ...{ type: 'number', nullable: true, default: null, defaultText: 'none', argument: 'neftuneNoiseAlpha' },
    help: 'NEFTune: noise on the token embeddings, for example 5',
  },
  /** LoRA+: learning rate of the adapters' matrices B as a multiple of that of A; null for plain LoRA. Default null. */
  loraplusLrRatio: {
    ...{ type: 'number', min: 1, nullable: true, default: null, defaultText: 'plain LoRA' },
    help: LORA_PLUS.table.loraplusLrRatio.help,
  },
  /** Passes over the pairs. Default 1. */
  epochs: { ...TRAINING.epochs, default: 1, help: 'passes over the pairs' },
  /** Number of optimizer steps, in place of `epochs`. */
  maxSteps: TRAINING.maxSteps,
  /** Pairs per batch. Default 8. */
  batchSize: { ...TRAINING.batchSize, default: 8, help: 'pairs per batch' },
  /** Pairs per batch of evaluation and of the reference. Default 8. */
  evalBatchSize: { ...TRAINING.evalBatchSize, default: 8, help: 'pairs per batch of evaluation and of the reference' },
  /** Batches per optimizer step. Default 1. */
  accumulation: { ...TRAINING.accumulation, default: 1 },
  /** Peak learning rate. Default 1e-6, for all weights; adapters need about ten times as much. */
  learningRate: { ...TRAINING.learningRate, default: 1e-6 },
  /** Fraction of all steps for warmup. Default 0. */
  warmupRatio: { ...TRAINING.warmupRatio, default: 0 },
  /** Default 0. */
  weightDecay: { ...TRAINING.weightDecay, default: 0, help: 'weight decay' },
  /** Default 1. */
  maxGradNorm: { ...TRAINING.maxGradNorm, default: 1, help: 'maximum gradient norm; 0 turns clipping off' },
  /** Random seed of the order, dropout and noise. Default 42. */
  seed: { ...TRAINING.seed, default: 42 },
  /** Steps between checkpoints. Default: one at the end of each epoch. */
  saveSteps: { ...TRAINING.saveSteps, defaultText: 'at the end of each epoch' },
  /** Steps between logs. Default 10. */
  logSteps: { ...TRAINING.logSteps, default: 10 },
})

export type PreferenceSettings = ValuesOf<typeof PREFERENCE_SETTINGS.table>

/** Settings that only some losses read. */
const LOSSES_OF: Partial<Record<keyof PreferenceSettings, readonly PreferenceLoss[]>> = {
  labelSmoothing: ['sigmoid', 'simpo'],
  simpoGamma: ['simpo'],
  desirableWeight: ['kto'],
  undesirableWeight: ['kto'],
  precomputeRefLogProbs: ['sigmoid', 'ipo', 'kto'],
}

/** Check options and fill in defaults. @throws ConfigError also for a setting that the loss does not read */
export function preferenceSettings(where: string, changes: Partial<PreferenceSettings>): PreferenceSettings {
  const all = PREFERENCE_SETTINGS.read(where, changes)
  requireBeta(where, all.beta)
  for (const [name, losses] of Object.entries(LOSSES_OF)) {
    const value = changes[name as keyof PreferenceSettings]
    if (value === undefined || losses.includes(all.loss)) continue
    throw new ConfigError(
      `${where}: ${name}: expected it only with loss ${losses.map((one) => `'${one}'`).join(' or ')}, got ${shown(value)} with '${all.loss}'. Leave it out.`,
      { argument: name },
    )
  }
  return all
}

/** Whether a loss compares with a reference model. */
export const hasReference = (loss: PreferenceLoss): boolean => loss !== 'orpo' && loss !== 'simpo'
