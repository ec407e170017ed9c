import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { checkPage } from '../../../scripts/browser.mjs'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-trajectory-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const line = (text: string, ...emotions: string[]) => vt.writeEmotionSuffix(text, emotions)

describe('trajectoryScores', () => {
  it('has the values that are worked out by hand', () => {
    const scores = vt.trajectoryScores([
      // all right
      { id: '1', prediction: line('the same words', 'neutral', 'sad'), reference: line('the same words', 'neutral', 'sad') },
      // 2 of 3 right; sets {neutral, sad, happy} and {neutral, sad}: F1 = 4/5; LCS "he is" of 3 and 4 words: F1 = 4/7
      { id: '2', prediction: line('he is glad', 'neutral', 'happy', 'sad'), reference: line('he is very sad', 'neutral', 'sad', 'sad') },
      // no line: everything wrong
      { id: '3', prediction: 'other', reference: line('words', 'anger') },
      // emotions beyond the end; given apart from the text. Sets {fear, sad} and {fear}: 2/3
      { id: '4', prediction: line('x', 'fear', 'sad'), reference: 'x', emotions: ['Fear'] },
      // nothing to tell
      { id: '5', prediction: 'x y', reference: 'x y' },
    ]) // biome-ignore format: pairs
    expect(scores).toMatchObject({ pairs: 5, withEmotions: 4, parsed: 0.75, exactSequence: 0.25 })
    expect(scores.positionAccuracy).toBeCloseTo(5 / 7, 12)
    expect(scores.accuracyAt).toEqual([3 / 4, 1 / 2, 1])
    expect(scores.labelSetF1).toBeCloseTo((1 + 0.8 + 0 + 2 / 3) / 4, 12)
    expect(scores.rougeL).toBeCloseTo((1 + 4 / 7 + 0 + 1 + 1) / 5, 12)
    expect(() => vt.trajectoryScores([])).toThrow(vt.DataError)
    expect(vt.trajectoryScores([{ id: '1', prediction: 'a', reference: 'a' }])).toMatchObject({
      exactSequence: null,
      accuracyAt: [],
    })
  })

  it('measures ROUGE-L in any script, in English as rouge does', () => {
    const pairs = [
      ['The cat sat on the mat.', 'A cat is on the mat'],
      ['x', 'y'],
      ['a b c 3d', 'a c b 3d 3d'],
    ] as const
    for (const [guess, truth] of pairs) {
      expect(vt.rougeL(guess, truth)).toEqual(vt.rouge([guess], [truth]).rougeL)
    }
    expect(vt.rougeL('用户很高兴', '用户不高兴').f1).toBeCloseTo(0.8, 12)
    // mixed: [用, 户, said, ok, 了] against [用, 户, ok]
    expect(vt.rougeL('用户said OK了', '用户ok').f1).toBeCloseTo(0.75, 12)
    expect(vt.rougeL('', 'x').f1).toBe(0)
  })
})

describe('the judge', () => {
  const turns = [
    { text: 'I lost it', emotion: 'sad', audio: 'a', reply: 'Oh no' },
    { text: 'How did I feel?', emotion: 'neutral', audio: 'b', reply: 'right answer' },
  ]

  it('reads history, question and answer', () => {
    expect(vt.judgeInput({ turns }, 'user\nx\nassistant\n You were sad. ')).toEqual({
      history: ['user(sad): I lost it', 'AI: Oh no', 'user(neutral): How did I feel?'],
      question: 'How did I feel?',
      answer: 'You were sad.',
    })
    expect(vt.judgeInput({ turns }, 'The assistant said so').answer).toBe('The assistant said so')
    const prompt = vt.judgePrompt(vt.judgeInput({ turns }, 'You were sad.'))
    for (const part of ['Accuracy_Completeness', 'user(sad): I lost it', 'Answer: You were sad.']) {
      expect(prompt).toContain(part)
    }
    expect(() => vt.judgeInput({ turns: [] }, 'x')).toThrow(vt.DataError)
  })

  it('maps marks to 1, 3 and 5', () => {
    const marks = [0, 1, 2, 2.5, 3, 4, 4.5, 5, 9, '4', '5 points', 'good', null, { score: 3 }, undefined]
    expect(marks.map(vt.judgeScore)).toEqual([1, 1, 1, 3, 3, 3, 5, 5, 5, 3, 5, 1, 1, 3, 1])
  })

  it('finds and repairs JSON, and leaves out what has none', () => {
    const whole = '```json\n{"Accuracy_Completeness": 5, "Depth_Granularity": "3", "Added_Value": 2}\n``` done {x}'
    expect(vt.parseJudgeReply(whole)).toEqual({ Accuracy_Completeness: 5, Depth_Granularity: 3, Added_Value: 1 })
    const cut = '{"Accuracy_Completeness": {"score": 4, "why": "a } in \\"words'
    expect(vt.parseJudgeReply(cut)).toEqual({ Accuracy_Completeness: 3, Depth_Granularity: 1, Added_Value: 1 })
    expect(vt.parseJudgeReply('{"Accuracy_Completeness": 5,\n')).toMatchObject({ Accuracy_Completeness: 5 })
    for (const none of ['', 'no json', '{oops: 1}', '{"a": }']) expect(vt.parseJudgeReply(none)).toBeNull()
    expect(Object.keys(vt.parseJudgeReply('{}', 'task2') ?? {})).toEqual(Object.keys(vt.JUDGE_CRITERIA.task2))
    const summary = vt.judgeSummary([whole, cut, 'nothing'])
    expect(summary).toEqual({
      judged: 2,
      excluded: 1,
      means: { Accuracy_Completeness: 4, Depth_Granularity: 2, Added_Value: 1 },
      overall: 7 / 3,
    })
    expect(vt.judgeSummary(['x'])).toEqual({ judged: 0, excluded: 1, means: {}, overall: null })
  })
})

