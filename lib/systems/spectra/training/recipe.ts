import { settings, type ValuesOf } from '../../../base/settings.js'

/** Maximum lengths of clips and texts. Without them, functions use the network's. */
export const SPECTRA_LENGTHS = settings({
  /** Maximum samples of a clip at 16 kHz. Default: the network's, else 160000. */
  maxAudioLength: {
    type: 'integer',
    min: 1,
    help: 'maximum samples of a clip at 16 kHz; longer ones are truncated',
    defaultText: '160000',
  },
  /** Maximum tokens of a text. Default: the network's, else 512. */
  maxTextLength: {
    type: 'integer',
    min: 2,
    help: 'maximum tokens of a text; longer ones are truncated',
    defaultText: '512',
    aliases: ['text_length'],
  },
})

/**
 * Hyperparameters of fine-tuning: defaults, checks, command-line options and names in TrainingArguments. The defaults are the
 * published ones; they are the same for all four tasks except for history.
 */
export const SPECTRA_SETTINGS = settings({
  epochs: { type: 'number', default: 5, help: 'passes over the data', argument: 'numTrainEpochs' },
  batchSize: {
    type: 'integer',
    min: 1,
    default: 24,
    help: 'samples per batch',
    aliases: ['per_gpu_train_batch_size'],
    argument: 'perDeviceTrainBatchSize',
  },
  accumulation: {
    type: 'integer',
    min: 1,
    default: 1,
    help: 'gradient accumulation: batches per optimizer step',
    aliases: ['grad_acc', 'accum'],
    argument: 'gradientAccumulationSteps',
  },
  learningRate: {
    type: 'number',
    default: 2e-5,
    help: 'peak learning rate',
    placeholder: 'rate',
    defaultText: '2e-5',
    aliases: ['lr'],
    argument: 'learningRate',
  },
  warmup: { type: 'number', default: 0.01, help: 'fraction of all steps for warmup' },
  weightDecay: { type: 'number', default: 0.01, help: 'weight decay of AdamW', argument: 'weightDecay' },
  maxGradNorm: {
    type: 'number',
    default: 1,
    help: 'gradient clipping norm',
    aliases: ['grad_norm'],
    argument: 'maxGradNorm',
  },
  patience: { type: 'integer', default: 5, help: 'early stopping: epochs without improvement' },
  seed: { type: 'integer', default: 42, help: 'random seed', argument: 'seed' },
  historyAudio: {
    type: 'boolean',
    default: false,
    help: 'add the clip of the previous turn',
    aliases: ['multi_audio'],
  },
  turnIds: {
    type: 'boolean',
    default: false,
    help: 'mark previous turns and the current one with token types',
    aliases: ['use_turn_ids'],
  },
})

/** Hyperparameters of a task. @interface */
export type SpectraPreset = ValuesOf<typeof SPECTRA_SETTINGS.table>
