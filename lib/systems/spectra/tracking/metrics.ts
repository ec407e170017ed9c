import { misuse, requireString } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { type DstConfig, knownDstConfig, variantsOf } from './config.js'
import type { SlotValues } from './dialog.js'
import type { DstResult } from './evaluate.js'

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
  knownDstConfig(config)
  requireString('dstValueMatches', 'prediction', prediction)
  requireString('dstValueMatches', 'truth', truth)
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
  knownDstConfig(config)
  requireForm('dstScores', 'results', results, [{ state: 'object', features: { values: 'object' } }])
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

const NUMBERS = { classIds: 'list', startPositions: 'list', endPositions: 'list', referIds: 'list' } as const
/** What is read of a tracked turn beside its state. */
const RESULT = {
  state: 'object',
  prediction: NUMBERS,
  features: { ...NUMBERS, dialog: 'string', turn: 'number', values: 'object' },
} as const

/** Tracked turns whose classes the configuration has, and whose values are texts. */
export function checkResults(where: string, results: readonly DstResult[], config: DstConfig): void {
  requireForm(where, 'results', results, [RESULT])
  results.forEach(({ features, prediction, state }, i) => {
    for (const [name, { classIds }] of Object.entries({ features, prediction })) {
      const good = config.slots.every((_, slot) => config.classTypes[classIds[slot] as number] !== undefined)
      if (good) continue
      throw misuse(where, `results[${i}].${name}.classIds`, 'a number of class_types for each slot', classIds)
    }
    for (const [name, values] of Object.entries({ state, values: features.values })) {
      const odd = Object.entries(values).find(([, value]) => typeof value !== 'string')
      if (odd) throw misuse(where, `${name}['${odd[0]}'] of results[${i}]`, 'a text', odd[1])
    }
  })
}

/** The prediction file of the original's trainer: one object a turn. */
export function dstPredictionRecords(results: readonly DstResult[], config: DstConfig): Record<string, unknown>[] {
  knownDstConfig(config)
  checkResults('dstPredictionRecords', results, config)
  return results.map(({ features, prediction, state }) =>
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
}
