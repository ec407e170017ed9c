import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  AdamW,
  AdamW8bit,
  autocast,
  clipGradNorm,
  DecoderLM,
  type DecoderLMConfig,
  GradScaler,
  getPeftModel,
  Linear,
  manualSeed,
  Parameter,
  randn,
  SGD,
  scope,
  type Tensor,
  Trainer,
  tensor,
} from '../../../lib/index.js'
import { salmonnLoss, salmonnOptimizer } from '../../../lib/systems/salmonn/index.js'
import { SpectraForSequenceClassification, spectraCollate } from '../../../lib/systems/spectra/index.js'
import { onDevice } from '../../../lib/train/trainer/loss.js'
import { clip, tinySalmonn } from '../../systems/salmonn/network/tiny.js'
import { smallSpectra } from '../../systems/spectra/network.js'
import { type Counts, counted } from './counts.js'

const CONFIG: DecoderLMConfig = {
  ...{ modelType: 'llama', vocabSize: 97, hiddenSize: 64, intermediateSize: 96 },
  ...{ numHiddenLayers: 2, numAttentionHeads: 4 },
}
const ids = () =>
  tensor(
    [
      [3, 14, 15, 92, 65],
      [35, 89, 79, 32, 38],
    ],
    { dtype: 'int64' },
  )

interface Setting {
  dtype?: 'float32' | 'bfloat16'
  lower?: 'bfloat16' | 'float16'
  scaler?: boolean
  lora?: boolean
  eightBit?: boolean
  layers?: number
}

/** What a step of training costs, after the first: forward, backward, clipping, the optimiser. */
function step({ dtype = 'float32', lower, scaler, lora, eightBit, layers = 2 }: Setting): Promise<Counts> {
  return scope(async () => {
    const model = DecoderLM.fromConfig({ ...CONFIG, numHiddenLayers: layers }, { dtype, seed: 1 }).train()
    if (lora) getPeftModel(model, { r: 4, targetModules: ['q_proj', 'v_proj', 'gate_proj'] })
    const params = model.parameters().filter(({ requiresGrad }) => requiresGrad)
    const optimizer = eightBit ? new AdamW8bit(params, { lr: 1e-3, min8bitSize: 16 }) : new AdamW(params, { lr: 1e-3 })
    const scaling = new GradScaler({ enabled: scaler === true })
    const inputIds = ids()
    const forward = async () => (await model.forward({ inputIds, labels: inputIds })).loss as Tensor
    const train = () =>
      scope(async () => {
        const loss = lower ? await autocast({ device: 'cuda', dtype: lower }, forward) : await forward()
        await scaling.scale(loss).backward()
        await scaling.unscale(optimizer)
        await clipGradNorm(params, 1)
        await scaling.step(optimizer)
        if (scaler) scaling.update()
        optimizer.zeroGrad()
      })
    await train()
    return counted(train)
  })
}

describe('a step of training', () => {
  const settings: [string, Setting][] = [
    ['float32', {}],
    ['bfloat16 autocast', { lower: 'bfloat16' }],
    ['float16 autocast, GradScaler and clipping', { lower: 'float16', scaler: true }],
    ['LoRA in bfloat16', { dtype: 'bfloat16', lora: true }],
    ['AdamW with 8-bit moments', { eightBit: true }],
  ]
  it.each(settings)('waits for the device twice at most, and never the event loop: %s', async (_, setting) => {
    const { waits, waitsBy, mainThreadWaitsBy } = await step(setting)
    expect(waits, JSON.stringify(waitsBy)).toBeLessThanOrEqual(2)
    expect(mainThreadWaitsBy).toEqual({})
  })

  it('waits no more with more layers, and its optimiser launches no more than their gradients need', async () => {
    const [two, six] = [await step({ eightBit: true }), await step({ eightBit: true, layers: 6 })]
    expect(six.waits).toBe(two.waits)
    // 21 and 57 parameters: 56 fit a launch.
    const own = ({ launchesBy }: Counts) => launchesBy['adamw_8bit::adamw_kernel']
    expect([own(two), own(six)]).toEqual([1, 2])
  })
})

