import { requireOneOf } from '../base/check.js'
import { ConfigError, DataError } from '../base/errors.js'

/** What a record that cannot be used does: 'stop' throws; 'skip' leaves it out and counts it. */
export type OnBadRecord = 'stop' | 'skip'

/**
 * The policy of `onBadRecord`, or of `onProblem`, an older name of it, where 'error' is 'stop'.
 * @throws ConfigError where both are given
 */
export function onBadRecordOf(
  where: string,
  { onBadRecord, onProblem }: { onBadRecord?: OnBadRecord; onProblem?: OnBadRecord | 'error' },
  preset: OnBadRecord,
): OnBadRecord {
  if (onBadRecord !== undefined && onProblem !== undefined) {
    throw new ConfigError(`${where}: onBadRecord and onProblem mean the same thing, give one`, {
      argument: 'onProblem',
    })
  }
  if (onProblem !== undefined) requireOneOf(where, 'onProblem', onProblem, ['skip', 'stop', 'error'])
  else if (onBadRecord !== undefined) requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const given = onProblem ?? onBadRecord ?? preset
  return given === 'error' ? 'stop' : given
}

/** How many errors are kept; the others are counted. */
const KEPT = 100

/** Records that could not be used, or parts of them, and the errors of the first hundred. */
export class BadRecords {
  count = 0
  readonly errors: DataError[] = []
  /** How many of each reason, where reasons are told. */
  readonly reasons: Record<string, number> = {}

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

  /** Throws what is wrong, or counts it under its reason. */
  note(reason: string, message: string, fields: Record<string, unknown>): void {
    if (this.policy === 'stop' || this.errors.length < KEPT) this.add(new DataError(message, { ...fields, reason }))
    else this.count += 1
    this.reasons[reason] = (this.reasons[reason] ?? 0) + 1
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
