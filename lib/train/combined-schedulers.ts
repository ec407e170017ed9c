import { argumentError, listOf, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import type { Scheduled } from './schedules.js'
import { badState, type SchedulerState, SteppedLR, stateEntries } from './stepped-lr.js'

/** Base class of schedulers that combine several schedulers of one optimizer. */
abstract class CombinedLR {
  protected readonly schedulers: readonly SteppedLR[]

  protected constructor(where: string, schedulers: Iterable<SteppedLR>) {
    this.schedulers = listOf(where, 'schedulers', schedulers, 'schedulers')
    for (const one of this.schedulers) {
      if (!(one instanceof SteppedLR))
        throw argumentError(where, 'a scheduler', 'a SteppedLR, which steps without a metric', one)
    }
    if (this.schedulers.length === 0) throw new ConfigError(`${where}: expected at least one scheduler, got none`, {})
    if (this.schedulers.some(({ optimizer }) => optimizer !== this.optimizer)) {
      throw new ConfigError(`${where}: expected schedulers of one optimizer, got several optimizers`, {})
    }
  }

  /** Optimizer whose learning rates are set. */
  get optimizer(): Scheduled {
    return (this.schedulers[0] as SteppedLR).optimizer
  }

  /** Current learning rate of each group. */
  get lastLr(): number[] {
    return this.optimizer.groups.map(({ lr }) => lr)
  }

  /** Return the state as plain data under PyTorch's keys. */
  stateDict(): SchedulerState {
    return { _last_lr: this.lastLr, _schedulers: this.schedulers.map((one) => one.stateDict()) }
  }

  /** Load a state. @throws CheckpointError that names the entry that does not match */
  loadStateDict(state: SchedulerState): void {
    const where = this.constructor.name
    const { _schedulers: states } = stateEntries(where, state)
    if (!Array.isArray(states) || states.length !== this.schedulers.length) {
      throw badState(where, '_schedulers', `the states of its ${this.schedulers.length} schedulers`)
    }
    const before = this.schedulers.map((one) => one.stateDict())
    try {
      for (const [i, one] of this.schedulers.entries()) one.loadStateDict(states[i] as SchedulerState)
    } catch (error) {
      for (const [i, one] of this.schedulers.entries()) one.loadStateDict(before[i] as SchedulerState)
      throw error
    }
  }
}

/** Applies several schedulers, each to the rate that the previous one set: `torch.optim.lr_scheduler.ChainedScheduler`. */
export class ChainedScheduler extends CombinedLR {
  constructor(schedulers: Iterable<SteppedLR>) {
    super('ChainedScheduler', schedulers)
  }

  /** Step all schedulers, in their order. */
  step(): void {
    for (const one of this.schedulers) one.step()
  }
}

export interface SequentialLROptions {
  /** First step of each scheduler after the first, in ascending order. */
  milestones: Iterable<number>
}

/** Runs several schedulers one after the other: `torch.optim.lr_scheduler.SequentialLR`. */
export class SequentialLR extends CombinedLR {
  #milestones: number[]
  #lastEpoch = 0

  constructor(optimizer: Scheduled, schedulers: Iterable<SteppedLR>, options: SequentialLROptions) {
    super('SequentialLR', schedulers)
    if (optimizer !== this.optimizer) {
      throw new ConfigError('SequentialLR: expected schedulers of the given optimizer, got those of another', {})
    }
    const milestones = listOf('SequentialLR', 'milestones', options?.milestones, 'steps')
    milestones.forEach((step, i) => {
      requireWhole('SequentialLR', 'a milestone', step, i === 0 ? 1 : (milestones[i - 1] as number))
    })
    if (milestones.length !== this.schedulers.length - 1) {
      throw new ConfigError(
        `SequentialLR: expected ${this.schedulers.length - 1} milestones for ${this.schedulers.length} schedulers, ` +
          `got ${milestones.length}`,
        { option: 'milestones' },
      )
    }
    this.#milestones = milestones
    for (const group of optimizer.groups) group.lr = group.initialLr as number
    for (const [i, one] of this.schedulers.entries()) if (i > 0) one.rewind(false)
    ;(this.schedulers[0] as SteppedLR).rewind(true)
  }

  /** Step the active scheduler. */
  step(): void {
    this.#lastEpoch++
    const turn = this.#milestones.filter((step) => step <= this.#lastEpoch).length
    const scheduler = this.schedulers[turn] as SteppedLR
    if (turn > 0 && this.#milestones[turn - 1] === this.#lastEpoch) scheduler.restart()
    else scheduler.step()
  }

  override stateDict(): SchedulerState {
    return { _milestones: [...this.#milestones], last_epoch: this.#lastEpoch, ...super.stateDict() }
  }

  override loadStateDict(state: SchedulerState): void {
    const { _milestones: milestones, last_epoch: last } = stateEntries('SequentialLR', state)
    if (!Array.isArray(milestones) || milestones.length !== this.#milestones.length) {
      throw new CheckpointError(
        `SequentialLR.loadStateDict: expected ${this.#milestones.length} _milestones in the state`,
        {},
      )
    }
    if (![...milestones, last].every(Number.isSafeInteger)) throw badState('SequentialLR', 'last_epoch', 'integers')
    super.loadStateDict(state)
    this.#milestones = [...milestones]
    this.#lastEpoch = last as number
  }
}
