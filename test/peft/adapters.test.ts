import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  AdamW,
  BusyError,
  Dropout,
  getPeftModel,
  Linear,
  type LoraConfig,
  type Module,
  manualSeed,
  memoryStats,
  noGrad,
  ops,
  PeftModel,
  type Roberta,
  randint,
  randn,
  Sequential,
  scope,
  type Tensor,
  Wav2Vec2,
  Wav2Vec2Bert,
  Wav2Vec2Conformer,
  WavLM,
} from '../../lib/index.js'
import { expectClose, fixture, settledTensors } from '../helpers.js'
import { camelKeys } from '../models/networks.js'
import { network, run, Small } from './networks.js'

const speech = {
  wavlm: await fixture<{ config: Record<string, unknown> }>('models/wavlm'),
  wav2vec2: await fixture<{ config: Record<string, unknown> }>('models/wav2vec2'),
  'wav2vec2-conformer': await fixture<{ config: Record<string, unknown> }>('models/wav2vec2-conformer'),
  'wav2vec2-bert': await fixture<{ config: Record<string, unknown> }>('models/wav2vec2-bert'),
}
const still = { applySpecAugment: false, layerdrop: 0, hiddenDropout: 0, attentionDropout: 0, activationDropout: 0 }
const ids = randint(2, 20, [3, 7])
const live = () => memoryStats().liveTensors

/** New adapters do nothing until they have trained. */
function randomise(model: Module, every = false): void {
  scope(() =>
    noGrad(() => {
      for (const [name, parameter] of model.namedParameters()) {
        if (parameter.requiresGrad || (every && name.includes('.lora_')))
          parameter.add_(randn(parameter.shape).mul(0.3).to({ dtype: parameter.dtype }))
      }
    }),
  )
}

