import { describe, expect, it } from 'vitest'
import { ConfigError, randn, tensor } from '../../../../lib/index.js'
import {
  bestTemperature,
  classScores,
  confusions,
  emotionMetrics,
  reliability,
  softmaxOf,
} from '../../../../lib/systems/emotion/evaluation/metrics.js'
import { emotionLoss, inverseFrequencies } from '../../../../lib/systems/emotion/training/loss.js'
import { emotionRecipe } from '../../../../lib/systems/emotion/training/recipe.js'

describe('metrics of emotions', () => {
  it('are scikit-learn’s', () => {
    // f1_score([0,0,1,2,2], [0,1,1,2,0], average=...): 0.5, 2/3, 2/3
    const [truth, said] = [
      [0, 0, 1, 2, 2],
      [0, 1, 1, 2, 0],
    ]
    const found = emotionMetrics(truth, said)
    expect(found.accuracy).toBeCloseTo(0.6, 12)
    expect(found.macroF1).toBeCloseTo((0.5 + 2 / 3 + 2 / 3) / 3, 12)
    expect(found.weightedF1).toBeCloseTo((2 * 0.5 + 2 / 3 + (2 * 2) / 3) / 5, 12)
    expect(classScores(truth, said, ['a', 'b', 'c', 'd'])).toEqual([
      { label: 'a', precision: 0.5, recall: 0.5, f1: 0.5, support: 2 },
      { label: 'b', precision: 0.5, recall: 1, f1: expect.closeTo(2 / 3, 12), support: 1 },
      { label: 'c', precision: 1, recall: 0.5, f1: expect.closeTo(2 / 3, 12), support: 2 },
      { label: 'd', precision: 0, recall: 0, f1: 0, support: 0 },
    ])
    expect(confusions(truth, said, 4)).toEqual([
      [1, 1, 0, 0],
      [0, 1, 0, 0],
      [1, 0, 1, 0],
      [0, 0, 0, 0],
    ])
  })

  it('always neutral is 0.0867 on the training data of ECF, and 0.0835 on its test data', () => {
    const always = (neutral: number, ...others: number[]) => {
      const truth = [neutral, ...others].flatMap((count, label) => new Array<number>(count).fill(label))
      return emotionMetrics(
        truth,
        truth.map(() => 0),
      )
    }
    expect(always(5929, 2301, 1840, 1615, 1147, 414, 373).macroF1).toBeCloseTo(0.0867, 4)
    const test = always(1280, 700, 363, 235, 249, 123, 151)
    expect([test.macroF1, test.weightedF1]).toEqual([expect.closeTo(0.0835, 4), expect.closeTo(0.241, 3)])
  })

  it('say whether probabilities mean what they say', () => {
    const rows = [
      [0.95, 0.05],
      [0.85, 0.15],
      [0.85, 0.15],
      [0.3, 0.7],
    ]
    const { bins, error } = reliability(rows, [0, 0, 1, 0])
    expect(bins[8]).toEqual({ confidence: expect.closeTo(0.85, 12), accuracy: 0.5, count: 2 })
    expect(error).toBeCloseTo((0.05 + 2 * 0.35 + 0.7) / 4, 12)
  })

  it('find the temperature', () => {
    // Of logits that are three times too sure: the truth is drawn as softmax(z / 3) says.
    const logits = [
      [3, 0],
      [0, 6],
      [1.5, 0],
    ]
    const rows: number[][] = []
    const truth: number[] = []
    for (const row of logits) {
      const [p] = softmaxOf(row, 3)
      for (let i = 0; i < 1000; i += 1) {
        rows.push(row)
        truth.push(i < 1000 * (p as number) ? 0 : 1)
      }
    }
    expect(bestTemperature(rows, truth)).toBeCloseTo(3, 1)
    expect(bestTemperature([], [])).toBe(1)
  })
})

describe('emotionLoss', () => {
  const logits = tensor(
    [
      [2, 0, -1],
      [0.5, 0.1, 1],
    ],
    { dtype: 'float64' },
  )
  const labels = tensor([0, 1], { dtype: 'int64' })
  const p = [softmaxOf([2, 0, -1])[0] as number, softmaxOf([0.5, 0.1, 1])[1] as number]

  it('weighs classes, what is hard, and both', () => {
    const value = (options = {}) => emotionLoss(logits, labels, options).item() as number
    const [a, b] = p.map((one) => -Math.log(one)) as [number, number]
    expect(value()).toBeCloseTo((a + b) / 2, 5)
    const classWeights = tensor([1, 3, 5], { dtype: 'float32' })
    expect(value({ classWeights })).toBeCloseTo((a + 3 * b) / 4, 5)
    const [fa, fb] = [a * (1 - p[0]!) ** 2, b * (1 - p[1]!) ** 2]
    expect(value({ focalGamma: 2 })).toBeCloseTo((fa + fb) / 2, 5)
    expect(value({ focalGamma: 2, classWeights })).toBeCloseTo((fa + 3 * fb) / 4, 5)
    const rows = [
      [2, 0, -1],
      [0.5, 0.1, 1],
    ].map((row) => softmaxOf(row).map((one) => -Math.log(one)))
    const smooth = (row: number[], label: number) => 0.9 * row[label]! + 0.1 * ((row[0]! + row[1]! + row[2]!) / 3)
    expect(value({ labelSmoothing: 0.1 })).toBeCloseTo((smooth(rows[0]!, 0) + smooth(rows[1]!, 1)) / 2, 5)
  })

  it('has gradients where something is certain', async () => {
    const sure = randn([2, 3])
      .mul(0)
      .add(
        tensor([
          [200, 0, 0],
          [0, 200, 0],
        ]),
      )
      .requiresGrad_()
    await emotionLoss(sure, labels, { focalGamma: 2 }).backward()
    expect(sure.grad?.isfinite().all().item()).toBe(true)
  })

  it('weights of rare classes are scikit-learn’s balanced ones', () => {
    expect(inverseFrequencies([0, 0, 0, 1, -100], 3)).toEqual([4 / 9, 4 / 3, 1])
    expect(inverseFrequencies([0, 0, 0, 1], 2, 0.5)[0]).toBeCloseTo(Math.sqrt(2 / 3), 12)
  })
})

it('a recipe has known changes', () => {
  expect(emotionRecipe({ epochs: 3 }).epochs).toBe(3)
  expect(() => emotionRecipe({ epoch: 3 } as never)).toThrow(ConfigError)
  expect(() => emotionRecipe({ keyMetric: 'f2' as never })).toThrow(ConfigError)
})
