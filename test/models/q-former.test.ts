import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  cat,
  manualSeed,
  memoryStats,
  QFormer,
  type QFormerConfig,
  randn,
  ShapeError,
  scope,
  type Tensor,
} from '../../lib/index.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  lengths: number[] | null
  published: boolean
}
const file = await fixture<Case>('models/q-former')
const tiny: QFormerConfig = { ...camelKeys(file.cases[0]?.config ?? {}) }
const last = async (model: QFormer, inputs: Parameters<QFormer['forward']>[0]) =>
  (await model.forward(inputs)).lastHiddenState

describe('against transformers, over windows that unfold cut', () => {
  it.each(file.cases)('$name', async ({ name, config, lengths, published }) => {
    const model = new QFormer(camelKeys(config) as QFormerConfig)
    loadParameters(model, file, name)
    const frames = (tensorsOf(file, name, 'in').frames as Tensor).clone()
    frames.requiresGrad = true
    const inputs = {
      encoderHiddenStates: frames,
      ...(lengths && { lengths }),
      ...(published && { compat: 'published' as const }),
    }
    const { lastHiddenState, lengths: tokens } = await model.forward(inputs)
    const wanted = tensorsOf(file, name, 'out').last as Tensor
    expectClose(lastHiddenState, wanted, 1e-5, 'output')
    expect(Math.max(...tokens)).toBe(wanted.size(1))
    tokens.forEach((count, row) => {
      const rest = lastHiddenState.select(0, row).narrow(0, count, wanted.size(1) - count)
      expect(rest.abs().sum().item()).toBe(0)
    })
    const back = (output: Tensor) =>
      output
        .mul(tensorsOf(file, name, 'cotangent').last as Tensor)
        .sum()
        .backward()
    await back(lastHiddenState)
    await expectGradients(model, file, name, {
      again: async (as) => back(await last(model, { ...inputs, encoderHiddenStates: as(frames) })),
    })
    expectClose(frames.grad as Tensor, tensorsOf(file, name, 'grad').frames as Tensor, 1e-5, 'gradient of the frames')
  })
})

describe('windows', () => {
  const salmonn = { ...tiny, window: 17, stride: 17 }

  it('of 30 seconds are 88 as published, and a short clip costs its own', async () => {
    const model = new QFormer(salmonn).eval()
    const frames = randn([2, 1500, 10])
    const published = await model.forward({ encoderHiddenStates: frames, lengths: [1500, 100], compat: 'published' })
    expect(published.lengths).toEqual([88, 88])
    expect(published.lastHiddenState.shape).toEqual([2, 88, 12])
    const exact = await model.forward({ encoderHiddenStates: frames, lengths: [1500, 100] })
    expect(exact.lengths).toEqual([89, 6])
    expect(model.windowCounts([1, 17, 18, 34, 1496])).toEqual([1, 1, 2, 2, 88])
    // Whole windows are the same in both.
    expectClose(exact.lastHiddenState.narrow(1, 0, 5), published.lastHiddenState.narrow(1, 0, 5))
  })

  it('do not see padding', async () => {
    const model = new QFormer({ ...tiny, window: 7, stride: 3, queryLength: 2 }).eval()
    const frames = randn([2, 20, 10])
    const longer = cat([frames, randn([2, 13, 10]).mul(50)], 1)
    const lengths = [20, 8]
    const [short, long] = [
      await model.forward({ encoderHiddenStates: frames, lengths }),
      await model.forward({ encoderHiddenStates: longer, lengths }),
    ]
    expect(long.lengths).toEqual(short.lengths)
    expectClose(long.lastHiddenState, short.lastHiddenState)
    const alone = await model.forward({ encoderHiddenStates: frames.narrow(0, 1, 1).narrow(1, 0, 8) })
    expectClose(long.lastHiddenState.narrow(0, 1, 1).narrow(1, 0, alone.lengths[0] as number), alone.lastHiddenState)
  })

  it('read with queries that are given', async () => {
    const model = new QFormer(tiny).eval()
    const encoderHiddenStates = randn([2, 12, 10])
    const queryEmbeds = randn([2, 3, 12])
    const both = await model.forward({ encoderHiddenStates, queryEmbeds })
    expect([both.lastHiddenState.shape, both.lengths]).toEqual([
      [2, 9, 12],
      [9, 9],
    ])
    const second = await last(model, {
      encoderHiddenStates: encoderHiddenStates.narrow(0, 1, 1),
      queryEmbeds: queryEmbeds.narrow(0, 1, 1),
    })
    expectClose(both.lastHiddenState.narrow(0, 1, 1), second)
  })
})

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-q-former-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it('reads a SALMONN checkpoint, and what it saves', async () => {
    const answers = await fixture<Case>('models/q-former-checkpoint')
    const encoderHiddenStates = tensorsOf(answers, 'checkpoint', 'in').frames as Tensor
    const wanted = tensorsOf(answers, 'checkpoint', 'out').last as Tensor
    const config = { window: 5, stride: 5, numAttentionHeads: 3 }
    const model = await QFormer.fromPretrained(fixturePath('models/salmonn-tiny.pth'), { config })
    expect(model.config).toMatchObject({ hiddenSize: 12, encoderWidth: 10, numHiddenLayers: 2, queryLength: 2 })
    expectClose(await last(model, { encoderHiddenStates, compat: 'published' }), wanted)
    await model.save(join(directory, 'saved'))
    const again = await QFormer.fromPretrained(join(directory, 'saved'))
    expectClose(await last(again, { encoderHiddenStates, compat: 'published' }), wanted)
    const wrong = QFormer.fromPretrained(fixturePath('models/salmonn-tiny.pth'), { config: { intermediateSize: 7 } })
    await expect(wrong).rejects.toThrow(/mis-shaped/)
    const other = QFormer.fromPretrained(fixturePath('models/beats-zip.pt'))
    await expect(other).rejects.toThrow(CheckpointError)
    await expect(other).rejects.toThrow(/expected a tensor of \d dimensions of SALMONN's Q-Former/)
  })
})

