import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { saveSafetensorsSharded } from '../../lib/files/index.js'
import {
  CheckpointError,
  ConfigError,
  DecoderLM,
  type DecoderLMConfig,
  type DecoderLMInputs,
  getPeftModel,
  KvCache,
  type LoraConfig,
  loadSafetensors,
  manualSeed,
  memoryStats,
  noGrad,
  ops,
  randint,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { atReal, file, get, open } from './decoder.js'
import { camelKeys, expectGradients } from './networks.js'

const KEY = 'model.layers.0.self_attn.k_proj.weight'
const keyProjection = (model: DecoderLM): Tensor => get(model.namedParameters().find(([name]) => name === KEY))[1]

describe('against transformers', () => {
  it.each(file.cases)('$name', async ({ name }) => {
    const { model, real, inputs, expected } = open(name)
    inputs.inputsEmbeds?.requiresGrad_()
    const plain = await model.forward({ ...inputs, logitsToKeep: 0 })
    const cotangent = get(tensorsOf(file, name, 'cotangent').logits)
    const logits = get(plain.logits)
    expectClose(atReal(logits, real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(plain.loss), get(expected.loss), 1e-5, 'loss')
    await get(plain.loss).add(logits.mul(cotangent).sum()).backward()
    if (expected['hidden.0']) await expectGradients(model, file, name)
    else expectClose(get(keyProjection(model).grad), get(tensorsOf(file, name, 'grad')[KEY]), 1e-5, KEY)
    if (inputs.inputsEmbeds) {
      expectClose(get(inputs.inputsEmbeds.grad), get(expected['inputs_embeds.grad']), 1e-5, 'gradient of inputs_embeds')
    }

    const full = await model.forward({ ...inputs, logitsToKeep: 0, outputHiddenStates: true, outputAttentions: true })
    expectClose(atReal(get(full.logits), real, 1), get(expected.logits), 1e-5, 'logits with attentions')
    expect([full.hiddenStates.length, full.attentions.length]).toEqual([3, 2])
    expect([plain.hiddenStates.length, plain.attentions.length]).toEqual([0, 0])
    if (!expected['hidden.0']) return
    expect(plain.auxLoss === null).toBe(expected.aux_loss === undefined)
    if (expected.aux_loss) expectClose(get(plain.auxLoss), expected.aux_loss, 1e-5, 'loss of the routers')
    plain.routerLogits.forEach((one, i) => {
      const each = one.unflatten(0, [real.size(0), -1])
      expectClose(
        atReal(each, real, 1),
        atReal(get(expected[`router.${i}`]).view(each.shape), real, 1),
        1e-5,
        `router ${i}`,
      )
    })
    full.hiddenStates.forEach((hidden, i) => {
      expectClose(atReal(hidden, real, 1), get(expected[`hidden.${i}`]), 1e-5, `hidden state ${i}`)
    })
    full.attentions.forEach((attention, i) => {
      expectClose(atReal(attention, real, 2), get(expected[`attention.${i}`]), 1e-5, `attention ${i}`)
    })
  })

  it.each(['llama', 'llama-gqa', 'qwen2-tied'])('%s: gradients with checkpointing', async (name) => {
    const { model, inputs } = open(name)
    model.gradientCheckpointing(true)
    const { loss, logits } = await model.forward({ ...inputs, logitsToKeep: 0 })
    await get(loss)
      .add(
        get(logits)
          .mul(get(tensorsOf(file, name, 'cotangent').logits))
          .sum(),
      )
      .backward()
    await expectGradients(model, file, name)
  })
})

describe('arguments', () => {
  it('computes the logits that are asked for', async () => {
    const { model, inputs } = open('llama')
    const inputIds = get(inputs.inputIds)
    const all = get((await model.forward({ inputIds })).logits)
    const last = get((await model.forward({ inputIds, logitsToKeep: 3 })).logits)
    expectClose(last, all.narrow(1, 5, 3), 1e-6)
    const { logits, loss } = await model.forward({ ...inputs })
    expect(logits).toBeNull()
    expect(loss?.shape).toEqual([])
  })

  it('takes positions, and embeddings in place of ids', async () => {
    const { model, inputs } = open('llama3')
    const inputIds = get(inputs.inputIds)
    const { logits } = await model.forward({ inputIds })
    const positionIds = tensor([[0, 1, 2, 3, 4, 5, 6, 7]])
    expect(get((await model.forward({ inputIds, positionIds })).logits).equal(get(logits))).toBe(true)
    const other = get((await model.forward({ inputIds, positionIds: positionIds.mul(3) })).logits)
    expect(other.sub(get(logits)).abs().max().item()).toBeGreaterThan(0.01)
    const inputsEmbeds = model.embed(inputIds)
    expect(get((await model.forward({ inputsEmbeds })).logits).equal(get(logits))).toBe(true)
  })

  it('does not answer otherwise for a padded text, on either side, with attentions too', async () => {
    for (const name of ['llama', 'mistral', 'qwen2-window']) {
      const { model, inputs } = open(name)
      const text = get(inputs.inputIds).narrow(0, 0, 1)
      const alone = get((await model.forward({ inputIds: text })).logits)
      const pad = tensor([[9, 9, 9]])
      for (const [parts, mask, start] of [
        [[pad, text], [...Array(3).fill(0), ...Array(8).fill(1)], 3],
        [[text, pad], [...Array(8).fill(1), ...Array(3).fill(0)], 0],
      ] as const) {
        for (const outputAttentions of [false, true]) {
          const inputIds = ops.cat([...parts] as Tensor[], 1)
          const attentionMask = tensor([mask as number[]])
          const { logits } = await model.forward({ inputIds, attentionMask, outputAttentions })
          expectClose(get(logits).narrow(1, start, 8), alone, 1e-5, name)
          expect(get(logits).isfinite().all().item()).toBe(true)
        }
      }
    }
  })

  it('refuses what does not fit with the name of the argument', async () => {
    const { model } = open('llama')
    const inputIds = tensor([[3, 4]])
    const refused = (inputs: DecoderLMInputs, message: RegExp) => expect(model.forward(inputs)).rejects.toThrow(message)
    await refused({}, /input_ids or inputs_embeds/)
    await refused({ inputIds: tensor([3, 4]) }, /\[batch, time\]/)
    await refused({ inputIds, attentionMask: tensor([[1]]) }, /attention_mask must be \[1, 2\]/)
    await refused({ inputIds, positionIds: tensor([[1]]) }, /position_ids/)
    await refused({ inputIds, labels: tensor([[1]]) }, /labels/)
    await refused({ inputIds, logitsToKeep: -1 }, /logits_to_keep/)
    await refused({ inputIds: randint(0, 3, [1, 0]) }, /at least one token/)
    await refused({ inputIds: tensor([[1000]]) }, /range|index/)
    using cache = new KvCache()
    await refused({ inputIds, cache, labels: inputIds }, /labels or a cache/)
    await expect(model.forward({ inputIds, cache: model as never })).rejects.toThrow(/KvCache/)
  })

  it('refuses configurations that contradict themselves', () => {
    const tiny: DecoderLMConfig = {
      vocabSize: 9,
      hiddenSize: 8,
      numHiddenLayers: 1,
      numAttentionHeads: 2,
      intermediateSize: 8,
    }
    const refused = (config: object, message: RegExp) => {
      expect(() => new DecoderLM({ ...tiny, ...config })).toThrow(ConfigError)
      expect(() => new DecoderLM({ ...tiny, ...config })).toThrow(message)
    }
    refused({ modelType: 'gpt2' }, /expected llama, mistral, .*qwen2.*, got 'gpt2'/)
    refused({ numKeyValueHeads: 3 }, /num_key_value_heads 3/)
    refused({ numAttentionHeads: 3 }, /num_attention_heads 3/)
    refused({ headDim: 3 }, /even/)
    refused({ hiddenAct: 'what' }, /expected hiddenAct .*got "what"/)
    refused({ padTokenId: 9 }, /pad_token_id/)
    refused({ ropeParameters: { ropeType: 'longrope' } }, /longrope/)
    refused({ ropeScaling: { type: 'linear' } }, /factor/)
    refused({ ropeScaling: { ropeType: 'llama3', factor: 2 } }, /low_freq_factor/)
    refused(
      { modelType: 'qwen2', layerTypes: ['sliding_attention'] },
      /DecoderLM: layerTypes\[0\]: expected 'full_attention', which follows from slidingWindow, useSlidingWindow and/,
    )
    expect(() => DecoderLM.fromConfig('llama-1b')).toThrow(ConfigError)
  })
})

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-decoder-'))
  afterAll(() => rmSync(directory, { recursive: true }))

  it.each([
    ['llama-sharded', 'llama'],
    ['mistral-bin', 'mistral'],
    ['qwen2-safetensors', 'qwen2'],
    ['mistral3-safetensors', 'ministral3'],
    ['mistral3-tied', 'ministral3'],
  ])('reads %s as transformers wrote it, and what it saves', async (folder, modelType) => {
    const answers = await fixture('models/decoder-lm-pretrained')
    const inputIds = get(tensorsOf(answers, folder, 'in').input_ids)
    const expected = get(tensorsOf(answers, folder, 'out').logits)
    const model = await DecoderLM.fromPretrained(fixturePath(`models/${folder}`))
    expect(model.config.modelType).toBe(modelType)
    expect(model.training).toBe(false)
    expectClose(get((await model.forward({ inputIds })).logits), expected)
    const to = join(directory, folder)
    await model.save(to)
    const again = await DecoderLM.fromPretrained(to, { mmap: true })
    expect(again.config).toMatchObject(model.config)
    expectClose(get((await again.forward({ inputIds })).logits), expected)
  })

  it('saves in shards where weights are many, and in one file again where they are not', async () => {
    const { model } = open('llama')
    const to = join(directory, 'shards')
    const inputIds = tensor([[1, 2, 3]])
    const expected = get((await model.forward({ inputIds })).logits)
    const files = () => readdirSync(to).filter((name) => name.includes('safetensors'))
    for (const [maxShardBytes, count] of [
      [2000, 2],
      [1e9, 1],
    ] as const) {
      await model.save(to, { maxShardBytes })
      if (count === 1) expect(files()).toEqual(['model.safetensors'])
      else expect(files().length).toBeGreaterThan(count)
      const again = await DecoderLM.fromPretrained(to)
      expect(get((await again.forward({ inputIds })).logits).equal(expected)).toBe(true)
    }
    await expect(model.save(to, null as never)).rejects.toThrow(/options/)
    await expect(model.save(to, { maxShardBytes: 0 })).rejects.toThrow(/maxShardBytes/)
  })

  it('reads a trunk without prefix and a tied head that is there twice, and lists what is missing', async () => {
    const tied = open('qwen2-tied').model
    await tied.save(join(directory, 'tied'))
    const { tensors } = await loadSafetensors(join(directory, 'tied/model.safetensors'))
    const state: Record<string, Tensor> = { 'lm_head.weight': get(tensors['model.embed_tokens.weight']).clone() }
    for (const [name, value] of Object.entries(tensors)) state[name.replace(/^model\./, '')] = value
    await saveSafetensorsSharded(join(directory, 'tied'), state, { maxShardBytes: 1000 })
    const inputIds = tensor([[1, 2, 3]])
    const [a, b] = [tied, await DecoderLM.fromPretrained(join(directory, 'tied'))]
    expect(get((await a.forward({ inputIds })).logits).equal(get((await b.forward({ inputIds })).logits))).toBe(true)

    await open('llama').model.save(join(directory, 'headless'))
    const { tensors: all } = await loadSafetensors(join(directory, 'headless/model.safetensors'))
    const { 'lm_head.weight': _, ...rest } = all
    await saveSafetensorsSharded(join(directory, 'headless'), rest)
    const load = DecoderLM.fromPretrained(join(directory, 'headless'))
    await expect(load).rejects.toThrow(CheckpointError)
    await expect(load).rejects.toMatchObject({ missing: ['lm_head.weight'] })
  })
})

