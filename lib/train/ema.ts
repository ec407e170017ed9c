import { argumentError, listOf, requireNumber, requireOptions } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { noGrad, scope, Tensor } from '../tensor/index.js'
import { keepForever } from '../tensor/scope.js'

export interface EmaOptions {
  /** Fraction of the average that each update keeps. Default 0.999, as in `get_ema_multi_avg_fn`. */
  decay?: number
}

/** Averages in the order of the parameters, and the number of updates. */
export interface EmaState {
  n_averaged: number
  decay: number
  averages: Tensor[]
}

/**
 * Exponential moving average of a model's weights: average ← decay · average + (1 − decay) · weight after each step; the first
 * update copies the weights. The arithmetic is that of `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`. It
 * owns the averages; `dispose()` or `using` frees them.
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
    if (decay > 1) throw argumentError('ExponentialMovingAverage', 'decay', 'a number from 0 to 1', decay)
    this.#decay = decay
    this.#params = listOf('ExponentialMovingAverage', 'params', params, 'tensors')
    if (this.#params.length === 0)
      throw new ConfigError('ExponentialMovingAverage: expected at least one parameter, got none', {})
    for (const param of this.#params) {
      if (!(param instanceof Tensor)) {
        throw argumentError('ExponentialMovingAverage', 'a parameter', 'a Tensor', param)
      }
      if (!/^b?float/.test(param.dtype)) {
        throw argumentError('ExponentialMovingAverage', "a parameter's dtype", 'floating point', param.dtype)
      }
    }
    this.#averages = noGrad(() => this.#params.map((param) => keepForever(param.clone())))
  }

  /** Number of calls of {@link update}. */
  get count(): number {
    return this.#count
  }

  /** Update the averages with the current weights, on the executor. */
  async update(): Promise<void> {
    if (this.#swapped)
      throw new ConfigError(
        'ExponentialMovingAverage.update: expected the weights in the model, got the averages. Call swap() first',
        {},
      )
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

  /** Swap the weights and the averages; a second call restores them bit for bit. */
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

  /** Run `fn` with the averages in the model, and restore the weights, also if it throws. */
  async with<T>(fn: () => T | Promise<T>): Promise<T> {
    if (typeof fn !== 'function') throw argumentError('ExponentialMovingAverage.with', 'fn', 'a function', fn)
    if (this.#swapped)
      throw new ConfigError(
        'ExponentialMovingAverage.with: expected the weights in the model, got the averages. Call swap() first',
        {},
      )
    await this.swap()
    try {
      return await fn()
    } finally {
      await this.swap()
    }
  }

  /** Return the state. Its tensors are not copies: save or clone them before the next update. */
  stateDict(): EmaState {
    if (this.#swapped)
      throw new ConfigError(
        'ExponentialMovingAverage.stateDict: expected the weights in the model, got the averages. Call swap() first',
        {},
      )
    return { n_averaged: this.#count, decay: this.#decay, averages: [...this.#averages] }
  }

  /** Load copies of a state. @throws CheckpointError if the state does not match the parameters */
  loadStateDict(state: EmaState): void {
    const shapes = (tensors: readonly Tensor[]) => tensors.map(({ shape }) => `[${shape}]`).join(' ')
    const list = state?.averages
    if (
      !Array.isArray(list) ||
      !list.every((one) => one instanceof Tensor) ||
      !Number.isSafeInteger(state.n_averaged)
    ) {
      throw new CheckpointError(
        'ExponentialMovingAverage.loadStateDict: expected n_averaged and a list of averages in the state',
        {},
      )
    }
    if (shapes(list) !== shapes(this.#averages)) {
      throw new CheckpointError(
        `ExponentialMovingAverage.loadStateDict: expected averages of shapes ${shapes(this.#averages)}, got ${shapes(list)}`,
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
