import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { DataError } from '../../../lib/index.js'
import {
  type CauseScores,
  emoverseData,
  type LabelScores,
  mosiMetrics,
  type NumberScores,
  type RobustTaskScores,
  type ScoreEmoVerseOptions,
  scoreEmoVerse,
} from '../../../lib/systems/emoverse/index.js'

interface Case {
  task: 'sentiment' | 'emotion' | 'causes'
  variant: 'emoverse' | 'other'
  broken: boolean
  pictures: string[] | null
  records: [label: number, response: number, picture?: number][]
  printed?: string[]
  error?: string
}
const fixture = JSON.parse(
  readFileSync(fileURLToPath(new URL('../../fixtures/emoverse/scores.json', import.meta.url)), 'utf8'),
)
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-scores-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const IMAGES = ['a/1.png', 'a/2.png', 'b/1.png']
const file = (name: string, lines: readonly (object | string)[]): string => {
  const path = join(folder, name)
  writeFileSync(path, lines.map((line) => `${typeof line === 'string' ? line : JSON.stringify(line)}\n`).join(''))
  return path
}

describe('strict', () => {
  it('gives the numbers of the published evaluation on 300 files, or ends as it does', async () => {
    const cases = fixture.cases as Case[]
    expect(cases).toHaveLength(300)
    const ends = new Set<string>()
    for (const [number, { task, variant, broken, pictures, records, printed, error }] of cases.entries()) {
      const lines: (object | string)[] = records.map(([label, response, picture]) => ({
        ...(fixture.texts[label] !== '<absent>' && { label: fixture.texts[label] }),
        ...(fixture.texts[response] !== '<absent>' && { response: fixture.texts[response] }),
        ...(picture !== undefined && picture >= 0 && { images: [IMAGES[picture]] }),
      }))
      if (broken) lines.push('{broken')
      const options: ScoreEmoVerseOptions = {
        mode: 'strict',
        task,
        variant,
        ...(pictures && { countedImages: pictures }),
      }
      const path = file('case.jsonl', lines)
      if (error !== undefined) {
        ends.add(error)
        await expect(scoreEmoVerse(path, options), `case ${number}`).rejects.toMatchObject({ kind: error })
        await expect(scoreEmoVerse(path, options)).rejects.toBeInstanceOf(DataError)
        continue
      }
      const { strict } = await scoreEmoVerse(path, options)
      const { recalls = [], accuracy, f1, weightedF1 } = strict ?? {}
      const found = [...recalls, accuracy, f1, weightedF1].filter((value) => value !== undefined)
      const wanted = (printed as string[]).filter((word) => /^\d[\d.e-]*%?$/.test(word))
      expect(found.length, `case ${number}`).toBe(wanted.length)
      for (const [i, text] of wanted.entries()) {
        const value = found[i] as number
        if (text.endsWith('%')) expect(`${(value * 100).toFixed(2)}%`, `case ${number}`).toBe(text)
        else if (/^\d\.\d{4}$/.test(text)) expect(Math.abs(value - Number(text)), `case ${number}`).toBeLessThan(5.1e-5)
        else expect(Math.abs(value - Number(text)), `case ${number}`).toBeLessThan(1e-15)
      }
    }
    expect([...ends].sort()).toEqual([
      'AttributeError',
      'IndexError',
      'JSONDecodeError',
      'KeyError',
      'TypeError',
      'ValueError',
      'ZeroDivisionError',
    ])
  })

  it('takes the list of labels, and needs a task', async () => {
    const path = file('meld.jsonl', [
      { label: 'Joy.', response: 'Joy.' },
      { label: 'Fear.', response: 'Joy.' },
    ])
    const labels = ['Joy.', 'Fear.']
    expect((await scoreEmoVerse(path, { mode: 'strict', task: 'emotion', labels })).strict).toMatchObject({
      accuracy: 0.5,
    })
    await expect(scoreEmoVerse(path, { mode: 'strict', task: 'emotion' })).rejects.toMatchObject({ kind: 'ValueError' })
    await expect(scoreEmoVerse(path, { mode: 'strict' })).rejects.toThrow(
      /task: expected sentiment, emotion or causes in mode 'strict'/,
    )
  })

  it('stands beside simple rules that are scored in the same way, with classes and who is taken for whom', async () => {
    const one = async (task: 'sentiment' | 'emotion' | 'causes', pairs: [label: string, response: string][], more: ScoreEmoVerseOptions = {}) => {
      const lines = pairs.map(([label, response]) => ({ query: '', label, response }))
      const { tasks, strict } = await scoreEmoVerse(file('rules.jsonl', lines), { mode: 'strict', task, ...more })
      return { ...(tasks[task] as NonNullable<(typeof tasks)[typeof task]>), strict }
    }
    // An answer in small letters is none.
    const signs = await one('sentiment', [['Positive.', 'Positive.'], ['Positive.', 'positive.'], ['Negative.', 'Positive.'], ['Positive.', 'Negative.']])
    expect(signs.scores).toMatchObject({ accuracy: 0.25, positiveRecall: 1 / 3, negativeRecall: 0 })
    expect(signs.baselines).toEqual({ 'always Positive.': { accuracy: 0.75, positiveRecall: 1, negativeRecall: 0 } })
    expect(signs.scores).toMatchObject({ confusion: { columns: ['Positive.', 'Negative.', '(unread)'], rows: [[1, 1, 1], [1, 0, 0]] }, classes: [{ support: 3, said: 2, precision: 0.5 }, { support: 1, said: 1, f1: 0 }] })
    // For other models the words: what has none is the last.
    const other = await one('sentiment', [['Positive.', 'so positive'], ['Negative.', 'who knows'], ['Negative.', 'positive']], { variant: 'other' })
    expect(other.scores).toMatchObject({ accuracy: 2 / 3, confusion: { rows: [[1, 0, 0], [1, 1, 0]] } })
    expect(other.baselines).toEqual({ 'always Negative.': { accuracy: 2 / 3 } })
    const moods = await one('emotion', [['Happy.', 'Fear.'], ['Happy.', 'Happy.'], ['Fear.', 'Fear.']])
    // Weighted: Happy twice with an F1 of 2/3, Fear once with 2/3; always Happy: 0.8 twice, 0 once.
    expect(moods.scores).toMatchObject({ accuracy: 2 / 3, f1: expect.closeTo(2 / 3, 12) })
    expect(moods.baselines['always Happy.']).toEqual({ accuracy: 2 / 3, f1: expect.closeTo(1.6 / 3, 12) })
    const all = ['disgust', 'anger', 'joy', 'sadness', 'surprise', 'fear']
    const causes = await one('causes', all.map((name, i): [string, string] => [`3_${name},3${i === 0 ? ';3_disgust,2' : ''}`, `3_${name},2`]))
    expect(causes.scores).toMatchObject({ f1: expect.closeTo((2 * (1 / 6) * (1 / 7)) / (1 / 6 + 1 / 7), 12) })
    // Itself: six of six said, of seven that are true.
    expect(causes.baselines.itself?.f1).toBeCloseTo((2 * (6 / 7)) / (1 + 6 / 7), 12)
    expect(causes.baselines['itself and previous']?.f1).toBeCloseTo((2 * (7 / 12)) / (1 + 7 / 12), 12)
    expect(causes.scores).toMatchObject({ classes: [{ name: 'disgust', support: 2, said: 1, precision: 1, recall: 0.5 }, { name: 'anger', f1: 0 }, {}, {}, {}, {}] })
    // A rule under which the script ends says how.
    const ended = await one('causes', all.map((name): [string, string] => [`3_${name},1`, `3_${name},1`]))
    expect(Object.keys(ended.baselines)).toEqual(['itself (ends with ZeroDivisionError)', 'itself and previous (ends with ZeroDivisionError)'])
  }) // biome-ignore format: long lines
})

