import { resolve } from 'node:path'
import { requireObject } from '../../../base/check.js'
import { ConfigError, type DataError } from '../../../base/errors.js'
import { type ChangesOf, settings, type ValuesOf } from '../../../base/settings.js'
import { BadRecords } from '../../../kit/records.js'
import type { SalmonnDataSettings } from '../configuration/configuration.js'
import { readSalmonnAnnotations } from '../published/annotations.js'
import { SALMONN_TEST_PROMPTS, SALMONN_TRAIN_PROMPTS } from '../published/prompts.js'
import { COMMON_SETTINGS, SalmonnDataset, type SalmonnDatasetOptions } from './dataset.js'
import type { SalmonnEntry } from './entry.js'
import { SalmonnPrompts } from './prompt-table.js'
import { type SalmonnSplit, splitSalmonn } from './split.js'

export interface SalmonnData {
  train: SalmonnDataset
  valid: SalmonnDataset
  test: SalmonnDataset
  /** Messages for the user: source of the validation data, skipped items, ignored fields. */
  notes: string[]
  badItems: number
  badItemErrors: DataError[]
}

const OPEN_SETTINGS = settings({
  compat: { type: ['published'] },
  /** Random seed. */
  seed: { type: 'integer', default: 42 },
  /** Whether to only evaluate: `train` is then empty, and only the evaluation data must exist. */
  evaluateOnly: { type: 'boolean', default: false },
})

/** @interface */
export type OpenSalmonnDataOptions = ChangesOf<typeof OPEN_SETTINGS.table>

/**
 * Read all data of a configuration, and open every audio file once. Validation or test files that equal the training files are not used:
 * then, and without validation data, dialogs are split off from training, so that no two parts have a common dialog or audio file. With
 * compat 'published' the same file can be used for all.
 *
 * @throws DataError naming file and item for invalid data, unless `onBadItem` is 'skip'
 */
export async function openSalmonnData(
  settings: SalmonnDataSettings,
  options: OpenSalmonnDataOptions = {},
): Promise<SalmonnData> {
  requireObject('openSalmonnData', 'settings', settings)
  const read = OPEN_SETTINGS.read('openSalmonnData', options)
  const { compat, seed } = read
  const { onBadItem = 'stop', audioRoot } = settings
  const notes: string[] = []
  const bad = new BadRecords(onBadItem)
  const open = async (from: readonly string[], targets: 'required' | 'optional') => {
    const found = await readSalmonnAnnotations(from, { onBadItem, targets, audioRoot })
    bad.addAll(found.badItems, found.badItemErrors)
    if (found.ignoredFields.length > 0) notes.push(`${from.join(', ')}: ${found.ignoredFields.join(', ')} are ignored`)
    return found.entries
  }
  const parts = await partsOf(settings, open, { ...read, notes })
  const make = async (entries: readonly SalmonnEntry[], more: SalmonnDatasetOptions) => {
    const dataset = new SalmonnDataset(entries, { ...salmonnDatasetOptions(settings), seed, compat, ...more })
    const checked = await dataset.check(onBadItem)
    bad.addAll(checked.badItems, checked.badItemErrors)
    return checked.dataset
  }
  const load = (file: string | undefined, own: SalmonnPrompts) => (file ? SalmonnPrompts.load(file) : own)
  const prompts = await load(settings.prompts, SALMONN_TRAIN_PROMPTS)
  const testPrompts = await load(settings.testPrompts, settings.prompts ? prompts : SALMONN_TEST_PROMPTS)
  const data = {
    train: await make(parts.train, { prompts }),
    valid: await make(parts.valid, { prompts, drawPrompts: false }),
    test: await make(parts.test, { prompts: testPrompts, drawPrompts: false }),
  }
  if (bad.count > 0) notes.push(`${bad.count} items were left out; the first: ${bad.errors[0]?.message}`)
  return { ...data, notes, badItems: bad.count, badItemErrors: bad.errors }
}

type Read = (files: readonly string[], targets: 'required' | 'optional') => Promise<SalmonnEntry[]>
type PartsOptions = ValuesOf<typeof OPEN_SETTINGS.table> & { notes: string[] }

async function partsOf(
  settings: SalmonnDataSettings,
  read: Read,
  { compat, seed, evaluateOnly, notes }: PartsOptions,
): Promise<SalmonnSplit> {
  const { train: files = [], valid: validFiles = [], test: testFiles = [] } = settings
  const { validShare, testShare, validSpeakers, testSpeakers } = settings
  const known = new Set(files.map((file) => resolve(file)))
  const same = (list: readonly string[]) => list.some((file) => known.has(resolve(file)))
  // Whether a part has files of its own, or is split off from training.
  const own = (list: readonly string[]) => list.length > 0 && (compat === 'published' || !same(list))
  const [ownValid, ownTest] = [own(validFiles), own(testFiles)]
  if (compat === 'published' && (same(validFiles) || same(testFiles))) {
    notes.push('Validation or test data is training data, as published: the scores do not apply to new dialogs')
  }
  const valid = ownValid && !(evaluateOnly && ownTest) ? await read(validFiles, 'required') : []
  const test = ownTest ? await read(testFiles, 'optional') : []
  const wantsTest = !ownTest && (testFiles.length > 0 || testShare !== undefined || testSpeakers !== undefined)
  if (evaluateOnly && (ownTest || (ownValid && !wantsTest))) return { train: [], valid, test }
  if (files.length === 0) {
    throw new ConfigError(
      `data.train: expected data to ${evaluateOnly ? 'evaluate on' : 'train on'}, got none. Set data.train.`,
      {
        argument: 'train',
      },
    )
  }
  for (const [name, value, has] of [
    ['validShare', validShare, ownValid],
    ['validSpeakers', validSpeakers, ownValid],
    ['testShare', testShare, ownTest],
    ['testSpeakers', testSpeakers, ownTest],
  ] as const) {
    if (has && value !== undefined) notes.push(`data.${name} has no effect: this data has its own file`)
  }
  const share = testShare ?? (testFiles.length > 0 && !testSpeakers ? 0.1 : 0)
  const split = splitSalmonn(await read(files, 'required'), {
    seed,
    valid: ownValid ? 0 : validShare,
    validSpeakers: ownValid ? undefined : validSpeakers,
    ...(!ownTest && { test: share, testSpeakers }),
  })
  const noteSplit = (list: readonly string[], name: string, count: number) => {
    const why = list.length > 0 ? `The ${name} file is the training file` : `There is no ${name} file`
    notes.push(`${why}: ${count} items of whole dialogs are split off from training for it`)
  }
  if (!ownValid) noteSplit(validFiles, 'validation', split.valid.length)
  if (wantsTest) noteSplit(testFiles, 'test', split.test.length)
  return {
    train: evaluateOnly ? [] : split.train,
    valid: ownValid ? valid : split.valid,
    test: ownTest ? test : split.test,
  }
}

/** Return the dataset options of a configuration, which training and inference must have in common. */
export function salmonnDatasetOptions(settings: SalmonnDataSettings): SalmonnDatasetOptions {
  requireObject('salmonnDatasetOptions', 'settings', settings)
  return COMMON_SETTINGS.changesIn(settings)
}
