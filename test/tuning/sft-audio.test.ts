import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { sftRule } from '../../lib/cli/sft.js'
import * as vt from '../../lib/index.js'
import { runCommand } from '../../lib/kit/command.js'
import { BadRecords } from '../../lib/kit/records.js'
import { examplesOf } from '../../lib/tuning/examples.js'
import { type SftRecord, type TrainSftOptions, trainSft } from '../../lib/tuning/index.js'
import { audioMedia } from '../../lib/tuning/media.js'
import { expectClose, fixturePath, settledTensors } from '../helpers.js'

vt.setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-sft-audio-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const folder = fixturePath('models/audio-lm-folder-qwen2_audio')
const PARQUET = fixturePath('tuning/messages.parquet')

const toneOf = (length: number, pitch = 440) =>
  Float32Array.from({ length }, (_, t) => 0.4 * Math.sin((2 * Math.PI * pitch * t) / 16_000))
mkdirSync(join(directory, 'clips'))
for (const [name, length] of [
  ['a', 3200],
  ['b', 6400],
  ['long', 20_000],
] as const) {
  await vt.scope(() =>
    vt.writeWav(join(directory, 'clips', `${name}.wav`), vt.tensor(toneOf(length)), { sampleRate: 16_000 }),
  )
}
writeFileSync(join(directory, 'clips/broken.wav'), 'RIFF no audio')

const clip = (audio?: unknown) => ({ type: 'audio', ...(audio !== undefined && { audio }) })
const text = (value: string) => ({ type: 'text', text: value })
const user = (...content: unknown[]) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })
const two = {
  messages: [
    user(clip('clips/a.wav'), text('one?')),
    assistant('low'),
    user(text('and'), clip('clips/b.wav')),
    assistant('high'),
  ],
}
const plain = { messages: [user(text('no audio')), assistant('none')] }
const file = join(directory, 'train.jsonl')
writeFileSync(file, [two, plain, two, plain].map((one) => JSON.stringify(one)).join('\n'))

const settings = { maxLength: 1024, truncationMode: 'keep_start', trainOn: 'assistant', longAudio: 'error' } as const
const open = async () => (await vt.AudioLM.fromPretrained(folder)) as vt.AudioLM & { tokenizer: vt.Tokenizer }
const readerOf = (model: Awaited<ReturnType<typeof open>>, changes: object = {}) => {
  const all = { ...settings, ...changes }
  return { tokenizer: model.tokenizer, media: audioMedia(model, model.tokenizer, all), settings: all }
}
const read = (model: Awaited<ReturnType<typeof open>>, records: string | SftRecord[], changes: object = {}) =>
  examplesOf(readerOf(model, changes), records, new BadRecords('stop'), 'records')

let runs = 0
const options = (more: Partial<TrainSftOptions> = {}): TrainSftOptions => ({
  ...{ outputDir: join(directory, `run${runs++}`), batchSize: 2, learningRate: 1e-2, epochs: 2, ...more },
  args: { reportTo: 'none', ...more.args },
})

it('a packed batch with audio has the loss and gradients of its records alone', async () => {
  const model = await open()
  const { examples } = await read(model, file)
  const targets = examples.map(({ labels }) => model.tokenizer.decode(labels.filter((id) => id >= 0)))
  expect(targets.slice(0, 2)).toEqual(['low<|im_end|>\nhigh<|im_end|>\n', 'none<|im_end|>\n'])
  const prepared = await model.prepare(
    [
      { role: 'user', content: [{ type: 'audio', audio: toneOf(3200) }, 'one?'] },
      { role: 'assistant', content: 'low' },
      { role: 'user', content: ['and', { type: 'audio', audio: toneOf(6400) }] },
      { role: 'assistant', content: 'high' },
    ],
    { addGenerationPrompt: false },
  )
  expect([examples[0]!.inputIds]).toEqual(prepared.inputIds.toArray())
  const parameters = model.parameters().filter(({ requiresGrad }) => requiresGrad)
  const gradients = () =>
    parameters.map((one) => {
      const { grad } = one
      one.grad = null
      return grad
    })
  const [first, second] = examples as [(typeof examples)[0], (typeof examples)[0]]
  const count = [first, second].flatMap(({ labels }) => labels.filter((id) => id >= 0)).length
  let alone = 0
  for (const { inputIds, labels, clips } of [first, second]) {
    const { inputFeatures = null, featuresMask = null } =
      clips.length > 0 ? await model.features(clips as vt.AudioClip[]) : {}
    const { loss } = await model.forward({
      ...{
        inputIds: vt.tensor([inputIds]),
        labels: vt.tensor([labels]),
        reduction: 'sum',
        inputFeatures,
        featuresMask,
      },
    })
    alone += Number(loss!.item()) / count
    await loss!.div(count).backward()
  }
  const expected = gradients()
  const { inputIds, labels, sequenceLengths } = vt.packSequences(['inputIds', 'labels'])([first, second])
  const { inputFeatures, featuresMask } = await model.features(first.clips as vt.AudioClip[])
  const { loss } = await model.forward({ inputIds, labels, sequenceLengths, inputFeatures, featuresMask })
  expect(Number(loss!.item())).toBeCloseTo(alone, 5)
  await loss!.backward()
  for (const [i, grad] of gradients().entries()) {
    expect(grad === null).toBe(expected[i] === null)
    if (grad) expectClose(grad, expected[i] as vt.Tensor, 2e-5)
  }
  model.dispose()
})

