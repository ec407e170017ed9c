import { argumentError } from '../base/check.js'
import { checkedBy, objectOf, type SettingTable } from '../base/settings.js'
import type { TrainingArguments } from '../train/trainer/arguments.js'
import type { TrainerCallback } from '../train/trainer/callbacks.js'
import type { Logger } from '../train/trainer/logger.js'

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

const listOf = <T>() =>
  checkedBy<readonly T[]>((where, name, value) => {
    if (!Array.isArray(value)) throw argumentError(where, name, 'a list', value)
  })

/** Options that trainings pass to the Trainer. */
export const TRAINER_OPTIONS = {
  /** Arguments of the Trainer, such as `bf16` or `maxSteps`. They override what the other options say. */
  args: { type: objectOf<Partial<TrainingArguments>>(), default: {} },
  /** Callbacks of the Trainer. */
  callbacks: { type: listOf<TrainerCallback>(), default: [] },
  /** Additional loggers of the Trainer. */
  loggers: { type: listOf<Logger>(), default: [] },
} as const satisfies SettingTable
