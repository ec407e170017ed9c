import { defined, requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { nothingToTrainOn, sharedGroups, split } from '../../../kit/split.js'
import type { SalmonnEntry } from './entry.js'

export interface SplitSalmonnOptions {
  /** Fraction of the dialogs for validation. Default 0.1; 0 if speakers are held out. */
  valid?: number
  /** Fraction of the dialogs for testing. Default 0. */
  test?: number
  /** Speakers whose dialogs are used for validation; `testSpeakers` for testing. */
  validSpeakers?: readonly string[]
  testSpeakers?: readonly string[]
  /** Random seed. Default 42. */
  seed?: number
}

export interface SalmonnSplit {
  train: SalmonnEntry[]
  valid: SalmonnEntry[]
  test: SalmonnEntry[]
}

/**
 * Split entries into parts. All entries of one dialog stay together, as do those with a common audio file. The result depends on the seed,
 * not on the order of entries. A part with a fraction above 0 gets at least one dialog; it can be smaller than its fraction if many dialogs
 * have common audio files. Dialogs with audio in common with held-out ones are held out as well.
 *
 * @throws DataError if no training data is left, or a speaker does not occur
 */
export function splitSalmonn(entries: readonly SalmonnEntry[], options: SplitSalmonnOptions = {}): SalmonnSplit {
  const where = 'splitSalmonn'
  requireForm(where, 'entries', entries, [{ dialog: 'string', audio: ['string'] }])
  for (const name of ['validSpeakers', 'testSpeakers'] as const) {
    if (options?.[name] !== undefined) requireForm(where, name, options[name], ['string'])
  }
  requireOptions(where, options, ['valid', 'test', 'validSpeakers', 'testSpeakers', 'seed'])
  const { validSpeakers = [], testSpeakers = [], seed } = options
  const { valid = validSpeakers.length > 0 ? 0 : 0.1, test = 0 } = options
  const parts = split<SalmonnEntry>(entries, {
    ...{ keysOf, speakerOf: ({ speaker }) => speaker, valid, test, where },
    speakers: { valid: validSpeakers, test: testSpeakers },
    ...defined({ seed }),
  })
  if (parts.train.length === 0) {
    throw nothingToTrainOn<SalmonnEntry>(entries, keysOf, {
      ...{ groups: 'Dialogs', shared: 'recording', nameOf: (key) => key.slice(1) },
    })
  }
  return parts
}

/** Return dialogs and audio files that two parts have in common. Training and validation must have none. */
export function sharedDialogs(a: readonly SalmonnEntry[], b: readonly SalmonnEntry[]): string[] {
  for (const [name, part] of Object.entries({ a, b })) {
    requireForm('sharedDialogs', name, part, [{ dialog: 'string', audio: ['string'] }])
  }
  return sharedGroups(a, b, keysOf)
}

/** Return the keys of an entry: its dialog, and its files with a prefix that no dialog name has. */
const keysOf = ({ dialog, audio }: SalmonnEntry): string[] => [dialog, ...audio.map((path) => `\0${path}`)]
