import { settings } from '../../../base/settings.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'

/** Settings of the heads. */
export const HEADS_SETTINGS = settings({
  /** Dropout of the states. */
  dropout: {
    type: 'number',
    below: 1 + Number.EPSILON,
    default: 0.1,
    help: 'dropout before the heads',
    aliases: ['dropout_rate'],
  },
  /** Dropout of the logits. */
  headsDropout: { type: 'number', below: 1 + Number.EPSILON, default: 0, help: 'dropout in the heads' },
  /** Weight of the class loss of a slot; the losses of span and reference get half of the rest each. */
  classLossRatio: { type: 'number', below: 1 + Number.EPSILON, default: 0.8, help: 'weight of the class loss' },
})

/** Published hyperparameters: 8 turns per step, 12 epochs, learning rate 2e-5 after 10 % warmup. */
export const DST_SETTINGS = settings({
  bf16: { type: 'boolean', help: 'run under bfloat16 autocast', argument: 'bf16' },
  fp16: { type: 'boolean', help: 'mixed precision on CUDA', argument: 'fp16' },
  batchSize: {
    type: 'integer',
    min: 1,
    default: 2,
    help: 'turns per batch',
    aliases: ['per_gpu_train_batch_size'],
    argument: 'perDeviceTrainBatchSize',
  },
  evalBatchSize: {
    type: 'integer',
    min: 1,
    default: 24,
    help: 'turns per batch when scoring',
    aliases: ['per_gpu_eval_batch_size'],
    argument: 'perDeviceEvalBatchSize',
  },
  accumulation: {
    type: 'integer',
    min: 1,
    default: 4,
    help: 'gradient accumulation: batches per optimizer step',
    aliases: ['accum'],
    argument: 'gradientAccumulationSteps',
  },
  epochs: {
    type: 'number',
    default: 12,
    help: 'passes over the data',
    aliases: ['num_train_epochs'],
    argument: 'numTrainEpochs',
  },
  maxSteps: { type: 'integer', help: 'total optimizer steps, instead of epochs', argument: 'maxSteps' },
  learningRate: {
    type: 'number',
    default: 2e-5,
    help: 'peak learning rate',
    placeholder: 'rate',
    defaultText: '2e-5',
    aliases: ['lr'],
    argument: 'learningRate',
  },
  warmupRatio: {
    type: 'number',
    default: 0.1,
    help: 'fraction of all steps for warmup',
    aliases: ['warmup_proportion'],
    argument: 'warmupRatio',
  },
  weightDecay: { type: 'number', default: 0, help: 'weight decay of AdamW', argument: 'weightDecay' },
  adamEpsilon: { type: 'number', default: 1e-8, help: 'epsilon of AdamW', argument: 'adamEpsilon' },
  maxGradNorm: { type: 'number', default: 1, help: 'gradient clipping norm', argument: 'maxGradNorm' },
  saveSteps: { type: 'integer', min: 1, default: 200, help: 'steps between checkpoints', argument: 'saveSteps' },
  loggingSteps: { type: 'integer', min: 1, default: 10, help: 'steps between logs', argument: 'loggingSteps' },
  seed: { type: 'integer', default: 3407, help: 'random seed', argument: 'seed' },
})

/** Published hyperparameters as TrainingArguments. */
export const DST_TRAINING = {
  ...DST_SETTINGS.trainingArguments(DST_SETTINGS.defaults),
  lrSchedulerType: 'linear',
} as const satisfies Partial<TrainingArguments>
