import type { TrainingArguments } from '../../../train/trainer/arguments.js'

/** Published hyperparameters: 8 turns per step, 12 epochs, learning rate 2e-5 after 10 % warmup. */
export const DST_TRAINING = {
  perDeviceTrainBatchSize: 2,
  perDeviceEvalBatchSize: 24,
  gradientAccumulationSteps: 4,
  numTrainEpochs: 12,
  learningRate: 2e-5,
  adamEpsilon: 1e-8,
  weightDecay: 0,
  warmupRatio: 0.1,
  lrSchedulerType: 'linear',
  maxGradNorm: 1,
  saveSteps: 200,
  loggingSteps: 10,
  seed: 3407,
} as const satisfies Partial<TrainingArguments>
