import { describe, expect, it } from 'vitest'
import {
  accuracy,
  BleuMetric,
  CharacterErrorRateMetric,
  ChrfMetric,
  ClassificationMetric,
  ConfigError,
  cohenKappa,
  confusionMatrix,
  corpusBleu,
  corpusChrf,
  DataError,
  MeteorMetric,
  Metric,
  matthewsCorrcoef,
  meanAbsoluteError,
  memoryStats,
  meteor,
  PerplexityMetric,
  pearson,
  perplexity,
  precisionRecallF1,
  Random,
  RegressionMetric,
  RocAucMetric,
  RougeMetric,
  rocAuc,
  rocAucMultiClass,
  rouge,
  ShapeError,
  SpearmanMetric,
  sentenceBleu,
  spearman,
  tensor,
  unweightedAverageRecall,
  WordErrorRateMetric,
  wer,
  wordErrors,
} from '../../lib/index.js'

const random = new Random(7)
const words = (n: number) => Array.from({ length: n }, () => 'ab cd ef gh ij'.split(' ')[random.below(5)]).join(' ')
const texts = Array.from({ length: 30 }, () => words(random.below(12)))
const others = texts.map((text) => text.replace('cd', 'xy'))
const classes = texts.map(() => random.below(4))
const guesses = classes.map((label) => (random.below(3) ? label : random.below(4)))
const values = texts.map(() => random.float())
const estimates = values.map((value) => value + random.float() / 3)
const binary = classes.map((label) => label % 2)

/** A metric, what it is told of each sample, and what all samples give. */
// biome-ignore lint/suspicious/noExplicitAny: metrics of all kinds in one list.
type Any = any
const METRICS: Record<string, [() => Metric<Any, Any, Any, Any>, Any[], Any[], unknown]> = {
  wer: [() => new WordErrorRateMetric(), texts, others, undefined],
  cer: [() => new CharacterErrorRateMetric(), texts, others, undefined],
  bleu: [() => new BleuMetric(), texts, others, corpusBleu(texts, others)],
  chrf: [() => new ChrfMetric({ wordOrder: 2 }), texts, others, corpusChrf(texts, others, { wordOrder: 2 })],
  rouge: [() => new RougeMetric(), texts, others, rouge(texts, others)],
  meteor: [() => new MeteorMetric(), texts, others, meteor(texts, others)],
  regression: [() => new RegressionMetric(), estimates, values, undefined],
  spearman: [() => new SpearmanMetric(), estimates, values, spearman(values, estimates)],
  auc: [() => new RocAucMetric(), estimates, binary, rocAuc(binary, estimates)],
  classification: [() => new ClassificationMetric(), guesses, classes, undefined],
}

/** Numbers within 1e-12, the rest equal. */
function near(actual: unknown, expected: unknown): void {
  if (typeof expected === 'number') expect(actual).toBeCloseTo(expected, 10)
  else if (typeof expected === 'object' && expected !== null) {
    expect(Object.keys(actual as object)).toEqual(Object.keys(expected))
    for (const [key, value] of Object.entries(expected)) near((actual as Record<string, unknown>)[key], value)
  } else expect(actual).toEqual(expected)
}

