import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'
import { settledTensors } from '../../helpers.js'
import { entry, writeClip } from './waves.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-salmonn-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const write = (name: string, value: unknown): string => {
  const file = join(folder, name)
  writeFileSync(file, typeof value === 'string' ? value : JSON.stringify(value))
  return file
}
beforeAll(() =>
  vt.scope(async () => {
    await writeClip(join(folder, 'wav/a.wav'), 20_000, [0.25])
    await writeClip(join(folder, 'wav/b.wav'), 30_000, [-0.25])
    await writeClip(join(folder, 'wav/stereo.wav'), 16_000, [0.5, -0.25])
    await writeClip(join(folder, 'wav/short.wav'), 1_000)
    await writeClip(join(folder, 'wav/long.wav'), 31 * 16_000)
    await writeClip(join(folder, 'wav/8k.wav'), 8_000, [0.5], 8_000)
    writeFileSync(join(folder, 'wav/broken.wav'), 'no sound')
  }),
)
const wav = (name: string) => join(folder, 'wav', name)

describe('readSalmonnAnnotations', () => {
  it("reads the original's form with its wrapper, and the bare list of converted dialogs", async () => {
    const first = write('first.json', {
      annotation: [{ path: 'wav/a.wav', text: 'hello', Q: 'what?', task: 'QA', expand_wav: ['wav/b.wav'] }, { path: 'x.wav', text: 'y' }],
    }) // biome-ignore format: items
    const second = write('second.json', [
      {
        dialogue_id: 'zh_0102_0001',
        task: 'task1_emotional_trajectory',
        input_text: 'u1\nr1\nu2\nr2\nu3\n请描述',
        target_text: '回答',
        audio_files: ['t/1.wav', 't/2.wav', 't/3.wav'],
        emotion_sequence: ['Neutral', 'happy', 'neutral'],
        tts_audio: 'r.wav',
      },
    ])
    const { entries, badItems, ignoredFields } = await salmonn.readSalmonnAnnotations([first, second])
    expect(badItems).toBe(0)
    expect(ignoredFields).toEqual(['tts_audio'])
    expect(entries[0]).toEqual(
      entry({
        id: 'wav/a.wav',
        dialog: 'wav/a.wav',
        task: 'QA',
        audio: [wav('a.wav'), wav('b.wav')],
        target: 'hello',
        question: 'what?',
        trailingGap: false,
        source: `${first}, item 1`,
      }),
    )
    expect(entries[1]).toMatchObject({ task: 'asr', question: '' })
    expect(entries[2]).toMatchObject({
      id: 'zh_0102_0001',
      question: 'u1\nr1\nu2\nr2\nu3\n请描述',
      target: '回答',
      audio: [1, 2, 3].map((turn) => join(folder, `t/${turn}.wav`)),
      emotions: ['neutral', 'happy', 'neutral'],
      trailingGap: true,
    })
  })

  it('names file and item of a bad one, or counts it', async () => {
    const bad = [
      { path: 'a.wav', text: 'x' },
      { text: 'x' },
      7,
      { path: 'a.wav' },
      { audio_files: [], target_text: 'x' },
    ]
    const file = write('bad.json', bad)
    await expect(salmonn.readSalmonnAnnotations(file)).rejects.toThrow(
      `${file}, item 2: expected either path or audio_files, got neither.`,
    )
    const { entries, badItems, badItemErrors } = await salmonn.readSalmonnAnnotations(file, { onBadItem: 'skip' })
    expect([entries.length, badItems]).toEqual([1, 4])
    expect(badItemErrors.map(({ message }) => message.slice(file.length))).toEqual([
      ', item 2: expected either path or audio_files, got neither.',
      ', item 3: expected a JSON object, got 7.',
      ', item 4: expected an answer (text or target_text) for training, got none.',
      ', item 5: expected at least one audio file, got none or an empty path.',
    ])
    const lenient = await salmonn.readSalmonnAnnotations(file, { onBadItem: 'skip', targets: 'optional' })
    expect(lenient.entries.length).toBe(2)
    await expect(salmonn.readSalmonnAnnotations(write('none.json', { items: [] }))).rejects.toThrow(vt.DataError)
  })
})

