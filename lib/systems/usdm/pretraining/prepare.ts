import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeDirectory, writeAtomically } from '../../../base/atomic.js'
import {
  argumentError,
  isArrayLike,
  requireOneOf,
  requireOptions,
  requireString,
  requireWhole,
} from '../../../base/check.js'
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

/** An utterance: its words with times, and its units. */
export interface UstmUtterance {
  /** Name in messages, such as its file. */
  name: string
  words: readonly AlignedWord[]
  units: ArrayLike<number>
}

export interface UstmSequenceOptions extends SegmentOptions {
  tokenizer: UsdmTokenizer
  /** Number of times that each utterance is segmented and interleaved anew. Default 1. */
  epochs?: number
  /** Random seed; each utterance has its own random stream. Default 43. */
  seed?: number
  /** Action for an utterance that cannot be used. Default 'stop'. */
  onBadRecord?: OnBadRecord
}

export interface UstmReport {
  utterances: number
  /** Number of utterances with fewer than three words. */
  tooShort: number
  /** Number of sequences per epoch. */
  sequences: number
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Return sequences of interleaved text and speech: one list per epoch. The sequence of an utterance depends only on the seed and on its
 * index.
 * @throws DataError naming the utterance whose words do not match its units
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
  const epochSequences = Array.from({ length: epochs }, (): number[][] => [])
  let tooShort = 0
  for (const [i, { name, words, units }] of utterances.entries()) {
    try {
      if (!isArrayLike(units)) throw argumentError(where, `the units of ${name}`, 'a list of units', units)
      const placed = unitWords(words, units.length)
      if (placed === null) {
        tooShort += 1
        continue
      }
      for (const [epoch, sequences] of epochSequences.entries()) {
        const draws = new Random(seed, i * epochs + epoch)
        sequences.push(ustmSequence(tokenizer, ustmSegments(placed, units, draws, segmenting), draws))
      }
    } catch (cause) {
      const error = cause instanceof DataError ? new DataError(`${name}: ${cause.message}`, { name, cause }) : cause
      bad.add(error)
    }
  }
  const report = { utterances: utterances.length, tooShort, sequences: epochSequences[0]?.length ?? 0 }
  return { epochs: epochSequences, report: { ...report, badRecords: bad.count, badRecordErrors: bad.errors } }
}

/** @param more names of further options that the caller takes */
function requireSequenceOptions(where: string, options: UstmSequenceOptions, more: readonly string[] = []): void {
  requireOptions(where, options, [...SEQUENCE_OPTIONS, ...more])
  const { tokenizer, epochs = 1, seed = 43, onBadRecord = 'stop', segmentUnits, compat } = options
  if (!(tokenizer instanceof UsdmTokenizer)) throw argumentError(where, 'tokenizer', 'a UsdmTokenizer', tokenizer)
  requireWhole(where, 'epochs', epochs, 1)
  // Every epoch takes a list and a file.
  if (epochs > MAX_EPOCHS) throw argumentError(where, 'epochs', `an integer of at most ${MAX_EPOCHS}`, epochs)
  requireWhole(where, 'seed', seed)
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  requireSegmentOptions(where, { segmentUnits, compat })
}

const MAX_EPOCHS = 10_000
const SEQUENCE_OPTIONS = ['tokenizer', 'epochs', 'seed', 'onBadRecord', 'segmentUnits', 'compat'] as const

export interface PrepareUstmOptions extends UstmSequenceOptions {
  /** Folder of TextGrids, searched recursively. */
  textGrids: string
  /** Folder with `<name>_unit.txt` for each. Default: that of the TextGrids without `-textgrid` at its end. */
  units?: string
  /** The folder to write. */
  output: string
  /** Maximum tokens of a row; longer sequences are dropped. Default 8192. */
  maxLength?: number
}

export interface PreparedUstm extends UstmReport {
  /** `data_epoch0.txt` …: one sequence of ids per line. A `.json` next to each has the lengths. */
  files: string[]
  /** `part0.txt`: one row of packed sequences per line, shuffled by the seed. */
  packed: string
  rows: number
  tooLong: number
}

/**
 * Run stages 2 to 4 of USDM's pre-training data: from aligned words and units to packed rows of ids.
 * @throws DataError naming the file that cannot be used; ConfigError if there are no TextGrids
 */
