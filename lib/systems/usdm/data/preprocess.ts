import { dirname, join } from 'node:path'
import { makeDirectory } from '../../../base/atomic.js'
import {
  misuse,
  requireObject,
  requireOneOf,
  requireOptions,
  requireString,
  requireWhole,
} from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { Random } from '../../../data/random.js'
import type { OnBadRecord } from '../../../kit/records.js'
import { UnitExtractor } from '../../../models/units/unit-extractor.js'
import { type ExtractUnitsOptions, UnitFolder } from '../../../models/units/unit-folder.js'
import { readDailyTalk } from '../published/dailytalk.js'
import { pairsOf, type UsdmDialogs, type UsdmSpokenTurn } from './dialogs.js'
import { writeUsdmExamples } from './examples.js'
import { type UsdmExample, type UsdmTurn, type UsdmUtterance, usdmExample } from './prompt.js'
import { readUsdmJsonl, type UsdmJsonlDialogs } from './record.js'
import { USDM_MAX_LENGTH, UsdmTokenizer } from './text.js'

/** Gives the units of turns. */
export interface UnitSource {
  /** Makes those of all turns that follow, where that can be done together. */
  prepare?(turns: readonly UsdmSpokenTurn[]): Promise<void>
  read(turn: UsdmSpokenTurn): Promise<ArrayLike<number>>
}

export interface UsdmExampleOptions {
  tokenizer: UsdmTokenizer
  /** Where units come from: an extractor, whose units are kept in `unitFolder`, or something else that gives them. */
  units: UnitExtractor | UnitSource
  /** Where an extractor's units are kept; what is there is not extracted again. */
  unitFolder?: string
  /** 'single' (default): each two turns that follow each other are an example; 'multi': a whole dialog is one. */
  template?: 'single' | 'multi'
  /** Longer examples are left out. Default 8192. */
  maxLength?: number
  /** Of the order. Default 42. */
  seed?: number
  /** For an extractor. */
  extract?: ExtractUnitsOptions
}

/** What became of the dialogs of a file. */
export interface UsdmExampleReport {
  /** Turns that were read. */
  turns: number
  /** Dialogs, those included that were left out. */
  dialogs: number
  /** Dialogs left out because someone speaks twice in a row. */
  dropped: string[]
  /** Dialogs that were used. */
  kept: number
  /** Examples before those that are too long were left out. */
  pairs: number
  /** How many were too long. */
  tooLong: number
  /** How many are left. */
  examples: number
}

/**
 * Dialogs as examples for fine-tuning, shuffled by the seed: the same for the same dialogs, units and seed.
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
  requireOptions(where, options, ['tokenizer', 'units', 'unitFolder', 'template', 'maxLength', 'seed', 'extract'])
  const { tokenizer, units, unitFolder, template = 'single', maxLength = USDM_MAX_LENGTH, seed = 42, extract } = options
  if (!(tokenizer instanceof UsdmTokenizer)) throw misuse(where, 'tokenizer', 'a UsdmTokenizer', tokenizer)
  requireOneOf(where, 'template', template, ['single', 'multi'])
  requireWhole(where, 'maxLength', maxLength, 1)
  requireWhole(where, 'seed', seed)
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
    const said = (turn: number) => spoken[turn] as UsdmUtterance
    for (const pairs of pairsOf(spoken.length, template)) {
      const turns = pairs.map(([user, agent]): UsdmTurn => ({ user: said(user), agent: said(agent) }))
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
  if (folder === undefined) throw misuse(where, 'unitFolder', 'where the units are kept', folder)
  if (extractor.units !== tokenizer.units) {
    throw new ConfigError(
      `${where}: the tokenizer has ${tokenizer.units} units, and the extractor ${extractor.units}`,
      {
        tokenizer: tokenizer.units,
        extractor: extractor.units,
      },
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

export interface PreprocessDailyTalkOptions extends UsdmExampleOptions {
  /** The folder `data` of the corpus, or the one that holds it. */
  dataDir: string
  /** DailyTalk's `train_phone.txt`. Default `dataset/fine-tuning/dailytalk/raw/train.txt`. */
  trainMetadata?: string
  /** DailyTalk's `val_phone.txt`. Default `dataset/fine-tuning/dailytalk/raw/test.txt`. */
  testMetadata?: string
  /** Where `train.txt` and `test.txt` are written. Default `dataset/fine-tuning/dailytalk/preprocessed`. */
  output?: string
  /** The tokenizer with its tokens is written there, where the training looks for it. Default: nowhere. */
  modelCacheDir?: string
  /** What a line or dialog that cannot be used does: 'stop' (default) throws; 'skip' leaves the dialog out and counts it. */
  onBadRecord?: OnBadRecord
}

