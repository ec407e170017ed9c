import { argumentError, requireNumber, requireOneOf } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { Module } from '../../../nn/index.js'
import type { Tensor } from '../../../tensor/index.js'
import { type AdamOptions, AdamW } from '../../../train/adam.js'
import type { ParamsOrGroups } from '../../../train/optimizer.js'
import { type DecayGroup, parameterGroups } from '../../../train/parameter-groups.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'

const GROUP_SETTINGS = settings({
  weightDecay: { type: 'number', required: true },
  mode: { type: ['sane', 'published'], default: 'sane' },
})
const OPTIMIZER_SETTINGS = settings({
  ...GROUP_SETTINGS.table,
  learningRate: { type: 'number', required: true },
  correction: { type: 'boolean', default: true },
})
const STEPS_SETTINGS = settings({
  epochs: { type: 'number', required: true },
  batchSize: { type: 'number', required: true },
  accumulation: { type: 'number', default: 1 },
  worldSize: { type: 'number', default: 1 },
})

/** 'sane': weight decay by the kind of parameter; 'published': by name, as in the original. */
export type SpectraOptimizerMode = 'sane' | 'published'

const PUBLISHED_NO_DECAY = ['bias', 'LayerNorm.weight', 'LayerNorm.bias']
// Scales in tensors with several dimensions: those of weight norm (both spellings), and of WavLM's gate.
const SCALES = /(^|\.)(weight_g|original0|gru_rel_pos_const)$/

/**
 * Return parameter groups with and without weight decay.
 *
 * - 'published': no decay for names that contain `bias`, `LayerNorm.weight` or `LayerNorm.bias`. WavLM's norms are called `layer_norm` and
 *   so decay, like the scale of its weight norm and the vectors that separate clips.
 * - 'sane': no decay for parameters with one dimension (biases, norms, those vectors), and for scales.
 *
 * Frozen parameters are in neither group, and an empty group is omitted.
 */
export function spectraParameterGroups(model: Module, options: ChangesOf<typeof GROUP_SETTINGS.table>): DecayGroup[] {
  const where = 'spectraParameterGroups'
  if (!(model instanceof Module)) throw argumentError(where, 'model', 'a Module', model)
  const { weightDecay, mode } = GROUP_SETTINGS.read(where, options)
  const spared = (name: string, parameter: Tensor) =>
    mode === 'published'
      ? PUBLISHED_NO_DECAY.some((part) => name.includes(part))
      : parameter.ndim <= 1 || SCALES.test(name)
  return parameterGroups(model, { weightDecay, noDecay: spared })
}

// beta ** 10^6 is 0 for every beta below 0.9999, so the corrections are 1. float32 represents steps exactly up to 2^24.
const LONG_AGO = 1e6

/**
 * AdamW without bias correction, like apex's FusedAdam with `bias_correction=False`, which the original uses in mixed precision. The step
 * count of each parameter, which is only used for the correction, starts at 10^6.
 */
export class SpectraAdamW extends AdamW {
  constructor(params: ParamsOrGroups<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, options)
    for (const beta of this.defaults.betas) {
      if (beta ** LONG_AGO > 1e-12) throw argumentError('SpectraAdamW', 'betas', 'numbers below 0.99997', beta)
    }
  }

  protected override stateOf(param: Tensor, make: () => Record<string, Tensor>): Record<string, Tensor> {
    return super.stateOf(param, () => {
      const state = make()
      state.step?.fill_(LONG_AGO)
      return state
    })
  }
}

/** Return the optimizer of fine-tuning; 'published' with `correction` false is what the original uses with apex. */
export function spectraOptimizer(model: Module, options: ChangesOf<typeof OPTIMIZER_SETTINGS.table>): AdamW {
  requireForm('spectraOptimizer', 'model', model, Module)
  const { learningRate: lr, weightDecay, mode, correction } = OPTIMIZER_SETTINGS.read('spectraOptimizer', options)
  const groups = spectraParameterGroups(model, { weightDecay, mode })
  const adam = { lr, betas: [0.9, 0.999] as [number, number], eps: 1e-8, weightDecay }
  return correction ? new AdamW(groups, adam) : new SpectraAdamW(groups, adam)
}

/** Return the number of optimizer steps of a training. The last step of an epoch may have fewer batches. */
export function spectraSteps(samples: number, options: ChangesOf<typeof STEPS_SETTINGS.table>): number {
  requireNumber('spectraSteps', 'samples', samples, { least: 0 })
  const { epochs, batchSize, accumulation, worldSize } = STEPS_SETTINGS.read('spectraSteps', options)
  return Math.ceil(epochs * Math.max(1, Math.ceil(samples / (batchSize * accumulation * worldSize))))
}

/**
 * Return the Trainer's arguments for the learning rate: linear warmup over the fraction `warmup` of the steps, then linear decay to 0. In
 * 'published' mode the warmup steps are rounded down, and with 0 warmup steps the decay is a half cosine.
 */
export function spectraSchedule(
  steps: number,
  warmup: number,
  mode: SpectraOptimizerMode = 'sane',
): Pick<TrainingArguments, 'lrSchedulerType' | 'warmupSteps' | 'warmupRatio'> {
  requireNumber('spectraSchedule', 'steps', steps, { least: 0 })
  requireNumber('spectraSchedule', 'warmup', warmup, { least: 0 })
  requireOneOf('spectraSchedule', 'mode', mode, ['sane', 'published'])
  if (mode === 'sane') return { lrSchedulerType: 'linear', warmupRatio: warmup }
  const warmupSteps = Math.floor(warmup * steps)
  return { lrSchedulerType: warmupSteps === 0 ? 'cosine' : 'linear', warmupSteps }
}
