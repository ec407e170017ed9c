import { listOf, misuse, requireWhole } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import type { Scheduled } from './schedules.js'
import { badState, type SchedulerState, SteppedLR, stateEntries } from './stepped-lr.js'

/** Schedulers of one optimiser. */
abstract class CombinedLR {
  protected readonly schedulers: readonly SteppedLR[]

  protected constructor(where: string, schedulers: Iterable<SteppedLR>) {
    this.schedulers = listOf(where, 'schedulers', schedulers, 'schedulers')
    for (const one of this.schedulers) {
      if (!(one instanceof SteppedLR)) throw misuse(where, 'a scheduler', 'one that steps without a metric', one)
    }
    if (this.schedulers.length === 0) throw new ConfigError(`${where} was given no schedulers`, {})
    if (this.schedulers.some(({ optimizer }) => optimizer !== this.optimizer)) {
      throw new ConfigError(`${where}: its schedulers belong to different optimisers`, {})
    }
  }

  /** Whose rates they set. */
  get optimizer(): Scheduled {
    return (this.schedulers[0] as SteppedLR).optimizer
  }

  /** The learning rate of each group, as it is. */
  get lastLr(): number[] {
    return this.optimizer.groups.map(({ lr }) => lr)
  }

  /** Plain data under PyTorch's keys. */
  stateDict(): SchedulerState {
    return { _last_lr: this.lastLr, _schedulers: this.schedulers.map((one) => one.stateDict()) }
  }

  /** @throws CheckpointError naming what does not fit */
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

/** Several schedulers, each on what the one before made of the rate: `torch.optim.lr_scheduler.ChainedScheduler`. */
export class ChainedScheduler extends CombinedLR {
  constructor(schedulers: Iterable<SteppedLR>) {
    super('ChainedScheduler', schedulers)
  }

  /** Steps all of them, in their order. */
  step(): void {
    for (const one of this.schedulers) one.step()
  }
}

export interface SequentialLROptions {
  /** The step with which each scheduler but the first begins, in rising order. */
  milestones: Iterable<number>
}

/** Several schedulers, one after the other: `torch.optim.lr_scheduler.SequentialLR`. */
export class SequentialLR extends CombinedLR {
  #milestones: number[]
  #lastEpoch = 0

  constructor(optimizer: Scheduled, schedulers: Iterable<SteppedLR>, options: SequentialLROptions) {
    super('SequentialLR', schedulers)
    if (optimizer !== this.optimizer) {
      throw new ConfigError('SequentialLR: its schedulers belong to another optimiser', {})
    }
    const milestones = listOf('SequentialLR', 'milestones', options?.milestones, 'steps')
    milestones.forEach((step, i) => {
      requireWhole('SequentialLR', 'a milestone', step, i === 0 ? 1 : (milestones[i - 1] as number))
    })
    if (milestones.length !== this.schedulers.length - 1) {
      throw new ConfigError(
        `SequentialLR: ${this.schedulers.length} schedulers need ${this.schedulers.length - 1} milestones, ` +
          `not ${milestones.length}`,
        { option: 'milestones' },
      )
    }
    this.#milestones = milestones
    for (const group of optimizer.groups) group.lr = group.initialLr as number
    for (const [i, one] of this.schedulers.entries()) if (i > 0) one.rewind(false)
    ;(this.schedulers[0] as SteppedLR).rewind(true)
  }

  /** Steps the one whose turn it is. */
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
      throw new CheckpointError(`The state of a SequentialLR needs ${this.#milestones.length} _milestones`, {})
    }
    if (![...milestones, last].every(Number.isSafeInteger))
      throw badState('SequentialLR', 'last_epoch', 'whole numbers')
    super.loadStateDict(state)
    this.#milestones = [...milestones]
    this.#lastEpoch = last as number
  }
}
