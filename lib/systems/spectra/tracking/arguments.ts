import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type OptionsOf, type OriginalOptions, readOptions, refuseFiles } from '../../../kit/options.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { DST_TRAINING } from './recipe.js'

/** Settings of `voxtorch spectra track`. */
export interface DstArguments {
  mode: 'train' | 'evaluate' | 'track'
  /** Folder of dialogs. */
  data: string
  /** Configuration file of the slots; undefined: SpokenWOZ's slots without label maps. */
  config: string | undefined
  /** Folder of recordings. */
  audio: string | undefined
  /** Folder of a pre-trained SPECTRA. */
  modelDir: string
  /** Folder of the trained tracker. */
  output: string
  /** Folder of a checkpoint in `output`, to evaluate or track with. Default: the trained model. */
  checkpoint: string | undefined
  /** File of turns, one JSON object per line; '-' is the standard input. */
  track: string | undefined
  split: string
  noAudio: boolean
  maxLength: number
  dropout: number
  headsDropout: number
  classLossRatio: number
  compat: 'published' | undefined
  device: string | undefined
  training: TrainingArguments
}

/** Options of `voxtorch spectra track`, with the spellings of the original's run_dst.py as aliases. */
export const DST_OPTIONS = {
  data: { type: 'string', help: 'folder of dialogs', placeholder: 'dir', default: 'data', aliases: ['data_dir'] },
  config: {
    type: 'string',
    help: "configuration file of the slots; default: SpokenWOZ's slots, without label maps",
    placeholder: 'file',
    aliases: ['dataset_config'],
  },
  audioRoot: { type: 'string', help: 'folder of recordings', placeholder: 'dir', aliases: ['audio', 'audio_path'] },
  model: { type: 'string', help: 'pre-trained SPECTRA', placeholder: 'dir', default: 'model' },
  output: {
    type: 'string',
    help: 'folder of the tracker',
    placeholder: 'dir',
    default: 'spectra-dst',
    aliases: ['output_dir'],
  },
  checkpoint: { type: 'string', help: 'checkpoint in the output, instead of the trained tracker', aliases: ['ckpt'] },
  evaluate: { type: 'boolean', help: 'scores a split without training' },
  track: {
    type: 'string',
    help: 'prints the state after each turn of a file, or of - for standard input, without training',
    placeholder: 'file',
  },
  split: { type: 'string', help: 'split to score', default: 'test' },
  textOnly: { type: 'boolean', help: 'ignores all audio', aliases: ['no-audio'] },
  maxLength: { type: 'integer', help: 'maximum tokens of a text', default: 512, aliases: ['max_token_length'] },
  dropout: { type: 'number', help: 'dropout before the heads', default: 0.1, aliases: ['dropout_rate'] },
  headsDropout: { type: 'number', help: 'dropout in the heads', default: 0, aliases: ['heads_dropout'] },
  classLossRatio: { type: 'number', help: 'weight of the class loss', default: 0.8, aliases: ['class_loss_ratio'] },
  compat: { type: ['published'], help: 'reproduces the published code where the defaults differ' },
  device: { type: 'string', help: 'such as cpu or cuda:0', default: 'cpu' },
  cpu: { type: 'boolean', help: 'same as --device cpu', hidden: true, aliases: ['no_cuda'] },
  bf16: { type: 'boolean', help: 'runs under bfloat16 autocast' },
  fp16: { type: 'boolean', help: 'mixed precision on CUDA' },
  batchSize: { type: 'integer', help: 'turns per batch', default: 2, aliases: ['per_gpu_train_batch_size'] },
  evalBatchSize: {
    type: 'integer',
    help: 'turns per batch when scoring',
    default: 24,
    aliases: ['per_gpu_eval_batch_size'],
  },
  accumulation: {
    type: 'integer',
    help: 'gradient accumulation: batches per optimizer step',
    default: 4,
    aliases: ['accum'],
  },
  epochs: { type: 'number', help: 'passes over the data', default: 12, aliases: ['num_train_epochs'] },
  maxSteps: { type: 'integer', help: 'total optimizer steps, instead of epochs' },
  learningRate: { type: 'number', help: 'peak learning rate', placeholder: 'rate', default: '2e-5', aliases: ['lr'] },
  warmupRatio: {
    type: 'number',
    help: 'fraction of all steps for warmup',
    default: 0.1,
    aliases: ['warmup_proportion'],
  },
  weightDecay: { type: 'number', help: 'weight decay of AdamW', default: 0 },
  adamEpsilon: { type: 'number', help: 'epsilon of AdamW', default: '1e-8' },
  maxGradNorm: { type: 'number', help: 'gradient clipping norm', default: 1 },
  saveSteps: { type: 'integer', help: 'steps between checkpoints', default: 200 },
  loggingSteps: { type: 'integer', help: 'steps between logs', default: 10 },
  seed: { type: 'integer', help: 'random seed', default: 3407 },
  modelDir: { type: 'string', help: 'same as --model; in the original, --model is then a name', hidden: true },
} as const