describe.each(['small', 'roberta'] as const)('in %s', (name) => {
  const targets = name === 'small' ? ['embed', 'conv', 'hidden'] : ['query', 'value', 'word_embeddings']
  const config: LoraConfig = { r: 2, targetModules: targets }

  it('a new adapter changes no output, no name and no frozen parameter', async () => {
    const model = network(name)
    const before = Object.keys(model.stateDict())
    const plain = await run(model, ids)
    const values = Object.values(model.stateDict()).map((tensor) => tensor.clone())
    const peft = getPeftModel(model, config)
    expect(Object.keys(model.stateDict())).toEqual(before)
    expectClose(await run(model, ids), plain, 1e-6)
    const trained = model.namedParameters().filter(([, parameter]) => parameter.requiresGrad)
    expect(trained.every(([key]) => /\.lora_(embedding_)?[AB]\.default(\.weight)?$/.test(key))).toBe(true)
    expect(trained.length).toBe(2 * (name === 'small' ? 3 : 5))
    const { trainable, total } = peft.getNbTrainableParameters()
    expect(trainable).toBe(trained.reduce((sum, [, parameter]) => sum + parameter.numel(), 0))
    expect(total).toBe(model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0))
    const optimizer = new AdamW(model.parameters(), { lr: 0.1 })
    await (await run(model, ids)).pow(2).sum().backward()
    await optimizer.step()
    for (const [key, parameter] of model.namedParameters()) {
      expect(parameter.grad !== null, key).toBe(key.includes('lora_'))
    }
    Object.values(model.stateDict()).forEach((tensor, i) => void expect(tensor.equal(values[i] as Tensor)).toBe(true))
    expect((await run(model, ids)).equal(plain)).toBe(false)
  })

  it('swaps adapters per call, also of calls that still wait', async () => {
    manualSeed(1)
    const model = network(name).eval()
    const plain = await run(model, ids)
    const served = { ...config, inferenceMode: true }
    const peft = getPeftModel(model, served, { adapterName: 'a' })
    peft.addAdapter('b', { ...served, r: 3, targetModules: targets.slice(0, 2) })
    randomise(model, true)
    const alone: Record<string, Tensor> = { plain }
    for (const adapter of ['a', 'b']) {
      peft.setAdapter(adapter)
      alone[adapter] = await run(model, ids)
    }
    expect(alone.a?.equal(alone.b as Tensor)).toBe(false)

    peft.setAdapter('a')
    const first = run(model, ids)
    peft.setAdapter('b')
    const second = run(model, ids)
    const [third, fourth, fifth] = [
      peft.withAdapter('a', () => run(model, ids)),
      peft.disableAdapter(() => run(model, ids)),
      run(model, ids),
    ]
    const wanted = ['a', 'b', 'a', 'plain', 'b']
    const results = await Promise.all([first, second, third, fourth, fifth])
    results.forEach((result, i) => void expectClose(result, alone[wanted[i] as string] as Tensor, 1e-6, `call ${i}`))

    const slow = async () => {
      await new Promise((resolve) => setTimeout(resolve, 5))
      return run(model, ids)
    }
    const tasks = ['a', 'b', 'a'].map((adapter) => peft.withAdapter(adapter, slow))
    const both = await Promise.all(tasks)
    both.forEach((result, i) => void expectClose(result, alone[['a', 'b', 'a'][i] as string] as Tensor, 1e-6))
    expect(peft.activeAdapters).toEqual(['b'])
  })

  it('trains the active one only, and none is swapped while a queued call uses it', async () => {
    const model = network(name)
    const peft = getPeftModel(model, config, { adapterName: 'a' })
    peft.addAdapter('b', config)
    const adapterOf = () =>
      new Set(
        model
          .namedParameters()
          .flatMap(([key, { requiresGrad }]) => (requiresGrad ? [/_[AB]\.(.)/.exec(key)?.[1]] : [])),
      )
    expect([...adapterOf()]).toEqual(['a'])
    // The call waits behind a long one, so that it is not over yet.
    const large = randn([1500, 1500])
    const before = ops.async.matmul(large, large)
    const waiting = run(model, ids)
    if (name === 'roberta') {
      expect(() => peft.setAdapter('b')).toThrow(BusyError)
      expect(peft.activeAdapters).toEqual(['a'])
      expect([...adapterOf()]).toEqual(['a'])
    }
    await Promise.all([before, waiting])
    peft.setAdapter('b')
    expect([...adapterOf()]).toEqual(['b'])
  })

  it('adds up several adapters, as the weights would', async () => {
    manualSeed(2)
    const model = network(name).eval()
    const peft = getPeftModel(model, config, { adapterName: 'a' })
    peft.addAdapter('b', { r: 3, useRslora: true, targetModules: targets.slice(0, 2) })
    peft.setAdapter(['a', 'b'])
    randomise(model)
    const together = await run(model, ids)
    peft.mergeAdapter(['a', 'b'])
    expectClose(await run(model, ids), together, 1e-5)
    peft.unmergeAdapter()
    peft.mergeAdapter('a')
    const one = await run(model, ids)
    peft.unmergeAdapter()
    expectClose(await peft.withAdapter('a', () => run(model, ids)), one, 1e-5)
    expect(one.equal(together)).toBe(false)
  })

  it('deletes and unloads without a trace', async () => {
    manualSeed(3)
    const model = network(name).eval()
    const plain = await run(model, ids)
    const before = await settledTensors()
    const peft = getPeftModel(model, { ...config, useDora: true }, { adapterName: 'a' })
    randomise(model)
    peft.addAdapter('b', config)
    peft.deleteAdapter('a')
    expect(peft.activeAdapters).toEqual(['b'])
    expect(model.namedParameters().some(([key]) => /_[AB]\.a\b/.test(key))).toBe(false)
    await scope(async () => expectClose(await run(model, ids), plain, 1e-6))
    randomise(model)
    await scope(async () => expect((await run(model, ids)).equal(plain)).toBe(false))
    expect(peft.unload()).toBe(model)
    await scope(async () => expectClose(await run(model, ids), plain, 1e-6))
    // What earlier tests left may be collected meanwhile.
    expect(live()).toBeLessThanOrEqual(before)
    const again = getPeftModel(model, config, { adapterName: 'a' })
    randomise(model)
    const merged = await scope(async () => {
      const adapted = await run(model, ids)
      again.mergeAndUnload()
      expectClose(await run(model, ids), adapted, 1e-5)
      return run(model, ids)
    })
    expect(merged.equal(plain)).toBe(false)
    merged.dispose()
    expect(live()).toBeLessThanOrEqual(before)
  })

  it('a pass leaves nothing behind', async () => {
    const model = network(name)
    getPeftModel(model, { ...config, loraDropout: name === 'small' ? 0.1 : 0 })
    const once = () => scope(async () => void (await run(model, ids)))
    await once()
    const before = await settledTensors()
    await once()
    // What earlier tests left may be collected meanwhile.
    expect(live()).toBeLessThanOrEqual(before)
  })

  it('drops out while training only', async () => {
    manualSeed(4)
    const model = network(name)
    getPeftModel(model, {
      ...config,
      loraDropout: 0.5,
      targetModules: name === 'small' ? ['hidden', 'conv'] : ['query'],
    })
    randomise(model)
    const call = () => noGrad(() => run(model, ids))
    manualSeed(5)
    const first = await call()
    const second = await call()
    manualSeed(5)
    expect((await call()).equal(first)).toBe(true)
    expect(second.equal(first)).toBe(false)
    model.eval()
    expect((await call()).equal(await call())).toBe(true)
  })

  it('moves with the network, and is float32 in half precision', async () => {
    const model = network(name).to({ dtype: 'bfloat16' })
    getPeftModel(model, config)
    const adapter = model.namedParameters().filter(([key]) => key.includes('lora_'))
    expect(adapter.every(([, { dtype }]) => dtype === 'float32')).toBe(true)
    const output = await run(model, ids)
    expect(output.dtype).toBe('bfloat16')
    await output.pow(2).sum().backward()
    expect(adapter.every(([, { grad }]) => grad?.dtype === 'float32')).toBe(true)
    model.to({ dtype: 'float64' })
    expect(adapter.every(([, { dtype }]) => dtype === 'float64')).toBe(true)
    expect((await run(model, ids)).dtype).toBe('float64')
  })
})

