import { join } from 'node:path'
import { argumentError, requireOneOf } from '../../../base/check.js'
import { ConfigError } from '../../../base/errors.js'
import { type ChangesOf, instanceOf, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import { getWorldSize, isMainProcess } from '../../../distributed/index.js'
import { saveSafetensors } from '../../../files/safetensors/safetensors.js'
import { bestEpochBy, finiteOrNull, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import { Module } from '../../../nn/index.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import { writeFolder } from '../../../train/trainer/folders.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import { type SalmonnBatch, salmonnCollate } from '../data/collate.js'
import { SalmonnDataset, type SalmonnSample } from '../data/dataset.js'
import { sharedDialogs } from '../data/split.js'
import { type ScoreSalmonnOptions, scoreSalmonn } from '../evaluation/evaluate.js'
import type { TrajectoryScores } from '../evaluation/metrics.js'
import type { SalmonnPart } from '../network/adapter.js'
import { trainedNames } from '../published/adapter-file.js'
import { salmonnLoss, salmonnTokenAccuracy } from './loss.js'
import { type FiniteAdamW, salmonnOptimizer } from './optimizer.js'
import { keepFrozenInEval, SALMONN_STAGES, type SalmonnStage, trainSalmonnParts } from './parts.js'
import { SALMONN_SETTINGS, type SalmonnRecipe, type SalmonnRecipeChanges, salmonnRecipe } from './recipe.js'
import { salmonnScheduler } from './schedule.js'

const TRAIN_SETTINGS = settings({
  train: { type: instanceOf(SalmonnDataset), required: true },
  /** Data that selects the best step. It must have no dialog in common with `train`. */
  valid: { type: instanceOf(SalmonnDataset), required: true },
  /** Data for one evaluation of the best weights. */
  test: { type: instanceOf(SalmonnDataset) },
  /** Folder for checkpoints, logs, the best weights (`best/`) and `results.json`. */
  outputDir: { type: 'string', required: true },
  /** Changes to the published recipe. */
  recipe: { type: unchecked<SalmonnRecipeChanges>() },
  /** Trained parts: a stage, or parts by name. Default: trainable parameters of the model. */
  stage: { type: unchecked<SalmonnStage | readonly SalmonnPart[]>() },
  /**
   * 'published': restart warm-up in each epoch, sum the gradients of accumulated batches, drop an incomplete batch, and allow validation and
   * test data to share dialogs with training, as the published configuration does.
   */
  compat: { type: ['published'] },
  /** Options of scored answers to validation and test data at the end. Default: no answers. */
  score: { type: unchecked<ScoreSalmonnOptions>() },
  ...TRAINER_OPTIONS,
  /** Ignored; the result of `openSalmonnData` is valid as it is. */
  notes: { type: unchecked<string[]>() },
  badItems: { type: 'integer' },
  badItemErrors: { type: unchecked<unknown[]>() },
})
type TrainSettings = ValuesOf<typeof TRAIN_SETTINGS.table>

/** @interface */
export type TrainSalmonnOptions = ChangesOf<typeof TRAIN_SETTINGS.table>

/** Results of a training, as in `results.json`. */
export interface SalmonnResults extends RecipeResults<SalmonnMeasured> {
  /** Number of steps that were skipped because loss or gradients were not finite. */
  skippedSteps: number
  /** Metrics of the best weights: `loss`, token `accuracy`, and scores of their answers. */
  valid: SalmonnMeasured
  test: SalmonnMeasured | null
  /** Entries that lost audio, and the seconds lost. */
  cut: { count: number; seconds: number }
}

export interface SalmonnMeasured {
  loss: number | null
  accuracy: number | null
  answers?: TrajectoryScores
}

const WEIGHTS = 'adapter.safetensors'

/**
 * Train SALMONN, or any module whose `forward` takes a {@link SalmonnBatch} and returns its loss. It evaluates after each epoch, restores the
 * best weights by token accuracy, saves the trained parts in `best/adapter.safetensors`, and measures. The same call on the same folder
 * continues a killed run. Checkpoints contain only the trained parts. Progress is shown on standard error, unless `args.progress` is false.
 *
 * @throws as the Trainer; ConfigError if validation and training have common dialogs
 */
export async function trainSalmonn<M extends Module>(model: M, options: TrainSalmonnOptions): Promise<SalmonnResults> {
  const { trainer, optimizer, dispose } = salmonnTrainer(model, options)
  const { outputDir, train, valid, test, score } = options
  const measure = async (data: SalmonnDataset): Promise<SalmonnMeasured> => {
    const { evalLoss, evalAccuracy } = await trainer.evaluate(data)
    const answers = score ? (await scoreSalmonn(model, data, score)).scores : undefined
    return { loss: finiteOrNull(evalLoss), accuracy: finiteOrNull(evalAccuracy), ...(answers && { answers }) }
  }
  return runRecipe<SalmonnMeasured, SalmonnResults, SalmonnDataset>({
    ...{ trainer, outputDir, data: { train, valid, ...(test && { test }) }, measure, dispose },
    async save(folder) {
      if (isMainProcess()) await saveTrained(folder, model)
    },
    more: () => ({ skippedSteps: optimizer.skipped, cut: total([train, valid, ...(test ? [test] : [])]) }),
  })
}

/** Create the Trainer of `trainSalmonn`; `dispose` frees its optimizer's state. */
export function salmonnTrainer<M extends Module>(
  model: M,
  options: TrainSalmonnOptions,
): { trainer: Trainer<M, SalmonnSample, SalmonnBatch>; optimizer: FiniteAdamW; dispose(): void } {
  const where = 'trainSalmonn'
  if (!(model instanceof Module)) throw argumentError(where, 'model', 'a Module', model)
  const read = TRAIN_SETTINGS.read(where, options)
  const { train, valid, test, outputDir, stage, compat, args, callbacks, loggers } = read
  if (compat === undefined) refuseShared(train, valid, 'validation')
  if (compat === undefined && test) refuseShared(train, test, 'test')
  const recipe = salmonnRecipe(options.recipe)
  if (typeof stage === 'number') requireOneOf(where, 'stage', String(stage), Object.keys(SALMONN_STAGES))
  if (stage !== undefined) trainSalmonnParts(model, typeof stage === 'number' ? SALMONN_STAGES[stage] : stage)
  const optimizer = salmonnOptimizer(model, recipe)
  const plan = trainingPlan(read, recipe)
  const scheduler = salmonnScheduler(optimizer, plan.schedule)
  const trainer = new Trainer<M, SalmonnSample, SalmonnBatch>({
    model,
    trainDataset: train,
    evalDataset: valid,
    collate: salmonnCollate,
    computeLoss: (network, batch) =>
      salmonnLoss(network, batch, { gradientFactor: compat === 'published' ? plan.accumulation : 1 }),
    countItems: ({ prompts }) => prompts.length,
    computeMetrics: salmonnTokenAccuracy,
    optimizers: { optimizer, scheduler },
    extraState: { salmonn: skippedState(optimizer) },
    callbacks: [
      { onEpochBegin: ({ model }) => keepFrozenInEval(model), onStepBegin: ({ model }) => keepFrozenInEval(model) },
      ...callbacks,
    ],
    loggers,
    args: {
      ...SALMONN_SETTINGS.trainingArguments(recipe),
      outputDir,
      // FiniteAdamW skips a step with NaN, as the original does, and counts it.
      onNonFinite: 'warn',
      fp16: recipe.amp && model.parameters()[0]?.device.startsWith('cuda') === true,
      ...bestEpochBy('accuracy'),
      saveOnlyTrained: true,
      dataloaderDropLast: compat === 'published',
      progress: true,
      ...plan.args,
      ...args,
    },
  })
  const dispose = () => {
    trainer.dispose()
    optimizer.dispose()
  }
  return { trainer, optimizer, dispose }
}

/** Return the length of the training, and the steps of its evaluations. */
function trainingPlan({ train, compat, args }: TrainSettings, recipe: SalmonnRecipe) {
  const { epochs, iterationsPerEpoch } = recipe
  const accumulation = args.gradientAccumulationSteps ?? recipe.accumulation
  const batch = (args.perDeviceTrainBatchSize ?? recipe.batchSize) * getWorldSize()
  const batches = train.length / batch
  const own = Math.max(1, compat === 'published' ? Math.floor(batches) : Math.ceil(batches))
  const inEpoch = iterationsPerEpoch ?? own
  const interval = Math.max(1, Math.round(inEpoch / accumulation))
  const warmupSteps = recipe.warmupSteps ?? Math.min(3000, Math.ceil((epochs * inEpoch) / 10))
  return {
    accumulation,
    args: (iterationsPerEpoch === null
      ? { numTrainEpochs: epochs }
      : {
          maxSteps: Math.max(1, Math.ceil((epochs * inEpoch) / accumulation)),
          evalStrategy: 'steps',
          evalSteps: interval,
          saveStrategy: 'steps',
          saveSteps: interval,
        }) satisfies Partial<TrainingArguments>,
    schedule: {
      ...recipe,
      learningRate: args.learningRate ?? recipe.learningRate,
      warmupSteps,
      iterationsPerEpoch: inEpoch,
      accumulation,
      compat,
    },
  }
}

function refuseShared(train: SalmonnDataset, other: SalmonnDataset, what: string): void {
  const shared = sharedDialogs(train.entries, other.entries)
  if (shared.length === 0) return
  throw new ConfigError(
    `trainSalmonn: expected ${what} data without dialogs of the training data, got ${shared.length} of them (${shared.slice(0, 3).join(', ')}). Split the data with splitSalmonn.`,
    { dialogs: shared },
  )
}

/** Save the trainable parameters of a model, under its names. */
async function saveTrained(folder: string, model: Module): Promise<void> {
  const parameters = model.namedParameters()
  const names = new Set(trainedNames(new Map(parameters.map(([name, { requiresGrad }]) => [name, requiresGrad]))))
  const tensors = Object.fromEntries(parameters.filter(([name]) => names.has(name)))
  await writeFolder(folder, (temporary) => saveSafetensors(join(temporary, WEIGHTS), tensors, { format: 'pt' }))
}

const skippedState = (optimizer: FiniteAdamW) => ({
  stateDict: () => ({ skipped: optimizer.skipped }),
  loadStateDict: ({ skipped }: { skipped: number }) => {
    optimizer.skipped = skipped
  },
})

function total(datasets: readonly SalmonnDataset[]): { count: number; seconds: number } {
  const sum = (pick: (data: SalmonnDataset) => number) => datasets.reduce((all, data) => all + pick(data), 0)
  return { count: sum(({ cuts }) => cuts.count), seconds: sum(({ cuts }) => cuts.seconds) }
}
