// Settings with command-line options, apart from modules that load libtorch, which `--help` must not do.

import { argumentError, isList, requireOneOf, shown } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { checkedBy, type SettingTable, settings, type ValuesOf } from '../base/settings.js'
import { GGUF_SAVE_TYPES } from '../files/gguf/types.js'
import { TRAINING } from '../kit/training-settings.js'
import { OPTIMIZER_NAMES } from '../train/training-names.js'

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

/** Settings that preference training and supervised fine-tuning share. */
const TUNING = {
  /** Maximum number of tokens of a record; longer ones are truncated. Default 1024. */
  maxLength: { type: 'integer', min: 2, default: 1024, help: 'maximum number of tokens of a record' },
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
  /** Passes over the records. Default 1. */
  epochs: { ...TRAINING.epochs, default: 1, help: 'passes over the records' },
  /** Number of optimizer steps, in place of `epochs`. */
  maxSteps: TRAINING.maxSteps,
  /** Records per batch. Default 8. */
  batchSize: { ...TRAINING.batchSize, default: 8, help: 'records per batch' },
  /** Records per batch of evaluation. Default 8. */
  evalBatchSize: { ...TRAINING.evalBatchSize, default: 8, help: 'records per batch of evaluation' },
  /** Batches per optimizer step. Default 1. */
  accumulation: { ...TRAINING.accumulation, default: 1 },
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
} as const satisfies SettingTable

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
  ...TUNING,
  /**
   * Compute the reference's log-probabilities once, before training, and keep two numbers per pair. Default: at each step with
   * adapters alone, once where other weights train.
   */
  precomputeRefLogProbs: {
    ...{ type: 'boolean', defaultText: 'with --no-lora' },
    help: "compute the reference model's log-probabilities once, before training",
  },
  /** Maximum number of tokens of prompt and answer; longer ones are truncated. Default 1024. */
  maxLength: { ...TUNING.maxLength, help: 'maximum number of tokens of prompt and answer' },
  /** Passes over the pairs. Default 1. */
  epochs: { ...TUNING.epochs, help: 'passes over the pairs' },
  /** Pairs per batch. Default 8. */
  batchSize: { ...TUNING.batchSize, help: 'pairs per batch' },
  /** Pairs per batch of evaluation and of the reference. Default 8. */
  evalBatchSize: { ...TUNING.evalBatchSize, help: 'pairs per batch of evaluation and of the reference' },
  /** Peak learning rate. Default 1e-6, for all weights; adapters need about ten times as much. */
  learningRate: { ...TRAINING.learningRate, default: 1e-6 },
})

/** Metrics of generated answers. */
export const ANSWER_METRICS = ['wer', 'cer', 'exactMatch', 'rougeL'] as const
export type AnswerMetric = (typeof ANSWER_METRICS)[number]

/** Whisper's normalizers of texts for error rates. */
export const NORMALIZERS = ['basic', 'english'] as const
export type NormalizerName = (typeof NORMALIZERS)[number]

