import { misuse, requireOneOf, requireString, requireWhole } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { isMainProcess } from '../../../distributed/index.js'
import { plainMetrics, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import { hasWindow } from '../../../models/decoder/config.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { LoraConfig } from '../../../peft/config.js'
import { getPeftModel, peftModelOf } from '../../../peft/model.js'
import { withSeed } from '../../../tensor/random.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { TrainerCallback } from '../../../train/trainer/callbacks.js'
import type { TrainerData } from '../../../train/trainer/data-source.js'
import { writeFolder } from '../../../train/trainer/folders.js'
import type { Logger } from '../../../train/trainer/logger.js'
import { countItems } from '../../../train/trainer/loss.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import type { UsdmBatch } from '../data/collate.js'
import { UsdmTokenizer } from '../data/text.js'
import type { UsdmRecipe } from './recipe.js'

/** What both trainings of USDM's language model are told. */
export interface UsdmTrainingOptions {
  /** Trained where it is. It gets a row for each token that the tokenizer has and it lacks. */
  model: DecoderLM
  tokenizer: UsdmTokenizer
  /** Where checkpoints, logs, the trained model (`model/`) and `results.json` go. */
  outputDir: string
  /** Changes to the original's recipe. */
  recipe?: Partial<UsdmRecipe>
  /**
   * Trains low-rank adapters: of q and v with rank 8, and beside them the embeddings and the output layer as a whole, since the
   * rows of new tokens are random before. Or what of that shall be otherwise; `modulesToSave: []` leaves the tables frozen, as
   * the original does. Default false: everything trains.
   */
  lora?: boolean | Partial<LoraConfig>
  /** What the saved tokenizer says of the longest text. Default: what the tokenizer says. */
  maxLength?: number
  /** For the Trainer, over what is said above: `bf16` (of a model in float32), `zero`, `loadBestModelAtEnd`, `maxSteps`, … */
  args?: Partial<TrainingArguments>
  callbacks?: readonly TrainerCallback[]
  loggers?: readonly Logger[]
}

export const TRAINING_OPTIONS: readonly (keyof UsdmTrainingOptions)[] = [
  'model',
  'tokenizer',
  'outputDir',
  'recipe',
  'lora',
  'maxLength',
  'args',
  'callbacks',
  'loggers',
]

export interface UsdmMeasured {
  /** The mean over what is learnt, and e to the power of it. */
  loss: number | null
  perplexity: number | null
}

/** What a training came to; `results.json` holds the same. */
export interface UsdmResults extends RecipeResults<UsdmMeasured> {
  /** Rows of the embeddings, and how many of them the training began with random values. */
  vocabSize: number
  newRows: number
  /** Whether `model/` holds adapters and not a whole model. */
  adapters: boolean
}

/** What differs between the two. */
export interface UsdmTraining<T> {
  where: string
  /** The rest of the options, checked. */
  options: UsdmTrainingOptions
  recipe: UsdmRecipe
  loraAlpha: number
  train: TrainerData<T, UsdmBatch> & { readonly length?: number }
  examples: number
  valid: Sized<T> | undefined
  test: Sized<T> | undefined
  collate: (samples: T[]) => UsdmBatch
  /** Each batch counts alike in a step, however much of it is learnt, as the original has it. */
  meanOfMeans: boolean
}

type Sized<T> = { readonly length: number; get(index: number, epoch: number): T | Promise<T> }

export function checkTraining(where: string, options: UsdmTrainingOptions): void {
  const { model, tokenizer, outputDir, lora = false, maxLength } = options
  if (!(model instanceof DecoderLM)) throw misuse(where, 'model', 'a DecoderLM', model)
  if (!(tokenizer instanceof UsdmTokenizer)) throw misuse(where, 'tokenizer', 'a UsdmTokenizer', tokenizer)
  requireString(where, 'outputDir', outputDir)
  if (typeof lora !== 'boolean' && (typeof lora !== 'object' || lora === null)) {
    throw misuse(where, 'lora', 'a boolean, or changes to the LoraConfig', lora)
  }
  if (maxLength !== undefined) requireWhole(where, 'maxLength', maxLength, 1)
}

/** @throws ConfigError for a model whose window is not the published one, where that was asked for */
export function requireCompat(where: string, compat: unknown, { config }: DecoderLM): void {
  if (compat === undefined) return
  requireOneOf(where, 'compat', compat, ['published'])
  if (!hasWindow(config) || config.windowInclusive === true) return
  throw new ConfigError(
    `${where}: compat 'published' is of a window that holds ${config.slidingWindow} tokens and one more, and the model's holds ${config.slidingWindow}: load it with config: { windowInclusive: true }`,
    { argument: 'compat', slidingWindow: config.slidingWindow },
  )
}

/** Trains, saves the model with its tokenizer in `model/`, measures, and writes `results.json`. */
export async function runUsdmTraining<T>(training: UsdmTraining<T>): Promise<UsdmResults> {
  const { where, options, recipe, train, examples, valid, test, collate, meanOfMeans } = training
  const { model, tokenizer, outputDir, maxLength, args = {}, callbacks = [], loggers = [] } = options
  const before = model.config.vocabSize as number
  const newRows = Math.max(0, tokenizer.vocabSize - before)
  if (newRows > 0) model.resizeTokenEmbeddings(tokenizer.vocabSize, { seed: recipe.seed })
  if (maxLength !== undefined) tokenizer.tokenizer.modelMaxLength = maxLength
  attachAdapters(where, training)
  const trainer = new Trainer<DecoderLM, T, UsdmBatch>({
    model,
    trainDataset: train,
    ...(valid && { evalDataset: valid }),
    collate: collate as never,
    // One where something is learnt: the mean over nothing is no number.
    ...(meanOfMeans && { countItems: (batch: UsdmBatch) => Math.min(1, countItems(model, batch)) }),
    ...{ callbacks, loggers },
    args: { ...trainingArguments(recipe, outputDir, valid !== undefined), ...args },
  })
  return runRecipe<UsdmMeasured, UsdmResults, { readonly length: number }>({
    trainer,
    outputDir,
    best: 'model',
    data: { train: { length: examples }, ...(valid && { valid }), ...(test && { test }) },
    measure: async (data) => {
      const { loss } = plainMetrics(await trainer.evaluate(data as Sized<T>))
      const known = loss !== undefined && Number.isFinite(loss)
      return { loss: known ? loss : null, perplexity: known ? Math.exp(loss) : null }
    },
    async save(folder) {
      if (isMainProcess()) await saveTrained(folder, model, tokenizer)
    },
    more: () => ({
      vocabSize: model.config.vocabSize as number,
      newRows,
      adapters: peftModelOf(model) !== undefined,
    }),
    dispose: () => trainer.dispose(),
  })
}

/** Adapters begin alike in all processes, and in one that goes on. */
function attachAdapters<T>(where: string, { options, recipe, loraAlpha }: UsdmTraining<T>): void {
  const { model, lora = false } = options
  if (lora === false) return
  if (peftModelOf(model)) {
    throw new ConfigError(`${where}: the model has adapters already: train it without lora`, { argument: 'lora' })
  }
  const given = lora === true ? {} : lora
  const config: LoraConfig = {
    ...{
      r: 8,
      loraAlpha,
      loraDropout: 0.1,
      targetModules: ['q_proj', 'v_proj'],
      modulesToSave: ['embed_tokens', 'lm_head'],
    },
    taskType: 'CAUSAL_LM',
    ...given,
  }
  if (config.modulesToSave?.length === 0) config.modulesToSave = null
  const device = model.parameters()[0]?.device ?? 'cpu'
  withSeed(recipe.seed, () => getPeftModel(model, config), device)
}

const trainingArguments = (recipe: UsdmRecipe, outputDir: string, evaluates: boolean): TrainingArguments => ({
  outputDir,
  perDeviceTrainBatchSize: recipe.batchSize,
  perDeviceEvalBatchSize: recipe.evalBatchSize,
  gradientAccumulationSteps: recipe.accumulation,
  numTrainEpochs: recipe.epochs,
  learningRate: recipe.learningRate,
  lrSchedulerType: recipe.schedule,
  warmupRatio: recipe.warmupRatio,
  adamBeta1: recipe.betas[0],
  adamBeta2: recipe.betas[1],
  adamEpsilon: recipe.eps,
  weightDecay: recipe.weightDecay,
  decayAll: true,
  maxGradNorm: recipe.maxGradNorm,
  gradientCheckpointing: recipe.gradientCheckpointing,
  seed: recipe.seed,
  loggingSteps: recipe.logSteps,
  evalStrategy: evaluates ? 'steps' : 'no',
  evalSteps: recipe.evalSteps,
  saveStrategy: 'steps',
  saveSteps: recipe.saveSteps,
  saveTotalLimit: recipe.saveTotalLimit,
  progress: true,
})

/** A folder that `DecoderLM.fromPretrained` (or `PeftModel.fromPretrained`) and `UsdmTokenizer.fromPretrained` read. */
async function saveTrained(folder: string, model: DecoderLM, tokenizer: UsdmTokenizer): Promise<void> {
  const peft = peftModelOf(model)
  await writeFolder(folder, async (temporary) => {
    if (peft) await peft.savePretrained(temporary)
    else {
      // As published: loaded again, the row of padding gets no gradient.
      model.config.padTokenId ??= tokenizer.ids.pad
      await model.save(temporary)
    }
    tokenizer.saveTo(temporary)
  })
}