/** The third step: forward, backward, and what `after` does with the gradients. */
async function third(loss: () => Promise<Tensor>, after: () => Promise<unknown>): Promise<Counts> {
  const train = () =>
    scope(async () => {
      await (await loss()).backward()
      await after()
    })
  await train()
  await train()
  return counted(train)
}

describe('a step of training a system', () => {
  // The loss, which must be a number, and the norm of the gradients.
  it('waits for the device twice at most, and never the event loop: SALMONN', async () => {
    const model = (await tinySalmonn(2)).train()
    const optimizer = salmonnOptimizer(model)
    const texts = ['ab<SpeechHere>c', '<SpeechHere>d<SpeechHere>', 'e<SpeechHere>f']
    const clips = [[clip(1, 0.9)], [clip(2, 0.5), clip(3, 2.7)], [clip(4, 0.9)]]
    const prompts = texts.map((text, i) => ({ text, clips: clips[i] as Float32Array[] }))
    const { waits, waitsBy, mainThreadWaitsBy, bytesToDevice, bytesToDeviceUnwaited } = await third(
      async () => (await salmonnLoss(model, { prompts, targets: ['ab', 'c', 'def'] })).loss,
      async () => {
        await optimizer.step()
        optimizer.zeroGrad()
      },
    )
    expect(waits, JSON.stringify(waitsBy)).toBeLessThanOrEqual(2)
    expect(mainThreadWaitsBy).toEqual({})
    expect(bytesToDeviceUnwaited).toBe(bytesToDevice)
  })

  // Lengths and masks, and the norm of the gradients.
  it('waits for the device twice at most, and never the event loop: SPECTRA', async () => {
    const model = SpectraForSequenceClassification.fromConfig(
      { ...smallSpectra(50), numLabels: 3 },
      { seed: 1 },
    ).train()
    const params = model.parameters().filter(({ requiresGrad }) => requiresGrad)
    const optimizer = new AdamW(params, { lr: 1e-3 })
    const wave = (seed: number, seconds: number) => tensor(clip(seed, seconds), { device: 'cpu' })
    const collate = spectraCollate({ kind: 'classification' })
    const samples = [3, 7].map((length, i) => ({
      inputIds: Array.from({ length }, (_, j) => 2 + j),
      turnIds: Array.from({ length }, (_, j) => (j > 1 ? 1 : 0)),
      ...{ audio: wave(i, 0.3 + i / 5), historyAudio: wave(9 + i, 0.4), label: i, source: `${i}` },
    }))
    const { waits, waitsBy, mainThreadWaitsBy } = await third(
      async () => (await model.forward(await onDevice(await collate(samples), 'cuda:0'))).loss as Tensor,
      async () => {
        await clipGradNorm(params, 1)
        await optimizer.step()
        optimizer.zeroGrad()
      },
    )
    expect(waits, JSON.stringify(waitsBy)).toBeLessThanOrEqual(2)
    expect(mainThreadWaitsBy).toEqual({})
  })
})

describe('AdamW with 8-bit moments', () => {
  it.each(['float32', 'bfloat16', 'float16'] as const)('has the bits that it has on the CPU: %s', async (dtype) => {
    const shapes = [[70, 90], [5000], [300, 3], [17], [1], [64, 64]]
    const run = async (device: 'cpu' | 'cuda') => {
      manualSeed(7)
      const drawn = () => randn([70 * 90], { device: 'cpu' })
      const make = (shape: number[]) => drawn().slice(0, 0, shape.reduce((a, b) => a * b)).reshape(shape) // biome-ignore format: one line
      const params = shapes.map((shape) => new Parameter(make(shape).to({ device, dtype })))
      const optimizer = new AdamW8bit(params, { lr: 0.03, weightDecay: 0.1, min8bitSize: 256 })
      for (let i = 0; i < 4; ++i) {
        for (const [j, param] of params.entries()) param.grad = make(shapes[j] as number[]).to({ device, dtype })
        await optimizer.step()
      }
      const { state } = optimizer.stateDict() as { state: Record<string, Record<string, unknown>> }
      const values = Object.values(state).flatMap((one) => ['state1', 'state2', 'absmax1', 'absmax2'].map((name) => one[name] as Tensor | undefined)) // biome-ignore format: one line
      return [...params, ...values].map((one) => (one ? one.detach().to('cpu').double().toArray() : null))
    }
    expect(await run('cuda')).toEqual(await run('cpu'))
  })
})

