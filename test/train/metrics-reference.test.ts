import { describe, expect, it } from 'vitest'
import {
  BleuMetric,
  CharacterErrorRateMetric,
  ChrfMetric,
  characterErrors,
  cohenKappa,
  concordance,
  corpusBleu,
  corpusChrf,
  matthewsCorrcoef,
  meanAbsoluteError,
  meanSquaredError,
  meteor,
  pearson,
  RegressionMetric,
  RougeMetric,
  r2Score,
  rocAuc,
  rocAucMultiClass,
  rootMeanSquaredError,
  rouge,
  SpearmanMetric,
  sentenceBleu,
  spearman,
  WordErrorRateMetric,
  wordErrors,
} from '../../lib/index.js'
import type { Bleu, BleuOptions } from '../../lib/train/metrics/bleu.js'
import type { ChrfOptions } from '../../lib/train/metrics/chrf.js'
import { porterStem } from '../../lib/train/metrics/porter.js'
import { fixture, numbers, tensorsOf } from '../helpers.js'

/** Equal within 1e-12 of the value, NaN only to NaN. */
function expectValues(
  actual: number | number[],
  expected: (number | bigint)[],
  label: string,
  tolerance = 1e-12,
): void {
  const list = [actual].flat()
  expect(list.length, label).toBe(expected.length)
  for (const [i, value] of list.entries()) {
    const wanted = Number(expected[i])
    if (Number.isNaN(wanted)) expect(value, label).toBeNaN()
    else
      expect(Math.abs(value - wanted), `${label}[${i}]: ${value}, ${wanted}`).toBeLessThanOrEqual(
        tolerance * Math.max(1, Math.abs(wanted)),
      )
  }
}

describe('metrics of values against scikit-learn and scipy', async () => {
  const file = await fixture<{ name: string; truth: number[]; guess: number[] }>('train/metrics-values')

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', (name, { truth, guess }) => {
    const out = tensorsOf(file, name, 'out')
    const functions = {
      mae: meanAbsoluteError,
      mse: meanSquaredError,
      rmse: rootMeanSquaredError,
      r2: r2Score,
      pearson,
      spearman,
      concordance,
    }
    // Numbers a million from zero have lost six digits before they come here.
    const tolerance = name === 'far_from_zero' ? 1e-9 : 1e-12
    const metric = new RegressionMetric()
    const rank = new SpearmanMetric()
    for (let i = 0; i < truth.length; i += 7) {
      metric.update(guess.slice(i, i + 7), truth.slice(i, i + 7))
      rank.update(guess.slice(i, i + 7), truth.slice(i, i + 7))
    }
    const streamed = { ...metric.compute(), spearman: rank.compute() }
    for (const [key, measure] of Object.entries(functions)) {
      const expected = numbers(out[key] as never)
      expectValues(measure(truth, guess), expected, key, tolerance)
      // scikit-learn's and scipy's answers to constant lists hang on exact zeros, which batches keep too.
      expectValues(streamed[key as keyof typeof functions], expected, `streamed ${key}`, tolerance)
    }
  })
})

describe('ROC-AUC, kappa and Matthews against scikit-learn', async () => {
  type Case = { name: string; truth: number[]; scores: number[] | number[][]; guess: number[] }
  const file = await fixture<Case>('train/metrics-auc')

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', (name, { truth, scores, guess }) => {
    const out = tensorsOf(file, name, 'out')
    for (const [key, tensor] of Object.entries(out)) {
      const [kind, setting] = key.split('.') as [string, never]
      const actual =
        kind === 'auc'
          ? rocAuc(truth, scores as number[])
          : kind === 'mcc'
            ? matthewsCorrcoef(truth, guess)
            : kind === 'kappa'
              ? cohenKappa(truth, guess, { weights: setting })
              : rocAucMultiClass(truth, scores as number[][], { multiClass: kind as 'ovr', average: setting })
      expectValues(actual, numbers(tensor), key)
    }
  })
})

const BLEU: Record<string, BleuOptions> = {
  default: {},
  lowercase: { lowercase: true },
  none: { smoothMethod: 'none' },
  floor: { smoothMethod: 'floor' },
  floor_value: { smoothMethod: 'floor', smoothValue: 0.5 },
  add_k: { smoothMethod: 'add-k' },
  add_k_value: { smoothMethod: 'add-k', smoothValue: 0.3 },
  order_2: { maxNgramOrder: 2 },
  order_6: { maxNgramOrder: 6, effectiveOrder: true },
  intl: { tokenize: 'intl' },
  char: { tokenize: 'char' },
  split: { tokenize: 'none' },
}
const CHRF: Record<string, ChrfOptions> = {
  default: {},
  plus_plus: { wordOrder: 2 },
  lowercase: { lowercase: true },
  whitespace: { whitespace: true },
  beta_1: { beta: 1, charOrder: 3 },
}
const TYPES = ['equal', 'substitute', 'insert', 'delete']

