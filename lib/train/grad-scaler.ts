import { misuse, requireFunction, requireNumber, requireObject, requireOptions, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { full, noGrad, scope, stack, Tensor, zeros } from '../tensor/index.js'
import { dense } from './gradients.js'
import { PendingNumber } from './pending.js'

export interface GradScalerOptions {
  /** The first scale. Default 65536. */
  initScale?: number
  /** What the scale is multiplied with after `growthInterval` good steps in a row. Default 2. */
  growthFactor?: number
  /** What it is multiplied with after a step with an infinite or NaN gradient. Default 0.5. */
  backoffFactor?: number
  /** Default 2000. */
  growthInterval?: number
  /** `false` makes every method do nothing beside its work on the optimiser. Default true. */
  enabled?: boolean
}

/** What a scaler needs of an optimiser. */
export interface ScaledOptimizer {
  groups: { params: Tensor[] }[]
  step(): Promise<void>
}

/** `torch.amp.GradScaler.state_dict()`, key for key; empty when it is not enabled. */
export type GradScalerState =
  | { scale: number; growth_factor: number; backoff_factor: number; growth_interval: number; _growth_tracker: number }
  | Record<string, never>

interface Progress {
  stage: 'ready' | 'unscaled' | 'stepped'
  /** Above 0 where a gradient is infinite or NaN; null where none was looked at, or when it has been read. */
  found: PendingNumber | null
  foundInf: boolean
}

const DEFAULTS = { initScale: 65536, growthFactor: 2, backoffFactor: 0.5, growthInterval: 2000, enabled: true }

/**
 * Keeps small float16 gradients above zero: the loss is multiplied by a scale before backward, the gradients divided by
 * it before the step, and a step with an infinite or NaN gradient is left out. The scale falls then, and grows after many
 * good steps (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740). `torch.amp.GradScaler`, number for number.
 *
 * ```ts
 * const loss = autocast({ dtype: 'float16' }, () => lossOf(batch))
 * await scaler.scale(loss).backward()
 * await scaler.unscale(optimizer)      // only where gradients are clipped
 * await clipGradNorm(params, 1)
 * await scaler.step(optimizer)
 * scaler.update()
 * ```
 *
 * The parameters are float32: float16 gradients cannot be unscaled.
 */
export class GradScaler {
  readonly enabled: boolean
  #scale: number
  #growthFactor: number
  #backoffFactor: number
  #growthInterval: number
  #goodSteps = 0
  #optimizers = new Map<ScaledOptimizer, Progress>()

  constructor(options: GradScalerOptions = {}) {
    requireOptions('GradScaler', options, Object.keys(DEFAULTS))
    const { initScale, growthFactor, backoffFactor, growthInterval, enabled } = { ...DEFAULTS, ...options }
    requireNumber('GradScaler', 'initScale', initScale, { least: 0 })
    requireNumber('GradScaler', 'growthFactor', growthFactor)
    if (!(growthFactor > 1)) throw misuse('GradScaler', 'growthFactor', 'a number above 1', growthFactor)
    requireNumber('GradScaler', 'backoffFactor', backoffFactor, { least: 0, below: 1 })
    requireWhole('GradScaler', 'growthInterval', growthInterval, 1)
    this.enabled = Boolean(enabled)
    this.#scale = Math.fround(initScale)
    this.#growthFactor = growthFactor
    this.#backoffFactor = backoffFactor
    this.#growthInterval = growthInterval
  }

  /** The scale as it is now; 1 when it is not enabled. */
  getScale(): number {
    return this.enabled ? this.#scale : 1
  }

  /** The loss, or losses, times the scale. */
  scale(loss: Tensor): Tensor
  scale(losses: readonly Tensor[]): Tensor[]
  scale(loss: Tensor | readonly Tensor[]): Tensor | Tensor[] {
    if (Array.isArray(loss)) return loss.map((one) => this.scale(one as Tensor))
    if (!(loss instanceof Tensor)) throw misuse('GradScaler.scale', 'loss', 'a Tensor', loss)
    // A float32 factor of no dimensions would not widen a float16 loss; a number neither does.
    return this.enabled ? loss.mul(this.#scale) : loss
  }

  /**
   * Divides the gradients of an optimiser's parameters by the scale, once per step: before they are clipped or looked at.
   * @throws ConfigError when called twice in a step, or for float16 gradients
   */
  async unscale(optimizer: ScaledOptimizer): Promise<void> {
    if (!this.enabled) return
    const progress = this.#progressOf(optimizer, 'unscale')
    if (progress.stage === 'unscaled') {
      throw new ConfigError('GradScaler.unscale was already called for this optimiser since the last update()', {})
    }
    if (progress.stage === 'stepped') throw new ConfigError('GradScaler.unscale was called after step()', {})
    // Read by step(), or before it with the norm of clipGradNorm.
    progress.found = await this.#unscaled(optimizer)
    progress.stage = 'unscaled'
  }

  /**
   * `optimizer.step()`, unless a gradient is infinite or NaN; unscales first where that was not done.
   * @returns whether the step was taken
   */
  async step(optimizer: ScaledOptimizer): Promise<boolean> {
    requireObject('GradScaler.step', 'optimizer', optimizer)
    requireFunction('GradScaler.step', 'the step of the optimiser', optimizer.step)
    if (!this.enabled) {
      await optimizer.step()
      return true
    }
    const progress = this.#progressOf(optimizer, 'step')
    if (progress.stage === 'stepped') {
      throw new ConfigError('GradScaler.step was already called for this optimiser since the last update()', {})
    }
    if (progress.stage === 'ready') await this.unscale(optimizer)
    if (progress.found) progress.foundInf = (await progress.found.value()) !== 0
    progress.found = null
    if (!progress.foundInf) await optimizer.step()
    progress.stage = 'stepped'
    return !progress.foundInf
  }

  /**
   * Sets the scale for the next iteration, after all optimisers' steps; to `newScale` where given.
   * @throws ConfigError where nothing was unscaled since the last update
   */
  update(newScale?: number): void {
    if (!this.enabled) return
    if (newScale !== undefined) {
      requireNumber('GradScaler.update', 'newScale', newScale, { least: 0 })
      this.#scale = Math.fround(newScale)
    } else {
      const seen = [...this.#optimizers.values()].filter(({ stage }) => stage !== 'ready')
      if (seen.length === 0) throw new ConfigError('GradScaler.update needs a step() or unscale() before it', {})
      this.#adapt(seen.some(({ found, foundInf }) => (found ? found.now() !== 0 : foundInf)))
    }
    for (const { found } of this.#optimizers.values()) found?.forget()
    this.#optimizers.clear()
  }

  /** PyTorch's keys; plain numbers, fit for JSON. */
  stateDict(): GradScalerState {
    if (!this.enabled) return {}
    return {
      scale: this.#scale,
      growth_factor: this.#growthFactor,
      backoff_factor: this.#backoffFactor,
      growth_interval: this.#growthInterval,
      _growth_tracker: this.#goodSteps,
    }
  }

  /** Throws `CheckpointError` if it is no enabled scaler's state. */
  loadStateDict(state: GradScalerState): void {
    if (!this.enabled) return
    const keys = ['scale', 'growth_factor', 'backoff_factor', 'growth_interval', '_growth_tracker'] as const
    const bad = keys.find((key) => typeof (state as Record<string, unknown> | null)?.[key] !== 'number')
    if (bad) {
      throw new CheckpointError(
        `The state of a GradScaler needs the number ${bad}; a scaler that was not enabled saved none`,
        {},
      )
    }
    const { scale, growth_factor, backoff_factor, growth_interval, _growth_tracker } = state
    this.#scale = scale as number
    this.#growthFactor = growth_factor as number
    this.#backoffFactor = backoff_factor as number
    this.#growthInterval = growth_interval as number
    this.#goodSteps = _growth_tracker as number
  }

  /** aten::_amp_update_scale_, whose arithmetic is in float32 and which does not grow beyond it. */
  #adapt(foundInf: boolean): void {
    if (foundInf) {
      this.#scale = Math.fround(this.#scale * this.#backoffFactor)
      this.#goodSteps = 0
      return
    }
    this.#goodSteps += 1
    if (this.#goodSteps < this.#growthInterval) return
    const grown = Math.fround(this.#scale * this.#growthFactor)
    if (Number.isFinite(grown)) this.#scale = grown
    this.#goodSteps = 0
  }

  #progressOf(optimizer: ScaledOptimizer, method: string): Progress {
    if (!Array.isArray(optimizer?.groups)) {
      throw misuse(`GradScaler.${method}`, 'optimizer', 'an optimiser', optimizer)
    }
    const known = this.#optimizers.get(optimizer) ?? { stage: 'ready', found: null, foundInf: false }
    this.#optimizers.set(optimizer, known)
    return known
  }

  async #unscaled(optimizer: ScaledOptimizer): Promise<PendingNumber | null> {
    return scope(() =>
      noGrad(async () => {
        // As in PyTorch the reciprocal is rounded from double precision.
        const inverse = Math.fround(1 / this.#scale)
        const kinds = new Map<string, Tensor[]>()
        for (const { params } of optimizer.groups) {
          for (const param of params) {
            if (!param.grad) continue
            const grad = dense(param.grad)
            if (grad.dtype === 'float16') {
              throw new ConfigError(
                'GradScaler cannot unscale float16 gradients: keep the parameters in float32 and compute in autocast',
                { dtype: grad.dtype },
              )
            }
            const kind = `${grad.device} ${grad.dtype}`
            kinds.set(kind, [...(kinds.get(kind) ?? []), grad])
          }
        }
        const found: Tensor[] = []
        const jobs: Promise<unknown>[] = []
        for (const grads of kinds.values()) {
          const { device } = grads[0] as Tensor
          // Filled there: a copy would wait for the backward pass.
          const inf = zeros([1], { dtype: 'float32', device })
          found.push(inf)
          jobs.push(unscaleAll(grads, inf, full([1], inverse, { dtype: 'float32', device })))
        }
        await Promise.all(jobs)
        const [first, ...others] = found
        if (first === undefined) return null
        if (others.length === 0) return new PendingNumber(first)
        return new PendingNumber(stack([first, ...others.map((one) => one.to({ device: first.device }))]).max())
      }),
    )
  }
}

const unscaleAll = opAsync('aten::_amp_foreach_non_finite_check_and_unscale_')