it('reads clips as paths, bytes, samples, and from Parquet files and columns', async () => {
  const model = await open()
  const path = join(directory, 'clips/a.wav')
  const conversation = (audio: unknown) => ({ messages: [user(clip(audio), text('what?')), assistant('a tone')] })
  const samples = Array.from(toneOf(3200))
  const given = [
    ...[path, { path }, { bytes: null, path }, toneOf(3200), vt.tensor(toneOf(3200))].map(conversation),
    conversation({ array: samples, sampling_rate: 16_000 }),
    { ...conversation(undefined), audio: path },
    { ...conversation(undefined), audios: [{ array: toneOf(3200), sampling_rate: 16_000 }] },
    { messages: [{ role: 'user', content: [clip(), text('what?')] }, assistant('a tone')], audio: { path } },
  ]
  const { examples } = await read(model, given as SftRecord[])
  expect(new Set(examples.map(({ inputIds }) => String(inputIds))).size).toBe(1)
  const bad = new BadRecords('skip')
  const parquet = await examplesOf(readerOf(model), PARQUET, bad, 'records')
  expect(parquet.examples[0]!.inputIds).toEqual(examples[0]!.inputIds)
  expect(parquet.examples[0]!.clips).toEqual([expect.any(Uint8Array)])
  expect(parquet.examples).toHaveLength(2)
  expect(bad.errors.map(({ message }) => message)).toEqual([
    `${PARQUET}, row 2: messages[1]: expected an answer of the assistant, got an empty one.`,
  ])
  model.dispose()
})

