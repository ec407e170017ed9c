import { settings } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { SPECTRA_SETTINGS } from '../training/recipe.js'

const { epochs, batchSize, accumulation, learningRate, weightDecay, maxGradNorm } = SPECTRA_SETTINGS.table

/** Hyperparameters of pre-training, with the published defaults. Those of a 'tiny' network are {@link TINY_PRETRAINING}. */
export const PRETRAINING_SETTINGS = settings({
  ...{ epochs, weightDecay, maxGradNorm },
  maxSteps: { ...TRAINING.maxSteps, aliases: ['steps'] },
  batchSize: { ...batchSize, help: 'examples per batch', defaultText: '24; 4 for tiny' },
  accumulation: {
    ...accumulation,
    default: 4,
    defaultText: '4; 1 for tiny',
    aliases: ['accumulate', 'grad_acc'],
  },
  learningRate: { ...learningRate, default: 1e-4, defaultText: '1e-4; 1e-3 for tiny' },
  warmupRatio: { type: 'fraction', default: 0.01, argument: 'warmupRatio' },
  bf16: { type: 'boolean', help: 'run under bfloat16 autocast', argument: 'bf16' },
})

export const TINY_PRETRAINING = { batchSize: 4, accumulation: 1, learningRate: 1e-3 }

/** Published hyperparameters of pre-training. */
export const SPECTRA_PRETRAINING_ARGUMENTS = {
  ...PRETRAINING_SETTINGS.trainingArguments(PRETRAINING_SETTINGS.defaults),
  saveStrategy: 'epoch',
} as const satisfies Partial<TrainingArguments>