/** Settings of supervised fine-tuning. */
export const SFT_SETTINGS = settings({
  /**
   * Turns whose tokens contribute to the loss: all turns of the assistant, or the last one. Default 'assistant'.
   */
  trainOn: {
    type: ['assistant', 'last'],
    ...{ default: 'assistant', help: 'turns that contribute to the loss: all of the assistant, or its last' },
  },
  ...TUNING,
  /**
   * Fill batches with records up to `batchSize` × `maxLength` tokens (first-fit decreasing), in place of `batchSize` records. Records
   * never attend to each other, and padding is never computed, in either case. Default false.
   */
  packing: {
    ...{ type: 'boolean', default: false },
    help: 'fill batches with up to batch size × maximum length tokens, in place of a number of records',
  },
  /** Group records of similar length into batches. Default false. */
  groupByLength: {
    ...{ type: 'boolean', default: false, help: 'group records of similar length', argument: 'groupByLength' },
  },
  /**
   * Optimizer, as in `TrainingArguments`. 'muon' updates the matrices of hidden layers by Muon, and embeddings, output layer, biases and
   * norms by AdamW. Default 'adamw_torch'.
   */
  optim: {
    ...{ type: OPTIMIZER_NAMES, default: 'adamw_torch', placeholder: 'name', argument: 'optim' },
    help: 'optimizer, by its name in TrainingArguments, such as adamw_8bit or muon',
  },
  /** Peak learning rate. Default 2e-5, for all weights; adapters need about ten times as much. */
  learningRate: { ...TRAINING.learningRate, default: 2e-5 },
  /**
   * Metrics of answers that the model generates greedily to the prompts of `evalRecords`, at each evaluation: 'wer' and 'cer' on texts
   * normalized by `normalizer`, 'exactMatch', and 'rougeL' (F1). Default: none.
   */
  metrics: {
    type: checkedBy<readonly AnswerMetric[]>((where, name, value) => {
      if (!isList(value)) throw argumentError(where, name, 'a list of metrics', value)
      for (const [i, one] of value.entries()) requireOneOf(where, `${name}[${i}]`, one, ANSWER_METRICS)
    }),
    default: [],
  },
  /**
   * Whisper's normalizer of texts for 'wer' and 'cer': 'basic' for any language; 'english' also removes fillers and diacritics, spells out
   * contractions and titles, and writes numbers as digits. Default 'basic'.
   */
  normalizer: {
    ...{ type: NORMALIZERS, default: 'basic' },
    help: "Whisper's normalizer of texts for wer and cer",
  },
  /**
   * normalizer.json of a Whisper checkpoint, or its folder, with the American spellings of the English normalizer. Default: none; for the
   * command, the file in the folder of the model, if there is one.
   */
  spellings: {
    ...{
      type: 'string',
      nullable: true,
      default: null,
      placeholder: 'path',
      defaultText: 'normalizer.json of the model',
    },
    help: 'normalizer.json with the spellings of the English normalizer',
  },
  /** Maximum number of tokens of a generated answer. Default 128. */
  maxNewTokens: { type: 'integer', min: 1, default: 128, help: 'maximum number of tokens of generated answers' },
  /** Metric that selects the best checkpoint: 'loss', or one of `metrics`. Default 'loss'. */
  keyMetric: {
    type: ['loss', ...ANSWER_METRICS],
    ...{ default: 'loss', help: 'metric of --eval-data that selects the best checkpoint' },
  },
  /** Stop after this number of evaluations without a better value of `keyMetric`; null for never. Default null. */
  earlyStoppingPatience: {
    ...{
      type: 'integer',
      min: 1,
      nullable: true,
      default: null,
      defaultText: 'never',
      argument: 'earlyStoppingPatience',
    },
    help: 'stop after this number of evaluations without improvement',
  },
  /** Steps between checkpoints, each with an evaluation. Default: one at the end of each epoch. */
  saveSteps: { ...TUNING.saveSteps, help: 'steps between checkpoints, and between evaluations' },
  /** Save the model with its adapters merged too, in `outputDir/model`. Default false. */
  merge: { type: 'boolean', default: false, help: 'save the model with the adapter merged too' },
  /** Save a GGUF file of a `DecoderLM` too, with merged adapters: `outputDir/model.gguf`. Null for none. Default null. */
  gguf: {
    type: GGUF_SAVE_TYPES,
    ...{ nullable: true, default: null, defaultText: 'none', help: 'save a GGUF file with these weights too' },
  },
  /** Only for an `AudioLM`: clips that are longer than the model takes, as in `AudioLM.prepare`. Default 'error': a record that cannot be used. */
  longAudio: {
    type: ['error', 'cut', 'windows'],
    ...{ default: 'error', help: 'audio clips that are longer than the model takes' },
  },
})

export type SftSettings = ValuesOf<typeof SFT_SETTINGS.table>

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
