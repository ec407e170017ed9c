import { finalPath } from '../../base/atomic-folder.js'
import { argumentError, requireFunction, requireObject, requireOptions } from '../../base/check.js'
import { CancelledError, ConfigError } from '../../base/errors.js'
import type { Lock } from '../../base/lock.js'
import type { DataLoaderOptions } from '../../data/loader.js'
import { getWorldSize, isMainProcess } from '../../distributed/index.js'
import { savePretrained } from '../../models/own-module.js'
import { Module } from '../../nn/index.js'
import { NativeModule } from '../../nn/native-module.js'
import { PeftModel, peftModelOf } from '../../peft/model.js'
import { autocast, manualSeed, scope, Tensor } from '../../tensor/index.js'
import { GradScaler } from '../grad-scaler.js'
import type { ResolvedArguments, TrainingArguments } from './arguments.js'
import { checkCallback, type TrainerCallback } from './callbacks.js'
import { findCheckpoints, type Run, resume, type Stateful } from './checkpoint.js'
import { type LengthOf, type OpenedData, openEvaluation, openTraining, type TrainerData } from './data-source.js'
import { type Gradients, joinRanks, makeGradients, type Ranks } from './distributed.js'
import { type EvalPrediction, type Evaluated, runEvaluation, type UnlabeledOutput } from './evaluate.js'
import { FiniteGuard } from './finite.js'
import { evalName } from './flow.js'
import { removeLeftovers } from './folders.js'
import { JsonlLogger, type Logger, type Outcome, TensorBoardLogger } from './logger.js'
import { TrainingLoop } from './loop.js'
import { ask, type ComputeLoss, countItems, countRows, defaultLoss, type LossOutput, labelsOf, lossOf } from './loss.js'
import { activateNeftune, tokenEmbeddingsOf } from './neftune.js'
import { makeOptimizer, makeScheduler, type TrainerOptimizers } from './optimizing.js'
import { ProgressLogger } from './progress-logger.js'
import { HtmlReportLogger } from './report.js'
import { resolveArguments } from './resolve-arguments.js'
import type { SeededGenerators } from './rng.js'
import { lockRun } from './run-files.js'
import { passOn, Signals } from './signals.js'
import { newState, type TrainerState, totalSteps } from './state.js'
import { loadWeights } from './weights.js'

export interface TrainerOptions<M extends Module, T, B> {
  /**
   * Model to train: any module, written in TypeScript or native, or the result of `getPeftModel`. It is trained on its current
   * device, so move it first.
   */
  model: M | PeftModel<M>
  args: TrainingArguments
  /** Samples (an array, a `Dataset`, or the URL of a module, see `DataLoader`), or batches: a `DataLoader` of your own,
   * with `freeBatches: false` where several batches make a step. */
  trainDataset?: TrainerData<T, B>
  evalDataset?: TrainerData<T, B>
  /** Combine samples into a batch. Default: the batch is the array of samples. */
  collate?: DataLoaderOptions<T, B>['collate']
  /** Build the next batch while a step runs, for a `collate` that reads files: see `DataLoader`. Default false. */
  collateAhead?: boolean
  /** Default: the `loss` of `model.forward(batch)`. */
  computeLoss?: ComputeLoss<M, B>
  /**
   * Number of targets in a batch: a step's loss is the mean over the targets of all its batches. Default: the labels that are
   * not -100 if `batch.labels` are integers, without the first of each row for a causal language model (its `shiftsLabels` is
   * true, as DecoderLM's); otherwise the batch's rows.
   */
  countItems?: (batch: B) => number
  /**
   * Number of tokens of a batch, for `tokensSeen` and `tokensPerSecond`; called after its step. Default: the sum of `batch.attentionMask`,
   * or the elements of `inputIds`.
   */
  countTokens?: (batch: B) => number
  /** Compute metrics by name from the predictions on all of the evaluation data. Logged with the prefix `eval`. */
  computeMetrics?: (prediction: EvalPrediction) => Record<string, number> | Promise<Record<string, number>>
  /** Return further values for each log of training, such as means since the last log. */
  logMetrics?: () => Record<string, number>
  /** Reduce logits before they are gathered, with `argmax` for instance. */
  preprocessLogits?: (logits: Tensor, labels: Tensor | null) => Tensor
  optimizers?: TrainerOptimizers
  callbacks?: readonly TrainerCallback[]
  /** Loggers in addition to those of `reportTo` and `progress`. */
  loggers?: readonly Logger[]
  /** Length of a sample, for `groupByLength`. */
  lengthOf?: LengthOf<T>
  /** Additional generators that training draws from; checkpoints save their states. */
  generators?: SeededGenerators
  /** Additional objects that checkpoints save and restore, by name. */
  extraState?: Readonly<Record<string, Stateful>>
}

