import { join } from 'node:path'
import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ForeignOptions, type OptionsOf, readOptions, refuseFiles } from '../../../kit/options.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { DST_TRAINING } from './recipe.js'

/** What `voxtorch spectra track` is asked to do. */
export interface DstArguments {
  mode: 'train' | 'evaluate' | 'track'
  /** The folder of dialogs. */
  data: string
  /** The slots' configuration file; undefined: SpokenWOZ's slots without label maps. */
  config: string | undefined
  /** The folder of recordings. */
  audio: string | undefined
  /** The folder of a pre-trained SPECTRA. */
  modelDir: string
  /** Where the trained tracker is. */
  output: string
  /** A checkpoint's folder in `output` to evaluate or track with. Default: the trained model. */
  checkpoint: string | undefined
  /** A file of turns, one JSON object a line; '-' is the standard input. */
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

/** What `voxtorch spectra track` may be told, with the spellings of the original's run_dst.py. */
export const DST_OPTIONS = {
  data: { kind: 'text', help: 'the folder of dialogs', value: 'dir', preset: 'data', aliases: ['data_dir'] },
  config: {
    kind: 'text',
    help: "the slots' file; without it SpokenWOZ's slots, without label maps",
    value: 'file',
    aliases: ['dataset_config'],
  },
  audioRoot: { kind: 'text', help: 'the folder of recordings', value: 'dir', aliases: ['audio', 'audio_path'] },
  model: { kind: 'text', help: 'a pre-trained SPECTRA', value: 'dir', preset: 'model' },
  output: { kind: 'text', help: 'where the tracker is', value: 'dir', preset: 'spectra-dst', aliases: ['output_dir'] },
  checkpoint: { kind: 'text', help: 'a checkpoint of the output, in place of the tracker', aliases: ['ckpt'] },
  evaluate: { kind: 'flag', help: 'scores a split and does not train' },
  track: {
    kind: 'text',
    help: 'prints the state after each turn of a file, or of - for lines that you type; does not train',
    value: 'file',
  },
  split: { kind: 'text', help: 'which to score', preset: 'test' },
  textOnly: { kind: 'flag', help: 'nobody is heard', aliases: ['no-audio'] },
  maxLength: { kind: 'whole', help: 'tokens of a text', preset: 512, aliases: ['max_token_length'] },
  dropout: { kind: 'number', help: 'before the heads', preset: 0.1, aliases: ['dropout_rate'] },
  headsDropout: { kind: 'number', help: 'inside the heads', preset: 0, aliases: ['heads_dropout'] },
  classLossRatio: { kind: 'number', help: 'weight of the class loss', preset: 0.8, aliases: ['class_loss_ratio'] },
  compat: { kind: ['published'], help: 'what the published code does where ours does better' },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  cpu: { kind: 'flag', help: 'as --device cpu', hidden: true, aliases: ['no_cuda'] },
  bf16: { kind: 'flag', help: 'computes in bfloat16' },
  fp16: { kind: 'flag', help: 'mixed precision on CUDA' },
  batchSize: { kind: 'whole', help: 'turns of a batch', preset: 2, aliases: ['per_gpu_train_batch_size'] },
  evalBatchSize: { kind: 'whole', help: 'while scoring', preset: 24, aliases: ['per_gpu_eval_batch_size'] },
  accumulation: { kind: 'whole', help: 'batches of a step', preset: 4, aliases: ['accum'] },
  epochs: { kind: 'number', help: 'passes over the data', preset: 12, aliases: ['num_train_epochs'] },
  maxSteps: { kind: 'whole', help: 'steps, in place of epochs' },
  learningRate: { kind: 'number', help: 'the highest', value: 'rate', preset: '2e-5', aliases: ['lr'] },
  warmupRatio: { kind: 'number', help: 'share of the steps', preset: 0.1, aliases: ['warmup_proportion'] },
  weightDecay: { kind: 'number', help: 'of AdamW', preset: 0 },
  adamEpsilon: { kind: 'number', help: 'of AdamW', preset: '1e-8' },
  maxGradNorm: { kind: 'number', help: 'gradients are clipped to', preset: 1 },
  saveSteps: { kind: 'whole', help: 'between checkpoints', preset: 200 },
  loggingSteps: { kind: 'whole', help: 'between lines', preset: 10 },
  seed: { kind: 'whole', help: 'of weights, order and dropout', preset: 3407 },
  modelDir: { kind: 'text', help: 'as --model; the original gives a name with that', hidden: true },
} as const

/** The original's options that are no other names. */
export const DST_FOREIGN: ForeignOptions = {
  model_type: {
    read(type) {
      if (type.toLowerCase() === 'roberta') return undefined
      throw new ConfigError(`--model_type '${type}' is not supported: SPECTRA's text encoder is 'roberta'`, { type })
    },
  },
  resume: { takesValue: false, reason: 'a training always goes on from its last checkpoint' },
  no_amp: { takesValue: false, reason: 'mixed precision is off unless --bf16 or --fp16 is said' },
}

/**
 * Reads the command line of `voxtorch spectra track`: our names, or those of the original's `run_dst.py` as aliases. Beside
 * `--model_dir`, `--model NAME` makes a folder of that name below the output, as there.
 * @throws ConfigError for an unknown or wrong option, naming the nearest
 */
export function parseDstArguments(argv: readonly string[]): DstArguments {
  const { options, files } = readOptions('voxtorch spectra track', DST_OPTIONS, argv, DST_FOREIGN)
  refuseFiles('voxtorch spectra track', files)
  return dstArguments(options)
}

/** What a command line says, with what holds where it says nothing. */
export function dstArguments(given: OptionsOf<typeof DST_OPTIONS>): DstArguments {
  const { model, modelDir, output = 'spectra-dst', cpu, device, evaluate, track } = given
  const outputDir = modelDir === undefined ? output : join(output, model ?? '')
  const training = defined({
    perDeviceTrainBatchSize: given.batchSize,
    perDeviceEvalBatchSize: given.evalBatchSize,
    gradientAccumulationSteps: given.accumulation,
    numTrainEpochs: given.epochs,
    maxSteps: given.maxSteps,
    learningRate: given.learningRate,
    warmupRatio: given.warmupRatio,
    weightDecay: given.weightDecay,
    adamEpsilon: given.adamEpsilon,
    maxGradNorm: given.maxGradNorm,
    saveSteps: given.saveSteps,
    loggingSteps: given.loggingSteps,
    seed: given.seed,
    bf16: given.bf16,
    fp16: given.fp16,
  })
  return {
    mode: track !== undefined ? 'track' : evaluate ? 'evaluate' : 'train',
    data: given.data ?? 'data',
    config: given.config,
    audio: given.audioRoot,
    modelDir: modelDir ?? model ?? 'model',
    output: outputDir,
    checkpoint: given.checkpoint,
    track,
    split: given.split ?? 'test',
    noAudio: given.textOnly ?? false,
    maxLength: given.maxLength ?? 512,
    dropout: given.dropout ?? 0.1,
    headsDropout: given.headsDropout ?? 0,
    classLossRatio: given.classLossRatio ?? 0.8,
    compat: given.compat,
    device: cpu ? 'cpu' : device,
    training: { ...DST_TRAINING, ...training, outputDir },
  }
}
