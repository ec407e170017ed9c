import { defined } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import type { ForeignOptions, OptionsOf, OptionTable } from '../../../kit/options.js'
import type { SchedulerType } from '../../../train/scheduler.js'
import type { UsdmRecipe } from '../training/recipe.js'
import type { UsdmTrainingOptions } from '../training/trainer.js'

/** What both trainings are told, with the spellings of the original's train_sft.py and train_pt.py. */
export const USDM_TRAINING_OPTIONS = {
  output: {
    kind: 'text',
    help: 'checkpoints, the trained model (model/) and results go here',
    value: 'dir',
    aliases: ['output_dir'],
  },
  modelCacheDir: {
    kind: 'text',
    help: 'where models are kept, and the tokenizer that the data was made with',
    value: 'dir',
    preset: 'MODEL_CACHE_DIR, where that is set',
    aliases: ['model_cache_dir'],
  },
  tokenizer: {
    kind: 'text',
    help: 'the folder of the tokenizer that the data was made with',
    value: 'dir',
    preset: "the model cache's, else the model's",
  },
  units: { kind: 'whole', help: 'how many units a tokenizer without them gets', preset: 10_000 },
  windowInclusive: {
    kind: 'flag',
    help: "Mistral's window as published: a token sees 4,096 before it and itself; else 4,096 with itself",
    preset: 'as --compat says',
  },
  batchSize: {
    kind: 'whole',
    help: 'in a batch of each process',
    preset: 2,
    aliases: ['train_batch_size', 'per_device_train_batch_size'],
  },
  evalBatchSize: { kind: 'whole', help: 'the same of evaluation', preset: 2, aliases: ['eval_batch_size'] },
  accumulation: {
    kind: 'whole',
    help: 'batches whose gradients make one step; of pre-training 2',
    preset: 4,
    aliases: ['gradient_accumulation_steps'],
  },
  learningRate: { kind: 'number', help: 'the highest', preset: 2e-5 },
  schedule: {
    kind: 'text',
    help: "of the learning rate, by transformers' name",
    value: 'name',
    preset: 'cosine',
    aliases: ['lr_scheduler_type'],
  },
  warmupRatio: { kind: 'share', help: 'of all steps, over which the rate climbs', preset: 0.03 },
  maxGradNorm: { kind: 'number', help: 'gradients are clipped to it; 0: not', preset: 0 },
  epochs: { kind: 'number', help: 'passes over the data', preset: 1, aliases: ['num_train_epochs'] },
  maxSteps: { kind: 'whole', help: 'steps in all, in place of epochs' },
  maxLength: {
    kind: 'whole',
    help: 'what the saved tokenizer says of the longest text; nothing is cut',
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
  saveTotalLimit: { kind: 'whole', help: 'checkpoints that stay', preset: 2 },
  loadBest: {
    kind: 'flag',
    help: 'ends with the weights of the best evaluation',
    aliases: ['load_best_model_at_end'],
  },
  lora: { kind: 'flag', help: 'trains adapters of q and v, and the tables of tokens' },
  loraR: { kind: 'whole', help: 'their rank', preset: 8 },
  loraAlpha: { kind: 'number', help: 'their scale times the rank; of pre-training 64', preset: 16 },
  loraDropout: { kind: 'share', help: 'of their input', preset: 0.1 },
  checkpointing: { kind: 'flag', help: 'layers compute again in backward; --no-checkpointing keeps all', preset: 'on' },
  zero: { kind: ['0', '1'], help: "1 divides the optimiser's state over processes", preset: 0 },
  resume: {
    kind: 'flag',
    help: 'goes on from the last checkpoint; --no-resume refuses a folder that has one',
    preset: 'on',
  },
  seed: { kind: 'whole', help: 'of the order, of new rows and adapters', preset: 42 },
  device: { kind: 'text', help: 'such as cpu or cuda:0', preset: 'cpu' },
  dtype: { kind: ['bfloat16', 'float32'], help: 'of the weights; steps are made in float32', preset: 'bfloat16' },
  compat: { kind: ['published'], help: 'what the published code does where ours does better' },
} as const satisfies OptionTable

/** What the original's programs take besides. */
export const USDM_TRAINING_FOREIGN: ForeignOptions = {
  data_path_cache: { takesValue: true, reason: 'files are read where they are, without a copy' },
  deepspeed_config: {
    takesValue: true,
    reason: "there is no DeepSpeed: what its file says is the default here, and --zero 1 divides the optimiser's state",
  },
  deepspeed: { takesValue: true, reason: 'there is no DeepSpeed: --zero 1 divides the optimiser’s state' },
  dropout: { takesValue: true, reason: 'the original does not read it either' },
  num_unit_tokens: { takesValue: true, reason: 'the original does not read it either; the tokenizer has the units' },
  local_rank: { takesValue: true, reason: 'voxtorch launch tells each process its number' },
}

export type UsdmTrainingArguments = OptionsOf<typeof USDM_TRAINING_OPTIONS>

/** What a command line says of a training, but for the data. @throws ConfigError where the folder is missing */
export function trainingOfArguments(
  given: UsdmTrainingArguments,
): Omit<UsdmTrainingOptions, 'model' | 'tokenizer'> & { compat?: 'published' } {
  const { output, lora, loraR, loraAlpha, loraDropout, checkpointing, zero, resume, loadBest, compat } = given
  if (output === undefined) throw new ConfigError('Say where results go: --output DIR', { argument: 'output' })
  if (lora !== true && (loraR ?? loraAlpha ?? loraDropout) !== undefined) {
    throw new ConfigError('--lora-r, --lora-alpha and --lora-dropout are for --lora', { argument: 'lora' })
  }
  const { batchSize, evalBatchSize, accumulation, learningRate, schedule, warmupRatio, maxGradNorm, epochs } = given
  const { seed, logSteps, evalSteps, saveSteps, saveTotalLimit, evalStrategy, saveStrategy, maxSteps } = given
  const recipe: Partial<UsdmRecipe> = defined({
    ...{ batchSize, evalBatchSize, accumulation, learningRate, warmupRatio, maxGradNorm, epochs },
    // The recipe checks it.
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
    maxLength: given.maxLength ?? 8192,
    ...(lora === true && { lora: defined({ r: loraR, loraAlpha, loraDropout }) }),
    ...(compat && { compat }),
  }
}