describe('in speech encoders', () => {
  const kinds = ['wavlm', 'wav2vec2', 'wav2vec2-conformer', 'wav2vec2-bert'] as const
  it.each(kinds)('%s: every linear layer and every convolution', async (kind) => {
    manualSeed(6)
    const config = { ...camelKeys(speech[kind].cases[0]?.config ?? {}), ...still }
    const classes = {
      wavlm: WavLM,
      wav2vec2: Wav2Vec2,
      'wav2vec2-conformer': Wav2Vec2Conformer,
      'wav2vec2-bert': Wav2Vec2Bert,
    }
    const model = new classes[kind](config).eval() as Wav2Vec2
    const inputs = (
      kind === 'wav2vec2-bert' ? { inputFeatures: randn([2, 15, 6]) } : { inputValues: randn([2, 400]) }
    ) as {
      inputValues: Tensor
    }
    const call = async () => (await noGrad(() => model.forward(inputs))).lastHiddenState
    const plain = await call()
    const convolutions = /conformer|bert/.test(kind)
      ? String.raw`encoder\.layers\.\d+\.conv_module\.pointwise_conv\d`
      : String.raw`feature_extractor\.conv_layers\.\d+\.conv`
    for (const targetModules of ['all-linear', convolutions]) {
      const peft = getPeftModel(model, { r: 2, targetModules })
      const adapted = model.namedParameters().filter(([key]) => key.includes('lora_A'))
      expect(adapted.length).toBeGreaterThan(2)
      randomise(model)
      const output = await call()
      expect(output.sub(plain).abs().max().item() as number).toBeGreaterThan(1e-3)
      peft.mergeAdapter()
      expectClose(await call(), output, 1e-5, `${targetModules} merged`)
      peft.unmergeAdapter()
      const loss = (await model.forward(inputs)).lastHiddenState.pow(2).sum()
      await loss.backward()
      for (const [key, parameter] of model.namedParameters()) {
        expect(parameter.grad !== null, key).toBe(key.includes('lora_'))
      }
      peft.unload()
      expectClose(await call(), plain, 1e-6, 'unloaded')
    }
  })
})

