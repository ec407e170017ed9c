import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { OptionsOf, OptionTable, OriginalOptions } from '../../../kit/options.js'
import { missingOption } from '../../../kit/options.js'
import { USDM_SETTINGS } from '../training/recipe.js'
import type { UsdmTrainingOptions } from '../training/trainer.js'

/** Options of pre-training and fine-tuning, with the spellings of the original's train_sft.py and train_pt.py as aliases. */
export const USDM_TRAINING_OPTIONS = {
  output: {
    type: 'string',
    help: 'folder for checkpoints, the trained model (model/) and results',
    placeholder: 'dir',
    aliases: ['output_dir'],
  },
  modelCacheDir: {
    type: 'string',
    help: 'folder of models, with the tokenizer that the data was made with',
    placeholder: 'dir',
    default: 'MODEL_CACHE_DIR, if it is set',
    aliases: ['model_cache_dir'],
  },
  tokenizer: {
    type: 'string',
    help: 'folder of the tokenizer that the data was made with',
    placeholder: 'dir',
    default: "the model cache's, else the model's",
  },
  units: { type: 'integer', help: 'number of units added to a tokenizer that has none', default: 10_000 },
  windowInclusive: {
    type: 'boolean',
    help: "Mistral's window as published: a token attends to itself and the 4,096 before it; else to 4,096 with itself",
    default: 'depends on --compat',
  },
  ...USDM_SETTINGS.options,
  maxSteps: { type: 'integer', help: 'total optimizer steps, instead of epochs' },
  maxLength: {
    type: 'integer',
    help: 'model_max_length of the saved tokenizer; no text is truncated',
    default: 8192,
    aliases: ['max_input_length'],
  },
  evalStrategy: {
    type: ['steps', 'epoch', 'no'],
    help: 'when to evaluate',
    default: 'steps',
    aliases: ['evaluation_strategy'],
  },
  saveStrategy: { type: ['steps', 'epoch', 'no'], help: 'when to save a checkpoint', default: 'steps' },
  loadBest: {
    type: 'boolean',
    help: 'load the weights of the best evaluation at the end',
    aliases: ['load_best_model_at_end'],
  },
  lora: { type: 'boolean', help: 'train LoRA adapters on q and v, and the embedding and output layers' },
  loraR: { type: 'integer', help: 'LoRA rank', default: 8 },
  loraAlpha: { type: 'number', help: 'LoRA alpha; 64 for pre-training', default: 16 },
  loraDropout: { type: 'fraction', help: 'dropout of the LoRA input', default: 0.1 },
  zero: { type: ['0', '1'], help: "1 shards the optimizer's state over the processes", default: 0 },
  resume: {
    type: 'boolean',
    help: 'resume from the last checkpoint; --no-resume is an error if the folder has one',
    default: 'on',
  },
  device: { type: 'string', help: 'device: cpu, cuda or cuda:0', default: 'cpu' },
  dtype: {
    type: ['bfloat16', 'float32'],
    help: 'dtype of the weights; optimizer steps run in float32',
    default: 'bfloat16',
  },
  compat: { type: ['published'], help: 'reproduce the published code where the defaults differ' },
} as const satisfies OptionTable

/** Further options of the original's programs, with the reason why they have no effect. */
export const USDM_TRAINING_ORIGINAL_OPTIONS: OriginalOptions = {
  data_path_cache: { takesValue: true, reason: 'files are read in place, without a copy' },
  deepspeed_config: {
    takesValue: true,
    reason: "DeepSpeed is not used: the defaults match its file, and --zero 1 shards the optimizer's state",
  },
  deepspeed: { takesValue: true, reason: "DeepSpeed is not used: --zero 1 shards the optimizer's state" },
  dropout: { takesValue: true, reason: 'the original does not read it either' },
  num_unit_tokens: { takesValue: true, reason: 'the original does not read it either; the tokenizer has the units' },
  local_rank: { takesValue: true, reason: 'voxtorch launch sets the rank of each process' },
}

export type UsdmTrainingArguments = OptionsOf<typeof USDM_TRAINING_OPTIONS>

/** Return the training options of a command line, without the data. @throws ConfigError if `--output` is missing */
export function trainingOfArguments(
  options: UsdmTrainingArguments,
): Omit<UsdmTrainingOptions, 'model' | 'tokenizer'> & { compat?: 'published' } {
  const { output, lora, loraR, loraAlpha, loraDropout, zero, resume, loadBest, compat } = options
  if (output === undefined) throw missingOption('output', 'the folder for results', 'DIR')
  if (lora !== true && (loraR ?? loraAlpha ?? loraDropout) !== undefined) {
    throw new ConfigError(
      '--lora-r, --lora-alpha, --lora-dropout: expected with --lora, got them without. Add --lora.',
      { argument: 'lora' },
    )
  }
  const { evalStrategy, saveStrategy, maxSteps } = options
  const args = defined({
    ...{ evalStrategy, saveStrategy, maxSteps, loadBestModelAtEnd: loadBest, resumeFromCheckpoint: resume },
    zero: zero === undefined ? undefined : (Number(zero) as 0 | 1),
  })
  return {
    outputDir: output,
    recipe: USDM_SETTINGS.fromOptions(options),
    args,
    maxLength: options.maxLength ?? 8192,
    ...(lora === true && { lora: defined({ r: loraR, loraAlpha, loraDropout }) }),
    ...(compat && { compat }),
  }
}
