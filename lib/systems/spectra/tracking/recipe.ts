import { settings } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'
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
  batchSize: { ...TRAINING.batchSize, default: 2, help: 'turns per batch', aliases: ['per_gpu_train_batch_size'] },
  evalBatchSize: {
    ...TRAINING.evalBatchSize,
    default: 24,
    help: 'turns per batch when scoring',
    aliases: ['per_gpu_eval_batch_size'],
  },
  accumulation: { ...TRAINING.accumulation, default: 4, aliases: ['accum'] },
  epochs: { ...TRAINING.epochs, default: 12, aliases: ['num_train_epochs'] },
  maxSteps: TRAINING.maxSteps,
  learningRate: { ...TRAINING.learningRate, default: 2e-5, placeholder: 'rate', defaultText: '2e-5', aliases: ['lr'] },
  warmupRatio: { ...TRAINING.warmupRatio, type: 'number', default: 0.1, aliases: ['warmup_proportion'] },
  weightDecay: { ...TRAINING.weightDecay, default: 0, help: 'weight decay of AdamW' },
  adamEpsilon: { type: 'number', default: 1e-8, help: 'epsilon of AdamW', argument: 'adamEpsilon' },
  maxGradNorm: { ...TRAINING.maxGradNorm, default: 1, help: 'gradient clipping norm' },
  saveSteps: { ...TRAINING.saveSteps, default: 200 },
  loggingSteps: { ...TRAINING.logSteps, default: 10 },
  seed: { ...TRAINING.seed, default: 3407 },
})

/** Published hyperparameters as TrainingArguments. */
export const DST_TRAINING = {
  ...DST_SETTINGS.trainingArguments(DST_SETTINGS.defaults),
  lrSchedulerType: 'linear',
} as const satisfies Partial<TrainingArguments>
