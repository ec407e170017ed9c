import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import {
  manualSeed,
  memoryStats,
  scope,
  setNumThreads,
  type Tokenizer,
  type TrainingArguments,
  tensor,
} from '../../../../lib/index.js'
import {
  DstDataset,
  type DstFeatures,
  type DstSplit,
  DstTracker,
  dstCollate,
  dstScores,
  dstTrainer,
  loadDstSplit,
  SpectraForDst,
  trackDst,
} from '../../../../lib/systems/spectra/index.js'
import { settledTensors } from '../../../helpers.js'
import { config, makeDialogs, makeTokenizer, SmallEncoder } from './maker.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-dst-train-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

// A network this small gains nothing from a second thread.
setNumThreads(1)

let tokenizer: Tokenizer
let split: DstSplit
let dataset: DstDataset
beforeAll(async () => {
  tokenizer = await makeTokenizer(join(folder, 'tokenizer'))
  await makeDialogs(folder, 16)
  split = await loadDstSplit(folder, 'train', { config, tokenizer })
  dataset = new DstDataset(split.features)
})

function network(seed = 1): SpectraForDst<SmallEncoder> {
  manualSeed(seed)
  const encoder = new SmallEncoder({ vocab: tokenizer.vocabSize, hidden: 32 })
  return new SpectraForDst(encoder, { config, hiddenSize: 32, dropout: 0 })
}

async function train(model: SpectraForDst, data: DstDataset, name: string, args: Partial<TrainingArguments> = {}) {
  using trainer = dstTrainer({
    ...{ model, config, tokenizer, trainDataset: data },
    args: {
      outputDir: join(folder, name),
      ...{ perDeviceTrainBatchSize: 8, gradientAccumulationSteps: 1, numTrainEpochs: 60, learningRate: 4e-3 },
      ...{ saveStrategy: 'no', reportTo: 'none', progress: false, seed: 5, ...args },
    },
  })
  await trainer.train()
}

async function score(model: SpectraForDst, data: DstDataset, truth: readonly DstFeatures[] = split.features) {
  const results = await trackDst(model, data, { config, tokenizer })
  return dstScores(
    results.map(({ state }, i) => ({ state, features: truth[i]! })),
    config,
  )
}

// That it falls with shuffled labels is in ../overfit.slow.test.ts, with the whole network.
it('learns a tiny set to joint goal accuracy 1, by speech too; falls without speech', async () => {
  expect(split.features).toHaveLength(48)
  const model = network()
  const before = await score(model, dataset)
  await train(model, dataset, 'right')
  const learned = await score(model, dataset)
  const deaf = await score(model, new DstDataset(split.features, { noAudio: true }))

  expect(before.jointGoalAccuracy).toBeLessThan(0.1)
  expect(learned.jointGoalAccuracy).toBe(1)
  expect(learned.slotAccuracy).toBe(1)
  // Only the voice says whether there is parking.
  expect(deaf.perSlot['hotel-parking']).toBeLessThan(0.9)
  expect(deaf.perSlot['hotel-area']).toBe(1)
  expect(dataset.emptyAudio.size).toBe(0)

  await model.save(join(folder, 'saved'))
  const again = await SpectraForDst.load(
    join(folder, 'saved'),
    (encoder) => new SmallEncoder(encoder as { vocab: number; hidden: number }),
  )
  expect((await score(again, dataset)).jointGoalAccuracy).toBe(1)
  expect(Object.keys(again.stateDict()).slice(0, 1)).toEqual(['model.words.weight'])
  expect(Object.keys(again.stateDict())).toContain('refer_hotel-book day.bias')

  // One dialog turn by turn, of text and files as a user has them.
  const tracker = new DstTracker({ model: again, config, tokenizer })
  const spoken = (turn: number) => split.features[turn]!.userAudio
  await tracker.next({
    user: { text: 'I want a cheap hotel in the centre please', audio: spoken(0) },
    system: { text: 'how about the acorn guest house ?' },
    informed: { 'hotel-name': 'acorn guest house' },
  })
  expect(tracker.state).toEqual({ 'hotel-pricerange': 'cheap', 'hotel-area': 'centre' })
  const second = await tracker.next({
    user: { text: 'yes that one and the parking is up to how i say it', audio: spoken(1) },
    system: { text: 'done' },
  })
  expect(second.changed.sort()).toEqual(['hotel-name', 'hotel-parking'])
  await tracker.next({
    user: { text: 'also a taxi to the hotel , it is for monday', audio: spoken(2) },
    system: { text: 'all good' },
  })
  expect(tracker.state).toEqual({
    ...{ 'hotel-pricerange': 'cheap', 'hotel-area': 'centre', 'hotel-name': 'acorn guest house' },
    ...{ 'hotel-parking': split.features[1]!.values['hotel-parking'], 'hotel-book day': 'monday' },
    'taxi-destination': 'acorn guest house',
  })
  tracker.reset()
  expect(tracker.state).toEqual({})
})

