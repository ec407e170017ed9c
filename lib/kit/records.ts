import { DataError } from '../base/errors.js'

/** What a record that cannot be used does: 'stop' throws; 'skip' leaves it out and counts it. */
export type OnBadRecord = 'stop' | 'skip'

/** How many errors are kept; the others are counted. */
const KEPT = 100

/** Records that could not be used, and the errors of the first hundred. */
export class BadRecords {
  count = 0
  readonly errors: DataError[] = []

  constructor(readonly policy: OnBadRecord) {}

  /**
   * Throws what is wrong with a record, or counts it. Errors of another kind than those of data are always thrown.
   * @param at where the record stands, for errors that do not say it
   */
  add(cause: unknown, at?: { file: string; line: number }): void {
    if (!(cause instanceof DataError)) throw cause
    const error = at === undefined ? cause : placed(cause, at)
    if (this.policy === 'stop') throw error
    this.count += 1
    if (this.errors.length < KEPT) this.errors.push(error)
  }

  /** Those that another reader has counted. */
  addAll(count: number, errors: readonly DataError[]): void {
    this.count += count
    this.errors.push(...errors.slice(0, KEPT - this.errors.length))
  }
}

function placed(cause: DataError, { file, line }: { file: string; line: number }): DataError {
  const said = cause as { file?: unknown; line?: unknown }
  if (said.file === file && said.line === line) return cause
  return new DataError(`${file}, line ${line}: ${cause.message}`, { file, line, cause })
}
