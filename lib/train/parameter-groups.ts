import { argumentError, listOf, requireNumber, requireOptions } from '../base/check.js'
import { Module } from '../nn/module.js'
import { LayerNorm } from '../nn/normalization.js'
import type { Tensor } from '../tensor/index.js'

export interface ParameterGroupOptions {
  /** Weight decay of every parameter that `noDecay` does not match. */
  weightDecay: number
  /**
   * Parameters without decay: regular expressions searched in the lower-case name. Default: transformers' (biases and norms).
   * Weights inside a `LayerNorm` never have decay with patterns. Or a function of a parameter's name and the parameter, which
   * alone decides.
   */
  noDecay?: readonly (RegExp | string)[] | ((name: string, parameter: Tensor) => boolean)
}

export interface DecayGroup {
  params: Tensor[]
  weightDecay: number
}

/** transformers' patterns of names without weight decay: biases and normalization weights. */
export const NO_DECAY: readonly RegExp[] = [/bias/, /layernorm/, /rmsnorm/, /(?:^|\.)norm(?:$|\.)/, /_norm(?:$|\.)/]

/**
 * Return two groups for an optimizer, with weight decay and without, as transformers' `Trainer` does. Frozen parameters are
 * left out, and so is a group without parameters. A parameter with several names is in the first name's group.
 *
 * ```ts
 * new AdamW(parameterGroups(model, { weightDecay: 0.01 }), { lr: 1e-4 })
 * ```
 */
export function parameterGroups(model: Module, options: ParameterGroupOptions): DecayGroup[] {
  if (!(model instanceof Module)) throw argumentError('parameterGroups', 'model', 'a Module', model)
  requireOptions('parameterGroups', options, ['weightDecay', 'noDecay'])
  const { weightDecay, noDecay = NO_DECAY } = options
  requireNumber('parameterGroups', 'weightDecay', weightDecay, { least: 0 })
  const isSpared = typeof noDecay === 'function' ? noDecay : sparedByName(model, noDecay)
  const groups: [DecayGroup, DecayGroup] = [
    { params: [], weightDecay },
    { params: [], weightDecay: 0 },
  ]
  for (const [name, param] of model.namedParameters()) {
    if (param.requiresGrad) groups[isSpared(name, param) ? 1 : 0].params.push(param)
  }
  return groups.filter(({ params }) => params.length > 0)
}

function sparedByName(model: Module, noDecay: readonly (RegExp | string)[]): (name: string) => boolean {
  const patterns = listOf('parameterGroups', 'noDecay', noDecay, 'patterns').map((pattern) => {
    if (typeof pattern !== 'string' && !(pattern instanceof RegExp)) {
      throw argumentError('parameterGroups', 'a pattern of noDecay', 'a string or RegExp', pattern)
    }
    // Drop the flags g and y, which make a match depend on the previous ones.
    return new RegExp(pattern, pattern instanceof RegExp ? pattern.flags.replace(/[gy]/g, '') : '')
  })
  const norms = [...model.namedModules()].filter(([, module]) => module instanceof LayerNorm).map(([name]) => name)
  return (name) =>
    patterns.some((pattern) => pattern.test(name.toLowerCase())) ||
    norms.some((norm) => norm === '' || name.startsWith(`${norm}.`))
}
