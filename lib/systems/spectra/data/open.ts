import { existsSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { defined, misuse, requireNumber, requireOptions, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { split } from '../../../kit/split.js'
import { Tokenizer } from '../../../text/tokenizer.js'
import { isPublishedTask, publishedSpectraTask, type SpectraTask } from '../evaluation/task.js'
import type { SpectraLayout } from '../published/layouts.js'
import { isPublishedData, readSpectraPickles, SPECTRA_SPLITS, type SpectraSplit } from '../published/pickles.js'
import { readSpectraJsonl, type SpectraJsonlData } from './jsonl.js'
import { checkHeldOut, type SpectraHeldOutSpeakers } from './record.js'
import type { SpectraSample } from './sample.js'
import type { SpectraDialogTextOptions } from './text.js'

export interface OpenSpectraDataOptions extends SpectraDialogTextOptions {
  task: SpectraTask | string
  /** A tokenizer, or the folder of one. Your own data needs it; published data keeps it for those who ask the model later. */
  tokenizer?: Tokenizer | string
  /** For the published data. */
  layout?: SpectraLayout | 'auto'
  arrays?: 'tensor' | 'lazy'
  /** For one's own data. */
  onBadRecord?: 'stop' | 'skip'
  maxAudioLength?: number
  /** For records without a `split`: whose turns are held out. */
  speakers?: SpectraHeldOutSpeakers
  /** Where there is no data for validation: the share of the training data that is drawn for it. Default 0.1. */
  validShare?: number
  /** For that draw. Default 42. */
  seed?: number
}

export interface SpectraData {
  task: SpectraTask
  train: SpectraSample[]
  valid: SpectraSample[]
  /** Empty where there is none. */
  test: SpectraSample[]
  /** What was found and done, line by line, for a report. */
  notes: string[]
  /** What made tokens of the texts; left out for published data, which has tokens, unless one was given. */
  tokenizer?: Tokenizer
  /** How it did. */
  text?: SpectraDialogTextOptions
}

/**
 * Opens data for fine-tuning, whatever its form:
 *
 * - the published pickles: a folder or archive as `readSpectraPickles` takes it;
 * - a folder with `train.jsonl`, and perhaps `valid.jsonl` and `test.jsonl`, as `readSpectraJsonl` reads them;
 * - one JSONL file, whose records say their `split`, or are held out by `speakers`.
 *
 * @throws DataError as the readers do; ConfigError where the task is unknown or a tokenizer is missing
 */
export async function openSpectraData(path: string, options: OpenSpectraDataOptions): Promise<SpectraData> {
  const where = 'openSpectraData'
  requireString(where, 'path', path)
  requireOptions(where, options, [
    'task',
    'tokenizer',
    'layout',
    'arrays',
    'onBadRecord',
    'maxAudioLength',
    'speakers',
    'validShare',
    'seed',
    'lowercase',
    'maxContext',
  ])
  const { validShare = 0.1, seed = 42, speakers = {} } = options
  requireNumber(where, 'validShare', validShare, { least: 0, below: 1 })
  checkHeldOut(where, speakers)
  if (typeof options.task !== 'string') requireForm(where, 'task', options.task, { name: 'string', kind: 'string' })
  const task = typeof options.task === 'string' ? publishedSpectraTask(options.task) : options.task
  if (!existsSync(path)) throw new DataError(`${path}: there is no such file or folder`, { file: path })
  const data = isPublishedData(path, task.name)
    ? await published(path, task, options)
    : await own(path, task, options, speakers)
  if (data.train.length === 0) throw new DataError(`${path} has no training data`, { file: path })
  if (data.valid.length > 0) return data
  return withValidation(data, validShare, seed)
}

async function published(path: string, task: SpectraTask, options: OpenSpectraDataOptions): Promise<SpectraData> {
  const { layout, arrays } = options
  const { splits, files } = await readSpectraPickles(path, {
    task,
    ...defined({ layout, arrays }),
  })
  const notes = files.map(({ split, file, layout }) => `${file}: layout ${layout}, ${splits[split]!.length} samples`)
  // A model's folder need not hold one, and the data has tokens.
  const tokenizer = await tokenizerOf(options.tokenizer).catch((error) => {
    if (error instanceof ConfigError) return undefined
    throw error
  })
  const data: SpectraData = { task, train: splits.train!, valid: splits.valid!, test: splits.test!, notes }
  return tokenizer ? { ...data, tokenizer, text: textOptions(options) } : data
}

async function own(
  path: string,
  task: SpectraTask,
  options: OpenSpectraDataOptions,
  speakers: SpectraHeldOutSpeakers,
): Promise<SpectraData> {
  const tokenizer = await tokenizerOf(options.tokenizer)
  const read = (file: string, task: SpectraTask, history?: boolean): Promise<SpectraJsonlData> => {
    const { onBadRecord, maxAudioLength, lowercase, maxContext } = options
    return readSpectraJsonl(file, {
      task,
      tokenizer,
      ...defined({ history, onBadRecord, maxAudioLength, lowercase, maxContext }),
    })
  }
  const made = { tokenizer, text: textOptions(options) }
  if (!statSync(path).isDirectory()) return { ...oneFile(path, await read(path, task), speakers), ...made }
  const fileOf = (split: SpectraSplit) => join(path, `${split}.jsonl`)
  if (!existsSync(fileOf('train'))) {
    const pickled = isPublishedTask(task.name) ? `, ${task.name}/train.pkl or ${task.name}.tgz` : ''
    throw new DataError(`${path} has neither train.jsonl${pickled}`, { file: path })
  }
  const first = await read(fileOf('train'), task)
  const splits: Record<SpectraSplit, SpectraSample[]> = { train: first.samples, valid: [], test: [] }
  const notes = noted(fileOf('train'), first)
  for (const split of SPECTRA_SPLITS.slice(1)) {
    if (!existsSync(fileOf(split))) continue
    const more = await read(fileOf(split), first.task, first.history)
    splits[split] = more.samples
    notes.push(...noted(fileOf(split), more))
  }
  return { task: first.task, ...splits, notes, ...made }
}

const textOptions = ({ lowercase, maxContext }: SpectraDialogTextOptions): SpectraDialogTextOptions => ({
  ...defined({ lowercase, maxContext }),
})

async function tokenizerOf(tokenizer: Tokenizer | string | undefined): Promise<Tokenizer> {
  if (tokenizer instanceof Tokenizer) return tokenizer
  if (typeof tokenizer === 'string') return Tokenizer.fromPretrained(tokenizer)
  if (tokenizer !== undefined) throw misuse('openSpectraData', 'tokenizer', 'a Tokenizer or a folder', tokenizer)
  throw new ConfigError('Texts of your own need a tokenizer: give the folder of RoBERTa’s, or of the model', {
    argument: 'tokenizer',
  })
}

function oneFile(file: string, data: SpectraJsonlData, speakers: SpectraHeldOutSpeakers): SpectraData {
  const { samples, task } = data
  const parts = split(samples, {
    ...{ partOf: (sample) => sample.split, speakerOf: ({ speaker }) => speaker, speakers, source: file },
  })
  return { task, ...parts, notes: noted(file, data) }
}

function noted(file: string, { samples, badRecords, badRecordErrors, history, task }: SpectraJsonlData): string[] {
  const notes = [`${file}: ${samples.length} records${history ? ', with history' : ''}`]
  if (task.labels) notes.push(`${file}: classes ${task.labels.join(', ')}`)
  if (badRecords > 0)
    notes.push(`${file}: ${badRecords} bad records left out, the first: ${badRecordErrors[0]?.message}`)
  return notes
}

function withValidation(data: SpectraData, share: number, seed: number): SpectraData {
  const { train, notes } = data
  const parts = share === 0 ? { train: [], valid: [] } : split(train, { valid: share, seed })
  if (parts.train.length === 0) {
    throw new DataError('There is no data for validation, and too little to draw it from the training data', {})
  }
  const drawn = `${parts.valid.length} of ${train.length} training samples were drawn for it (seed ${seed})`
  return {
    ...data,
    ...{ train: parts.train, valid: parts.valid, notes: [...notes, `no data for validation: ${drawn}`] },
  }
}
