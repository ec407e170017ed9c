import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { DataError, DataLoader } from '../../../../lib/index.js'
import {
  type EMOVERSE_TASKS,
  type EmoVerseDataOptions,
  type EmoVerseInputs,
  ecpeWordingOf,
  emoverseData,
  type MoseiSample,
  readFaceExpressions,
  readMosei,
  readSwiftDataset,
  type SwiftRecord,
  writeSwiftDataset,
} from '../../../../lib/systems/emoverse/index.js'

const shared = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../../shared/data', import.meta.url))
const published = (name: string) => join(shared, 'emoverse', name)
const hasAll = ['emoverse', 'meld', 'ecf'].every((name) => existsSync(join(shared, name)))
const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = (name: string, content: string | object): string => {
  const path = join(folder, name)
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  return path
}
const make = async (inputs: EmoVerseInputs, options: EmoVerseDataOptions = {}) => {
  const { records, report } = await emoverseData(inputs, options)
  return { records: [...records], report }
}

describe.skipIf(!hasAll)('the published test files, ../shared/data/emoverse', () => {
  it.each([
    ['MELD', 'meld_test_data.json', 2610, { meld: join(shared, 'meld/test_sent_emo.csv') }, 'MER'],
    ['ECF', 'ecf2_caption_test.json', 1821, { ecf: join(shared, 'ecf/Subtask_2_test.json') }, 'ECPE'],
  ] as const)('are rebuilt out of the labels of %s, byte for byte', async (_, name, count, inputs, task) => {
    const weights = { MSA: 0, MER: 0, FER: 0, ERI: 0, ECPE: 0, [task]: 1 }
    const wording = published('ecf2_caption_test.json')
    const { records, report } = await emoverseData(inputs, { part: 'test', all: true, weights, wording })
    expect(report.tasks[task]?.records).toBe(count)
    const path = join(folder, name)
    const ordered = [...records].map(({ query, response, videos }) =>
      task === 'MER' ? { query, response, videos } : { videos, query, response },
    )
    expect(await writeSwiftDataset(path, ordered as SwiftRecord[])).toBe(count)
    expect(readFileSync(path).equals(readFileSync(published(name)))).toBe(true)
  })

  it('hold what is known of their labels', async () => {
    const meld = await make({ meld: join(shared, 'meld') }, { part: 'test', all: true, weights: { MSA: 0 } })
    expect(meld.report.tasks.MER?.classes).toEqual({
      'Neutral.': 1256,
      'Joy.': 402,
      'Anger.': 345,
      'Surprise.': 281,
      'Sadness.': 208,
      'Disgust.': 68,
      'Fear.': 50,
    })
    const ecf = await make({ ecf: join(shared, 'ecf/Subtask_2_test.json') }, { all: true, part: 'test' })
    const pairs = ecf.records.flatMap(({ response }) => (response ? response.split(';') : []))
    expect(pairs).toHaveLength(2462)
    expect(ecf.records.filter(({ response }) => response === '')).toHaveLength(75)
    expect(pairs.filter((pair) => pair.split('_')[0] === pair.split(',')[1])).toHaveLength(1217)
  })

  it('gives the training data of subtask 1 a pair for each utterance that is a cause, however many words of it', async () => {
    const { records } = await make({ ecf: join(shared, 'ecf/Subtask_1_train.json') }, { all: true })
    expect(records.length).toBeGreaterThan(5000)
    for (const { response } of records) {
      const pairs = (response as string).split(';')
      expect(new Set(pairs).size).toBe(pairs.length)
    }
  })
})

const line = (id: number, emotion: string) => ({
  id,
  emotion,
  speaker: 'Ann',
  text: `words ${id}`,
  clipName: `dia7utt${id}`,
})
const dialog = {
  id: '7',
  source: 'here',
  utterances: [line(1, 'joy'), line(2, 'neutral'), line(3, 'fear')],
  causes: [
    { effect: 2, cause: 0, emotion: 'fear' },
    { effect: 2, cause: 2, emotion: 'fear' },
  ],
}
const meld = {
  id: '3',
  source: 'here',
  utterances: [
    { id: 0, text: "It's 'so'.", speaker: 'Ann', emotion: 'joy', sentiment: 'positive' },
    { id: 2, text: 'No.', speaker: 'Bob', emotion: 'neutral', sentiment: 'neutral' },
  ],
}