describe('metrics batch by batch', () => {
  it.each(Object.entries(METRICS))('%s: batches, ranks, states and resets agree', (_, [make, guess, truth, whole]) => {
    const once = make().update(guess, truth)
    const expected = once.compute()
    if (whole !== undefined) near(expected, whole)
    const ranks = [make(), make(), make()]
    for (let i = 0; i < guess.length; i++) (ranks[i % 3] as Metric<Any, Any, Any, Any>).update([guess[i]], [truth[i]])
    const [first, second, third] = ranks as [
      Metric<Any, Any, Any, Any>,
      Metric<Any, Any, Any, Any>,
      Metric<Any, Any, Any, Any>,
    ]
    const saved = JSON.parse(JSON.stringify(second.state()))
    first.merge(saved).merge(third)
    near(first.compute(), expected)
    // What was merged is unchanged, and so is a state that was taken before.
    expect(second.state()).toEqual(saved)
    const restored = make()
    restored.update(guess.slice(0, 3), truth.slice(0, 3))
    restored.loadState(saved)
    expect(restored.compute()).toEqual(second.compute())
    restored.update([guess[0]], [truth[0]])
    expect(second.state()).toEqual(saved)
    first.reset()
    first.update(guess, truth)
    expect(first.compute()).toEqual(expected)
    // A merge with nothing changes nothing.
    expect(first.merge(make().state()).compute()).toEqual(expected)
  })

  it.each(Object.entries(METRICS))(
    '%s: refuses what it cannot use and keeps what it had',
    (_, [make, guess, truth]) => {
      const metric = make().update(guess, truth)
      const before = metric.state()
      const bad: [unknown, unknown][] = [
        [guess, truth.slice(1)],
        [3, 4],
        [null, truth],
        [[Symbol('s')], [truth[0]]],
        [[guess[0]], [null]],
      ]
      for (const [a, b] of bad) {
        const error = (() => {
          try {
            metric.update(a, b)
          } catch (caught) {
            return caught as { code?: string }
          }
          return undefined
        })()
        expect(['ERR_DATA', 'ERR_CONFIG']).toContain(error?.code)
      }
      expect(metric.state()).toEqual(before)
      expect(() => metric.loadState(new PerplexityMetric().state())).toThrow(ConfigError)
      expect(() => metric.loadState({ metric: metric.name, statistics: {} })).toThrow(DataError)
      expect(() => metric.loadState({ metric: metric.name, statistics: null })).toThrow(DataError)
      expect(() => metric.loadState(null as never)).toThrow(ConfigError)
      expect(metric.state()).toEqual(before)
    },
  )

  it('gives all of the classification functions', () => {
    const metric = new ClassificationMetric({ average: 'weighted' })
    for (let i = 0; i < 30; i += 8) metric.update(guesses.slice(i, i + 8), classes.slice(i, i + 8))
    const result = metric.compute()
    expect(result).toMatchObject({
      ...precisionRecallF1(classes, guesses, { average: 'weighted' }),
      accuracy: accuracy(classes, guesses),
      uar: unweightedAverageRecall(classes, guesses),
      confusion: confusionMatrix(classes, guesses),
    })
    near(result.cohenKappa, cohenKappa(classes, guesses))
    near(result.matthewsCorrcoef, matthewsCorrcoef(classes, guesses))
    expect(() => new ClassificationMetric().compute()).toThrow(DataError)
    expect(() => metric.update(['a'], ['a'])).toThrow(DataError)
    expect(new ClassificationMetric().update(['1'], ['1']).update(['2'], ['1']).compute().accuracy).toBe(0.5)
  })

  it('gives perplexity', () => {
    // Four tokens of probability one in eight.
    expect(perplexity(4 * Math.log(8), 4)).toBeCloseTo(8, 12)
    const metric = new PerplexityMetric().update(Math.log(8), 1).update(3 * Math.log(8), 3)
    expect(metric.compute()).toBeCloseTo(8, 12)
    expect(perplexity(0, 0)).toBeNaN()
    expect(perplexity(Number.POSITIVE_INFINITY, 3)).toBe(Number.POSITIVE_INFINITY)
    metric.update(Number.NaN, 1)
    const saved = new PerplexityMetric()
    saved.loadState(JSON.parse(JSON.stringify(metric.state())))
    expect(saved.compute()).toBeNaN()
    expect(() => perplexity(1, -1)).toThrow(ConfigError)
    expect(() => perplexity('1' as never, 1)).toThrow(ConfigError)
  })

  it('is made of what a user defines', () => {
    const longest = new Metric<string[], string[], { most: number }, number>({
      name: 'longest',
      empty: () => ({ most: 0 }),
      measure: (predictions) => ({ most: Math.max(...predictions.map((text) => text.length)) }),
      merge: (into, from) => {
        into.most = Math.max(into.most, from.most)
      },
      compute: ({ most }) => most,
    })
    expect(longest.update(['abc', 'a'], []).update(['ab'], []).compute()).toBe(3)
    expect(() => new Metric({ name: 'x' } as never)).toThrow(ConfigError)
  })

  it('takes tensors and leaves none', () => {
    const before = memoryStats().liveTensors
    const [a, b] = [tensor([1, 2, 4], { dtype: 'float32' }), tensor([1, 2.5, 3], { dtype: 'float32' })]
    expect(meanAbsoluteError(a, b)).toBe(0.5)
    expect(pearson(a, Float32Array.of(1, 2.5, 3))).toBe(pearson([1, 2, 4], [1, 2.5, 3]))
    const scores = tensor([
      [0.9, 0.1],
      [0.2, 0.8],
    ])
    expect(rocAucMultiClass([0, 1], scores)).toBe(1)
    expect(() => meanAbsoluteError(scores, a)).toThrow(ShapeError)
    expect(() => rocAucMultiClass([0, 2], scores)).toThrow(/targets\[1\] to be one of 2 classes, got 2/)
    expect(() => rocAuc([0, 1, 2], [1, 2, 3])).toThrow(/at most two classes, got 3/)
    expect(() => meanAbsoluteError([1, Number.NaN], [1, 2])).toThrow(/targets\[1\]/)
    expect(rocAuc([1, 1], [0.1, 0.2])).toBeNaN()
    expect(pearson([1], [2])).toBeNaN()
    for (const one of [a, b, scores]) one.dispose()
    expect(memoryStats().liveTensors).toBe(before)
  })

  it('aligns long texts, and refuses what would take a gigabyte', () => {
    const long = Array.from({ length: 5000 }, () => String(random.below(50)))
    const edited = long.filter((_, i) => i % 50 !== 7)
    // Every edit is a deletion, and no shorter way exists.
    const errors = wordErrors([long.join(' ')], [edited.join(' ')])
    expect(errors).toMatchObject({ deletions: 100, hits: 4900, substitutions: 0, insertions: 0, wer: 0.02 })
    const huge = (first: string) => `${first} ${Array.from({ length: 70_000 }, (_, i) => i % 9).join(' ')} ${first}`
    expect(() => wer([huge('a')], [huge('b')])).toThrow(DataError)
    expect(() => wer(['a'], ['a', 'b'])).toThrow(/as many references as predictions, got 1 and 2/)
    expect(() => corpusBleu(['a'], [[]])).toThrow(DataError)
    expect(() => corpusBleu([], [])).toThrow(DataError)
    expect(() => sentenceBleu('a', ['a'], { tokenize: 'zh' as never })).toThrow(ConfigError)
  })
})