export interface TrainOutput {
  globalStep: number
  /** Mean of the losses of all steps. */
  trainingLoss: number
  state: TrainerState
}

export interface PredictionOutput {
  predictions: Tensor
  labels: Tensor | null
  metrics: Record<string, number>
}

/**
 * Trains a model: optimizer, schedule, accumulation, clipping, mixed precision, evaluation, checkpoints, resume and logs,
 * according to its arguments.
 *
 * ```ts
 * const trainer = new Trainer({
 *   model, trainDataset, evalDataset, collate,
 *   args: { outputDir: 'run', learningRate: 2e-5, numTrainEpochs: 3, bf16: true, evalStrategy: 'epoch' },
 * })
 * await trainer.train()
 * ```
 *
 * **Resume**: a training that was killed at any moment and is started again with the same command resumes from its last
 * complete checkpoint. On the CPU it ends with bit-identical weights and logged losses. SIGINT and SIGTERM save a checkpoint
 * first.
 *
 * **Several processes**, started by `npx voxtorch launch` or another launcher, run the same script. Each takes its part of
 * every batch, and the weights equal those of one process with batches `worldSize` times as large. Rank 0 logs and writes;
 * callbacks run everywhere. All ranks call `train`, `evaluate` and `predict`, and must see the same `outputDir`. The Trainer
 * opens the process group unless `initProcessGroup` was called, and leaves it open. If a rank dies, the others throw
 * DistributedError, and the same command resumes from the last checkpoint. A `DataLoader` that you create needs `shard`.
 *
 * **Adapters**: checkpoints of a model with adapters (see `getPeftModel`) contain only the adapters, in PEFT's layout.
 *
 * **Memory**: each step runs in a scope, and yields to the event loop. `dispose()` frees the optimizer's state.
 */
export class Trainer<M extends Module, T = unknown, B = T[]> {
  readonly args: Readonly<ResolvedArguments>
  readonly model: M
  /** State of the training; callbacks and loggers receive the same object. */
  state: TrainerState = newState()
  readonly #options: TrainerOptions<M, T, B>
  readonly #computeLoss: ComputeLoss<M, B>
  readonly #countItems: (batch: B) => number
  #run: Run | undefined
  #training = false

  constructor(options: TrainerOptions<M, T, B>) {
    requireOptions('Trainer', options, [
      'model',
      'args',
      'trainDataset',
      'evalDataset',
      'collate',
      'collateAhead',
      'computeLoss',
      'countItems',
      'countTokens',
      'computeMetrics',
      'logMetrics',
      'preprocessLogits',
      'optimizers',
      'callbacks',
      'loggers',
      'lengthOf',
      'generators',
      'extraState',
    ])
    const model = options.model instanceof PeftModel ? options.model.model : options.model
    if (!(model instanceof Module)) throw argumentError('Trainer', 'model', 'a Module', model)
    this.#options = options
    this.model = model
    this.args = resolveArguments(options.args)
    check(options, model, this.args)
    this.#computeLoss = options.computeLoss ?? defaultLoss(this.args.labelSmoothingFactor)
    this.#countItems = options.countItems ?? ((batch) => countItems(model, batch))
  }

