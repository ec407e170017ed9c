import { cpSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import { here } from '../../helpers.js'
import { collate, newModel, newTrainer, type Options, temporary, trainSamples, weights } from './small.js'

const folder = temporary()
const first = folder('first')
const args = { outputDir: first, saveSteps: 3, loggingSteps: 2, reportTo: ['jsonl'] } as const
/** Something random that belongs to the run. */
const noisy = (): Partial<Options> & { generators: { noise: vt.Random; native: vt.Generator } } => {
  const generators = { noise: new vt.Random(4), native: new vt.Generator({ seed: 5, device: here() }) }
  return {
    generators,
    collate(samples) {
      const { x, labels } = collate(samples)
      const noise = vt.randn(x.shape, { generator: generators.native })
      return { x: x.add(noise, { alpha: 0.01 * generators.noise.float() }), labels }
    },
  }
}
async function train(outputDir: string, more: Partial<vt.TrainingArguments> = {}, options: Partial<Options> = noisy()) {
  const trainer = newTrainer({ ...args, outputDir, ...more }, options)
  await trainer.train()
  trainer.dispose()
  return trainer
}
/** A copy of the first run as it stood after a step. */
function until(step: number, name: string): string {
  const path = folder(name)
  cpSync(first, path, { recursive: true, filter: (file) => Number(/checkpoint-(\d+)/.exec(file)?.[1] ?? 0) <= step })
  return path
}

const warnings: string[] = []
const listen = (warning: Error) => void warnings.push(warning.message)
beforeEach(() => {
  warnings.length = 0
  process.on('warning', listen)
})
afterEach(() => void process.off('warning', listen))
const warned = () => new Promise((resolve) => setImmediate(resolve)).then(() => warnings)

let whole: Awaited<ReturnType<typeof train>>
beforeAll(async () => {
  whole = await train(first)
})

describe('resume', () => {
  it.each([3, 6, 8])('from step %d ends with the same weights and log', async (step) => {
    const path = until(step, `from${step}`)
    // What was in memory before must not matter.
    vt.randn([5]).dispose()
    const trainer = await train(path, {}, { ...noisy(), model: newModel(0.1) })
    expect(weights(trainer.model)).toEqual(weights(whole.model))
    expect(trainer.state.logHistory).toEqual(whole.state.logHistory)
    const lines = (path: string) =>
      readFileSync(join(path, 'metrics.jsonl'), 'utf8')
        .split('\n')
        .map((line) => line.split(',"speed"')[0])
    expect(lines(path)).toEqual(lines(first))
    expect(await warned()).toEqual([])
  })

  it('begins afresh where there is no checkpoint, and drops what was logged', async () => {
    const trainer = await train(until(0, 'none'))
    expect(weights(trainer.model)).toEqual(weights(whole.model))
    expect(
      readFileSync(join(folder('none'), 'metrics.jsonl'), 'utf8')
        .trimEnd()
        .split('\n').length,
    ).toBe(4)
  })

  it('takes a checkpoint that is named, and goes further than before', async () => {
    const elsewhere = await train(folder('elsewhere'), { resumeFromCheckpoint: join(first, 'checkpoint-6') })
    expect(weights(elsewhere.model)).toEqual(weights(whole.model))
    const longer = await train(until(8, 'longer'), { numTrainEpochs: 3, lrSchedulerType: 'constant' })
    expect(longer.state.globalStep).toBe(12)
    expect((await warned()).join()).toMatch(
      /expected the arguments of the first run, got other ones: numTrainEpochs \(2, now 3\), lrSchedulerType/,
    )
  })

  it('removes what a killed process left', async () => {
    const path = until(6, 'leftover')
    mkdirSync(join(path, '.voxtorch-checkpoint-abc123'))
    writeFileSync(join(path, '.voxtorch-checkpoint-abc123/model.safetensors'), 'half')
    await train(path)
    expect(readdirSync(path).filter((name) => name.startsWith('.'))).toEqual([])
  })

  it('warns of other data and of another number of threads', async () => {
    await train(until(3, 'data'), {}, { ...noisy(), trainDataset: trainSamples.slice(0, 24) })
    expect((await warned()).join()).toMatch(/4 batches in an epoch, got 3/)
    warnings.length = 0
    const threads = vt.getNumThreads()
    vt.setNumThreads(threads + 1)
    await train(until(3, 'threads'))
    vt.setNumThreads(threads)
    expect((await warned()).join()).toMatch(/so sums may be rounded differently: call setNumThreads/)
  })

  it('refuses what does not fit, and says which file', async () => {
    const refused = async (path: string, error: RegExp, more = {}, options?: Partial<Options>) => {
      const failed = train(path, more, options)
      await expect(failed).rejects.toThrow(vt.CheckpointError)
      await expect(failed).rejects.toThrow(error)
    }
    await refused(until(3, 'false'), /expected a folder without checkpoints/, { resumeFromCheckpoint: false })
    await refused(first, /expected the folder of a checkpoint, got nowhere/, { resumeFromCheckpoint: 'nowhere' })
    const cut = until(3, 'cut')
    truncateSync(join(cut, 'checkpoint-3/model.safetensors'), 300)
    await refused(cut, /checkpoint-3\/model\.safetensors/)
    const other = until(3, 'other')
    await refused(
      other,
      /checkpoint-3\/model\.safetensors: .*hidden\.weight/,
      {},
      { model: new vt.Linear(6, 2) as never },
    )
    await refused(
      other,
      /expected the state of average/,
      {},
      {
        ...noisy(),
        extraState: { average: { stateDict: () => ({}), loadStateDict: () => {} } },
      },
    )
    await refused(other, /expected the state of the generator third/, {}, { generators: { third: new vt.Random(1) } })
    writeFileSync(join(other, 'checkpoint-3/trainer_state.json'), '{"globalStep": "3"}')
    await refused(other, /trainer_state\.json: expected a valid globalStep, got "3"/)
    const training = until(3, 'version')
    const file = join(training, 'checkpoint-3/training.json')
    writeFileSync(file, readFileSync(file, 'utf8').replace('"version": 1', '"version": 2'))
    await refused(training, /expected format 1, got 2/)
  })
})

describe('a damaged checkpoint', () => {
  const spoil = (name: string) => {
    const path = until(8, name)
    truncateSync(join(path, 'checkpoint-8/model.safetensors'), 300)
    return path
  }

  it('is refused, with the way to go on', async () => {
    const path = spoil('way-out')
    const error = await train(path).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(vt.CheckpointError)
    const before = join(path, 'checkpoint-6')
    expect(error).toMatchObject({ file: join(path, 'checkpoint-8/model.safetensors'), previous: before })
    const text = `to resume from ${before}, the checkpoint before it, set skipDamagedCheckpoints: true, or resumeFromCheckpoint: '${before}' with another outputDir`
    expect((error as Error).message).toContain(text)
    // What the message offers.
    const elsewhere = await train(folder('way-out-elsewhere'), { resumeFromCheckpoint: before })
    expect(weights(elsewhere.model)).toEqual(weights(whole.model))
  })

  it('is passed over when asked, and ends with the same weights', async () => {
    const path = spoil('passed-over')
    writeFileSync(join(path, 'checkpoint-6/training.json'), '{"version": 1')
    const trainer = await train(path, { skipDamagedCheckpoints: true })
    expect(weights(trainer.model)).toEqual(weights(whole.model))
    const said = (await warned()).join()
    expect(said).toMatch(/checkpoint-8\/model\.safetensors.*training goes on from .*checkpoint-6/)
    expect(said).toMatch(/checkpoint-6\/training\.json.*training goes on from .*checkpoint-3/)
    const names = readdirSync(path).filter((name) => name.startsWith('checkpoint'))
    expect(names.map((name) => name.replace(/\d{5,}$/, 'N')).sort()).toEqual([
      'checkpoint-3',
      'checkpoint-6',
      'checkpoint-6.damaged-N',
      'checkpoint-8',
      'checkpoint-8.damaged-N',
    ])
  })

  it('is an error where none before it is whole, and where it does not fit the model', async () => {
    const path = until(3, 'none-left')
    truncateSync(join(path, 'checkpoint-3/model.safetensors'), 300)
    await expect(train(path, { skipDamagedCheckpoints: true })).rejects.toThrow(/checkpoint-3\/model\.safetensors/)
    const other = until(8, 'misfit')
    const misfit = train(other, { skipDamagedCheckpoints: true }, { model: new vt.Linear(6, 2) as never })
    await expect(misfit).rejects.toThrow(/checkpoint-8\/model\.safetensors: .*hidden\.weight/)
    expect(await warned()).toEqual([])
  })

  it.each([
    ['trainer_state.json', 'globalStep', -5],
    ['trainer_state.json', 'globalStep', 1e308],
    ['trainer_state.json', 'globalStep', 2.5],
    ['trainer_state.json', 'epochIndex', null],
    ['trainer_state.json', 'batchInEpoch', '1'],
    ['trainer_state.json', 'samplesSeen', -1],
    ['trainer_state.json', 'epoch', -0.5],
    ['trainer_state.json', 'bestCheckpoint', '../..'],
    ['trainer_state.json', 'bestCheckpoint', 'checkpoint-6/../../..'],
    ['trainer_state.json', 'bestCheckpoint', 6],
    ['trainer_state.json', 'stopped', 0],
    ['trainer_state.json', 'logHistory', {}],
    ['trainer_state.json', 'logHistory', [null]],
    ['trainer_state.json', 'logHistory', [{ step: 1, epoch: 0, loss: 'x' }]],
    ['training.json', 'rng', null],
    ['training.json', 'rng', 7],
    ['training.json', 'otherRngs', {}],
    ['training.json', 'extra', []],
    ['training.json', 'scheduler', null],
  ])('%s with another %s (%j) is refused by its field', async (file, field, value) => {
    const path = until(3, `field-${field}-${String(JSON.stringify(value)).replace(/\W+/g, '_')}`)
    const place = join(path, 'checkpoint-3', file)
    writeFileSync(place, JSON.stringify({ ...JSON.parse(readFileSync(place, 'utf8')), [field]: value }))
    const error = await train(path).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(vt.CheckpointError)
    expect(error).toMatchObject({ file: place, field, message: expect.stringContaining(field) })
  })

  it.each([
    ['cpu', { $bytes: '' }],
    ['own', null],
    ['own', { noise: [1, 2, 3], native: [1] }],
  ])('random numbers whose %s is %j are refused', async (field, value) => {
    const path = until(3, `rng-${field}-${String(JSON.stringify(value)).length}`)
    const place = join(path, 'checkpoint-3/training.json')
    const saved = JSON.parse(readFileSync(place, 'utf8'))
    writeFileSync(place, JSON.stringify({ ...saved, rng: { ...saved.rng, [field]: value } }))
    await expect(train(path)).rejects.toThrow(vt.CheckpointError)
    await expect(train(path)).rejects.toThrow(/training\.json/)
  })
})

describe('what a resume is made of', () => {
  it('a DataLoader begins at any batch, without reading those before', async () => {
    const read: number[] = []
    const dataset = { length: 20, get: (index: number) => read.push(index) && index }
    const loader = new vt.DataLoader(dataset, { batchSize: 3, shuffle: true, seed: 1 })
    const epoch = async () => {
      const batches: number[][] = []
      for await (const batch of loader) batches.push(batch)
      return batches
    }
    await epoch()
    const second = await epoch()
    read.length = 0
    loader.setEpoch(1, 5)
    expect(await epoch()).toEqual(second.slice(5))
    expect(read).toEqual(second.slice(5).flat())
    expect((await epoch()).length).toBe(7)
    loader.setEpoch(1, 7)
    expect(await epoch()).toEqual([])
    loader.setEpoch(1, 70)
    expect(await epoch()).toEqual([])
    expect(() => loader.setEpoch(1, -1)).toThrow(vt.ConfigError)
  })

  it('Random goes on from its state', () => {
    const random = new vt.Random(3)
    random.uint32()
    const state = JSON.parse(JSON.stringify(random.getState()))
    const next = [random.uint32(), random.uint32()]
    const other = new vt.Random(8).setState(state)
    expect([other.uint32(), other.uint32()]).toEqual(next)
    for (const bad of [[], [1, 2, 3], [0, 0, 0, 0], [1, 2, 3, -4], [1, 2, 3, 2 ** 32], [1, 2, 3, 0.5], 'abcd', null]) {
      expect(() => random.setState(bad as number[])).toThrow(vt.ConfigError)
    }
  })

  it('default generators are reached by device', () => {
    const state = vt.getRngState('cpu')
    const a = vt.randn([3], { device: 'cpu' }).toArray()
    vt.setRngState(state, 'cpu')
    expect(vt.randn([3], { device: 'cpu' }).toArray()).toEqual(a)
    for (const device of ['gpu', 'meta', 'cpu:0', 3, null] as never[]) {
      expect(() => vt.getRngState(device)).toThrow(vt.ConfigError)
      expect(() => vt.setRngState(state, device)).toThrow(vt.ConfigError)
    }
    if (vt.cuda.isAvailable()) {
      const state = vt.getRngState('cuda:0')
      const b = vt.randn([3], { device: 'cuda' }).toArray()
      vt.setRngState(state, 'cuda:0')
      expect(vt.randn([3], { device: 'cuda' }).toArray()).toEqual(b)
    } else expect(() => vt.getRngState('cuda:0')).toThrow(vt.DeviceError)
  })
})
