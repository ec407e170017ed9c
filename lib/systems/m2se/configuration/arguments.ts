import { ConfigError } from '../../../base/errors.js'
import type { OptionTable } from '../../../kit/options.js'

/** A list such as `MER=2,MSA=1`. @throws ConfigError for an item that is no name with a number */
export function numbersOf(flag: string, list: readonly string[] = []): Record<string, number> {
  return Object.fromEntries(
    list.map((item) => {
      const [name = '', text = ''] = item.split('=')
      const value = text.trim() === '' ? Number.NaN : Number(text)
      if (!Number.isFinite(value))
        throw new ConfigError(`${flag} takes name=number, not ${JSON.stringify(item)}`, { argument: flag })
      return [name.trim(), value]
    }),
  )
}

/** By which probabilities labels are named. */
export const EMOVERSE_LABEL_OPTIONS = {
  thresholds: {
    kind: 'list',
    help: 'a label is named only where it is at least so likely; those that are not mentioned need not be',
    value: 'Joy.=0.6,…',
  },
  fallback: { kind: 'text', help: 'with --thresholds: what is said where no label is likely enough', value: 'label' },
  causeThreshold: { kind: 'number', help: 'causes that are at least so likely are named beside the likeliest' },
} as const satisfies OptionTable

/** Which model, with the names of ms-swift 2.6 and 3.x. */
export const EMOVERSE_MODEL_OPTIONS = {
  model: {
    kind: 'text',
    help: 'the model: a folder, a GGUF file, a repository of the hub, or the name of published weights',
    value: 'dir',
    aliases: ['model_id_or_path'],
  },
  modelType: {
    kind: 'text',
    help: "ms-swift's name of a model, such as internvl2-4b: its repository where --model is not given",
    value: 'name',
  },
  adapters: {
    kind: 'texts',
    help: 'adapters of the stages before, in their order',
    value: 'dir',
    aliases: ['ckpt_dir', 'resume_from_adapters'],
  },
  tokenizer: { kind: 'text', help: 'where the tokenizer is', value: 'dir', preset: "the model's" },
  template: {
    kind: ['hermes2', 'internlm2', 'phi3'],
    help: 'how turns are written',
    preset: "by the tokenizer's tokens",
  },
  system: { kind: 'text', help: 'the system text', preset: "EmoVerse's" },
  media: {
    kind: ['read', 'ignore'],
    help: "what becomes of pictures and films: 'ignore' reads the words alone, as a language model without eyes has to",
    preset: 'read',
  },
  speech: {
    kind: 'text',
    help: 'a Whisper whose encoder is to be the ears of a model that has none; train them with --train-speech',
    value: 'dir',
    preset: 'the ears that the model has',
  },
  sounds: {
    kind: ['read', 'ignore'],
    help: "what becomes of sounds where the model has ears: 'ignore' leaves them out",
    preset: 'read',
  },
  mediaRoot: { kind: 'text', help: 'what paths of media are relative to', value: 'dir', preset: '.' },
  maxTiles: {
    kind: 'whole',
    help: 'most tiles of a picture, the thumbnail not counted',
    preset: "the network's, 12",
    aliases: ['max_num'],
  },
  frames: { kind: 'whole', help: 'frames of a film', preset: 8, aliases: ['video_segments'] },
  visionCache: {
    kind: 'text',
    help: 'keeps what the vision part makes of each picture and frame, for all runs',
    value: 'dir',
    preset: 'nothing is kept',
  },
  quantize: {
    kind: ['nf4', 'int8', 'q8_0', 'q4_0'],
    help: "packs the language model's layers; adapters stand beside them",
    preset: 'not',
    aliases: ['quant_method'],
  },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  dtype: {
    kind: 'text',
    help: 'of the weights: float32 (fp32), bfloat16 (bf16), …',
    preset: 'float32',
    aliases: ['torch_dtype'],
  },
} as const satisfies OptionTable

const { adapters, tokenizer, template, system, media, speech, sounds, maxTiles, frames, quantize } =
  EMOVERSE_MODEL_OPTIONS

/** Those of a model that is served, beside what every model has. */
export const EMOVERSE_SERVED_OPTIONS = {
  ...{ adapters, tokenizer, template, system, media, speech, sounds, maxTiles, frames, quantize },
} as const satisfies OptionTable

