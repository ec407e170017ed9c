import { describe, expect, it } from 'vitest'
import * as vt from '../../../lib/index.js'
import * as salmonn from '../../../lib/systems/salmonn/index.js'
import { StandIn } from './stand-in.js'

describe('salmonnLearningRate', () => {
  const published = salmonn.salmonnLearningRate({ compat: 'published' })

  it.each([
    [0, 0, 1e-6],
    [0, 1, 1e-6 + 2.9e-5 / 3000],
    [0, 1500, 1.55e-5],
    [0, 2999, 1e-6 + (2.9e-5 * 2999) / 3000],
    [15, 0, 2e-5],
  ])('is as published at (%i, %i)', (epoch, iteration, rate) => {
    expect(Math.abs(published(epoch, iteration) / rate - 1)).toBeLessThan(1e-12)
  })

  it('follows the formula after warm-up, and ends at the lowest rate', () => {
    // Written out here once more: 1e-5 + 1e-5 (1 + cos(pi t / 90000)).
    for (const t of [3000, 44_999, 89_999]) {
      const rate = 1e-5 + 0.5 * 2e-5 * (1 + Math.cos((Math.PI * t) / 90_000))
      expect(Math.abs(published(Math.floor(t / 3000), t % 3000) / rate - 1)).toBeLessThan(1e-12)
    }
    expect(published(1, 0)).toBeCloseTo(2.9945219e-5, 12)
    expect(published(29, 2999)).toBeCloseTo(1e-5, 12)
  })

  it('begins warm-up anew in each epoch only as published', () => {
    const options = { warmupSteps: 30, iterationsPerEpoch: 20, epochs: 4 }
    const [old, own] = [
      salmonn.salmonnLearningRate({ ...options, compat: 'published' }),
      salmonn.salmonnLearningRate(options),
    ]
    expect(old(1, 0)).toBe(1e-6)
    expect(own(1, 0)).toBeCloseTo(1e-6 + (2.9e-5 * 20) / 30, 14)
    expect(own(0, 7)).toBe(old(0, 7))
    expect(own(1, 15)).toBe(old(1, 15))
    expect(own(9, 0)).toBe(1e-5)
  })

  it("gives the optimiser's steps the rate of their last batch", () => {
    const optimizer = { groups: [{ lr: 3e-5 }, { lr: 3e-5 }] }
    const scheduler = salmonn.salmonnScheduler(optimizer, {
      accumulation: 4,
      warmupSteps: 8,
      iterationsPerEpoch: 8,
      epochs: 2,
    })
    const rate = salmonn.salmonnLearningRate({ warmupSteps: 8, iterationsPerEpoch: 8, epochs: 2 })
    const found = [0, 1, 2, 3].map(() => {
      const lr = optimizer.groups[1]?.lr as number
      scheduler.step()
      return lr
    })
    for (const [i, expected] of [rate(0, 3), rate(0, 7), rate(1, 3), rate(1, 7)].entries()) {
      expect(Math.abs((found[i] as number) / expected - 1)).toBeLessThan(1e-12)
    }
  })
})

describe('optimiser', () => {
  it('groups what trains by name and dimensions', () => {
    const model = new StandIn()
    salmonn.trainSalmonnParts(model, salmonn.SALMONN_STAGES[2])
    const names = new Map(model.namedParameters().map(([name, parameter]) => [parameter as vt.Tensor, name]))
    const groups = salmonn
      .salmonnParameterGroups(model)
      .map(({ params, weightDecay }) => [weightDecay, params.map((param) => names.get(param))])
    expect(groups).toEqual([
      [0.05, ['speech_query_tokens', 'speech_Qformer.weight', 'speech_llama_proj.weight', 'llama_model.q_proj.lora_A', 'llama_model.q_proj.lora_B']],
      [0, ['ln_speech.weight', 'ln_speech.bias', 'speech_Qformer.bias', 'speech_llama_proj.bias']],
    ]) // biome-ignore format: names
  })

  it('leaves out a step whose gradients are not finite', async () => {
    const param = new vt.Parameter(vt.tensor([1, 2], { dtype: 'float32' }))
    const optimizer = new salmonn.FiniteAdamW([param], { lr: 0.1 })
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      param.grad = vt.tensor([0.5, bad], { dtype: 'float32' })
      await optimizer.step()
      expect(param.toArray()).toEqual([1, 2])
    }
    expect([optimizer.skipped, Object.keys(optimizer.stateDict().state).length]).toEqual([2, 0])
    param.grad = vt.tensor([0.5, 0.5], { dtype: 'float32' })
    await optimizer.step()
    expect(optimizer.skipped).toBe(2)
    expect((param.toArray() as number[])[0]).toBeLessThan(0.95)
    optimizer.dispose()
  })
})