it('evaluates in training, and goes on where it was stopped to the same weights', async () => {
  const weights = (model: SpectraForDst) => model.stateDict()
  const settings = { numTrainEpochs: 2, saveStrategy: 'steps', saveSteps: 3, maxSteps: 8 } as const
  const whole = network()
  await train(whole, dataset, 'whole', settings)

  const parts = network()
  using first = dstTrainer({
    ...{ model: parts, config, tokenizer, trainDataset: dataset, evalDataset: { dataset, features: split.features } },
    callbacks: [{ onStepEnd: ({ state, control }) => void (state.globalStep === 4 && (control.shouldStop = true)) }],
    args: {
      ...{
        outputDir: join(folder, 'parts'),
        perDeviceTrainBatchSize: 8,
        gradientAccumulationSteps: 1,
        learningRate: 4e-3,
      },
      ...{ reportTo: 'none', progress: false, seed: 5, ...settings },
    },
  })
  await first.train()
  const metrics = await first.evaluate()
  expect(metrics.evalJointGoalAccuracy).toBe((await score(parts, dataset)).jointGoalAccuracy)
  expect(metrics.evalSlotAccuracy).toBeGreaterThan(0)
  const resumed = network(9)
  await train(resumed, dataset, 'parts', settings)
  const [a, b] = [weights(whole), weights(resumed)]
  for (const [name, value] of Object.entries(a)) expect(value.equal(b[name]!), name).toBe(true)
})

it('batches: layout, padding and what is no speech', async () => {
  const samples = await Promise.all([dataset.get(0), dataset.get(1)])
  scope(() => {
    const batch = dstCollate({ padId: 1 })([samples[0]!, { ...samples[1]!, userSamples: new Float32Array(0) }])
    const [short, long] = [split.features[0]!.inputIds.length, split.features[1]!.inputIds.length].sort((a, b) => a - b)
    expect(batch.inputIds.shape).toEqual([2, long])
    expect(batch.attentionMask.dtype).toBe('bool')
    expect(batch.attentionMask.sum([1]).toArray()).toEqual([
      split.features[0]!.inputIds.length,
      split.features[1]!.inputIds.length,
    ])
    expect(long).toBeGreaterThan(short!)
    expect(batch.inputValues.shape).toEqual([4, 1600])
    expect(batch.audioLengths.toArray()).toEqual([1600, 0, 0, 0])
    expect(batch.audiosPerText).toBe(2)
    const clip = batch.inputValues.select(0, 0)
    expect(Math.abs(clip.mean().item() as number)).toBeLessThan(1e-5)
    expect(clip.square().mean().item()).toBeCloseTo(1, 4)
    expect(dstCollate({ textLength: 512 })(samples).inputIds.shape).toEqual([2, 512])
  })
})

it('batches of tensors are those of arrays, and leave nothing else', async () => {
  const samples = await Promise.all([dataset.get(0), dataset.get(1)])
  await scope(async () => {
    const collate = dstCollate({ padId: 1 })
    const clip = tensor(samples[0]!.userSamples)
    const { audiosPerText: _, ...wanted } = collate([
      { ...samples[0]!, systemSamples: new Float32Array(0) },
      samples[1]!,
    ])
    const before = memoryStats().liveTensors
    const { audiosPerText, ...batch } = collate([
      { features: samples[0]!.features, userSamples: clip, systemSamples: null },
      samples[1]!,
    ])
    expect(memoryStats().liveTensors - before).toBe(Object.keys(batch).length)
    for (const [name, value] of Object.entries(wanted)) {
      expect(value.equal(batch[name as keyof typeof batch]), name).toBe(true)
    }
    expect(audiosPerText).toBe(2)
    expect(() => collate([{ ...samples[0]!, userSamples: clip.unsqueeze(0) }])).toThrow(
      /samples\[0\]\.userSamples to be/,
    )
  })
})

it('a turn whose times miss its recording has no speech, and is counted', async () => {
  const outside = { ...split.features[0]!, userAudio: { ...split.features[0]!.userAudio!, start: 100, end: 101 } }
  const odd = new DstDataset([outside])
  expect((await odd.get(0)).userSamples).toHaveLength(0)
  expect([...odd.emptyAudio]).toEqual(['d0-0-user'])
})

it('tracking leaves no tensors', async () => {
  const model = network()
  await scope(async () => {
    await trackDst(model, dataset, { config, tokenizer })
    const before = await settledTensors()
    await trackDst(model, dataset, { config, tokenizer, batchSize: 5 })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
