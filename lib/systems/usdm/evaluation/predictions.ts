import { existsSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { requireOneOf, requireOptions, requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { didYouMean, shortened } from '../../../base/words.js'
import { jsonlDataset } from '../../../data/jsonl-dataset.js'
import { writeJsonl } from '../../../files/json/jsonl.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'

/** A prediction for one turn, with its references. */
export interface UsdmPrediction {
  id: string
  /** References: the texts of the user's turn and of the agent's reply. A missing reference is not scored. */
  user?: string
  agent?: string
  /** Transcript of the first pass, and reply of the second. */
  transcript?: string
  reply?: string
  /** Audio file of the third pass. In a file of predictions, relative to it. */
  wav?: string
  /** The judge's transcript of the audio. */
  heard?: string
}

export interface UsdmPredictions {
  predictions: UsdmPrediction[]
  badRecords: number
  badRecordErrors: DataError[]
}

const FIELDS = ['id', 'user', 'agent', 'transcript', 'reply', 'wav', 'heard'] as const

/**
 * Read predictions, one JSON record per line (see {@link UsdmPrediction}).
 * @throws DataError with `file` and `line` for a malformed record, a duplicate id, and a missing audio file
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
        throw new DataError(
          `${file}, line ${line}: expected unique ids, got ${prediction.id} of line ${before} again.`,
          { file, line },
        )
      }
      known.set(prediction.id, line)
      predictions.push(prediction)
    } catch (error) {
      bad.add(error, { file, line })
    }
  }
  return { predictions, badRecords: bad.count, badRecordErrors: bad.errors }
}

/** Write predictions for {@link readUsdmPredictions}; paths of audio files become absolute. @throws DataError */
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
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw fault(`expected a JSON object, got ${shown(value)}`)
  }
  const record = value as Record<string, unknown>
  for (const [name, text] of Object.entries(record)) {
    if (!(FIELDS as readonly string[]).includes(name))
      throw fault(`expected the fields ${FIELDS.join(', ')}, got '${shortened(name)}'${didYouMean(name, FIELDS)}`)
    if (typeof text !== 'string') throw fault(`${name}: expected a string, got ${shown(text)}`)
  }
  const { wav, ...texts } = record as unknown as UsdmPrediction
  if (texts.id === undefined || texts.id === '') throw fault("expected the field 'id', got none")
  if (wav === undefined) return texts
  const path = resolve(dirname(file), wav)
  if (texts.heard === undefined && !existsSync(path)) {
    throw fault(`wav: expected an audio file, got ${path}, which does not exist`)
  }
  return { ...texts, wav: path }
}
