import { requireNumber, requireObject, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'

/**
 * How SALMONN is trained; the defaults are those of the published configuration, but for `maxGradNorm`, which the fine-tune
 * added, and for epochs, which are those of the data: the published run calls 3000 batches an epoch (`itersPerEpoch: 3000`).
 */
export interface SalmonnRecipe {
  /** Default 3e-5. */
  learningRate: number
  /** Default 1e-6. */
  warmupStartLearningRate: number
  /** Default 1e-5. */
  minLearningRate: number
  /** In batches. Default null: 3000, as published, but at most a tenth of all. */
  warmupSteps: number | null
  /** Passes over the data, unless `iterationsPerEpoch` says otherwise. Default 30. */
  epochs: number
  /**
   * Batches that are called an epoch, whatever the size of the data; null for as many as the data has. Default null.
   * `itersPerEpoch` is the same, as the published configuration calls it (`iters_per_epoch`).
   */
  iterationsPerEpoch: number | null
  /** Default 0.05. */
  weightDecay: number
  /** Default [0.9, 0.999]. */
  betas: [number, number]
  /** Default 1e-8. */
  eps: number
  /** Default 8 and 8. */
  batchSize: number
  evalBatchSize: number
  /** Batches whose gradients make one step, as their mean; as their sum in compat 'published'. Default 1. */
  accumulation: number
  /** Default 1. */
  maxGradNorm: number
  /** Mixed precision in float16, on CUDA. Default true. */
  amp: boolean
  /** Default 42. */
  seed: number
  /** Steps between logs. Default 5. */
  logSteps: number
}

export const SALMONN_RECIPE: Readonly<SalmonnRecipe> = {
  learningRate: 3e-5,
  warmupStartLearningRate: 1e-6,
  minLearningRate: 1e-5,
  warmupSteps: null,
  epochs: 30,
  iterationsPerEpoch: null,
  weightDecay: 0.05,
  betas: [0.9, 0.999],
  eps: 1e-8,
  batchSize: 8,
  evalBatchSize: 8,
  accumulation: 1,
  maxGradNorm: 1,
  amp: true,
  seed: 42,
  logSteps: 5,
}

/** What may be said of a recipe: its own names, and the published one of the length of an epoch. */
export type SalmonnRecipeChanges = Partial<SalmonnRecipe> & { itersPerEpoch?: number }

/** The published recipe with changes. @throws ConfigError for an unknown name or a value that cannot be */
export function salmonnRecipe(changes: SalmonnRecipeChanges = {}): SalmonnRecipe {
  const where = 'salmonnRecipe'
  requireObject(where, 'changes', changes)
  const { itersPerEpoch, ...rest } = changes
  if (itersPerEpoch !== undefined && rest.iterationsPerEpoch != null) {
    throw new ConfigError(`${where}: itersPerEpoch and iterationsPerEpoch mean the same thing, give one`, {
      argument: 'itersPerEpoch',
    })
  }
  const names = Object.keys(SALMONN_RECIPE)
  const own = { ...rest, ...(itersPerEpoch !== undefined && { iterationsPerEpoch: itersPerEpoch }) }
  const given = Object.entries(own).filter(([, value]) => value !== undefined)
  for (const [name] of given) {
    if (names.includes(name)) continue
    const near = nearest(name, names)
    throw new ConfigError(`SALMONN's recipe has no '${name}'${near ? `; did you mean '${near}'?` : ''}`, {
      argument: name,
    })
  }
  const recipe: SalmonnRecipe = { ...SALMONN_RECIPE, ...Object.fromEntries(given) }
  for (const name of ['learningRate', 'warmupStartLearningRate', 'minLearningRate', 'epochs'] as const) {
    requireNumber(where, name, recipe[name], { least: 0 })
  }
  for (const name of ['weightDecay', 'eps', 'maxGradNorm'] as const)
    requireNumber(where, name, recipe[name], { least: 0 })
  for (const name of ['batchSize', 'evalBatchSize', 'accumulation', 'logSteps'] as const) {
    requireWhole(where, name, recipe[name], 1)
  }
  requireWhole(where, 'seed', recipe.seed)
  if (recipe.warmupSteps !== null) requireWhole(where, 'warmupSteps', recipe.warmupSteps)
  if (recipe.iterationsPerEpoch !== null) requireWhole(where, 'iterationsPerEpoch', recipe.iterationsPerEpoch, 1)
  return recipe
}