describe('joinClips and fitClip', () => {
  const ones = (length: number, value: number) => new Float32Array(length).fill(value)

  it('has gaps at exact places, after the last clip too', () => {
    const joined = salmonn.joinClips([ones(100, 1), ones(50, 2)])
    expect(joined.length).toBe(100 + 50 + 2 * 1600)
    expect([joined[99], joined[100], joined[1699], joined[1700], joined[1749], joined[1750]]).toEqual([
      1, 0, 0, 2, 2, 0,
    ])
    expect(salmonn.joinClips([ones(100, 1), ones(50, 2)], { gapSeconds: 0.5 }).length).toBe(150 + 2 * 8000)
    expect(salmonn.joinClips([ones(100, 1), ones(50, 2)], { trailingGap: false }).length).toBe(150 + 1600)
    expect(salmonn.joinClips([ones(9, 1), ones(9, 1), ones(9, 1)], { gapSeconds: 0 })).toEqual(ones(27, 1))
  })

  it('fills up, cuts, leaves whole or refuses', () => {
    const long = Float32Array.from({ length: 480_001 }, (_, i) => i / 480_001)
    const { clip: whole, lost } = salmonn.fitClip(long)
    expect([whole === long, lost]).toEqual([true, 0])
    expect(salmonn.fitClip(long, { longAudio: 'cut' })).toMatchObject({ lost: 1, clip: { length: 480_000 } })
    expect(() => salmonn.fitClip(long, { longAudio: 'error' })).toThrow(/30\.00 s, more than 30\.00/)
    const { clip: short } = salmonn.fitClip(ones(10, 1))
    expect([short.length, short[9], short[10]]).toEqual([2800, 1, 0])
    expect(salmonn.fitClip(ones(480_000, 1), { longAudio: 'error' }).clip.length).toBe(480_000)
  })
})

