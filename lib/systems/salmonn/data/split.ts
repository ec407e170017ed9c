import { requireForm } from '../../../base/form.js'
import { type ChangesOf, READONLY_STRINGS, settings } from '../../../base/settings.js'
import { nothingToTrainOn, sharedGroups, split } from '../../../kit/split.js'
import type { SalmonnEntry } from './entry.js'

export const SPLIT_SETTINGS = settings({
  /** Fraction of the dialogs for validation. Default 0.1; 0 if speakers are held out. */
  valid: { type: 'fraction', help: 'fraction of the dialogs for validation', defaultText: '0' },
  /** Fraction of the dialogs for testing. */
  test: { type: 'fraction', help: 'fraction of the dialogs for testing', default: 0 },
  /** Speakers whose dialogs are used for validation. */
  validSpeakers: { type: READONLY_STRINGS, default: [] },
  /** Speakers whose dialogs are used for testing. */
  testSpeakers: { type: READONLY_STRINGS, default: [] },
  seed: { type: 'integer', help: 'random seed of the split', default: 42 },
})

/** @interface */
export type SplitSalmonnOptions = ChangesOf<typeof SPLIT_SETTINGS.table>

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
  const { test, validSpeakers, testSpeakers, seed, ...read } = SPLIT_SETTINGS.read(where, options)
  const { valid = validSpeakers.length > 0 ? 0 : 0.1 } = read
  const parts = split<SalmonnEntry>(entries, {
    ...{ keysOf, speakerOf: ({ speaker }) => speaker, valid, test, seed, where },
    speakers: { valid: validSpeakers, test: testSpeakers },
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
