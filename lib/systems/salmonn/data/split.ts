import { defined, requireOptions } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { nothingToTrainOn, sharedGroups, split } from '../../../kit/split.js'
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
 * Divides entries so that all of one dialog are in one part, and all that share a sound file too, the same for the same seed
 * whatever the order of the entries. Each share that is not 0 gets a dialog at least; where many share sound files, a part may
 * be smaller than its share. Whoever is held out, all dialogs that share sound with theirs are too.
 *
 * @throws DataError where nothing is left to train on, or nobody of a name speaks
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
      ...{ groups: 'Dialogs', shared: 'sound file', nameOf: (key) => key.slice(1) },
    })
  }
  return parts
}

/** Dialogs and sound files that two parts share; validation must have none of training's. */
export function sharedDialogs(a: readonly SalmonnEntry[], b: readonly SalmonnEntry[]): string[] {
  for (const [name, part] of Object.entries({ a, b })) {
    requireForm('sharedDialogs', name, part, [{ dialog: 'string', audio: ['string'] }])
  }
  return sharedGroups(a, b, keysOf)
}

/** A dialog's name and its files; no name is like a file's. */
const keysOf = ({ dialog, audio }: SalmonnEntry): string[] => [dialog, ...audio.map((path) => `\0${path}`)]
