import { defined } from '../../base/check.js'
import { ProgressBar, type ProgressStream } from '../../data/progress.js'
import type { LoggedRun, Logger } from './logger.js'
import type { Speed } from './run-files.js'
import type { LogEntry } from './state.js'

/** Shows a progress bar of optimizer steps with the last logged values; without a terminal, prints lines. */
export class ProgressLogger implements Logger {
  readonly #stream: ProgressStream | undefined
  #bar: ProgressBar | undefined
  #done = 0

  /** @param stream default: standard error */
  constructor(stream?: ProgressStream) {
    this.#stream = stream
  }

  begin({ args, state }: LoggedRun): void {
    this.#done = state.globalStep
    this.#bar = new ProgressBar({
      total: state.maxSteps - state.globalStep,
      label: state.globalStep > 0 ? `${args.runName} from step ${state.globalStep}` : args.runName,
      unit: 'steps',
      stream: this.#stream,
    })
  }

  step({ state }: LoggedRun): void {
    this.#bar?.tick(state.globalStep - this.#done, { epoch: state.epoch.toFixed(2) })
    this.#done = state.globalStep
  }

  log(entry: LogEntry, speed: Speed | undefined): void {
    const { step, epoch, gradNorm, ...values } = entry
    const { learningRate, ...shown } = values as Record<string, number>
    this.#bar?.tick(0, {
      ...shown,
      ...defined({ lr: learningRate }),
      ...(speed && {
        'samples/s': speed.samplesPerSecond,
        'tokens/s': speed.tokensPerSecond,
        memory: `${(speed.residentBytes / 2 ** 30).toFixed(2)} GiB`,
      }),
    })
    if (Object.keys(values).some((name) => /^eval[A-Z]/.test(name))) {
      const metrics = Object.entries(values).map(([name, value]) => `${name} ${Number(value.toPrecision(4))}`)
      this.#bar?.print(`step ${step}  epoch ${epoch.toFixed(2)}  ${metrics.join('  ')}`)
    }
  }

  end(): void {
    this.#bar?.close()
    this.#bar = undefined
  }
}
