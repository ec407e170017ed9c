import { describe, expect, it } from 'vitest'
import {
  accuracy,
  confusionMatrix,
  DataError,
  f1Score,
  precision,
  precisionRecallF1,
  recall,
  ShapeError,
  tensor,
  unweightedAverageRecall,
} from '../../lib/index.js'
import type { Average } from '../../lib/train/metrics/classification.js'
import type { Label } from '../../lib/train/metrics/labels.js'
import { fixture, numbers, tensorsOf } from '../helpers.js'

interface MetricCase {
  name: string
  truth: Label[]
  guess: Label[]
  labels: Label[] | null
  used: Label[]
}

describe('metrics against scikit-learn', async () => {
  const file = await fixture<MetricCase>('train/metrics')

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', (name, { truth, guess, labels, used }) => {
    const out = tensorsOf(file, name, 'out')
    const expectValues = (key: string, actual: number | number[] | number[][]) => {
      const list = [actual].flat(2) as number[]
      const expected = numbers(out[key] as never) as number[]
      expect(list.length, key).toBe(expected.length)
      for (const [i, value] of list.entries()) {
        if (Number.isNaN(expected[i])) expect(value, key).toBeNaN()
        else expect(value, key).toBeCloseTo(expected[i] as number, 12)
      }
    }
    const restricted = labels ? { labels } : {}
    expectValues('accuracy', accuracy(truth, guess))
    expectValues('uar', unweightedAverageRecall(truth, guess))
    const confusion = confusionMatrix(truth, guess, restricted)
    expectValues('confusion', confusion.matrix)
    expect(confusion.labels).toEqual(used)
    for (const normalize of ['true', 'pred', 'all'] as const) {
      expectValues(`confusion.${normalize}`, confusionMatrix(truth, guess, { ...restricted, normalize }).matrix)
    }
    for (const zeroDivision of [0, 1, Number.NaN]) {
      const prefix = String(zeroDivision).toLowerCase()
      for (const average of ['micro', 'macro', 'weighted', 'none'] as Average[]) {
        const options = { ...restricted, average, zeroDivision }
        const scores = precisionRecallF1(truth, guess, options)
        expectValues(`${prefix}.${average}.precision`, scores.precision)
        expectValues(`${prefix}.${average}.recall`, scores.recall)
        expectValues(`${prefix}.${average}.f1`, scores.f1)
        expectValues(`${prefix}.support`, scores.support)
        expect(precision(truth, guess, options)).toEqual(scores.precision)
        expect(recall(truth, guess, options)).toEqual(scores.recall)
        expect(f1Score(truth, guess, options)).toEqual(scores.f1)
      }
    }
  })
})

describe('metrics', () => {
  it('take tensors, typed arrays and booleans alike', () => {
    const [truth, guess] = [
      [1, 0, 2, 2],
      [1, 2, 2, 0],
    ]
    const expected = f1Score(truth, guess)
    expect(f1Score(tensor(truth), tensor(guess))).toBe(expected)
    expect(f1Score(Int32Array.from(truth), BigInt64Array.from(guess.map(BigInt)))).toBe(expected)
    expect(accuracy([true, false], [1, 1])).toBe(0.5)
  })

  it('refuse bad input', () => {
    expect(() => accuracy([], [])).toThrow(DataError)
    expect(() => accuracy([1], [1, 2])).toThrow(/as many predictions as targets, got 2 and 1/)
    expect(() => accuracy([1, Number.NaN], [1, 2])).toThrow(/targets\[1\]/)
    expect(() => accuracy(['a', 1], ['a', 'b'])).toThrow(DataError)
    expect(() => accuracy([1], ['1'])).toThrow(DataError)
    expect(() => accuracy([undefined] as never, [1])).toThrow(DataError)
    expect(() => accuracy(tensor([[1, 2]]), [1])).toThrow(ShapeError)
    expect(() => f1Score([1], [1], { labels: [] })).toThrow(DataError)
    expect(() => f1Score([1], [1], { labels: [1, 1] })).toThrow(DataError)
  })
})
