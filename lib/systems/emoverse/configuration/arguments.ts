import { ConfigError } from '../../../base/errors.js'
import type { OptionTable } from '../../../kit/options.js'

/** Parse a list such as `MER=2,MSA=1`. @throws ConfigError for an item that is not name=number */
export function numbersOf(flag: string, list: readonly string[] = []): Record<string, number> {
  return Object.fromEntries(
    list.map((item) => {
      const [name = '', text = ''] = item.split('=')
      const value = text.trim() === '' ? Number.NaN : Number(text)
      if (!Number.isFinite(value))
        throw new ConfigError(`${flag}: expected name=number, got ${JSON.stringify(item)}.`, { argument: flag })
      return [name.trim(), value]
    }),
  )
}

/** Options for answers by probability. */
export const EMOVERSE_LABEL_OPTIONS = {
  thresholds: {
    kind: 'list',
    help: 'minimum probabilities of labels; labels that are not listed have none',
    value: 'Joy.=0.6,…',
  },
  fallback: { kind: 'text', help: 'with --thresholds: the answer if no label reaches its threshold', value: 'label' },
  causeThreshold: { kind: 'number', help: 'minimum probability of a cause; the most likely one always counts' },
} as const satisfies OptionTable

/** Options of the model, with aliases of ms-swift 2.6 and 3.x. */
export const EMOVERSE_MODEL_OPTIONS = {
  model: {
    kind: 'text',
    help: 'folder, GGUF file, repository of the Hugging Face hub, or name of published weights',
    value: 'dir',
    aliases: ['model_id_or_path'],
  },
  modelType: {
    kind: 'text',
    help: "ms-swift's name of a model, such as internvl2-4b; selects its repository if --model is not given",
    value: 'name',
  },
  adapters: {
    kind: 'texts',
    help: 'adapters of earlier stages, in order',
    value: 'dir',
    aliases: ['ckpt_dir', 'resume_from_adapters'],
  },
  tokenizer: { kind: 'text', help: 'folder of the tokenizer', value: 'dir', preset: "the model's" },
  template: {
    kind: ['hermes2', 'internlm2', 'phi3'],
    help: 'chat template',
    preset: "by the tokenizer's special tokens",
  },
  system: { kind: 'text', help: 'system prompt', preset: "EmoVerse's" },
  media: {
    kind: ['read', 'ignore'],
    help: "whether images and videos are read; 'ignore' uses only the text, as a text-only model requires",
    preset: 'read',
  },
  speech: {
    kind: 'text',
    help: 'a Whisper model whose encoder is added as audio encoder; train it with --train-speech',
    value: 'dir',
    preset: "the model's own audio encoder",
  },
  audio: {
    kind: ['read', 'ignore'],
    help: "whether audio is read; 'ignore' leaves it out",
    preset: 'read',
  },
  mediaRoot: { kind: 'text', help: 'base folder of relative media paths', value: 'dir', preset: '.' },
  maxTiles: {
    kind: 'whole',
    help: 'maximum number of tiles per image, without the thumbnail',
    preset: "12, or the model's configuration",
    aliases: ['max_num'],
  },
  frames: { kind: 'whole', help: 'frames per video', preset: 8, aliases: ['video_segments'] },
  visionCache: {
    kind: 'text',
    help: "folder that caches the vision encoder's output of each image and frame, across runs",
    value: 'dir',
    preset: 'no cache',
  },
  quantize: {
    kind: ['nf4', 'int8', 'q8_0', 'q4_0'],
    help: "quantize the language model's layers; adapters stay in full precision",
    preset: 'none',
    aliases: ['quant_method'],
  },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  dtype: {
    kind: 'text',
    help: 'dtype of the weights: float32 (fp32), bfloat16 (bf16), …',
    preset: 'float32',
    aliases: ['torch_dtype'],
  },
} as const satisfies OptionTable

const { adapters, tokenizer, template, system, media, speech, audio, maxTiles, frames, quantize } =
  EMOVERSE_MODEL_OPTIONS

/** Options of a served model, in addition to the common ones. */
export const EMOVERSE_SERVED_OPTIONS = {
  ...{ adapters, tokenizer, template, system, media, speech, audio, maxTiles, frames, quantize },
} as const satisfies OptionTable

