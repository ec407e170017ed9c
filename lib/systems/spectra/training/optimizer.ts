import { misuse, requireNumber, requireOneOf, requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { Module } from '../../../nn/index.js'
import type { Tensor } from '../../../tensor/index.js'
import { type AdamOptions, AdamW } from '../../../train/adam.js'
import type { ParamsOrGroups } from '../../../train/optimizer.js'
import { type DecayGroup, parameterGroups } from '../../../train/parameter-groups.js'
import type { TrainingArguments } from '../../../train/trainer/arguments.js'

/** 'sane': what the names should have meant; 'published': what the original does. */
export type SpectraOptimizerMode = 'sane' | 'published'

const PUBLISHED_NO_DECAY = ['bias', 'LayerNorm.weight', 'LayerNorm.bias']
// Scales that stand in tensors of several dimensions: of weight norm (both spellings), and of WavLM's gate.
const SCALES = /(^|\.)(weight_g|original0|gru_rel_pos_const)$/

/**
 * Parameters with weight decay and without.
 *
 * - 'published': without decay are those in whose name stands `bias`, `LayerNorm.weight` or `LayerNorm.bias`. WavLM's norms
 *   are called `layer_norm` and so decay, as do the scale of its weight norm and the vectors that separate clips.
 * - 'sane': without decay is what has one dimension (biases, norms, those vectors), and scales.
 *
 * Frozen parameters are in neither group, and a group without parameters is left out.
 */
export function spectraParameterGroups(
  model: Module,
  options: { weightDecay: number; mode?: SpectraOptimizerMode },
): DecayGroup[] {
  const where = 'spectraParameterGroups'
  if (!(model instanceof Module)) throw misuse(where, 'model', 'a Module', model)
  requireOptions(where, options, ['weightDecay', 'mode'])
  const { weightDecay, mode = 'sane' } = options
  requireNumber(where, 'weightDecay', weightDecay, { least: 0 })
  requireOneOf(where, 'mode', mode, ['sane', 'published'])
  const spared = (name: string, parameter: Tensor) =>
    mode === 'published'
      ? PUBLISHED_NO_DECAY.some((part) => name.includes(part))
      : parameter.ndim <= 1 || SCALES.test(name)
  return parameterGroups(model, { weightDecay, noDecay: spared })
}

// beta ** 10^6 is 0 for every beta below 0.9999: the corrections are 1. In float32 steps stay whole up to 2^24.
const LONG_AGO = 1e6

/**
 * AdamW without the correction of its first steps, as apex's FusedAdam with `bias_correction=False`, with which the
 * original trains in mixed precision. Each parameter's count of steps, which serves the correction alone, begins at 10^6.
 */
export class SpectraAdamW extends AdamW {
  constructor(params: ParamsOrGroups<AdamOptions>, options: Partial<AdamOptions> = {}) {
    super(params, options)
    for (const beta of this.defaults.betas) {
      if (beta ** LONG_AGO > 1e-12) throw misuse('SpectraAdamW', 'betas', 'below 0.99997', beta)
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

/** The optimiser of a fine-tuning; 'published' with `correction` false is what the original uses with apex. */
export function spectraOptimizer(
  model: Module,
  options: { learningRate: number; weightDecay: number; mode?: SpectraOptimizerMode; correction?: boolean },
): AdamW {
  requireForm('spectraOptimizer', 'model', model, Module)
  requireForm('spectraOptimizer', 'options', options, { learningRate: 'number', weightDecay: 'number' })
  requireOptions('spectraOptimizer', options, ['learningRate', 'weightDecay', 'mode', 'correction'])
  const { learningRate: lr, weightDecay, mode = 'sane', correction = true } = options
  const groups = spectraParameterGroups(model, { weightDecay, mode })
  const settings = { lr, betas: [0.9, 0.999] as [number, number], eps: 1e-8, weightDecay }
  return correction ? new AdamW(groups, settings) : new SpectraAdamW(groups, settings)
}

/** Optimiser steps of a training: an epoch's last step may have fewer batches. */
export function spectraSteps(
  samples: number,
  options: { epochs: number; batchSize: number; accumulation?: number; worldSize?: number },
): number {
  requireNumber('spectraSteps', 'samples', samples, { least: 0 })
  requireOptions('spectraSteps', options, ['epochs', 'batchSize', 'accumulation', 'worldSize'])
  const { epochs, batchSize, accumulation = 1, worldSize = 1 } = options
  for (const [name, value] of Object.entries({ epochs, batchSize, accumulation, worldSize })) {
    requireNumber('spectraSteps', name, value, { least: 0 })
  }
  return Math.ceil(epochs * Math.max(1, Math.ceil(samples / (batchSize * accumulation * worldSize))))
}

/**
 * The Trainer's arguments for the learning rate: up in a straight line over `warmup` of the steps, then down to 0. In
 * 'published' mode the warm-up is rounded down, and where nothing is left of it, the way down is half a cosine instead.
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
