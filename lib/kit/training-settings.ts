import type { SettingTable } from '../base/settings.js'

/** Settings that recipes share, without a default. A recipe adds its default and, if it differs, the help text. */
export const TRAINING = {
  epochs: { type: 'number', help: 'passes over the data', argument: 'numTrainEpochs' },
  maxSteps: { type: 'integer', help: 'total optimizer steps, instead of epochs', argument: 'maxSteps' },
  batchSize: { type: 'integer', min: 1, argument: 'perDeviceTrainBatchSize' },
  evalBatchSize: { type: 'integer', min: 1, argument: 'perDeviceEvalBatchSize' },
  accumulation: {
    ...{ type: 'integer', min: 1, help: 'gradient accumulation: batches per optimizer step' },
    argument: 'gradientAccumulationSteps',
  },
  learningRate: { type: 'number', help: 'peak learning rate', argument: 'learningRate' },
  warmupRatio: { type: 'fraction', help: 'fraction of all steps for warmup', argument: 'warmupRatio' },
  weightDecay: { type: 'number', argument: 'weightDecay' },
  maxGradNorm: { type: 'number', argument: 'maxGradNorm' },
  seed: { type: 'integer', help: 'random seed', argument: 'seed' },
  saveSteps: { type: 'integer', min: 1, help: 'steps between checkpoints', argument: 'saveSteps' },
  logSteps: { type: 'integer', min: 1, help: 'steps between logs', argument: 'loggingSteps' },
} as const satisfies SettingTable
