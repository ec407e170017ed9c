import { listOf, requireString, shown } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import type { ChangesOf } from '../../../base/settings.js'
import { BadRecords } from '../../../kit/records.js'
import { recordsOf, type TrajectoryDialog } from '../answer/trajectory-dialogs.js'
import { writeEmotionSuffix } from '../data/emotion-suffix.js'
import { BAD_ITEM_SETTINGS } from '../data/entry.js'
import type { TrajectoryPair } from './metrics.js'

/** Answer about a dialog, with its line of emotions. */
export interface TrajectoryPrediction {
  id: string
  prediction: string
  /** Place in the file, for messages. */
  source: string
}

export interface TrajectoryPredictions {
  predictions: TrajectoryPrediction[]
  badItems: number
  badItemErrors: DataError[]
}

/**
 * Read answers, JSON Lines or JSON. Each has an `id` (or `dialogue_id`), and either the model's `prediction`, or `turns` with an `emotion`
 * each and a `summary`, as in {@link EmotionalTrajectory}.
 *
 * @throws DataError naming file and line, or item, of an invalid answer, unless `onBadItem` is 'skip'
 */
export async function readTrajectoryPredictions(
  file: string,
  options: ChangesOf<typeof BAD_ITEM_SETTINGS.table> = {},
): Promise<TrajectoryPredictions> {
  const where = 'readTrajectoryPredictions'
  requireString(where, 'file', file)
  const { onBadItem } = BAD_ITEM_SETTINGS.read(where, options)
  const bad = new BadRecords(onBadItem)
  const predictions: TrajectoryPrediction[] = []
  const known = new Map<string, string>()
  for await (const { value, source } of recordsOf(file, bad)) {
    try {
      const prediction = predictionOf(value, source)
      const before = known.get(prediction.id)
      if (before !== undefined)
        throw fault(source, `expected a unique id, got ${prediction.id}, which ${before} has too.`)
      known.set(prediction.id, source)
      predictions.push(prediction)
    } catch (error) {
      bad.add(error)
    }
  }
  return { predictions, badItems: bad.count, badItemErrors: bad.errors }
}

/**
 * Pair answers with their references. A dialog without an answer counts as an empty answer.
 * @returns `unanswered`, the ids of these dialogs
 * @throws DataError naming the line of an answer to an unknown dialog
 */
export function pairTrajectories(
  predictions: readonly TrajectoryPrediction[],
  dialogs: readonly TrajectoryDialog[],
): { pairs: TrajectoryPair[]; unanswered: string[] } {
  const predictionList = listOf('pairTrajectories', 'predictions', predictions, 'predictions')
  const dialogList = listOf('pairTrajectories', 'dialogs', dialogs, 'dialogs')
  requireForm('pairTrajectories', 'predictions', predictionList, [{ id: 'string', prediction: 'string' }])
  requireForm('pairTrajectories', 'dialogs', dialogList, [{ id: 'string', entry: { target: 'string' } }])
  const answers = new Map(predictionList.map((one) => [one.id, one]))
  const ids = new Set(dialogList.map(({ id }) => id))
  const unknown = predictionList.find(({ id }) => !ids.has(id))
  if (unknown) throw fault(unknown.source, `expected the id of a dialog of the references, got ${unknown.id}.`)
  const pairs = dialogList.map(({ id, entry: { target, emotions } }) => ({
    id,
    prediction: answers.get(id)?.prediction ?? '',
    reference: target,
    ...(emotions && { emotions }),
  }))
  return { pairs, unanswered: dialogList.map(({ id }) => id).filter((id) => !answers.has(id)) }
}

function predictionOf(value: unknown, source: string): TrajectoryPrediction {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw fault(source, `expected a JSON object, got ${shown(value)}.`)
  const record = value as Record<string, unknown>
  const id = record.id ?? record.dialogue_id
  if (typeof id !== 'string' || id === '')
    throw fault(source, `expected id to be a non-empty string, got ${shown(id)}.`)
  const { prediction, turns, summary = '' } = record
  if (typeof prediction === 'string') return { id, prediction, source }
  if (prediction !== undefined)
    throw fault(source, `${id}: expected prediction to be a string, got ${shown(prediction)}.`)
  if (!Array.isArray(turns)) throw fault(source, `${id}: expected prediction or turns, got neither.`)
  if (typeof summary !== 'string') throw fault(source, `${id}: expected summary to be a string, got ${shown(summary)}.`)
  const emotions = turns.map((turn: { emotion?: unknown } | null, i) => {
    if (typeof turn?.emotion === 'string' && turn.emotion.trim() !== '') return turn.emotion
    throw fault(source, `${id}, turn ${i + 1}: expected an emotion, got none.`)
  })
  return { id, prediction: writeEmotionSuffix(summary, emotions), source }
}

const fault = (source: string, what: string): DataError => new DataError(`${source}: ${what}`, { item: source })
