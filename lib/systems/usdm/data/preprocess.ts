import { dirname, join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import { argumentError } from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { type ChangesOf, instanceOf, unchecked } from '../../../base/settings.js'
import { Random } from '../../../data/random.js'
import { UnitExtractor } from '../../../models/units/unit-extractor.js'
import { type ExtractUnitsOptions, UnitFolder } from '../../../models/units/unit-folder.js'
import { DAILYTALK_SETTINGS, EXAMPLE_SETTINGS, PREPROCESS_SETTINGS } from '../configuration/settings.js'
import { readDailyTalk } from '../published/dailytalk.js'
import { pairsOf, type UsdmDialogs, type UsdmSpokenTurn } from './dialogs.js'
import { writeUsdmExamples } from './examples.js'
import { type UsdmExample, type UsdmTurn, type UsdmUtterance, usdmExample } from './prompt.js'
import { readUsdmJsonl, type UsdmJsonlDialogs } from './record.js'
import { UsdmTokenizer } from './text.js'

/** A source of the units of turns. */
export interface UnitSource {
  /** Compute the units of all turns that will be read. Optional: for sources that work in batches. */
  prepare?(turns: readonly UsdmSpokenTurn[]): Promise<void>
  read(turn: UsdmSpokenTurn): Promise<ArrayLike<number>>
}

const SOURCE = {
  tokenizer: { type: instanceOf(UsdmTokenizer), required: true },
  /** An extractor, whose units are cached in `unitFolder`, or another source of units. */
  units: { type: unchecked<UnitExtractor | UnitSource>(), required: true },
  /** Options for an extractor. */
  extract: { type: unchecked<ExtractUnitsOptions>() },
} as const

const EXAMPLES = EXAMPLE_SETTINGS.extend(SOURCE)

/** Options of `usdmExamples`. @interface */
export type UsdmExampleOptions = ChangesOf<typeof EXAMPLES.table>

/** Counts of the dialogs and examples of a file. */
export interface UsdmExampleReport {
  /** Turns read. */
  turns: number
  /** Dialogs, dropped ones included. */
  dialogs: number
  /** Names of the dialogs dropped because a speaker has two turns in a row. */
  dropped: string[]
  /** Dialogs that were used. */
  kept: number
  /** Examples before long ones are dropped. */
  pairs: number
  /** Examples dropped for their length. */
  tooLong: number
  /** Examples that remain. */
  examples: number
}

/**
 * Return dialogs as examples for fine-tuning, shuffled by the seed. The result is deterministic in dialogs, units and seed.
 * @throws DataError with `file` and `line` for a turn whose clip cannot be used
 */
export async function usdmExamples(
  grouped: UsdmDialogs,
  options: UsdmExampleOptions,
): Promise<{ examples: UsdmExample[]; report: UsdmExampleReport }> {
  const where = 'usdmExamples'
  const turn = { text: 'string', clip: 'string', file: 'string', line: 'number', audio: 'object' } as const
  requireForm(where, 'dialogs', grouped, {
    dialogs: [{ dialog: 'string', turns: [turn] }],
    turns: 'number',
    dropped: 'list',
  })
  const { dialogs, turns, dropped } = grouped
  const { tokenizer, units, unitFolder, template, maxLength, seed, extract } = EXAMPLES.read(where, options)
  const source = units instanceof UnitExtractor ? await extracting(where, units, tokenizer, unitFolder, extract) : units
  requireForm(where, 'units', source, { read: 'function', 'prepare?': 'function' })
  const all = dialogs.flatMap((dialog) => dialog.turns)
  await source.prepare?.(all)
  const report: UsdmExampleReport = {
    turns,
    dialogs: dialogs.length + dropped.length,
    dropped,
    kept: dialogs.length,
    pairs: 0,
    tooLong: 0,
    examples: 0,
  }
  const examples: UsdmExample[] = []
  for (const dialog of dialogs) {
    const spoken = await Promise.all(
      dialog.turns.map(async (turn): Promise<UsdmUtterance> => ({ text: turn.text, units: await source.read(turn) })),
    )
    const utterance = (turn: number) => spoken[turn] as UsdmUtterance
    for (const pairs of pairsOf(spoken.length, template)) {
      const turns = pairs.map(([user, agent]): UsdmTurn => ({ user: utterance(user), agent: utterance(agent) }))
      const { file, line } = dialog.turns[pairs[0]?.[0] ?? 0] as UsdmSpokenTurn
      const example = named(() => usdmExample(tokenizer, turns), `dialog ${dialog.dialog}`, file, line)
      report.pairs += 1
      if (example.inputIds.length > maxLength) report.tooLong += 1
      else examples.push(example)
    }
  }
  report.examples = examples.length
  return { examples: new Random(seed).shuffle(examples), report }
}

function named<T>(work: () => T, what: string, file: string, line: number): T {
  try {
    return work()
  } catch (cause) {
    if (!(cause instanceof DataError)) throw cause
    throw new DataError(`${file}, line ${line}: ${what}: ${cause.message}`, { file, line, cause })
  }
}

async function extracting(
  where: string,
  extractor: UnitExtractor,
  tokenizer: UsdmTokenizer,
  folder: string | undefined,
  extract: ExtractUnitsOptions = {},
): Promise<UnitSource> {
  if (folder === undefined) throw argumentError(where, 'unitFolder', 'the folder of cached units', folder)
  if (extractor.units !== tokenizer.units) {
    throw new ConfigError(
      `${where}: expected as many units in the extractor as in the tokenizer, ${tokenizer.units}, got ${extractor.units}.`,
      { tokenizer: tokenizer.units, extractor: extractor.units },
    )
  }
  const kept = await UnitFolder.open(folder, extractor)
  return {
    async prepare(turns) {
      const clips = turns.map(({ clip, audio, file, line }) => ({
        name: clip,
        audio,
        place: `${file}, line ${line}: ${audio.path}`,
      }))
      await kept.fill(extractor, clips, extract)
    },
    read: ({ clip }) => kept.read(clip),
  }
}

const FILES = PREPROCESS_SETTINGS.extend(SOURCE)

const DAILYTALK_OPTIONS = FILES.extend(DAILYTALK_SETTINGS.table).extend({
  /** The corpus's folder `data`, or the folder that contains it. */
  dataDir: { type: 'string', required: true },
})

/** Options of `preprocessDailyTalk`. @interface */
export type PreprocessDailyTalkOptions = ChangesOf<typeof DAILYTALK_OPTIONS.table>

export interface PreprocessedFile extends UsdmExampleReport {
  file: string
  /** Number of dialogs and lines dropped by `onBadRecord: 'skip'`, and the first hundred errors. */
  badRecords: number
  badRecordErrors: DataError[]
}

/**
 * Convert DailyTalk to training examples for USDM: writes `train.txt` and `test.txt`, a line `ids|labels` for each pair of
 * neighboring turns. Units are extracted once per clip and cached in `unitFolder` (default `<output>/units`), so an interrupted run
 * continues. The same seed gives the same bytes.
 * @throws DataError with `file` and `line` for a malformed line, and for a missing turn or clip
 */
export async function preprocessDailyTalk(
  options: PreprocessDailyTalkOptions,
): Promise<{ train: PreprocessedFile; test: PreprocessedFile }> {
  const { dataDir, trainMetadata, testMetadata, output, onBadRecord, modelCacheDir, ...exampleOptions } =
    DAILYTALK_OPTIONS.read('preprocessDailyTalk', options)
  // Both are read before the extraction starts, so that faults in the metadata show early.
  const train = await readDailyTalk(trainMetadata, dataDir, { onBadRecord })
  const test = await readDailyTalk(testMetadata, dataDir, { onBadRecord })
  const settings = { unitFolder: join(output, 'units'), ...exampleOptions }
  const result = {
    train: await written(join(output, 'train.txt'), train, settings),
    test: await written(join(output, 'test.txt'), test, settings),
  }
  if (modelCacheDir !== undefined) options.tokenizer.saveTo(modelCacheDir)
  return result
}

const JSONL_OPTIONS = FILES.extend({
  /** JSON Lines, one turn per line: see {@link readUsdmJsonl}. */
  data: { type: 'string', required: true },
  /** The file of examples to write. */
  output: { type: 'string', required: true },
  /** Folder that `wav` is relative to. Default: the folder of `data`. */
  audioRoot: { type: 'string' },
})

/** Options of `preprocessUsdmJsonl`. @interface */
export type PreprocessUsdmJsonlOptions = ChangesOf<typeof JSONL_OPTIONS.table>

/** Convert a JSON Lines file of dialogs to training examples. Units are cached in `unitFolder`, by default `units` next to `output`. */
export async function preprocessUsdmJsonl(options: PreprocessUsdmJsonlOptions): Promise<PreprocessedFile> {
  const { data, output, audioRoot, modelCacheDir, onBadRecord, ...exampleOptions } = JSONL_OPTIONS.read(
    'preprocessUsdmJsonl',
    options,
  )
  const dialogs = await readUsdmJsonl(data, { onBadRecord, ...(audioRoot !== undefined && { audioRoot }) })
  const result = await written(output, dialogs, { unitFolder: join(dirname(output), 'units'), ...exampleOptions })
  if (modelCacheDir !== undefined) options.tokenizer.saveTo(modelCacheDir)
  return result
}

async function written(
  file: string,
  dialogs: UsdmJsonlDialogs,
  options: UsdmExampleOptions,
): Promise<PreprocessedFile> {
  const { examples, report } = await usdmExamples(dialogs, options)
  makeDirectory(dirname(file), DataError)
  await writeUsdmExamples(file, examples)
  return { file, ...report, badRecords: dialogs.badRecords, badRecordErrors: dialogs.badRecordErrors }
}
