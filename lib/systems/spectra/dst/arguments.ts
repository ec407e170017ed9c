import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { nearest } from '../../../base/nearest.js'
import type { TrainingArguments } from '../../../train/index.js'
import { DST_TRAINING } from './train.js'

/** What `examples/spectra-dst.ts` is asked to do. */
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
  device: 'cpu' | 'cuda' | undefined
  training: TrainingArguments
}

type Kind = 'string' | 'boolean'

/** Our names, with those of the original's run_dst.py. */
const FLAGS: Readonly<Record<string, readonly [kind: Kind, ...aliases: string[]]>> = {
  data: ['string', 'data_dir'],
  config: ['string', 'dataset_config'],
  audio: ['string', 'audio_path'],
  'model-dir': ['string', 'model_dir'],
  output: ['string', 'output_dir'],
  checkpoint: ['string', 'ckpt'],
  evaluate: ['boolean'],
  track: ['string'],
  split: ['string'],
  'no-audio': ['boolean', 'no_audio'],
  'max-length': ['string', 'max_token_length'],
  dropout: ['string', 'dropout_rate'],
  'heads-dropout': ['string', 'heads_dropout'],
  'class-loss-ratio': ['string', 'class_loss_ratio'],
  compat: ['string'],
  device: ['string'],
  cpu: ['boolean', 'no_cuda'],
  bf16: ['boolean'],
  fp16: ['boolean'],
  'batch-size': ['string', 'per_gpu_train_batch_size'],
  'eval-batch-size': ['string', 'per_gpu_eval_batch_size'],
  accumulation: ['string', 'accum'],
  epochs: ['string', 'num_train_epochs'],
  'max-steps': ['string', 'max_steps'],
  'learning-rate': ['string', 'lr'],
  'warmup-ratio': ['string', 'warmup_proportion'],
  'weight-decay': ['string', 'weight_decay'],
  'adam-epsilon': ['string', 'adam_epsilon'],
  'max-grad-norm': ['string', 'max_grad_norm'],
  'save-steps': ['string', 'save_steps'],
  'logging-steps': ['string', 'logging_steps'],
  seed: ['string'],
  // Of the original alone.
  model: ['string'],
  model_type: ['string'],
  resume: ['boolean'],
  no_amp: ['boolean'],
}

/**
 * Reads the command line of `examples/spectra-dst.ts`: our names, or those of the original's `run_dst.py` as aliases.
 *
 * `--model NAME` makes a folder of that name below the output, as there. `--resume` is always on: a training goes on from
 * its last checkpoint.
 * @throws ConfigError for an unknown or wrong option, naming the nearest
 */
export function parseDstArguments(argv: readonly string[]): DstArguments {
  const given = valuesOf(argv)
  const text = (name: string) => given.get(name) as string | undefined
  const number = (name: string): number | undefined => {
    const value = text(name)
    if (value === undefined) return undefined
    if (value.trim() !== '' && Number.isFinite(Number(value))) return Number(value)
    throw new ConfigError(`--${name} must be a number, not '${value}'`, { option: name })
  }
  const type = text('model_type')
  if (type !== undefined && type.toLowerCase() !== 'roberta')
    throw new ConfigError(`--model_type '${type}' is not supported: SPECTRA's text encoder is 'roberta'`, { type })
  const oneOf = <T extends string>(name: string, words: readonly T[]): T | undefined => {
    const value = text(name)
    if (value === undefined || (words as readonly string[]).includes(value)) return value as T | undefined
    throw new ConfigError(`--${name} must be ${words.join(' or ')}, not '${value}'`, { option: name })
  }
  const compat = oneOf('compat', ['published'])
  const device = given.has('cpu') ? 'cpu' : oneOf('device', ['cpu', 'cuda'])
  const output = join(text('output') ?? 'spectra-dst', text('model') ?? '')
  const training = {
    perDeviceTrainBatchSize: number('batch-size'),
    perDeviceEvalBatchSize: number('eval-batch-size'),
    gradientAccumulationSteps: number('accumulation'),
    numTrainEpochs: number('epochs'),
    maxSteps: number('max-steps'),
    learningRate: number('learning-rate'),
    warmupRatio: number('warmup-ratio'),
    weightDecay: number('weight-decay'),
    adamEpsilon: number('adam-epsilon'),
    maxGradNorm: number('max-grad-norm'),
    saveSteps: number('save-steps'),
    loggingSteps: number('logging-steps'),
    seed: number('seed'),
    ...(given.has('bf16') && { bf16: true }),
    ...(given.has('fp16') && { fp16: true }),
  }
  const named = Object.fromEntries(Object.entries(training).filter(([, value]) => value !== undefined))
  return {
    mode: given.has('track') ? 'track' : given.has('evaluate') ? 'evaluate' : 'train',
    data: text('data') ?? 'data',
    config: text('config'),
    audio: text('audio'),
    modelDir: text('model-dir') ?? 'model',
    output,
    checkpoint: text('checkpoint'),
    track: text('track'),
    split: text('split') ?? 'test',
    noAudio: given.has('no-audio'),
    maxLength: number('max-length') ?? 512,
    dropout: number('dropout') ?? 0.1,
    headsDropout: number('heads-dropout') ?? 0,
    classLossRatio: number('class-loss-ratio') ?? 0.8,
    compat,
    device,
    training: { ...DST_TRAINING, ...named, outputDir: output },
  }
}

function valuesOf(argv: readonly string[]): Map<string, string | boolean> {
  requireForm('parseDstArguments', 'argv', argv, ['string'])
  const nameOf = new Map(
    Object.entries(FLAGS).flatMap(([name, [, ...aliases]]) => [name, ...aliases].map((flag) => [flag, name] as const)),
  )
  const options = Object.fromEntries([...nameOf].map(([flag, name]) => [flag, { type: FLAGS[name]![0] }]))
  for (const word of argv) {
    const flag = /^--([^=]+)/.exec(word)?.[1]
    if (flag === undefined || nameOf.has(flag)) continue
    const near = nearest(flag, nameOf.keys())
    throw new ConfigError(`unknown option --${flag}${near === undefined ? '' : `, did you mean --${near}?`}`, { flag })
  }
  let values: Record<string, string | boolean | undefined>
  try {
    values = parseArgs({ args: [...argv], options, allowPositionals: false }).values
  } catch (cause) {
    throw new ConfigError((cause as Error).message, { cause })
  }
  const given = new Map<string, string | boolean>()
  for (const [flag, value] of Object.entries(values)) {
    if (value === undefined || value === false) continue
    const name = nameOf.get(flag)!
    if (given.has(name)) throw new ConfigError(`--${name} is given twice, also as --${flag}`, { option: name })
    given.set(name, value)
  }
  return given
}
