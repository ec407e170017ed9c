import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  manualSeed,
  memoryStats,
  ones,
  Roberta,
  type RobertaConfig,
  RobertaForMaskedLM,
  type RobertaInputs,
  randint,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

const file = await fixture<{ name: string; masked_lm: boolean; config: Record<string, unknown> }>('models/roberta')
const tiny: RobertaConfig = { ...camelKeys(file.cases[0]?.config ?? {}) }

describe('against transformers', () => {
  it.each(file.cases)('$name', async ({ name, masked_lm, config }) => {
    const model = masked_lm ? new RobertaForMaskedLM(camelKeys(config)) : new Roberta(camelKeys(config))
    loadParameters(model, file, name)
    const inputs = camelKeys(tensorsOf(file, name, 'in')) as RobertaInputs
    const cotangent = tensorsOf(file, name, 'cotangent')
    const expected = tensorsOf(file, name, 'out')

    const plain = await run(model, inputs)
    expectClose(plain.main, expected.main as Tensor, 1e-5, 'output')
    if (cotangent.pooler) expectClose(plain.pooler as Tensor, expected.pooler as Tensor, 1e-5, 'pooler output')
    const back = ({ main, pooler }: { main: Tensor; pooler: Tensor | null }) => {
      const loss = main.mul(cotangent.main as Tensor).sum()
      return (cotangent.pooler ? loss.add((pooler as Tensor).mul(cotangent.pooler).sum()) : loss).backward()
    }
    await back(plain)
    await expectGradients(model, file, name, {
      // The fixture was computed in float32 and is up to 3.5e-6 off, on every processor alike.
      exact: 5e-6,
      again: async (as) =>
        back(await run(model, { ...inputs, ...(inputs.inputsEmbeds && { inputsEmbeds: as(inputs.inputsEmbeds) }) })),
    })

    const full = await run(model, { ...inputs, outputHiddenStates: true, outputAttentions: true })
    expectClose(full.main, expected.main as Tensor, 1e-5, 'output with attentions')
    full.hiddenStates.forEach((hidden, i) => {
      expectClose(hidden, expected[`hidden.${i}`] as Tensor, 1e-5, `hidden state ${i}`)
    })
    full.attentions.forEach((attention, i) => {
      expectClose(attention, expected[`attention.${i}`] as Tensor, 1e-5, `attention ${i}`)
    })
    expect([full.hiddenStates.length, full.attentions.length]).toEqual([3, 2])
    expect([plain.hiddenStates.length, plain.attentions.length]).toEqual([0, 0])
  })
})

async function run(model: Roberta | RobertaForMaskedLM, inputs: RobertaInputs) {
  const output = await model.forward(inputs)
  const main = 'logits' in output ? output.logits : output.lastHiddenState
  return { main, pooler: 'poolerOutput' in output ? output.poolerOutput : null, ...output }
}

const folderOf = (name: string) => fixturePath(`models/${name}`)

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-roberta-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it('saves what it loads, and a head on top is left out', async () => {
    manualSeed(1)
    const model = new RobertaForMaskedLM(tiny)
    await model.save(join(directory, 'mlm'))
    const trunk = await Roberta.fromPretrained(join(directory, 'mlm'))
    expect(trunk.config.addPoolingLayer).toBe(false)
    expect(trunk.training).toBe(false)
    for (const [name, value] of Object.entries(trunk.stateDict())) {
      expect(value.equal(model.stateDict()[`roberta.${name}`] as Tensor), name).toBe(true)
    }
    const again = await RobertaForMaskedLM.fromPretrained(join(directory, 'mlm'))
    const inputIds = randint(3, 50, [2, 7])
    model.eval()
    const [a, b] = [await model.forward({ inputIds }), await again.forward({ inputIds })]
    expect(a.logits.equal(b.logits)).toBe(true)
  })

  it.each([
    ['roberta-safetensors', {}],
    ['roberta-safetensors', { mmap: true }],
    ['roberta-bin', {}],
    ['roberta-bin', { mmap: true }],
  ])('reads %s as transformers wrote it, %o', async (folder, options) => {
    const answers = await fixture('models/roberta-pretrained')
    const { input_ids: inputIds } = tensorsOf(answers, 'pretrained', 'in')
    const { logits, hidden } = tensorsOf(answers, 'pretrained', 'out')
    const model = await RobertaForMaskedLM.fromPretrained(folderOf(folder), options)
    expectClose((await model.forward({ inputIds: inputIds as Tensor })).logits, logits as Tensor)
    const trunk = await Roberta.fromPretrained(folderOf(folder), { ...options, dtype: 'float64' })
    const { lastHiddenState, poolerOutput } = await trunk.forward({ inputIds: inputIds as Tensor })
    expectClose(lastHiddenState, (hidden as Tensor).to('float64'))
    expect(poolerOutput).toBeNull()
  })

  it('lists what does not fit, and fills what is missing where that is allowed', async () => {
    const model = new Roberta({ ...tiny, addPoolingLayer: false })
    await model.save(join(directory, 'trunk'))
    const load = RobertaForMaskedLM.fromPretrained(join(directory, 'trunk'))
    await expect(load).rejects.toThrow(CheckpointError)
    await expect(load).rejects.toMatchObject({ missing: expect.arrayContaining(['lm_head.bias']) })
  })
})

