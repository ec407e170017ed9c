import { argumentError, requireNumber } from '../../../base/check.js'
import type { ChangesOf } from '../../../base/settings.js'
import { Module } from '../../../nn/index.js'
import { type AdamOptions, AdamW } from '../../../train/adam.js'
import { clipGradNorm } from '../../../train/clip.js'
import { type DecayGroup, parameterGroups } from '../../../train/parameter-groups.js'
import { SALMONN_SETTINGS } from './recipe.js'

/**
 * Group the trainable parameters by weight decay, as published: parameters of fewer than two dimensions, and those with `bias`, `ln` or `bn`
 * in their name, have none. The query tokens and LoRA's matrices decay.
 */
export function salmonnParameterGroups(model: Module, weightDecay = 0.05): DecayGroup[] {
  if (!(model instanceof Module)) throw argumentError('salmonnParameterGroups', 'model', 'a Module', model)
  requireNumber('salmonnParameterGroups', 'weightDecay', weightDecay, { least: 0 })
  return parameterGroups(model, { weightDecay, noDecay: (name, { ndim }) => !decays(name, ndim) })
}

/** Return whether a parameter has weight decay, by its name and number of dimensions. */
export const decays = (name: string, ndim: number): boolean => ndim >= 2 && !/bias|ln|bn/.test(name)

/** AdamW that skips a step with gradients that are not finite, without changes to weights and state. */
export class FiniteAdamW extends AdamW {
  /** Number of skipped steps. */
  skipped = 0

  override async step(): Promise<void> {
    const params = this.groups.flatMap((group) => group.params)
    const norm = await clipGradNorm(params, Number.POSITIVE_INFINITY)
    if (Number.isFinite(norm)) return super.step()
    this.skipped += 1
  }
}

export function salmonnOptimizer(model: Module, options: ChangesOf<typeof SALMONN_SETTINGS.table> = {}): FiniteAdamW {
  const { learningRate: lr, weightDecay, betas, eps } = SALMONN_SETTINGS.read('salmonnOptimizer', options)
  const adam: Partial<AdamOptions> = { lr, weightDecay, betas, eps, masterWeights: true }
  return new FiniteAdamW(salmonnParameterGroups(model, weightDecay), adam)
}
