import { dirname } from 'node:path'
import { makeDirectory, writeAtomically } from '../../../base/atomic.js'
import { argumentError, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Dataset } from '../../../data/dataset.js'

/** A clip and its units: a line `audio|units|durations` of a file list. */
export interface VoiceboxRecord {
  /** Audio file, at any sample rate. */
  audio: string
  /** Units, 50 per second: each repeated by its duration. */
  units: Int32Array
  /** Location of the record, for messages. Default: the audio file. */
  place?: string
}

/** An hour of units. */
const MAX_UNITS = 180_000

/**
 * Parse a line of a file list: a path, units, and the number of repetitions of each; numbers are separated by spaces.
 * @throws DataError with `file` and `line`
 */
export function parseVoiceboxLine(text: string, file: string, line: number): VoiceboxRecord {
  for (const [name, value] of Object.entries({ text, file })) requireString('parseVoiceboxLine', name, value)
  const place = `${file}, line ${line}`
  const fail = (expected: string): DataError => new DataError(`${place}: expected ${expected}`, { file, line })
  const parts = text.replace(/\r$/, '').split('|')
  if (parts.length < 3) throw fail(`audio|units|durations, got ${parts.length} of 3 fields`)
  const [durations, units] = [parts.pop() as string, parts.pop() as string]
  const audio = parts.join('|') // a path may contain '|'
  if (audio.trim() === '') throw fail('a path before the units, got none')
  const numbers = (name: string, list: string): number[] =>
    list
      .split(' ')
      .filter((word) => word !== '')
      .map((word, i) => {
        if (/^\d{1,9}$/.test(word)) return Number(word)
        throw fail(`integers in ${name}, got ${JSON.stringify(word.slice(0, 40))} at position ${i + 1}`)
      })
  const [which, times] = [numbers('units', units), numbers('durations', durations)]
  if (which.length !== times.length) throw fail(`as many durations as units, ${which.length}, got ${times.length}`)
  const total = times.reduce((sum, count) => sum + count, 0)
  if (total === 0) throw fail('units, got none')
  if (total > MAX_UNITS) throw fail(`at most ${MAX_UNITS} units, one hour, got ${total}`)
  const all = new Int32Array(total)
  let at = 0
  for (const [i, count] of times.entries()) all.fill(which[i] as number, at, (at += count))
  return { audio, units: all, place }
}

/** Write a file list. Each unit has the duration 1, as in the original. */
export async function writeVoiceboxFilelist(
  path: string,
  records: Iterable<VoiceboxRecord> | AsyncIterable<VoiceboxRecord>,
): Promise<void> {
  const where = 'writeVoiceboxFilelist'
  requireString(where, 'path', path)
  const iterable = records as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined
  if (typeof (iterable?.[Symbol.asyncIterator] ?? iterable?.[Symbol.iterator]) !== 'function') {
    throw argumentError(where, 'records', 'an iterable of records', records)
  }
  makeDirectory(dirname(path), DataError)
  await writeAtomically(path, DataError, async (write) => {
    for await (const record of records) {
      requireForm(where, 'each record', record, { audio: 'string', units: Int32Array })
      const { audio, units } = record
      if (/[\r\n]/.test(audio)) {
        throw new DataError(`${where}: expected paths without line breaks, got ${JSON.stringify(audio)}`, { audio })
      }
      await write(Buffer.from(`${audio}|${units.join(' ')}|${new Array(units.length).fill(1).join(' ')}\n`))
    }
  })
}

/** Paths of file lists, or records. */
export type VoiceboxRecords = string | readonly string[] | readonly VoiceboxRecord[] | Dataset<VoiceboxRecord>
