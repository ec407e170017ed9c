import { setImmediate as macrotask } from 'node:timers/promises'
import { DataError, GradientError } from '../../base/errors.js'
import { scope, type Tensor, zeros } from '../../tensor/index.js'
import { keepForever } from '../../tensor/scope.js'
import { clipGradNorm } from '../clip.js'
import { PendingNumber } from '../pending.js'
import { BatchesAhead } from './ahead.js'
import { newControl, type TrainerCallback, type TrainerEvents } from './callbacks.js'
import { type Run, saveCheckpoint } from './checkpoint.js'
import type { BatchSource } from './data-source.js'
import type { Gradients } from './distributed.js'
import { FiniteGuard } from './finite.js'
import { afterEpoch, afterStep, judge } from './flow.js'
import type { Logger } from './logger.js'
import { countTokens, isEmpty, onDevice, type Sent } from './loss.js'
import type { Speed } from './run-files.js'
import { SIGNALS, type Signals } from './signals.js'
import type { LogEntry } from './state.js'

export interface LoopParts<B> {
  run: Run
  source: BatchSource<B>
  device: string
  gradients: Gradients<B>
  countItems: (batch: B) => number
  /** Called after the batch's step. */
  countTokens: ((batch: B) => number) | undefined
  countRows: (batch: B) => number
  evaluate: () => Promise<Record<string, number>>
  logMetrics: (() => Record<string, number>) | undefined
  callbacks: readonly TrainerCallback[]
  loggers: readonly Logger[]
  /** Requests that all ranks end once one of them has received a signal. */
  signals: Signals
}

/** Batches of one optimizer step, over all ranks. */
interface Window<B> {
  /** This rank's batches, and the number of targets of each. */
  own: B[]
  counts: number[]
  /** Largest number of batches on any rank. */
  batches: number
  items: number
}

/** Runs epochs of optimizer steps, from the run's state to the last step, a stop or an interruption. */
export class TrainingLoop<B> {
  readonly control = newControl()
  readonly #parts: LoopParts<B>
  /** Sum of losses since the last log, on the device: reading it at each step would wait for the device. */
  readonly #lossSum: Tensor
  readonly #secondsBefore: number
  readonly #finite: FiniteGuard
  readonly #start = performance.now()
  #since = { time: performance.now(), samples: 0, tokens: 0 }
  #interrupted = false

  constructor(parts: LoopParts<B>) {
    const { args, model, state, ranks } = parts.run
    this.#parts = parts
    this.#finite = new FiniteGuard(args, model)
    this.#lossSum = keepForever(zeros([], { dtype: 'float64', device: parts.device as 'cpu' }))
    // The restored sum is that of all ranks.
    if (ranks.isMain) this.#lossSum.fill_(state.lossSum)
    this.#secondsBefore = state.seconds
    this.#since = { ...this.#since, samples: state.samplesSeen, tokens: state.tokensSeen }
  }

  async run(): Promise<void> {
    const { run, source } = this.#parts
    const { state, args } = run
    try {
      await this.fire('onTrainBegin')
      await this.#agree()
      while (state.globalStep < state.maxSteps && !this.control.shouldStop) {
        source.setEpoch(state.epochIndex, state.batchInEpoch)
        if (state.batchInEpoch === 0) await this.fire('onEpochBegin')
        const complete = await this.#epoch()
        if (this.#interrupted) return
        if (state.batchInEpoch === 0) {
          throw new DataError('Trainer.trainDataset: expected at least one batch, got none', {
            epoch: state.epochIndex,
          })
        }
        this.control.shouldEpochStop = false
        if (complete) {
          state.epochIndex++
          state.batchInEpoch = 0
        }
        afterEpoch(args, this.control)
        await this.fire('onEpochEnd')
        await this.#act()
        if (this.#interrupted) return
      }
      await this.settle()
      await this.fire('onTrainEnd')
    } finally {
      this.#lossSum.dispose()
    }
  }

  /** Return the sum of the losses of all steps. */
  readLoss(): number {
    return this.#parts.run.state.lossBefore + this.#parts.run.state.lossSum
  }

  /** @returns whether all batches of the epoch are done */
  async #epoch(): Promise<boolean> {
    const { source, run } = this.#parts
    const { args, state } = run
    const batches = source[Symbol.asyncIterator]()
    const { device } = this.#parts
    const { generators } = run
    const ahead = new BatchesAhead(batches, { count: args.gradientAccumulationSteps, device, generators })
    try {
      for (;;) {
        const taken = await ahead.next()
        const stepped = await scope(async () => {
          const window = await this.#window(taken.own)
          if (window.batches === 0) return false
          await this.#step(window, taken.first, () => ahead.begin())
          await this.#countTokens(window.own)
          state.batchInEpoch += window.batches
          return true
        }).finally(() => taken.release())
        if (!stepped) return true
        state.globalStep++
        state.epoch = state.epochIndex + (state.batchesPerEpoch ? state.batchInEpoch / state.batchesPerEpoch : 0)
        afterStep(args, state, this.control)
        await this.fire('onStepEnd')
        for (const logger of this.#parts.loggers) await logger.step?.(run)
        await this.#act()
        await macrotask()
        if (this.#interrupted || this.control.shouldStop || this.control.shouldEpochStop) return this.#atEnd()
      }
    } finally {
      await ahead.close()
      await batches.return?.()
    }
  }

  #atEnd(): boolean {
    const { state } = this.#parts.run
    return this.control.shouldEpochStop || state.batchInEpoch === state.batchesPerEpoch
  }

  /** Exchange the numbers of batches and targets of a step with the other ranks. */
  async #window(own: B[]): Promise<Window<B>> {
    const { run, countItems, countRows, countTokens: later } = this.#parts
    const { state, ranks } = run
    const total = (count: (batch: B) => number) =>
      own.reduce((sum, batch) => sum + (isEmpty(batch) ? 0 : count(batch)), 0)
    const counts = own.map((batch) => (isEmpty(batch) ? 0 : countItems(batch)))
    const items = counts.reduce((sum, count) => sum + count, 0)
    const all = await ranks.gather([items, total(countRows), later ? 0 : total(countTokens), own.length])
    const sum = (column: number) => all.reduce((sum, row) => sum + (row[column] as number), 0)
    state.samplesSeen += sum(1)
    state.tokensSeen += sum(2)
    return { own, counts, items: sum(0), batches: Math.max(...all.map((row) => row[3] as number)) }
  }

  async #countTokens(own: readonly B[]): Promise<void> {
    const { run, countTokens } = this.#parts
    if (!countTokens) return
    const count = own.reduce((sum, batch) => sum + (isEmpty(batch) ? 0 : countTokens(batch)), 0)
    run.state.tokensSeen += (await run.ranks.sum([count]))[0] as number
  }

