import { settings, type ValuesOf } from '../../../base/settings.js'
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
  epochs: {
    type: 'number',
    default: 2,
    help: 'passes over the data',
    aliases: ['num_train_epochs'],
    argument: 'numTrainEpochs',
  },
  batchSize: {
    type: 'integer',
    min: 1,
    default: 1,
    help: 'records per batch',
    aliases: ['per_device_train_batch_size'],
    argument: 'perDeviceTrainBatchSize',
  },
  evalBatchSize: {
    type: 'integer',
    min: 1,
    default: 1,
    help: 'records per batch of validation',
    aliases: ['per_device_eval_batch_size'],
    argument: 'perDeviceEvalBatchSize',
  },
  accumulation: {
    type: 'integer',
    min: 1,
    default: 8,
    help: 'batches per optimizer step (gradient accumulation)',
    aliases: ['gradient_accumulation_steps'],
    argument: 'gradientAccumulationSteps',
  },
  learningRate: { type: 'number', default: 1e-4, help: 'peak learning rate', argument: 'learningRate' },
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
  warmupRatio: {
    type: 'fraction',
    default: 0.05,
    help: 'fraction of all steps with a rising learning rate',
    argument: 'warmupRatio',
  },
  weightDecay: { type: 'number', default: 0.1, help: 'weight decay of the matrices', argument: 'weightDecay' },
  maxGradNorm: {
    type: 'number',
    default: 1,
    help: 'maximum gradient norm; 0 turns clipping off',
    argument: 'maxGradNorm',
  },
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
  logSteps: {
    type: 'integer',
    min: 1,
    default: 10,
    help: 'steps between logs',
    aliases: ['logging_steps'],
    argument: 'loggingSteps',
  },
  evalSteps: { type: 'integer', min: 1, default: 1000, help: 'steps between evaluations', argument: 'evalSteps' },
  saveSteps: { type: 'integer', min: 1, default: 500, help: 'steps between checkpoints', argument: 'saveSteps' },
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
  seed: { type: 'integer', default: 42, help: 'random seed of the order and of new adapters', argument: 'seed' },
})

export type EmoVerseRecipe = ValuesOf<typeof EMOVERSE_SETTINGS.table>

export const EMOVERSE_RECIPE: Readonly<EmoVerseRecipe> = EMOVERSE_SETTINGS.defaults

/** Return the recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export const emoverseRecipe = (changes: Partial<EmoVerseRecipe> = {}): EmoVerseRecipe =>
  EMOVERSE_SETTINGS.read('emoverseRecipe', changes)
