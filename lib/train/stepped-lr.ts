import { argumentError, requireNumber } from '../base/check.js'
import { CheckpointError, ConfigError } from '../base/errors.js'
import { withArticle } from '../base/words.js'
import type { Scheduled } from './schedules.js'

/** State under the attribute names of PyTorch's `state_dict()`, without entries that only PyTorch's own code uses. */
export type SchedulerState = Record<string, unknown>

/** Attributes of one scheduler; loaded values must have the same types. */
export type Own = Record<string, unknown>

/** Parameter group as a scheduler uses it; those that cycle momentum change it too. */
export interface ScheduledGroup {
  lr: number
  initialLr?: number
  momentum?: number
  betas?: [number, number]
}

/** Entries with which PyTorch's schedulers track their calls. */
const BOOKKEEPING = ['_is_initial', '_get_lr_called_within_step', 'verbose', 'lr_lambdas']

/**
 * Base class of PyTorch's schedulers: each computes the next rate from the current one, so that several may work on one
 * optimizer (`ChainedScheduler`, `SequentialLR`). The constructor sets the rate of the first step; call `step()` after each
 * `optimizer.step()`, or each epoch.
 *
 * To resume later, save `stateDict()` and the optimizer's: as in PyTorch the rates themselves are in the latter.
 */
export abstract class SteppedLR {
  /** Optimizer whose learning rates are set. */
  readonly optimizer: Scheduled
  protected baseLrs: number[]
  protected lastEpoch = -1
  /** True while the rate of the first step is set. */
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

  /** Return the rates of `lastEpoch`, computed from the groups' current rates. */
  protected abstract nextLrs(): number[]

  /** Return the rates of `lastEpoch` independent of the groups' current rates, if there is a closed form. */
  protected closedForm(): number[] {
    return this.nextLrs()
  }

  /** Learning rate of each group as it was last set. */
  get lastLr(): number[] {
    return [...this.#lastLr]
  }

  /** Set the rates of the next step. */
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

  /** Set the rates of the first step; constructors call it last. */
  protected begin(): void {
    this.#stepCount = 0
    this.isInitial = true
    this.step()
    this.isInitial = false
  }

  /** For `SequentialLR`: undo the first step, and redo it if this is the first scheduler. */
  rewind(begin: boolean): void {
    this.lastEpoch--
    if (begin) this.begin()
  }

  /** For `SequentialLR`: set the rates of the first step when this scheduler becomes active. */
  restart(): void {
    this.lastEpoch = 0
    this.setLrs(this.closedForm())
  }

  /** Return the state as plain data under PyTorch's keys. */
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
   * Load the state of `stateDict()` or of PyTorch's `state_dict()`; its settings replace those of the constructor.
   * @throws CheckpointError that names a key that is missing, unknown or of another type
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

/** Return the groups of an optimizer after checking that each has a rate. */
export function requireGroups(where: string, optimizer: Scheduled): ScheduledGroup[] {
  if (!Array.isArray(optimizer?.groups)) throw argumentError(where, 'optimizer', 'an optimizer', optimizer)
  for (const group of optimizer.groups) requireNumber(where, "the optimizer's lr", group?.lr)
  return optimizer.groups
}

export function badState(where: string, key: string, expected: string): CheckpointError {
  return new CheckpointError(`${where}.loadStateDict: expected ${key} to be ${expected}`, { key })
}

/** Return a state as an object; a file may store a Map. */
export function stateEntries(where: string, state: unknown): Record<string, unknown> {
  if (typeof state !== 'object' || state === null || Array.isArray(state)) {
    throw new CheckpointError(`${where}.loadStateDict: expected a state as stateDict() returns it`, {})
  }
  const entries = state instanceof Map ? [...state] : Object.entries(state)
  return Object.fromEntries(entries.filter(([key]) => !BOOKKEEPING.includes(key)))
}

/** Return the values of `own`'s keys after checking that their types match. */
export function takeOwn(where: string, given: Record<string, unknown>, own: Own): Own {
  const unknown = Object.keys(given).find((key) => !Object.hasOwn(own, key))
  if (unknown)
    throw new CheckpointError(`${where}.loadStateDict: expected the state of a ${where}, got one with ${unknown}`, {
      key: unknown,
    })
  const pairs = Object.entries(own).map(([key, now]) => {
    const value = given[key] instanceof Map ? Object.fromEntries(given[key]) : given[key]
    if (value === undefined) throw badState(where, key, 'present')
    const good = kindOf(value) === kindOf(now) || value === null || now === null
    if (!good || (isNumbers(now) && !(isNumbers(value) && value.length === now.length))) {
      throw badState(where, key, isNumbers(now) ? `${now.length} numbers` : withArticle(kindOf(now)))
    }
    return [key, structuredClone(value)]
  })
  return Object.fromEntries(pairs)
}

const kindOf = (value: unknown) => (Array.isArray(value) ? 'list' : typeof value)
const isNumbers = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((one) => typeof one === 'number' && !Number.isNaN(one))

/** Return one number per group, from one for all or a list. */
export function perGroup(where: string, name: string, value: number | number[], count: number): number[] {
  const list = Array.isArray(value) ? [...value] : Array<number>(count).fill(value)
  for (const one of list) requireNumber(where, name, one)
  if (list.length === count) return list
  throw new ConfigError(
    `${where}: expected ${name} to be one number or ${count}, one for each group, got ${list.length}`,
    { option: name },
  )
}
