import { writeFolderAtomically } from '../../../base/atomic-folder.js'
import { defined } from '../../../base/check.js'
import { CheckpointError, ConfigError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, instanceOf, objectOf, settings } from '../../../base/settings.js'
import { getWorldSize, isMainProcess } from '../../../distributed/index.js'
import { bestEpochBy, plainMetrics, type RecipeResults, runRecipe } from '../../../kit/recipe.js'
import { taskLoss } from '../../../kit/task.js'
import { TRAINER_OPTIONS } from '../../../kit/training-settings.js'
import { Module } from '../../../nn/index.js'
import { peftModelOf } from '../../../peft/model.js'
import { scope, Tensor } from '../../../tensor/index.js'
import type { LossOutput } from '../../../train/trainer/loss.js'
import { Trainer } from '../../../train/trainer/trainer.js'
import { SpectraClassifier } from '../answer/classifier.js'
import { type SpectraBatch, type SpectraCollator, type SpectraCuts, spectraCollate } from '../data/collate.js'
import type { SpectraData } from '../data/open.js'
import type { SpectraSample } from '../data/sample.js'
import { spectraMetricsOf } from '../evaluation/metrics.js'
import { type SpectraTask, spectraPreset } from '../evaluation/task.js'
import { SpectraForSequenceClassification } from '../network/network.js'
import { SpectraEarlyStopping } from './early-stopping.js'
import { spectraOptimizer, spectraSchedule, spectraSteps } from './optimizer.js'
import { SPECTRA_LENGTHS, SPECTRA_SETTINGS, type SpectraPreset } from './recipe.js'

const FINETUNE_SETTINGS = settings({
  /**
   * `SpectraForSequenceClassification`, or any module whose `forward` takes a {@link SpectraBatch} without labels and returns
   * `{ logits }`, [samples, task.numLabels].
   */
  model: { type: instanceOf(Module), required: true },
  data: { type: objectOf<SpectraData>(), required: true },
  /** Folder for checkpoints, logs, the best model (`best/`) and `results.json`. */
  outputDir: { type: 'string', required: true },
  /** Changes to the task's hyperparameters. */
  preset: { type: objectOf<Partial<SpectraPreset>>() },
  /** 'published' pads clips to 10 s and uses the original's optimizer, schedule and early stopping. */
  compat: { type: ['published'] },
  /** Default: depends on `compat`. */
  optimizer: { type: ['sane', 'published'] },
  /**
   * Early stopping: after `patience` epochs without a better key metric ('metric', the default), as the original does ('published'), or
   * never ('none').
   */
  earlyStopping: { type: ['metric', 'published', 'none'] },
  ...SPECTRA_LENGTHS.table,
  ...TRAINER_OPTIONS,
})

/** @interface */
export type FinetuneSpectraOptions<M extends Module> = ChangesOf<typeof FINETUNE_SETTINGS.table> & { model: M }

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
  const { model, data, collating } = settled(options)
  if (!(model instanceof SpectraForSequenceClassification) || peftModelOf(model) || !data.tokenizer) return undefined
  const { historyAudio, turnIds } = collating
  const sample = data.train[0] as SpectraSample
  return new SpectraClassifier(model, {
    ...{ tokenizer: data.tokenizer, task: data.task, ...data.text },
    history: sample.turnIds !== undefined,
    historyAudio: historyAudio && sample.historyAudio !== undefined,
    turnIds: turnIds && sample.turnIds !== undefined,
    ...SPECTRA_LENGTHS.changesIn(collating),
  })
}

/** Return the checked options, with the hyperparameters of the task and the options of the collator. */
function settled<M extends Module>(options: FinetuneSpectraOptions<M>) {
  const read = FINETUNE_SETTINGS.read('finetuneSpectra', options)
  const { compat, data, model } = read
  const preset = SPECTRA_SETTINGS.read('finetuneSpectra', read.preset, spectraPreset(data.task))
  // If the task's defaults have no history and the data has, the data decides.
  const ownHistory = data.task.name !== 'iemocap'
  const collating = {
    historyAudio: preset.historyAudio || ownHistory,
    turnIds: preset.turnIds || ownHistory,
    // Readers return a turn without speech only if its record says so.
    emptyAudio: 'allow' as const,
    compat,
    ...(model instanceof SpectraForSequenceClassification && SPECTRA_LENGTHS.changesIn({ ...model.config })),
    ...SPECTRA_LENGTHS.changesIn(read),
  }
  return { ...read, preset, collating }
}

/** Return the Trainer of `finetuneSpectra`, for custom loops; `dispose` frees the optimizer's state. */
export function spectraTrainer<M extends Module>(
  options: FinetuneSpectraOptions<M>,
): { trainer: Trainer<M, SpectraSample, SpectraBatch>; collate: SpectraCollator; dispose(): void } {
  const { data, preset, collating, ...rest } = settled(options)
  const { compat, outputDir, args, callbacks, loggers } = rest
  const { model } = options
  const { task } = data
  const { optimizer: mode = compat ?? 'sane', earlyStopping: stopping = compat ?? 'metric' } = rest
  const collate = spectraCollate(task, collating)
  const criteria = stopping === 'published' ? new SpectraEarlyStopping(task, preset.patience) : undefined
  const { learningRate, weightDecay } = { ...preset, ...defined(args) }
  // The original's optimizer omits the bias correction only in mixed precision.
  const correction = mode === 'sane' || !args.fp16
  // With zero, the Trainer creates and shards its own optimizer.
  const optimizer = args.zero ? undefined : spectraOptimizer(model, { learningRate, weightDecay, mode, correction })
  const { epochs, batchSize, accumulation, warmup, patience } = preset
  const steps = spectraSteps(data.train.length, { epochs, batchSize, accumulation, worldSize: getWorldSize() })
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
    args: {
      ...SPECTRA_SETTINGS.trainingArguments(preset),
      outputDir,
      perDeviceEvalBatchSize: batchSize,
      ...spectraSchedule(steps, warmup, mode),
      loggingSteps: 10,
      ...bestEpochBy(task.keyMetric),
      ...(stopping === 'metric' && { earlyStoppingPatience: patience }),
      ...args,
    },
  })
  const dispose = () => {
    trainer.dispose()
    optimizer?.dispose()
  }
  return { trainer, collate, dispose }
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
