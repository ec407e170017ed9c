import { existsSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { makeDirectory, writeAtomically } from '../../../base/atomic.js'
import { argumentError, isArrayLike, requireString } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, instanceOf, settings } from '../../../base/settings.js'
import { Random } from '../../../data/random.js'
import { writeJson } from '../../../files/json/json.js'
import { readTextGrid } from '../../../files/textgrid.js'
import { BadRecords } from '../../../kit/records.js'
import { readUnits } from '../../../models/units/unit-folder.js'
import { PREPARE_SETTINGS, SEQUENCE_SETTINGS, USDM_MAX_LENGTH } from '../configuration/settings.js'
import { parsedLines } from '../data/examples.js'
import { UsdmTokenizer } from '../data/text.js'
import { ustmPacks, ustmSegments, ustmSequence } from './interleave.js'
import { type AlignedWord, unitWords, wordsOfTextGrid } from './words.js'

/** An utterance: its words with times, and its units. */
export interface UstmUtterance {
  /** Name in messages, such as its file. */
  name: string
  words: readonly AlignedWord[]
  units: ArrayLike<number>
}

const TOKENIZER = { tokenizer: { type: instanceOf(UsdmTokenizer), required: true } } as const
const SEQUENCES = SEQUENCE_SETTINGS.extend(TOKENIZER)

/** Options of `ustmSequences`. @interface */
export type UstmSequenceOptions = ChangesOf<typeof SEQUENCES.table>

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
  const { tokenizer, epochs, seed, onBadRecord, ...segmenting } = SEQUENCES.read(where, options)
  requireEpochs(where, epochs)
  requireForm(where, 'utterances', utterances, [{ name: 'string', words: 'list', units: 'object' }])
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

/** Every epoch takes a list and a file. */
function requireEpochs(where: string, epochs: number): void {
  if (epochs > MAX_EPOCHS) throw argumentError(where, 'epochs', `an integer of at most ${MAX_EPOCHS}`, epochs)
}

const MAX_EPOCHS = 10_000

const SETTINGS = PREPARE_SETTINGS.extend({
  ...TOKENIZER,
  /** Folder of TextGrids, searched recursively. */
  textGrids: { type: 'string', required: true },
})

/** Options of `prepareUstm`. @interface */
export type PrepareUstmOptions = ChangesOf<typeof SETTINGS.table>

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
  const { textGrids, output, maxLength, units: folder, ...sequenceOptions } = SETTINGS.read(where, options)
  requireEpochs(where, sequenceOptions.epochs)
  const units = folder ?? textGrids.replace(/-textgrid[/\\]?$/, '')
  const all = await readdir(textGrids, { recursive: true }).catch((cause: Error) => {
    throw new ConfigError(`${where}: expected a readable folder of TextGrids, got ${textGrids}: ${cause.message}`, {
      cause,
    })
  })
  const grids = all.filter((path) => /\.textgrid$/i.test(path)).sort()
  if (grids.length === 0) {
    throw new ConfigError(`${where}: expected TextGrids in ${textGrids}, got none.`, { argument: 'textGrids' })
  }
  const bad = new BadRecords(sequenceOptions.onBadRecord)
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
  const rows = await packUstm(files, packed, { capacity: maxLength, seed: sequenceOptions.seed })
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

const PACKING = settings({
  capacity: { type: 'integer', min: 1, default: USDM_MAX_LENGTH },
  seed: SEQUENCE_SETTINGS.table.seed,
})

/**
 * Pack files of sequences into rows (see {@link ustmPacks}), shuffled by the seed. Sequences longer than a row are dropped and counted.
 * @throws DataError with `file` and `line` for a malformed line
 */
export async function packUstm(
  files: readonly string[],
  output: string,
  options: ChangesOf<typeof PACKING.table> = {},
): Promise<{ rows: number; tooLong: number }> {
  const where = 'packUstm'
  const { capacity, seed } = PACKING.read(where, options)
  if (!Array.isArray(files)) throw argumentError(where, 'files', 'a list of files', files)
  for (const [i, file] of files.entries()) requireString(where, `files[${i}]`, file)
  requireString(where, 'output', output)
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
export const readUstmRows = (path: string): AsyncGenerator<number[], void, void> =>
  parsedLines('readUstmRows', path, parseUstmRow)

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