describe('questions and answers', () => {
  it('of emotion and sentiment, with the dialog before where it is wanted', async () => {
    const { records, report } = await make({ meld: [meld] }, { all: true, context: 2 })
    expect(records).toEqual([
      {
        query: "The person says: 'It's 'so'.' <sentiment> Please determine which sentiment label in the video represents: positive or negative.",
        response: 'Positive.',
        videos: ['MELD/train_splits/dia3_utt0.mp4'],
      },
      {
        query: "The person says: 'It's 'so'.' <emotion> Please determine which emotion label in the video represents: anger, sadness, surprise, disgust, joy, neutral or fear.",
        response: 'Joy.',
        videos: ['MELD/train_splits/dia3_utt0.mp4'],
      },
      expect.objectContaining({ query: expect.stringMatching(/^Before it was said:\nAnn: It's 'so'\.\nThe person says: 'No\.'/), response: 'Neutral.' }),
    ]) // biome-ignore format: long
    expect(report.tasks.MER).toEqual({ records: 2, sources: { meld: 2 }, classes: { 'Joy.': 1, 'Neutral.': 1 } })
    expect((await make({ meld: [meld] }, { all: true, weights: { MER: 0 } })).report.unused).toEqual({ meld: 1 })
  })

  it('of causes, with one’s own texts, all candidates, and emotions that were predicted', async () => {
    const wording = { statement: 'S\n', answer: 'A1\nA2', cue: 'C:' }
    const { records } = await make({ ecf: [dialog] }, { all: true, wording })
    const all = 'Input conversation:1_joy. Ann: words 1\n2_neutral. Ann: words 2\n3_fear. Ann: words 3\n'
    expect(records.map(({ query }) => query)).toEqual([
      `S\n${all}Candidate utterances:\nTarget utterance:1_joy. Ann: words 1\nA1\nA2\nC:`,
      `S\n${all}Candidate utterances:1_joy. Ann: words 1\n2_neutral. Ann: words 2\nTarget utterance:3_fear. Ann: words 3\nA1\nA2\nC:`,
    ])
    expect(records.map(({ response }) => response)).toEqual(['', '3_fear,1;3_fear,3'])
    expect(records[1]?.videos).toEqual(['ECF2/subtask2_train/dia7utt3.mp4'])
    expect(ecpeWordingOf({ query: records[1]?.query as string })).toEqual(wording)
    expect(() => ecpeWordingOf({ query: 'What?' })).toThrow(DataError)
    const predicted = (_: unknown, place: number) => ['neutral', 'anger', 'sadness'][place] as string
    const other = await make({ ecf: [dialog] }, { all: true, wording, predicted, candidates: 'all' })
    expect(other.records.map(({ query }) => query)).toEqual([
      expect.stringContaining('Target utterance:2_anger. Ann: words 2\n'),
      expect.stringMatching(/Candidate utterances:1_neutral.*\n2_anger.*\n3_sadness.*\nTarget utterance:3_sadness/),
    ])
  })

  it('of clips of MOSEI: sentiment, emotion, face and reason', async () => {
    const clip: MoseiSample = {
      id: 'v/1',
      text: 'So "good"',
      sentiment: -0.42,
      emotion: 'joy',
      expressions: ['A', 'B'],
    }
    const inputs = { mosei: [clip, { id: 'v/2', text: 'x', sentiment: 0 }], reasons: { 'v/1': 'Since.', 'v/9': 'No.' } }
    const { records, report } = await make(inputs, { all: true, stage: 1, weights: { ERI: 1 } })
    const before = 'The person says: "So "good"" '
    expect(records.map(({ query, response }) => [query.slice(0, before.length), query.slice(before.length), response])).toEqual([
      [before, expect.stringMatching(/^<sentiment> /), 'Negative.'],
      [before, expect.stringMatching(/^<emotion> .* sad, surprise, disgust, happy,/), 'Happy.'],
      [before, '<expression> Detail the facial expressions used in the image.', 'A; B'],
      [before, expect.stringMatching(/^<reason> /), 'Since.'],
    ]) // biome-ignore format: long
    expect(records[0]?.images).toEqual(['v/1.png'])
    expect(report.unmatched).toEqual({ reasonsWithoutClip: ['v/9'] })
    expect(report.unused).toEqual({ mosei: 1 })
    const reasons = (content: object | string) =>
      make({ ...inputs, reasons: file('reasons.json', content) }, { stage: 1 })
    const broken: [object | string, RegExp][] = [
      [{ 'v/1': 'Since.' }, /reasons\.json: expected a list/],
      ['null', /reasons\.json: expected a list/],
      ['[null]', /reasons\.json, record 1: expected/],
      [[{ id: 'v/1', text: 5 }], /reasons\.json, record 1: expected/],
    ]
    for (const [content, message] of broken) {
      const error = await reasons(content).catch((one: unknown) => one)
      expect(error).toBeInstanceOf(DataError)
      expect((error as Error).message).toMatch(message)
    }
    // More than a call has arguments for.
    const many = Array.from({ length: 200_000 }, (_, i) => ({ id: `v/${i + 1}`, text: 'Since.' }))
    expect((await reasons(many)).report.unmatched.reasonsWithoutClip).toHaveLength(199_998)
    await expect(make({ ...inputs, reasons: { 'v/1': 5 } as never }, { stage: 1 })).rejects.toThrow(
      /reasons\['v\/1'\] to be a string/,
    )
    const number = await make(inputs, { all: true, stage: 1, sentiment: 'number', weights: { MER: 0, FER: 0 } })
    expect(number.records.map(({ response }) => response)).toEqual(['-0.42', '0'])
    await expect(make({ mosei: [{ ...clip, emotion: 'glee' }] }, { stage: 1 })).rejects.toThrow(
      /v\/1: expected one of the seven emotions of mosei, got "glee"/,
    )
  })
})

const clips = (count: number): MoseiSample[] =>
  Array.from({ length: count }, (_, i) => ({
    id: `v/${i}`,
    text: `t${i}`,
    sentiment: 1,
    emotion: 'sad',
    expressions: ['A'],
    reason: 'R',
  }))

describe('the mixture', () => {
  it.each([1, 2] as const)('of stage %i has the shares of its weights, within the error of drawing', async (stage) => {
    const count = 6000
    const { records, report } = await make({ mosei: clips(count) }, { stage })
    expect(records).toHaveLength(count)
    const weights = { 1: { MSA: 0.4, MER: 0.2, FER: 0.4 }, 2: { MSA: 0.2, MER: 0.4, ERI: 0.4 } }[stage]
    expect(Object.keys(report.tasks).sort()).toEqual(Object.keys(weights).sort())
    for (const [task, share] of Object.entries(weights)) {
      const found = report.tasks[task as (typeof EMOVERSE_TASKS)[number]]?.records as number
      // Five standard deviations: one seed in a million is outside.
      expect(Math.abs(found / count - share)).toBeLessThan(5 * Math.sqrt((share * (1 - share)) / count))
    }
  })

  it('of MELD, ECF and MOSEI together has in each source the shares among the tasks that it has answers for', async () => {
    const count = 2000
    const many = <T extends object>(one: T) => Array.from({ length: count }, (_, i) => ({ ...one, id: i + 1 }))
    // A neutral utterance is asked for its emotion alone.
    const signed = { ...meld, utterances: meld.utterances.map((one) => ({ ...one, sentiment: 'negative' })) }
    const { report } = await make({ mosei: clips(count), meld: many(signed), ecf: many(dialog) }, { stage: 2 })
    const weights = { MSA: 0.2, MER: 0.4, ERI: 0.4, ECPE: 0.4 }
    expect(Object.keys(report.tasks).sort()).toEqual(Object.keys(weights).sort())
    const found = (source: 'mosei' | 'meld' | 'ecf', task: keyof typeof weights) => report.tasks[task]?.sources[source] ?? 0
    for (const [source, tasks] of [['mosei', ['MSA', 'MER', 'ERI']], ['meld', ['MSA', 'MER']], ['ecf', ['ECPE']]] as const) {
      const all = tasks.reduce((sum, task) => sum + found(source, task), 0)
      // Every utterance of a dialog is one, of causes each that is not neutral.
      expect(all, source).toBe(count * { mosei: 1, meld: meld.utterances.length, ecf: dialog.utterances.filter(({ emotion }) => emotion !== 'neutral').length }[source])
      const weight = tasks.reduce((sum, task) => sum + weights[task], 0)
      for (const task of tasks) {
        const share = weights[task] / weight
        const error = Math.abs(found(source, task) / all - share)
        expect(error, `${source}, ${task}`).toBeLessThanOrEqual(5 * Math.sqrt((share * (1 - share)) / all))
      }
    }
  }) // biome-ignore format: long lines

  it('is the same for the same seed, and another for another', async () => {
    const [a, b, c] = await Promise.all([1, 1, 2].map((seed) => make({ mosei: clips(300) }, { seed })))
    expect(b).toEqual(a)
    expect(c?.records).not.toEqual(a?.records)
    // What a clip is asked does not depend on those behind it.
    const fewer = await make({ mosei: clips(150) }, { seed: 1 })
    const asked = new Map(a?.records.map(({ images, query }) => [images?.[0], query]))
    for (const { images, query } of fewer.records) expect(asked.get(images?.[0])).toBe(query)
  })

  it('is read alike by 1 and 3 workers', async () => {
    const path = join(folder, 'mixture.json')
    await writeSwiftDataset(path, (await emoverseData({ mosei: clips(200) })).records)
    const module = file(
      'data.mjs',
      `import { readSwiftDataset } from ${JSON.stringify(new URL('../../../../dist/systems/emoverse/index.js', import.meta.url).href)}
      export const dataset = (path) => readSwiftDataset(path)`,
    )
    const read = async (workers: number) => {
      const loader = new DataLoader<SwiftRecord, SwiftRecord[]>(new URL(`file://${module}`), { batchSize: 16, shuffle: true, seed: 5, workers, workerData: path })
      const texts: string[] = []
      for await (const batch of loader) texts.push(JSON.stringify(batch))
      await loader.close?.()
      return texts.join('\n')
    } // biome-ignore format: long
    const one = await read(1)
    expect(one.split('\n')).toHaveLength(13)
    expect(await read(3)).toBe(one)
  })

  it('keeps to its caps, and tells what they left out', async () => {
    const { records, report } = await make({ mosei: clips(300), meld: [meld] }, { caps: { mosei: 100, ERI: 20 } })
    expect(report.tasks.ERI?.records).toBe(20)
    expect(records.filter(({ images }) => images)).toHaveLength(100)
    expect(Object.values(report.capped).reduce((sum, count) => sum + count, 0)).toBe(302 - records.length)
  })

  it('refuses what cannot be', async () => {
    await expect(emoverseData({ meld: [meld] }, { stage: 1 })).rejects.toThrow(/expected mosei for stage 1/)
    await expect(emoverseData({}, {})).rejects.toThrow(/got no clip of any/)
    await expect(emoverseData({ mell: '' } as never)).rejects.toThrow(/mell/)
    await expect(emoverseData({ meld: [meld] }, { weights: { MEE: 1 } as never })).rejects.toThrow(/MEE/)
    await expect(emoverseData({ meld: [meld] }, { weights: { MER: -1 } })).rejects.toThrow(/weights.MER/)
    await expect(emoverseData({ meld: [meld] }, { caps: { all: 1 } as never })).rejects.toThrow(/caps/)
    await expect(emoverseData({ meld: join(folder, 'nothing.csv') })).rejects.toThrow(DataError)
  })
})

describe("MMSA's MOSEI and OpenFace", () => {
  const pickle = fileURLToPath(new URL('../../../fixtures/emoverse/mosei.pkl', import.meta.url))

  it('gives ids, words and sentiment of a part, and emotions of a table', async () => {
    const head = 'id,happy,sad,anger,surprise,disgust,fear'
    const emotions = file(
      'emotions.csv',
      `${head}\na$_$0,0,2,1,0,0,0\na/1,0,0,0,0,0,0\na/2,1,0,1,0,0,0\nz/1,1,0,0,0,0,0\n`,
    )
    const { samples, unmatched } = await readMosei(pickle, { emotions })
    expect(samples.slice(0, 4)).toEqual([
      { id: 'a/0', text: 'a words 0', sentiment: -3, emotion: 'sadness' },
      { id: 'a/1', text: 'a words 1', sentiment: -1.5, emotion: 'neutral' },
      { id: 'a/2', text: 'a words 2', sentiment: 0, emotion: 'happy' },
      { id: 'a/3', text: 'a words 3', sentiment: 1.5 },
    ])
    expect(unmatched).toEqual({
      withoutEmotions: ['a/3', 'a/4', 'a/5', 'a/6', 'a/7', 'a/8', 'a/9'],
      withoutClip: ['z/1'],
    })
    expect((await readMosei(pickle, { part: 'test' })).samples).toHaveLength(4)
    const { report } = await make({ mosei: pickle, moseiEmotions: emotions }, { stage: 1, all: true })
    expect(report.tasks.MSA?.classes).toEqual({ 'Negative.': 4, 'Positive.': 4 })
    expect(report.unmatched.emotionsWithoutClip).toEqual(['z/1'])
    await expect(readMosei(pickle, { emotions: file('bad.csv', 'id,happy\na/1,1\n') })).rejects.toThrow(
      /expected a column of the file, got "sad"/,
    )
  })

  it('names the units of the frame in which a face does most', async () => {
    const rows = [
      'frame, confidence, success, AU01_r, AU04_r, AU12_r, AU45_r',
      '1, 0.9, 1, 0.5, 0, 2, 5',
      '2, 0.9, 1, 1.5, 0, 3.5, 0',
      '3, 0.2, 1, 5, 5, 5, 5',
      '4, 0.9, 0, 5, 5, 5, 5',
    ]
    const table = file('v_1.csv', rows.join('\n')) // biome-ignore format: rows
    expect(await readFaceExpressions(table)).toEqual({
      phrases: ['Lip corners pulled up', 'Inner brows raised'],
      frame: 2,
    })
    expect((await readFaceExpressions(table, { least: 2 })).phrases).toEqual(['Lip corners pulled up'])
    expect(await readFaceExpressions(table, { confidence: 1 })).toEqual({ phrases: [], frame: undefined })
    expect((await readFaceExpressions(table, { phrases: { AU45: 'Blinks' } })).phrases).toEqual(['Blinks'])
    await expect(readFaceExpressions(file('no.csv', 'frame,x\n1,2\n'))).rejects.toThrow(
      /expected a column such as AU01_r, got frame, x/,
    )
    await expect(readFaceExpressions(file('nan.csv', 'frame,AU01_r\n1,high\n'))).rejects.toThrow(
      /row 1: expected AU01_r of at least 0, got high/,
    )
    mkdirSync(join(folder, 'faces'))
    writeFileSync(join(folder, 'faces/v_1.csv'), rows.join('\n'))
    const inputs = {
      mosei: [
        { id: 'v/1', text: 'a' },
        { id: 'v/2', text: 'b' },
      ],
      faces: join(folder, 'faces'),
    }
    const { records, report } = await make(inputs, { stage: 1 })
    expect(records.map(({ response }) => response)).toEqual(['Lip corners pulled up; Inner brows raised'])
    expect(report.unmatched).toEqual({ clipsWithoutFaces: ['v/2'], facesWithoutClip: [] })
    // In a folder of each video too, and what no clip has; other files are none of it.
    mkdirSync(join(folder, 'faces/w'))
    for (const name of ['w/1.csv', 'w_2.csv', 'w/7.csv', 'v_9.csv', 'notes.txt'])
      writeFileSync(join(folder, 'faces', name), rows.join('\n'))
    const mosei = ['v/1', 'v/2', 'w/1', 'w/2'].map((id) => ({ id, text: id }))
    const more = await make({ ...inputs, mosei }, { stage: 1 })
    expect(more.records).toHaveLength(3)
    expect(more.report.unmatched).toEqual({ clipsWithoutFaces: ['v/2'], facesWithoutClip: ['v_9', 'w/7'] })
    const nowhere = await make({ ...inputs, faces: join(folder, 'no-faces') }, { stage: 1 }).catch(
      (one: unknown) => one,
    )
    expect(nowhere).toBeInstanceOf(DataError)
    expect(nowhere).toMatchObject({ file: join(folder, 'no-faces'), message: expect.stringContaining('no-faces') })
    const byId = { 'v/1': table, 'z/3': table }
    expect((await make({ ...inputs, faces: byId }, { stage: 1 })).report.unmatched).toEqual({
      clipsWithoutFaces: ['v/2'],
      facesWithoutClip: ['z/3'],
    })
  })

  it('reads what it wrote', async () => {
    const path = join(folder, 'second.json')
    const { records } = await emoverseData({ meld: [meld], ecf: [dialog] })
    expect(await writeSwiftDataset(path, records)).toBe(records.length)
    expect((await readSwiftDataset(path)).length).toBe(4)
  })
})