const hostile = '<b>"Ann" & co</b>'
const trajectory: vt.EmotionalTrajectory = {
  id: 'dialog 7',
  turns: [
    { speaker: hostile, emotion: 'neutral', reference: 'neutral', text: 'I cannot find my keys.' },
    { speaker: 'Bob', emotion: 'happy', reference: 'neutral', text: 'Look in your coat.' },
    { speaker: hostile, emotion: 'sad', reference: 'sad', text: 'They are not there [sigh].' },
    { speaker: 'Bob', emotion: 'surprise', reference: 'surprise', text: 'And what is this on the table?' },
    { speaker: hostile, emotion: 'happy', reference: 'happy', text: '[laughter] There they are!' },
  ],
  summary: 'Ann is worried at first, then sad, and glad in the end.',
}

interface Shown {
  textContent: string | null
  getAttribute(name: string): string | null
  getBoundingClientRect(): { left: number; right: number; top: number; bottom: number }
}

interface Browser {
  document: {
    documentElement: { scrollWidth: number; clientWidth: number }
    querySelectorAll(query: string): Iterable<Shown>
  }
  getComputedStyle(element: Shown | undefined): { stroke: string }
}

function look() {
  const { document, getComputedStyle } = globalThis as unknown as Browser
  const all = (selector: string) => [...document.querySelectorAll(selector)]
  const texts = all('svg text').map((text) => text.getBoundingClientRect())
  const touch = texts.filter((a, i) =>
    texts.some((b, j) => j > i && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom),
  )
  return {
    title: all('h1')[0]?.textContent,
    emotions: all('.emotion').map((text) => text.textContent),
    points: all('.point').map((circle) => circle.getAttribute('data-emotion')),
    rings: all('.truth').length,
    lines: all('.speaker path').length,
    names: all('.name').map((text) => text.textContent),
    rows: all('tbody tr').length,
    wrong: all('tr.wrong').length,
    overlaps: touch.length,
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    stroke: getComputedStyle(all('.speaker path')[0]).stroke,
  }
}

describe('the report', () => {
  it('is text', () => {
    expect(vt.trajectoryText(trajectory)).toBe(
      `dialog 7\n${hostile}: neutral (1) -> sad (3) -> happy (5)\nBob: happy (2, in truth neutral) -> surprise (4)\n\n${trajectory.summary}`,
    )
    expect(JSON.parse(JSON.stringify(trajectory))).toEqual(trajectory)
    expect(() => vt.trajectorySvg({ turns: [] })).toThrow(/at least one turn/)
    expect(() => vt.trajectorySvg({ turns: [{ speaker: 'x' } as never] })).toThrow(
      /turns\[0\]\.emotion must be a string/,
    )
    expect(vt.trajectorySvg({ turns: [{ speaker: 'x', emotion: 'calm', start: 2 }] })).toContain('2.0 s')
  })

  const chromium = ['chromium', 'chromium-browser', 'google-chrome'].some((command) => {
    try {
      execFileSync(process.env.CHROMIUM ?? command, ['--version'], { stdio: 'ignore' })
      return true
    } catch {
      return false
    }
  })
  it.skipIf(!chromium)('shows in Chromium what it was given', async () => {
    const path = join(folder, 'trajectory.html')
    writeFileSync(path, vt.trajectoryPage(trajectory, hostile))
    const seen = await checkPage(path, look, (found: ReturnType<typeof look>) => found, process.env.VOXTORCH_SCREENSHOT)
    expect(seen).toMatchObject({
      title: hostile,
      emotions: ['surprise', 'happy', 'neutral', 'sad'],
      points: ['neutral', 'sad', 'happy', 'happy', 'surprise'],
      rings: 1,
      lines: 2,
      names: [hostile, 'Bob'],
      rows: 5,
      wrong: 1,
      overlaps: 0,
      wide: false,
    })
    expect(seen.stroke).toMatch(/^rgb\(\d/)
  })
})
