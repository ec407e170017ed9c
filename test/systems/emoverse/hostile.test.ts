import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DataError, type Tensor } from '../../../lib/index.js'
import {
  EmoVerse,
  type EmoVerseQuestion,
  emoverseCollate,
  emoverseLoss,
  readSwiftDataset,
  SpeechBranch,
  scoreEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { fixture, settledTensors } from '../../helpers.js'
import { nodeAv } from '../../vision/node-av.js'
import { ppm, seeingEmoVerse, TINY } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-hostile-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const stored = (name: string, bytes: Buffer | string): string => {
  const file = join(folder, name)
  writeFileSync(file, bytes)
  return file
}

const face = stored(
  'face.ppm',
  ppm(28, 28, (x, y) => [8 * x, 8 * y, 100]),
)

describe('what is no batch', () => {
  it('is refused by name', async () => {
    const { model: network, tokenizer } = await seeingEmoVerse()
    using model = new EmoVerse({ model: network, tokenizer, system: null })
    const sample = {
      inputIds: [1, 2],
      labels: [-100, 2],
      task: 'MER' as const,
      imageInputs: [],
      imagePlaces: [],
      audioInputs: [],
    }
    const batch = emoverseCollate([sample])
    // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
    const wrong = (value: unknown) => value as any
    for (const [samples, message] of [
      [undefined, /samples to be a list/],
      [[null], /samples\[0\] to be an object/],
      [[{ ...sample, labels: 'x' }], /samples\[0\].labels to be a list/],
      [[sample, { ...sample, inputIds: [1, 'x'] }], /samples\[1\].inputIds\[1\] to be a number/],
    ] as const) {
      expect(() => emoverseCollate(wrong(samples))).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
      expect(() => emoverseCollate(wrong(samples))).toThrow(message)
    }
    for (const [one, two, tally, message] of [
      [undefined, batch, undefined, /model to be an object/],
      [model, undefined, undefined, /batch to be an object/],
      [model, { ...batch, inputIds: [1] }, undefined, /batch.inputIds to be a Tensor, got an array/],
      [model, { ...batch, targets: {} }, undefined, /batch.targets.places to be a list/],
      [model, batch, {}, /tally.add to be a function/],
    ] as const) {
      const refused = emoverseLoss(wrong(one), wrong(two), wrong(tally))
      await expect(refused).rejects.toMatchObject({ code: 'ERR_CONFIG', message: expect.stringMatching(message) })
    }
    batch.inputIds.dispose()
    batch.labels.dispose()
  })
})

describe('what strangers give a model', () => {
  it('is refused by name, and leaves the model as it was', async () => {
    const { model: network, tokenizer } = await seeingEmoVerse()
    const whisper = { dModel: 16, encoderLayers: 1, encoderAttentionHeads: 2, encoderFfnDim: 32, decoderAttentionHeads: 2, maxSourcePositions: 100 }
    const qformer = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 32 }
    using model = new EmoVerse({ model: network, tokenizer, system: null, speech: await SpeechBranch.begin({ whisper, qformer, seed: 1 }, TINY.hiddenSize) })
    const good: EmoVerseQuestion = { query: '<image>a', images: [face] }
    const [first] = await model.generate([good], { maxNewTokens: 4 })
    const empty = join(folder, 'empty')
    mkdirSync(empty)
    const frames = join(folder, 'frames')
    mkdirSync(frames)
    for (let i = 0; i < 8; i++) stored(`frames/${i}.ppm`, i === 5 ? Buffer.from('P6\n28 28\n255\nxx') : ppm(28, 28, () => [i, i, i]))
    const wav = Buffer.alloc(44)
    wav.write('RIFF').valueOf()
    const bad: [string, EmoVerseQuestion, RegExp][] = [
      ['more markers', { ...good, query: '<image><image>' }, /images: expected 2 for 2 markers <image>, got 1/],
      ['a marker in an answer', { ...good, history: [['<image>b', '<image>']] }, /images: expected 3 for 3 markers <image>, got 1/],
      ['the place of a picture', { ...good, query: 'x <IMG_CONTEXT>' }, /expected texts without <IMG_CONTEXT>/],
      ['the same in an answer before', { ...good, history: [['b', '<IMG_CONTEXT>']] }, /expected texts without <IMG_CONTEXT>/],
      ['the same as system', { ...good, system: '<IMG_CONTEXT>' }, /expected texts without <IMG_CONTEXT>/],
      ['a picture of nothing', { query: 'a', images: [stored('zero.ppm', 'P6 0 0 255\n')] }, /got 0 × 0/],
      ['raw pixels of nothing', { query: 'a', images: [{ data: new Uint8Array(0), width: 0, height: 0, channels: 3 }] }, /0|width/],
      ['a picture of 40,000 x 40,000', { query: 'a', images: [stored('huge.ppm', 'P6 40000 40000 255\n')] }, /1600000000|pixels, got 40000 × 40000/],
      ['a picture that is cut off', { query: 'a', images: [stored('cut.ppm', 'P6 28 28 255\nabc')] }, /bytes are missing/],
      ['no picture', { query: 'a', images: [Buffer.from('<html>')] }, /known|format|picture/],
      ['a film without frames', { query: 'a', videos: [empty] }, /empty/],
      ['a film with a broken frame', { query: 'a', videos: [frames] }, /5\.ppm|bytes are missing/],
      ['a list without frames', { query: 'a', videos: [[]] }, /videos to be/],
      ['a sound that is cut off', { query: 'a', audios: [stored('cut.wav', wav)] }, /cut\.wav/],
      ['a sound of nothing', { query: 'a', audios: [new Float32Array(0)] }, /no samples|empty|audio/i],
      ['a sound of NaN', { query: 'a', audios: [Float32Array.of(0, Number.NaN, 0)] }, /NaN/],
      ['more sounds in the text', { query: '<audio><audio>', audios: [new Float32Array(4000)] }, /audios: expected 2 for 2 markers <audio>, got 1/],
    ]
    const { tensors } = await fixture('vision/videos-decoded')
    const bytes = Buffer.from((tensors['h264/file/bytes'] as Tensor).dataSync() as Uint8Array)
    const before = await settledTensors()
    for (const [what, question, message] of bad) {
      const error = await model.generate([good, question], { maxNewTokens: 2 }).then(() => null, (one: Error) => one)
      expect(error, what).toMatchObject({ name: expect.stringMatching(/^(Data|Config|Shape)Error$/), message: expect.stringMatching(message) })
    }
    if (nodeAv) {
      await expect(model.generate([{ query: 'a', videos: [stored('cut.mp4', bytes.subarray(0, 2000))] }])).rejects.toThrow(DataError)
    }
    expect(await settledTensors()).toBe(before)
    expect((await model.generate([good], { maxNewTokens: 4 }))[0]).toEqual(first)
    // A line of 40,000 pixels is a picture.
    const line = await model.encode({ query: 'a', images: [stored('line.ppm', ppm(40_000, 1, (x) => [x % 256, 0, 0]))] }, { answer: false })
    expect(line.imageInputs[0]?.tiles).toBeGreaterThan(1)
  }) // biome-ignore format: long lines

  it('may be too long, each picture as one or with all of its tokens: an error, or no answer as published', async () => {
    using model = await seeingEmoVerse()
    const question: EmoVerseQuestion = { query: 'a', images: [face, face, face] }
    const own = model.lengthOf(question)
    const { length } = (await model.encode(question, { answer: false })).inputIds
    expect(length).toBeGreaterThan(own + 3 * 3 - 1)
    // What it is to say counts in training alone.
    expect(model.lengthOf({ ...question, response: 'b' })).toBeGreaterThan(own)
    const limits = [
      [{ maxLength: own }, { maxLength: own - 1 }, `record 1 of 1: expected at most ${own - 1} tokens, got ${own}`],
      [{ maxExpandedLength: length }, { maxExpandedLength: length - 1 }, `record 1 of 1: expected at most ${length - 1} tokens, media included, got ${length}`],
    ] as const
    for (const [fits, tooShort, message] of limits) {
      const records = [{ ...question, response: 'b' }]
      await expect(model.generate(records, tooShort)).rejects.toThrow(message)
      expect(await model.generate(records, { ...tooShort, compat: 'published' })).toEqual([{ text: '', tokens: 0 }])
      await expect(model.stream(question, tooShort).next()).rejects.toThrow(message.replace('record 1 of 1', 'prompt'))
      await expect(model.scoreLabels(question, ['Joy.', 'Fear.'], tooShort)).rejects.toThrow(message.replace('record 1 of 1', 'prompt'))
      expect((await model.generate(records, { ...fits, maxNewTokens: 2 }))[0]?.tokens).toBeGreaterThan(0)
      expect((await model.stream(question, { ...fits, maxNewTokens: 2 }).next()).done).toBe(false)
      expect(Object.keys(await model.scoreLabels(question, ['Joy.', 'Fear.'], fits))).toEqual(['Joy.', 'Fear.'])
    }
    await expect(model.scoreLabels(question, ['Joy.'], { maxLength: 0 })).rejects.toThrow(/maxLength/)
  }) // biome-ignore format: long lines

  it('are files: lines that lack keys, bad UTF-8, answers that are null', async () => {
    const line = (entry: object) => `${JSON.stringify(entry)}\n`
    const results = (name: string, ...lines: (string | Buffer)[]) => stored(name, Buffer.concat(lines.map((one) => Buffer.from(one))))
    const good = line({ query: 'q', label: 'Joy.', response: 'Joy.' })
    await expect(scoreEmoVerse(results('a.jsonl', good, line({ query: 'q', response: 'Joy.' })))).rejects.toThrow(/a\.jsonl, record 2: expected label to be a string/)
    await expect(scoreEmoVerse(results('b.jsonl', line({ query: 'q', label: 'Joy.' })))).rejects.toThrow(/record 1: expected response to be a string/)
    await expect(scoreEmoVerse(results('c.jsonl', good, 'null\n'))).rejects.toThrow(/record 2: expected label/)
    await expect(scoreEmoVerse(results('d.jsonl', good, Buffer.from('{"query": "\xff"}\n', 'latin1')))).rejects.toThrow(DataError)
    await expect(scoreEmoVerse(results('e.jsonl', good, '{"query": \n'))).rejects.toThrow(DataError)
    await expect(scoreEmoVerse(results('f.jsonl', ''))).rejects.toThrow(/expected at least one result, got an empty file/)
    // No answer is a wrong one.
    const asked = 'x <emotion> Please determine which emotion label in the video represents: anger, sadness, surprise, disgust, joy, neutral or fear.'
    const { tasks } = await scoreEmoVerse(results('g.jsonl', line({ query: asked, label: 'Joy.', response: 'Joy.' }), line({ query: asked, label: 'Joy.', response: null })))
    expect(tasks.emotion).toMatchObject({ scores: { accuracy: 0.5, unread: 1 } })
    const data = await readSwiftDataset(results('h.jsonl', good.replace('label', 'labels').replace('Joy.', 'a'), line({ query: 'a', response: null }), Buffer.from('{"query": "\xff", "response": "b"}\n', 'latin1'), '[1]\n', line({ query: 'a', response: 'b', images: [1] })))
    expect([data.length, data.dropped]).toEqual([1, { response: 1, encoding: 1, form: 2 }])
  }) // biome-ignore format: long lines
})
