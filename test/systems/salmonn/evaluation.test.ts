import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { emotionIn } from '../../../lib/systems/salmonn/evaluation/emotion-words.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'
import { checkPage, withPage } from '../../browser.mjs'
import { settledTensors } from '../../helpers.js'
import { StandIn } from './stand-in.js'
import { entry, writeClip } from './waves.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-trajectory-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const line = (text: string, ...emotions: string[]) => salmonn.writeEmotionSuffix(text, emotions)

describe('trajectoryScores', () => {
  it('has the values that are worked out by hand', () => {
    const scores = salmonn.trajectoryScores([
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
    // Of seven turns: neutral 2 of 2; sad 2 of 3, never said wrongly; anger never said; fear 1 of 1. 'happy' is no class.
    expect(scores.emotions).toEqual([
      { emotion: 'anger', precision: 0, recall: 0, f1: 0, support: 1 },
      { emotion: 'fear', precision: 1, recall: 1, f1: 1, support: 1 },
      { emotion: 'neutral', precision: 1, recall: 1, f1: 1, support: 2 },
      { emotion: 'sad', precision: 1, recall: 2 / 3, f1: expect.closeTo(0.8, 12), support: 3 },
    ])
    expect(scores.uar).toBeCloseTo(2 / 3, 12)
    expect(scores.macroF1).toBeCloseTo(0.7, 12)
    expect(scores.weightedF1).toBeCloseTo(5.4 / 7, 12)
    expect(salmonn.trajectoryScores([{ id: '1', prediction: 'x', reference: '', emotions: ['sad'] }])).toMatchObject({ rougeL: null, uar: 0 }) // biome-ignore format: one line
    expect(() => salmonn.trajectoryScores([])).toThrow(vt.DataError)
    expect(salmonn.trajectoryScores([{ id: '1', prediction: 'a', reference: 'a' }])).toMatchObject({
      exactSequence: null,
      accuracyAt: [],
      uar: null,
      emotions: [],
    })
  })

  it('measures ROUGE-L in any script, in English as rouge does', () => {
    const pairs = [
      ['The cat sat on the mat.', 'A cat is on the mat'],
      ['x', 'y'],
      ['a b c 3d', 'a c b 3d 3d'],
    ] as const
    for (const [guess, truth] of pairs) {
      expect(salmonn.rougeL(guess, truth)).toEqual(vt.rouge([guess], [truth]).rougeL)
    }
    expect(salmonn.rougeL('用户很高兴', '用户不高兴').f1).toBeCloseTo(0.8, 12)
    // mixed: [用, 户, said, ok, 了] against [用, 户, ok]
    expect(salmonn.rougeL('用户said OK了', '用户ok').f1).toBeCloseTo(0.75, 12)
    expect(salmonn.rougeL('', 'x').f1).toBe(0)
    expect(() => salmonn.rougeL(5 as never, 'x')).toThrow(/rougeL: expected prediction/)
    expect(() => salmonn.rougeL('x', 5 as never)).toThrow(/rougeL: expected reference/)
  })
})

describe('measureSalmonn', () => {
  it('gives loss and token accuracy over all entries with an answer, whatever the batches, and scores', async () => {
    const path = (i: number) => join(folder, `measure-${i}.wav`)
    await vt.scope(async () => {
      for (let i = 0; i < 5; i += 1) await writeClip(path(i), 3000, [0.1 + 0.2 * i])
    })
    const entries = Array.from({ length: 6 }, (_, i) =>
      entry({ id: `${i}`, audio: [path(i % 5)], target: i === 5 ? '' : (['soft', 'loud'][i % 2] as string), emotions: ['neutral', 'sad'] }),
    ) // biome-ignore format: entries
    const dataset = new salmonn.SalmonnDataset(entries, { drawPrompts: false })
    const model = new StandIn()
    const before = await settledTensors()
    const { loss, accuracy, scores, answers } = await salmonn.measureSalmonn(model, dataset, { batchSize: 2 })
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
    expect(answers.length).toBe(6)
    expect(scores).toMatchObject({ pairs: 6, withEmotions: 6, parsed: 1 })
    const batch = salmonn.salmonnCollate(await Promise.all([0, 1, 2, 3, 4].map((i) => dataset.get(i))))
    model.eval()
    const whole = await model.forward(batch)
    expect(loss).toBeCloseTo(Number((whole.loss as vt.Tensor).item()), 5)
    expect(accuracy).toBeCloseTo((whole.correct as number) / 5, 12)
    const none = new salmonn.SalmonnDataset(entries.slice(5), { drawPrompts: false })
    expect(await salmonn.measureSalmonn(model, none)).toMatchObject({
      loss: null,
      accuracy: null,
      scores: { rougeL: null },
    })
  })
})

describe('the judge', () => {
  const turns = [
    { text: 'I lost it', emotion: 'sad', audio: 'a', reply: 'Oh no' },
    { text: 'How did I feel?', emotion: 'neutral', audio: 'b', reply: 'right answer' },
  ]

  it('reads history, question and answer', () => {
    expect(salmonn.judgeInput({ turns }, 'user\nx\nassistant\n You were sad. ')).toEqual({
      history: ['user(sad): I lost it', 'AI: Oh no', 'user(neutral): How did I feel?'],
      question: 'How did I feel?',
      answer: 'You were sad.',
    })
    expect(salmonn.judgeInput({ turns }, 'The assistant said so').answer).toBe('The assistant said so')
    const prompt = salmonn.judgePrompt(salmonn.judgeInput({ turns }, 'You were sad.'))
    for (const part of ['Accuracy_Completeness', 'user(sad): I lost it', 'Answer: You were sad.']) {
      expect(prompt).toContain(part)
    }
    expect(() => salmonn.judgeInput({ turns: [] }, 'x')).toThrow(vt.DataError)
  })

  it('maps marks to 1, 3 and 5', () => {
    const marks = [0, 1, 2, 2.5, 3, 4, 4.5, 5, 9, '4', '5 points', 'good', null, { score: 3 }, undefined]
    expect(marks.map(salmonn.judgeScore)).toEqual([1, 1, 1, 3, 3, 3, 5, 5, 5, 3, 5, 1, 1, 3, 1])
  })

  it('finds and repairs JSON, and leaves out what has none', () => {
    const whole = '```json\n{"Accuracy_Completeness": 5, "Depth_Granularity": "3", "Added_Value": 2}\n``` done {x}'
    expect(salmonn.parseJudgeReply(whole)).toEqual({ Accuracy_Completeness: 5, Depth_Granularity: 3, Added_Value: 1 })
    const cut = '{"Accuracy_Completeness": {"score": 4, "why": "a } in \\"words'
    expect(salmonn.parseJudgeReply(cut)).toEqual({ Accuracy_Completeness: 3, Depth_Granularity: 1, Added_Value: 1 })
    expect(salmonn.parseJudgeReply('{"Accuracy_Completeness": 5,\n')).toMatchObject({ Accuracy_Completeness: 5 })
    for (const none of ['', 'no json', '{oops: 1}', '{"a": }']) expect(salmonn.parseJudgeReply(none)).toBeNull()
    expect(Object.keys(salmonn.parseJudgeReply('{}', 'task2') ?? {})).toEqual(Object.keys(salmonn.JUDGE_CRITERIA.task2))
    const summary = salmonn.judgeSummary([whole, cut, 'nothing'])
    expect(summary).toEqual({
      judged: 2,
      excluded: 1,
      means: { Accuracy_Completeness: 4, Depth_Granularity: 2, Added_Value: 1 },
      overall: 7 / 3,
    })
    expect(salmonn.judgeSummary(['x'])).toEqual({ judged: 0, excluded: 1, means: {}, overall: null })
  })
})

describe('predictTrajectory', () => {
  const wav = (name: string) => join(folder, `${name}.wav`)
  const talk = async (...clips: ('soft' | 'loud')[]) => {
    await vt.scope(async () => {
      await writeClip(wav('soft'), 3000, [0.1])
      await writeClip(wav('loud'), 3000, [0.8])
    })
    return salmonn.dialogOfClips(clips.map((clip, i) => ({ audio: wav(clip), speaker: i === 1 ? 'bob' : 'ann' })))
  }
  // Says of what is loud that it begins neutral and gets angry; of a single clip, a word.
  class Teller extends StandIn {
    override async generate(prompts: salmonn.SalmonnPrompt[]) {
      const loud = ({ clips: [clip] }: salmonn.SalmonnPrompt) => Math.max(...(clip ?? [])) > 0.5
      const texts = prompts.map((prompt) => {
        if (prompt.text.includes('Which emotion')) return loud(prompt) ? 'She sounds ANGRY, not happy.' : 'It is calm.'
        return `Ann gets loud.\nEmotion sequence: neutral -> ${loud(prompt) ? 'anger' : 'sad'}`
      })
      return { texts, tokens: texts.map(() => []) }
    }
  }

  it('takes the line of emotions, or asks about each turn, and says which', async () => {
    const model = new Teller()
    const two = await talk('soft', 'loud')
    expect(two.entry.question).toBe(
      "The conversation so far:\nTurn 1: ann\nTurn 2: bob\nListen to laughter, sighs and tone in the recordings, and describe how each speaker's emotion changes over these two turns.",
    )
    expect(await salmonn.predictTrajectory(model, two)).toEqual({
      id: 'dialog',
      turns: [
        { speaker: 'ann', emotion: 'neutral' },
        { speaker: 'bob', emotion: 'anger' },
      ],
      summary: 'Ann gets loud.',
      emotionsFrom: 'dialog',
    })
    const three = await talk('loud', 'soft', 'loud')
    const told = await salmonn.predictTrajectory(model, three)
    expect(told.turns.map(({ emotion }) => emotion)).toEqual(['anger', 'neutral', 'anger'])
    expect([told.emotionsFrom, told.summary]).toEqual(['turns', 'Ann gets loud.'])
    const never = await salmonn.predictTrajectory(model, three, { perTurn: 'never' })
    expect(never.turns.map(({ emotion }) => emotion)).toEqual(['neutral', 'anger', 'unknown'])
    const always = await salmonn.predictTrajectory(model, two, { perTurn: 'always', labels: ['Calm'] })
    expect(always.turns.map(({ emotion }) => emotion)).toEqual(['calm', 'anger'])
    expect(model.training).toBe(true)
    await expect(salmonn.predictTrajectory(model, two, { perTurn: 'no' as never })).rejects.toThrow(vt.ConfigError)
    expect(() => salmonn.dialogOfClips([])).toThrow(vt.ConfigError)
    expect(() => salmonn.dialogOfClips([{ audio: 'x' } as never])).toThrow(/clips\[0\]\.speaker/)
  })

  it('finds the emotion that an answer names first', () => {
    const said = { 'He is unhappy.': 'sad', 'She is mad with happiness': 'happy', '说话人很生气': 'anger', 'Boredom, I think': 'unknown', 'Quiet boredom.': 'quiet boredom', '…': 'unknown', 'a sad-looking man': 'sad', sadistic: 'sadistic' } // biome-ignore format: one line
    for (const [answer, emotion] of Object.entries(said)) expect(emotionIn(answer)).toBe(emotion)
    expect(emotionIn('Boredom, I think', ['boredom'])).toBe('boredom')
  })

  it('finds no emotion that the answer denies', () => {
    const denied = ['Not happy.', 'not-sad', "She isn't angry", 'The speaker isn’t at all afraid.', 'no longer sad', 'He does not seem to be very happy.', 'There is no sign of anger.', 'neither happy nor sad', 'not happy or excited', 'without fear', 'She never sounds surprised', 'far from calm', "doesn't feel joy, nor sadness", '并不高兴', '不再难过', '他没有生气', '说话人没有表现出任何愤怒', '不是很开心', '既不高兴也不难过', '不那么生气了', '毫无恐惧', '她不非常高兴'] // biome-ignore format: one line
    for (const answer of denied) expect(emotionIn(answer), answer).toBe('unknown')
    const said = { 'Not happy but sad.': 'sad', 'not angry, just surprised': 'surprise', 'not only happy but excited': 'happy', 'No, she is happy.': 'happy', 'I do not know why, but he sounds angry': 'anger', 'no doubt happy': 'happy', 'happy or sad': 'happy', 'He was not sad. He is happy; not angry.': 'happy', 'She is not sad, she is happy': 'happy', '不是高兴，而是难过': 'sad', '不是高兴而是难过': 'sad', '他非常高兴': 'happy', '她特别生气': 'anger', '无比愤怒': 'anger', '不仅高兴': 'happy', '他好不高兴': 'happy', '不再难过，变得开心': 'happy', '不知为什么，他害怕': 'fear' } // biome-ignore format: one line
    for (const [answer, emotion] of Object.entries(said)) expect(emotionIn(answer), answer).toBe(emotion)
    expect(emotionIn('No boredom, but joy', ['boredom'])).toBe('happy')
    expect(emotionIn('not bored at all', ['bored'])).toBe('unknown')
    expect(emotionIn('quiet', [''])).toBe('quiet')
  })
})

describe('readTrajectoryDialogs', () => {
  const people = {
    dialogue_id: 'p',
    turns: [
      { speaker: 'ann', text: 'Hello', emotion: 'happy', split_audio_file: '1.wav' },
      { speaker: 'bob', emotion: '', split_audio_file: '2.wav' },
    ],
  }
  const item = { dialogue_id: 'c', input_text: 'q', target_text: 't', audio_files: ['1.wav', '2.wav'], emotion_sequence: ['sad', 'happy'], speaker: 'cid' } // biome-ignore format: one line
  const write = (name: string, value: unknown) => {
    const file = join(folder, name)
    writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value))
    return file
  }

  it('reads dialogs between people and converted ones, one or many', async () => {
    const one = await salmonn.readTrajectoryDialogs(write('one.json', people), { audioRoot: '/clips' })
    expect(one.dialogs).toEqual([
      {
        id: 'p',
        entry: expect.objectContaining({ audio: ['/clips/1.wav', '/clips/2.wav'], emotions: undefined }),
        turns: [
          { speaker: 'ann', text: 'Hello', reference: 'happy' },
          { speaker: 'bob', text: '' },
        ],
        dialog: expect.objectContaining({ id: 'p' }),
      },
    ])
    expect(one.dialogs[0]?.entry.question).toContain('Turn 1, ann says: Hello\nTurn 2: bob\n')
    const [many] = (await salmonn.readTrajectoryDialogs(write('many.json', { annotation: [item] }))).dialogs
    expect(many).toMatchObject({ id: 'c', turns: [{ speaker: 'cid', reference: 'sad' }, { speaker: 'cid', reference: 'happy' }] }) // biome-ignore format: one line
    expect(() => salmonn.judgePrompts([many as salmonn.TrajectoryDialog], [{ id: 'c', prediction: 'x' }])).toThrow(/expected dialogs with turns, got c without/) // biome-ignore format: one line
  })

  it('names the line of what is broken or comes twice, or counts it', async () => {
    const lines = [item, item, '{', people, { turns: [] }].map((line) => (line === '{' ? line : JSON.stringify(line)))
    const file = write('lines.jsonl', lines.join('\n'))
    await expect(salmonn.readTrajectoryDialogs(file)).rejects.toThrow(
      `${file}, line 2: expected a unique id, got c, which ${file}, line 1 has too`,
    )
    const { dialogs, badItems, badItemErrors } = await salmonn.readTrajectoryDialogs(file, { onBadItem: 'skip' })
    expect([dialogs.map(({ id }) => id), badItems]).toEqual([['c', 'p'], 3])
    expect(badItemErrors.map(({ message }) => message).join()).toMatch(
      /line 3.*line 2.*line 5: expected a non-empty list of turns/,
    )
    await expect(salmonn.readTrajectoryDialogs(write('x.txt', ''))).rejects.toThrow(
      /x\.txt: expected a file name that ends in \.json or \.jsonl/,
    )
    await expect(salmonn.readTrajectoryPredictions(write('noid.jsonl', '{"prediction": "x"}'))).rejects.toThrow(/line 1: expected id to be a non-empty string/) // biome-ignore format: one line
    await expect(salmonn.readTrajectoryPredictions(write('none.jsonl', '{"id": "x"}'))).rejects.toThrow(/x: expected prediction or turns, got neither/) // biome-ignore format: one line
    await expect(salmonn.readJudgeReplies(write('replies.jsonl', '{"id": "x"}'))).rejects.toThrow(/line 1: expected id and reply to be strings/) // biome-ignore format: one line
    const replied = (...ids: string[]) =>
      write('replies.jsonl', ids.map((id, i) => JSON.stringify({ id, reply: `r${i}` })).join('\n'))
    const wanted = [
      { id: 'a', reply: 'r0' },
      { id: 'b', reply: 'r1' },
    ]
    expect(await salmonn.readJudgeReplies(replied('a', 'b'))).toEqual(wanted)
    expect(await salmonn.readJudgeReplies(replied('a', 'b'), ['b', 'a', 'c'])).toEqual(wanted)
    await expect(salmonn.readJudgeReplies(replied('a', 'b', 'a'))).rejects.toThrow(
      / line 3: expected one reply for a, got a second one/,
    )
    await expect(salmonn.readJudgeReplies(replied('a', 'b'), ['a'])).rejects.toThrow(
      / line 2: expected the id of a dialog of the references, got b/,
    )
  })
})

