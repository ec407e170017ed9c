import { misuse, requireNumber, requireObject, requireOneOf, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { SCHEDULER_TYPES, type SchedulerType } from '../../../train/scheduler.js'

/** How a stage is trained. The defaults are those of EmoVerse's scripts, and where they say nothing ms-swift 2.6's. */
export interface EmoVerseRecipe {
  /** Default 1e-4. */
  learningRate: number
  /** Default 'cosine', down to 0. */
  schedule: SchedulerType
  /** Share of all steps over which the rate climbs from 0. Default 0.05. */
  warmupRatio: number
  /** Default 2. */
  epochs: number
  /** Default [0.9, 0.95]. */
  betas: [number, number]
  /** Default 1e-8. */
  eps: number
  /** Default 0.1. */
  weightDecay: number
  /** Default 1; 0: gradients stay as they are. */
  maxGradNorm: number
  /** Records in a batch of each process. Default 1 and 1. */
  batchSize: number
  evalBatchSize: number
  /** Batches whose gradients make one step. Default 8. */
  accumulation: number
  /** Longer records are left out, each of their media counted as one token. Default 2048. */
  maxLength: number
  /** The same with all tokens that media become; null for no limit. Default null. */
  maxExpandedLength: number | null
  /** Layers compute again in backward what is between them. Default true. */
  gradientCheckpointing: boolean
  /** Share of the data that is kept to validate with, where none is given. Default 0.01. */
  validationShare: number
  /** Ends with the weights of the least loss of validation, which is then measured, and saved, each epoch. Default false. */
  loadBest: boolean
  /** Default 42. */
  seed: number
  /** Steps between logs, evaluations and checkpoints. Default 10, 1000 and 500. */
  logSteps: number
  evalSteps: number
  saveSteps: number
  /** Checkpoints that stay. Default 3. */
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

/** The recipe with changes. @throws ConfigError for an unknown name or a value that cannot be */
export function emoverseRecipe(changes: Partial<EmoVerseRecipe> = {}): EmoVerseRecipe {
  const where = 'emoverseRecipe'
  requireObject(where, 'changes', changes)
  const names = Object.keys(EMOVERSE_RECIPE)
  const given = Object.entries(changes).filter(([, value]) => value !== undefined)
  for (const [name] of given) {
    if (names.includes(name)) continue
    throw new ConfigError(`EmoVerse's recipe has no '${shortened(name)}'${didYouMean(name, names)}`, { argument: name })
  }
  const recipe: EmoVerseRecipe = { ...EMOVERSE_RECIPE, ...Object.fromEntries(given) }
  for (const name of ['learningRate', 'epochs', 'eps', 'weightDecay', 'maxGradNorm'] as const) {
    requireNumber(where, name, recipe[name], { least: 0 })
  }
  requireNumber(where, 'warmupRatio', recipe.warmupRatio, { least: 0, below: 1 })
  requireNumber(where, 'validationShare', recipe.validationShare, { least: 0, below: 1 })
  requireOneOf(where, 'schedule', recipe.schedule, SCHEDULER_TYPES)
  const { betas } = recipe
  if (!Array.isArray(betas) || betas.length !== 2) throw misuse(where, 'betas', 'two numbers', betas)
  for (const beta of betas) requireNumber(where, 'betas', beta, { least: 0, below: 1 })
  for (const name of ['gradientCheckpointing', 'loadBest'] as const) {
    if (typeof recipe[name] !== 'boolean') throw misuse(where, name, 'a boolean', recipe[name])
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
