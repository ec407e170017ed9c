import { misuse, requireNumber, requireObject, requireWhole } from '../../../data/check.js'
import { Random } from '../../../data/random.js'
import { DataError } from '../../../native/errors.js'
import type { SalmonnEntry } from './entry.js'

export interface SplitSalmonnOptions {
  /** Share of the dialogs to validate with. Default 0.1; 0 where speakers are held out. */
  valid?: number
  /** Share of the dialogs to test with. Default 0. */
  test?: number
  /** Whoever of these speaks in a dialog, it is for validation, or for the test. */
  validSpeakers?: readonly string[]
  testSpeakers?: readonly string[]
  /** Default 42. */
  seed?: number
}

export interface SalmonnSplit {
  train: SalmonnEntry[]
  valid: SalmonnEntry[]
  test: SalmonnEntry[]
}

/**
 * Divides entries so that all of one dialog are in one part, the same for the same seed whatever the order of the entries.
 * Each share that is not 0 gets a dialog at least.
 *
 * @throws DataError where nothing is left to train on, or nobody of a name speaks
 */
export function splitSalmonn(entries: readonly SalmonnEntry[], options: SplitSalmonnOptions = {}): SalmonnSplit {
  const where = 'splitSalmonn'
  if (!Array.isArray(entries)) throw misuse(where, 'entries', 'a list of entries', entries)
  requireObject(where, 'options', options)
  const { validSpeakers = [], testSpeakers = [], seed = 42 } = options
  const { valid = validSpeakers.length > 0 ? 0 : 0.1, test = 0 } = options
  requireNumber(where, 'valid', valid, { least: 0, below: 1 })
  requireNumber(where, 'test', test, { least: 0, below: 1 })
  requireWhole(where, 'seed', seed)
  const part = new Map<string, keyof SalmonnSplit>()
  for (const [name, speakers] of [
    ['valid', validSpeakers],
    ['test', testSpeakers],
  ] as const) {
    for (const speaker of speakers) {
      const own = (entries as readonly SalmonnEntry[]).filter((entry) => entry.speaker === speaker)
      if (own.length === 0) throw new DataError(`Nobody called '${speaker}' speaks in the data`, { speaker })
      for (const { dialog } of own) part.set(dialog, name)
    }
  }
  const free = [...new Set((entries as readonly SalmonnEntry[]).map(({ dialog }) => dialog))]
    .filter((dialog) => !part.has(dialog))
    .sort()
  const order = new Random(seed).shuffle([...free])
  const count = (share: number) => (share === 0 ? 0 : Math.max(1, Math.round(share * free.length)))
  for (const dialog of order.splice(0, count(valid))) part.set(dialog, 'valid')
  for (const dialog of order.splice(0, count(test))) part.set(dialog, 'test')
  const split: SalmonnSplit = { train: [], valid: [], test: [] }
  for (const entry of entries as readonly SalmonnEntry[]) split[part.get(entry.dialog) ?? 'train'].push(entry)
  if (split.train.length === 0) {
    throw new DataError(`Of ${free.length} dialogs none is left to train on: give more, or lower the shares`, {})
  }
  return split
}

/** Dialogs and sound files that two parts share; validation must have none of training's. */
export function sharedDialogs(a: readonly SalmonnEntry[], b: readonly SalmonnEntry[]): string[] {
  const keys = ({ dialog, audio }: SalmonnEntry) => [dialog, ...audio.map((path) => `\0${path}`)]
  const known = new Set(a.flatMap(keys))
  return [...new Set(b.filter((entry) => keys(entry).some((key) => known.has(key))).map(({ dialog }) => dialog))]
}
