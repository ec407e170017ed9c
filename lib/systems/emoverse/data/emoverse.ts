import { existsSync, statSync } from 'node:fs'
import {
  argumentError,
  requireNumber,
  requireObject,
  requireOneOf,
  requireOptions,
  requireString,
  requireWhole,
  shown,
} from '../../../base/check.js'
import { ConfigError, DataError } from '../../../base/errors.js'
import { type ChangesOf, checkedBy, functionOf, unchecked, type ValuesOf } from '../../../base/settings.js'
import { Random } from '../../../data/random.js'
import type { EmotionDialog } from '../../../kit/emotion/dialog.js'
import { readEcf } from '../../../kit/emotion/ecf.js'
import { readMeld } from '../../../kit/emotion/meld.js'
import type { Part } from '../../../kit/split.js'
import { DATA_SETTINGS } from '../configuration/settings.js'
import {
  ECPE_WORDING,
  type EcpeWording,
  EMOVERSE_TASKS,
  type EmoVerseTask,
  ecpeWordingOf,
} from '../published/wording.js'
import { readSwiftDataset } from './dataset.js'
import type { SwiftRecord } from './entry.js'
import { type FaceTables, facesIn, faceTable, readFaceExpressions } from './faces.js'
import { readMosei } from './mosei.js'
import {
  EMOVERSE_SOURCES,
  type EmoVerseSample,
  type EmoVerseSource,
  ecfSamples,
  type MoseiSample,
  meldSamples,
  moseiSamples,
  type SampleOptions,
} from './samples.js'

export type EmoVerseStage = 1 | 2

/**
 * Weights by which a task is drawn if a clip has answers for several. The order of the weights follows the paper's figure; the exact
 * numbers are not published.
 */
export const EMOVERSE_WEIGHTS: Readonly<Record<EmoVerseStage, Readonly<Record<EmoVerseTask, number>>>> = {
  1: { MSA: 2, MER: 1, FER: 2, ERI: 0, ECPE: 0 },
  2: { MSA: 1, MER: 2, FER: 0, ERI: 2, ECPE: 2 },
}

/** Sources of each stage: stage 1 uses only MOSEI. */
const STAGE_SOURCES: Readonly<Record<EmoVerseStage, readonly EmoVerseSource[]>> = { 1: ['mosei'], 2: EMOVERSE_SOURCES }

/** Inputs of the instruction data. */
export interface EmoVerseInputs {
  /** Table of MELD, its folder, or dialogs. */
  meld?: string | readonly EmotionDialog[]
  /** File of ECF, of either subtask, or dialogs. */
  ecf?: string | readonly EmotionDialog[]
  /** File of MMSA, or clips with their labels. */
  mosei?: string | readonly MoseiSample[]
  /** Table of MOSEI's emotions, see `readMosei`. */
  moseiEmotions?: string
  /** OpenFace tables of MOSEI's clips. */
  faces?: FaceTables
  /** Reasons for emotions, by clip id: a JSON or JSONL file of `{ "id": …, "text": … }`, or the texts. */
  reasons?: string | Readonly<Record<string, string>>
}

const SETTINGS = DATA_SETTINGS.extend({
  /** 1: only MOSEI. 2 (default): all inputs. */
  stage: { type: [1, 2], default: 2 },
  /** Changes to the stage's {@link EMOVERSE_WEIGHTS}; 0 leaves a task out. */
  weights: { type: unchecked<Partial<Record<EmoVerseTask, number>>>() },
  /** Sources to use. Default: MOSEI in stage 1, and all inputs in stage 2. */
  sources: {
    type: checkedBy<readonly EmoVerseSource[]>((where, name, value) => {
      if (!Array.isArray(value)) throw argumentError(where, name, 'a list of sources', value)
      for (const source of value) requireOneOf(where, 'a source', source, EMOVERSE_SOURCES)
    }),
  },
  /** Maximum number of records of a source (`meld: 1000`) or task (`ECPE: 500`), drawn at random. */
  caps: {
    type: checkedBy<Partial<Record<EmoVerseSource | EmoVerseTask, number>>>((where, name, value) => {
      requireObject(where, name, value)
      for (const [key, most] of Object.entries(value as object)) {
        requireOneOf(where, 'a name in caps', key, [...EMOVERSE_SOURCES, ...EMOVERSE_TASKS])
        requireWhole(where, `caps.${key}`, most)
      }
    }),
    default: {},
  },
  /** Prompt texts around a conversation, or path of a published instruction file to take them from. Default: {@link ECPE_WORDING}. */
  wording: { type: unchecked<string | EcpeWording>() },
  /** Emotions that questions about causes show in place of the true ones. */
  predicted: { type: functionOf<(dialog: EmotionDialog, place: number) => string>() },
})

