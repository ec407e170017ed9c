import { listOf, misuse, requireNumber, requireOptions } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { noGrad, scope, Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

export interface EmaOptions {
  /** Share of the average that stays at each update. Default 0.999, `get_ema_multi_avg_fn`'s. */
  decay?: number
}

/** The averages in the order of the parameters, and the number of updates. */
export interface EmaState {
  n_averaged: number
  decay: number
  averages: Tensor[]
}

/**
 * A second set of weights, the exponential moving average of a model's: average ← decay · average + (1 − decay) · weight
 * after each step, the weight itself at the first. The arithmetic of `torch.optim.swa_utils.AveragedModel` with
 * `get_ema_multi_avg_fn`. It owns the averages; `dispose()` or `using` frees them.
 *
 * ```ts
 * await optimizer.step()
 * await ema.update()
 * await ema.with(() => evaluate(model))   // with the averages in the model's place
 * ```
 */
export class ExponentialMovingAverage {
  readonly #params: Tensor[]
  readonly #averages: Tensor[]
  readonly #decay: number
  #count = 0
  #swapped = false

  constructor(params: Iterable<Tensor>, options: EmaOptions = {}) {
    requireOptions('ExponentialMovingAverage', options, ['decay'])
    const { decay = 0.999 } = options
    requireNumber('ExponentialMovingAverage', 'decay', decay, { least: 0 })
    if (decay > 1) throw misuse('ExponentialMovingAverage', 'decay', 'a number from 0 to 1', decay)
    this.#decay = decay
    this.#params = listOf('ExponentialMovingAverage', 'params', params, 'tensors')
    if (this.#params.length === 0) throw new ConfigError('ExponentialMovingAverage was given no parameters', {})
    for (const param of this.#params) {
      if (!(param instanceof Tensor)) {
        throw misuse('ExponentialMovingAverage', 'a parameter', 'a Tensor', param)
      }
      if (!/^b?float/.test(param.dtype)) {
        throw misuse('ExponentialMovingAverage', "a parameter's dtype", 'floating point', param.dtype)
      }
    }
    this.#averages = noGrad(() => this.#params.map((param) => keepForever(param.clone())))
  }

  /** How often {@link update} was called. */
  get count(): number {
    return this.#count
  }

  /** Takes the weights as they are now into the averages, on the executor. */
  async update(): Promise<void> {
    if (this.#swapped) throw new ConfigError('ExponentialMovingAverage.update: the averages are swapped in', {})
    const jobs: Promise<unknown>[] = []
    noGrad(() =>
      scope(() => {
        for (const [averages, params] of pairsByKind(this.#averages, this.#params)) {
          if (this.#count === 0) jobs.push(copyAll(averages, params))
          else jobs.push(lerpAll(averages, params, 1 - this.#decay))
        }
      }),
    )
    await Promise.all(jobs)
    this.#count += 1
  }

  /** Exchanges the weights and the averages; again, and they are back, bit for bit. */
  async swap(): Promise<void> {
    await scope(() =>
      noGrad(async () => {
        const jobs: Promise<unknown>[] = []
        for (const [averages, params] of pairsByKind(this.#averages, this.#params)) {
          const before = params.map((param) => param.clone())
          jobs.push(copyAll(params, averages), copyAll(averages, before))
        }
        await Promise.all(jobs)
      }),
    )
    this.#swapped = !this.#swapped
  }

  /** Runs `fn` with the averages in the weights' place, and puts the weights back, also when it throws. */
  async with<T>(fn: () => T | Promise<T>): Promise<T> {
    if (typeof fn !== 'function') throw misuse('ExponentialMovingAverage.with', 'fn', 'a function', fn)
    if (this.#swapped) throw new ConfigError('ExponentialMovingAverage.with: the averages are swapped in already', {})
    await this.swap()
    try {
      return await fn()
    } finally {
      await this.swap()
    }
  }

  /** The tensors are the object's own, not copies: save or clone them before the next update. */
  stateDict(): EmaState {
    if (this.#swapped) throw new ConfigError('ExponentialMovingAverage.stateDict: swap the averages back first', {})
    return { n_averaged: this.#count, decay: this.#decay, averages: [...this.#averages] }
  }

  /** Takes copies. Throws `CheckpointError` if the state is not of these parameters. */
  loadStateDict(state: EmaState): void {
    const shapes = (tensors: readonly Tensor[]) => tensors.map(({ shape }) => `[${shape}]`).join(' ')
    const list = state?.averages
    if (
      !Array.isArray(list) ||
      !list.every((one) => one instanceof Tensor) ||
      !Number.isSafeInteger(state.n_averaged)
    ) {
      throw new CheckpointError('The state of a moving average needs n_averaged and a list of averages', {})
    }
    if (shapes(list) !== shapes(this.#averages)) {
      throw new CheckpointError(
        `The state of a moving average has shapes ${shapes(list)}, the parameters ${shapes(this.#averages)}`,
        {},
      )
    }
    noGrad(() =>
      scope(() => {
        for (const [i, average] of this.#averages.entries()) average.copy_(list[i] as Tensor)
      }),
    )
    this.#count = state.n_averaged
  }

  dispose(): void {
    for (const average of this.#averages) average.dispose()
  }

  [Symbol.dispose](): void {
    this.dispose()
  }
}

const copyAll = opAsync('aten::_foreach_copy_')
const lerp = opAsync('aten::_foreach_lerp_')

function lerpAll(averages: Tensor[], params: Tensor[], weight: number): Promise<unknown> {
  return lerp(averages, params, weight)
}

function pairsByKind(averages: Tensor[], params: Tensor[]): [Tensor[], Tensor[]][] {
  const kinds = new Map<string, [Tensor[], Tensor[]]>()
  params.forEach((param, i) => {
    const kind = `${param.device} ${param.dtype}`
    const pair = kinds.get(kind) ?? [[], []]
    pair[0].push(averages[i] as Tensor)
    pair[1].push(param)
    kinds.set(kind, pair)
  })
  return [...kinds.values()]
}
