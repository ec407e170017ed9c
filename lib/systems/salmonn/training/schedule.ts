import { requireNumber } from '../../../base/check.js'
import { type ChangesOf, settings } from '../../../base/settings.js'
import { LRScheduler, type Schedule, type Scheduled } from '../../../train/schedules.js'
import { SALMONN_SETTINGS } from './recipe.js'

// A whole recipe is valid as well.
const SCHEDULE_SETTINGS = settings({
  ...SALMONN_SETTINGS.table,
  /** Iterations with a rising rate. */
  warmupSteps: { type: 'integer', default: 3000 },
  /** Iterations per epoch. */
  iterationsPerEpoch: { type: 'integer', min: 1, default: 3000 },
  /** Default: one warm-up. 'published': warm-up counts within an epoch, so one that is longer than an epoch restarts in each. */
  compat: { type: ['published'] },
})

/** @interface */
export type SalmonnScheduleOptions = ChangesOf<typeof SCHEDULE_SETTINGS.table>

/**
 * Return the learning rate at an iteration of an epoch, both from 0: a linear warm-up, then a cosine that starts at the first iteration, so
 * that there is a small step where the two meet.
 */
export function salmonnLearningRate(
  options: SalmonnScheduleOptions = {},
): (epoch: number, iteration: number) => number {
  const where = 'salmonnLearningRate'
  const read = SCHEDULE_SETTINGS.read(where, options)
  const { learningRate, warmupStartLearningRate, minLearningRate, warmupSteps, epochs, iterationsPerEpoch, compat } =
    read
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
export function salmonnScheduler(optimizer: Scheduled, options: SalmonnScheduleOptions = {}): LRScheduler {
  const read = SCHEDULE_SETTINGS.read('salmonnScheduler', options)
  const { accumulation, learningRate, iterationsPerEpoch } = read
  const rate = salmonnLearningRate(read)
  const schedule: Schedule = (step) => {
    const iteration = step * accumulation + accumulation - 1
    const at = rate(Math.floor(iteration / iterationsPerEpoch), iteration % iterationsPerEpoch)
    return learningRate === 0 ? 0 : at / learningRate
  }
  return new LRScheduler(optimizer, schedule)
}
