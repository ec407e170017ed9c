import {
  argumentError,
  requireFunction,
  requireNumber,
  requireObject,
  requireOptions,
  requireWhole,
} from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { full, noGrad, scope, stack, Tensor, zeros } from '../tensor/index.js'
import { dense } from './gradients.js'
import { PendingNumber } from './pending.js'

export interface GradScalerOptions {
  /** Initial scale. Default 65536. */
  initScale?: number
  /** Factor on the scale after `growthInterval` consecutive finite steps. Default 2. */
  growthFactor?: number
  /** Factor on the scale after a step with an infinite or NaN gradient. Default 0.5. */
  backoffFactor?: number
  /** Consecutive finite steps before the scale grows. Default 2000. */
  growthInterval?: number
  /** With `false`, no method scales anything; `step` only steps the optimizer. Default true. */
  enabled?: boolean
}

/** Interface that a scaler needs of an optimizer. */
export interface ScaledOptimizer {
  groups: { params: Tensor[] }[]
  step(): Promise<void>
}

/** State under the keys of `torch.amp.GradScaler.state_dict()`; empty if the scaler is disabled. */
export type GradScalerState =
  | { scale: number; growth_factor: number; backoff_factor: number; growth_interval: number; _growth_tracker: number }
  | Record<string, never>

interface Progress {
  stage: 'ready' | 'unscaled' | 'stepped'
  /** Above 0 if a gradient is infinite or NaN; null if none was checked, or after it was read. */
  found: PendingNumber | null
  foundInf: boolean
}

const DEFAULTS = { initScale: 65536, growthFactor: 2, backoffFactor: 0.5, growthInterval: 2000, enabled: true }

