import { misuse, requireNumber, requireOptions } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import type { Scheduled } from './schedules.js'

/** A scheduler's attributes under PyTorch's names: `state_dict()`, key for key, but for what only its own code looks at. */
export type SchedulerState = Record<string, unknown>

/** What a scheduler remembers of its own; loaded values must be of the same kind. */
export type Own = Record<string, unknown>

/** A group as a scheduler sees it: those that cycle momentum change it too. */
export interface ScheduledGroup {
  lr: number
  initialLr?: number
  momentum?: number
  betas?: [number, number]
}

/** What PyTorch's schedulers note of their calls. */
const BOOKKEEPING = ['_is_initial', '_get_lr_called_within_step', 'verbose', 'lr_lambdas']

/**
 * What PyTorch's schedulers have in common: each changes the rate as it finds it, so that several may work on one optimiser
 * (`ChainedScheduler`, `SequentialLR`). Making one sets the rate of the first step; call `step()` after each
 * `optimizer.step()`, or each epoch.
 *
 * To go on later, save `stateDict()` and the optimiser's: as in PyTorch the rates themselves are in the latter.
 */
export abstract class SteppedLR {
  /** Whose rates it sets. */
  readonly optimizer: Scheduled
  protected baseLrs: number[]
  protected lastEpoch = -1
  /** While the rate of the first step is set. */
  protected isInitial = false
  protected readonly own: Own
  #stepCount = 0
  #lastLr: number[] = []

  protected constructor(optimizer: Scheduled, own: Own) {
    const where = new.target.name
    requireGroups(where, optimizer)
    this.optimizer = optimizer
    this.own = own
    for (const group of optimizer.groups) group.initialLr ??= group.lr
    this.baseLrs = this.groups.map((group) => group.initialLr as number)
  }

  protected get groups(): ScheduledGroup[] {
    return this.optimizer.groups as ScheduledGroup[]
  }

  /** The rates of `lastEpoch`, from those that the groups have. */
  protected abstract nextLrs(): number[]

  /** The rates of `lastEpoch` whatever the groups have, where that is known. */
  protected closedForm(): number[] {
    return this.nextLrs()
  }

  /** The learning rate of each group, as it was set last. */
  get lastLr(): number[] {
    return [...this.#lastLr]
  }

  /** Sets the rates of the next step. */
  step(): void {
    this.#stepCount++
    this.lastEpoch++
    this.setLrs(this.nextLrs())
  }

  protected setLrs(rates: number[]): void {
    rates.forEach((lr, i) => {
      ;(this.groups[i] as ScheduledGroup).lr = lr
    })
    this.#lastLr = this.groups.map(({ lr }) => lr)
  }

  /** Sets the rates of the first step; constructors end with it. */
  protected begin(): void {
    this.#stepCount = 0
    this.isInitial = true
    this.step()
    this.isInitial = false
  }

  /** For `SequentialLR`: takes the first step back, and makes it anew where this is the scheduler to begin with. */
  rewind(begin: boolean): void {
    this.lastEpoch--
    if (begin) this.begin()
  }

  /** For `SequentialLR`: sets the rates of the first step, now that it is this scheduler's turn. */
  restart(): void {
    this.lastEpoch = 0
    this.setLrs(this.closedForm())
  }

  /** Plain data under PyTorch's keys. */
  stateDict(): SchedulerState {
    const { base_lrs, ...rest } = {
      ...structuredClone(this.own),
      base_lrs: [...this.baseLrs],
      last_epoch: this.lastEpoch,
      _step_count: this.#stepCount,
      _last_lr: this.lastLr,
    } as SchedulerState
    return { ...rest, base_lrs }
  }

  /**
   * Takes what `stateDict()` or PyTorch's `state_dict()` gave; its settings replace those of the constructor.
   * @throws CheckpointError naming the key that is missing, of another kind, or not of this scheduler
   */
  loadStateDict(state: SchedulerState): void {
    const given = stateEntries(this.constructor.name, state)
    const { base_lrs, last_epoch, _step_count, _last_lr, ...own } = given
    const count = this.groups.length
    const wrong = (key: string, expected: string) => badState(this.constructor.name, key, expected)
    for (const [key, list] of Object.entries({ base_lrs, _last_lr })) {
      if (!isNumbers(list) || list.length !== count) throw wrong(key, `${count} numbers, one for each group`)
    }
    for (const [key, number] of Object.entries({ last_epoch, _step_count })) {
      if (typeof number !== 'number' || !Number.isFinite(number)) throw wrong(key, 'a number')
    }
    const taken = takeOwn(this.constructor.name, own, this.own)
    this.baseLrs = [...(base_lrs as number[])]
    this.lastEpoch = last_epoch as number
    this.#stepCount = _step_count as number
    this.#lastLr = [...(_last_lr as number[])]
    Object.assign(this.own, taken)
  }

  protected get stepCount(): number {
    return this.#stepCount
  }
}

/** The groups of an optimiser, each with a rate. */
export function requireGroups(where: string, optimizer: Scheduled): ScheduledGroup[] {
  if (!Array.isArray(optimizer?.groups)) throw misuse(where, 'optimizer', 'an optimiser', optimizer)
  for (const group of optimizer.groups) requireNumber(where, "the optimiser's lr", group?.lr)
  return optimizer.groups
}

export function badState(where: string, key: string, expected: string): CheckpointError {
  return new CheckpointError(`The state of a ${where} needs ${key}: ${expected}`, { key })
}

/** A state as an object: a file may have a Map. */
export function stateEntries(where: string, state: unknown): Record<string, unknown> {
  if (typeof state !== 'object' || state === null || Array.isArray(state)) {
    throw new CheckpointError(`The state of a ${where} must be what stateDict() gives`, {})
  }
  const entries = state instanceof Map ? [...state] : Object.entries(state)
  return Object.fromEntries(entries.filter(([key]) => !BOOKKEEPING.includes(key)))
}

/** The values of `own`'s keys; each of the kind that is there. */
export function takeOwn(where: string, given: Record<string, unknown>, own: Own): Own {
  const unknown = Object.keys(given).find((key) => !Object.hasOwn(own, key))
  if (unknown) throw new CheckpointError(`A ${where} has no ${unknown} in its state: it is another's`, { key: unknown })
  const pairs = Object.entries(own).map(([key, now]) => {
    const value = given[key] instanceof Map ? Object.fromEntries(given[key]) : given[key]
    if (value === undefined) throw badState(where, key, 'it is missing')
    const good = kindOf(value) === kindOf(now) || value === null || now === null
    if (!good || (isNumbers(now) && !(isNumbers(value) && value.length === now.length))) {
      throw badState(where, key, isNumbers(now) ? `${now.length} numbers` : `a ${kindOf(now)}`)
    }
    return [key, structuredClone(value)]
  })
  return Object.fromEntries(pairs)
}

const kindOf = (value: unknown) => (Array.isArray(value) ? 'list' : typeof value)
const isNumbers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((one) => typeof one === 'number' && !Number.isNaN(one))

/** Options of a scheduler: known ones, with what they are when left out. */
export function schedulerOptions<O extends object>(where: string, options: O, ...known: (keyof O & string)[]): O {
  requireOptions(where, options, known)
  return options
}

/** One number for each group, from one for all or a list. */
export function perGroup(where: string, name: string, value: number | number[], count: number): number[] {
  const list = Array.isArray(value) ? [...value] : Array<number>(count).fill(value)
  for (const one of list) requireNumber(where, name, one)
  if (list.length === count) return list
  throw new ConfigError(`${where}: ${name} has ${list.length} values for ${count} parameter groups`, { option: name })
}