/** Options of the original that are not aliases. */
export const DST_ORIGINAL_OPTIONS: OriginalOptions = {
  model_type: {
    read(type) {
      if (type.toLowerCase() === 'roberta') return undefined
      throw new ConfigError(`--model_type: expected 'roberta', the text encoder of SPECTRA, got '${type}'.`, { type })
    },
  },
  resume: { takesValue: false, reason: 'training always resumes from its last checkpoint' },
  no_amp: { takesValue: false, reason: 'mixed precision is off without --bf16 or --fp16' },
}

/**
 * Parse the command line of `voxtorch spectra track`: our names, or those of the original's `run_dst.py` as aliases. Together with
 * `--model_dir`, `--model NAME` is a folder of that name in the output, as in the original.
 * @throws ConfigError for an unknown or invalid option, naming the nearest
 */
export function parseDstArguments(argv: readonly string[]): DstArguments {
  const { options, files } = readOptions('voxtorch spectra track', DST_OPTIONS, argv, DST_ORIGINAL_OPTIONS)
  refuseFiles('voxtorch spectra track', files)
  return dstArguments(options)
}

/** Return the settings of a command line, with defaults filled in. */
export function dstArguments(options: OptionsOf<typeof DST_OPTIONS>): DstArguments {
  const { model, modelDir, output = 'spectra-dst', cpu, device, evaluate, track } = options
  const outputDir = modelDir === undefined ? output : join(output, model ?? '')
  const training = defined({
    perDeviceTrainBatchSize: options.batchSize,
    perDeviceEvalBatchSize: options.evalBatchSize,
    gradientAccumulationSteps: options.accumulation,
    numTrainEpochs: options.epochs,
    maxSteps: options.maxSteps,
    learningRate: options.learningRate,
    warmupRatio: options.warmupRatio,
    weightDecay: options.weightDecay,
    adamEpsilon: options.adamEpsilon,
    maxGradNorm: options.maxGradNorm,
    saveSteps: options.saveSteps,
    loggingSteps: options.loggingSteps,
    seed: options.seed,
    bf16: options.bf16,
    fp16: options.fp16,
  })
  return {
    mode: track !== undefined ? 'track' : evaluate ? 'evaluate' : 'train',
    data: options.data ?? 'data',
    config: options.config,
    audio: options.audioRoot,
    modelDir: modelDir ?? model ?? 'model',
    output: outputDir,
    checkpoint: options.checkpoint,
    track,
    split: options.split ?? 'test',
    noAudio: options.textOnly ?? false,
    maxLength: options.maxLength ?? 512,
    dropout: options.dropout ?? 0.1,
    headsDropout: options.headsDropout ?? 0,
    classLossRatio: options.classLossRatio ?? 0.8,
    compat: options.compat,
    device: cpu ? 'cpu' : device,
    training: { ...DST_TRAINING, ...training, outputDir },
  }
}
