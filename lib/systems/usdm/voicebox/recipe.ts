import { argumentError } from '../../../base/check.js'
import { settings, type ValuesOf } from '../../../base/settings.js'

const FRACTION = { type: 'number', below: 1 + Number.EPSILON } as const

/** Hyperparameters of a Voicebox training. The defaults are the published ones: Adam at a constant learning rate. */
export const VOICEBOX_SETTINGS = settings({
  /** 10000 epochs: stop it by hand, or set `args: { maxSteps }`. */
  epochs: {
    ...{ type: 'number', default: 10_000, help: 'passes over the clips', aliases: ['n_epochs'] },
    argument: 'numTrainEpochs',
  },
  /** Clips per batch of each process; the published model was trained with 256 per step. */
  batchSize: {
    ...{ type: 'integer', min: 1, default: 8, help: 'clips per batch of each process' },
    argument: 'perDeviceTrainBatchSize',
  },
  evalBatchSize: { type: 'integer', min: 1, default: 8, argument: 'perDeviceEvalBatchSize' },
  accumulation: {
    ...{ type: 'integer', min: 1, default: 1, help: 'gradient accumulation: batches per optimizer step' },
    argument: 'gradientAccumulationSteps',
  },
  learningRate: {
    ...{ type: 'number', default: 1e-4, help: 'constant learning rate', placeholder: 'rate' },
    argument: 'learningRate',
  },
  betas: { type: 'numbers', length: 2, below: 1, default: [0.9, 0.999], argument: ['adamBeta1', 'adamBeta2'] },
  eps: { type: 'number', default: 1e-8, argument: 'adamEpsilon' },
  /** Gradient clipping norm. */
  maxGradNorm: { type: 'number', default: 0.2, argument: 'maxGradNorm' },
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
  logSteps: { type: 'integer', min: 1, default: 50, help: 'steps between logs', argument: 'loggingSteps' },
  /** Steps between evaluations and checkpoints. Default: each epoch. */
  saveSteps: {
    ...{ type: 'integer', min: 1, defaultText: 'an epoch', help: 'steps between checkpoints' },
    argument: 'saveSteps',
  },
  saveTotalLimit: {
    ...{ type: 'integer', min: 1, default: 2, help: 'maximum number of kept checkpoints' },
    argument: 'saveTotalLimit',
  },
  seed: { type: 'integer', default: 37, help: 'random seed', argument: 'seed' },
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
