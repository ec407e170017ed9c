import { argumentError } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy, instanceOf, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import { isMainProcess } from '../../../distributed/index.js'
import { finiteOrNull, plainMetrics, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import { hasWindow } from '../../../models/decoder/config.js'
import { DecoderLM } from '../../../models/decoder/decoder-lm.js'
import type { LoraConfig } from '../../../peft/config.js'
import { getPeftModel, peftModelOf } from '../../../peft/model.js'
import { withSeed } from '../../../tensor/random.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { TrainerData } from '../../../train/trainer/data-source.js'
import { writeFolder } from '../../../train/trainer/folders.js'
import { countItems } from '../../../train/trainer/loss.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import type { UsdmBatch } from '../data/collate.js'
import { UsdmTokenizer } from '../data/text.js'
import { USDM_SETTINGS, type UsdmRecipe } from './recipe.js'

/** Options of pre-training and fine-tuning. */
export const TRAINING_SETTINGS = settings({
  /** Trained in place. Embeddings are added for tokens that it lacks. */
  model: { type: instanceOf(DecoderLM), required: true },
  tokenizer: { type: instanceOf(UsdmTokenizer), required: true },
  /** Folder for checkpoints, logs, the trained model (`model/`) and `results.json`. */
  outputDir: { type: 'string', required: true },
  /** Changes to the original's recipe: `USDM_RECIPE`, or `USTM_RECIPE` of pre-training. */
  recipe: { type: unchecked<Partial<UsdmRecipe>>() },
  /**
   * Trains LoRA adapters of rank 8 on q and v, and the whole embedding and output layers, since the rows of new tokens are random. Pass
   * a partial LoraConfig to change this; `modulesToSave: []` keeps the layers frozen, as the original does. Default false: all weights
   * train.
   */
  lora: {
    type: checkedBy<boolean | Partial<LoraConfig>>((where, name, value) => {
      if (typeof value === 'boolean' || (typeof value === 'object' && value !== null)) return
      throw argumentError(where, name, 'a boolean, or changes to the LoraConfig', value)
    }),
    default: false,
  },
  /** Maximum text length (`model_max_length`) of the saved tokenizer. Default: unchanged. */
  maxLength: { type: 'integer', min: 1 },
  ...TRAINER_OPTIONS,
})

/** Options of pre-training and fine-tuning. @interface */
export type UsdmTrainingOptions = ChangesOf<typeof TRAINING_SETTINGS.table>

export interface UsdmMeasured {
  /** Mean loss over the target tokens, and its exponential. */
  loss: number | null
  perplexity: number | null
}

/** Results of a training, as in `results.json`. */
export interface UsdmResults extends RecipeResults<UsdmMeasured> {
  /** Rows of the embeddings, and how many of them were added with random values. */
  vocabSize: number
  newRows: number
  /** Whether `model/` contains adapters instead of a whole model. */
  adapters: boolean
}

/** Settings that differ between pre-training and fine-tuning. */
export interface UsdmTraining<T> {
  where: string
  /** The rest of the options, checked. */
  options: ValuesOf<typeof TRAINING_SETTINGS.table>
  recipe: UsdmRecipe
  loraAlpha: number
  train: TrainerData<T, UsdmBatch> & { readonly length?: number }
  examples: number
  valid: Sized<T> | undefined
  test: Sized<T> | undefined
  collate: (samples: T[]) => UsdmBatch
  /** Give all batches of a step equal weight, whatever their number of target tokens, as in the original. */
  meanOfMeans: boolean
}

type Sized<T> = { readonly length: number; get(index: number, epoch: number): T | Promise<T> }

/** @throws ConfigError if `compat` is 'published' and the model's sliding window is not the published one */
export function requireCompat(where: string, compat: 'published' | undefined, { config }: DecoderLM): void {
  if (compat === undefined) return
  if (!hasWindow(config) || config.windowInclusive === true) return
  throw new ConfigError(
    `${where}: compat 'published': expected a model with a sliding window of ${config.slidingWindow} + 1 tokens, got ${config.slidingWindow}. Load it with config: { windowInclusive: true }.`,
    { argument: 'compat', slidingWindow: config.slidingWindow },
  )
}

/** Train, save the model with its tokenizer in `model/`, evaluate, and write `results.json`. */
export async function runUsdmTraining<T>(training: UsdmTraining<T>): Promise<UsdmResults> {
  const { where, options, recipe, train, examples, valid, test, collate, meanOfMeans } = training
  const { model, tokenizer, outputDir, maxLength, args, callbacks, loggers } = options
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
    // 1 for a batch with target tokens, else 0: the mean over none is NaN.
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
      const known = finiteOrNull(loss)
      return { loss: known, perplexity: known === null ? null : Math.exp(known) }
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

/** Attach adapters with the same initial weights in all processes, and in a resumed run. */
function attachAdapters<T>(where: string, { options, recipe, loraAlpha }: UsdmTraining<T>): void {
  const { model, lora } = options
  if (lora === false) return
  if (peftModelOf(model)) {
    throw new ConfigError(`${where}: expected a model without adapters, got one that has them. Leave out lora.`, {
      argument: 'lora',
    })
  }
  const changes = lora === true ? {} : lora
  const config: LoraConfig = {
    ...{
      r: 8,
      loraAlpha,
      loraDropout: 0.1,
      targetModules: ['q_proj', 'v_proj'],
      modulesToSave: ['embed_tokens', 'lm_head'],
    },
    taskType: 'CAUSAL_LM',
    ...changes,
  }
  if (config.modulesToSave?.length === 0) config.modulesToSave = null
  const device = model.parameters()[0]?.device ?? 'cpu'
  withSeed(recipe.seed, () => getPeftModel(model, config), device)
}

const trainingArguments = (recipe: UsdmRecipe, outputDir: string, evaluates: boolean): TrainingArguments => ({
  ...USDM_SETTINGS.trainingArguments(recipe),
  outputDir,
  decayAll: true,
  evalStrategy: evaluates ? 'steps' : 'no',
  saveStrategy: 'steps',
  progress: true,
})

/** Write a folder for `DecoderLM.fromPretrained` (or `PeftModel.fromPretrained`) and `UsdmTokenizer.fromPretrained`. */
async function saveTrained(folder: string, model: DecoderLM, tokenizer: UsdmTokenizer): Promise<void> {
  const peft = peftModelOf(model)
  await writeFolder(folder, async (temporary) => {
    if (peft) await peft.savePretrained(temporary)
    else {
      // As published: in the loaded model, the padding row gets no gradient.
      model.config.padTokenId ??= tokenizer.ids.pad
      await model.save(temporary)
    }
    tokenizer.saveTo(temporary)
  })
}
