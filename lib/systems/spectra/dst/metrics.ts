import { type DstConfig, variantsOf } from './config.js'
import type { SlotValues } from './dialog.js'
import type { DstResult } from './predict.js'

export interface DstScores {
  /** Share of turns in which every slot's value is right. */
  jointGoalAccuracy: number
  /** The same without slots whose name has 'profile' in it. */
  jointGoalAccuracyWithoutProfile: number
  /** Share of slots, over all turns, whose value is right. */
  slotAccuracy: number
  perSlot: Record<string, number>
  turns: number
}

/** What the measures read of a tracked turn. */
export interface DstJudged {
  state: SlotValues
  features: { values: SlotValues }
}

/**
 * Whether a predicted value counts as right: the same text; or, for a value of the label maps, one of its other spellings;
 * or the same time of day however it is written. 'none' stands for no value.
 */
export function dstValueMatches(config: DstConfig, prediction: string, truth: string): boolean {
  if (prediction === truth) return true
  const variants = variantsOf(config, truth)
  if (variants !== undefined) return variants.includes(prediction)
  if (!prediction.includes(':') || !truth.includes(':')) return false
  const marked = prediction.startsWith('§§')
  if (!marked && prediction.length > '15 : 00'.length) return false
  const numbers = (time: string) =>
    time.split(':').map((part) => (/^\s*\d+\s*$/.test(part) ? Number(part) : Number.NaN))
  const [predicted, wanted] = [numbers(marked ? prediction.slice(2) : prediction), numbers(truth)]
  return predicted.length === wanted.length && predicted.every((number, i) => number === wanted[i])
}

/** Joint goal accuracy and slot accuracy. All are NaN without turns. */
export function dstScores(results: readonly DstJudged[], config: DstConfig): DstScores {
  const right = results.map(({ state, features }) =>
    config.slots.map((slot) => dstValueMatches(config, state[slot] ?? 'none', features.values[slot] ?? 'none')),
  )
  const shareOf = (values: readonly boolean[]) => values.filter(Boolean).length / values.length
  const open = config.slots.map((slot) => !slot.includes('profile'))
  return {
    jointGoalAccuracy: shareOf(right.map((turn) => turn.every(Boolean))),
    jointGoalAccuracyWithoutProfile: shareOf(right.map((turn) => turn.every((good, i) => good || !open[i]))),
    slotAccuracy: shareOf(right.flat()),
    perSlot: Object.fromEntries(config.slots.map((slot, i) => [slot, shareOf(right.map((turn) => turn[i]!))])),
    turns: results.length,
  }
}

/** The prediction file of the original's trainer: one object a turn. */
export const dstPredictionRecords = (results: readonly DstResult[], config: DstConfig): Record<string, unknown>[] =>
  results.map(({ features, prediction, state }) =>
    Object.fromEntries<unknown>([
      ['guid', ['train', features.dialog, String(features.turn)]],
      ...config.slots.flatMap((slot, i) => [
        [`class_prediction_${slot}`, prediction.classIds[i]],
        [`class_label_id_${slot}`, features.classIds[i]],
        [`start_prediction_${slot}`, prediction.startPositions[i]],
        [`start_pos_${slot}`, features.startPositions[i]],
        [`end_prediction_${slot}`, prediction.endPositions[i]],
        [`end_pos_${slot}`, features.endPositions[i]],
        [`refer_prediction_${slot}`, prediction.referIds[i]],
        [`refer_id_${slot}`, features.referIds[i]],
        [`slot_prediction_${slot}`, state[slot] ?? 'none'],
        [`slot_groundtruth_${slot}`, features.values[slot] ?? 'none'],
      ]),
    ] as [string, unknown][]),
  )
