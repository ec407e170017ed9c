import { describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import {
  completeTask,
  computeMetricsOf,
  labelNames,
  labelNumber,
  labelTensor,
  predictionsOf,
  scoresOf,
  type Task,
  type TaskKind,
  taskLoss,
  taskMetrics,
  taskOf,
} from '../../lib/kit/task.js'

const KINDS = ['regression', 'classification', 'multi-label'] as const
const make = (kind: TaskKind, more: object = {}) => taskOf('A task', { name: 'mood', kind, ...more }, KINDS)
const close = (actual: Record<string, number>, expected: Record<string, number>) => {
  expect(Object.keys(actual)).toEqual(Object.keys(expected))
  for (const [name, value] of Object.entries(actual)) expect(value, name).toBeCloseTo(expected[name] as number, 12)
}

describe('a task', () => {
  it('knows its classes, or learns them from data', () => {
    expect(make('regression')).toEqual({ name: 'mood', kind: 'regression', numLabels: 1, keyMetric: 'mae' })
    expect(make('multi-label', { labels: ['a', 'b'] })).toMatchObject({ numLabels: 2, keyMetric: 'microF1' })
    const open = make('classification')
    expect(completeTask(open, ['joy', 'anger', 'joy'], 'x.jsonl')).toMatchObject({ labels: ['anger', 'joy'] })
    expect(completeTask(open, [0, 4], 'x.jsonl').numLabels).toBe(5)
    expect(completeTask(make('regression'), ['x'], 'x.jsonl')).toEqual(make('regression'))
    expect(() => completeTask(open, ['joy', 1], 'x.jsonl')).toThrow(
      /x.jsonl: expected labels that are all names or all numbers/,
    )
    expect(() => completeTask(open, ['joy'], 'x.jsonl')).toThrow(vt.DataError)
    expect(labelNames(make('classification', { numLabels: 2 }))).toEqual(['0', '1'])
  })

  it.each([
    [{ kind: 'ranking' }, /kind/],
    [{ kind: 'regression', labels: ['a', 'b'] }, /labels/],
    [{ kind: 'classification', labels: ['a', 'a'] }, /two different names/],
    [{ kind: 'classification', labels: ['a', 'b'], numLabels: 3 }, /numLabels/],
    [{ kind: 'classification', labells: ['a'] }, /did you mean.*labels/],
  ])('refuses %j', (options, what) => {
    expect(() => make('classification', options)).toThrow(vt.ConfigError)
    expect(() => make('classification', options)).toThrow(what)
  })

  it('gives labels their numbers, and says which is none', () => {
    const task = make('classification', { labels: ['calm', 'glad'] })
    expect([labelNumber('glad', task), labelNumber(0, task)]).toEqual([1, 0])
    expect(labelNumber(-0.5, make('regression'))).toBe(-0.5)
    expect(() => labelNumber('sad', task)).toThrow('label: expected one of calm, glad, got "sad"')
    expect(() => labelNumber(2, task)).toThrow('label: expected an index of mood from 0 to 1, got 2')
    expect(() => labelNumber('sad', make('classification', { numLabels: 3 }))).toThrow(
      /expected an index, because mood has no label names/,
    )
    expect(() => labelNumber('sad', make('regression'))).toThrow(/label: expected a number for mood/)
  })

  // Computed with PyTorch and scikit-learn.
  it('has a loss, predictions and metrics of each kind', () => {
    vt.scope(() => {
      const logits = vt.tensor(
        [
          [1, -2, 0.5],
          [-0.3, 0.2, 2],
        ],
        { dtype: 'float32' },
      )
      const several = make('multi-label', { numLabels: 3 })
      const targets = labelTensor(several, [[0, 2], 2])
      expect(targets.toArray()).toEqual([
        [1, 0, 1],
        [0, 0, 1],
      ])
      expect(taskLoss(several, logits, targets).item()).toBeCloseTo(0.39894816279411316, 6)
      expect(predictionsOf(several, logits)).toEqual([
        [0, 2],
        [1, 2],
      ])
      expect(computeMetricsOf(several, taskMetrics)({ predictions: logits, labels: targets }).accuracy).toBe(0.5)
      const one = make('classification', { numLabels: 3 })
      expect(taskLoss(one, logits, labelTensor(one, [0, 2])).item()).toBeCloseTo(0.3700549006462097, 6)
      expect(predictionsOf(one, logits)).toEqual([0, 2])
      expect(scoresOf(one, logits).sum([1]).toArray()).toEqual([expect.closeTo(1, 6), expect.closeTo(1, 6)])
      expect((scoresOf(several, logits).toArray() as number[][])[0]?.[0]).toBeCloseTo(1 / (1 + Math.exp(-1)), 6)
      const value = make('regression')
      const values = vt.tensor([[1], [-2]], { dtype: 'float32' })
      expect(taskLoss(value, values, labelTensor(value, [0.5, 1])).item()).toBeCloseTo(1.75, 6)
      expect(predictionsOf(value, values)).toEqual([1, -2])
    })
    const several: Task = make('multi-label', { numLabels: 3 })
    close(taskMetrics(several, [[0], [0, 2], [], [1, 2], [2], [0, 1, 2]], [[0], [2], [1], [2, 1], [], [0, 2]]), {
      accuracy: 1 / 3,
      microF1: 0.75,
      macroF1: 0.719047619047619,
    })
    close(taskMetrics(make('classification'), [0, 1, 2, 1, 1, 0], [0, 1, 2, 2, 1, 1]), {
      accuracy: 2 / 3,
      f1: 2 / 3,
      macroF1: 2 / 3,
      uar: 0.7222222222222222,
    })
    close(taskMetrics(make('regression'), [1, 2, -3, 0.5], [0.5, 2.5, -1, 0]), { mae: 0.875, corr: 0.8591012144358808 })
    const measure = computeMetricsOf(several, taskMetrics)
    expect(() => measure({ predictions: null as never, labels: null })).toThrow(
      /expected labels in the evaluation data/,
    )
  })
})
