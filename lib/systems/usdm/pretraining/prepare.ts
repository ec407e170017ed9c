import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeDirectory, writeAtomically } from '../../../base/atomic.js'
import { isArrayLike, misuse, requireOneOf, requireOptions, requireString, requireWhole } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { Random } from '../../../data/random.js'
import { writeJson } from '../../../files/json/json.js'
import { chunksOf, utf8 } from '../../../files/text.js'
import { readTextGrid } from '../../../files/textgrid.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { readUnits } from '../../../models/units/unit-folder.js'
import { USDM_MAX_LENGTH, UsdmTokenizer } from '../data/text.js'
import { requireSegmentOptions, type SegmentOptions, ustmPacks, ustmSegments, ustmSequence } from './interleave.js'
import { type AlignedWord, unitWords, wordsOfTextGrid } from './words.js'

/** What is said in an utterance, and its units. */
export interface UstmUtterance {
  /** What it is called in messages, such as its file. */
  name: string
  words: readonly AlignedWord[]
  units: ArrayLike<number>
}

export interface UstmSequenceOptions extends SegmentOptions {
  tokenizer: UsdmTokenizer
  /** How often each utterance is divided and told anew. Default 1. */
  epochs?: number
  /** Each utterance has draws of its own from it. Default 43. */
  seed?: number
  /** What an utterance that cannot be used does. Default 'stop'. */
  onBadRecord?: OnBadRecord
}

