import { requireNumber, requireObject, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { nearest } from '../../../base/words.js'

/**
 * Training settings of SALMONN. Defaults are those of the published configuration, except `maxGradNorm`, which the fine-tuning code added, and
 * epochs of the data: the published run calls 3000 batches an epoch (`itersPerEpoch: 3000`).
 */
export interface SalmonnRecipe {
  /** Peak learning rate. Default 3e-5. */
  learningRate: number
  /** Learning rate at the start of warm-up. Default 1e-6. */
  warmupStartLearningRate: number
  /** Final learning rate. Default 1e-5. */
  minLearningRate: number
  /** Warm-up in batches. Default null: 3000, as published, but at most a tenth of all. */
  warmupSteps: number | null
  /** Passes over the data, unless `iterationsPerEpoch` says otherwise. Default 30. */
  epochs: number
  /**
   * Number of batches in an epoch; null for that of the data. Default null. `itersPerEpoch` is an alias, after the published configuration's
   * `iters_per_epoch`.
   */
  iterationsPerEpoch: number | null
  /** Weight decay. Default 0.05. */
  weightDecay: number
  /** AdamW's betas. Default [0.9, 0.999]. */
  betas: [number, number]
  /** AdamW's epsilon. Default 1e-8. */
  eps: number
  /** Examples per batch, in training and evaluation. Default 8. */
  batchSize: number
  evalBatchSize: number
  /** Batches per optimizer step (gradient accumulation): mean of their gradients, or sum in compat 'published'. Default 1. */
  accumulation: number
  /** Maximum gradient norm. Default 1. */
  maxGradNorm: number
  /** Mixed precision in float16, on CUDA. Default true. */
  amp: boolean
  /** Random seed. Default 42. */
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

/** Changes to a recipe, with `itersPerEpoch` as an alias of `iterationsPerEpoch`. */
export type SalmonnRecipeChanges = Partial<SalmonnRecipe> & { itersPerEpoch?: number }

/** Return the published recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export function salmonnRecipe(changes: SalmonnRecipeChanges = {}): SalmonnRecipe {
  const where = 'salmonnRecipe'
  requireObject(where, 'changes', changes)
  const { itersPerEpoch, ...rest } = changes
  if (itersPerEpoch !== undefined && rest.iterationsPerEpoch != null) {
    throw new ConfigError(
      `${where}: expected itersPerEpoch or its alias iterationsPerEpoch, got both. Leave one out.`,
      {
        argument: 'itersPerEpoch',
      },
    )
  }
  const names = Object.keys(SALMONN_RECIPE)
  const own = { ...rest, ...(itersPerEpoch !== undefined && { iterationsPerEpoch: itersPerEpoch }) }
  const given = Object.entries(own).filter(([, value]) => value !== undefined)
  for (const [name] of given) {
    if (names.includes(name)) continue
    const near = nearest(name, names)
    throw new ConfigError(
      `${where}: expected a setting of SALMONN_RECIPE, got '${name}'.${near ? ` Did you mean '${near}'?` : ''}`,
      {
        argument: name,
      },
    )
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