describe('metrics of texts against sacrebleu, jiwer and rouge_score', async () => {
  type Case = { name: string; guess: string[]; references: string[][]; signatures: Record<string, string> }
  const file = await fixture<Case>('train/metrics-text')
  const valuesOf = ({ score, brevityPenalty, hypothesisLength, referenceLength, ...lists }: Bleu) => [
    ...[score, brevityPenalty, hypothesisLength, referenceLength],
    ...[...lists.precisions, ...lists.counts, ...lists.totals],
  ]

  it.each(file.cases.map((one) => [one.name, one] as const))('%s', (name, { guess, references, signatures }) => {
    const out = tensorsOf(file, name, 'out')
    const expected = (key: string) => numbers(out[key] as never)
    const seen = new Set<string>()
    const compare = (key: string, actual: number | number[]) => {
      seen.add(key)
      expectValues(actual, expected(key), key)
    }
    const halves = [0, 1].map((odd) => (list: readonly unknown[]) => list.filter((_, i) => i % 2 === odd))
    for (const [key, options] of Object.entries(BLEU)) {
      const bleu = corpusBleu(guess, references, options)
      compare(`bleu.${key}`, valuesOf(bleu))
      expect(bleu.signature).toBe(signatures[key])
      const metric = new BleuMetric(options)
      for (const half of halves) metric.update(half(guess) as string[], half(references) as string[][])
      expect(metric.compute()).toEqual(bleu)
    }
    compare(
      'bleu.sentences',
      guess.map((text, i) => sentenceBleu(text, references[i] as string[]).score),
    )
    for (const [key, options] of Object.entries(CHRF)) {
      compare(`chrf.${key}`, corpusChrf(guess, references, options))
      const metric = new ChrfMetric(options)
      for (const half of halves) metric.update(half(guess) as string[], half(references) as string[][])
      compare(`chrf.${key}`, metric.compute())
    }
    const metric = new RougeMetric()
    for (const half of halves) metric.update(half(guess) as string[], half(references) as string[][])
    for (const scores of [rouge(guess, references), metric.compute()]) {
      for (const kind of ['rouge1', 'rouge2', 'rougeL'] as const) {
        compare(kind, [scores[kind].precision, scores[kind].recall, scores[kind].f1])
      }
    }
    const first = references.map((list) => list[0] as string)
    const words = wordErrors(first, guess)
    const characters = characterErrors(first, guess)
    compare('words.rate', [words.wer, words.mer, words.wip, words.wil])
    compare('characters.rate', characters.cer)
    for (const [key, { hits, substitutions, deletions, insertions, alignments }] of Object.entries({
      words,
      characters,
    })) {
      compare(`${key}.counts`, [hits, substitutions, deletions, insertions])
      const rows = alignments.flatMap((chunks, i) =>
        chunks.map((c) => [i, TYPES.indexOf(c.type), c.refStart, c.refEnd, c.hypStart, c.hypEnd]),
      )
      compare(`${key}.alignment`, rows.flat())
    }
    const streams = [new WordErrorRateMetric(), new CharacterErrorRateMetric()] as const
    for (const half of halves) {
      for (const stream of streams) stream.update(half(guess) as string[], half(first) as string[])
    }
    const { alignments: _, ...withoutWords } = words
    const { alignments: __, ...withoutCharacters } = characters
    expect(streams[0].compute()).toEqual(withoutWords)
    expect(streams[1].compute()).toEqual(withoutCharacters)
    expect([...seen].sort()).toEqual(Object.keys(out).sort())
  })
})

describe("METEOR against NLTK's without synonyms", async () => {
  type Case = { name: string; guess: string[]; references: string[][]; forms?: string[]; stems?: string[] }
  const file = await fixture<Case>('train/metrics-meteor')
  const [first, ...texts] = file.cases as [Case, ...Case[]]

  it('has its stems', () => {
    const found = (first.forms as string[]).map(porterStem)
    const wrong = (first.forms as string[]).filter((_, i) => found[i] !== first.stems?.[i])
    expect(wrong).toEqual([])
    expect(found.length).toBeGreaterThan(1000)
  })

  it.each(texts.map((one) => [one.name, one] as const))('%s', (name, { guess, references }) => {
    const options = { usual: {}, other: { alpha: 0.5, beta: 1.5, gamma: 0.2 } }
    for (const [key, values] of Object.entries(tensorsOf(file, name, 'out'))) {
      const wanted = numbers(values) as number[]
      for (const [i, text] of guess.entries()) {
        const score = meteor([text], [references[i] as string[]], options[key as keyof typeof options])
        expect(score.meteor, `${key} ${i}`).toBeCloseTo(wanted[i] as number, 12)
        expect(score.variant).toBe('exact and stem, without WordNet')
      }
    }
  })
})
