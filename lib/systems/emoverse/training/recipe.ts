import { argumentError, requireNumber, requireObject, requireOneOf, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { SCHEDULER_TYPES, type SchedulerType } from '../../../train/scheduler.js'

/** Training settings of a stage. Defaults are those of EmoVerse's scripts, otherwise those of ms-swift 2.6. */
export interface EmoVerseRecipe {
  /** Peak learning rate. Default 1e-4. */
  learningRate: number
  /** Learning rate schedule. Default 'cosine', down to 0. */
  schedule: SchedulerType
  /** Fraction of all steps over which the rate rises from 0. Default 0.05. */
  warmupRatio: number
  /** Passes over the data. Default 2. */
  epochs: number
  /** AdamW's betas. Default [0.9, 0.95]. */
  betas: [number, number]
  /** AdamW's epsilon. Default 1e-8. */
  eps: number
  /** Weight decay. Default 0.1. */
  weightDecay: number
  /** Maximum gradient norm; 0 turns clipping off. Default 1. */
  maxGradNorm: number
  /** Records per batch and process, in training and evaluation. Default 1. */
  batchSize: number
  evalBatchSize: number
  /** Batches per optimizer step (gradient accumulation). Default 8. */
  accumulation: number
  /** Maximum length in tokens, where each of the media counts as one; longer records are left out. Default 2048. */
  maxLength: number
  /** Maximum length with all tokens of the media; null for no limit. Default null. */
  maxExpandedLength: number | null
  /** Whether to recompute activations in the backward pass. Default true. */
  gradientCheckpointing: boolean
  /** Fraction of the data that is split off for validation if there is no validation data. Default 0.01. */
  validationShare: number
  /** Whether to evaluate and save each epoch, and end with the weights of the lowest validation loss. Default false. */
  loadBest: boolean
  /** Random seed. Default 42. */
  seed: number
  /** Steps between logs (default 10), evaluations (default 1000) and checkpoints (default 500). */
  logSteps: number
  evalSteps: number
  saveSteps: number
  /** Number of checkpoints to keep. Default 3. */
  saveTotalLimit: number
}

export const EMOVERSE_RECIPE: Readonly<EmoVerseRecipe> = {
  learningRate: 1e-4,
  schedule: 'cosine',
  warmupRatio: 0.05,
  epochs: 2,
  betas: [0.9, 0.95],
  eps: 1e-8,
  weightDecay: 0.1,
  maxGradNorm: 1,
  batchSize: 1,
  evalBatchSize: 1,
  accumulation: 8,
  maxLength: 2048,
  maxExpandedLength: null,
  gradientCheckpointing: true,
  validationShare: 0.01,
  loadBest: false,
  seed: 42,
  logSteps: 10,
  evalSteps: 1000,
  saveSteps: 500,
  saveTotalLimit: 3,
}

/** Return the recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export function emoverseRecipe(changes: Partial<EmoVerseRecipe> = {}): EmoVerseRecipe {
  const where = 'emoverseRecipe'
  requireObject(where, 'changes', changes)
  const names = Object.keys(EMOVERSE_RECIPE)
  const given = Object.entries(changes).filter(([, value]) => value !== undefined)
  for (const [name] of given) {
    if (names.includes(name)) continue
    throw new ConfigError(
      `${where}: expected a setting of EMOVERSE_RECIPE, got '${shortened(name)}'${didYouMean(name, names)}`,
      { argument: name },
    )
  }
  const recipe: EmoVerseRecipe = { ...EMOVERSE_RECIPE, ...Object.fromEntries(given) }
  for (const name of ['learningRate', 'epochs', 'eps', 'weightDecay', 'maxGradNorm'] as const) {
    requireNumber(where, name, recipe[name], { least: 0 })
  }
  requireNumber(where, 'warmupRatio', recipe.warmupRatio, { least: 0, below: 1 })
  requireNumber(where, 'validationShare', recipe.validationShare, { least: 0, below: 1 })
  requireOneOf(where, 'schedule', recipe.schedule, SCHEDULER_TYPES)
  const { betas } = recipe
  if (!Array.isArray(betas) || betas.length !== 2) throw argumentError(where, 'betas', 'two numbers', betas)
  for (const beta of betas) requireNumber(where, 'betas', beta, { least: 0, below: 1 })
  for (const name of ['gradientCheckpointing', 'loadBest'] as const) {
    if (typeof recipe[name] !== 'boolean') throw argumentError(where, name, 'a boolean', recipe[name])
  }
  for (const name of [
    'batchSize',
    'evalBatchSize',
    'accumulation',
    'maxLength',
    'logSteps',
    'evalSteps',
    'saveSteps',
    'saveTotalLimit',
  ] as const) {
    requireWhole(where, name, recipe[name], 1)
  }
  const { maxExpandedLength } = recipe
  if (maxExpandedLength !== null) requireWhole(where, 'maxExpandedLength', maxExpandedLength, 1)
  requireWhole(where, 'seed', recipe.seed)
  return recipe
}
