import { type ChangesOf, settings, type ValuesOf } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'

/** Hyperparameters that all trainings of this system share, with their command-line options and names in TrainingArguments. */
export const HEAD_SETTINGS = settings({
  epochs: { ...TRAINING.epochs, default: 10, aliases: ['num_train_epochs'] },
  /** Dialogs per batch, or utterances with `splitBy: 'utterance'`. */
  batchSize: { ...TRAINING.batchSize, default: 8, help: 'dialogs per batch', aliases: ['per_device_train_batch_size'] },
  accumulation: {
    ...TRAINING.accumulation,
    default: 1,
    help: 'batches per optimizer step',
    aliases: ['gradient_accumulation_steps'],
  },
  /** Learning rate of fusion, context and head. */
  headLearningRate: {
    ...TRAINING.learningRate,
    default: 1e-3,
    defaultText: '1e-3',
    help: 'learning rate of fusion, context and head',
    placeholder: 'rate',
    aliases: ['learning_rate', 'lr'],
    option: 'learningRate',
  },
  /** Learning rate of encoders that train, or of their adapters. */
  encoderLearningRate: {
    ...{ type: 'number', default: 3e-5, help: 'learning rate of encoders and adapters', placeholder: 'rate' },
  },
  weightDecay: { type: 'number', default: 0.01, help: 'weight decay of matrices', aliases: ['weight_decay'] },
  warmup: {
    ...TRAINING.warmupRatio,
    default: 0.06,
    help: 'fraction of the steps for warm-up of the learning rate',
    aliases: ['warmup_ratio'],
  },
  maxGradNorm: {
    ...TRAINING.maxGradNorm,
    default: 1,
    help: 'maximum norm of the gradients',
    aliases: ['max_grad_norm'],
  },
  /** Epochs without improvement before training stops. 0: never. */
  patience: { type: 'integer', default: 4, help: 'epochs without improvement before training stops; 0: never' },
  bf16: { type: 'boolean', default: false, help: 'compute in bfloat16', argument: 'bf16' },
  seed: { ...TRAINING.seed, default: 42, help: 'random seed of weights, order and dropout' },
})

/** Hyperparameters of a head. `keyMetric` is the metric that selects the best epoch. */
export type HeadRecipe = ValuesOf<typeof HEAD_SETTINGS.table> & { keyMetric: string }

/** Hyperparameters of the training of an emotion classifier. */
export const EMOTION_SETTINGS = HEAD_SETTINGS.extend({
  /** Class weights: none, inverse to the class frequency, or the square root of that. */
  classWeights: { type: ['none', 'inverse', 'root'], default: 'root', help: 'weights of rare classes' },
  /** γ of the focal loss. 0: off. */
  focalGamma: { type: 'number', default: 0, help: 'γ of the focal loss; 0: off' },
  labelSmoothing: { type: 'fraction', default: 0, help: 'label smoothing', aliases: ['label_smoothing_factor'] },
  /** Metric that selects the best epoch. */
  keyMetric: {
    type: ['macroF1', 'weightedF1', 'accuracy', 'loss'],
    ...{ default: 'macroF1', help: 'metric that selects the best epoch', aliases: ['metric_for_best_model'] },
  },
})

export type EmotionRecipe = ValuesOf<typeof EMOTION_SETTINGS.table>

/** The default hyperparameters. */
export const EMOTION_RECIPE: Readonly<EmotionRecipe> = EMOTION_SETTINGS.defaults

/** Hyperparameters of the published experiments: 4 × 16 utterances, one learning rate, the last epoch. */
export const PUBLISHED_HEAD_RECIPE = {
  ...HEAD_SETTINGS.defaults,
  ...{ batchSize: 4, accumulation: 16, headLearningRate: 5e-5, encoderLearningRate: 5e-5, weightDecay: 0, warmup: 0 },
  ...{ patience: 0, bf16: true },
} as const

/** Hyperparameters of the published experiments 1 to 6, without class weights. */
export const PUBLISHED_EMOTION_RECIPE: Readonly<EmotionRecipe> = {
  ...{ ...EMOTION_RECIPE, ...PUBLISHED_HEAD_RECIPE, classWeights: 'none' as const },
}

/** Merge changes into a recipe and check it. @throws ConfigError for an unknown key or a value out of range */
export const emotionRecipe = (
  changes: ChangesOf<typeof EMOTION_SETTINGS.table> = {},
  base: Readonly<EmotionRecipe> = EMOTION_RECIPE,
): EmotionRecipe => EMOTION_SETTINGS.read('trainEmotion: recipe', changes, base)
