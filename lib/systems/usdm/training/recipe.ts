import { argumentError, requireNumber, requireObject, requireOneOf, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { SCHEDULER_TYPES, type SchedulerType } from '../../../train/scheduler.js'

/**
 * Hyperparameters of USDM's training. The defaults are those of the original's programs with their DeepSpeed file: no gradient clipping,
 * and weight decay on all weights, norms included.
 */
export interface UsdmRecipe {
  /** Default 2e-5. */
  learningRate: number
  /** Default 'cosine', down to 0. */
  schedule: SchedulerType
  /** Fraction of all steps for warmup; the first step has learning rate 0. Default 0.03. */
  warmupRatio: number
  /** Default 1. */
  epochs: number
  /** Default [0.9, 0.95]. */
  betas: [number, number]
  /** Default 1e-8. */
  eps: number
  /** Weight decay of all weights. Default 0.01. */
  weightDecay: number
  /** Gradient clipping norm. Default 0: no clipping. */
  maxGradNorm: number
  /** Examples, or packed rows in pre-training, per batch of each process. Default 2 and 2. */
  batchSize: number
  evalBatchSize: number
  /** Gradient accumulation: batches per optimizer step. Default 4; 2 in pre-training. */
  accumulation: number
  /** Recompute the activations of layers in backward. Default true. */
  gradientCheckpointing: boolean
  /** Default 42. */
  seed: number
  /** Steps between logs, evaluations and checkpoints. Default 50, 1000 and 1000. */
  logSteps: number
  evalSteps: number
  saveSteps: number
  /** Maximum number of kept checkpoints. Default 2. */
  saveTotalLimit: number
}

export const USDM_RECIPE: Readonly<UsdmRecipe> = {
  learningRate: 2e-5,
  schedule: 'cosine',
  warmupRatio: 0.03,
  epochs: 1,
  betas: [0.9, 0.95],
  eps: 1e-8,
  weightDecay: 0.01,
  maxGradNorm: 0,
  batchSize: 2,
  evalBatchSize: 2,
  accumulation: 4,
  gradientCheckpointing: true,
  seed: 42,
  logSteps: 50,
  evalSteps: 1000,
  saveSteps: 1000,
  saveTotalLimit: 2,
}

/** The recipe of pre-training. */
export const USTM_RECIPE: Readonly<UsdmRecipe> = { ...USDM_RECIPE, accumulation: 2 }

/** Return a recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export function usdmRecipe(changes: Partial<UsdmRecipe> = {}, preset: Readonly<UsdmRecipe> = USDM_RECIPE): UsdmRecipe {
  const where = 'usdmRecipe'
  requireObject(where, 'changes', changes)
  requireObject(where, 'preset', preset)
  const names = Object.keys(preset)
  const changed = Object.entries(changes).filter(([, value]) => value !== undefined)
  for (const [name] of changed) {
    if (names.includes(name)) continue
    throw new ConfigError(
      `usdmRecipe: expected names of the recipe, got '${shortened(name)}'${didYouMean(name, names)}`,
      { argument: name },
    )
  }
  const recipe: UsdmRecipe = { ...preset, ...Object.fromEntries(changed) }
  for (const name of ['learningRate', 'epochs', 'eps', 'weightDecay', 'maxGradNorm'] as const) {
    requireNumber(where, name, recipe[name], { least: 0 })
  }
  requireNumber(where, 'warmupRatio', recipe.warmupRatio, { least: 0, below: 1 })
  requireOneOf(where, 'schedule', recipe.schedule, SCHEDULER_TYPES)
  const { betas, gradientCheckpointing } = recipe
  if (!Array.isArray(betas) || betas.length !== 2) throw argumentError(where, 'betas', 'two numbers', betas)
  for (const beta of betas) requireNumber(where, 'betas', beta, { least: 0, below: 1 })
  if (typeof gradientCheckpointing !== 'boolean') {
    throw argumentError(where, 'gradientCheckpointing', 'a boolean', gradientCheckpointing)
  }
  for (const name of [
    'batchSize',
    'evalBatchSize',
    'accumulation',
    'logSteps',
    'evalSteps',
    'saveSteps',
    'saveTotalLimit',
  ] as const) {
    requireWhole(where, name, recipe[name], 1)
  }
  requireWhole(where, 'seed', recipe.seed)
  return recipe
}
