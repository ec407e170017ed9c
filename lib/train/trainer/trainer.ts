import { misuse, requireFunction, requireObject, requireOptions } from '../../base/check.js'
import { CancelledError, ConfigError } from '../../base/errors.js'
import type { Lock } from '../../base/lock.js'
import type { DataLoaderOptions } from '../../data/loader.js'
import { isMainProcess, worldSize } from '../../distributed/index.js'
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
import { type EvalPrediction, type Evaluated, runEvaluation, type UnlabelledOutput } from './evaluate.js'
import { FiniteGuard } from './finite.js'
import { evalName } from './flow.js'
import { removeLeftovers } from './folders.js'
import { JsonlLogger, type Logger, type Outcome, TensorBoardLogger } from './logger.js'
import { TrainingLoop } from './loop.js'
import { ask, type ComputeLoss, countItems, countRows, defaultLoss, type LossOutput, labelsOf, lossOf } from './loss.js'
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
   * Any module, written in TypeScript or native, or what `getPeftModel` made of it. It is trained where it is: move it to a
   * device first.
   */
  model: M | PeftModel<M>
  args: TrainingArguments
  /** Samples (an array, a `Dataset`, or the URL of a module, see `DataLoader`), or batches: a `DataLoader` of your own,
   * with `freeBatches: false` where several batches make a step. */
  trainDataset?: TrainerData<T, B>
  evalDataset?: TrainerData<T, B>
  /** Makes a batch of samples. Default: the batch is the array of samples. */
  collate?: DataLoaderOptions<T, B>['collate']
  /** Makes the next batch while a step runs, for a `collate` that reads files: see `DataLoader`. Default false. */
  collateAhead?: boolean
  /** Default: the `loss` of `model.forward(batch)`. */
  computeLoss?: ComputeLoss<M, B>
  /**
   * How many targets a batch has: a step's loss is the mean over the targets of all its batches. Default: the labels that
   * are not -100 where `batch.labels` are whole numbers, without the first of each row where the model is a causal
   * language model (its `shiftsLabels` is true, as DecoderLM's), else the batch's rows.
   */
  countItems?: (batch: B) => number
  /** Metrics by name, from predictions on all of the evaluation data. Logged with `eval` in front. */
  computeMetrics?: (prediction: EvalPrediction) => Record<string, number> | Promise<Record<string, number>>
  /** Makes logits smaller before they are gathered, `argmax` for instance. */
  preprocessLogits?: (logits: Tensor, labels: Tensor | null) => Tensor
  optimizers?: TrainerOptimizers
  callbacks?: readonly TrainerCallback[]
  /** Beside those of `reportTo` and `progress`. */
  loggers?: readonly Logger[]
  /** For `groupByLength`. */
  lengthOf?: LengthOf<T>
  /** Generators of your own that training draws from: checkpoints hold where they stand. */
  generators?: SeededGenerators
  /** Anything else that checkpoints shall hold, by name. */
  extraState?: Readonly<Record<string, Stateful>>
}

export interface TrainOutput {
  globalStep: number
  /** The mean of all steps' losses. */
  trainingLoss: number
  state: TrainerState
}

export interface PredictionOutput {
  predictions: Tensor
  labels: Tensor | null
  metrics: Record<string, number>
}

/**
 * Trains a model: optimiser, schedule, accumulation, clipping, mixed precision, evaluation, checkpoints, resume and logs, as
 * its arguments say.
 *
 * ```ts
 * const trainer = new Trainer({
 *   model, trainDataset, evalDataset, collate,
 *   args: { outputDir: 'run', learningRate: 2e-5, numTrainEpochs: 3, bf16: true, evalStrategy: 'epoch' },
 * })
 * await trainer.train()
 * ```
 *
 * **Killed and started again** with the same command, at any moment, a training goes on from its last whole checkpoint and
 * ends, on the CPU, with the same weights and logged losses, bit for bit. SIGINT and SIGTERM save a checkpoint first.
 *
 * **In several processes**, started by `npx voxtorch launch` or another launcher, the same script trains on all of them:
 * each takes its share of every batch, and the weights come out as those of one process with batches `worldSize` times as
 * large. Rank 0 logs and writes; callbacks run everywhere. All ranks call `train`, `evaluate` and `predict`, and
 * `outputDir` is a folder that all of them see. The Trainer opens the process group unless `initProcessGroup` was called,
 * and leaves it open. Where a rank dies, the others throw DistributedError, and the same command goes on from the last
 * checkpoint. A `DataLoader` of your own needs its own `shard`.
 *
 * **Adapters**: checkpoints of a model with adapters (see `getPeftModel`) hold those alone, in PEFT's layout.
 *
 * **Memory**: each step runs in a scope, and gives up a macrotask. `dispose()` frees the optimiser's state.
 */
