import { requireObject } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { settings, type ValuesOf } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'

/**
 * Training settings of SALMONN: defaults, checks, keys of a configuration and names in TrainingArguments. Defaults are those of the
 * published configuration, except `maxGradNorm`, which the fine-tuning code added, and epochs of the data: the published run calls
 * 3000 batches an epoch (`itersPerEpoch: 3000`).
 */
export const SALMONN_SETTINGS = settings({
  /** Peak learning rate. */
  learningRate: { type: 'number', default: 3e-5, argument: 'learningRate' },
  /** Learning rate at the start of warm-up. */
  warmupStartLearningRate: { type: 'number', default: 1e-6 },
  /** Final learning rate. */
  minLearningRate: { type: 'number', default: 1e-5 },
  /** Warm-up in batches. null: 3000, as published, but at most a tenth of all. */
  warmupSteps: { type: 'integer', nullable: true, default: null },
  /** Passes over the data, unless `iterationsPerEpoch` says otherwise. */
  epochs: { type: 'number', default: 30 },
  /**
   * Number of batches in an epoch; null for that of the data. `itersPerEpoch` is an alias, after the published configuration's
   * `iters_per_epoch`.
   */
  iterationsPerEpoch: { type: 'integer', min: 1, nullable: true, default: null },
  weightDecay: { ...TRAINING.weightDecay, default: 0.05 },
  /** AdamW's betas. */
  betas: { type: 'numbers', length: 2, below: 1, default: [0.9, 0.999] },
  /** AdamW's epsilon. */
  eps: { type: 'number', default: 1e-8 },
  /** Examples per batch in training. */
  batchSize: { ...TRAINING.batchSize, default: 8 },
  /** Examples per batch in evaluation. */
  evalBatchSize: { ...TRAINING.evalBatchSize, default: 8 },
  /** Batches per optimizer step (gradient accumulation): mean of their gradients, or sum in compat 'published'. */
  accumulation: { type: 'integer', min: 1, default: 1, argument: 'gradientAccumulationSteps' },
  /** Maximum gradient norm. */
  maxGradNorm: { ...TRAINING.maxGradNorm, default: 1 },
  /** Mixed precision in float16, on CUDA. */
  amp: { type: 'boolean', default: true },
  /** Random seed. */
  seed: { type: 'integer', default: 42, argument: 'seed' },
  /** Steps between logs. */
  logSteps: { type: 'integer', min: 1, default: 5, argument: 'loggingSteps' },
})

/** @interface */
export type SalmonnRecipe = ValuesOf<typeof SALMONN_SETTINGS.table>

export const SALMONN_RECIPE: Readonly<SalmonnRecipe> = SALMONN_SETTINGS.defaults

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
  return SALMONN_SETTINGS.read(where, {
    ...rest,
    ...(itersPerEpoch !== undefined && { iterationsPerEpoch: itersPerEpoch }),
  })
}