/** Options of the training of a stage. */
export const EMOVERSE_TRAINING_OPTIONS = {
  dataset: { kind: 'texts', help: 'instruction files to train on', value: 'file', aliases: ['data'] },
  valDataset: { kind: 'texts', help: 'validation files', value: 'file', aliases: ['valid'] },
  validationShare: {
    kind: 'share',
    help: 'fraction of the data to validate with, if --val-dataset is not given',
    preset: 0.01,
    aliases: ['dataset_test_ratio', 'split_dataset_ratio'],
  },
  output: {
    kind: 'text',
    help: 'folder for checkpoints, adapters, logs and the whole model (model/)',
    value: 'dir',
    preset: 'output',
    aliases: ['output_dir'],
  },
  stages: {
    kind: 'texts',
    help: 'YAML files, one per stage, in place of --dataset and the options of a stage',
    value: 'file',
  },
  startAt: {
    kind: 'whole',
    help: 'number of the stage to start with; --model is the result of the stages before',
    preset: 1,
  },
  sftType: { kind: ['lora'], help: 'training method', preset: 'lora', aliases: ['train_type', 'tuner_type'] },
  epochs: { kind: 'number', help: 'passes over the data', preset: 2, aliases: ['num_train_epochs'] },
  maxSteps: { kind: 'whole', help: 'optimizer steps per stage, in place of epochs' },
  batchSize: { kind: 'whole', help: 'records per batch', preset: 1, aliases: ['per_device_train_batch_size'] },
  evalBatchSize: {
    kind: 'whole',
    help: 'records per batch of validation',
    preset: 1,
    aliases: ['per_device_eval_batch_size'],
  },
  groupByLength: { kind: 'flag', help: 'batch records of similar length together' },
  accumulation: {
    kind: 'whole',
    help: 'batches per optimizer step (gradient accumulation)',
    preset: 8,
    aliases: ['gradient_accumulation_steps'],
  },
  learningRate: { kind: 'number', help: 'peak learning rate', preset: 1e-4 },
  schedule: {
    kind: 'text',
    help: 'learning rate schedule, by its name in transformers',
    preset: 'cosine',
    aliases: ['lr_scheduler_type'],
  },
  warmupRatio: { kind: 'share', help: 'fraction of all steps with a rising learning rate', preset: 0.05 },
  weightDecay: { kind: 'number', help: 'weight decay of the matrices', preset: 0.1 },
  maxGradNorm: { kind: 'number', help: 'maximum gradient norm; 0 turns clipping off', preset: 1 },
  adamBeta1: { kind: 'share', help: 'beta1 of AdamW', preset: 0.9 },
  adamBeta2: { kind: 'share', help: 'beta2 of AdamW', preset: 0.95 },
  adamEpsilon: { kind: 'number', help: 'epsilon of AdamW', preset: 1e-8 },
  maxLength: {
    kind: 'whole',
    help: 'maximum length in tokens; longer records are left out; each image or video counts as one token',
    preset: 2048,
  },
  maxExpandedLength: {
    kind: 'whole',
    help: 'maximum length with all tokens of images and videos',
    preset: 'no limit',
  },
  gradientCheckpointing: {
    kind: ['true', 'false'],
    help: 'recompute activations in the backward pass to save memory',
    preset: 'true',
  },
  loraR: { kind: 'whole', help: 'rank of the adapters', preset: 8, aliases: ['lora_rank'] },
  loraAlpha: { kind: 'number', help: 'LoRA alpha: adapters are scaled by alpha / rank', preset: 32 },
  loraDropout: { kind: 'share', help: "dropout of the adapters' input", preset: 0.05, aliases: ['lora_dropout_p'] },
  targetModules: {
    kind: 'texts',
    help: 'layers that get an adapter',
    value: 'name',
    preset: 'all-linear',
    aliases: ['lora_target_modules'],
  },
  projector: {
    kind: ['lora', 'whole', 'frozen'],
    help: "training of InternVL's projector",
    preset: 'lora',
  },
  trainSpeech: {
    kind: ['frozen', 'whole', 'alone'],
    help: 'training of the audio encoder: frozen, whole (with the adapter), or alone (without an adapter)',
    preset: 'frozen',
  },
  logSteps: { kind: 'whole', help: 'steps between logs', preset: 10, aliases: ['logging_steps'] },
  evalSteps: { kind: 'whole', help: 'steps between evaluations', preset: 1000 },
  saveSteps: { kind: 'whole', help: 'steps between checkpoints', preset: 500 },
  saveTotalLimit: { kind: 'whole', help: 'number of checkpoints to keep', preset: 3 },
  loadBest: { kind: 'flag', help: 'evaluate once per epoch, and end with the weights of the best evaluation' },
  seed: { kind: 'whole', help: 'random seed of the order and of new adapters', preset: 42 },
  progress: {
    kind: 'flag',
    help: 'progress bar, or lines without a terminal; --no-progress turns it off',
    preset: 'on',
  },
  onBadRecord: { kind: ['stop', 'skip'], help: 'stop at, or skip, a record that cannot be used', preset: 'skip' },
  compat: { kind: ['published'], help: 'reproduce ms-swift 2.6 where voxtorch improves on it' },
} as const satisfies OptionTable
