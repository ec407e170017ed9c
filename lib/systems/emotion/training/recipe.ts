import { defined, requireNumber, requireOneOf, requireOptions, requireWhole } from '../../../base/check.js'

/** Hyperparameters of the training of an emotion classifier. */
export interface EmotionRecipe {
  /** Passes over the training data. */
  epochs: number
  /** Dialogs per batch, or utterances with `splitBy: 'utterance'`. */
  batchSize: number
  /** Batches per optimizer step. */
  accumulation: number
  /** Learning rate of fusion, context and head. */
  headLearningRate: number
  /** Learning rate of encoders that train, or of their adapters. */
  encoderLearningRate: number
  weightDecay: number
  warmup: number
  maxGradNorm: number
  /** Epochs without improvement after which training stops. 0: never. */
  patience: number
  seed: number
  bf16: boolean
  /** Class weights: none, inverse to the class frequency, or the square root of that. */
  classWeights: 'none' | 'inverse' | 'root'
  focalGamma: number
  labelSmoothing: number
  /** Metric that selects the best epoch: 'macroF1', 'weightedF1', 'accuracy' or 'loss'. */
  keyMetric: string
}

/** The default hyperparameters. */
export const EMOTION_RECIPE: EmotionRecipe = {
  epochs: 10,
  batchSize: 8,
  accumulation: 1,
  headLearningRate: 1e-3,
  encoderLearningRate: 3e-5,
  weightDecay: 0.01,
  warmup: 0.06,
  maxGradNorm: 1,
  patience: 4,
  seed: 42,
  bf16: false,
  classWeights: 'root',
  focalGamma: 0,
  labelSmoothing: 0,
  keyMetric: 'macroF1',
}

/** Hyperparameters of the published experiments 1 to 6: 4 × 16 utterances, no class weights, one learning rate, the last epoch. */
export const PUBLISHED_EMOTION_RECIPE: EmotionRecipe = {
  ...EMOTION_RECIPE,
  ...{ batchSize: 4, accumulation: 16, headLearningRate: 5e-5, encoderLearningRate: 5e-5, weightDecay: 0, warmup: 0 },
  ...{ patience: 0, bf16: true, classWeights: 'none' as const },
}

/** Merge changes into a recipe and check it. @throws ConfigError for an unknown key or a value out of range */
export function emotionRecipe(
  changes: Partial<EmotionRecipe> = {},
  base: EmotionRecipe = EMOTION_RECIPE,
): EmotionRecipe {
  const where = 'trainEmotion: recipe'
  requireOptions(where, changes, Object.keys(EMOTION_RECIPE))
  const recipe = { ...base, ...defined(changes) }
  for (const name of ['batchSize', 'accumulation'] as const) requireWhole(where, name, recipe[name], 1)
  for (const name of ['patience', 'seed'] as const) requireWhole(where, name, recipe[name])
  for (const name of [
    'epochs',
    'headLearningRate',
    'encoderLearningRate',
    'weightDecay',
    'maxGradNorm',
    'focalGamma',
  ] as const) {
    requireNumber(where, name, recipe[name], { least: 0 })
  }
  for (const name of ['warmup', 'labelSmoothing'] as const)
    requireNumber(where, name, recipe[name], { least: 0, below: 1 })
  requireOneOf(where, 'classWeights', recipe.classWeights, ['none', 'inverse', 'root'])
  requireOneOf(where, 'keyMetric', recipe.keyMetric, ['macroF1', 'weightedF1', 'accuracy', 'loss'])
  return recipe
}
