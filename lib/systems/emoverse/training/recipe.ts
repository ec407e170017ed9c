import { settings, type ValuesOf } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'
import { OPTIMIZER_NAMES, SCHEDULER_TYPES } from '../../../train/training-names.js'

/**
 * Training settings of a stage: defaults, checks, command-line options and names in TrainingArguments. Defaults are those of
 * EmoVerse's scripts, otherwise those of ms-swift 2.6.
 */
export const EMOVERSE_SETTINGS = settings({
  validationShare: {
    type: 'fraction',
    default: 0.01,
    help: 'fraction of the data to validate with, if --val-dataset is not given',
    aliases: ['dataset_test_ratio', 'split_dataset_ratio'],
  },
  epochs: { ...TRAINING.epochs, default: 2, aliases: ['num_train_epochs'] },
  batchSize: { ...TRAINING.batchSize, default: 1, help: 'records per batch', aliases: ['per_device_train_batch_size'] },
  evalBatchSize: {
    ...TRAINING.evalBatchSize,
    default: 1,
    help: 'records per batch of validation',
    aliases: ['per_device_eval_batch_size'],
  },
  accumulation: {
    ...TRAINING.accumulation,
    default: 8,
    help: 'batches per optimizer step (gradient accumulation)',
    aliases: ['gradient_accumulation_steps'],
  },
  learningRate: { ...TRAINING.learningRate, default: 1e-4 },
  optim: {
    type: OPTIMIZER_NAMES,
    default: 'adamw_torch',
    help: 'optimizer, by its name in transformers',
    placeholder: 'text',
    argument: 'optim',
  },
  schedule: {
    type: SCHEDULER_TYPES,
    default: 'cosine',
    help: 'learning rate schedule, by its name in transformers',
    placeholder: 'text',
    aliases: ['lr_scheduler_type'],
    argument: 'lrSchedulerType',
  },
  warmupRatio: { ...TRAINING.warmupRatio, default: 0.05, help: 'fraction of all steps with a rising learning rate' },
  weightDecay: { ...TRAINING.weightDecay, default: 0.1, help: 'weight decay of the matrices' },
  maxGradNorm: { ...TRAINING.maxGradNorm, default: 1, help: 'maximum gradient norm; 0 turns clipping off' },
  betas: { type: 'numbers', length: 2, below: 1, default: [0.9, 0.95], argument: ['adamBeta1', 'adamBeta2'] },
  eps: { type: 'number', default: 1e-8, argument: 'adamEpsilon' },
  maxLength: {
    type: 'integer',
    min: 1,
    default: 2048,
    help: 'maximum length in tokens; longer records are left out; each image or video counts as one token',
  },
  maxExpandedLength: {
    type: 'integer',
    min: 1,
    nullable: true,
    default: null,
    defaultText: 'no limit',
    help: 'maximum length with all tokens of images and videos',
  },
  gradientCheckpointing: {
    type: 'boolean',
    takesValue: true,
    default: true,
    help: 'recompute activations in the backward pass to save memory',
    argument: 'gradientCheckpointing',
  },
  logSteps: { ...TRAINING.logSteps, default: 10, aliases: ['logging_steps'] },
  evalSteps: { type: 'integer', min: 1, default: 1000, help: 'steps between evaluations', argument: 'evalSteps' },
  saveSteps: { ...TRAINING.saveSteps, default: 500 },
  saveTotalLimit: {
    type: 'integer',
    min: 1,
    default: 3,
    help: 'number of checkpoints to keep',
    argument: 'saveTotalLimit',
  },
  loadBest: {
    type: 'boolean',
    default: false,
    help: 'evaluate once per epoch, and end with the weights of the best evaluation',
  },
  seed: { ...TRAINING.seed, default: 42, help: 'random seed of the order and of new adapters' },
})

export type EmoVerseRecipe = ValuesOf<typeof EMOVERSE_SETTINGS.table>

export const EMOVERSE_RECIPE: Readonly<EmoVerseRecipe> = EMOVERSE_SETTINGS.defaults

/** Return the recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export const emoverseRecipe = (changes: Partial<EmoVerseRecipe> = {}): EmoVerseRecipe =>
  EMOVERSE_SETTINGS.read('emoverseRecipe', changes)