describe('SalmonnDataset', () => {
  const make = (entries: salmonn.SalmonnEntry[], options: salmonn.SalmonnDatasetOptions = {}) =>
    new salmonn.SalmonnDataset(entries, options)
  const clips = async (more: Partial<salmonn.SalmonnEntry>, options: salmonn.SalmonnDatasetOptions = {}) =>
    (await make([entry(more)], options).get(0)).prompt.clips

  it('reads channel and rate', async () => {
    const stereo = await clips({ audio: [wav('stereo.wav')], trailingGap: false })
    expect([stereo[0]?.length, stereo[0]?.[5]]).toEqual([16_000, 0.125])
    const left = await clips({ audio: [wav('stereo.wav')], trailingGap: false }, { compat: 'published' })
    expect(left[0]?.[5]).toBe(0.5)
    const slow = await clips({ audio: [wav('8k.wav')], trailingGap: false })
    expect(slow[0]?.length).toBe(16_000)
    expect(slow[0]?.[8_000]).toBeCloseTo(0.5, 2)
  })

  it('joins clips or gives each its block', async () => {
    const audio = [wav('a.wav'), wav('b.wav')]
    const [joined, ...others] = await clips({ audio })
    expect([joined?.length, others.length]).toEqual([20_000 + 30_000 + 2 * 1600, 0])
    expect([joined?.[19_999], joined?.[20_000], joined?.[21_600]]).toEqual([0.25, 0, -0.25])
    expect((await clips({ audio, trailingGap: false }))[0]?.length).toBe(51_600)
    expect((await clips({ audio }, { gapSeconds: 0.5 }))[0]?.length).toBe(66_000)
    const separate = await make([entry({ audio })], { clips: 'separate', drawPrompts: false }).get(0)
    expect(separate.prompt.clips.map(({ length }) => length)).toEqual([20_000, 30_000])
    expect(separate.prompt.text.split('<Speech><SpeechHere></Speech>').length).toBe(3)
  })

  it('pads short clips, to 1 s as published', async () => {
    const short = { audio: [wav('short.wav')], trailingGap: false }
    expect((await clips(short))[0]?.length).toBe(2800)
    expect((await clips(short, { compat: 'published' }))[0]?.length).toBe(16_000)
  })

  it('counts what is cut and warns of it, or hears all of it', async () => {
    const heard: string[] = []
    const long = { audio: [wav('long.wav')], trailingGap: false }
    const dataset = make([entry(long)], { compat: 'published', onCut: (message) => heard.push(message) })
    expect((await dataset.get(0)).prompt.clips[0]?.length).toBe(480_000)
    await dataset.get(0)
    expect(dataset.cuts).toEqual({ count: 1, seconds: 1, ids: ['d1'] })
    expect(heard.length).toBe(1)
    expect(heard[0]).toMatch(/item 1 \(d1\): the last 1\.0 s of its audio are cut off/)
    const whole = await make([entry(long)], { drawPrompts: false }).get(0)
    expect(whole.prompt.clips.map(({ length }) => length)).toEqual([496_000])
    expect(whole.prompt.text).toContain('<Speech><SpeechHere></Speech>')
    await expect(make([entry(long)], { longAudio: 'error' }).get(0)).rejects.toThrow(
      /item 1 \(d1\): the audio has 31\.00 s/,
    )
  })

  it('finds missing and broken files before training, or leaves them out', async () => {
    const entries = ['a.wav', 'gone.wav', 'broken.wav'].map((name, i) =>
      entry({ audio: [wav(name)], source: `f, item ${i + 1}`, id: name }),
    )
    await expect(make(entries).check()).rejects.toThrow(/f, item 2 \(gone\.wav\): .*gone\.wav/)
    const { dataset, badItems, badItemErrors } = await make(entries).check('skip')
    expect([dataset.length, badItems, badItemErrors.length]).toEqual([1, 2, 2])
    expect(badItemErrors[1]?.message).toMatch(/f, item 3 \(broken\.wav\): .*broken\.wav/)
    expect(dataset.lengthOf(0)).toBe(Math.ceil(1.25 / 0.34 + 5 / 4))
    await expect(make(entries).get(1)).rejects.toThrow(vt.DataError)
  })

  it('draws prompts by seed and epoch, and collates', async () => {
    const entries = Array.from({ length: 6 }, (_, i) => entry({ audio: [wav('a.wav')], id: `${i}` }))
    const texts = async (dataset: salmonn.SalmonnDataset, epoch: number) =>
      Promise.all(entries.map(async (_, i) => (await dataset.get(i, epoch)).prompt.text))
    expect(await texts(make(entries), 0)).toEqual(await texts(make(entries), 0))
    expect(await texts(make(entries), 0)).not.toEqual(await texts(make(entries), 1))
    expect(await texts(make(entries), 0)).not.toEqual(await texts(make(entries, { seed: 7 }), 0))
    expect(new Set(await texts(make(entries, { drawPrompts: false }), 3)).size).toBe(1)
    const dataset = make([entries[0]!, entry({ ...entries[0], task: 'QA', question: 'Who?' })])
    const batch = salmonn.salmonnCollate([await dataset.get(0), await dataset.get(1)])
    expect(batch.prompts[1]?.text).toBe('USER: <Speech><SpeechHere></Speech> Who?\nASSISTANT:')
    expect(batch.targets).toEqual(['words', 'words'])
    expect(() => make([entry({ task: 'ars' })])).toThrow(/item 1: .*got 'ars'\. Did you mean 'asr'/)
    await expect(make([entry({ task: 'QA', audio: [wav('a.wav')] })]).get(0)).rejects.toThrow(
      /item 1: .*expected a question \(Q\) for \{\}/,
    )
  })

  it('mixes tasks in a batch without a trace in the next', async () => {
    const audio = [wav('a.wav')]
    const asr = Array.from({ length: 3 }, (_, i) => entry({ audio, id: `${i}` }))
    const qa = entry({ audio, task: 'QA', question: 'Who?' })
    const batch = async (dataset: salmonn.SalmonnDataset, ...indices: number[]) =>
      salmonn.salmonnCollate(await Promise.all(indices.map((i) => dataset.get(i, 1)))).prompts.map(({ text }) => text)
    const alone = await batch(make([...asr, qa]), 0, 1, 2)
    const mixed = make([...asr, qa])
    expect((await batch(mixed, 0, 3))[1]).toContain('Who?')
    expect(await batch(mixed, 0, 1, 2)).toEqual(alone)
    // Each sample has a prompt of its own.
    const many = make(Array.from({ length: 20 }, (_, i) => entry({ audio, id: `${i}` })))
    expect(new Set(await batch(many, ...many.entries.keys())).size).toBeGreaterThan(1)
  })

  it('ends answers of task 1 with their emotions', () => {
    const one = entry({ task: 'task1_emotional_trajectory', emotions: ['neutral', 'sad'], question: 'q' })
    const target = (more: salmonn.SalmonnDatasetOptions = {}, of = one) => make([of], more).targetOf(of)
    expect(target()).toBe('words\n情绪序列: neutral -> sad')
    expect(target({ emotionSuffix: 'en' })).toBe('words\nEmotion sequence: neutral -> sad')
    expect(target({ emotionSuffix: false })).toBe('words')
    expect(target({}, { ...one, task: 'asr' })).toBe('words')
  })

  it('leaves no tensors', async () => {
    const dataset = make([entry({ audio: [wav('a.wav'), wav('stereo.wav')] })])
    await dataset.get(0)
    const before = await settledTensors()
    await dataset.get(0)
    expect(vt.memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

describe('emotion suffix', () => {
  it('is parsed as it was written', () => {
    for (const language of ['zh', 'en'] as const) {
      const text = salmonn.writeEmotionSuffix('一句话。\nAnd more', ['Neutral', 'happy', 'surprise'], language)
      expect(salmonn.parseEmotionSuffix(text)).toEqual({
        text: '一句话。\nAnd more',
        emotions: ['neutral', 'happy', 'surprise'],
      })
    }
    expect(salmonn.writeEmotionSuffix('x', [])).toBe('x')
    expect(salmonn.parseEmotionSuffix('no line')).toEqual({ text: 'no line', emotions: null })
    expect(salmonn.parseEmotionSuffix('x\n情绪序列: ').emotions).toBeNull()
    expect(salmonn.parseEmotionSuffix('情绪序列: a -> b\n情绪序列： Sad → happy。</s>').emotions).toEqual([
      'sad',
      'happy',
    ])
    expect(salmonn.parseEmotionSuffix('情绪序列: sad').emotions).toEqual(['sad'])
  })
})

describe('splitSalmonn', () => {
  const entries = Array.from({ length: 40 }, (_, i) =>
    entry({ id: `${i}`, dialog: `d${i >> 1}`, audio: [`${i}.wav`], speaker: i % 4 < 2 ? 'ann' : 'bob' }),
  )
  const dialogs = (list: salmonn.SalmonnEntry[]) => new Set(list.map(({ dialog }) => dialog))

  it('divides whole dialogs, the same whatever the order', () => {
    const { train, valid, test } = salmonn.splitSalmonn(entries, { valid: 0.2, test: 0.1 })
    expect([train.length, valid.length, test.length]).toEqual([28, 8, 4])
    expect(salmonn.sharedDialogs(train, valid)).toEqual([])
    const turned = salmonn.splitSalmonn([...entries].reverse(), { valid: 0.2, test: 0.1 })
    expect(dialogs(turned.valid)).toEqual(dialogs(valid))
    expect(dialogs(salmonn.splitSalmonn(entries, { valid: 0.2, seed: 1 }).valid)).not.toEqual(dialogs(valid))
    expect(salmonn.sharedDialogs(entries, valid).length).toBe(4)
    expect(salmonn.sharedDialogs([entry({ dialog: 'other', audio: ['7.wav'] })], [entries[7]!])).toEqual(['d3'])
  })

  it('holds out speakers', () => {
    const { train, valid } = salmonn.splitSalmonn(entries, { validSpeakers: ['bob'] })
    expect(new Set(valid.map(({ speaker }) => speaker))).toEqual(new Set(['bob']))
    expect([train.length, valid.length]).toEqual([20, 20])
    expect(() => salmonn.splitSalmonn(entries, { validSpeakers: ['eve'] })).toThrow(
      /expected speakers of .*, got "eve"/,
    )
    expect(() => salmonn.splitSalmonn(entries, { validSpeakers: ['ann'], testSpeakers: ['bob'] })).toThrow(
      /expected training data after the split/,
    )
  })
})

describe('dialogs that share sound files', () => {
  const many = (count: number, more: (i: number) => Partial<salmonn.SalmonnEntry>) =>
    Array.from({ length: count }, (_, i) => entry({ id: `${i}`, dialog: `d${i}`, audio: [`${i}.wav`], ...more(i) }))

  it('stay together, however long the chain between them', () => {
    // Each of five chains: 0-1-2-3, 4-5-6-7, …
    const chained = many(20, (i) => ({ audio: [`${i}.wav`, ...(i % 4 < 3 ? [`${i + 1}.wav`] : [])] }))
    for (let seed = 0; seed < 20; seed += 1) {
      const { train, valid, test } = salmonn.splitSalmonn(chained, { valid: 0.2, test: 0.2, seed })
      expect([train.length, valid.length, test.length]).toEqual([12, 4, 4])
      expect([...salmonn.sharedDialogs(train, valid), ...salmonn.sharedDialogs(train, test), ...salmonn.sharedDialogs(valid, test)]).toEqual([]) // biome-ignore format: one line
      const turned = salmonn.splitSalmonn([...chained].reverse(), { valid: 0.2, test: 0.2, seed })
      expect(new Set(turned.valid.map(({ id }) => id))).toEqual(new Set(valid.map(({ id }) => id)))
    }
    // A chain of four is more than a tenth of twenty; it is the least that there is.
    expect(salmonn.splitSalmonn(chained).valid.length).toBe(4)
    // A single one fits where the chains do not.
    const mixed = [...chained, entry({ dialog: 'single', audio: ['single.wav'] })]
    for (let seed = 0; seed < 5; seed += 1) expect(salmonn.splitSalmonn(mixed, { seed }).valid.length).toBe(1)
  })

  it('are held out together', () => {
    const voices = many(6, (i) => ({ audio: [`${i}.wav`, `${i >> 1}-both.wav`], speaker: i === 0 ? 'ann' : 'bob' }))
    const { train, valid } = salmonn.splitSalmonn(voices, { validSpeakers: ['ann'] })
    expect([train.map(({ id }) => id), valid.map(({ id }) => id)]).toEqual([
      ['2', '3', '4', '5'],
      ['0', '1'],
    ])
  })

  it('cannot be divided where all share one, which is named', () => {
    const noisy = many(7, (i) => ({
      audio: [`${i}.wav`, ...(i < 6 ? ['noise.wav'] : []), ...(i > 4 ? ['door.wav'] : [])],
    }))
    expect(() => salmonn.splitSalmonn(noisy)).toThrow(
      /after the split of 7 dialogs, got none\. Dialogs that share a recording stay together, and noise\.wav is in 6\./,
    )
  })
})

describe('openSalmonnData', () => {
  const dialogs = (from: number, to: number, clip = (i: number) => `wav/${i % 2 === 0 ? 'a' : 'b'}.wav`) =>
    Array.from({ length: to - from }, (_, i) => ({ dialogue_id: `d${from + i}`, audio_files: [clip(from + i)], input_text: 'q', target_text: 't' })) // biome-ignore format: one line
  const sizes = ({ train, valid, test }: salmonn.SalmonnData) => [train.length, valid.length, test.length]

  it('takes test data out of training too, where it is the same file, as in the published configuration', async () => {
    const items = Array.from({ length: 20 }, (_, i) => ({ path: `wav/${i}.wav`, text: 't', expand_wav: [`wav/${i >> 1}x.wav`] })) // biome-ignore format: one line
    await vt.scope(async () => {
      for (const { path, expand_wav } of items)
        for (const name of [path, ...expand_wav]) await writeClip(join(folder, name), 100)
    })
    const file = write('three.json', { annotation: items })
    const data = await salmonn.openSalmonnData({ train: [file], valid: [file], test: [file] })
    expect(sizes(data)).toEqual([16, 2, 2])
    expect(data.notes).toEqual([
      'The validation file is the training file: 2 items of whole dialogs are split off from training for it',
      'The test file is the training file: 2 items of whole dialogs are split off from training for it',
    ])
    for (const other of [data.valid, data.test]) {
      expect(salmonn.sharedDialogs(data.train.entries, other.entries)).toEqual([])
    }
    const published = { train: [file], valid: [file], test: [file] }
    expect(sizes(await salmonn.openSalmonnData(published, { compat: 'published' }))).toEqual([20, 20, 20])
  })

  it('keeps a test share where validation has a file of its own, and says what has no effect', async () => {
    const [train, valid] = [write('own-train.json', dialogs(0, 10, (i) => `wav/${i}.wav`)), write('own-valid.json', dialogs(20, 22))] // biome-ignore format: one line
    const data = await salmonn.openSalmonnData({ train: [train], valid: [valid], testShare: 0.2, validShare: 0.5 })
    expect(sizes(data)).toEqual([8, 2, 2])
    expect(data.notes[0]).toBe('data.validShare has no effect: this data has its own file')
  })

  it('needs no training data to measure with', async () => {
    const [train, test] = [write('measure-train.json', dialogs(0, 10, (i) => `wav/${i}.wav`)), write('measure-test.json', dialogs(20, 23))] // biome-ignore format: one line
    const only = { evaluateOnly: true }
    expect(sizes(await salmonn.openSalmonnData({ test: [test] }, only))).toEqual([0, 0, 3])
    expect(sizes(await salmonn.openSalmonnData({ valid: [test] }, only))).toEqual([0, 3, 0])
    expect(sizes(await salmonn.openSalmonnData({ train: ['gone.json'], valid: ['gone.json'], test: [test] }, only))).toEqual([0, 0, 3]) // biome-ignore format: one line
    // What a training with the same seed keeps for it.
    const split = await salmonn.openSalmonnData({ train: [train], validShare: 0.3 }, only)
    expect(sizes(split)).toEqual([0, 3, 0])
    const trained = await salmonn.openSalmonnData({ train: [train], validShare: 0.3 })
    expect(split.valid.entries).toEqual(trained.valid.entries)
    await expect(salmonn.openSalmonnData({}, only)).rejects.toThrow(/expected data to evaluate on, got none/)
  })

  it('keeps validation apart from training, and reads files once', async () => {
    const items = dialogs(0, 10, (i) => `wav/${i}.wav`)
    const file = write('all.json', items)
    const data = await salmonn.openSalmonnData({ train: [file], valid: [file], validShare: 0.3 })
    expect([data.train.length, data.valid.length, data.test.length]).toEqual([7, 3, 0])
    expect(data.notes[0]).toMatch(/training file: 3 items of whole dialogs are split off/)
    const published = await salmonn.openSalmonnData({ train: [file], valid: [file] }, { compat: 'published' })
    expect([published.train.length, published.valid.length]).toEqual([10, 10])
    expect(published.notes[0]).toMatch(/as published/)
    const gone = write('gone.json', [
      ...items,
      { dialogue_id: 'x', audio_files: ['wav/gone.wav'], input_text: 'q', target_text: 't' },
    ])
    await expect(salmonn.openSalmonnData({ train: [gone], validShare: 0.3 })).rejects.toThrow(
      /item 11 \(x\): .*gone\.wav/,
    )
    const skipped = await salmonn.openSalmonnData({ train: [gone], validShare: 0.3, onBadItem: 'skip' })
    expect(skipped.badItems).toBe(1)
    expect(skipped.train.length + skipped.valid.length).toBe(10)
    await expect(salmonn.openSalmonnData({})).rejects.toThrow(vt.ConfigError)
  })
})

describe('parseAudioInput', () => {
  it('tries a list file, JSON, a file of that name, commas, one path', async () => {
    const list = write('list.txt', '\ufeffa.wav\n\n  b, c.wav  \r\n')
    expect(await salmonn.parseAudioInput(`@${list}`)).toEqual(['a.wav', 'b, c.wav'])
    expect(await salmonn.parseAudioInput('["a,b.wav", "c.wav"]')).toEqual(['a,b.wav', 'c.wav'])
    const comma = write('one, two.wav', 'x')
    expect(await salmonn.parseAudioInput(comma)).toEqual([comma])
    expect(await salmonn.parseAudioInput(' a.wav, b.wav ,')).toEqual(['a.wav', 'b.wav'])
    expect(await salmonn.parseAudioInput('a.wav')).toEqual(['a.wav'])
    await expect(salmonn.parseAudioInput('[a.wav, b.wav]')).rejects.toThrow(
      /expected a JSON list of paths, got \[a\.wav, b\.wav\]/,
    )
    await expect(salmonn.parseAudioInput('[1]')).rejects.toThrow(/double quotes/)
    await expect(salmonn.parseAudioInput(' ')).rejects.toThrow(vt.ConfigError)
    await expect(salmonn.parseAudioInput('@nowhere.txt')).rejects.toThrow(vt.DataError)
  })
})

describe('parseChatLine', () => {
  it('tells sound files from words', async () => {
    const [a, b, blank] = [wav('a.wav'), wav('b.wav'), join(folder, 'wav/c d.wav')]
    writeFileSync(blank, 'x')
    const list = write('said.txt', `${a}\n${b}\n`)
    const said = (line: string) => salmonn.parseChatLine(line)
    expect(await said(`${a} What is it?`)).toEqual({ audio: [a], text: 'What is it?' })
    expect(await said(`Is ${a}, or ${b}?`)).toEqual({ audio: [a, b], text: 'Is or' })
    expect(await said(`${a},${b} "${blank}" Say "hello" @ann`)).toEqual({ audio: [a, b, blank], text: 'Say "hello" @ann' }) // biome-ignore format: one line
    expect(await said(`@${list} Both`)).toEqual({ audio: [a, b], text: 'Both' })
    expect(await said(`${JSON.stringify([a, b])} Both`)).toEqual({ audio: [a, b], text: 'Both' })
    expect(await said('[laughter] e.g. 3.5 wav?')).toEqual({ audio: [], text: '[laughter] e.g. 3.5 wav?' })
    await expect(said('gone.wav What?')).rejects.toThrow('expected an existing audio file, got gone.wav')
    await expect(said(`${a},gone.MP3`)).rejects.toThrow('expected an existing audio file, got gone.MP3')
    await expect(said('@gone.txt')).rejects.toThrow(vt.DataError)
  })

  // A search that begins anew at each character would take minutes.
  it.each([
    ['a word', `.${'a'.repeat(1e6)} b`],
    ['commas', `${','.repeat(1e6)}x`],
    ['marks', `a.${'?!'.repeat(5e5)}x`],
    ['blanks', `${' '.repeat(1e6)}x`],
    ['quotes', '"a'.repeat(5e5)],
    ['brackets', `${'['.repeat(1e6)}x`],
  ])('reads a megabyte of %s in one pass', async (_name, line) => {
    const { audio, text } = await salmonn.parseChatLine(line)
    expect(audio).toEqual([])
    expect(text.length).toBeGreaterThan(0)
  })
})

describe('the challenge', () => {
  const turn = (id: number, text: string, emotion: string, more: object = {}) => ({
    turn_id: id,
    text,
    emotion,
    split_audio_file: `task1_3/d_${id}.wav`,
    ...more,
  })
  const three = {
    dialogue_id: 'zh_1',
    turns: [
      turn(1, '我丢了钥匙 [sigh]', 'Sad', { response_txt: '别急。' }),
      turn(2, '找到了！', 'happy', { response_txt: '太好了。' }),
      turn(3, '说说我的情绪。', 'neutral', { response_txt: '先难过，后高兴。' }),
    ],
  }
  const five = {
    dialogue_id: 'en_1',
    speaker: 'ann',
    turns: [5, 1, 2, 3, 4].map((id) => turn(id, `said ${id}`, 'neutral', { response_text: `reply ${id}` })),
  }
  const four = { turns: [1, 2, 3, 4].map((id) => turn(id, `said ${id}`, id === 2 ? '' : 'sad', id < 4 ? { response_text: 'r' } : {})) } // biome-ignore format: one line

  it('converts 3, 4 and 5 turns with both reply keys to golden items', async () => {
    const input = write(
      'task1.jsonl',
      `${JSON.stringify(three)}\n\n   \n${JSON.stringify(five)}\n${JSON.stringify(four)}\n`,
    )
    const output = join(folder, 'converted.json')
    const conversion = await salmonn.convertHumDialFile(input, output)
    expect(conversion).toEqual({ dialogs: 3, files: [{ file: output, dialogs: 3 }], withoutTarget: 1, withoutEmotions: 1, badItems: 0, badItemErrors: [], missingAudio: { count: 5, first: join(folder, 'task1_3/d_1.wav') } }) // biome-ignore format: one line
    const [first, second, third] = JSON.parse(readFileSync(output, 'utf8'))
    expect(first).toEqual({
      dialogue_id: 'zh_1',
      task: 'task1_emotional_trajectory',
      input_text:
        '以下是到目前为止的对话：\n第1轮，用户说：我丢了钥匙 [sigh]\n第1轮，模型答：别急。\n第2轮，用户说：找到了！\n第2轮，模型答：太好了。\n第3轮，用户说：说说我的情绪。\n请结合各段录音中的笑声、叹气和语气，概括用户在这三轮对话中的情绪变化过程。',
      target_text: '先难过，后高兴。',
      audio_files: ['task1_3/d_1.wav', 'task1_3/d_2.wav', 'task1_3/d_3.wav'],
      emotion_sequence: ['sad', 'happy', 'neutral'],
    })
    expect(second.input_text).toMatch(
      /^The conversation so far:\nTurn 1, the user says: said 1\nTurn 1, the model answers: reply 1\n/,
    )
    expect(second.input_text).toMatch(/over these five turns\.$/)
    expect(second).toMatchObject({ target_text: 'reply 5', speaker: 'ann' })
    expect(second.audio_files[4]).toBe('task1_3/d_5.wav')
    expect(third).toMatchObject({ dialogue_id: 'idx_5', target_text: '' })
    expect(third.input_text).toMatch(/these four turns/)
    expect(third).not.toHaveProperty('emotion_sequence')
    const { entries } = await salmonn.readSalmonnAnnotations(output, { targets: 'optional', audioRoot: '/data' })
    expect(entries[0]).toMatchObject({ dialog: 'zh_1', emotions: ['sad', 'happy', 'neutral'] })
    expect(entries[0]?.audio[0]).toBe('/data/task1_3/d_1.wav')
  })

  it('writes the bare lines of the published data file', () => {
    const turns = three.turns.map(({ text, emotion, split_audio_file: audio }) => ({
      text,
      emotion,
      audio,
      reply: '别急。',
    }))
    const plain = salmonn.trajectoryRequest({ turns } as never, { style: 'plain' })
    expect(plain.split('\n').length).toBe(6)
    expect(plain).toMatch(/^我丢了钥匙 \[sigh\]\n别急。\n/)
    expect(salmonn.trajectoryRequest({ turns } as never, { language: 'en' })).toMatch(/these three turns/)
  })

  it('names the line of a broken dialog, or counts it', async () => {
    const broken = { dialogue_id: 'b', turns: [turn(1, 'x', 'sad'), turn(2, 'y', 'sad', { response_txt: 'z' })] }
    const silent = { dialogue_id: 's', turns: [{ turn_id: 1, text: 'x', response_txt: 'y' }] }
    const lines = [three, '{broken', broken, { dialogue_id: 'e', turns: [] }, silent, 3]
    const input = write(
      'broken.jsonl',
      lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'),
    )
    await expect(salmonn.readHumDial(input)).rejects.toThrow(/broken\.jsonl.*line 2|line 2/)
    const { dialogs, badItems, badItemErrors } = await salmonn.readHumDial(input, { onBadItem: 'skip' })
    expect([dialogs.length, badItems]).toEqual([1, 5])
    expect(badItemErrors.slice(1).map(({ message }) => message.slice(input.length))).toEqual([
      ', line 3 (b), turn 1: expected response_txt or response_text, got neither.',
      ', line 4: expected a non-empty list of turns, got an array of length 0.',
      ', line 5 (s), turn 1: expected split_audio_file to be a non-empty string, got undefined.',
      ', line 6: expected a JSON object, got 3.',
    ])
  })
})
