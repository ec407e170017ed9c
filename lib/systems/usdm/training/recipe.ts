import { settings, type ValuesOf } from '../../../base/settings.js'
import { SCHEDULER_TYPES } from '../../../train/training-names.js'

/**
 * Hyperparameters of USDM's training: defaults, checks, command-line options and names in TrainingArguments. The defaults are
 * those of the original's programs with their DeepSpeed file: no gradient clipping, and weight decay on all weights, norms
 * included. Batches are of examples, or of packed rows in pre-training.
 */
export const USDM_SETTINGS = settings({
  batchSize: {
    type: 'integer',
    min: 1,
    default: 2,
    help: 'batch size per process',
    aliases: ['train_batch_size', 'per_device_train_batch_size'],
    argument: 'perDeviceTrainBatchSize',
  },
  evalBatchSize: {
    type: 'integer',
    min: 1,
    default: 2,
    help: 'evaluation batch size per process',
    aliases: ['eval_batch_size'],
    argument: 'perDeviceEvalBatchSize',
  },
  accumulation: {
    type: 'integer',
    min: 1,
    default: 4,
    help: 'gradient accumulation: batches per optimizer step; 2 for pre-training',
    aliases: ['gradient_accumulation_steps'],
    argument: 'gradientAccumulationSteps',
  },
  learningRate: {
    type: 'number',
    default: 2e-5,
    help: 'peak learning rate',
    argument: 'learningRate',
  },
  schedule: {
    type: SCHEDULER_TYPES,
    default: 'cosine',
    help: "learning rate schedule, by transformers' name",
    placeholder: 'name',
    aliases: ['lr_scheduler_type'],
    argument: 'lrSchedulerType',
  },
  warmupRatio: {
    type: 'fraction',
    default: 0.03,
    help: 'fraction of all steps for warmup',
    argument: 'warmupRatio',
  },
  maxGradNorm: {
    type: 'number',
    default: 0,
    help: 'gradient clipping norm; 0 for none',
    argument: 'maxGradNorm',
  },
  epochs: {
    type: 'number',
    default: 1,
    help: 'passes over the data',
    aliases: ['num_train_epochs'],
    argument: 'numTrainEpochs',
  },
  betas: { type: 'numbers', length: 2, below: 1, default: [0.9, 0.95], argument: ['adamBeta1', 'adamBeta2'] },
  eps: { type: 'number', default: 1e-8, argument: 'adamEpsilon' },
  weightDecay: { type: 'number', default: 0.01, argument: 'weightDecay' },
  gradientCheckpointing: {
    type: 'boolean',
    default: true,
    defaultText: 'on',
    option: 'checkpointing',
    help: 'recompute layers in backward; --no-checkpointing keeps all activations',
    argument: 'gradientCheckpointing',
  },
  logSteps: {
    type: 'integer',
    min: 1,
    default: 50,
    help: 'steps between logs',
    aliases: ['logging_steps'],
    argument: 'loggingSteps',
  },
  evalSteps: { type: 'integer', min: 1, default: 1000, help: 'steps between evaluations', argument: 'evalSteps' },
  saveSteps: { type: 'integer', min: 1, default: 1000, help: 'steps between checkpoints', argument: 'saveSteps' },
  saveTotalLimit: {
    type: 'integer',
    min: 1,
    default: 2,
    help: 'maximum number of kept checkpoints',
    argument: 'saveTotalLimit',
  },
  seed: { type: 'integer', default: 42, help: 'random seed', argument: 'seed' },
})

export type UsdmRecipe = ValuesOf<typeof USDM_SETTINGS.table>

export const USDM_RECIPE: Readonly<UsdmRecipe> = USDM_SETTINGS.defaults

/** The recipe of pre-training. */
export const USTM_RECIPE: Readonly<UsdmRecipe> = { ...USDM_RECIPE, accumulation: 2 }

/** Return a recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export const usdmRecipe = (
  changes: Partial<UsdmRecipe> = {},
  defaults: Readonly<UsdmRecipe> = USDM_RECIPE,
): UsdmRecipe => USDM_SETTINGS.read('usdmRecipe', changes, defaults)