/** How a stage is trained. */
export const EMOVERSE_TRAINING_OPTIONS = {
  dataset: { kind: 'texts', help: 'instruction files to train on', value: 'file', aliases: ['data'] },
  valDataset: { kind: 'texts', help: 'files to validate with', value: 'file', aliases: ['valid'] },
  validationShare: {
    kind: 'share',
    help: 'of the data, to validate with where no files are given',
    preset: 0.01,
    aliases: ['dataset_test_ratio', 'split_dataset_ratio'],
  },
  output: {
    kind: 'text',
    help: 'checkpoints, adapters, logs and the whole model (model/) go here',
    value: 'dir',
    preset: 'output',
    aliases: ['output_dir'],
  },
  stages: {
    kind: 'texts',
    help: 'YAML files, one for each stage, in place of --dataset and what is said of one',
    value: 'file',
  },
  startAt: {
    kind: 'whole',
    help: 'the first of --stages that is trained; the model is what those before made',
    preset: 1,
  },
  sftType: { kind: ['lora'], help: 'what trains', preset: 'lora', aliases: ['train_type', 'tuner_type'] },
  epochs: { kind: 'number', help: 'passes over the data', preset: 2, aliases: ['num_train_epochs'] },
  maxSteps: { kind: 'whole', help: 'steps of each stage, in place of epochs' },
  batchSize: { kind: 'whole', help: 'records in a batch', preset: 1, aliases: ['per_device_train_batch_size'] },
  evalBatchSize: { kind: 'whole', help: 'the same of validation', preset: 1, aliases: ['per_device_eval_batch_size'] },
  groupByLength: { kind: 'flag', help: 'puts records of like length into one batch' },
  accumulation: {
    kind: 'whole',
    help: 'batches whose gradients make one step',
    preset: 8,
    aliases: ['gradient_accumulation_steps'],
  },
  learningRate: { kind: 'number', help: 'the highest', preset: 1e-4 },
  schedule: {
    kind: 'text',
    help: "of the rate, by transformers' name",
    preset: 'cosine',
    aliases: ['lr_scheduler_type'],
  },
  warmupRatio: { kind: 'share', help: 'of all steps, over which the rate climbs', preset: 0.05 },
  weightDecay: { kind: 'number', help: 'of the matrices', preset: 0.1 },
  maxGradNorm: { kind: 'number', help: 'gradients are clipped to it; 0: not', preset: 1 },
  adamBeta1: { kind: 'share', help: 'of AdamW', preset: 0.9 },
  adamBeta2: { kind: 'share', help: 'of AdamW', preset: 0.95 },
  adamEpsilon: { kind: 'number', help: 'of AdamW', preset: 1e-8 },
  maxLength: {
    kind: 'whole',
    help: 'longer records are left out; each of their media counts as one token',
    preset: 2048,
  },
  maxExpandedLength: {
    kind: 'whole',
    help: 'the same with all tokens that media become',
    preset: 'no limit',
  },
  gradientCheckpointing: {
    kind: ['true', 'false'],
    help: 'whether layers compute again in backward',
    preset: 'true',
  },
  loraR: { kind: 'whole', help: 'rank of the adapters', preset: 8, aliases: ['lora_rank'] },
  loraAlpha: { kind: 'number', help: 'their scale times the rank', preset: 32 },
  loraDropout: { kind: 'share', help: 'of their input', preset: 0.05, aliases: ['lora_dropout_p'] },
  targetModules: {
    kind: 'texts',
    help: 'layers that get one',
    value: 'name',
    preset: 'all-linear',
    aliases: ['lora_target_modules'],
  },
  projector: {
    kind: ['lora', 'whole', 'frozen'],
    help: "how an InternVL's projection trains",
    preset: 'lora',
  },
  trainSpeech: {
    kind: ['frozen', 'whole', 'alone'],
    help: 'whether the ears train: beside the adapter, or alone without one',
    preset: 'frozen',
  },
  logSteps: { kind: 'whole', help: 'steps between logs', preset: 10, aliases: ['logging_steps'] },
  evalSteps: { kind: 'whole', help: 'steps between evaluations', preset: 1000 },
  saveSteps: { kind: 'whole', help: 'steps between checkpoints', preset: 500 },
  saveTotalLimit: { kind: 'whole', help: 'checkpoints that stay', preset: 3 },
  loadBest: { kind: 'flag', help: 'ends with the weights of the best evaluation, one each epoch' },
  seed: { kind: 'whole', help: 'of the order and of new adapters', preset: 42 },
  progress: { kind: 'flag', help: 'a bar, or lines without a terminal; --no-progress for nothing', preset: 'on' },
  onBadRecord: { kind: ['stop', 'skip'], help: 'what a record that cannot be used does', preset: 'skip' },
  compat: { kind: ['published'], help: 'what ms-swift 2.6 does where ours does better' },
} as const satisfies OptionTable