describe('a GradScaler', () => {
  it('leaves out the step that clipping has found to be infinite', async () => {
    const weight = new Parameter(tensor([1, 2], { dtype: 'float32' }))
    const optimizer = new SGD([weight], { lr: 1 })
    const scaler = new GradScaler({ initScale: 4 })
    await scaler.scale(weight.mul(Number.POSITIVE_INFINITY).sum()).backward()
    await scaler.unscale(optimizer)
    await clipGradNorm([weight], 1)
    expect(await scaler.step(optimizer)).toBe(false)
    scaler.update()
    expect(scaler.getScale()).toBe(2)
    expect(weight.toArray()).toEqual([1, 2])
  })

  it.each([false, true])('knows without a step what was found, read with a norm: %s', async (clipped) => {
    const weight = new Parameter(tensor([1, 2], { dtype: 'float32' }))
    const optimizer = new SGD([weight], { lr: 1 })
    const scaler = new GradScaler({ initScale: 4 })
    await scaler.scale(weight.mul(Number.POSITIVE_INFINITY).sum()).backward()
    await scaler.unscale(optimizer)
    if (clipped) await clipGradNorm([weight], 1)
    scaler.update()
    expect(scaler.getScale()).toBe(2)
  })
})

/** Copies in order, and when they were made. */
describe('the Trainer', () => {
  it('sends a batch of one tensor', async () => {
    for (const batch of [{ x: [[1, 2]] }, { x: [[1, 2]], y: [[3, 4]] }]) {
      await scope(async () => {
        const there = Object.entries(batch).map(([name, values]) => [name, tensor(values, { device: 'cpu' })] as const)
        const sent = await onDevice(Object.fromEntries(there), 'cuda:0')
        for (const [name, values] of Object.entries(batch)) {
          expect(sent[name]?.device).toBe('cuda:0')
          expect(sent[name]?.to('cpu').toArray()).toEqual(values)
        }
      })
    }
  })

  it('sends batches beside what the device computes, through pinned memory, and waits for none', async () => {
    const samples = Array.from({ length: 24 }, (_, i) => ({ x: [i, 1, 2, 3], y: [i % 3] }))
    const network = new Linear(4, 1)
    const trained: number[] = []
    const run = (device: 'cpu' | 'cuda', steps: number) =>
      counted(() =>
        scope(async () => {
          const folder = mkdtempSync(join(tmpdir(), 'voxtorch-ahead-'))
          const trainer = new Trainer({
            model: network,
            args: { outputDir: folder, perDeviceTrainBatchSize: 2, maxSteps: steps, saveStrategy: 'no', loggingStrategy: 'no', reportTo: [] }, // biome-ignore format: one line
            trainDataset: samples,
            collate: (rows) => ({
              x: tensor(rows.map(({ x }) => x), { dtype: 'float32', device: 'cpu' }), // biome-ignore format: one line
              y: tensor(rows.map(({ y }) => y), { dtype: 'float32', device: 'cpu' }), // biome-ignore format: one line
            }),
            computeLoss: (model, { x, y }) => {
              expect([x.device, y.device]).toEqual([`${device}:0`, `${device}:0`])
              // What has not arrived is NaN.
              trained.push(x.sum().item() as number)
              return (model as Linear).forward(x).sub(y).square().mean()
            },
          })
          await trainer.train()
          rmSync(folder, { recursive: true })
        }),
      )
    const [few, many] = [await run('cuda', 4), await run('cuda', 10)]
    expect(trained.every(Number.isFinite)).toBe(true)
    // Two tensors of 2 * 4 and 2 * 1 numbers for each of six steps, and at most one batch that was sent and not used.
    expect(many.bytesToDeviceUnwaited - few.bytesToDeviceUnwaited).toBeGreaterThanOrEqual(6 * 40)
    expect(many.waitsBy['copy to the device'] ?? 0).toBe(few.waitsBy['copy to the device'] ?? 0)
    // The copies have a stream of their own.
    expect(Object.keys(many.streamsBy).filter((stream) => stream.startsWith('0:'))).toHaveLength(2)
    // The norm, and what the test itself asks for.
    expect((many.waits - few.waits) / 6).toBe(2)
  })
})
