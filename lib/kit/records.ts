import { requireOneOf } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'

/** Action for a record that cannot be used: 'stop' throws; 'skip' leaves it out and counts it. */
export type OnBadRecord = 'stop' | 'skip'

/**
 * Return the policy of `onBadRecord`, or of `onProblem`, its former name, whose 'error' means 'stop'.
 * @throws ConfigError if both are set
 */
export function onBadRecordOf(
  where: string,
  { onBadRecord, onProblem }: { onBadRecord?: OnBadRecord; onProblem?: OnBadRecord | 'error' },
  defaultPolicy: OnBadRecord,
): OnBadRecord {
  if (onBadRecord !== undefined && onProblem !== undefined) {
    throw new ConfigError(
      `${where}: expected one of onBadRecord and onProblem, which are the same option, got both. Use onBadRecord.`,
      {
        argument: 'onProblem',
      },
    )
  }
  if (onProblem !== undefined) requireOneOf(where, 'onProblem', onProblem, ['skip', 'stop', 'error'])
  else if (onBadRecord !== undefined) requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const policy = onProblem ?? onBadRecord ?? defaultPolicy
  return policy === 'error' ? 'stop' : policy
}

/** Maximum number of errors that are kept; further ones are only counted. */
const KEPT = 100

/** Count of records that could not be used, wholly or in part, with the first hundred errors. */
export class BadRecords {
  count = 0
  readonly errors: DataError[] = []
  /** Number of records by reason, if reasons are passed. */
  readonly reasons: Record<string, number> = {}

  constructor(readonly policy: OnBadRecord) {}

  /**
   * Throw the error of a record, or count it. Errors other than DataError are always thrown.
   * @param at position of the record, for errors that do not contain it
   */
  add(cause: unknown, at?: { file: string; line: number }): void {
    if (!(cause instanceof DataError)) throw cause
    const error = at === undefined ? cause : placed(cause, at)
    if (this.policy === 'stop') throw error
    this.count += 1
    if (this.errors.length < KEPT) this.errors.push(error)
  }

  /** Throw a DataError, or count it under its reason. */
  note(reason: string, message: string, fields: Record<string, unknown>): void {
    if (this.policy === 'stop' || this.errors.length < KEPT) this.add(new DataError(message, { ...fields, reason }))
    else this.count += 1
    this.reasons[reason] = (this.reasons[reason] ?? 0) + 1
  }

  /** Add the errors that another reader has counted, under a reason. */
  addAll(count: number, errors: readonly DataError[], reason?: string): void {
    this.count += count
    if (reason !== undefined && count > 0) this.reasons[reason] = (this.reasons[reason] ?? 0) + count
    this.errors.push(...errors.slice(0, KEPT - this.errors.length))
  }
}

function placed(cause: DataError, { file, line }: { file: string; line: number }): DataError {
  const errorFields = cause as { file?: unknown; line?: unknown }
  if (errorFields.file === file && errorFields.line === line) return cause
  return new DataError(`${file}, line ${line}: ${cause.message}`, { file, line, cause })
}