describe('robust', () => {
  it("has scikit-learn's numbers, and counts what it cannot read", async () => {
    for (const { truth, said, ...wanted } of fixture.labels) {
      const lines = truth.map((label: string, i: number) => ({
        label,
        response: said[i] === '(unread)' ? 'What?' : said[i],
      }))
      const { tasks } = await scoreEmoVerse(file('labels.jsonl', lines), { task: 'emotion' })
      const scores = tasks.emotion?.scores as LabelScores
      for (const name of ['accuracy', 'weightedF1', 'macroF1'] as const)
        expect(scores[name]).toBeCloseTo(wanted[name], 12)
      for (const name of ['precision', 'recall', 'f1', 'support'] as const) {
        for (const [i, one] of scores.classes.entries()) expect(one[name]).toBeCloseTo(wanted[name][i], 12)
      }
      expect(scores.confusion.rows).toEqual(wanted.confusion)
      expect(scores.unread).toBe(said.filter((label: string) => label === '(unread)').length)
    }
  })

  it.each([
    ['Joy.', 'Joy.'],
    [' joy ', 'Joy.'],
    ['JOY!', 'Joy.'],
    ['Joy.<|im_end|>', 'Joy.'],
    ['The person is happy.', 'Joy.'],
    ['She looks sad', 'Sadness.'],
    ['joy or fear', undefined],
    ['enjoyment', undefined],
    ['', undefined],
  ])('reads %j as %s', async (response, label) => {
    const { tasks } = await scoreEmoVerse(file('one.jsonl', [{ label: label ?? 'Fear.', response }]), {
      task: 'emotion',
    })
    const { accuracy, unread } = (tasks.emotion as RobustTaskScores).scores as LabelScores
    expect([accuracy, unread]).toEqual(label === undefined ? [0, 1] : [1, 0])
  })

  it("takes a user's labels as they are spelled, whatever stands in them", async () => {
    const labels = ['C++.', '(a|b).', '[x', 'plain.']
    const answers = ['I say c++, of course', '(a|b)', 'well, [x it is', 'a', 'explained']
    const lines = answers.map((response, i) => ({ label: labels[i % 4], response }))
    const { tasks } = await scoreEmoVerse(file('signs.jsonl', lines), { task: 'emotion', labels })
    const { confusion } = (tasks.emotion as RobustTaskScores).scores as LabelScores
    expect(confusion.rows).toEqual([[1, 0, 0, 0, 1], [0, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1]]) // biome-ignore format: a table
  })

  it('counts pairs of emotion and cause by hand', async () => {
    const path = file('causes.jsonl', [
      { label: '3_joy,1;3_joy,3', response: '3_joy,3;3_joy,3; 3_Joy , 2' },
      { label: '4_fear,4', response: '4_fear,4；and 3' },
      { label: '', response: '5_anger,5' },
      { label: '6_anger,5', response: '' },
    ])
    const { tasks } = await scoreEmoVerse(path, { task: 'causes' })
    const scores = tasks.causes?.scores as CauseScores
    // Said: 3_joy,3 3_joy,2 4_fear,4 5_anger,5; right: 3_joy,3 and 4_fear,4; true: 4.
    expect(scores).toMatchObject({ precision: 0.5, recall: 0.5, f1: 0.5, unread: 1, repeated: 1 })
    expect(scores.classes.filter(({ support }) => support > 0)).toEqual([
      { name: 'anger', precision: 0, recall: 0, f1: 0, support: 1, said: 1 },
      { name: 'joy', precision: 0.5, recall: 0.5, f1: 0.5, support: 2, said: 2 },
      { name: 'fear', precision: 1, recall: 1, f1: 1, support: 1, said: 1 },
    ])
    expect(scores.weightedF1).toBeCloseTo((0.5 * 2 + 1) / 4, 12)
    expect(tasks.causes?.baselines.itself).toMatchObject({ precision: 2 / 3, recall: 0.5 })
    expect(tasks.causes?.baselines['itself and previous']).toMatchObject({ precision: 3 / 6, recall: 3 / 4 })
  })

  it("has MMSA's numbers for sentiment, with exact halves and zeros", async () => {
    for (const { truth, said, metrics } of fixture.numbers) {
      const found = mosiMetrics(truth, said)
      const pairs: [number | null, string][] = [
        [found.acc2HasZero, 'Has0_acc_2'],
        [found.f1HasZero, 'Has0_F1_score'],
        [found.acc2NonZero, 'Non0_acc_2'],
        [found.f1NonZero, 'Non0_F1_score'],
        [found.acc7, 'Mult_acc_7'],
        [found.acc5, 'Mult_acc_5'],
        [found.mae, 'MAE'],
        [found.corr, 'Corr'],
      ]
      // It rounds to four digits.
      for (const [value, name] of pairs) expect(Math.abs((value as number) - metrics[name]), name).toBeLessThan(5.1e-5)
    }
    const lines = [
      { label: '1.5', response: 'About 1.5.' },
      { label: '-2', response: 'none' },
      { label: '0', response: '-7' },
    ]
    const { tasks } = await scoreEmoVerse(file('numbers.jsonl', lines), { task: 'number' })
    expect(tasks.number?.scores as NumberScores).toMatchObject({ unread: 1, mae: (0 + 2 + 3) / 3 })
    expect(mosiMetrics([0, 0], [1, -1])).toMatchObject({ acc2NonZero: null, f1NonZero: null })
    expect(() => mosiMetrics([], [])).toThrow(/got 0 true and 0 predicted numbers/)
  })

  it('divides a file by what its questions ask, and refuses lines that lack something', async () => {
    const path = file('mixed.jsonl', [
      { query: '<emotion> ?', label: 'Joy.', response: 'Joy.' },
      { query: '<sentiment> ?', label: 'Positive.', response: 'Negative.' },
      { query: '<sentiment> ?', label: '1.2', response: '1' },
      { query: '<reason> ?', label: 'Because.', response: 'So.' },
    ])
    const { tasks, unscored, records } = await scoreEmoVerse(path)
    expect([records, unscored, Object.keys(tasks).sort()]).toEqual([4, 1, ['emotion', 'number', 'sentiment']])
    for (const line of [{ label: 'Joy.' }, { response: 'Joy.' }, { label: 1, response: 'x' }, '{broken']) {
      await expect(scoreEmoVerse(file('bad.jsonl', [line]))).rejects.toBeInstanceOf(DataError)
    }
    await expect(
      scoreEmoVerse(file('label.jsonl', [{ label: 'Glee.', response: 'x' }]), { task: 'emotion' }),
    ).rejects.toThrow(/expected one of Anger/)
    await expect(scoreEmoVerse(path, { variant: 'other' })).rejects.toThrow(
      /variant: expected mode 'strict', got 'robust'/,
    )
    await expect(scoreEmoVerse(path, { modes: 1 } as never)).rejects.toThrow(/modes/)
  })
})

