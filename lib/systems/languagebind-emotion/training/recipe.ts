import { defined, requireNumber, requireOneOf, requireOptions, requireWhole } from '../../../base/check.js'

/** How an emotion classifier is trained. */
export interface EmotionRecipe {
  /** Passes over the dialogs. */
  epochs: number
  /** Dialogs of a batch; with `splitBy: 'utterance'` utterances. */
  batchSize: number
  /** Batches of a step. */
  accumulation: number
  /** Of what is new: fusion, context and head. */
  headLearningRate: number
  /** Of towers that train, or of their adapters. */
  towerLearningRate: number
  weightDecay: number
  warmup: number
  maxGradNorm: number
  /** Epochs without progress after which training stops; 0: never. */
  patience: number
  seed: number
  bf16: boolean
  /** Weights of the classes: none, as rare as they are, or the root of that. */
  classWeights: 'none' | 'inverse' | 'root'
  focalGamma: number
  labelSmoothing: number
  /** By which the best epoch is chosen: 'macroF1', 'weightedF1', 'accuracy' or 'loss'. */
  keyMetric: string
}

/** Ours. */
export const EMOTION_RECIPE: EmotionRecipe = {
  epochs: 10,
  batchSize: 8,
  accumulation: 1,
  headLearningRate: 1e-3,
  towerLearningRate: 3e-5,
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

/** The published one, of experiments 1 to 6: 4 × 16 utterances, no class weights, one rate, the newest epoch. */
export const PUBLISHED_EMOTION_RECIPE: EmotionRecipe = {
  ...EMOTION_RECIPE,
  ...{ batchSize: 4, accumulation: 16, headLearningRate: 5e-5, towerLearningRate: 5e-5, weightDecay: 0, warmup: 0 },
  ...{ patience: 0, bf16: true, classWeights: 'none' as const },
}

/** A recipe with changes. @throws ConfigError for one that is unknown or cannot be */
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
    'towerLearningRate',
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
