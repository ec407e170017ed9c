import { argumentError, requireString } from '../../../base/check.js'
import { requireForm } from '../../../base/form.js'
import { type DstConfig, knownDstConfig, variantsOf } from './config.js'
import type { SlotValues } from './dialog.js'
import type { DstResult } from './evaluate.js'

export interface DstScores {
  /** Fraction of turns with correct values of all slots. */
  jointGoalAccuracy: number
  /** Joint goal accuracy without slots whose name contains 'profile'. */
  jointGoalAccuracyWithoutProfile: number
  /** Fraction of correct slot values over all turns. */
  slotAccuracy: number
  perSlot: Record<string, number>
  turns: number
}

/** The part of a tracked turn that the metrics use. */
export interface DstJudged {
  state: SlotValues
  features: { values: SlotValues }
}

/**
 * Return whether a predicted value is correct: the same text; or another spelling of it in the label maps; or the same time of day in any
 * format. 'none' stands for a missing value.
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

/** Return joint goal accuracy and slot accuracy. All are NaN without turns. */
export function dstScores(results: readonly DstJudged[], config: DstConfig): DstScores {
  knownDstConfig(config)
  requireForm('dstScores', 'results', results, [{ state: 'object', features: { values: 'object' } }])
  const right = results.map(({ state, features }) =>
    config.slots.map((slot) => dstValueMatches(config, state[slot] ?? 'none', features.values[slot] ?? 'none')),
  )
  const fractionOf = (values: readonly boolean[]) => values.filter(Boolean).length / values.length
  const open = config.slots.map((slot) => !slot.includes('profile'))
  return {
    jointGoalAccuracy: fractionOf(right.map((turn) => turn.every(Boolean))),
    jointGoalAccuracyWithoutProfile: fractionOf(right.map((turn) => turn.every((good, i) => good || !open[i]))),
    slotAccuracy: fractionOf(right.flat()),
    perSlot: Object.fromEntries(config.slots.map((slot, i) => [slot, fractionOf(right.map((turn) => turn[i]!))])),
    turns: results.length,
  }
}

const NUMBERS = { classIds: 'list', startPositions: 'list', endPositions: 'list', referIds: 'list' } as const
/** Fields of a tracked turn that are validated. */
const RESULT = {
  state: 'object',
  prediction: NUMBERS,
  features: { ...NUMBERS, dialog: 'string', turn: 'number', values: 'object' },
} as const

/** Validate tracked turns: classes of the configuration, and string values. */
export function checkResults(where: string, results: readonly DstResult[], config: DstConfig): void {
  requireForm(where, 'results', results, [RESULT])
  results.forEach(({ features, prediction, state }, i) => {
    for (const [name, { classIds }] of Object.entries({ features, prediction })) {
      const good = config.slots.every((_, slot) => config.classTypes[classIds[slot] as number] !== undefined)
      if (good) continue
      throw argumentError(where, `results[${i}].${name}.classIds`, 'an index of class_types for each slot', classIds)
    }
    for (const [name, values] of Object.entries({ state, values: features.values })) {
      const odd = Object.entries(values).find(([, value]) => typeof value !== 'string')
      if (odd) throw argumentError(where, `${name}['${odd[0]}'] of results[${i}]`, 'a string', odd[1])
    }
  })
}

/** Return the records of the original trainer's prediction file: one object per turn. */
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