it('refuses clips that are missing, too many, outside of the folder, or cannot be decoded', async () => {
  const model = await open()
  const wrong: [object, RegExp][] = [
    [{ messages: [user(clip()), assistant('a')] }, /line 1: expected 1 clips in audio or audios, .* got 0/],
    [{ ...two, audio: 'clips/a.wav' }, /line 1: expected 0 clips in audio or audios, .* got 1/],
    [{ messages: [user(text('<|AUDIO|>')), assistant('a')] }, /line 1: expected 1 clips for 1 times <\|AUDIO\|>/],
    [{ messages: [user(clip('clips/none.wav')), assistant('a')] }, /line 1: messages\[0\]\.content\[0\]: .*none\.wav/],
    [{ messages: [user(clip('clips/broken.wav')), assistant('a')] }, /line 1: .*broken\.wav/],
    [{ messages: [user(clip('clips/long.wav')), assistant('a')] }, /line 1: .*long\.wav/],
    [{ messages: [user(clip('../a.wav')), assistant('a')] }, /line 1: .*leads out of the dataset's folder/],
    [{ messages: [user(clip({ array: ['x'] })), assistant('a')] }, /line 1: .*with an integer sampling_rate/],
    [
      { messages: [user({ type: 'image', image: 'a.png' }), assistant('a')] },
      /parts of type 'text' or 'audio', got "image"/,
    ],
  ]
  const bad = join(directory, 'bad.jsonl')
  for (const [record, message] of wrong) {
    writeFileSync(bad, JSON.stringify(record))
    await expect(read(model, bad), String(message)).rejects.toThrow(message)
  }
  writeFileSync(bad, JSON.stringify(two))
  await expect(read(model, bad, { maxLength: 30, truncationMode: 'keep_end' })).rejects.toThrow(
    /line 1: expected all audio tokens within maxLength 30/,
  )
  writeFileSync(bad, [...wrong.map(([record]) => record), two].map((one) => JSON.stringify(one)).join('\n'))
  const { badRecords } = await trainSft(model, bad, options({ onBadRecord: 'skip', maxSteps: 1 }))
  expect(badRecords).toEqual({ count: 9, reasons: { clips: 8, 'invalid record': 1 } })
  model.dispose()
})

it('trains parts, and evaluates generated answers', async () => {
  const model = await open()
  vt.manualSeed(1)
  const peft = model.trainParts({ connector: 'full', decoder: 'lora' }, { r: 4, loraAlpha: 16 })!
  const more = {
    evalRecords: file,
    metrics: ['wer', 'exactMatch'],
    keyMetric: 'wer',
    maxNewTokens: 6,
    epochs: 30,
  } as const
  const { valid } = await trainSft(peft, file, options({ ...more, saveSteps: 20 }))
  expect(valid).toMatchObject({ wer: 0, exactMatch: 1 })
  const before = await settledTensors()
  await trainSft(peft, file, options({ maxSteps: 2 }))
  expect(await settledTensors()).toBe(before)
  await expect(trainSft(peft, file, options({ gguf: 'F16' }))).rejects.toThrow(/gguf: expected none for AudioLM/)
  model.dispose()
})

it('adds the noise of NEFTune to the text', async () => {
  const losses: number[] = []
  for (const neftuneNoiseAlpha of [null, null, 50]) {
    const model = await open()
    model.trainParts({ decoder: 'lora' }, { r: 2 })
    const { trainingLoss } = await trainSft(model, file, options({ neftuneNoiseAlpha, maxSteps: 1, learningRate: 0 }))
    losses.push(trainingLoss)
    model.dispose()
  }
  expect(losses[1]).toBe(losses[0])
  expect(losses[2]).not.toBe(losses[0])
})

it('refuses records without audio where only the audio trains', async () => {
  const model = await open()
  model.trainParts({ connector: 'full' })
  await expect(trainSft(model, file, options())).rejects.toThrow(
    /line 2: expected audio, since the language model is frozen, got none/,
  )
  const { badRecords, valid } = await trainSft(model, file, options({ onBadRecord: 'skip', evalRecords: file }))
  expect(badRecords).toEqual({ count: 2, reasons: { clips: 2 } })
  expect(valid?.loss).toBeGreaterThan(0)
  model.dispose()
})

it('voxtorch sft trains an AudioLM', async () => {
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const at = (name: string) => join(directory, name)
  const sft = (words: string) =>
    runCommand('voxtorch sft', sftRule, `--model ${folder} --data ${file} --no-progress ${words}`.split(' '))
  try {
    expect(
      await sft(`--eval-data ${file} --metrics wer,cer --max-steps 2 --lora-r 2 --merge --output ${at('cli')}`),
    ).toBe(0)
    const { valid, samples } = JSON.parse(log.mock.calls[0]?.[0] as string)
    expect(samples.train).toBe(4)
    expect(Object.keys(valid)).toEqual(['loss', 'wer', 'cer'])
    const base = await open()
    const peft = await vt.PeftModel.fromPretrained(base, at('cli/adapter'))
    const merged = await vt.AudioLM.fromPretrained(at('cli/model'))
    const inputs = await merged.prepare([{ role: 'user', content: [{ type: 'audio', audio: toneOf(3200) }, 'a'] }])
    const [one, other] = [await merged.forward(inputs), await peft.model.forward(inputs)]
    expectClose(one.lastHiddenState, other.lastHiddenState, 1e-4)
    expect(await sft(`--no-lora --train-encoder full --max-steps 1 --output ${at('whole')}`)).toBe(0)
    await vt.AudioLM.fromPretrained(at('whole/model'))
    await expect(sft('--train-decoder frozen --lora-r 4')).rejects.toThrow(
      /^sft: --lora-r: expected none with no part that has an adapter, got 4/,
    )
    await expect(sft('--no-lora --train-decoder lora')).rejects.toThrow(/--train-decoder: expected 'frozen' or 'full'/)
  } finally {
    log.mockRestore()
  }
})
