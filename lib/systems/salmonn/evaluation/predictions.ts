import { listOf, requireOneOf, requireOptions, requireString } from '../../../base/check.js'
import { DataError } from '../../../base/errors.js'
import { requireForm } from '../../../base/form.js'
import { BadRecords, type OnBadRecord } from '../../../kit/records.js'
import { recordsOf, type TrajectoryDialog } from '../answer/trajectory-dialogs.js'
import { writeEmotionSuffix } from '../data/emotion-suffix.js'
import type { TrajectoryPair } from './metrics.js'

/** What was answered about a dialog, with its line of emotions. */
export interface TrajectoryPrediction {
  id: string
  prediction: string
  /** Where it stands, for messages. */
  source: string
}

export interface TrajectoryPredictions {
  predictions: TrajectoryPrediction[]
  badItems: number
  badItemErrors: DataError[]
}

/**
 * Reads answers, JSON Lines or JSON. Each has an `id` (or `dialogue_id`), and either its `prediction`, as the model wrote it,
 * or the `turns` with an `emotion` each and a `summary`, as {@link EmotionalTrajectory} has them.
 *
 * @throws DataError naming file and line, or item, of one that cannot be used, unless `onBadItem` is 'skip'
 */
export async function readTrajectoryPredictions(
  file: string,
  options: { onBadItem?: OnBadRecord } = {},
): Promise<TrajectoryPredictions> {
  const where = 'readTrajectoryPredictions'
  requireString(where, 'file', file)
  requireOptions(where, options, ['onBadItem'])
  const { onBadItem = 'stop' } = options
  requireOneOf(where, 'onBadItem', onBadItem, ['stop', 'skip'])
  const bad = new BadRecords(onBadItem)
  const predictions: TrajectoryPrediction[] = []
  const known = new Map<string, string>()
  for await (const { value, source } of recordsOf(file, bad)) {
    try {
      const prediction = predictionOf(value, source)
      const before = known.get(prediction.id)
      if (before !== undefined) throw fault(source, `${before} has the same id, ${prediction.id}`)
      known.set(prediction.id, source)
      predictions.push(prediction)
    } catch (error) {
      bad.add(error)
    }
  }
  return { predictions, badItems: bad.count, badItemErrors: bad.errors }
}

/**
 * Answers beside what would have been right. A dialog without an answer counts as answered with nothing.
 * @returns `unanswered`, the ids of those
 * @throws DataError naming the line of an answer to no dialog
 */
export function pairTrajectories(
  predictions: readonly TrajectoryPrediction[],
  dialogs: readonly TrajectoryDialog[],
): { pairs: TrajectoryPair[]; unanswered: string[] } {
  const said = listOf('pairTrajectories', 'predictions', predictions, 'predictions')
  const asked = listOf('pairTrajectories', 'dialogs', dialogs, 'dialogs')
  requireForm('pairTrajectories', 'predictions', said, [{ id: 'string', prediction: 'string' }])
  requireForm('pairTrajectories', 'dialogs', asked, [{ id: 'string', entry: { target: 'string' } }])
  const answers = new Map(said.map((one) => [one.id, one]))
  const ids = new Set(asked.map(({ id }) => id))
  const foreign = said.find(({ id }) => !ids.has(id))
  if (foreign) throw fault(foreign.source, `no dialog of the references is called ${foreign.id}`)
  const pairs = asked.map(({ id, entry: { target, emotions } }) => ({
    id,
    prediction: answers.get(id)?.prediction ?? '',
    reference: target,
    ...(emotions && { emotions }),
  }))
  return { pairs, unanswered: asked.map(({ id }) => id).filter((id) => !answers.has(id)) }
}

function predictionOf(value: unknown, source: string): TrajectoryPrediction {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) throw fault(source, 'it is no object')
  const record = value as Record<string, unknown>
  const id = record.id ?? record.dialogue_id
  if (typeof id !== 'string' || id === '') throw fault(source, 'it has no id')
  const { prediction, turns, summary = '' } = record
  if (typeof prediction === 'string') return { id, prediction, source }
  if (prediction !== undefined) throw fault(source, `the prediction of ${id} is no text`)
  if (!Array.isArray(turns)) throw fault(source, `${id} has neither a prediction nor turns`)
  if (typeof summary !== 'string') throw fault(source, `the summary of ${id} is no text`)
  const emotions = turns.map((turn: { emotion?: unknown } | null, i) => {
    if (typeof turn?.emotion === 'string' && turn.emotion.trim() !== '') return turn.emotion
    throw fault(source, `turn ${i + 1} of ${id} has no emotion`)
  })
  return { id, prediction: writeEmotionSuffix(summary, emotions), source }
}

const fault = (source: string, what: string): DataError => new DataError(`${source}: ${what}`, { item: source })