const hostile = '<b>"Ann" & co</b>'
const trajectory: salmonn.EmotionalTrajectory = {
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
  tagName: string
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
    points: all('.turn').map((turn) => turn.getAttribute('data-emotion')),
    forms: all('.turn .point').map((form) => form.tagName),
    dashes: all('.speaker:has(.turn) .line').map((line) => line.getAttribute('stroke-dasharray')),
    axes: all('.label').map((label) => label.textContent),
    about: all('svg desc')[0]?.textContent,
    rings: all('.turn .truth').length,
    lines: all('.speaker:has(.turn) .line').length,
    names: all('.name').map((text) => text.textContent),
    rows: all('tbody tr').length,
    wrong: all('tr.wrong').length,
    overlaps: touch.length,
    wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
    stroke: getComputedStyle(all('.speaker .line')[0]).stroke,
  }
}

describe('the report', () => {
  it('is text', () => {
    expect(salmonn.trajectoryText(trajectory)).toBe(
      `dialog 7\n${hostile}: neutral (1) -> sad (3) -> happy (5)\nBob: happy (2, reference neutral) -> surprise (4)\n\n${trajectory.summary}`,
    )
    expect(JSON.parse(JSON.stringify(trajectory))).toEqual(trajectory)
    expect(() => salmonn.trajectorySvg({ turns: [] })).toThrow(/at least one turn/)
    expect(() => salmonn.trajectorySvg({ turns: [{ speaker: 'x' } as never] })).toThrow(
      /turns\[0\]\.emotion to be a string/,
    )
    expect(salmonn.trajectorySvg({ turns: [{ speaker: 'x', emotion: 'calm', start: 2 }] })).toContain('2.0 s')
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
    writeFileSync(path, salmonn.trajectoryPage(trajectory, hostile))
    const seen = await checkPage(path, look, (found: ReturnType<typeof look>) => found, process.env.VOXTORCH_SCREENSHOT)
    expect(seen).toMatchObject({
      title: hostile,
      emotions: ['surprise', 'happy', 'neutral', 'sad'],
      points: ['neutral', 'sad', 'happy', 'happy', 'surprise'],
      rings: 1,
      lines: 2,
      forms: ['circle', 'circle', 'circle', 'path', 'path'],
      dashes: [null, '8 4'],
      axes: ['Emotion', 'Turn'],
      about: `${hostile}: neutral (1) -> sad (3) -> happy (5). Bob: happy (2, reference neutral) -> surprise (4)`,
      names: [hostile, 'Bob', 'reference'],
      rows: 5,
      wrong: 1,
      overlaps: 0,
      wide: false,
    })
    expect(seen.stroke).toMatch(/^rgb\(\d/)
  })
  it.skipIf(!chromium)('can be read in a narrow window, however long the dialog', async () => {
    const path = join(folder, 'narrow.html')
    for (const count of [5, 30]) {
      const turns = Array.from({ length: count }, (_, i) => ({ speaker: `speaker ${i % 8}`, emotion: ['happy', 'sad'][i % 2] as string })) // biome-ignore format: one line
      writeFileSync(path, salmonn.trajectoryPage({ turns }))
      await withPage(pathToFileURL(path).href, async (page) => {
        await page.size(360, 780, true)
        const { wide, scale, figure } = await page.evaluate(() => {
          const { document } = globalThis as unknown as Browser
          const [svg] = [...document.querySelectorAll('svg')] as [Shown]
          const [shown] = [...document.querySelectorAll('figure')] as [Shown & Browser['document']['documentElement']]
          const { left, right } = svg.getBoundingClientRect()
          return {
            wide: document.documentElement.scrollWidth > document.documentElement.clientWidth,
            scale: (right - left) / Number(svg.getAttribute('viewBox')?.split(' ')[2]),
            figure: shown.scrollWidth > shown.clientWidth,
          }
        })
        expect(wide).toBe(false)
        expect(figure).toBe(count === 30)
        // Of letters of 14.
        expect(14 * scale).toBeGreaterThan(11)
      })
    }
    // Eight speakers share neither form, colour and line all at once.
    const svg = salmonn.trajectorySvg({
      turns: Array.from({ length: 12 }, (_, i) => ({ speaker: `${i}`, emotion: 'sad' })),
    })
    const looks = svg
      .split('<g class="speaker ')
      .slice(1, 13)
      .map((group) => {
        const [, kind, form] = /class="point" (\w+)="(?:M[\d.]+ [\d.]+)?([^"]*)"/.exec(group) ?? []
        return [group.slice(0, 2), /stroke-dasharray="[^"]*"/.exec(group)?.[0], kind === 'd' ? form : 'circle'].join()
      })
    expect(looks[0]).toBe('s0,,circle')
    expect(looks.length).toBe(12)
    expect(new Set(looks).size).toBe(12)
  })
})
