import { appendFileSync, existsSync, readFileSync } from 'node:fs'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { writeAtomicallySync } from '../../base/atomic.js'
import { requireObject } from '../../base/check.js'
import { DataError } from '../../base/errors.js'
import { SummaryWriter } from '../tensorboard.js'
import type { ResolvedArguments } from './arguments.js'
import { METRICS_FILE, metricsLine, type RunFile, type Speed, writeRun } from './run-files.js'
import type { LogEntry, TrainerState } from './state.js'

export interface LoggedRun {
  args: Readonly<ResolvedArguments>
  state: Readonly<TrainerState>
}

/** Logger of a training. Each function is awaited, and may be left out. */
export interface Logger {
  /** Called when training begins or resumes; on a resume `state.logHistory` has the earlier entries. */
  begin?(run: LoggedRun): void | Promise<void>
  /** Called after each optimizer step. */
  step?(run: LoggedRun): void | Promise<void>
  log?(entry: LogEntry, speed: Speed | undefined): void | Promise<void>
  /** Called when training has ended, also after an error. */
  end?(run: LoggedRun, outcome: Outcome): void | Promise<void>
}

/**
 * Outcome of a training: `interrupted` by a signal or an error, `stopped` before its last step by a callback or early stopping.
 */
export type Outcome = 'finished' | 'stopped' | 'interrupted'

/**
 * Writes one JSON object per log entry to `metrics.jsonl`, and a description of the run to `run.json`. A resume does not
 * duplicate lines.
 */
export class JsonlLogger implements Logger {
  #path = ''
  #run: RunFile | undefined

  begin({ args, state }: LoggedRun): void {
    const { outputDir, runName: name } = args
    const started = new Date().toISOString()
    const { maxSteps } = state
    const [host, pid] = [hostname(), process.pid]
    this.#run = { name, status: 'running', started, host, pid, maxSteps, arguments: { ...args } }
    writeRun(outputDir, this.#run)
    this.#path = join(args.outputDir, METRICS_FILE)
    const known = state.logHistory.length
    const old = existsSync(this.#path) ? readFileSync(this.#path, 'utf8').split('\n') : []
    // Steps after the checkpoint are trained and logged again, so drop their lines.
    const lines =
      old.length > known
        ? old.slice(0, known).map((line) => `${line}\n`)
        : state.logHistory.map((entry) => metricsLine(entry))
    writeAtomicallySync(this.#path, DataError, lines.join(''))
  }

  log(entry: LogEntry, speed: Speed | undefined): void {
    try {
      appendFileSync(this.#path, metricsLine(entry, speed))
    } catch (cause) {
      throw new DataError(`${this.#path} cannot be written: ${(cause as Error).message}`, {
        file: this.#path,
        cause,
      })
    }
  }

  end({ args, state }: LoggedRun, outcome: Outcome): void {
    const { globalStep, seconds } = state
    if (this.#run) writeRun(args.outputDir, { ...this.#run, status: outcome, globalStep, seconds })
  }
}

/** Writes scalars for TensorBoard, under `train/` and `eval/`, into the folder `events`. */
export class TensorBoardLogger implements Logger {
  #writer: SummaryWriter | undefined

  begin({ args, state }: LoggedRun): void {
    this.#writer = new SummaryWriter(join(args.outputDir, 'events'))
    if (state.globalStep === 0) this.#writer.addText('arguments', asMarkdown(args), 0)
  }

  log(entry: LogEntry, speed: Speed | undefined): void {
    const { step, ...values } = entry
    for (const [name, value] of Object.entries(values)) this.#writer?.addScalar(groupedName(name), value, step)
    if (!speed) return
    this.#writer?.addScalar('speed/samplesPerSecond', speed.samplesPerSecond, step)
    this.#writer?.addScalar('speed/tokensPerSecond', speed.tokensPerSecond, step)
  }

  end(): void {
    this.#writer?.flush()
    this.#writer?.close()
    this.#writer = undefined
  }
}

/** Part of the run that `wandb.init()` of the package `@wandb/sdk` returns. */
export interface WandbRun {
  log(values: Record<string, number>): unknown
  finish?(): unknown
}

/** Logs to Weights & Biases through a run that the caller has opened. The caller finishes the run. */
export class WandbLogger implements Logger {
  readonly #run: WandbRun

  constructor(run: WandbRun) {
    requireObject('WandbLogger', 'run', run)
    this.#run = run
  }

  async log(entry: LogEntry, speed: Speed | undefined): Promise<void> {
    const { step, ...values } = entry
    const named = Object.entries(values).map(([name, value]) => [groupedName(name), value])
    const fast = Object.entries(speed ?? {}).map(([name, value]) => [`speed/${name}`, value])
    await this.#run.log({ ...Object.fromEntries([...named, ...fast]), 'train/globalStep': step })
  }
}

/** Convert `evalLoss` to `eval/loss` and `loss` to `train/loss`. */
export const groupedName = (name: string): string =>
  /^eval[A-Z]/.test(name) ? `eval/${name.charAt(4).toLowerCase()}${name.slice(5)}` : `train/${name}`

const asMarkdown = (args: Readonly<ResolvedArguments>): string =>
  [
    '| argument | value |',
    '| --- | --- |',
    ...Object.entries(args).map(([name, value]) => `| ${name} | ${JSON.stringify(value)} |`),
  ].join('\n')