describe('stages', () => {
  const trained = (model: vt.Module) =>
    new Set(
      model.namedParameters().flatMap(([name, { requiresGrad }]) => (requiresGrad ? [salmonn.salmonnPart(name)] : [])),
    )

  it('train Q-Former and projection, then LoRA too', () => {
    const model = new StandIn()
    salmonn.trainSalmonnParts(model, salmonn.SALMONN_STAGES[1])
    expect(trained(model)).toEqual(new Set(['qformer', 'projection']))
    salmonn.trainSalmonnParts(model, salmonn.SALMONN_STAGES[2])
    expect(trained(model)).toEqual(new Set(['qformer', 'projection', 'lora']))
    expect(() => salmonn.trainSalmonnParts(model, ['whisper'])).toThrow(/got whisper, which it does not have/)
    expect(() => salmonn.trainSalmonnParts(model, ['qfromer' as never])).toThrow(vt.ConfigError)
  })

  it('keep what is frozen in evaluation mode', () => {
    const model = new StandIn()
    salmonn.trainSalmonnParts(model, salmonn.SALMONN_STAGES[1])
    model.train()
    salmonn.keepFrozenInEval(model)
    expect([model.beats.training, model.llama_model.training, model.speech_Qformer.training]).toEqual([
      false,
      false,
      true,
    ])
    salmonn.trainSalmonnParts(model, salmonn.SALMONN_STAGES[2])
    model.train()
    salmonn.keepFrozenInEval(model)
    expect([model.beats.training, model.llama_model.training]).toEqual([false, true])
  })
})

describe('the adapter file', () => {
  const count = (tensors: ReadonlyMap<string, readonly number[]>) =>
    [...tensors.values()].reduce((sum, shape) => sum + shape.reduce((a, b) => a * b, 1), 0)
  const big = salmonn.salmonnAdapterTensors({ hiddenSize: 5120, layers: 40 })
  const small = salmonn.salmonnAdapterTensors({ hiddenSize: 4096, layers: 32 })

  it('has the published tensors', () => {
    expect([count(big), count(small)]).toEqual([33_332_992, 30_186_240])
    const qformer = [...big.keys()].filter((name) => name.startsWith('speech_Qformer.'))
    expect([qformer.length, [...big.keys()].filter((name) => name.includes('lora_')).length]).toEqual([54, 160])
    expect([...small.keys()].filter((name) => name.includes('lora_')).length).toBe(128)
    expect(big.get('speech_Qformer.bert.encoder.layer.1.crossattention.self.value.weight')).toEqual([768, 2048])
    expect(big.get('llama_model.base_model.model.model.layers.39.self_attn.v_proj.lora_B.default.weight')).toEqual([
      5120, 8,
    ])
  })

  it('is filtered as the original does, or to what trains', () => {
    const table = (layer: number) => `beats.encoder.layers.${layer}.self_attn.relative_attention_bias.weight`
    const parameters = new Map([
      ['ln_speech.weight', true],
      [table(0), false],
      ['llama_model.q.weight', false],
    ] as const)
    const buffer = 'speech_Qformer.bert.embeddings.position_ids'
    const state = ['ln_speech.weight', table(0), table(1), buffer, 'llama_model.q.weight']
    expect(salmonn.publishedCheckpointNames(state, parameters)).toEqual(['ln_speech.weight', table(1), buffer])
    expect(salmonn.trainedNames(parameters)).toEqual(['ln_speech.weight'])
  })

  it('is checked by name and shape', () => {
    const found = new Map<string, readonly number[]>(big)
    for (const extra of [
      'speech_Qformer.bert.embeddings.position_ids',
      'beats.encoder.layers.3.self_attn.relative_attention_bias.weight',
      'llama_model.base_model.model.model.layers.0.self_attn.rotary_emb.inv_freq',
      'speech_Qformer.bert.encoder.layer.0.intermediate.dense.weight',
    ]) {
      found.set(extra, [1])
    }
    found.set('surprise', [2])
    const { ignored, unexpected } = salmonn.checkSalmonnAdapter(found, big)
    expect([ignored.length, unexpected]).toEqual([4, ['surprise']])
    for (const [one, two, message] of [
      [undefined, big, /found to be a Map/],
      [big, {}, /needed to be a Map/],
      [new Map([['a', 'x']]), big, /found.get\('a'\) to be a list/],
      [new Map([[1, [2]]]), big, /a name of found to be a string/],
    ] as const) {
      // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
      expect(() => salmonn.checkSalmonnAdapter(one as any, two as any)).toThrow(message)
      // biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
      expect(() => salmonn.checkSalmonnAdapter(one as any, two as any)).toThrow(vt.ConfigError)
    }
    expect(() => salmonn.checkSalmonnAdapter(small, big, 'x.pth')).toThrow(
      /x\.pth: expected \d+ tensors, got all except 32: llama_model/,
    )
    found.set('speech_llama_proj.bias', [4096])
    expect(() => salmonn.checkSalmonnAdapter(found, big)).toThrow(
      /speech_llama_proj\.bias: expected the shape \[5120\], got \[4096\]/,
    )
    expect(() => salmonn.checkSalmonnAdapter(found, big)).toThrow(vt.CheckpointError)
  })
})