/** Options of `emoverseData`. @interface */
export type EmoVerseDataOptions = ChangesOf<typeof SETTINGS.table>

/** Counts of the records. */
export interface EmoVerseReport {
  records: number
  /** Counts by task: total, by source, and by answer where answers are labels or emotions. */
  tasks: Partial<
    Record<EmoVerseTask, { records: number; sources: Record<string, number>; classes: Record<string, number> }>
  >
  /** Number of clips without an answer for any weighted task, by source. */
  unused: Partial<Record<EmoVerseSource, number>>
  /** Number of records that `caps` left out, by the cap that was reached. */
  capped: Record<string, number>
  /** Ids of one input that are missing in another. */
  unmatched: Record<string, string[]>
}

export interface EmoVerseData {
  /** Records, created on iteration. */
  records: Iterable<SwiftRecord> & { readonly length: number }
  report: EmoVerseReport
}

const INPUTS = ['meld', 'ecf', 'mosei', 'moseiEmotions', 'faces', 'reasons'] as const

/**
 * Make the instruction data of a stage from labels. For each clip one task is drawn by weight among those that the clip has an answer for,
 * then the records are shuffled. The result depends only on the seed and the order of the clips.
 *
 * ```ts
 * const { records, report } = await emoverseData({ meld: 'MELD', ecf: 'Subtask_2_train.json' }, { stage: 2 })
 * await writeSwiftDataset('emt_data_second.json', records)
 * ```
 * @throws ConfigError for an invalid option, or if no input is for this stage; DataError naming file and position for data that cannot be
 * read
 */
export async function emoverseData(inputs: EmoVerseInputs, options: EmoVerseDataOptions = {}): Promise<EmoVerseData> {
  const where = 'emoverseData'
  requireOptions(where, inputs, INPUTS)
  const values = SETTINGS.read(where, options)
  const { stage, caps, seed, all, sources = STAGE_SOURCES[stage] } = values
  const weights = weightsOf(where, stage, values.weights)
  const unmatched: Record<string, string[]> = {}
  const made = await sampleOptions(inputs, values)
  const samples = await samplesOf(where, inputs, sources, made, unmatched)
  if (samples.length === 0) {
    throw new ConfigError(
      `${where}: expected ${sources.join(' or ')} for stage ${stage}, got no clip of any. Pass one of these inputs.`,
      {
        argument: 'inputs',
      },
    )
  }
  const used = new Set(samples.map(({ id }) => id))
  if (made.reasons.size > 0) unmatched.reasonsWithoutClip = [...made.reasons.keys()].filter((id) => !used.has(id))
  return drawRecords(samples, { weights, caps, seed, all, unmatched })
}

function weightsOf(where: string, stage: EmoVerseStage, changes: EmoVerseDataOptions['weights'] = {}) {
  requireObject(where, 'weights', changes)
  for (const [name, weight] of Object.entries(changes)) {
    requireOneOf(where, 'a name in weights', name, EMOVERSE_TASKS)
    requireNumber(where, `weights.${name}`, weight, { least: 0 })
    if (!Number.isFinite(weight)) throw argumentError(where, `weights.${name}`, 'a number', weight)
  }
  return { ...EMOVERSE_WEIGHTS[stage], ...changes }
}