describe('modules to save', () => {
  const config: LoraConfig = { r: 2, targetModules: ['hidden'], modulesToSave: ['head'] }

  it('have values of each adapter, and the network its own', async () => {
    manualSeed(7)
    const model = network('small') as Small
    const own = model.head.weight.clone()
    const plain = model.forward(ids)
    const peft = getPeftModel(model, config, { adapterName: 'a' })
    expect(model.head.weight.requiresGrad).toBe(true)
    randomise(model)
    peft.addAdapter('b', config)
    const a = model.head.weight.clone()
    const outputA = model.forward(ids)
    expect(a.equal(own)).toBe(false)
    peft.setAdapter('b')
    expect(model.head.weight.equal(own)).toBe(true)
    expectClose(model.forward(ids), plain, 1e-6)
    expectClose(
      peft.withAdapter('a', () => model.forward(ids)),
      outputA,
      1e-6,
    )
    expectClose(
      peft.disableAdapter(() => model.forward(ids)),
      plain,
      1e-6,
    )
    peft.setAdapter('a')
    expect(model.head.weight.equal(a)).toBe(true)
    const weight = model.head.weight
    peft.mergeAndUnload()
    expect(model.head.weight).toBe(weight)
    expectClose(model.forward(ids), outputA, 1e-5)
  })

  it('keep their gradients while adapters are off, so that batches add up', async () => {
    manualSeed(8)
    const model = network('small') as Small
    const peft = getPeftModel(model, config)
    const step = () => model.forward(ids).sum().backward()
    await step()
    const once = model.head.weight.grad as Tensor
    const half = once.clone()
    expect(Number(half.abs().sum().item())).toBeGreaterThan(0)
    peft.disableAdapter(() => noGrad(() => model.forward(ids)))
    await peft.disableAdapter(async () => noGrad(() => model.forward(ids)))
    expect(model.head.weight.grad?.equal(half)).toBe(true)
    await step()
    expectClose(model.head.weight.grad as Tensor, half.mul(2), 1e-6)
  })

  it('come back as they were on unload', () => {
    const model = network('small') as Small
    const own = model.head.weight.clone()
    const before = live()
    const peft = getPeftModel(model, config)
    randomise(model)
    peft.unload()
    expect(model.head.weight.equal(own)).toBe(true)
    expect(live()).toBe(before)
  })
})

