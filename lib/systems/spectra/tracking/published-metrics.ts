import { type DstConfig, knownDstConfig } from './config.js'
import type { DstResult } from './evaluate.js'
import { checkResults } from './metrics.js'
import { valueWords } from './text.js'

export interface TrippySlotScores {
  /** Fraction of turns after which the slot's value is correct. */
  value: number
  /** Fraction of turns with the correct class. */
  class: number
  /** Fraction of turns of class 'copy_value' with correct class and span; 1 without such turns. */
  span: number
  /** Fraction of turns of class 'refer' with correct class and reference; 1 without such turns. */
  refer: number
}

export interface TrippyClassScores {
  precision: number
  recall: number
  f1: number
  accuracy: number
  /** Number of labels of this class, over all slots. */
  support: number
}

export interface TrippyScores {
  /** Fraction of turns in which all slots are correct. */
  jointGoalAccuracy: number
  perSlot: Record<string, TrippySlotScores>
  perClass: Record<string, TrippyClassScores>
}

/**
 * Return the metrics of TripPy's script: each slot's state is rebuilt from the predicted classes and compared word by word, and the joint
 * goal is the product over slots. A value that the system mentioned is correct if it contains the label or is contained in it.
 */
export function trippyScores(results: readonly DstResult[], config: DstConfig): TrippyScores {
  knownDstConfig(config)
  checkResults('trippyScores', results, config)
  const maps = new Map(
    Object.entries(config.labelMaps).map(([value, variants]) => [spaced(value), variants.map(spaced)] as const),
  )
  const joint = results.map(() => true)
  const counts = config.classTypes.map(() => ({ hits: 0, predicted: 0, labelCount: 0 }))
  const perSlot = Object.fromEntries(
    config.slots.map((slot, i) => {
      const right = slotValuesRight(results, config, slot, i, maps)
      right.forEach((good, turn) => {
        if (!good) joint[turn] = false
      })
      for (const { features, prediction } of results) {
        const [label, predicted] = [features.classIds[i]!, prediction.classIds[i]!]
        counts[label]!.labelCount += 1
        counts[predicted]!.predicted += 1
        if (label === predicted) counts[label]!.hits += 1
      }
      return [slot, { value: fraction(right), ...turnScores(results, config, i) }]
    }),
  )
  const decisions = results.length * config.slots.length
  const perClass = Object.fromEntries(
    config.classTypes.map((name, i) => {
      const { hits, predicted, labelCount } = counts[i]!
      const precision = predicted > 0 ? hits / predicted : 1
      const recall = labelCount > 0 ? hits / labelCount : 1
      const f1 = precision + recall > 0 ? (2 * precision * recall) / (precision + recall) : 1
      const accuracy = decisions > 0 ? (decisions - predicted - labelCount + 2 * hits) / decisions : 1
      return [name, { precision, recall, f1, accuracy, support: labelCount }]
    }),
  )
  return { jointGoalAccuracy: fraction(joint), perSlot, perClass }
}

function turnScores(results: readonly DstResult[], config: DstConfig, i: number): Omit<TrippySlotScores, 'value'> {
  const same = (name: 'classIds' | 'startPositions' | 'endPositions' | 'referIds') => (result: DstResult) =>
    result.features[name][i] === result.prediction[name][i]
  const turnsLabeled = (kind: string) =>
    results.filter(({ features }) => config.classTypes[features.classIds[i]!] === kind)
  const all = (turns: readonly DstResult[], ...tests: ((result: DstResult) => boolean)[]) =>
    turns.length === 0 ? 1 : fraction(turns.map((turn) => tests.every((test) => test(turn))))
  return {
    class: fraction(results.map(same('classIds'))),
    span: all(turnsLabeled('copy_value'), same('classIds'), same('startPositions'), same('endPositions')),
    refer: all(turnsLabeled('refer'), same('classIds'), same('referIds')),
  }
}

function slotValuesRight(
  results: readonly DstResult[],
  config: DstConfig,
  slot: string,
  i: number,
  maps: ReadonlyMap<string, readonly string[]>,
): boolean[] {
  const state = new Map<string, string>()
  return results.map(({ features, prediction, state: after }) => {
    const truth = spaced(features.values[slot] ?? 'none')
    const value = spaced(after[slot] ?? 'none')
    const informedValue = value.replace(/^§§ ?/, '')
    let now = (features.turn > 0 ? state.get(features.dialog) : undefined) ?? 'none'
    const kind = config.classTypes[prediction.classIds[i]!]
    if (kind === 'dontcare' || kind === 'true' || kind === 'false') now = kind
    else if (kind === 'copy_value') now = value
    else if ((kind === 'inform' || informedValue !== value) && kind !== 'none' && informedValue !== 'none')
      now = informed(truth, informedValue, maps)
    else if (kind === 'refer' && value !== 'none') now = value
    state.set(features.dialog, now)
    return truth === now || (!LITERAL.has(truth) && (maps.get(truth)?.includes(now) ?? false))
  })
}

const LITERAL = new Set(['none', 'dontcare', 'true', 'false'])

/** Return the label if the mentioned value matches it with more or fewer words, else the mentioned value. */
function informed(truth: string, informedValue: string, maps: ReadonlyMap<string, readonly string[]>): string {
  const same = (a: string, b: string) => contains(a, b) || contains(b, a)
  if (same(truth, informedValue)) return truth
  const spellings = maps.get(informedValue)
  const fits = spellings
    ? spellings.some((spelling) => same(truth, spelling))
    : maps.get(truth)?.some((s) => same(s, informedValue))
  return fits ? truth : informedValue
}

function contains(text: string, part: string): boolean {
  const [words, wanted] = [text.split(' '), part.split(' ')]
  return words.some((_, start) => wanted.every((word, i) => words[start + i] === word))
}

/** Return the words of a value separated by single spaces. */
const spaced = (value: string): string => valueWords(value).join(' ')

const fraction = (values: readonly boolean[]): number => values.filter(Boolean).length / values.length