  /**
   * Compute the gradients of a step's batches, each loss weighted by its fraction of all ranks' items, and take one optimizer
   * step. `begin` is called while the device is busiest.
   */
  async #step({ own, counts, items }: Window<B>, first: Sent<B> | null, begin: () => void): Promise<void> {
    const { run, device, gradients } = this.#parts
    const { args, state, optimizer, scheduler, scaler, ranks } = run
    await this.fire('onStepBegin')
    const last = counts.map((count) => count > 0).lastIndexOf(true)
    const stepLoss = zeros([], { dtype: 'float64', device: device as 'cpu' })
    for (const [i, given] of own.entries()) {
      const count = counts[i] as number
      // A mean over no items is NaN.
      if (count === 0) continue
      await scope(async () =>
        gradients.of(i === 0 && first ? first.arrived() : await onDevice(given, device), i === last, async (loss) => {
          const part = count === items ? loss : loss.mul(count / items)
          // DistributedDataParallel averages the gradients, but they must be summed.
          const sent = ranks.size === 1 ? part : part.mul(ranks.size)
          const done = (scaler ? scaler.scale(sent) : sent).backward()
          if (i === last) begin()
          await done
          stepLoss.add_(part.detach().reshape([]))
        }),
      )
    }
    if (last < 0 && items > 0) await scope(() => gradients.of(null, true, (loss) => loss.backward()))
    this.#lossSum.add_(stepLoss)
    if (scaler) await scaler.unscale(optimizer as never)
    await this.fire('onPreOptimizerStep')
    const norm = await this.#clip(stepLoss)
    state.gradNorm = args.maxGradNorm > 0 ? norm : null
    state.learningRate = optimizer.groups[0]?.lr ?? 0
    let stepped = true
    if (scaler) {
      stepped = (await scaler.step(optimizer as never)) !== false
      scaler.update()
    } else await optimizer.step()
    await this.fire('onOptimizerStep')
    if (stepped) scheduler.step()
    optimizer.zeroGrad()
    state.lossSteps++
  }

  /** Clip the gradients, and report a step that is not finite. Returns the norm; the loss is read along with it. */
  async #clip(stepLoss: Tensor): Promise<number> {
    const { args, state, optimizer, scaler, ranks } = this.#parts.run
    const params = optimizer.groups.flatMap((group) => group.params)
    // A limit of infinity leaves the gradients unchanged.
    const most = args.maxGradNorm > 0 ? args.maxGradNorm : Number.POSITIVE_INFINITY
    // The scaler itself skips steps that overflow under a large scale.
    const isScaled = scaler !== undefined && (scaler.getScale?.() ?? 2) > 1
    const pending = new PendingNumber(stepLoss)
    let norm: number
    let isOverflown = false
    try {
      norm = await clipGradNorm(params, most, { errorIfNonfinite: !isScaled })
    } catch (error) {
      if (!(error instanceof GradientError && 'norm' in error)) {
        pending.forget()
        throw error
      }
      norm = error.norm as number
      isOverflown = true
    }
    const ownLoss = await pending.value()
    // All ranks have the same norm, but each its own loss: `settle` checks those, after summing them.
    const loss = ranks.size === 1 ? ownLoss : 0
    if (!isOverflown && Number.isFinite(loss)) this.#finite.passed()
    else await this.#finite.failed(state.globalStep + 1, loss, norm)
    return isOverflown ? clipGradNorm(params, most) : norm
  }

  /** Share the requests and the received signals of each rank with all ranks, which must act together. */
  async #agree(): Promise<void> {
    const { run, signals } = this.#parts
    const { control } = this
    const names = Object.keys(control) as (keyof typeof control)[]
    const signalIndex = signals.received ? SIGNALS.indexOf(signals.received as (typeof SIGNALS)[number]) : -1
    const [signal, ...wishes] = await run.ranks.max([signalIndex, ...names.map((name) => Number(control[name]))])
    for (const [i, name] of names.entries()) control[name] = wishes[i] === 1
    const received = SIGNALS[signal as number]
    if (this.#interrupted || !received) return
    signals.receive(received)
    this.#interrupted = true
    control.shouldSave = true
  }

  /** Act on the requests of strategies and callbacks. */
  async #act(): Promise<void> {
    const { run, evaluate } = this.#parts
    const { control } = this
    const { args, state } = run
    await this.#agree()
    if (control.shouldLog) {
      control.shouldLog = false
      await this.#logTraining()
      await this.#agree()
    }
    if (control.shouldEvaluate) {
      control.shouldEvaluate = false
      const metrics = await evaluate()
      await this.#log(metrics, undefined)
      judge(args, state, control, metrics)
      await this.fire('onEvaluate', { metrics })
      // Do not count evaluation as training time.
      this.#since.time = performance.now()
      await this.#agree()
    }
    if (control.shouldSave) {
      control.shouldSave = false
      state.stopped = control.shouldStop && state.globalStep < state.maxSteps
      await this.save()
      await this.#agree()
    }
  }

  async save(): Promise<void> {
    const { run } = this.#parts
    await this.settle()
    const { globalStep } = run.state
    await this.#finite.beforeSave(globalStep, `checkpoint-${globalStep}`)
    const checkpoint = await saveCheckpoint(run)
    await this.fire('onSave', { checkpoint })
  }

  /** Copy into the state the values that are kept elsewhere between logs. */
  async settle(): Promise<void> {
    const { state, ranks } = this.#parts.run
    const [lossSum] = await ranks.sum([Number(this.#lossSum.item())])
    if (ranks.size > 1) this.#finite.lossSum(state.globalStep, lossSum as number)
    state.lossSum = lossSum as number
    state.seconds = this.#secondsBefore + (performance.now() - this.#start) / 1000
  }

  async #logTraining(): Promise<void> {
    const { state } = this.#parts.run
    if (state.lossSteps === 0) return
    await this.settle()
    const loss = state.lossSum / state.lossSteps
    const { gradNorm, learningRate } = state
    state.lossBefore += state.lossSum
    state.lossSum = 0
    state.lossSteps = 0
    this.#lossSum.fill_(0)
    const more = this.#parts.logMetrics?.()
    await this.#log({ loss, ...(gradNorm !== null && { gradNorm }), learningRate, ...more }, this.#speed())
  }

  async #log(values: Record<string, number>, speed: Speed | undefined): Promise<void> {
    const { run, loggers } = this.#parts
    const { state } = run
    const entry: LogEntry = { step: state.globalStep, epoch: state.epoch, ...values }
    state.logHistory.push(entry)
    for (const logger of loggers) await logger.log?.(entry, speed)
    await this.fire('onLog', { logs: entry })
  }

  #speed(): Speed {
    const { state } = this.#parts.run
    const { time, samples, tokens } = this.#since
    const now = performance.now()
    const seconds = Math.max(1e-9, (now - time) / 1000)
    this.#since = { time: now, samples: state.samplesSeen, tokens: state.tokensSeen }
    return {
      seconds: state.seconds,
      samplesPerSecond: (state.samplesSeen - samples) / seconds,
      tokensPerSecond: (state.tokensSeen - tokens) / seconds,
      residentBytes: process.memoryUsage.rss(),
    }
  }

  async fire<E extends keyof TrainerEvents>(
    event: E,
    ...extra: object extends TrainerEvents[E] ? [] : [TrainerEvents[E]]
  ): Promise<void> {
    const { run, callbacks } = this.#parts
    const { args, state, model, optimizer } = run
    for (const callback of callbacks) {
      const handler = callback[event] as ((event: object) => void | Promise<void>) | undefined
      if (handler) await handler.call(callback, { args, state, control: this.control, model, optimizer, ...extra[0] })
    }
  }
}
