import { DataError } from '../../../base/errors.js'
import type { OnBadItem } from './entry.js'

/** Items that could not be used, and the errors of the first hundred. */
export class BadItems {
  count = 0
  readonly errors: DataError[] = []

  constructor(readonly policy: OnBadItem) {}

  /** Throws what is wrong with an item, or counts it. Errors of another kind are always thrown. */
  add(error: unknown): void {
    if (this.policy === 'stop' || !(error instanceof DataError)) throw error
    this.count += 1
    if (this.errors.length < 100) this.errors.push(error)
  }
}
