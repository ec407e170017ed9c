import { listOf, misuse, requireNumber, requireOptions } from '../base/check.js'
import { Module } from '../nn/module.js'
import { LayerNorm } from '../nn/normalization.js'
import type { Tensor } from '../tensor/index.js'

export interface ParameterGroupOptions {
  /** Of every parameter but those below. */
  weightDecay: number
  /**
   * Parameters without decay: regular expressions that are looked for in the lower-case name. Default: transformers'
   * {@link NO_DECAY}; and whatever the patterns, weights inside a `LayerNorm` have none. Or a function that alone decides,
   * by a parameter's name and the parameter.
   */
  noDecay?: readonly (RegExp | string)[] | ((name: string, parameter: Tensor) => boolean)
}

export interface DecayGroup {
  params: Tensor[]
  weightDecay: number
}

/** transformers' patterns of names without weight decay: biases and the weights of norms. */
export const NO_DECAY: readonly RegExp[] = [/bias/, /layernorm/, /rmsnorm/, /(?:^|\.)norm(?:$|\.)/, /_norm(?:$|\.)/]

/**
 * Two groups for an optimiser, with weight decay and without, as transformers' `Trainer` makes them. Frozen parameters
 * are in neither, a group without parameters is left out, and a parameter with several names is in the first's group.
 *
 * ```ts
 * new AdamW(parameterGroups(model, { weightDecay: 0.01 }), { lr: 1e-4 })
 * ```
 */
export function parameterGroups(model: Module, options: ParameterGroupOptions): DecayGroup[] {
  if (!(model instanceof Module)) throw misuse('parameterGroups', 'model', 'a Module', model)
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
      throw misuse('parameterGroups', 'a pattern of noDecay', 'a string or RegExp', pattern)
    }
    // Without g and y, whose matches depend on the ones before.
    return new RegExp(pattern, pattern instanceof RegExp ? pattern.flags.replace(/[gy]/g, '') : '')
  })
  const norms = [...model.namedModules()].filter(([, module]) => module instanceof LayerNorm).map(([name]) => name)
  return (name) =>
    patterns.some((pattern) => pattern.test(name.toLowerCase())) ||
    norms.some((norm) => norm === '' || name.startsWith(`${norm}.`))
}