describe('which layers', () => {
  const layers = (model: Module, config: LoraConfig) => {
    const peft = getPeftModel(model, config)
    const found = model.namedParameters().flatMap(([key, { shape }]) => {
      const [, path] = /^(.*)\.lora_(?:embedding_)?A/.exec(key) ?? []
      return path === undefined ? [] : [`${path.replace(/^encoder\.layer/, '')} ${shape[0]}`]
    })
    peft.unload()
    return found
  }

  it('follow names, expressions, numbers, patterns and exclusions', () => {
    const model = network('roberta')
    const query = (n: number, r = 8) => `.${n}.attention.self.query ${r}`
    const value = (n: number, r = 8) => `.${n}.attention.self.value ${r}`
    expect(layers(model, { targetModules: ['query'] })).toEqual([query(0), query(1)])
    expect(layers(model, { targetModules: ['encoder.layer.1.attention.self.query'] })).toEqual([query(1)])
    expect(layers(model, { targetModules: ['query'], layersToTransform: 1 })).toEqual([query(1)])
    expect(layers(model, { targetModules: ['query'], layersToTransform: [0], layersPattern: 'layer' })).toEqual([
      query(0),
    ])
    expect(() => layers(model, { targetModules: ['query'], layersToTransform: 0, layersPattern: 'h' })).toThrow(
      /expected names of layers/,
    )
    expect(layers(model, { targetModules: String.raw`.*\.(?P<which>query|value)` })).toHaveLength(4)
    expect(layers(model, { targetModules: ['query', 'value'], excludeModules: ['0.attention.self.value'] })).toEqual([
      query(0),
      query(1),
      value(1),
    ])
    expect(layers(model, { targetModules: ['query'], excludeModules: String.raw`.*\.1\..*` })).toEqual([query(0)])
    const rankPattern = { 'layer.0.*query': 3, value: 5 }
    expect(layers(model, { targetModules: ['query', 'value'], rankPattern })).toEqual([
      query(0, 3),
      value(0, 5),
      query(1),
      value(1, 5),
    ])
    expect(layers(model, { targetModules: 'all-linear' })).toHaveLength(13)
    expect(layers(new Small(), { targetModules: 'ALL-linear' })).toEqual(['hidden 8', 'head 8'])
    const stack = new Sequential(new Linear(2, 2), new Dropout(0.1), new Linear(2, 2))
    expect(layers(stack, { targetModules: ['2'], r: 1 })).toEqual(['2 1'])
  })
})

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-peft-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it.each([
    ['small', { r: 2, targetModules: 'all-linear', useDora: true, bias: 'all', modulesToSave: null }],
    ['small', { r: 2, targetModules: ['embed', 'conv'], modulesToSave: ['head'], alphaPattern: { conv: 3 } }],
    ['roberta', { r: 3, targetModules: ['query', 'dense', 'position_embeddings'], bias: 'lora_only', useRslora: true }],
  ] as ['small' | 'roberta', LoraConfig][])('%s: what is saved loads', async (name, config) => {
    manualSeed(8)
    const model = network(name).eval()
    const peft = getPeftModel(model, config)
    randomise(model)
    const output = await run(model, ids)
    await peft.savePretrained(directory)
    const again = network(name).eval()
    const loaded = await PeftModel.fromPretrained(again, directory)
    expectClose(await run(again, ids), output, 1e-6)
    expect(again.parameters().some((parameter) => parameter.requiresGrad)).toBe(false)
    expect({ ...loaded.peftConfig.default, targetModules: null }).toEqual({
      ...peft.peftConfig.default,
      targetModules: null,
      inferenceMode: true,
    })
  })

  it('keeps several adapters in one directory', async () => {
    manualSeed(9)
    const model = network('roberta') as Roberta
    const peft = getPeftModel(model, { r: 2, targetModules: ['query'] })
    peft.addAdapter('other', { r: 3, targetModules: ['value'] })
    const outputs: Tensor[] = []
    for (const name of ['default', 'other']) {
      peft.setAdapter(name)
      randomise(model)
      outputs.push(await run(model, ids))
    }
    await peft.savePretrained(directory)
    const again = network('roberta')
    const before = await settledTensors()
    const loaded = await PeftModel.fromPretrained(again, directory)
    await loaded.loadAdapter(join(directory, 'other'), { adapterName: 'other', isTrainable: true })
    expect(live() - before).toBe(again.parameters().length - network('roberta').parameters().length)
    expect(loaded.activeAdapters).toEqual(['default'])
    expectClose(await run(again, ids), outputs[0] as Tensor, 1e-6)
    loaded.setAdapter('other')
    expectClose(await run(again, ids), outputs[1] as Tensor, 1e-6)
    expect(again.parameters().filter((parameter) => parameter.requiresGrad)).toHaveLength(4)
  })
})
