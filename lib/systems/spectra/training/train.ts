import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import {
  argumentError,
  defined,
  requireObject,
  requireOneOf,
  requireOptions,
  requireString,
} from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { getWorldSize, isMainProcess } from '../../../distributed/index.js'
import { bestEpochBy, plainMetrics, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import { taskLoss } from '../../../kit/task.js'
import { Module } from '../../../nn/index.js'
import { peftModelOf } from '../../../peft/model.js'
import { scope, Tensor } from '../../../tensor/index.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'
import type { TrainerCallback } from '../../../train/trainer/callbacks.js'
import type { Logger } from '../../../train/trainer/logger.js'
import type { LossOutput } from '../../../train/trainer/loss.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import { SpectraClassifier } from '../answer/classifier.js'
import {
  type SpectraBatch,
  type SpectraCollateOptions,
  type SpectraCollator,
  type SpectraCuts,
  spectraCollate,
} from '../data/collate.js'
import type { SpectraData } from '../data/open.js'
import type { SpectraSample } from '../data/sample.js'
import { spectraMetricsOf } from '../evaluation/metrics.js'
import { type SpectraTask, spectraPreset } from '../evaluation/task.js'
import { SpectraForSequenceClassification } from '../network/network.js'
import { SpectraEarlyStopping } from './early-stopping.js'
import { type SpectraOptimizerMode, spectraOptimizer, spectraSchedule, spectraSteps } from './optimizer.js'
import type { SpectraPreset } from './recipe.js'

export interface FinetuneSpectraOptions<M extends Module> {
  /**
   * `SpectraForSequenceClassification`, or any module whose `forward` takes a {@link SpectraBatch} without labels and returns
   * `{ logits }`, [samples, task.numLabels].
   */
  model: M
  data: SpectraData
  /** Folder for checkpoints, logs, the best model (`best/`) and `results.json`. */
  outputDir: string
  /** Changes to the task's hyperparameters. */
  preset?: Partial<SpectraPreset>
  /** 'published' pads clips to 10 s and uses the original's optimizer, schedule and early stopping. */
  compat?: 'published'
  /** Default: depends on `compat`. */
  optimizer?: SpectraOptimizerMode
  /**
   * Early stopping: after `patience` epochs without a better key metric ('metric', the default), as the original does ('published'), or
   * never ('none').
   */
  earlyStopping?: 'metric' | 'published' | 'none'
  /** Maximum lengths in samples and tokens. Default: the network's, else 160000 and 512. */
  maxAudioLength?: number
  maxTextLength?: number
  /** Trainer arguments, which override the above. */
  args?: Partial<TrainingArguments>
  callbacks?: readonly TrainerCallback[]
  loggers?: readonly Logger[]
}

/** Results of a fine-tuning, as in `results.json`. */
export interface SpectraResults extends RecipeResults<Record<string, number>> {
  task: string
  keyMetric: string
  /** Validation `loss` and metrics of the best weights. */
  valid: Record<string, number>
  /** Test metrics; null without test data. */
  test: Record<string, number> | null
  /** Number of truncated clips and texts, over all data that was read. */
  cut: SpectraCuts
  notes: string[]
}

/**
 * Fine-tune SPECTRA: train, evaluate on the validation data after each epoch, restore the best weights, save them in `best/`, and then
 * evaluate them once on the test data. The same call on the same folder resumes an interrupted run; after the end it returns the saved
 * results.
 *
 * @throws the errors of the Trainer; DataError for samples that cannot be used
 */
export async function finetuneSpectra<M extends Module>(options: FinetuneSpectraOptions<M>): Promise<SpectraResults> {
  const { trainer, collate, dispose } = spectraTrainer(options)
  const { data, outputDir } = options
  return runRecipe<Record<string, number>, SpectraResults, SpectraSample[]>({
    ...{ trainer, outputDir, data, dispose },
    async save(folder) {
      if (!isMainProcess()) return
      await writeFolderAtomically(folder, CheckpointError, async (temporary) => {
        await trainer.saveModel(temporary)
        await classifierOf(options)?.saveCard(temporary)
      })
    },
    measure: async (samples) => plainMetrics(await trainer.evaluate(samples)),
    more: () => {
      const { name, keyMetric } = data.task
      return { task: name, keyMetric, cut: { ...collate.cuts }, notes: data.notes }
    },
    fromJson: (metrics) =>
      Object.fromEntries(Object.entries(metrics).map(([name, value]) => [name, value ?? Number.NaN])),
  })
}

/** Return the classifier of the trained network; undefined for other modules, or data without a tokenizer. */
function classifierOf<M extends Module>(options: FinetuneSpectraOptions<M>): SpectraClassifier | undefined {
  const { model, data } = options
  if (!(model instanceof SpectraForSequenceClassification) || peftModelOf(model) || !data.tokenizer) return undefined
  const { historyAudio, turnIds, maxAudioLength, maxTextLength } = collateOptions(options, presetFor(options))
  const sample = data.train[0] as SpectraSample
  return new SpectraClassifier(model, {
    ...{ tokenizer: data.tokenizer, task: data.task, ...data.text },
    history: sample.turnIds !== undefined,
    historyAudio: historyAudio === true && sample.historyAudio !== undefined,
    turnIds: turnIds === true && sample.turnIds !== undefined,
    ...defined({ maxAudioLength, maxTextLength }),
  })
}

const presetFor = <M extends Module>({ data, preset }: FinetuneSpectraOptions<M>): SpectraPreset => ({
  ...spectraPreset(data.task),
  ...defined(preset ?? {}),
})

/** Return the Trainer of `finetuneSpectra`, for custom loops; `dispose` frees the optimizer's state. */
export function spectraTrainer<M extends Module>(
  options: FinetuneSpectraOptions<M>,
): { trainer: Trainer<M, SpectraSample, SpectraBatch>; collate: SpectraCollator; dispose(): void } {
  const where = 'finetuneSpectra'
  requireOptions(where, options, [
    'model',
    'data',
    'outputDir',
    'preset',
    'compat',
    'optimizer',
    'earlyStopping',
    'maxAudioLength',
    'maxTextLength',
    'args',
    'callbacks',
    'loggers',
  ])
  const { model, data, outputDir, compat, args = {}, callbacks = [], loggers = [] } = options
  if (!(model instanceof Module)) throw argumentError(where, 'model', 'a Module', model)
  requireObject(where, 'data', data)
  requireString(where, 'outputDir', outputDir)
  if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
  const { task } = data
  const preset = presetFor(options)
  const mode = options.optimizer ?? (compat === 'published' ? 'published' : 'sane')
  const stopping = options.earlyStopping ?? (compat === 'published' ? 'published' : 'metric')
  requireOneOf(where, 'optimizer', mode, ['sane', 'published'])
  requireOneOf(where, 'earlyStopping', stopping, ['metric', 'published', 'none'])
  const collate = spectraCollate(task, collateOptions(options, preset))
  const criteria = stopping === 'published' ? new SpectraEarlyStopping(task, preset.patience) : undefined
  // With zero, the Trainer creates and shards its own optimizer.
  const optimizer = args.zero ? undefined : optimizerOf(model, preset, mode, args)
  const trainer = new Trainer<M, SpectraSample, SpectraBatch>({
    model,
    trainDataset: data.train,
    evalDataset: data.valid,
    collate,
    computeLoss: (model, batch) => spectraLoss(model, batch, task),
    computeMetrics: spectraMetricsOf(task),
    ...(optimizer && { optimizers: { optimizer } }),
    callbacks: [...(criteria ? [criteria.callback] : []), ...callbacks],
    ...(criteria && { extraState: { earlyStopping: criteria } }),
    loggers,
    lengthOf: ({ inputIds }) => inputIds.length,
    args: trainingArguments(options, preset, mode, stopping),
  })
  const dispose = () => {
    trainer.dispose()
    optimizer?.dispose()
  }
  return { trainer, collate, dispose }
}

function optimizerOf(
  model: Module,
  preset: SpectraPreset,
  mode: SpectraOptimizerMode,
  args: Partial<TrainingArguments>,
) {
  const { learningRate, weightDecay } = preset
  // The original's optimizer omits the bias correction only in mixed precision.
  const correction = mode === 'sane' || !args.fp16
  return spectraOptimizer(model, {
    learningRate: args.learningRate ?? learningRate,
    weightDecay: args.weightDecay ?? weightDecay,
    mode,
    correction,
  })
}

function collateOptions<M extends Module>(
  { compat, data, model, ...options }: FinetuneSpectraOptions<M>,
  { historyAudio, turnIds }: SpectraPreset,
): SpectraCollateOptions {
  const { maxAudioLength, maxTextLength } =
    model instanceof SpectraForSequenceClassification ? { ...model.config, ...defined(options) } : options
  const ownHistory = data.task.name !== 'iemocap'
  return {
    // If the task's defaults have no history and the data has, the data decides.
    historyAudio: historyAudio || ownHistory,
    turnIds: turnIds || ownHistory,
    // Readers return a turn without speech only if its record says so.
    emptyAudio: 'allow',
    ...(compat && { compat }),
    ...defined({ maxAudioLength, maxTextLength }),
  }
}

function trainingArguments<M extends Module>(
  { data, outputDir, args = {} }: FinetuneSpectraOptions<M>,
  preset: SpectraPreset,
  mode: SpectraOptimizerMode,
  stopping: 'metric' | 'published' | 'none',
): TrainingArguments {
  const { epochs, batchSize, accumulation, warmup } = preset
  const steps = spectraSteps(data.train.length, { epochs, batchSize, accumulation, worldSize: getWorldSize() })
  return {
    outputDir,
    numTrainEpochs: epochs,
    perDeviceTrainBatchSize: batchSize,
    perDeviceEvalBatchSize: batchSize,
    gradientAccumulationSteps: accumulation,
    learningRate: preset.learningRate,
    weightDecay: preset.weightDecay,
    maxGradNorm: preset.maxGradNorm,
    seed: preset.seed,
    ...spectraSchedule(steps, warmup, mode),
    loggingSteps: 10,
    ...bestEpochBy(data.task.keyMetric),
    ...(stopping === 'metric' && { earlyStoppingPatience: preset.patience }),
    ...args,
  }
}

/** Return L1 loss for a regression, cross-entropy for a classification, and the logits of a batch. */
export async function spectraLoss<M extends Module>(
  model: M,
  batch: SpectraBatch,
  task: Pick<SpectraTask, 'kind' | 'numLabels'>,
): Promise<LossOutput> {
  requireForm('spectraLoss', 'model', model, { forward: 'function' })
  requireForm('spectraLoss', 'batch', batch, { labels: Tensor })
  requireForm('spectraLoss', 'task', task, { kind: 'string', numLabels: 'number' })
  const { labels, ...inputs } = batch
  const forward = model.forward as unknown as (inputs: Omit<SpectraBatch, 'labels'>) => unknown
  const output = (await forward.call(model, inputs)) as { logits?: unknown } | null
  const logits = output?.logits
  if (!(logits instanceof Tensor) || logits.numel() !== labels.numel() * task.numLabels) {
    const found = logits instanceof Tensor ? `logits of shape [${logits.shape}]` : 'no logits'
    throw new ConfigError(
      `spectraLoss: expected logits [${labels.numel()}, ${task.numLabels}] from ${model.constructor.name}.forward(), got ${found}. Create it with numLabels ${task.numLabels}.`,
      { argument: 'model' },
    )
  }
  return scope(() => ({ loss: taskLoss(task, logits, labels), logits }))
}
