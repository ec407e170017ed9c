import { argumentError, requireNumber, requireObject, requireOneOf, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { didYouMean, shortened } from '../../../base/words.js'

/** Hyperparameters of a Voicebox training. The defaults are the published ones: Adam at a constant learning rate. */
export interface VoiceboxRecipe {
  /** Default 1e-4. */
  learningRate: number
  /** Default [0.9, 0.999]. */
  betas: [number, number]
  /** Default 1e-8. */
  eps: number
  /** Gradient clipping norm. Default 0.2. */
  maxGradNorm: number
  /** Default 10000: stop it by hand, or set `args: { maxSteps }`. */
  epochs: number
  /** Clips per batch of each process. Default 8; the published model was trained with 256 per step. */
  batchSize: number
  evalBatchSize: number
  /** Gradient accumulation: batches per optimizer step. Default 1. */
  accumulation: number
  /** Maximum frames of a window; longer clips are cropped at random. Default 1378, 16 seconds. */
  windowFrames: number
  /** Probability of a clip without units and context, for guidance. Default 0.2. */
  dropShare: number
  /** For the other clips, the probability of visible frames. Default 0.7. */
  contextShare: number
  /** Masked fraction of a clip with visible frames, drawn uniformly between these two. Default 0.7 and 1. */
  leastMasked: number
  mostMasked: number
  /** 'fp16' and 'bf16' run under autocast. Default 'fp16' on CUDA, as published, and 'float32' on the CPU. */
  precision?: 'float32' | 'fp16' | 'bf16'
  /** Default 37. */
  seed: number
  /** Steps between logs. Default 50. */
  logSteps: number
  /** Steps between evaluations and checkpoints. Default: each epoch. */
  saveSteps?: number
  /** Maximum number of kept checkpoints. Default 2. */
  saveTotalLimit: number
}

export const VOICEBOX_RECIPE: Readonly<VoiceboxRecipe> = {
  learningRate: 1e-4,
  betas: [0.9, 0.999],
  eps: 1e-8,
  maxGradNorm: 0.2,
  epochs: 10_000,
  batchSize: 8,
  evalBatchSize: 8,
  accumulation: 1,
  windowFrames: 1378,
  dropShare: 0.2,
  contextShare: 0.7,
  leastMasked: 0.7,
  mostMasked: 1,
  seed: 37,
  logSteps: 50,
  saveTotalLimit: 2,
}

/** Return the published recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export function voiceboxRecipe(changes: Partial<VoiceboxRecipe> = {}): VoiceboxRecipe {
  const where = 'voiceboxRecipe'
  requireObject(where, 'changes', changes)
  const names = [...Object.keys(VOICEBOX_RECIPE), 'precision', 'saveSteps']
  const changed = Object.entries(changes).filter(([, value]) => value !== undefined)
  for (const [name] of changed) {
    if (names.includes(name)) continue
    throw new ConfigError(
      `voiceboxRecipe: expected names of the recipe, got '${shortened(name)}'${didYouMean(name, names)}`,
      { argument: name },
    )
  }
  const recipe: VoiceboxRecipe = { ...VOICEBOX_RECIPE, ...Object.fromEntries(changed) }
  for (const name of ['learningRate', 'eps', 'maxGradNorm', 'epochs'] as const) {
    requireNumber(where, name, recipe[name], { least: 0 })
  }
  for (const name of ['dropShare', 'contextShare', 'leastMasked', 'mostMasked'] as const) {
    requireNumber(where, name, recipe[name], { least: 0, below: 1 + Number.EPSILON })
  }
  if (recipe.mostMasked === 0 || recipe.leastMasked > recipe.mostMasked) {
    throw argumentError(
      where,
      'mostMasked',
      `a number above 0 and at least leastMasked, ${recipe.leastMasked}`,
      recipe.mostMasked,
    )
  }
  const { betas, precision, saveSteps } = recipe
  if (!Array.isArray(betas) || betas.length !== 2) throw argumentError(where, 'betas', 'two numbers', betas)
  for (const beta of betas) requireNumber(where, 'betas', beta, { least: 0, below: 1 })
  for (const name of [
    'batchSize',
    'evalBatchSize',
    'accumulation',
    'windowFrames',
    'logSteps',
    'saveTotalLimit',
  ] as const) {
    requireWhole(where, name, recipe[name], 1)
  }
  requireWhole(where, 'seed', recipe.seed)
  if (precision !== undefined) requireOneOf(where, 'precision', precision, ['float32', 'fp16', 'bf16'])
  if (saveSteps !== undefined) requireWhole(where, 'saveSteps', saveSteps, 1)
  return recipe
}
