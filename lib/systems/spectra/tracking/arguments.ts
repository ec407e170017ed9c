import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ForeignOptions, type OptionsOf, readOptions, refuseFiles } from '../../../kit/options.js'
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
  data: { kind: 'text', help: 'folder of dialogs', value: 'dir', preset: 'data', aliases: ['data_dir'] },
  config: {
    kind: 'text',
    help: "configuration file of the slots; default: SpokenWOZ's slots, without label maps",
    value: 'file',
    aliases: ['dataset_config'],
  },
  audioRoot: { kind: 'text', help: 'folder of recordings', value: 'dir', aliases: ['audio', 'audio_path'] },
  model: { kind: 'text', help: 'pre-trained SPECTRA', value: 'dir', preset: 'model' },
  output: { kind: 'text', help: 'folder of the tracker', value: 'dir', preset: 'spectra-dst', aliases: ['output_dir'] },
  checkpoint: { kind: 'text', help: 'checkpoint in the output, instead of the trained tracker', aliases: ['ckpt'] },
  evaluate: { kind: 'flag', help: 'scores a split without training' },
  track: {
    kind: 'text',
    help: 'prints the state after each turn of a file, or of - for standard input, without training',
    value: 'file',
  },
  split: { kind: 'text', help: 'split to score', preset: 'test' },
  textOnly: { kind: 'flag', help: 'ignores all audio', aliases: ['no-audio'] },
  maxLength: { kind: 'whole', help: 'maximum tokens of a text', preset: 512, aliases: ['max_token_length'] },
  dropout: { kind: 'number', help: 'dropout before the heads', preset: 0.1, aliases: ['dropout_rate'] },
  headsDropout: { kind: 'number', help: 'dropout in the heads', preset: 0, aliases: ['heads_dropout'] },
  classLossRatio: { kind: 'number', help: 'weight of the class loss', preset: 0.8, aliases: ['class_loss_ratio'] },
  compat: { kind: ['published'], help: 'reproduces the published code where the defaults differ' },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  cpu: { kind: 'flag', help: 'same as --device cpu', hidden: true, aliases: ['no_cuda'] },
  bf16: { kind: 'flag', help: 'runs under bfloat16 autocast' },
  fp16: { kind: 'flag', help: 'mixed precision on CUDA' },
  batchSize: { kind: 'whole', help: 'turns per batch', preset: 2, aliases: ['per_gpu_train_batch_size'] },
  evalBatchSize: {
    kind: 'whole',
    help: 'turns per batch when scoring',
    preset: 24,
    aliases: ['per_gpu_eval_batch_size'],
  },
  accumulation: {
    kind: 'whole',
    help: 'gradient accumulation: batches per optimizer step',
    preset: 4,
    aliases: ['accum'],
  },
  epochs: { kind: 'number', help: 'passes over the data', preset: 12, aliases: ['num_train_epochs'] },
  maxSteps: { kind: 'whole', help: 'total optimizer steps, instead of epochs' },
  learningRate: { kind: 'number', help: 'peak learning rate', value: 'rate', preset: '2e-5', aliases: ['lr'] },
  warmupRatio: {
    kind: 'number',
    help: 'fraction of all steps for warmup',
    preset: 0.1,
    aliases: ['warmup_proportion'],
  },
  weightDecay: { kind: 'number', help: 'weight decay of AdamW', preset: 0 },
  adamEpsilon: { kind: 'number', help: 'epsilon of AdamW', preset: '1e-8' },
  maxGradNorm: { kind: 'number', help: 'gradient clipping norm', preset: 1 },
  saveSteps: { kind: 'whole', help: 'steps between checkpoints', preset: 200 },
  loggingSteps: { kind: 'whole', help: 'steps between logs', preset: 10 },
  seed: { kind: 'whole', help: 'random seed', preset: 3407 },
  modelDir: { kind: 'text', help: 'same as --model; in the original, --model is then a name', hidden: true },
} as const

/** Options of the original that are not aliases. */
export const DST_FOREIGN: ForeignOptions = {
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
  const { options, files } = readOptions('voxtorch spectra track', DST_OPTIONS, argv, DST_FOREIGN)
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
