import { settings, type ValuesOf } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'
import { SCHEDULER_TYPES } from '../../../train/training-names.js'

/**
 * Hyperparameters of USDM's training: defaults, checks, command-line options and names in TrainingArguments. The defaults are
 * those of the original's programs with their DeepSpeed file: no gradient clipping, and weight decay on all weights, norms
 * included. Batches are of examples, or of packed rows in pre-training.
 */
export const USDM_SETTINGS = settings({
  batchSize: {
    ...TRAINING.batchSize,
    default: 2,
    help: 'batch size per process',
    aliases: ['train_batch_size', 'per_device_train_batch_size'],
  },
  evalBatchSize: {
    ...TRAINING.evalBatchSize,
    default: 2,
    help: 'evaluation batch size per process',
    aliases: ['eval_batch_size'],
  },
  accumulation: {
    ...TRAINING.accumulation,
    default: 4,
    help: 'gradient accumulation: batches per optimizer step; 2 for pre-training',
    aliases: ['gradient_accumulation_steps'],
  },
  learningRate: { ...TRAINING.learningRate, default: 2e-5 },
  schedule: {
    type: SCHEDULER_TYPES,
    default: 'cosine',
    help: "learning rate schedule, by transformers' name",
    placeholder: 'name',
    aliases: ['lr_scheduler_type'],
    argument: 'lrSchedulerType',
  },
  warmupRatio: { ...TRAINING.warmupRatio, default: 0.03 },
  maxGradNorm: { ...TRAINING.maxGradNorm, default: 0, help: 'gradient clipping norm; 0 for none' },
  epochs: { ...TRAINING.epochs, default: 1, aliases: ['num_train_epochs'] },
  betas: { type: 'numbers', length: 2, below: 1, default: [0.9, 0.95], argument: ['adamBeta1', 'adamBeta2'] },
  eps: { type: 'number', default: 1e-8, argument: 'adamEpsilon' },
  weightDecay: { ...TRAINING.weightDecay, default: 0.01 },
  gradientCheckpointing: {
    type: 'boolean',
    default: true,
    defaultText: 'on',
    option: 'checkpointing',
    help: 'recompute layers in backward; --no-checkpointing keeps all activations',
    argument: 'gradientCheckpointing',
  },
  logSteps: { ...TRAINING.logSteps, default: 50, aliases: ['logging_steps'] },
  evalSteps: { type: 'integer', min: 1, default: 1000, help: 'steps between evaluations', argument: 'evalSteps' },
  saveSteps: { ...TRAINING.saveSteps, default: 1000 },
  saveTotalLimit: {
    type: 'integer',
    min: 1,
    default: 2,
    help: 'maximum number of kept checkpoints',
    argument: 'saveTotalLimit',
  },
  seed: { ...TRAINING.seed, default: 42 },
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