async function sampleOptions(
  { reasons }: EmoVerseInputs,
  { context, candidates, sentiment, predicted, part, wording }: ValuesOf<typeof SETTINGS.table>,
): Promise<SampleOptions> {
  return {
    ...{ context, candidates, sentiment, predicted, part },
    wording: await wordingOf(wording),
    reasons: await reasonsOf(reasons),
  }
}

/** Return prompt texts around a conversation: the argument, those of a file's first record, or the default. @internal */
export async function wordingOf(given: string | EcpeWording | undefined): Promise<Readonly<EcpeWording>> {
  if (typeof given !== 'string') return given ?? ECPE_WORDING
  for await (const record of await readSwiftDataset(given, { requireResponse: false, markers: false })) {
    return ecpeWordingOf(record)
  }
  throw new DataError(`${given}: expected a record to take the wording from, got an empty file.`, { file: given })
}

async function reasonsOf(given: EmoVerseInputs['reasons']): Promise<Map<string, string>> {
  if (given === undefined) return new Map()
  if (typeof given !== 'string') {
    requireObject('emoverseData', 'reasons', given)
    for (const [id, text] of Object.entries(given)) requireString('emoverseData', `reasons['${id}']`, text)
    return new Map(Object.entries(given))
  }
  const { readJson } = await import('../../../files/json/json.js')
  const { readJsonl } = await import('../../../files/json/jsonl.js')
  let rows: unknown = []
  if (given.endsWith('.jsonl'))
    for await (const row of readJsonl(given, { skipBlank: true })) (rows as unknown[]).push(row)
  else rows = await readJson(given)
  if (!Array.isArray(rows))
    throw new DataError(`${given}: expected a list of { "id": …, "text": … }, got ${shown(rows)}.`, { file: given })
  return new Map(
    rows.map((row, i) => {
      const { id, text } = (row ?? {}) as { id?: unknown; text?: unknown }
      if (typeof id === 'string' && typeof text === 'string') return [id, text]
      throw new DataError(
        `${given}, record ${i + 1}: expected { "id": …, "text": … } with strings, got ${shown(row)}.`,
        { file: given, record: i + 1 },
      )
    }),
  )
}

async function samplesOf(
  where: string,
  { meld, ecf, mosei, moseiEmotions, faces }: EmoVerseInputs,
  sources: readonly EmoVerseSource[],
  options: SampleOptions,
  unmatched: Record<string, string[]>,
): Promise<EmoVerseSample[]> {
  const { part } = options
  const found: EmoVerseSample[] = []
  if (mosei !== undefined && sources.includes('mosei')) {
    let samples = mosei as readonly MoseiSample[]
    if (typeof mosei === 'string') {
      const read = await readMosei(mosei, { part, ...(moseiEmotions !== undefined && { emotions: moseiEmotions }) })
      samples = read.samples
      if (moseiEmotions !== undefined) {
        unmatched.clipsWithoutEmotions = read.unmatched.withoutEmotions
        unmatched.emotionsWithoutClip = read.unmatched.withoutClip
      }
    } else if (!Array.isArray(mosei)) throw argumentError(where, 'mosei', "MMSA's file, or a list of clips", mosei)
    found.push(...moseiSamples(faces === undefined ? samples : await withFaces(samples, faces, unmatched), options))
  }
  if (meld !== undefined && sources.includes('meld')) {
    const dialogs = typeof meld === 'string' ? (await readMeld(meld, meldPart(meld, part))).dialogs : meld
    if (!Array.isArray(dialogs)) throw argumentError(where, 'meld', 'a path, or a list of dialogs', meld)
    found.push(...meldSamples(dialogs, options))
  }
  if (ecf !== undefined && sources.includes('ecf')) {
    const dialogs = typeof ecf === 'string' ? (await readEcf(ecf)).dialogs : ecf
    if (!Array.isArray(dialogs)) throw argumentError(where, 'ecf', 'a path, or a list of dialogs', ecf)
    found.push(...ecfSamples(dialogs, options))
  }
  return found
}