describe('the module', () => {
  it('has the names of transformers and trains or not, part by part', () => {
    const model = Roberta.fromConfig(tiny)
    expect(model.namedParameters()[0]?.[0]).toBe('embeddings.word_embeddings.weight')
    expect(
      model
        .get('encoder.layer.1.attention.self.query')
        .namedParameters()
        .map(([name]) => name),
    ).toEqual(['weight', 'bias'])
    model.eval()
    expect(model.modules().some((module) => module.training)).toBe(false)
    model.get('encoder').train()
    expect([model.training, model.get('encoder.layer.0').training]).toEqual([false, true])
  })

  it('starts from the seed, drops out only in training', async () => {
    const make = () => {
      manualSeed(7)
      return new Roberta({ ...tiny, hiddenDropoutProb: 0.5 })
    }
    const [a, b] = [make(), make()]
    const inputIds = tensor([[5, 6, 7, 8]])
    const of = async (model: Roberta) => (await model.forward({ inputIds })).lastHiddenState
    a.eval()
    b.eval()
    expect((await of(a)).equal(await of(b))).toBe(true)
    a.train()
    expect((await of(a)).equal(await of(a))).toBe(false)
  })

  it('allocates nothing on meta and knows its published sizes', () => {
    const model = Roberta.fromConfig('base', { device: 'meta' })
    const count = model.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    expect(count).toBe(124_645_632)
    expect(() => Roberta.fromConfig('huge')).toThrow(ConfigError)
  })

  it('leaves nothing behind', async () => {
    const before = await settledTensors()
    const model = new Roberta(tiny)
    await scope(async () => {
      await model.forward({ inputIds: tensor([[3, 4]]), outputAttentions: true })
    })
    model.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    await expect(model.forward({ inputIds: tensor([[3]]) })).rejects.toThrow(/disposed/)
  })

  it('refuses what does not fit with the name of the argument', async () => {
    const model = new Roberta(tiny)
    await expect(model.forward({})).rejects.toThrow(/input_ids or inputs_embeds/)
    await expect(model.forward({ inputIds: tensor([3, 4]) })).rejects.toThrow(/\[batch, time\]/)
    await expect(model.forward({ inputIds: randint(3, 9, [1, 40]) })).rejects.toThrow(/40 tokens/)
    const wrong = { inputIds: tensor([[3, 4]]), attentionMask: tensor([[1]]) }
    await expect(model.forward(wrong)).rejects.toThrow(/attention_mask/)
    const two = tensor([[3, 4]])
    const pairs = (attentionMask: Tensor) => model.forward({ inputIds: two, attentionMask })
    await expect(pairs(ones([1, 1, 2, 2]))).rejects.toThrow(/dtype bool/)
    await expect(pairs(ones([1, 1, 1, 2]).bool())).rejects.toThrow(
      /attention_mask for pairs of tokens must be \[1, 1 or/,
    )
    await expect(pairs(ones([1, 5, 2, 2]).bool())).rejects.toThrow(/attention_mask for pairs/)
    await expect(model.forward({ inputIds: two, positionIds: tensor([[2]]) })).rejects.toThrow(/position_ids must be/)
    await expect(model.forward({ inputIds: tensor([[1000]]) })).rejects.toThrow(/out of range/)
  })
})