describe('the module', () => {
  it('has the published names and sizes', () => {
    const model = QFormer.fromConfig('salmonn', { device: 'meta' })
    const sizeOf = (tensors: Tensor[]) => tensors.reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    expect(sizeOf(model.get('Qformer').parameters())).toBe(22_837_248)
    expect(sizeOf(model.parameters())).toBe(22_837_248 + 768)
    expect(model.get('Qformer').parameters().length).toBe(54)
    const names = model.namedParameters().map(([name]) => name)
    expect(names).toContain('Qformer.bert.encoder.layer.1.crossattention.self.key.weight')
    expect(names).toContain('Qformer.bert.encoder.layer.0.intermediate_query.dense.weight')
    expect(names).toContain('Qformer.bert.embeddings.LayerNorm.bias')
    expect(() => QFormer.fromConfig('huge')).toThrow(ConfigError)
    expect(() => QFormer.fromConfig({ hiddenSize: 10, numAttentionHeads: 3 })).toThrow(ConfigError)
    expect(() => QFormer.fromConfig({ window: 5, stride: 0 })).toThrow(ConfigError)
  })

  it('drops out in training only, by the seed', async () => {
    const drops = { ...tiny, hiddenDropoutProb: 0, attentionProbsDropoutProb: 0.5 }
    const model = new QFormer(drops)
    const encoderHiddenStates = randn([2, 15, 10])
    const run = () => {
      manualSeed(4)
      return last(model, { encoderHiddenStates })
    }
    const first = await run()
    expect((await run()).equal(first)).toBe(true)
    expect((await last(model, { encoderHiddenStates })).equal(first)).toBe(false)
    model.eval()
    const still = await run()
    expect((await last(model, { encoderHiddenStates })).equal(still)).toBe(true)
    expect(still.equal(first)).toBe(false)
    const hidden = new QFormer({ ...tiny, hiddenDropoutProb: 0.5 })
    expect((await last(hidden, { encoderHiddenStates })).equal(await last(hidden, { encoderHiddenStates }))).toBe(false)
  })

  it('leaves nothing behind', async () => {
    const before = await settledTensors()
    const model = await QFormer.fromPretrained(fixturePath('models/salmonn-tiny.pth'), {
      config: { numAttentionHeads: 3, window: 5, stride: 5 },
    })
    await scope(async () => {
      await model.forward({ encoderHiddenStates: randn([2, 15, 10]), lengths: [15, 3] })
    })
    model.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses what does not fit', async () => {
    const model = new QFormer(tiny)
    const encoderHiddenStates = randn([2, 15, 10])
    const refused = (inputs: object) => expect(model.forward({ encoderHiddenStates, ...inputs } as never)).rejects
    await refused({ encoderHiddenStates: randn([2, 15, 9]) }).toThrow(ShapeError)
    await refused({ lengths: [15] }).toThrow(ShapeError)
    await refused({ lengths: [15, 0] }).toThrow(/lengths must be from 1 to the 15 frames/)
    await refused({ queryEmbeds: randn([3, 1, 12]) }).toThrow(ShapeError)
    await refused({ compat: 'other' }).toThrow(ConfigError)
    await refused({ encoderHiddenStates: randn([1, 4, 10]), compat: 'published' }).toThrow(/fewer than the 5/)
  })
})
