import { resolve } from 'node:path'
import { requireObject } from '../../../data/check.js'
import { ConfigError, type DataError } from '../../../native/errors.js'
import type { SalmonnDataSettings } from '../configuration/configuration.js'
import { SALMONN_TEST_PROMPTS, SALMONN_TRAIN_PROMPTS } from '../prompts/defaults.js'
import { SalmonnPrompts } from '../prompts/prompts.js'
import { readSalmonnAnnotations } from './annotation.js'
import { SalmonnDataset, type SalmonnDatasetOptions } from './dataset.js'
import type { SalmonnEntry } from './entry.js'
import { splitSalmonn } from './split.js'

export interface SalmonnData {
  train: SalmonnDataset
  valid: SalmonnDataset
  test: SalmonnDataset
  /** What a user should know: where validation comes from, what was skipped, what is not read. */
  notes: string[]
  badItems: number
  badItemErrors: DataError[]
}

/**
 * Reads all data of a configuration and opens every sound file once. Validation data that is the training data is not: then,
 * and where none is given, dialogs are taken from training. With compat 'published' the same file may stand for both.
 *
 * @throws DataError naming file and item for what cannot be used, unless `onBadItem` is 'skip'
 */
export async function openSalmonnData(
  settings: SalmonnDataSettings,
  options: { compat?: 'published'; seed?: number } = {},
): Promise<SalmonnData> {
  requireObject('openSalmonnData', 'settings', settings)
  const { compat, seed = 42 } = options
  const { train: files = [], test: testFiles = [], onBadItem = 'stop', audioRoot } = settings
  if (files.length === 0) throw new ConfigError('There is no data to train on: say data.train', { argument: 'train' })
  const notes: string[] = []
  const bad = { count: 0, errors: [] as DataError[] }
  const read = async (from: readonly string[], targets: 'required' | 'optional') => {
    const found = await readSalmonnAnnotations(from, {
      onBadItem,
      targets,
      ...(audioRoot !== undefined && { audioRoot }),
    })
    count(bad, found)
    if (found.ignoredFields.length > 0) notes.push(`${from.join(', ')}: ${found.ignoredFields.join(', ')} are not read`)
    return found.entries
  }
  const parts = await partsOf(settings, files, read, { compat, seed, notes })
  if (testFiles.length > 0) parts.test = await read(testFiles, 'optional')
  const make = async (entries: readonly SalmonnEntry[], more: SalmonnDatasetOptions) => {
    const dataset = new SalmonnDataset(entries, {
      ...datasetOptions(settings),
      seed,
      ...(compat && { compat }),
      ...more,
    })
    const checked = await dataset.check(onBadItem)
    count(bad, checked)
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

async function partsOf(
  settings: SalmonnDataSettings,
  files: readonly string[],
  read: (files: readonly string[], targets: 'required' | 'optional') => Promise<SalmonnEntry[]>,
  { compat, seed, notes }: { compat: 'published' | undefined; seed: number; notes: string[] },
): Promise<{ train: SalmonnEntry[]; valid: SalmonnEntry[]; test: SalmonnEntry[] }> {
  const { valid: validFiles = [], validShare, testShare, validSpeakers, testSpeakers } = settings
  const train = await read(files, 'required')
  const known = new Set(files.map((file) => resolve(file)))
  const same = validFiles.some((file) => known.has(resolve(file)))
  if (validFiles.length > 0 && (!same || compat === 'published')) {
    if (same) notes.push('Validation is on training data, as published: its figures say nothing about new dialogs')
    return { train, valid: await read(validFiles, 'required'), test: [] }
  }
  const split = splitSalmonn(train, {
    seed,
    ...(validShare !== undefined && { valid: validShare }),
    ...(testShare !== undefined && { test: testShare }),
    ...(validSpeakers && { validSpeakers }),
    ...(testSpeakers && { testSpeakers }),
  })
  const why = same ? 'The validation file is the training file' : 'There is no validation file'
  notes.push(`${why}: ${split.valid.length} items are taken from training for it, whole dialogs each`)
  return split
}

function datasetOptions(settings: SalmonnDataSettings): SalmonnDatasetOptions {
  const { template, clips, gapSeconds, channels, longAudio, emotionSuffix } = settings
  const given = Object.entries({ template, clips, gapSeconds, channels, longAudio, emotionSuffix })
  return Object.fromEntries(given.filter(([, value]) => value !== undefined))
}

function count(
  to: { count: number; errors: DataError[] },
  { badItems, badItemErrors }: { badItems: number; badItemErrors: DataError[] },
): void {
  to.count += badItems
  to.errors.push(...badItemErrors.slice(0, Math.max(0, 100 - to.errors.length)))
}