const adapters = await fixture<{ name: string; network: string; config: Record<string, unknown> }>(
  'models/decoder-lm-lora',
)

describe('LoRA', () => {
  it.each(adapters.cases)(
    '$name has the loss and gradients of PEFT, and the same logits merged or cached',
    async ({ name, network, config }) => {
      const { model } = open(network)
      const peft = getPeftModel(model, camelKeys(config) as unknown as LoraConfig)
      const given = tensorsOf(adapters, name, 'param')
      const trained = new Map(model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad))
      expect([...trained.keys()].sort()).toEqual(Object.keys(given).sort())
      noGrad(() => trained.forEach((parameter, name) => void parameter.copy_(get(given[name]))))
      const inputIds = get(tensorsOf(adapters, name, 'in').input_ids)
      const { logits, loss } = tensorsOf(adapters, name, 'out')
      const gradients = tensorsOf(adapters, name, 'grad')

      for (const checkpointing of [false, true]) {
        model.gradientCheckpointing(checkpointing)
        const output = await model.forward({ inputIds, labels: inputIds, logitsToKeep: 0 })
        expectClose(get(output.loss), get(loss))
        expectClose(get(output.logits), get(logits))
        await get(output.loss).backward()
        for (const [key, parameter] of trained) {
          const gradient = gradients[key]
          if (gradient) expectClose(get(parameter.grad), gradient, 1e-5, key)
          else expect(parameter.grad, key).toBeNull()
          parameter.grad = null
        }
        expect(model.parameters().filter(({ grad }) => grad !== null)).toEqual([])
      }

      using cache = new KvCache()
      await model.forward({ inputIds: inputIds.narrow(1, 0, 7), cache })
      const step = await model.forward({ inputIds: inputIds.narrow(1, 7, 1), cache })
      expectClose(get(step.logits), get(logits).narrow(1, 7, 1))
      peft.mergeAdapter()
      expectClose(get((await model.forward({ inputIds })).logits), get(logits), 1e-5, 'merged')
    },
  )

  it.each(['llama', 'gemma2'])('reduces the loss to a sum, or not at all: %s', async (name) => {
    const { model, inputs } = open(name)
    const { logits } = await model.forward({ ...inputs, labels: null })
    const labels = get(inputs.labels).slice(-1, 1)
    const crossEntropy = (reduction: number) =>
      ops.crossEntropyLoss(get(logits).slice(-2, 0, -1).flatten(0, 1), labels.flatten(), null, reduction)
    const each = get((await model.forward({ ...inputs, reduction: 'none' })).loss)
    expectClose(each, crossEntropy(0).reshape(labels.shape), 1e-5)
    expectClose(get((await model.forward({ ...inputs, reduction: 'sum' })).loss), crossEntropy(2), 1e-5)
    await expect(model.forward({ ...inputs, reduction: 'max' as never })).rejects.toThrow(/reduction/)
    const colder = ops.crossEntropyLoss(get(logits).slice(-2, 0, -1).flatten(0, 1).div(0.7), labels.flatten(), null, 0)
    const cold = get((await model.forward({ ...inputs, reduction: 'none', lossTemperature: 0.7 })).loss)
    expectClose(cold, colder.reshape(labels.shape), 1e-5, 'temperature')
    await expect(model.forward({ ...inputs, lossTemperature: 0 })).rejects.toThrow(/loss_temperature must be above 0/)
    await each.sum().backward()
    const gradient = get(model.parameters()[0]?.grad).clone()
    model.zeroGrad()
    await crossEntropy(2).backward()
    expectClose(gradient, get(model.parameters()[0]?.grad), 1e-4)
  })

  it('takes an adapter of the head, whose loss goes through its logits', async () => {
    const { model, inputs } = open('llama')
    getPeftModel(model, { r: 2, targetModules: ['lm_head'] })
    noGrad(() => {
      for (const [name, parameter] of model.namedParameters()) if (name.includes('lora_B')) parameter.normal_(0, 0.5)
    })
    const { logits, loss } = await model.forward({ ...inputs, logitsToKeep: 0 })
    const shifted = get(logits).narrow(1, 0, 7).flatten(0, 1)
    const labels = get(inputs.labels).narrow(1, 1, 7).flatten()
    expectClose(get(loss), ops.crossEntropyLoss(shifted, labels), 1e-6)
    const plain = await open('llama').model.forward(inputs)
    expect(Math.abs((get(loss).item() as number) - (get(plain.loss).item() as number))).toBeGreaterThan(1e-3)
  })
})