export interface UstmReport {
  utterances: number
  /** Those with fewer than three words. */
  tooShort: number
  /** Sequences of an epoch. */
  sequences: number
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Utterances as sequences in which text and speech take turns: a list for each epoch. The same seed gives the same, whatever else
 * is in the list behind an utterance.
 * @throws DataError naming the utterance whose words do not fit its units
 */
export function ustmSequences(
  utterances: readonly UstmUtterance[],
  options: UstmSequenceOptions,
): { epochs: number[][][]; report: UstmReport } {
  const where = 'ustmSequences'
  requireSequenceOptions(where, options)
  requireForm(where, 'utterances', utterances, [{ name: 'string', words: 'list', units: 'object' }])
  const { tokenizer, epochs = 1, seed = 43, onBadRecord = 'stop', ...segmenting } = options
  const bad = new BadRecords(onBadRecord)
  const made = Array.from({ length: epochs }, (): number[][] => [])
  let tooShort = 0
  for (const [i, { name, words, units }] of utterances.entries()) {
    try {
      if (!isArrayLike(units)) throw misuse(where, `the units of ${name}`, 'a list of units', units)
      const placed = unitWords(words, units.length)
      if (placed === null) {
        tooShort += 1
        continue
      }
      for (const [epoch, sequences] of made.entries()) {
        const draws = new Random(seed, i * epochs + epoch)
        sequences.push(ustmSequence(tokenizer, ustmSegments(placed, units, draws, segmenting), draws))
      }
    } catch (cause) {
      const error = cause instanceof DataError ? new DataError(`${name}: ${cause.message}`, { name, cause }) : cause
      bad.add(error)
    }
  }
  const report = { utterances: utterances.length, tooShort, sequences: made[0]?.length ?? 0 }
  return { epochs: made, report: { ...report, badRecords: bad.count, badRecordErrors: bad.errors } }
}

/** @param more options of the caller's own */
function requireSequenceOptions(where: string, options: UstmSequenceOptions, more: readonly string[] = []): void {
  requireOptions(where, options, [...SEQUENCE_OPTIONS, ...more])
  const { tokenizer, epochs = 1, seed = 43, onBadRecord = 'stop', segmentUnits, compat } = options
  if (!(tokenizer instanceof UsdmTokenizer)) throw misuse(where, 'tokenizer', 'a UsdmTokenizer', tokenizer)
  requireWhole(where, 'epochs', epochs, 1)
  // Each is a list, and a file.
  if (epochs > MOST_EPOCHS) throw misuse(where, 'epochs', `at most ${MOST_EPOCHS}`, epochs)
  requireWhole(where, 'seed', seed)
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  requireSegmentOptions(where, { segmentUnits, compat })
}

const MOST_EPOCHS = 10_000
const SEQUENCE_OPTIONS = ['tokenizer', 'epochs', 'seed', 'onBadRecord', 'segmentUnits', 'compat'] as const

export interface PrepareUstmOptions extends UstmSequenceOptions {
  /** The folder of TextGrids, of any depth, such as the aligner wrote it. */
  textGrids: string
  /** The folder with `<name>_unit.txt` for each. Default: that of the TextGrids without `-textgrid` at its end. */
  units?: string
  /** The folder to write. */
  output: string
  /** Longer sequences are left out of the rows. Default 8192. */
  maxLength?: number
}

export interface PreparedUstm extends UstmReport {
  /** `data_epoch0.txt` …: a sequence of ids on each line. Beside each a `.json` has the lengths. */
  files: string[]
  /** `part0.txt`: a row of packed sequences on each line, in an order drawn by the seed. */
  packed: string
  rows: number
  tooLong: number
}

/**
 * The stages 2 to 4 of USDM's pre-training data: from aligned words and units to packed rows of ids.
 * @throws DataError naming the file that cannot be used; ConfigError where there is no TextGrid
 */
export async function prepareUstm(options: PrepareUstmOptions): Promise<PreparedUstm> {
  const where = 'prepareUstm'
  requireSequenceOptions(where, options, ['textGrids', 'units', 'output', 'maxLength'])
  const { textGrids, output, maxLength, ...rest } = options
  requireString(where, 'textGrids', textGrids)
  const { units = textGrids.replace(/-textgrid[/\\]?$/, ''), ...making } = rest
  for (const [name, value] of Object.entries({ units, output })) requireString(where, name, value)
  requireWhole(where, 'maxLength', maxLength ?? USDM_MAX_LENGTH, 1)
  const all = await readdir(textGrids, { recursive: true }).catch((cause: Error) => {
    throw new ConfigError(`${where}: ${textGrids} cannot be read: ${cause.message}`, { cause })
  })
  const grids = all.filter((path) => /\.textgrid$/i.test(path)).sort()
  if (grids.length === 0) throw new ConfigError(`${where}: ${textGrids} holds no TextGrid`, { argument: 'textGrids' })
  const bad = new BadRecords(making.onBadRecord ?? 'stop')
  const utterances: UstmUtterance[] = []
  for (const path of grids) {
    try {
      utterances.push(await utteranceOf(join(textGrids, path), join(units, path), making.tokenizer.units))
    } catch (error) {
      bad.add(error)
    }
  }
  const { epochs, report } = ustmSequences(utterances, making)
  makeDirectory(output, DataError)
  const files: string[] = []
  for (const [epoch, sequences] of epochs.entries()) {
    const file = join(output, `data_epoch${epoch}.txt`)
    await writeLines(file, sequences)
    await writeJson(
      file.replace(/txt$/, 'json'),
      sequences.map(({ length }) => length),
    )
    files.push(file)
  }
  bad.addAll(report.badRecords, report.badRecordErrors)
  const packed = join(output, 'part0.txt')
  const rows = await packUstm(files, packed, { capacity: maxLength ?? USDM_MAX_LENGTH, seed: making.seed ?? 43 })
  return {
    ...report,
    utterances: grids.length,
    badRecords: bad.count,
    badRecordErrors: bad.errors,
    files,
    packed,
    ...rows,
  }
}

async function utteranceOf(grid: string, beside: string, count: number): Promise<UstmUtterance> {
  const file = `${beside.replace(/\.textgrid$/i, '')}_unit.txt`
  if (!existsSync(file))
    throw new DataError(`${grid}: there are no units of it at ${file}`, { file: grid, units: file })
  try {
    const words = wordsOfTextGrid(await readTextGrid(grid, { gaps: 'fill' }))
    return { name: grid, words, units: await readUnits(file, { units: count }) }
  } catch (cause) {
    if (!(cause instanceof DataError) || cause.message.includes(grid) || cause.message.includes(file)) throw cause
    throw new DataError(`${grid}: ${cause.message}`, { file: grid, cause })
  }
}

/**
 * Packs files of sequences into rows (see {@link ustmPacks}), in an order drawn by the seed; those that are longer than a row are
 * left out and counted.
 * @throws DataError with `file` and `line` for a line that is no sequence
 */
export async function packUstm(
  files: readonly string[],
  output: string,
  options: { capacity?: number; seed?: number } = {},
): Promise<{ rows: number; tooLong: number }> {
  const where = 'packUstm'
  requireOptions(where, options, ['capacity', 'seed'])
  const { capacity = USDM_MAX_LENGTH, seed = 43 } = options
  if (!Array.isArray(files)) throw misuse(where, 'files', 'a list of files', files)
  for (const [i, file] of files.entries()) requireString(where, `files[${i}]`, file)
  requireString(where, 'output', output)
  requireWhole(where, 'capacity', capacity, 1)
  requireWhole(where, 'seed', seed)
  const sequences: number[][] = []
  let tooLong = 0
  for (const file of files) {
    for await (const ids of readUstmRows(file)) {
      if (ids.length > capacity) tooLong += 1
      else sequences.push(ids)
    }
  }
  new Random(seed).shuffle(sequences)
  const rows = ustmPacks(
    sequences.map(({ length }) => length),
    capacity,
  )
  makeDirectory(dirname(output), DataError)
  await writeLines(
    output,
    rows.map((row) => row.flatMap((place) => sequences[place] as number[])),
  )
  return { rows: rows.length, tooLong }
}

/** The files `<stem>0.txt`, `<stem>1.txt` … of a folder, in the order of their numbers. */
export async function numberedFiles(folder: string, stem: 'data_epoch' | 'part'): Promise<string[]> {
  const form = new RegExp(`^${stem}(\\d+)\\.txt$`)
  const numbers = (await readdir(folder)).flatMap((name) => form.exec(name)?.slice(1).map(Number) ?? [])
  return numbers.sort((a, b) => a - b).map((number) => join(folder, `${stem}${number}.txt`))
}

/** Lines of ids, one after the other. @throws DataError with `file` and `line` for what is none */
export async function* readUstmRows(path: string): AsyncGenerator<number[], void, void> {
  requireString('readUstmRows', 'path', path)
  let rest = ''
  let line = 0
  for await (const chunk of chunksOf(path)) {
    const lines = (rest + utf8(chunk, path, line + 1)).split('\n')
    rest = lines.pop() as string
    for (const text of lines) yield parseUstmRow(text, path, ++line)
  }
  if (rest !== '') yield parseUstmRow(rest, path, ++line)
}

/** A line of ids. */
export function parseUstmRow(text: string, file: string, line: number): number[] {
  return text
    .trimEnd()
    .split(' ')
    .map((word) => {
      if (/^\d{1,10}$/.test(word)) return Number(word)
      throw new DataError(`${file}, line ${line}: ${JSON.stringify(word.slice(0, 40))} is no id`, { file, line })
    })
}

async function writeLines(path: string, rows: readonly (readonly number[])[]): Promise<void> {
  await writeAtomically(path, DataError, async (write) => {
    for (const [i, row] of rows.entries()) await write(Buffer.from(`${i > 0 ? '\n' : ''}${row.join(' ')}`))
  })
}
