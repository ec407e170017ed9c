import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { ForeignOptions, OptionsOf, OptionTable } from '../../../kit/options.js'
import { missingOption } from '../../../kit/options.js'
import type { SchedulerType } from '../../../train/scheduler.js'
import type { UsdmRecipe } from '../training/recipe.js'
import type { UsdmTrainingOptions } from '../training/trainer.js'

/** Options of pre-training and fine-tuning, with the spellings of the original's train_sft.py and train_pt.py as aliases. */
export const USDM_TRAINING_OPTIONS = {
  output: {
    kind: 'text',
    help: 'folder for checkpoints, the trained model (model/) and results',
    value: 'dir',
    aliases: ['output_dir'],
  },
  modelCacheDir: {
    kind: 'text',
    help: 'folder of models, with the tokenizer that the data was made with',
    value: 'dir',
    preset: 'MODEL_CACHE_DIR, if it is set',
    aliases: ['model_cache_dir'],
  },
  tokenizer: {
    kind: 'text',
    help: 'folder of the tokenizer that the data was made with',
    value: 'dir',
    preset: "the model cache's, else the model's",
  },
  units: { kind: 'whole', help: 'number of units added to a tokenizer that has none', preset: 10_000 },
  windowInclusive: {
    kind: 'flag',
    help: "Mistral's window as published: a token attends to itself and the 4,096 before it; else to 4,096 with itself",
    preset: 'depends on --compat',
  },
  batchSize: {
    kind: 'whole',
    help: 'batch size per process',
    preset: 2,
    aliases: ['train_batch_size', 'per_device_train_batch_size'],
  },
  evalBatchSize: { kind: 'whole', help: 'evaluation batch size per process', preset: 2, aliases: ['eval_batch_size'] },
  accumulation: {
    kind: 'whole',
    help: 'gradient accumulation: batches per optimizer step; 2 for pre-training',
    preset: 4,
    aliases: ['gradient_accumulation_steps'],
  },
  learningRate: { kind: 'number', help: 'peak learning rate', preset: 2e-5 },
  schedule: {
    kind: 'text',
    help: "learning rate schedule, by transformers' name",
    value: 'name',
    preset: 'cosine',
    aliases: ['lr_scheduler_type'],
  },
  warmupRatio: { kind: 'share', help: 'fraction of all steps for warmup', preset: 0.03 },
  maxGradNorm: { kind: 'number', help: 'gradient clipping norm; 0 for none', preset: 0 },
  epochs: { kind: 'number', help: 'passes over the data', preset: 1, aliases: ['num_train_epochs'] },
  maxSteps: { kind: 'whole', help: 'total optimizer steps, instead of epochs' },
  maxLength: {
    kind: 'whole',
    help: 'model_max_length of the saved tokenizer; no text is truncated',
    preset: 8192,
    aliases: ['max_input_length'],
  },
  logSteps: { kind: 'whole', help: 'steps between logs', preset: 50, aliases: ['logging_steps'] },
  evalStrategy: {
    kind: ['steps', 'epoch', 'no'],
    help: 'when to evaluate',
    preset: 'steps',
    aliases: ['evaluation_strategy'],
  },
  evalSteps: { kind: 'whole', help: 'steps between evaluations', preset: 1000 },
  saveStrategy: { kind: ['steps', 'epoch', 'no'], help: 'when to save a checkpoint', preset: 'steps' },
  saveSteps: { kind: 'whole', help: 'steps between checkpoints', preset: 1000 },
  saveTotalLimit: { kind: 'whole', help: 'maximum number of kept checkpoints', preset: 2 },
  loadBest: {
    kind: 'flag',
    help: 'loads the weights of the best evaluation at the end',
    aliases: ['load_best_model_at_end'],
  },
  lora: { kind: 'flag', help: 'trains LoRA adapters on q and v, and the embedding and output layers' },
  loraR: { kind: 'whole', help: 'LoRA rank', preset: 8 },
  loraAlpha: { kind: 'number', help: 'LoRA alpha; 64 for pre-training', preset: 16 },
  loraDropout: { kind: 'share', help: 'dropout of the LoRA input', preset: 0.1 },
  checkpointing: {
    kind: 'flag',
    help: 'recomputes layers in backward; --no-checkpointing keeps all activations',
    preset: 'on',
  },
  zero: { kind: ['0', '1'], help: "1 shards the optimizer's state over the processes", preset: 0 },
  resume: {
    kind: 'flag',
    help: 'resumes from the last checkpoint; --no-resume is an error if the folder has one',
    preset: 'on',
  },
  seed: { kind: 'whole', help: 'random seed', preset: 42 },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  dtype: {
    kind: ['bfloat16', 'float32'],
    help: 'dtype of the weights; optimizer steps run in float32',
    preset: 'bfloat16',
  },
  compat: { kind: ['published'], help: 'reproduces the published code where the defaults differ' },
} as const satisfies OptionTable

/** Further options of the original's programs, with the reason why they have no effect. */
export const USDM_TRAINING_FOREIGN: ForeignOptions = {
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
  const { output, lora, loraR, loraAlpha, loraDropout, checkpointing, zero, resume, loadBest, compat } = options
  if (output === undefined) throw missingOption('output', 'the folder for results', 'DIR')
  if (lora !== true && (loraR ?? loraAlpha ?? loraDropout) !== undefined) {
    throw new ConfigError(
      '--lora-r, --lora-alpha, --lora-dropout: expected with --lora, got them without. Add --lora.',
      { argument: 'lora' },
    )
  }
  const { batchSize, evalBatchSize, accumulation, learningRate, schedule, warmupRatio, maxGradNorm, epochs } = options
  const { seed, logSteps, evalSteps, saveSteps, saveTotalLimit, evalStrategy, saveStrategy, maxSteps } = options
  const recipe: Partial<UsdmRecipe> = defined({
    ...{ batchSize, evalBatchSize, accumulation, learningRate, warmupRatio, maxGradNorm, epochs },
    // usdmRecipe checks it.
    schedule: schedule as SchedulerType | undefined,
    ...{ seed, logSteps, evalSteps, saveSteps, saveTotalLimit, gradientCheckpointing: checkpointing },
  })
  const args = defined({
    ...{ evalStrategy, saveStrategy, maxSteps, loadBestModelAtEnd: loadBest, resumeFromCheckpoint: resume },
    zero: zero === undefined ? undefined : (Number(zero) as 0 | 1),
  })
  return {
    outputDir: output,
    recipe,
    args,
    maxLength: options.maxLength ?? 8192,
    ...(lora === true && { lora: defined({ r: loraR, loraAlpha, loraDropout }) }),
    ...(compat && { compat }),
  }
}
