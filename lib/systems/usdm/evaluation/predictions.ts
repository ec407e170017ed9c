import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { writeJsonl } from '../../../files/json/jsonl.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'

/** What was understood, answered and said of one turn, beside what would have been right. */
export interface UsdmPrediction {
  id: string
  /** What the user said, and what the agent of the data answers; without it that part is not scored. */
  user?: string
  agent?: string
  /** What the first pass heard, and the reply of the second. */
  transcript?: string
  reply?: string
  /** The sound file of the third. In a file, relative to it. */
  wav?: string
  /** What a judge heard in it. */
  heard?: string
}

export interface UsdmPredictions {
  predictions: UsdmPrediction[]
  badRecords: number
  badRecordErrors: DataError[]
}

const FIELDS = ['id', 'user', 'agent', 'transcript', 'reply', 'wav', 'heard'] as const

/**
 * Reads predictions, a JSON record on each line (see {@link UsdmPrediction}).
 * @throws DataError with `file` and `line` for a record that is none, an id that stands twice, and a sound file that is missing
 */
export async function readUsdmPredictions(
  file: string,
  options: { onBadRecord?: OnBadRecord } = {},
): Promise<UsdmPredictions> {
  const where = 'readUsdmPredictions'
  requireString(where, 'file', file)
  requireOptions(where, options, ['onBadRecord'])
  const { onBadRecord = 'stop' } = options
  requireOneOf(where, 'onBadRecord', onBadRecord, ['stop', 'skip'])
  const bad = new BadRecords(onBadRecord)
  const lines = await jsonlDataset(file, { onBadRecord })
  bad.addAll(lines.badRecords, [...lines.badRecordErrors])
  const predictions: UsdmPrediction[] = []
  const known = new Map<string, number>()
  for (let i = 0; i < lines.length; i += 1) {
    const line = lines.index.lines[i] as number
    try {
      const prediction = predictionOf(await lines.get(i), file, line)
      const before = known.get(prediction.id)
      if (before !== undefined) {
        throw new DataError(`${file}, line ${line}: line ${before} has the same id, ${prediction.id}`, { file, line })
      }
      known.set(prediction.id, line)
      predictions.push(prediction)
    } catch (error) {
      bad.add(error, { file, line })
    }
  }
  return { predictions, badRecords: bad.count, badRecordErrors: bad.errors }
}

/** Writes what {@link readUsdmPredictions} reads; paths of sound files become absolute. @throws DataError */
export async function writeUsdmPredictions(file: string, predictions: readonly UsdmPrediction[]): Promise<void> {
  requireString('writeUsdmPredictions', 'file', file)
  requireForm('writeUsdmPredictions', 'predictions', predictions, [{ id: 'string', 'wav?': 'string' }])
  await writeJsonl(
    file,
    predictions.map(({ wav, ...rest }) => ({ ...rest, ...(wav !== undefined && { wav: resolve(wav) }) })),
  )
}

function predictionOf(value: unknown, file: string, line: number): UsdmPrediction {
  const fault = (what: string) => new DataError(`${file}, line ${line}: ${what}`, { file, line })
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fault('the record is no object')
  const record = value as Record<string, unknown>
  for (const [name, text] of Object.entries(record)) {
    if (!(FIELDS as readonly string[]).includes(name))
      throw fault(`unknown field '${shortened(name)}'${didYouMean(name, FIELDS)}`)
    if (typeof text !== 'string') throw fault(`'${name}' must be a text`)
  }
  const { wav, ...texts } = record as unknown as UsdmPrediction
  if (texts.id === undefined || texts.id === '') throw fault("the field 'id' is missing")
  if (wav === undefined) return texts
  const path = resolve(dirname(file), wav)
  if (texts.heard === undefined && !existsSync(path)) throw fault(`the sound file ${path} is missing`)
  return { ...texts, wav: path }
}
