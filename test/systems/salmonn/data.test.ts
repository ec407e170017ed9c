import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
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
    const { entries, badItems, ignoredFields } = await vt.readSalmonnAnnotations([first, second])
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
    await expect(vt.readSalmonnAnnotations(file)).rejects.toThrow(
      `${file}, item 2: it needs either path or audio_files`,
    )
    const { entries, badItems, badItemErrors } = await vt.readSalmonnAnnotations(file, { onBadItem: 'skip' })
    expect([entries.length, badItems]).toEqual([1, 4])
    expect(badItemErrors.map(({ message }) => message.slice(file.length))).toEqual([
      ', item 2: it needs either path or audio_files',
      ', item 3: it is no object',
      ', item 4: it has no answer to learn from',
      ', item 5: it names no sound file',
    ])
    const lenient = await vt.readSalmonnAnnotations(file, { onBadItem: 'skip', targets: 'optional' })
    expect(lenient.entries.length).toBe(2)
    await expect(vt.readSalmonnAnnotations(write('none.json', { items: [] }))).rejects.toThrow(vt.DataError)
  })
})

describe('joinClips and fitClip', () => {
  const ones = (length: number, value: number) => new Float32Array(length).fill(value)

  it('has gaps at exact places, after the last clip too', () => {
    const joined = vt.joinClips([ones(100, 1), ones(50, 2)])
    expect(joined.length).toBe(100 + 50 + 2 * 1600)
    expect([joined[99], joined[100], joined[1699], joined[1700], joined[1749], joined[1750]]).toEqual([
      1, 0, 0, 2, 2, 0,
    ])
    expect(vt.joinClips([ones(100, 1), ones(50, 2)], { gapSeconds: 0.5 }).length).toBe(150 + 2 * 8000)
    expect(vt.joinClips([ones(100, 1), ones(50, 2)], { trailingGap: false }).length).toBe(150 + 1600)
    expect(vt.joinClips([ones(9, 1), ones(9, 1), ones(9, 1)], { gapSeconds: 0 })).toEqual(ones(27, 1))
  })

  it('fills up, cuts, leaves whole or refuses', () => {
    const long = Float32Array.from({ length: 480_001 }, (_, i) => i / 480_001)
    const { clip: whole, lost } = vt.fitClip(long)
    expect([whole === long, lost]).toEqual([true, 0])
    expect(vt.fitClip(long, { longAudio: 'cut' })).toMatchObject({ lost: 1, clip: { length: 480_000 } })
    expect(() => vt.fitClip(long, { longAudio: 'error' })).toThrow(/30\.0 s, more than 30\.0/)
    const { clip: short } = vt.fitClip(ones(10, 1))
    expect([short.length, short[9], short[10]]).toEqual([2800, 1, 0])
    expect(vt.fitClip(ones(480_000, 1), { longAudio: 'error' }).clip.length).toBe(480_000)
  })
})

describe('SalmonnDataset', () => {
  const make = (entries: vt.SalmonnEntry[], options: vt.SalmonnDatasetOptions = {}) =>
    new vt.SalmonnDataset(entries, options)
  const clips = async (more: Partial<vt.SalmonnEntry>, options: vt.SalmonnDatasetOptions = {}) =>
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
    expect(heard[0]).toMatch(/item 1 \(d1\): the last 1\.0 s of its audio are not heard/)
    const whole = await make([entry(long)], { drawPrompts: false }).get(0)
    expect(whole.prompt.clips.map(({ length }) => length)).toEqual([496_000])
    expect(whole.prompt.text).toContain('<Speech><SpeechHere></Speech>')
    await expect(make([entry(long)], { longAudio: 'error' }).get(0)).rejects.toThrow(
      /item 1 \(d1\): the audio has 31\.0 s/,
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
    const texts = async (dataset: vt.SalmonnDataset, epoch: number) =>
      Promise.all(entries.map(async (_, i) => (await dataset.get(i, epoch)).prompt.text))
    expect(await texts(make(entries), 0)).toEqual(await texts(make(entries), 0))
    expect(await texts(make(entries), 0)).not.toEqual(await texts(make(entries), 1))
    expect(await texts(make(entries), 0)).not.toEqual(await texts(make(entries, { seed: 7 }), 0))
    expect(new Set(await texts(make(entries, { drawPrompts: false }), 3)).size).toBe(1)
    const dataset = make([entries[0]!, entry({ ...entries[0], task: 'QA', question: 'Who?' })])
    const batch = vt.salmonnCollate([await dataset.get(0), await dataset.get(1)])
    expect(batch.prompts[1]?.text).toBe('USER: <Speech><SpeechHere></Speech> Who?\nASSISTANT:')
    expect(batch.targets).toEqual(['words', 'words'])
    expect(() => make([entry({ task: 'ars' })])).toThrow(/item 1: .*no task 'ars'; did you mean 'asr'/)
    await expect(make([entry({ task: 'QA', audio: [wav('a.wav')] })]).get(0)).rejects.toThrow(
      /item 1: .*none was given/,
    )
  })

  it('mixes tasks in a batch without a trace in the next', async () => {
    const audio = [wav('a.wav')]
    const asr = Array.from({ length: 3 }, (_, i) => entry({ audio, id: `${i}` }))
    const qa = entry({ audio, task: 'QA', question: 'Who?' })
    const batch = async (dataset: vt.SalmonnDataset, ...indices: number[]) =>
      vt.salmonnCollate(await Promise.all(indices.map((i) => dataset.get(i, 1)))).prompts.map(({ text }) => text)
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
    const target = (more: vt.SalmonnDatasetOptions = {}, of = one) => make([of], more).targetOf(of)
    expect(target()).toBe('words\n情绪序列: neutral -> sad')
    expect(target({ emotionSuffix: 'en' })).toBe('words\nEmotion sequence: neutral -> sad')
    expect(target({ emotionSuffix: false })).toBe('words')
    expect(target({}, { ...one, task: 'asr' })).toBe('words')
  })

  it('leaves no tensors', async () => {
    const dataset = make([entry({ audio: [wav('a.wav'), wav('stereo.wav')] })])
    await dataset.get(0)
    const before = vt.memoryStats().liveTensors
    await dataset.get(0)
    expect(vt.memoryStats().liveTensors).toBe(before)
  })
})

