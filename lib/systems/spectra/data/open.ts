import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { argumentError, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, checkedBy, settings, unchecked, type ValuesOf } from '../../../base/settings.js'
import { split } from '../../../kit/split.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { isPublishedTask, publishedSpectraTask, type SpectraTask } from '../evaluation/task.js'
import { SPECTRA_LAYOUTS } from '../published/layouts.js'
import { isPublishedData, readSpectraPickles, SPECTRA_SPLITS, type SpectraSplit } from '../published/pickles.js'
import { readSpectraJsonl, type SpectraJsonlData } from './jsonl.js'
import { checkHeldOut, type SpectraHeldOutSpeakers } from './record.js'
import type { SpectraSample } from './sample.js'
import { type SpectraDialogTextOptions, TEXT_SETTINGS } from './text.js'

export const OPEN_SETTINGS = settings({
  task: { type: unchecked<SpectraTask | string>(), required: true },
  /** A tokenizer, or its folder. Required for your own data; with published data, it is saved with the model for later use. */
  tokenizer: { type: unchecked<Tokenizer | string>() },
  /** For published data. */
  layout: { type: [...SPECTRA_LAYOUTS, 'auto'] },
  arrays: { type: ['tensor', 'lazy'] },
  /** For your own data. */
  onBadRecord: { type: ['stop', 'skip'] },
  maxAudioLength: { type: 'integer', min: 1 },
  /** For records without a `split`: speakers of the test and validation data. */
  speakers: {
    type: checkedBy<SpectraHeldOutSpeakers>((where, _, value) => checkHeldOut(where, value as object)),
    default: {},
  },
  /** Fraction of the training data drawn for validation, if there is no validation data. */
  validShare: { type: 'fraction', default: 0.1 },
  /** Random seed of that draw. */
  seed: { type: 'integer', default: 42 },
  ...TEXT_SETTINGS.table,
})
type OpenSettings = ValuesOf<typeof OPEN_SETTINGS.table> & { text: SpectraDialogTextOptions }

/** @interface */
export type OpenSpectraDataOptions = ChangesOf<typeof OPEN_SETTINGS.table>

export interface SpectraData {
  task: SpectraTask
  train: SpectraSample[]
  valid: SpectraSample[]
  /** Empty if there is no test data. */
  test: SpectraSample[]
  /** Lines for a report: files, counts, draws. */
  notes: string[]
  /** Tokenizer of the texts; for published data, which has token ids, only if one was given. */
  tokenizer?: Tokenizer
  /** Text options of the tokenizer. */
  text?: SpectraDialogTextOptions
}

/**
 * Open data for fine-tuning in one of these formats:
 *
 * - published pickles: a folder or archive for `readSpectraPickles`;
 * - a folder with `train.jsonl`, and optionally `valid.jsonl` and `test.jsonl`, for `readSpectraJsonl`;
 * - one JSONL file whose records have a `split`, or are split by `speakers`.
 *
 * @throws DataError of the readers; ConfigError for an unknown task or a missing tokenizer
 */
export async function openSpectraData(path: string, options: OpenSpectraDataOptions): Promise<SpectraData> {
  const where = 'openSpectraData'
  requireString(where, 'path', path)
  const read = { ...OPEN_SETTINGS.read(where, options), text: TEXT_SETTINGS.changesIn(options) }
  if (typeof options.task !== 'string') requireForm(where, 'task', options.task, { name: 'string', kind: 'string' })
  const task = typeof options.task === 'string' ? publishedSpectraTask(options.task) : options.task
  if (!existsSync(path)) {
    throw new DataError(`${path}: expected a file or folder of data, which does not exist`, { file: path })
  }
  const data = isPublishedData(path, task.name) ? await published(path, task, read) : await ownData(path, task, read)
  if (data.train.length === 0) throw new DataError(`${path}: expected training data, got none`, { file: path })
  if (data.valid.length > 0) return data
  return withValidation(data, read.validShare, read.seed)
}