/** Pass the split only for a folder; the name of a file already tells it. */
const meldPart = (path: string, part: Part): { part?: Part } =>
  existsSync(path) && statSync(path).isDirectory() ? { part } : {}

async function withFaces(
  samples: readonly MoseiSample[],
  faces: FaceTables,
  unmatched: Record<string, string[]>,
): Promise<MoseiSample[]> {
  const without: string[] = []
  const used = new Set<string>()
  const found: MoseiSample[] = []
  for (const sample of samples) {
    const table = faceTable(faces, sample.id)
    if (table === undefined) without.push(sample.id)
    // Two ids can refer to one file.
    else used.add(typeof faces === 'string' ? table : sample.id)
    const expressions = table === undefined ? undefined : (await readFaceExpressions(table)).phrases
    found.push(expressions === undefined || sample.expressions ? sample : { ...sample, expressions })
  }
  unmatched.clipsWithoutFaces = without
  unmatched.facesWithoutClip = facesIn(faces).flatMap(({ id, path }) =>
    used.has(typeof faces === 'string' ? path : id) ? [] : [id],
  )
  return found
}

interface Drawing {
  weights: Readonly<Record<EmoVerseTask, number>>
  caps: Partial<Record<EmoVerseSource | EmoVerseTask, number>>
  seed: number
  all: boolean
  unmatched: Record<string, string[]>
}

interface Chosen {
  sample: EmoVerseSample
  task: EmoVerseTask
}

function drawRecords(
  samples: readonly EmoVerseSample[],
  { weights, caps, seed, all, unmatched }: Drawing,
): EmoVerseData {
  const report: EmoVerseReport = { records: 0, tasks: {}, unused: {}, capped: {}, unmatched }
  const candidates = samples.flatMap((sample, place): Chosen[] => {
    const tasks = EMOVERSE_TASKS.filter((task) => sample.tasks[task] && weights[task] > 0)
    if (tasks.length === 0) report.unused[sample.source] = (report.unused[sample.source] ?? 0) + 1
    if (all || tasks.length === 0) return tasks.map((task) => ({ sample, task }))
    return [{ sample, task: chooseTask(tasks, weights, new Random(seed, place + 1)) }]
  })
  const random = new Random(seed)
  const inOrder = all ? candidates : random.shuffle(candidates)
  const counts: Partial<Record<string, number>> = {}
  const chosen = inOrder.filter(({ sample: { source }, task }) => {
    const full = [source, task].find((name) => (counts[name] ?? 0) >= (caps[name] ?? Number.POSITIVE_INFINITY))
    if (full !== undefined) report.capped[full] = (report.capped[full] ?? 0) + 1
    else for (const name of [source, task]) counts[name] = (counts[name] ?? 0) + 1
    return full === undefined
  })
  report.records = chosen.length
  for (const { sample, task } of chosen) count(report, sample, task)
  const records = {
    length: chosen.length,
    *[Symbol.iterator]() {
      for (const { sample, task } of chosen) yield sample.tasks[task]?.() as SwiftRecord
    },
  }
  return { records, report }
}

function chooseTask(
  tasks: readonly EmoVerseTask[],
  weights: Readonly<Record<EmoVerseTask, number>>,
  random: Random,
): EmoVerseTask {
  let place = random.float() * tasks.reduce((sum, task) => sum + weights[task], 0)
  for (const task of tasks) {
    place -= weights[task]
    if (place < 0) return task
  }
  return tasks.at(-1) as EmoVerseTask
}

function count(report: EmoVerseReport, sample: EmoVerseSample, task: EmoVerseTask): void {
  const entry = report.tasks[task] ?? { records: 0, sources: {}, classes: {} }
  report.tasks[task] = entry
  entry.records += 1
  entry.sources[sample.source] = (entry.sources[sample.source] ?? 0) + 1
  if (task === 'FER' || task === 'ERI') return
  const answer = sample.tasks[task]?.().response ?? ''
  const name = task === 'ECPE' ? (/_([a-z]+),/.exec(answer)?.[1] ?? 'no cause') : answer
  entry.classes[name] = (entry.classes[name] ?? 0) + 1
}