describe('emotion suffix', () => {
  it('is parsed as it was written', () => {
    for (const language of ['zh', 'en'] as const) {
      const text = vt.writeEmotionSuffix('一句话。\nAnd more', ['Neutral', 'happy', 'surprise'], language)
      expect(vt.parseEmotionSuffix(text)).toEqual({
        text: '一句话。\nAnd more',
        emotions: ['neutral', 'happy', 'surprise'],
      })
    }
    expect(vt.writeEmotionSuffix('x', [])).toBe('x')
    expect(vt.parseEmotionSuffix('no line')).toEqual({ text: 'no line', emotions: null })
    expect(vt.parseEmotionSuffix('x\n情绪序列: ').emotions).toBeNull()
    expect(vt.parseEmotionSuffix('情绪序列: a -> b\n情绪序列： Sad → happy。</s>').emotions).toEqual(['sad', 'happy'])
    expect(vt.parseEmotionSuffix('情绪序列: sad').emotions).toEqual(['sad'])
  })
})

describe('splitSalmonn', () => {
  const entries = Array.from({ length: 40 }, (_, i) =>
    entry({ id: `${i}`, dialog: `d${i >> 1}`, audio: [`${i}.wav`], speaker: i % 4 < 2 ? 'ann' : 'bob' }),
  )
  const dialogs = (list: vt.SalmonnEntry[]) => new Set(list.map(({ dialog }) => dialog))

  it('divides whole dialogs, the same whatever the order', () => {
    const { train, valid, test } = vt.splitSalmonn(entries, { valid: 0.2, test: 0.1 })
    expect([train.length, valid.length, test.length]).toEqual([28, 8, 4])
    expect(vt.sharedDialogs(train, valid)).toEqual([])
    const turned = vt.splitSalmonn([...entries].reverse(), { valid: 0.2, test: 0.1 })
    expect(dialogs(turned.valid)).toEqual(dialogs(valid))
    expect(dialogs(vt.splitSalmonn(entries, { valid: 0.2, seed: 1 }).valid)).not.toEqual(dialogs(valid))
    expect(vt.sharedDialogs(entries, valid).length).toBe(4)
    expect(vt.sharedDialogs([entry({ dialog: 'other', audio: ['7.wav'] })], [entries[7]!])).toEqual(['d3'])
  })

  it('holds out speakers', () => {
    const { train, valid } = vt.splitSalmonn(entries, { validSpeakers: ['bob'] })
    expect(new Set(valid.map(({ speaker }) => speaker))).toEqual(new Set(['bob']))
    expect([train.length, valid.length]).toEqual([20, 20])
    expect(() => vt.splitSalmonn(entries, { validSpeakers: ['eve'] })).toThrow(/Nobody called 'eve'/)
    expect(() => vt.splitSalmonn(entries, { validSpeakers: ['ann'], testSpeakers: ['bob'] })).toThrow(/none is left/)
  })
})