async function published(path: string, task: SpectraTask, options: OpenSettings): Promise<SpectraData> {
  const { layout, arrays } = options
  const { splits, files } = await readSpectraPickles(path, { task, layout, arrays })
  const notes = files.map(({ split, file, layout }) => `${file}: layout ${layout}, ${splits[split]!.length} samples`)
  // The data has token ids already, so the model's folder may lack a tokenizer.
  const tokenizer = await tokenizerOf(options.tokenizer).catch((error) => {
    if (error instanceof ConfigError) return undefined
    throw error
  })
  const data: SpectraData = { task, train: splits.train!, valid: splits.valid!, test: splits.test!, notes }
  return tokenizer ? { ...data, tokenizer, text: options.text } : data
}

async function ownData(path: string, task: SpectraTask, options: OpenSettings): Promise<SpectraData> {
  const { onBadRecord, maxAudioLength, speakers, text } = options
  const tokenizer = await tokenizerOf(options.tokenizer)
  const read = (file: string, task: SpectraTask, history?: boolean): Promise<SpectraJsonlData> =>
    readSpectraJsonl(file, { task, tokenizer, history, onBadRecord, maxAudioLength, ...text })
  const textParts = { tokenizer, text }
  if (!statSync(path).isDirectory()) return { ...oneFile(path, await read(path, task), speakers), ...textParts }
  const fileOf = (split: SpectraSplit) => join(path, `${split}.jsonl`)
  if (!existsSync(fileOf('train'))) {
    const pickled = isPublishedTask(task.name) ? `, ${task.name}/train.pkl or ${task.name}.tgz` : ''
    throw new DataError(`${path}: expected train.jsonl${pickled}, got a folder without`, { file: path })
  }
  const first = await read(fileOf('train'), task)
  const splits: Record<SpectraSplit, SpectraSample[]> = { train: first.samples, valid: [], test: [] }
  const notes = notesOf(fileOf('train'), first)
  for (const split of SPECTRA_SPLITS.slice(1)) {
    if (!existsSync(fileOf(split))) continue
    const more = await read(fileOf(split), first.task, first.history)
    splits[split] = more.samples
    notes.push(...notesOf(fileOf(split), more))
  }
  return { task: first.task, ...splits, notes, ...textParts }
}

async function tokenizerOf(tokenizer: Tokenizer | string | undefined): Promise<Tokenizer> {
  if (tokenizer instanceof Tokenizer) return tokenizer
  if (typeof tokenizer === 'string') return Tokenizer.fromPretrained(tokenizer)
  if (tokenizer !== undefined) throw argumentError('openSpectraData', 'tokenizer', 'a Tokenizer or a folder', tokenizer)
  throw new ConfigError(
    "openSpectraData: expected a tokenizer for your own texts, got none. Pass the folder of RoBERTa's or the model's.",
    { argument: 'tokenizer' },
  )
}

function oneFile(file: string, data: SpectraJsonlData, speakers: SpectraHeldOutSpeakers): SpectraData {
  const { samples, task } = data
  const parts = split(samples, {
    ...{ partOf: (sample) => sample.split, speakerOf: ({ speaker }) => speaker, speakers, source: file },
  })
  return { task, ...parts, notes: notesOf(file, data) }
}

function notesOf(file: string, { samples, badRecords, badRecordErrors, history, task }: SpectraJsonlData): string[] {
  const notes = [`${file}: ${samples.length} records${history ? ', with history' : ''}`]
  if (task.labels) notes.push(`${file}: classes ${task.labels.join(', ')}`)
  if (badRecords > 0)
    notes.push(`${file}: ${badRecords} bad records left out, first error: ${badRecordErrors[0]?.message}`)
  return notes
}

function withValidation(data: SpectraData, share: number, seed: number): SpectraData {
  const { train, notes } = data
  const parts = share === 0 ? { train: [], valid: [] } : split(train, { valid: share, seed })
  if (parts.train.length === 0) {
    throw new DataError(
      'openSpectraData: expected validation data, or enough training data to draw it from, got neither',
    )
  }
  const drawn = `${parts.valid.length} of ${train.length} training samples are used instead (seed ${seed})`
  return {
    ...data,
    ...{ train: parts.train, valid: parts.valid, notes: [...notes, `no validation data: ${drawn}`] },
  }
}