export async function prepareUstm(options: PrepareUstmOptions): Promise<PreparedUstm> {
  const where = 'prepareUstm'
  requireSequenceOptions(where, options, ['textGrids', 'units', 'output', 'maxLength'])
  const { textGrids, output, maxLength, ...rest } = options
  requireString(where, 'textGrids', textGrids)
  const { units = textGrids.replace(/-textgrid[/\\]?$/, ''), ...sequenceOptions } = rest
  for (const [name, value] of Object.entries({ units, output })) requireString(where, name, value)
  requireWhole(where, 'maxLength', maxLength ?? USDM_MAX_LENGTH, 1)
  const all = await readdir(textGrids, { recursive: true }).catch((cause: Error) => {
    throw new ConfigError(`${where}: expected a readable folder of TextGrids, got ${textGrids}: ${cause.message}`, {
      cause,
    })
  })
  const grids = all.filter((path) => /\.textgrid$/i.test(path)).sort()
  if (grids.length === 0) {
    throw new ConfigError(`${where}: expected TextGrids in ${textGrids}, got none.`, { argument: 'textGrids' })
  }
  const bad = new BadRecords(sequenceOptions.onBadRecord ?? 'stop')
  const utterances: UstmUtterance[] = []
  for (const path of grids) {
    try {
      utterances.push(await utteranceOf(join(textGrids, path), join(units, path), sequenceOptions.tokenizer.units))
    } catch (error) {
      bad.add(error)
    }
  }
  const { epochs, report } = ustmSequences(utterances, sequenceOptions)
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
  const rows = await packUstm(files, packed, {
    capacity: maxLength ?? USDM_MAX_LENGTH,
    seed: sequenceOptions.seed ?? 43,
  })
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

async function utteranceOf(grid: string, unitPath: string, count: number): Promise<UstmUtterance> {
  const file = `${unitPath.replace(/\.textgrid$/i, '')}_unit.txt`
  if (!existsSync(file))
    throw new DataError(`${grid}: expected its units in ${file}, which does not exist`, { file: grid, units: file })
  try {
    const words = wordsOfTextGrid(await readTextGrid(grid, { gaps: 'fill' }))
    return { name: grid, words, units: await readUnits(file, { units: count }) }
  } catch (cause) {
    if (!(cause instanceof DataError) || cause.message.includes(grid) || cause.message.includes(file)) throw cause
    throw new DataError(`${grid}: ${cause.message}`, { file: grid, cause })
  }
}

/**
 * Pack files of sequences into rows (see {@link ustmPacks}), shuffled by the seed. Sequences longer than a row are dropped and counted.
 * @throws DataError with `file` and `line` for a malformed line
 */
export async function packUstm(
  files: readonly string[],
  output: string,
  options: { capacity?: number; seed?: number } = {},
): Promise<{ rows: number; tooLong: number }> {
  const where = 'packUstm'
  requireOptions(where, options, ['capacity', 'seed'])
  const { capacity = USDM_MAX_LENGTH, seed = 43 } = options
  if (!Array.isArray(files)) throw argumentError(where, 'files', 'a list of files', files)
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

/** Return the files `<stem>0.txt`, `<stem>1.txt` … of a folder, in the order of their numbers. */
export async function numberedFiles(folder: string, stem: 'data_epoch' | 'part'): Promise<string[]> {
  const form = new RegExp(`^${stem}(\\d+)\\.txt$`)
  const numbers = (await readdir(folder)).flatMap((name) => form.exec(name)?.slice(1).map(Number) ?? [])
  return numbers.sort((a, b) => a - b).map((number) => join(folder, `${stem}${number}.txt`))
}

/** Read lines of ids, one at a time. @throws DataError with `file` and `line` for a malformed line */
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

/** Parse a line of ids. */
export function parseUstmRow(text: string, file: string, line: number): number[] {
  return text
    .trimEnd()
    .split(' ')
    .map((word) => {
      if (/^\d{1,10}$/.test(word)) return Number(word)
      throw new DataError(`${file}, line ${line}: expected an id, got ${JSON.stringify(word.slice(0, 40))}`, {
        file,
        line,
      })
    })
}

async function writeLines(path: string, rows: readonly (readonly number[])[]): Promise<void> {
  await writeAtomically(path, DataError, async (write) => {
    for (const [i, row] of rows.entries()) await write(Buffer.from(`${i > 0 ? '\n' : ''}${row.join(' ')}`))
  })
}