  /**
   * Train to the end, from the last checkpoint or from the beginning.
   * @throws CheckpointError if a checkpoint does not match; ConfigError if another process trains in `outputDir`;
   *   CancelledError after a signal that does not end the process; NonFiniteError that names step and tensor, see `onNonFinite`
   */
  async train(): Promise<TrainOutput> {
    const { args, model } = this
    const { trainDataset, collate, collateAhead = false, lengthOf } = this.#options
    if (!trainDataset) throw argumentError('Trainer', 'trainDataset', 'the training data', trainDataset)
    if (this.#training)
      throw new ConfigError(
        'Trainer.train: expected no training in progress, got a second call. Await the first one',
        {},
      )
    this.#training = true
    const signals = new Signals()
    let data: OpenedData<B> | undefined
    let gradients: Gradients<B> | undefined
    let stopNoise: (() => void) | undefined
    // Assigned in a closure, which the compiler does not track.
    let lock = undefined as Lock | undefined
    let outcome: Outcome = 'interrupted'
    try {
      const ranks = await joinRanks(this.#device(), args)
      const loggers = ranks.isMain ? this.#loggers() : []
      if (writesFiles(args)) {
        await ranks.fromMain(async () => {
          lock = lockRun(args.outputDir, args.runName)
        })
      }
      data = await openTraining(trainDataset, args, { collate, collateAhead }, lengthOf, ranks)
      const [length] = await ranks.max([data.length ?? -1])
      const run = await this.#prepare(length === -1 ? undefined : length, ranks)
      gradients = await makeGradients(
        ranks,
        model,
        async (batch) => lossOf(await this.#forward(batch), true).loss,
        args,
      )
      const { state } = run
      try {
        for (const logger of loggers) await logger.begin?.(run)
        model.train()
        if (args.neftuneNoiseAlpha !== null) stopNoise = activateNeftune(model, args.neftuneNoiseAlpha)
        const loop = this.#loop(run, data, gradients, loggers, signals)
        await loop.run()
        if (!signals.received) {
          await this.#finish(run)
          outcome = state.globalStep < state.maxSteps ? 'stopped' : 'finished'
        }
      } finally {
        for (const logger of loggers) await logger.end?.(run, outcome)
      }
      if (signals.received) {
        signals.close()
        lock?.release()
        await passOn(signals.received)
        throw new CancelledError(
          `Trainer.train: ended by ${signals.received} at step ${state.globalStep}. Run the same command again to resume`,
          {
            signal: signals.received,
          },
        )
      }
      return {
        globalStep: state.globalStep,
        trainingLoss: (state.lossBefore + state.lossSum) / state.globalStep,
        state,
      }
    } finally {
      this.#training = false
      signals.close()
      gradients?.release()
      stopNoise?.()
      lock?.release()
      await data?.close()
    }
  }

  /** Evaluate the model. Returns `evalLoss` and the results of `computeMetrics` with the prefix `eval`. */
  async evaluate(dataset: TrainerData<T, B> | undefined = this.#options.evalDataset): Promise<Record<string, number>> {
    return scope(async () => {
      const collect = this.#options.computeMetrics !== undefined
      return this.#metrics(await this.#evaluated(dataset, 'evalDataset', collect))
    })
  }

  /** Return predictions for data, with or without labels, as CPU tensors in the caller's scope. */
  async predict(dataset: TrainerData<T, B>): Promise<PredictionOutput> {
    return scope(async () => {
      const evaluated = await this.#evaluated(dataset, 'dataset', true)
      const { predictions, labels } = evaluated
      if (!predictions) throw argumentError('Trainer.predict', 'dataset', 'at least one batch', dataset)
      const metrics = labels || evaluated.loss !== null ? await this.#metrics(evaluated) : {}
      return { predictions, labels, metrics }
    })
  }

  /**
   * Write the model with its own `save`, or else as `savePretrained` does; for a model with adapters, only the adapters in
   * PEFT's layout. Default directory: `outputDir`. In several processes rank 0 writes, and the others do not wait for it.
   * @throws NonFiniteError if trained weights are NaN or infinite, unless `onNonFinite` is 'warn'
   */
  async saveModel(directory: string = this.args.outputDir): Promise<void> {
    if (getWorldSize() > 1 && !isMainProcess()) return
    await new FiniteGuard(this.args, this.model).beforeSave(this.state.globalStep, finalPath(directory))
    const peft = peftModelOf(this.model)
    if (peft) return peft.savePretrained(directory)
    const model = this.model as Module & { save?: unknown; config?: unknown }
    if (typeof model.save === 'function')
      return (model.save as (directory: string) => Promise<void>).call(model, directory)
    const { config } = model
    await savePretrained(directory, model, typeof config === 'object' && config !== null ? config : {})
  }

  /** Free the state of an optimizer that the Trainer created. The model stays. */
  dispose(): void {
    if (!this.#options.optimizers?.optimizer) this.#run?.optimizer.dispose()
    this.#run = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** Seed the generators, create optimizer and schedule, and restore the last checkpoint. */
  async #prepare(batchesPerEpoch: number | undefined, ranks: Ranks): Promise<Run> {
    const { args, model } = this
    const { optimizers = {}, generators = {}, extraState: extra = {} } = this.#options
    if (batchesPerEpoch === undefined && args.maxSteps < 0) {
      throw new ConfigError(
        'TrainingArguments.maxSteps: expected a number of steps, since the length of the training data is unknown, got -1',
        { argument: 'maxSteps' },
      )
    }
    // Each rank needs another seed, or all would apply the same dropout mask to their parts of a batch.
    if (args.seed !== null) manualSeed(args.seed + ranks.rank)
    this.dispose()
    const state = newState()
    this.state = state
    state.batchesPerEpoch = batchesPerEpoch ?? null
    state.maxSteps = totalSteps(args, batchesPerEpoch ?? 0)
    const optimizer = optimizers.optimizer ?? makeOptimizer(model, args, ranks)
    const scheduler = optimizers.scheduler ?? makeScheduler(optimizer, args, state.maxSteps)
    const scaler = optimizers.scaler ?? (args.fp16 ? new GradScaler() : undefined)
    const run: Run = { args, state, ranks, model, optimizer, scheduler, scaler, generators, extra }
    this.#run = run
    const checkpoints = await ranks.fromMain(async () => {
      await removeLeftovers(args.outputDir)
      return findCheckpoints(args)
    })
    if (checkpoints.length > 0) await resume(checkpoints, run)
    return run
  }

  #loop(
    run: Run,
    data: OpenedData<B>,
    gradients: Gradients<B>,
    loggers: readonly Logger[],
    signals: Signals,
  ): TrainingLoop<B> {
    const { callbacks = [], logMetrics } = this.#options
    const loop = new TrainingLoop<B>({
      run,
      source: data.source,
      device: this.#device(),
      gradients,
      countItems: this.#countItems,
      countTokens: this.#options.countTokens,
      countRows,
      evaluate: () => this.evaluate(),
      logMetrics,
      callbacks,
      loggers,
      signals,
    })
    const { state, args } = run
    // A run that early stopping ended continues only with a larger patience.
    const patient = args.earlyStoppingPatience !== null && state.evaluationsSinceBest < args.earlyStoppingPatience
    loop.control.shouldStop = state.stopped && !patient
    return loop
  }

  async #finish({ args, state, model }: Run): Promise<void> {
    if (args.loadBestModelAtEnd && state.bestCheckpoint)
      await loadWeights(`${args.outputDir}/${state.bestCheckpoint}`, model, args.saveOnlyTrained)
  }

  async #forward(batch: B): Promise<Tensor | LossOutput> {
    const { bf16, fp16 } = this.args
    if (!bf16 && !fp16) return this.#computeLoss(this.model, batch)
    const device = this.#device() === 'cpu' ? 'cpu' : 'cuda'
    const dtype = bf16 ? 'bfloat16' : 'float16'
    return autocast({ device, dtype }, async () => this.#computeLoss(this.model, batch))
  }

  async #evaluated(dataset: TrainerData<T, B> | undefined, name: string, collect: boolean): Promise<Evaluated> {
    const { collate, collateAhead = false, preprocessLogits } = this.#options
    if (!dataset) throw argumentError('Trainer', name, 'the evaluation data', dataset)
    const ranks = await joinRanks(this.#device(), this.args)
    const data = await openEvaluation(dataset, this.args, { collate, collateAhead }, ranks)
    try {
      data.source.setEpoch(0)
      return await runEvaluation<M, B>({
        model: this.model,
        batches: data.source,
        device: this.#device(),
        forward: (batch) => this.#evaluationForward(batch),
        countItems: this.#countItems,
        countRows,
        preprocessLogits,
        collect,
        ranks,
      })
    } finally {
      await data.close()
    }
  }

  /** Data for predictions may have no labels, and then no loss. */
  async #evaluationForward(batch: B): Promise<LossOutput | UnlabeledOutput> {
    if (this.#options.computeLoss || labelsOf(batch)) return lossOf(await this.#forward(batch), false)
    const output = (await ask(this.model, batch, this.args.labelSmoothingFactor)) as
      | { logits?: Tensor; loss?: Tensor }
      | Tensor
    if (output instanceof Tensor) return { logits: output, loss: null }
    return { ...output, loss: output.loss ?? null } as LossOutput
  }

  async #metrics({ loss, predictions, labels }: Evaluated): Promise<Record<string, number>> {
    const metrics: Record<string, number> = loss === null ? {} : { evalLoss: loss }
    const { computeMetrics } = this.#options
    if (!computeMetrics || !predictions) return metrics
    const customMetrics = Object.entries(await computeMetrics({ predictions, labels }))
    for (const [name, value] of customMetrics) {
      if (typeof value !== 'number') throw argumentError('Trainer', `computeMetrics' ${name}`, 'a number', value)
    }
    // All ranks must decide alike on the metrics. JSON has no NaN.
    const ranks = await joinRanks(this.#device(), this.args)
    const [first] = await ranks.all(customMetrics.map(([name, value]) => [name, String(value)] as const))
    for (const [name, value] of first ?? []) metrics[evalName(name)] = Number(value)
    return metrics
  }

  #device(): string {
    return this.model.parameters()[0]?.device ?? 'cpu'
  }

  #loggers(): Logger[] {
    const { reportTo, progress } = this.args
    return [
      ...(progress ? [new ProgressLogger()] : []),
      ...(reportTo.includes('jsonl') ? [new JsonlLogger()] : []),
      ...(reportTo.includes('tensorboard') ? [new TensorBoardLogger()] : []),
      ...(this.#options.loggers ?? []),
      ...(reportTo.includes('html') ? [new HtmlReportLogger()] : []),
    ]
  }
}

const writesFiles = ({ saveStrategy, reportTo }: ResolvedArguments) => saveStrategy !== 'no' || reportTo.length > 0

function check<M extends Module, T, B>(options: TrainerOptions<M, T, B>, model: M, args: ResolvedArguments): void {
  const { optimizers, callbacks = [], loggers = [], computeLoss, evalDataset } = options
  for (const name of [
    'collate',
    'computeLoss',
    'computeMetrics',
    'logMetrics',
    'preprocessLogits',
    'countItems',
    'countTokens',
    'lengthOf',
  ] as const) {
    if (options[name] !== undefined) requireFunction('Trainer', name, options[name])
  }
  for (const name of ['optimizers', 'generators', 'extraState'] as const) {
    if (options[name] !== undefined) requireObject('Trainer', name, options[name])
  }
  if (!Array.isArray(callbacks)) throw argumentError('Trainer', 'callbacks', 'an array', callbacks)
  if (!Array.isArray(loggers)) throw argumentError('Trainer', 'loggers', 'an array', loggers)
  for (const callback of callbacks) checkCallback(callback)
  for (const logger of loggers) requireObject('Trainer', 'a logger', logger)
  const refuse = (argument: string, message: string) => new ConfigError(`Trainer: ${message}`, { argument })
  if (args.evalStrategy !== 'no' && !evalDataset)
    throw refuse('evalDataset', 'expected an evalDataset with this evalStrategy, got none')
  if (args.labelSmoothingFactor > 0 && computeLoss) {
    throw refuse(
      'labelSmoothingFactor',
      'expected labelSmoothingFactor without computeLoss, got both. Smooth in computeLoss',
    )
  }
  if (optimizers?.scheduler && !optimizers.optimizer) {
    throw refuse('optimizers', 'expected an optimizer with the scheduler, got none. Pass both')
  }
  if (args.zero > 0 && optimizers?.optimizer) {
    throw refuse('zero', 'expected zero: 0 with your own optimizer, got 1. Pass a ZeroRedundancyOptimizer instead')
  }
  if (args.neftuneNoiseAlpha !== null) tokenEmbeddingsOf(model)
  if (args.gradientCheckpointing && !enableCheckpointing(model)) {
    const message = `expected a model with native layers or gradientCheckpointingEnable() for gradientCheckpointing, got ${model.constructor.name}`
    throw refuse('gradientCheckpointing', message)
  }
}

/** Enable checkpointing in every layer stack of a model, or through the model's own method. */
function enableCheckpointing(model: Module): boolean {
  const enable = (model as { gradientCheckpointingEnable?: unknown }).gradientCheckpointingEnable
  if (typeof enable === 'function') {
    enable.call(model)
    return true
  }
  let found = false
  for (const [, module] of model.namedModules()) {
    if (!(module instanceof NativeModule)) continue
    try {
      module.gradientCheckpointing(true)
      found = true
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error // this module has no layers; others may
    }
  }
  return found
}