export class Trainer<M extends Module, T = unknown, B = T[]> {
  readonly args: Readonly<ResolvedArguments>
  readonly model: M
  /** Where training stands; callbacks and loggers see the same object. */
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
      'computeMetrics',
      'preprocessLogits',
      'optimizers',
      'callbacks',
      'loggers',
      'lengthOf',
      'generators',
      'extraState',
    ])
    const model = options.model instanceof PeftModel ? options.model.model : options.model
    if (!(model instanceof Module)) throw misuse('Trainer', 'model', 'a Module', model)
    this.#options = options
    this.model = model
    this.args = resolveArguments(options.args)
    check(options, model, this.args)
    this.#computeLoss = options.computeLoss ?? defaultLoss(this.args.labelSmoothingFactor)
    this.#countItems = options.countItems ?? ((batch) => countItems(model, batch))
  }

  /**
   * Trains from the last checkpoint, or from the beginning, to the end.
   * @throws CheckpointError when a checkpoint does not fit; ConfigError where another process trains in `outputDir`;
   *   CancelledError after a signal that does not end the process; NonFiniteError naming step and tensor, see `onNonFinite`
   */
  async train(): Promise<TrainOutput> {
    const { args, model } = this
    const { trainDataset, collate, collateAhead = false, lengthOf } = this.#options
    if (!trainDataset) throw misuse('Trainer', 'trainDataset', 'what to train on', trainDataset)
    if (this.#training) throw new ConfigError('This Trainer is training already', {})
    this.#training = true
    const signals = new Signals()
    let data: OpenedData<B> | undefined
    let gradients: Gradients<B> | undefined
    // Set in a function of its own, which the compiler does not see.
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
          `Training was ended by ${signals.received} at step ${state.globalStep}, and can go on from there`,
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
      lock?.release()
      await data?.close()
    }
  }

  /** The metrics of evaluation: `evalLoss`, and what `computeMetrics` gives with `eval` in front. */
  async evaluate(dataset: TrainerData<T, B> | undefined = this.#options.evalDataset): Promise<Record<string, number>> {
    return scope(async () => {
      const collect = this.#options.computeMetrics !== undefined
      return this.#metrics(await this.#evaluated(dataset, 'evalDataset', collect))
    })
  }

  /** Predictions for data that may have no labels, as tensors of the caller's scope on the CPU. */
  async predict(dataset: TrainerData<T, B>): Promise<PredictionOutput> {
    return scope(async () => {
      const evaluated = await this.#evaluated(dataset, 'dataset', true)
      const { predictions, labels } = evaluated
      if (!predictions) throw misuse('Trainer.predict', 'dataset', 'at least one batch', dataset)
      const metrics = labels || evaluated.loss !== null ? await this.#metrics(evaluated) : {}
      return { predictions, labels, metrics }
    })
  }

  /**
   * Writes the model as its own `save` does, else as `savePretrained` does; of a model with adapters, those alone in PEFT's
   * layout. Default: into `outputDir`. In several processes rank 0 writes, and the others do not wait for it.
   * @throws NonFiniteError where trained weights are NaN or infinite, unless `onNonFinite` is 'warn'
   */
  async saveModel(directory: string = this.args.outputDir): Promise<void> {
    if (worldSize() > 1 && !isMainProcess()) return
    await new FiniteGuard(this.args, this.model).beforeSave(this.state.globalStep, directory)
    const peft = peftModelOf(this.model)
    if (peft) return peft.savePretrained(directory)
    const model = this.model as Module & { save?: unknown; config?: unknown }
    if (typeof model.save === 'function')
      return (model.save as (directory: string) => Promise<void>).call(model, directory)
    const { config } = model
    await savePretrained(directory, model, typeof config === 'object' && config !== null ? config : {})
  }

  /** Frees the state of an optimiser that the Trainer made. The model stays. */
  dispose(): void {
    if (!this.#options.optimizers?.optimizer) this.#run?.optimizer.dispose()
    this.#run = undefined
  }

  [Symbol.dispose](): void {
    this.dispose()
  }

  /** Seeds, makes optimiser and schedule, and goes to the last checkpoint. */
  async #prepare(batchesPerEpoch: number | undefined, ranks: Ranks): Promise<Run> {
    const { args, model } = this
    const { optimizers = {}, generators = {}, extraState: extra = {} } = this.#options
    if (batchesPerEpoch === undefined && args.maxSteps < 0) {
      throw new ConfigError('Only running tells how long the training data is: give maxSteps', { argument: 'maxSteps' })
    }
    // Ranks that drop out the same places of their batches would learn less.
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
    const { callbacks = [] } = this.#options
    const loop = new TrainingLoop<B>({
      run,
      source: data.source,
      device: this.#device(),
      gradients,
      countItems: this.#countItems,
      countRows,
      evaluate: () => this.evaluate(),
      callbacks,
      loggers,
      signals,
    })
    const { state, args } = run
    // A run that has stopped for want of progress goes on only where it is given more patience.
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
    if (!dataset) throw misuse('Trainer', name, 'what to evaluate on', dataset)
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

  /** Data to predict on may have no labels, and then has no loss. */
  async #evaluationForward(batch: B): Promise<LossOutput | UnlabelledOutput> {
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
    const own = Object.entries(await computeMetrics({ predictions, labels }))
    for (const [name, value] of own) {
      if (typeof value !== 'number') throw misuse('Trainer', `computeMetrics' ${name}`, 'a number', value)
    }
    // What hangs on metrics has to be decided alike. JSON has no NaN.
    const ranks = await joinRanks(this.#device(), this.args)
    const [first] = await ranks.all(own.map(([name, value]) => [name, String(value)] as const))
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
    'preprocessLogits',
    'countItems',
    'lengthOf',
  ] as const) {
    if (options[name] !== undefined) requireFunction('Trainer', name, options[name])
  }
  for (const name of ['optimizers', 'generators', 'extraState'] as const) {
    if (options[name] !== undefined) requireObject('Trainer', name, options[name])
  }
  if (!Array.isArray(callbacks)) throw misuse('Trainer', 'callbacks', 'an array', callbacks)
  if (!Array.isArray(loggers)) throw misuse('Trainer', 'loggers', 'an array', loggers)
  for (const callback of callbacks) checkCallback(callback)
  for (const logger of loggers) requireObject('Trainer', 'a logger', logger)
  const refuse = (argument: string, message: string) => new ConfigError(`Trainer: ${message}`, { argument })
  if (args.evalStrategy !== 'no' && !evalDataset) throw refuse('evalDataset', 'evalStrategy needs an evalDataset')
  if (args.labelSmoothingFactor > 0 && computeLoss) {
    throw refuse('labelSmoothingFactor', 'labelSmoothingFactor changes the default loss only: smooth in computeLoss')
  }
  if (optimizers?.scheduler && !optimizers.optimizer) {
    throw refuse('optimizers', 'a scheduler belongs to an optimiser: give both')
  }
  if (args.zero > 0 && optimizers?.optimizer) {
    throw refuse('zero', 'zero divides the optimiser that the Trainer makes: give a ZeroRedundancyOptimizer yourself')
  }
  if (args.gradientCheckpointing && !enableCheckpointing(model)) {
    const message = `${model.constructor.name} has no native network with layers, and no gradientCheckpointingEnable()`
    throw refuse('gradientCheckpointing', message)
  }
}

/** Switches every stack of layers in a model; a model that knows how does it itself. */
function enableCheckpointing(model: Module): boolean {
  const own = (model as { gradientCheckpointingEnable?: unknown }).gradientCheckpointingEnable
  if (typeof own === 'function') {
    own.call(model)
    return true
  }
  let found = false
  for (const [, module] of model.namedModules()) {
    if (!(module instanceof NativeModule)) continue
    try {
      module.gradientCheckpointing(true)
      found = true
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error // this part has no layers, another may
    }
  }
  return found
}
