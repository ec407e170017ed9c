import { DataError } from '../../../base/errors.js'
import { isMainProcess } from '../../../distributed/index.js'
import { bestEpochBy, plainMetrics, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import type { Part } from '../../../kit/split.js'
import type { Module } from '../../../nn/index.js'
import { getPeftModel, type LoraConfig, type PeftModel } from '../../../peft/index.js'
import type { Tensor } from '../../../tensor/index.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { Trainer, type TrainerOptions } from '../../../train/trainer/trainer.js'
import { emotionOptimizer } from './optimizer.js'
import { HEAD_SETTINGS, type HeadRecipe } from './recipe.js'

/** LoRA configuration of the encoders' adapters. Defaults are PEFT's, except r 16 and loraAlpha 16. */
export interface EmotionLora extends Partial<Omit<LoraConfig, 'modulesToSave'>> {
  /** Names of the adapted layers, or a pattern. Default: the attention projections (query, key, value, output) of each encoder. */
  targetModules?: string[] | string
}

type Metrics = Record<string, number>

/** Parts of a training that depend on the head: see `trainHead`. */
export interface HeadTraining<M extends Module, S, B, R extends RecipeResults<Metrics>>
  extends Pick<
    TrainerOptions<M, S, B>,
    'collate' | 'collateAhead' | 'computeLoss' | 'computeMetrics' | 'countItems' | 'lengthOf'
  > {
  model: M
  recipe: HeadRecipe
  options: Pick<TrainerOptions<M, S, B>, 'callbacks' | 'loggers'> & {
    outputDir: string
    tune?: 'head' | 'full' | EmotionLora | undefined
    compat?: 'published' | undefined
    args?: Partial<TrainingArguments>
  }
  data: Record<Part, S[]>
  /** Validation samples that select the best epoch. Default: `data.valid`. */
  evalDataset?: S[]
  /** Fit what follows the training, such as thresholds, with the best weights. Called on every process. */
  calibrate?(): Promise<void>
  /** Write the model to a folder. Called on the main process. */
  save(folder: string): Promise<void>
  /** Compute the metrics of a part. `evaluate` computes those of the Trainer, which are the default. */
  measure?(part: S[], evaluate: () => Promise<Metrics>): Promise<Metrics>
  /** Return the further fields of the results. */
  more(counts: { trainable: number; parameters: number }): Omit<R, keyof RecipeResults<Metrics>>
  dispose?(): void
}

/**
 * Train a head, alone or with its encoders: optimizer, LoRA adapters, Trainer, evaluation of each epoch, best weights in `best/`,
 * and `results.json`. The model ends in evaluation mode, with its adapters merged.
 */
export async function trainHead<M extends Module, S, B, R extends RecipeResults<Metrics>>(
  training: HeadTraining<M, S, B, R>,
): Promise<R> {
  const {
    model,
    recipe,
    options,
    data,
    evalDataset = data.valid,
    calibrate,
    save,
    measure,
    more,
    dispose,
    ...rest
  } = training
  const { outputDir, tune, compat, args = {}, callbacks = [], loggers = [] } = options
  const peft = typeof tune === 'object' ? withAdapters(model, tune, compat) : undefined
  let isMerged = false
  const finish = () => {
    if (!isMerged) peft?.mergeAndUnload()
    isMerged = true
    model.eval()
  }
  // With `zero`, the Trainer creates the optimizer.
  const optimizer = args.zero ? undefined : emotionOptimizer(model, recipe)
  const trainer = new Trainer<M, S, B>({
    ...rest,
    ...{ model: peft ?? model, trainDataset: data.train, evalDataset, callbacks, loggers },
    ...(optimizer && { optimizers: { optimizer } }),
    args: { ...headArguments(recipe, data.valid.length > 0), outputDir, ...args },
  })
  const parameters = model.parameters()
  const count = (some: readonly Tensor[]) => some.reduce((sum, one) => sum + one.numel(), 0)
  const counts = { trainable: count(parameters.filter((one) => one.requiresGrad)), parameters: count(parameters) }
  const evaluate = async (part: S[]) => plainMetrics(await trainer.evaluate(part))
  const results = await runRecipe<Metrics, R, S[]>({
    ...{ trainer, outputDir, data },
    async save(folder) {
      finish()
      await calibrate?.()
      if (isMainProcess()) await save(folder)
    },
    measure: (part) => (measure ? measure(part, () => evaluate(part)) : evaluate(part)),
    more: () => more(counts),
    dispose: () => {
      trainer.dispose()
      optimizer?.dispose()
      dispose?.()
    },
  })
  finish()
  return results
}

const headArguments = (recipe: HeadRecipe, evaluates: boolean): Omit<TrainingArguments, 'outputDir'> => ({
  ...HEAD_SETTINGS.trainingArguments(recipe),
  perDeviceEvalBatchSize: recipe.batchSize,
  lrSchedulerType: 'linear',
  loggingSteps: 10,
  ...(evaluates ? bestEpochBy(recipe.keyMetric) : { saveStrategy: 'epoch', saveTotalLimit: 1 }),
  ...(evaluates && recipe.patience > 0 && { earlyStoppingPatience: recipe.patience }),
})

/** @throws DataError if no dialog of a part gave a sample */
export function requireSamples(
  where: string,
  samples: readonly unknown[],
  expected: string,
  dialogs: readonly unknown[],
  action = 'Use data with causes.',
): void {
  if (samples.length > 0) return
  throw new DataError(`${where}: expected ${expected}, got none in ${dialogs.length} dialogs. ${action}`, {})
}

/** Attention projections, as BERT, RoBERTa, WavLM, Whisper and CLIP name them. */
const ATTENTION = ['query', 'key', 'value', 'q_proj', 'k_proj', 'v_proj', 'out_proj']

/** Add LoRA adapters to the `encoders` of a network with a `head`. With 'published' the head is frozen and all biases train. */
export function withAdapters<M extends Module>(
  model: M,
  lora: EmotionLora,
  compat: 'published' | undefined,
): PeftModel<M> {
  const { targetModules, ...rest } = lora
  // The pattern covers the whole path, so that no projection of the head matches.
  const endings = Array.isArray(targetModules) ? targetModules : targetModules === undefined ? ATTENTION : undefined
  const pattern =
    endings === undefined
      ? (targetModules as string)
      : `encoders\\..*\\.(${endings.map((name) => name.replace(/[^\w.]/g, '')).join('|')})`
  const published = { r: 16, loraAlpha: 16, loraDropout: 0.1, bias: 'all' as const }
  return getPeftModel(model, {
    ...(compat === 'published' ? published : { r: 16, loraAlpha: 16, modulesToSave: ['head'] }),
    ...rest,
    targetModules: pattern,
  })
}
