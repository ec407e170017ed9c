import { dirname } from 'node:path'
import { makeDirectory, writeAtomically } from '../../../base/atomic.js'
import { misuse, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { Dataset } from '../../../data/dataset.js'

/** A clip and its units: a line `audio|units|durations` of a file list. */
export interface VoiceboxRecord {
  /** The sound file, at any rate. */
  audio: string
  /** 50 for each second: each unit as often as its duration says. */
  units: Int32Array
  /** Where it stands, for messages. Default: the audio. */
  place?: string
}

/** An hour of units. */
const MOST_UNITS = 180_000

/**
 * Reads one line of a file list: a path, units and how often each is repeated, numbers with blanks between them.
 * @throws DataError with `file` and `line`
 */
export function parseVoiceboxLine(text: string, file: string, line: number): VoiceboxRecord {
  for (const [name, value] of Object.entries({ text, file })) requireString('parseVoiceboxLine', name, value)
  const place = `${file}, line ${line}`
  const fail = (what: string): DataError => new DataError(`${place}: ${what}`, { file, line })
  const parts = text.replace(/\r$/, '').split('|')
  if (parts.length < 3) throw fail('there is no audio|units|durations')
  const [durations, units] = [parts.pop() as string, parts.pop() as string]
  const audio = parts.join('|') // a name may hold one
  if (audio.trim() === '') throw fail('there is no path before the units')
  const numbers = (name: string, list: string): number[] =>
    list
      .split(' ')
      .filter((word) => word !== '')
      .map((word, i) => {
        if (/^\d{1,9}$/.test(word)) return Number(word)
        throw fail(`number ${i + 1} of the ${name} is ${JSON.stringify(word.slice(0, 40))}`)
      })
  const [which, times] = [numbers('units', units), numbers('durations', durations)]
  if (which.length !== times.length) throw fail(`${which.length} units have ${times.length} durations`)
  const total = times.reduce((sum, count) => sum + count, 0)
  if (total === 0) throw fail('there are no units')
  if (total > MOST_UNITS) throw fail(`${total} units are more than those of an hour`)
  const all = new Int32Array(total)
  let at = 0
  for (const [i, count] of times.entries()) all.fill(which[i] as number, at, (at += count))
  return { audio, units: all, place }
}

/** Writes a file list, each unit with the duration 1, as the original does. */
export async function writeVoiceboxFilelist(
  path: string,
  records: Iterable<VoiceboxRecord> | AsyncIterable<VoiceboxRecord>,
): Promise<void> {
  const where = 'writeVoiceboxFilelist'
  requireString(where, 'path', path)
  const given = records as Partial<Iterable<unknown> & AsyncIterable<unknown>> | null | undefined
  if (typeof (given?.[Symbol.asyncIterator] ?? given?.[Symbol.iterator]) !== 'function') {
    throw misuse(where, 'records', 'records to go through', records)
  }
  makeDirectory(dirname(path), DataError)
  await writeAtomically(path, DataError, async (write) => {
    for await (const record of records) {
      requireForm(where, 'a record', record, { audio: 'string', units: Int32Array })
      const { audio, units } = record
      if (/[\r\n]/.test(audio)) throw new DataError(`${JSON.stringify(audio)} cannot stand in a line`, { audio })
      await write(Buffer.from(`${audio}|${units.join(' ')}|${new Array(units.length).fill(1).join(' ')}\n`))
    }
  })
}

/** File lists, or records that are there. */
export type VoiceboxRecords = string | readonly string[] | readonly VoiceboxRecord[] | Dataset<VoiceboxRecord>