describe('the module', () => {
  it('without files, stops at the configuration’s eosTokenId', async () => {
    const sizes = { vocabSize: 30, hiddenSize: 16, intermediateSize: 16, numHiddenLayers: 1, numAttentionHeads: 2 }
    const inputIds = tensor([[3, 4, 5]])
    const answer = async (config: object) => {
      using model = DecoderLM.fromConfig({ ...sizes, ...config }, { seed: 4 })
      const { tokens, finishReasons } = await model.generate({ inputIds }, { maxNewTokens: 8 })
      return { tokens: tokens[0] as number[], reason: finishReasons[0], own: model.generationConfig }
    }
    const long = await answer({})
    expect(long).toMatchObject({ reason: 'length', own: {} })
    const [, second] = long.tokens as [number, number]
    for (const eosTokenId of [second, [second, 29]]) {
      const short = await answer({ eosTokenId, padTokenId: 1 })
      expect(short).toEqual({
        tokens: long.tokens.slice(0, long.tokens.indexOf(second) + 1),
        ...{ reason: 'eos', own: { eosTokenId, padTokenId: 1 } },
      })
    }
    inputIds.dispose()
  })

  it.each([
    ['vicuna-13b-v1.1', 13_015_864_320],
    ['llama2-7b', 6_738_415_616],
    ['llama3-8b', 8_030_261_248],
    ['mistral-7b-v0.1', 7_241_732_096],
    ['qwen2-7b', 7_615_616_512],
  ])('%s has %d parameters, and none allocated on meta', (name, expected) => {
    const model = DecoderLM.fromConfig(name, { device: 'meta' })
    const count = model.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    expect(count).toBe(expected)
  })

  it('computes in bfloat16 and float64, with a cache too', async () => {
    const { model, inputs, expected } = open('llama-gqa')
    const { attentionMask, inputIds } = inputs
    const logits = get(expected.logits)
    const real = get(attentionMask).to('float32')
    model.to({ dtype: 'float64' })
    expectClose(atReal(get((await model.forward({ inputIds, attentionMask })).logits).float(), real, 1), logits, 1e-6)
    model.to({ dtype: 'bfloat16' })
    const low = get((await model.forward({ inputIds, attentionMask })).logits)
    expect(low.dtype).toBe('bfloat16')
    expectClose(atReal(low.float(), real, 1), logits, 0.05)
    using cache = new KvCache()
    await model.forward({
      inputIds: get(inputIds).narrow(1, 0, 7),
      attentionMask: get(attentionMask).narrow(1, 0, 7),
      cache,
    })
    const last = get((await model.forward({ inputIds: get(inputIds).narrow(1, 7, 1), attentionMask, cache })).logits)
    expectClose(last.narrow(0, 0, 1).float(), logits.narrow(0, 0, 1).narrow(1, 7, 1), 0.05)
  })

  it('starts from the seed', () => {
    const make = () => {
      manualSeed(7)
      return DecoderLM.fromConfig({
        vocabSize: 9,
        hiddenSize: 8,
        numHiddenLayers: 1,
        numAttentionHeads: 2,
        intermediateSize: 8,
      })
    }
    const [a, b] = [make().stateDict(), make().stateDict()]
    expect(Object.keys(a)[0]).toBe('model.embed_tokens.weight')
    for (const [name, value] of Object.entries(a)) expect(value.equal(get(b[name])), name).toBe(true)
  })

  it('leaves nothing behind', async () => {
    const before = await settledTensors()
    const model = new DecoderLM({
      vocabSize: 9,
      hiddenSize: 8,
      numHiddenLayers: 1,
      numAttentionHeads: 2,
      intermediateSize: 8,
    })
    await scope(async () => {
      using cache = new KvCache()
      await model.forward({ inputIds: tensor([[3, 4]]), outputAttentions: true, cache })
      model.embed(tensor([1]))
    })
    model.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
    await expect(async () => model.forward({ inputIds: tensor([[3]]) })).rejects.toThrow(/disposed/)
  })
})
