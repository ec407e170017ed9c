import { argumentError } from '../../../base/check.js'
import { settings, type ValuesOf } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'

const FRACTION = { type: 'number', below: 1 + Number.EPSILON } as const

/** Hyperparameters of a Voicebox training. The defaults are the published ones: Adam at a constant learning rate. */
export const VOICEBOX_SETTINGS = settings({
  /** 10000 epochs: stop it by hand, or set `args: { maxSteps }`. */
  epochs: { ...TRAINING.epochs, default: 10_000, help: 'passes over the clips', aliases: ['n_epochs'] },
  /** Clips per batch of each process; the published model was trained with 256 per step. */
  batchSize: { ...TRAINING.batchSize, default: 8, help: 'clips per batch of each process' },
  evalBatchSize: { ...TRAINING.evalBatchSize, default: 8 },
  accumulation: { ...TRAINING.accumulation, default: 1 },
  learningRate: { ...TRAINING.learningRate, default: 1e-4, help: 'constant learning rate', placeholder: 'rate' },
  betas: { type: 'numbers', length: 2, below: 1, default: [0.9, 0.999], argument: ['adamBeta1', 'adamBeta2'] },
  eps: { type: 'number', default: 1e-8, argument: 'adamEpsilon' },
  /** Gradient clipping norm. */
  maxGradNorm: { ...TRAINING.maxGradNorm, default: 0.2 },
  /** Maximum frames of a window; longer clips are cropped at random. 1378 frames are 16 seconds. */
  windowFrames: { type: 'integer', min: 1, default: 1378 },
  /** Probability of a clip without units and context, for guidance. */
  dropShare: { ...FRACTION, default: 0.2 },
  /** For the other clips, the probability of visible frames. */
  contextShare: { ...FRACTION, default: 0.7 },
  /** Masked fraction of a clip with visible frames, drawn uniformly between these two. */
  leastMasked: { ...FRACTION, default: 0.7 },
  mostMasked: { ...FRACTION, default: 1 },
  /** 'fp16' and 'bf16' run under autocast. Default 'fp16' on CUDA, as published, and 'float32' on the CPU. */
  precision: { type: ['float32', 'fp16', 'bf16'] },
  logSteps: { ...TRAINING.logSteps, default: 50 },
  /** Steps between evaluations and checkpoints. Default: each epoch. */
  saveSteps: { ...TRAINING.saveSteps, defaultText: 'an epoch' },
  saveTotalLimit: {
    ...{ type: 'integer', min: 1, default: 2, help: 'maximum number of kept checkpoints' },
    argument: 'saveTotalLimit',
  },
  seed: { ...TRAINING.seed, default: 37 },
})

export type VoiceboxRecipe = ValuesOf<typeof VOICEBOX_SETTINGS.table>

export const VOICEBOX_RECIPE: Readonly<VoiceboxRecipe> = VOICEBOX_SETTINGS.defaults

/** Return the published recipe with changes. @throws ConfigError for an unknown name or an invalid value */
export function voiceboxRecipe(changes: Partial<VoiceboxRecipe> = {}): VoiceboxRecipe {
  const recipe = VOICEBOX_SETTINGS.read('voiceboxRecipe', changes)
  const { leastMasked, mostMasked } = recipe
  if (mostMasked > 0 && leastMasked <= mostMasked) return recipe
  const expected = `a number above 0 and at least leastMasked, ${leastMasked}`
  throw argumentError('voiceboxRecipe', 'mostMasked', expected, mostMasked)
}
