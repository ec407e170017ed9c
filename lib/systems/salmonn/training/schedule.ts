import { requireNumber, requireOneOf, requireOptions, requireWhole } from '../../../base/check.js'
import { LRScheduler, type Schedule, type Scheduled } from '../../../train/schedules.js'
import { SALMONN_RECIPE } from './recipe.js'

export interface SalmonnScheduleOptions {
  /** Peak learning rate. Default 3e-5. */
  learningRate?: number
  /** Learning rate at the start. Default 1e-6. */
  warmupStartLearningRate?: number
  /** Final learning rate. Default 1e-5. */
  minLearningRate?: number
  /** Iterations with a rising rate. Default 3000. */
  warmupSteps?: number
  /** Number of epochs. Default 30. */
  epochs?: number
  /** Iterations per epoch. Default 3000. */
  iterationsPerEpoch?: number
  /** Default: one warm-up. 'published': warm-up counts within an epoch, so one that is longer than an epoch restarts in each. */
  compat?: 'published'
}

/**
 * Return the learning rate at an iteration of an epoch, both from 0: a linear warm-up, then a cosine that starts at the first iteration, so
 * that there is a small step where the two meet.
 */
export function salmonnLearningRate(
  options: SalmonnScheduleOptions = {},
): (epoch: number, iteration: number) => number {
  const where = 'salmonnLearningRate'
  // A whole recipe is valid as well.
  requireOptions(where, options, [...Object.keys(SALMONN_RECIPE), 'compat'])
  const { learningRate = 3e-5, warmupStartLearningRate = 1e-6, minLearningRate = 1e-5 } = options
  const { warmupSteps = 3000, epochs = 30, iterationsPerEpoch = 3000, compat } = options
  requireNumber(where, 'learningRate', learningRate, { least: 0 })
  requireNumber(where, 'warmupStartLearningRate', warmupStartLearningRate, { least: 0 })
  requireNumber(where, 'minLearningRate', minLearningRate, { least: 0 })
  requireWhole(where, 'warmupSteps', warmupSteps)
  requireNumber(where, 'epochs', epochs, { least: 0 })
  requireWhole(where, 'iterationsPerEpoch', iterationsPerEpoch, 1)
  if (compat !== undefined) requireOneOf(where, 'compat', compat, ['published'])
  return (epoch, iteration) => {
    requireNumber(where, 'epoch', epoch)
    requireNumber(where, 'iteration', iteration)
    const total = epoch * iterationsPerEpoch + iteration
    if (total < warmupSteps) {
      const climbed = compat === 'published' ? iteration : total
      const rate = warmupStartLearningRate + ((learningRate - warmupStartLearningRate) * climbed) / warmupSteps
      return Math.min(learningRate, rate)
    }
    const done = Math.min(1, total / (epochs * iterationsPerEpoch))
    return minLearningRate + 0.5 * (learningRate - minLearningRate) * (1 + Math.cos(Math.PI * done))
  }
}

/**
 * Create the same schedule for the Trainer. Each optimizer step uses the rate of the last of its `accumulation` iterations. Set the
 * optimizer's learning rate to the peak.
 */
export function salmonnScheduler(
  optimizer: Scheduled,
  options: SalmonnScheduleOptions & { accumulation?: number } = {},
): LRScheduler {
  requireOptions('salmonnScheduler', options, [...Object.keys(SALMONN_RECIPE), 'compat'])
  const { accumulation = 1, ...rest } = options
  requireWhole('salmonnScheduler', 'accumulation', accumulation, 1)
  const { learningRate = 3e-5, iterationsPerEpoch = 3000 } = rest
  const rate = salmonnLearningRate(rest)
  const schedule: Schedule = (step) => {
    const iteration = step * accumulation + accumulation - 1
    const at = rate(Math.floor(iteration / iterationsPerEpoch), iteration % iterationsPerEpoch)
    return learningRate === 0 ? 0 : at / learningRate
  }
  return new LRScheduler(optimizer, schedule)
}