const shared = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url))
describe.skipIf(!existsSync(join(shared, 'ecf')))('simple rules on the test data, ../shared/data/ecf and meld', () => {
  it('have the figures that are known', async () => {
    const answers = async (rule: (target: number) => number[]) => {
      const { records } = await emoverseData(
        { ecf: join(shared, 'ecf/Subtask_2_test.json') },
        { all: true, part: 'test' },
      )
      const lines = [...records].map(({ query, response }) => {
        const [, number, emotion] = /^Target utterance:(\d+)_([a-z]+)/m.exec(query) as unknown as [
          string,
          string,
          string,
        ]
        const said = rule(Number(number))
          .map((cause) => `${number}_${emotion},${cause}`)
          .join(';')
        return { query, label: response as string, response: said }
      })
      return file('rule.jsonl', lines)
    }
    const strict = async (path: string) => (await scoreEmoVerse(path, { mode: 'strict', task: 'causes' })).strict
    const itself = await strict(await answers((target) => [target]))
    expect([itself?.f1?.toFixed(4), itself?.weightedF1?.toFixed(4)]).toEqual(['0.5784', '0.5769'])
    const path = await answers((target) => (target > 1 ? [target - 1, target] : [target]))
    const both = await strict(path)
    expect([both?.f1?.toFixed(4), both?.weightedF1?.toFixed(4)]).toEqual(['0.6650', '0.6645'])
    // The same figures stand beside whatever is scored.
    const { tasks: published } = await scoreEmoVerse(path, { mode: 'strict', task: 'causes' })
    expect(published.causes?.baselines).toEqual({ itself, 'itself and previous': both })
    const { tasks } = await scoreEmoVerse(path)
    const { f1 } = (tasks.causes as RobustTaskScores).scores as CauseScores
    expect(tasks.causes?.baselines['itself and previous']?.f1).toBe(f1)
  })

  it.skipIf(!existsSync(join(shared, 'meld')))('always neutral is right in 48.1 %, with an F1 of 31.3 %', async () => {
    const { records } = await emoverseData(
      { meld: join(shared, 'meld') },
      { all: true, part: 'test', weights: { MSA: 0 } },
    )
    const lines = [...records].map(({ query, response }) => ({ query, label: response, response: 'Neutral.' }))
    const { tasks } = await scoreEmoVerse(file('neutral.jsonl', lines))
    const { accuracy, weightedF1 } = (tasks.emotion as RobustTaskScores).scores as LabelScores
    expect([accuracy.toFixed(3), weightedF1.toFixed(3)]).toEqual(['0.481', '0.313'])
    expect(tasks.emotion?.baselines['always Neutral.']).toMatchObject({ accuracy, weightedF1 })
  })
})