export interface PreprocessedFile extends UsdmExampleReport {
  file: string
  /** Dialogs and lines left out by `onBadRecord: 'skip'`, and the errors of the first hundred. */
  badRecords: number
  badRecordErrors: DataError[]
}

export const DAILYTALK = 'dataset/fine-tuning/dailytalk'

/**
 * Makes of DailyTalk what USDM is fine-tuned on: `train.txt` and `test.txt`, a line `ids|labels` for each two turns that follow
 * each other. Units are extracted once for each clip and kept in `unitFolder` (default `<output>/units`), so that a run that was
 * ended goes on; the same seed gives the same bytes.
 * @throws DataError with `file` and `line` for a line that is none, a turn or a clip that is missing
 */
export async function preprocessDailyTalk(
  options: PreprocessDailyTalkOptions,
): Promise<{ train: PreprocessedFile; test: PreprocessedFile }> {
  const where = 'preprocessDailyTalk'
  requireObject(where, 'options', options)
  const {
    dataDir,
    trainMetadata = `${DAILYTALK}/raw/train.txt`,
    testMetadata = `${DAILYTALK}/raw/test.txt`,
    output = `${DAILYTALK}/preprocessed`,
    onBadRecord = 'stop',
    modelCacheDir,
    ...making
  } = options
  requireString(where, 'dataDir', dataDir)
  requireString(where, 'output', output)
  // Both are read before anything is extracted.
  const train = await readDailyTalk(trainMetadata, dataDir, { onBadRecord })
  const test = await readDailyTalk(testMetadata, dataDir, { onBadRecord })
  const whole = { unitFolder: join(output, 'units'), ...making }
  const result = {
    train: await written(join(output, 'train.txt'), train, whole),
    test: await written(join(output, 'test.txt'), test, whole),
  }
  if (modelCacheDir !== undefined) options.tokenizer.saveTo(modelCacheDir)
  return result
}

export interface PreprocessUsdmJsonlOptions extends UsdmExampleOptions {
  /** JSON Lines, a turn each: see {@link readUsdmJsonl}. */
  data: string
  /** The file of examples. */
  output: string
  /** What `wav` is relative to. Default: the folder of `data`. */
  audioRoot?: string
  modelCacheDir?: string
  onBadRecord?: OnBadRecord
}

/** The same of dialogs of one's own. Units are kept in `unitFolder`, by default a folder `units` beside `output`. */
export async function preprocessUsdmJsonl(options: PreprocessUsdmJsonlOptions): Promise<PreprocessedFile> {
  const where = 'preprocessUsdmJsonl'
  requireObject(where, 'options', options)
  const { data, output, audioRoot, modelCacheDir, onBadRecord = 'stop', ...making } = options
  requireString(where, 'data', data)
  requireString(where, 'output', output)
  const dialogs = await readUsdmJsonl(data, { onBadRecord, ...(audioRoot !== undefined && { audioRoot }) })
  const result = await written(output, dialogs, { unitFolder: join(dirname(output), 'units'), ...making })
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