describe('openSalmonnData', () => {
  it('keeps validation apart from training, and reads files once', async () => {
    const items = Array.from({ length: 10 }, (_, i) => ({
      dialogue_id: `d${i}`,
      audio_files: ['wav/a.wav'],
      input_text: 'q',
      target_text: `t${i}`,
    }))
    const file = write('all.json', items)
    const data = await vt.openSalmonnData({ train: [file], valid: [file], validShare: 0.3 })
    expect([data.train.length, data.valid.length, data.test.length]).toEqual([7, 3, 0])
    expect(data.notes[0]).toMatch(/training file: 3 items are taken/)
    const published = await vt.openSalmonnData({ train: [file], valid: [file] }, { compat: 'published' })
    expect([published.train.length, published.valid.length]).toEqual([10, 10])
    expect(published.notes[0]).toMatch(/as published/)
    const gone = write('gone.json', [
      ...items,
      { dialogue_id: 'x', audio_files: ['wav/gone.wav'], input_text: 'q', target_text: 't' },
    ])
    await expect(vt.openSalmonnData({ train: [gone], validShare: 0.3 })).rejects.toThrow(/item 11 \(x\): .*gone\.wav/)
    const skipped = await vt.openSalmonnData({ train: [gone], validShare: 0.3, onBadItem: 'skip' })
    expect(skipped.badItems).toBe(1)
    expect(skipped.train.length + skipped.valid.length).toBe(10)
    await expect(vt.openSalmonnData({})).rejects.toThrow(vt.ConfigError)
  })
})

describe('parseAudioInput', () => {
  it('tries a list file, JSON, a file of that name, commas, one path', async () => {
    const list = write('list.txt', '\ufeffa.wav\n\n  b, c.wav  \r\n')
    expect(await vt.parseAudioInput(`@${list}`)).toEqual(['a.wav', 'b, c.wav'])
    expect(await vt.parseAudioInput('["a,b.wav", "c.wav"]')).toEqual(['a,b.wav', 'c.wav'])
    const comma = write('one, two.wav', 'x')
    expect(await vt.parseAudioInput(comma)).toEqual([comma])
    expect(await vt.parseAudioInput(' a.wav, b.wav ,')).toEqual(['a.wav', 'b.wav'])
    expect(await vt.parseAudioInput('a.wav')).toEqual(['a.wav'])
    await expect(vt.parseAudioInput('[a.wav, b.wav]')).rejects.toThrow(/is no JSON list/)
    await expect(vt.parseAudioInput('[1]')).rejects.toThrow(/double quotes/)
    await expect(vt.parseAudioInput(' ')).rejects.toThrow(vt.ConfigError)
    await expect(vt.parseAudioInput('@nowhere.txt')).rejects.toThrow(vt.DataError)
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
    const conversion = await vt.convertHumDialFile(input, output)
    expect(conversion).toEqual({ dialogs: 3, withoutTarget: 1, withoutEmotions: 1, badItems: 0, badItemErrors: [] })
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
    const { entries } = await vt.readSalmonnAnnotations(output, { targets: 'optional', audioRoot: '/data' })
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
    const plain = vt.trajectoryRequest({ turns } as never, { style: 'plain' })
    expect(plain.split('\n').length).toBe(6)
    expect(plain).toMatch(/^我丢了钥匙 \[sigh\]\n别急。\n/)
    expect(vt.trajectoryRequest({ turns } as never, { language: 'en' })).toMatch(/these three turns/)
  })

  it('names the line of a broken dialog, or counts it', async () => {
    const broken = { dialogue_id: 'b', turns: [turn(1, 'x', 'sad'), turn(2, 'y', 'sad', { response_txt: 'z' })] }
    const silent = { dialogue_id: 's', turns: [{ turn_id: 1, text: 'x', response_txt: 'y' }] }
    const lines = [three, '{broken', broken, { dialogue_id: 'e', turns: [] }, silent, 3]
    const input = write(
      'broken.jsonl',
      lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'),
    )
    await expect(vt.readHumDial(input)).rejects.toThrow(/broken\.jsonl.*line 2|line 2/)
    const { dialogs, badItems, badItemErrors } = await vt.readHumDial(input, { onBadItem: 'skip' })
    expect([dialogs.length, badItems]).toEqual([1, 5])
    expect(badItemErrors.slice(1).map(({ message }) => message.slice(input.length))).toEqual([
      ', line 3 (b), turn 1: it has neither response_txt nor response_text',
      ', line 4: it has no turns',
      ', line 5 (s), turn 1: it has no split_audio_file',
      ', line 6: it is no object',
    ])
  })
})
