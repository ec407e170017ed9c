import { ConfigError } from '../../../base/errors.js'
import type { OptionTable } from '../../../kit/options.js'
import { EMOVERSE_RECIPE, EMOVERSE_SETTINGS } from '../training/recipe.js'
import { MODEL_SETTINGS, STAGE_SETTINGS, TRAINING_SETTINGS, VISION_SETTINGS } from './settings.js'

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
    type: 'list',
    help: 'minimum probability of each listed label; other labels have no minimum',
    placeholder: 'Joy.=0.6,…',
  },
  fallback: {
    type: 'string',
    help: 'with --thresholds: the answer if no label reaches its threshold',
    placeholder: 'label',
  },
  causeThreshold: { type: 'number', help: 'minimum probability of a cause; the most likely one always counts' },
} as const satisfies OptionTable

/** Options of the model, with aliases of ms-swift 2.6 and 3.x. */
export const EMOVERSE_MODEL_OPTIONS = {
  model: {
    type: 'string',
    help: 'folder, GGUF file, repository of the Hugging Face hub, or name of published weights',
    placeholder: 'dir',
    aliases: ['model_id_or_path'],
  },
  modelType: {
    type: 'string',
    help: "ms-swift's name of a model, such as internvl2-4b; selects its repository if --model is not given",
    placeholder: 'name',
  },
  adapters: {
    type: 'strings',
    help: 'adapters of earlier stages, in order',
    placeholder: 'dir',
    aliases: ['ckpt_dir', 'resume_from_adapters'],
  },
  tokenizer: { type: 'string', help: 'folder of the tokenizer', placeholder: 'dir', default: "the model's" },
  ...MODEL_SETTINGS.options,
  speech: {
    type: 'string',
    help: 'a Whisper model whose encoder is added as audio encoder; train it with --train-speech',
    placeholder: 'dir',
    default: "the model's own audio encoder",
  },
  mediaRoot: { type: 'string', help: 'base folder of relative media paths', placeholder: 'dir', default: '.' },
  ...VISION_SETTINGS.options,
  visionCache: {
    type: 'string',
    help: "folder that caches the vision encoder's output of each image and frame, across runs",
    placeholder: 'dir',
    default: 'no cache',
  },
  quantize: {
    type: ['nf4', 'int8', 'q8_0', 'q4_0'],
    help: "quantize the language model's layers; adapters stay in full precision",
    default: 'none',
    aliases: ['quant_method'],
  },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  dtype: {
    type: 'string',
    help: 'dtype of the weights: float32 (fp32), bfloat16 (bf16), …',
    default: 'float32',
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
  dataset: { type: 'strings', help: 'instruction files to train on', placeholder: 'file', aliases: ['data'] },
  valDataset: { type: 'strings', help: 'validation files', placeholder: 'file', aliases: ['valid'] },
  output: {
    type: 'string',
    help: 'folder for checkpoints, adapters, logs and the merged model (model/)',
    placeholder: 'dir',
    default: 'output',
    aliases: ['output_dir'],
  },
  stages: {
    type: 'strings',
    help: 'YAML files, one per stage, in place of --dataset and the options of a stage',
    placeholder: 'file',
  },
  sftType: { type: ['lora'], help: 'training method', default: 'lora', aliases: ['train_type', 'tuner_type'] },
  ...EMOVERSE_SETTINGS.options,
  maxSteps: { type: 'integer', help: 'optimizer steps per stage, in place of epochs' },
  groupByLength: { type: 'boolean', help: 'batch records of similar length together' },
  adamBeta1: { type: 'fraction', help: 'beta1 of AdamW', default: EMOVERSE_RECIPE.betas[0] },
  adamBeta2: { type: 'fraction', help: 'beta2 of AdamW', default: EMOVERSE_RECIPE.betas[1] },
  adamEpsilon: { type: 'number', help: 'epsilon of AdamW', default: EMOVERSE_RECIPE.eps },
  loraR: { type: 'integer', help: 'rank of the adapters', default: 8, aliases: ['lora_rank'] },
  loraAlpha: { type: 'number', help: 'LoRA alpha: adapters are scaled by alpha / rank', default: 32 },
  loraDropout: { type: 'fraction', help: "dropout of the adapters' input", default: 0.05, aliases: ['lora_dropout_p'] },
  targetModules: {
    type: 'strings',
    help: 'layers that get an adapter',
    placeholder: 'name',
    default: 'all-linear',
    aliases: ['lora_target_modules'],
  },
  ...STAGE_SETTINGS.options,
  progress: {
    type: 'boolean',
    help: 'progress bar, or lines without a terminal; --no-progress turns it off',
    default: 'on',
  },
  ...TRAINING_SETTINGS.options,
} as const satisfies OptionTable
