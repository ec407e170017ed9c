import { settings, type ValuesOf } from '../../../base/settings.js'
import { TRAINING } from '../../../kit/training-settings.js'

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
  epochs: { ...TRAINING.epochs, default: 5 },
  batchSize: { ...TRAINING.batchSize, default: 24, help: 'samples per batch', aliases: ['per_gpu_train_batch_size'] },
  accumulation: { ...TRAINING.accumulation, default: 1, aliases: ['grad_acc', 'accum'] },
  learningRate: { ...TRAINING.learningRate, default: 2e-5, placeholder: 'rate', defaultText: '2e-5', aliases: ['lr'] },
  warmup: { type: 'number', default: 0.01, help: 'fraction of all steps for warmup' },
  weightDecay: { ...TRAINING.weightDecay, default: 0.01, help: 'weight decay of AdamW' },
  maxGradNorm: { ...TRAINING.maxGradNorm, default: 1, help: 'gradient clipping norm', aliases: ['grad_norm'] },
  patience: { type: 'integer', default: 5, help: 'early stopping: epochs without improvement' },
  seed: { ...TRAINING.seed, default: 42 },
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