/**
 * Gradient scaler for float16 training. The loss is multiplied by a scale before backward, so that small gradients do not
 * underflow, and the gradients are divided by it before the step. A step with an infinite or NaN gradient is skipped and lowers
 * the scale; many finite steps raise it (Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740). The numbers are those of
 * `torch.amp.GradScaler`.
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
 * Parameters must be float32: float16 gradients cannot be unscaled.
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
    if (!(growthFactor > 1)) throw argumentError('GradScaler', 'growthFactor', 'a number above 1', growthFactor)
    requireNumber('GradScaler', 'backoffFactor', backoffFactor, { least: 0, below: 1 })
    requireWhole('GradScaler', 'growthInterval', growthInterval, 1)
    this.enabled = Boolean(enabled)
    this.#scale = Math.fround(initScale)
    this.#growthFactor = growthFactor
    this.#backoffFactor = backoffFactor
    this.#growthInterval = growthInterval
  }

  /** Return the current scale; 1 if the scaler is disabled. */
  getScale(): number {
    return this.enabled ? this.#scale : 1
  }

  /** Multiply the loss, or losses, by the scale. */
  scale(loss: Tensor): Tensor
  scale(losses: readonly Tensor[]): Tensor[]
  scale(loss: Tensor | readonly Tensor[]): Tensor | Tensor[] {
    if (Array.isArray(loss)) return loss.map((one) => this.scale(one as Tensor))
    if (!(loss instanceof Tensor)) throw argumentError('GradScaler.scale', 'loss', 'a Tensor', loss)
    // A zero-dimensional float32 tensor would not promote a float16 loss; neither does a number.
    return this.enabled ? loss.mul(this.#scale) : loss
  }

  /**
   * Divide the gradients of an optimizer's parameters by the scale, once per step, before they are clipped or inspected.
   * @throws ConfigError if called twice in a step, or for float16 gradients
   */
  async unscale(optimizer: ScaledOptimizer): Promise<void> {
    if (!this.enabled) return
    const progress = this.#progressOf(optimizer, 'unscale')
    if (progress.stage === 'unscaled') {
      throw new ConfigError(
        'GradScaler.unscale: expected one call for this optimizer since the last update(), got a second',
        {},
      )
    }
    if (progress.stage === 'stepped')
      throw new ConfigError('GradScaler.unscale: expected a call before step(), got one after it', {})
    // Read by step(), or earlier together with the norm of clipGradNorm.
    progress.found = await this.#unscaled(optimizer)
    progress.stage = 'unscaled'
  }

  /**
   * Call `optimizer.step()`, unless a gradient is infinite or NaN. Unscales first if that was not done.
   * @returns whether the step was taken
   */
  async step(optimizer: ScaledOptimizer): Promise<boolean> {
    requireObject('GradScaler.step', 'optimizer', optimizer)
    requireFunction('GradScaler.step', 'the step of the optimizer', optimizer.step)
    if (!this.enabled) {
      await optimizer.step()
      return true
    }
    const progress = this.#progressOf(optimizer, 'step')
    if (progress.stage === 'stepped') {
      throw new ConfigError(
        'GradScaler.step: expected one call for this optimizer since the last update(), got a second',
        {},
      )
    }
    if (progress.stage === 'ready') await this.unscale(optimizer)
    if (progress.found) progress.foundInf = (await progress.found.value()) !== 0
    progress.found = null
    if (!progress.foundInf) await optimizer.step()
    progress.stage = 'stepped'
    return !progress.foundInf
  }

  /**
   * Set the scale for the next iteration, after all optimizers' steps, or set it to `newScale`.
   * @throws ConfigError if nothing was unscaled since the last update
   */
  update(newScale?: number): void {
    if (!this.enabled) return
    if (newScale !== undefined) {
      requireNumber('GradScaler.update', 'newScale', newScale, { least: 0 })
      this.#scale = Math.fround(newScale)
    } else {
      const unscaled = [...this.#optimizers.values()].filter(({ stage }) => stage !== 'ready')
      if (unscaled.length === 0)
        throw new ConfigError('GradScaler.update: expected a step() or unscale() before it, got neither', {})
      this.#adapt(unscaled.some(({ found, foundInf }) => (found ? found.now() !== 0 : foundInf)))
    }
    for (const { found } of this.#optimizers.values()) found?.forget()
    this.#optimizers.clear()
  }

  /** Return the state under PyTorch's keys: plain numbers that JSON can store. */
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

  /** Load a state. @throws CheckpointError if it is not the state of an enabled scaler */
  loadStateDict(state: GradScalerState): void {
    if (!this.enabled) return
    const keys = ['scale', 'growth_factor', 'backoff_factor', 'growth_interval', '_growth_tracker'] as const
    const bad = keys.find((key) => typeof (state as Record<string, unknown> | null)?.[key] !== 'number')
    if (bad) {
      throw new CheckpointError(
        `GradScaler.loadStateDict: expected the number ${bad} in the state; a disabled scaler saves none`,
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

  /** Update the scale as aten::_amp_update_scale_ does: in float32, without growing beyond its range. */
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
      throw argumentError(`GradScaler.${method}`, 'optimizer', 'an optimizer', optimizer)
    }
    const known = this.#optimizers.get(optimizer) ?? { stage: 'ready', found: null, foundInf: false }
    this.#optimizers.set(optimizer, known)
    return known
  }

  async #unscaled(optimizer: ScaledOptimizer): Promise<PendingNumber | null> {
    return scope(() =>
      noGrad(async () => {
        // PyTorch rounds the reciprocal from double precision.
        const inverse = Math.fround(1 / this.#scale)
        const kinds = new Map<string, Tensor[]>()
        for (const { params } of optimizer.groups) {
          for (const param of params) {
            if (!param.grad) continue
            const grad = dense(param.grad)
            if (grad.dtype === 'float16') {
              throw new ConfigError(
                'GradScaler.unscale: expected float32 gradients, got float16. Keep the parameters in float32 and compute in autocast',
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
          // Create the tensor on the device: a copy would wait for the backward pass.
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
