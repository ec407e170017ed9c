import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  ContinuousBatching,
  DecoderLM,
  type DecoderLMConfig,
  getPeftModel,
  KvCache,
  loadSafetensors,
  manualSeed,
  noGrad,
  ops,
  PeftModel,
  randint,
  type Tensor,
} from '../../lib/index.js'
import { expectClose, fixture, fixturePath, tensorsOf } from '../helpers.js'
import { atReal, get, open } from './decoder.js'
import { camelKeys, expectGradients } from './networks.js'

// Phi-3 and InternLM2: decoders that have several projections in one.

const file = await fixture<{ name: string; config: Record<string, unknown> }>('models/decoder-fused')
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-fused-'))
afterAll(() => rmSync(directory, { recursive: true }))
const CASES = file.cases.map(({ name }) => name).filter((name) => name !== 'phi3-crossing')

describe('forward, loss and gradients', () => {
  it.each(CASES)('%s', async (name) => {
    const { model, real, inputs, expected } = open(name, file)
    inputs.inputsEmbeds?.requiresGrad_()
    const plain = await model.forward({ ...inputs, logitsToKeep: 0 })
    const cotangent = get(tensorsOf(file, name, 'cotangent').logits)
    const logits = get(plain.logits)
    expectClose(atReal(logits, real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(plain.loss), get(expected.loss), 1e-5, 'loss')
    await get(plain.loss).add(logits.mul(cotangent).sum()).backward()
    const grads = tensorsOf(file, name, 'grad')
    if (Object.keys(grads).length > 3) await expectGradients(model, file, name)
    if (inputs.inputsEmbeds) expectClose(get(inputs.inputsEmbeds.grad), get(expected['inputs_embeds.grad']))
    for (const [key, wanted] of Object.entries(expected).filter(([key]) => key.startsWith('hidden'))) {
      const { hiddenStates } = await model.forward({ ...inputs, outputHiddenStates: true })
      expectClose(atReal(get(hiddenStates[Number(key.slice(7))]), real, 1), wanted, 1e-5, key)
    }
  })

  it.each(['phi3', 'internlm2-each'])('%s: gradients with checkpointing', async (name) => {
    const { model, inputs } = open(name, file)
    model.gradientCheckpointing(true)
    const { loss, logits } = await model.forward({ ...inputs, logitsToKeep: 0 })
    const cotangent = get(tensorsOf(file, name, 'cotangent').logits)
    await get(loss).add(get(logits).mul(cotangent).sum()).backward()
    await expectGradients(model, file, name)
  })
})

describe('the cache', () => {
  const PARTS = [[8], [5, 1, 1, 1], [1, 1, 1, 1, 1, 1, 1, 1], [2, 2, 4]]

  it.each(['phi3', 'phi3-left', 'phi3-short', 'internlm2', 'internlm2-left', 'internlm2-each'])(
    '%s: a text read in parts has the answers of one pass, padded rows too',
    async (name) => {
      const { model, real, inputs, expected } = open(name, file)
      const mask = inputs.attentionMask
      for (const parts of PARTS) {
        using cache = new KvCache()
        const answers: Tensor[] = []
        for (const length of parts) {
          const start = cache.length
          const columns = inputs.inputsEmbeds
            ? { inputsEmbeds: inputs.inputsEmbeds.detach().narrow(1, start, length) }
            : { inputIds: get(inputs.inputIds).narrow(1, start, length) }
          const attentionMask = mask ? mask.narrow(1, 0, start + length) : null
          answers.push(get((await model.forward({ ...columns, attentionMask, cache })).logits))
        }
        expectClose(atReal(ops.cat(answers, 1), real, 1), get(expected.logits), 1e-5, parts.join())
      }
    },
  )

  it.each(['phi3', 'internlm2'])('%s crosses the length at which angles change', async (kind) => {
    // The base of an InternLM2 grows with each token from there on; a Phi-3 is computed again with the other factors.
    const grown = await fixture('models/decoder-fused-crossing')
    const { model } = open(kind === 'phi3' ? 'phi3-crossing' : 'internlm2-dynamic', file)
    const from = kind === 'phi3' ? file : grown
    const inputIds = get(tensorsOf(from, `${kind}-crossing`, 'in').input_ids)
    const expected = tensorsOf(from, `${kind}-crossing`, 'out')
    expectClose(get((await model.forward({ inputIds })).logits), get(expected.whole), 1e-5, 'one pass')
    using cache = new KvCache()
    const answers = [get((await model.forward({ inputIds: inputIds.narrow(1, 0, 4), cache })).logits)]
    for (let i = 4; i < 9; i++) {
      answers.push(get((await model.forward({ inputIds: inputIds.narrow(1, i, 1), cache })).logits))
    }
    const cached = ops.cat(answers, 1)
    if (kind === 'internlm2') expectClose(cached, get(expected.cached), 1e-5, 'token by token')
    else {
      // Up to 6 tokens, which is where the factors change, the first ones count.
      const short = get((await model.forward({ inputIds: inputIds.narrow(1, 0, 6) })).logits)
      expectClose(cached.narrow(1, 0, 6), short, 1e-5, 'before')
      expectClose(cached.narrow(1, 6, 3), get(expected.whole).narrow(1, 6, 3), 1e-5, 'behind')
    }
    expect(cached.sub(get(expected.whole)).abs().max().item()).toBeGreaterThan(0.01)

    // A session, which takes quicker steps, has the logits of passes over a cache.
    const generated = await model.generate(
      { inputIds: inputIds.narrow(1, 0, 4) },
      { maxNewTokens: 6, outputLogits: true, eosTokenId: null },
    )
    using again = new KvCache()
    let read = inputIds.narrow(1, 0, 4)
    for (let step = 0; step < 6; step++) {
      const { logits } = await model.forward({ inputIds: read, cache: again, logitsToKeep: 1 })
      expectClose(get(generated.logits).select(0, step), get(logits).squeeze(1), 1e-5, `step ${step}`)
      read = generated.sequences.narrow(1, 4 + step, 1).to(inputIds.device)
    }
  })
})

const TINY: DecoderLMConfig = {
  vocabSize: 61,
  hiddenSize: 32,
  intermediateSize: 40,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  maxPositionEmbeddings: 256,
}
const FACTORS = {
  originalMaxPositionEmbeddings: 16,
  ropeScaling: { type: 'su', shortFactor: [1, 1.1, 1.2, 1.3], longFactor: [1, 2, 3, 4] },
} as DecoderLMConfig
const KINDS: [string, DecoderLMConfig][] = [
  ['phi3', { ...TINY, modelType: 'phi3' }],
  ['phi3 with factors', { ...TINY, modelType: 'phi3', ...FACTORS }],
  ['internlm2', { ...TINY, modelType: 'internlm2', bias: false, ropeScaling: { type: 'dynamic', factor: 2 } }],
]
function made(config: DecoderLMConfig): DecoderLM {
  manualSeed(11)
  const model = new DecoderLM(config).eval()
  noGrad(() => {
    for (const parameter of model.parameters()) if (parameter.dim() === 2) parameter.mul_(8)
  })
  return model
}

describe('generation', () => {
  it.each(KINDS)('%s: a batch padded on the left says what each of its texts says alone', async (_, config) => {
    const model = made(config)
    const texts = [randint(1, 61, [1, 9]), randint(1, 61, [1, 5]), randint(1, 61, [1, 2])]
    // Below and beyond 16, the length at which factors change: all rows of a batch turn as its longest one does.
    const settings = { maxNewTokens: config.ropeScaling?.shortFactor ? 7 : 14, eosTokenId: null }
    const alone: number[][] = []
    for (const inputIds of texts) alone.push(get((await model.generate({ inputIds }, settings)).tokens[0]))
    const pad = (text: Tensor) => ops.cat([ops.zeros([1, 9 - text.size(1)], { dtype: 'int64' }), text], 1)
    const inputIds = ops.cat(texts.map(pad), 0)
    const attentionMask = inputIds.ne(0).to({ dtype: 'int64' })
    expect((await model.generate({ inputIds, attentionMask }, settings)).tokens).toEqual(alone)
    const streamed: (number | null)[] = []
    for await (const { tokens } of model.stream({ inputIds: get(texts[0]) }, settings))
      streamed.push(get(tokens)[0] ?? null)
    expect(streamed).toEqual(alone[0])
  })

  it.each(KINDS)('%s: texts that share passes say the same, beyond every length', async (_, config) => {
    const model = made(config)
    const texts = [randint(1, 61, [1, 12]), randint(1, 61, [1, 3]), randint(1, 61, [1, 25])]
    const settings = { maxNewTokens: 12, eosTokenId: null }
    const alone: number[][] = []
    for (const inputIds of texts) alone.push(get((await model.generate({ inputIds }, settings)).tokens[0]))
    using batching = new ContinuousBatching(model)
    const together = await Promise.all(texts.map((inputIds) => model.generate({ inputIds }, settings, { batching })))
    expect(together.map(({ tokens }) => tokens[0])).toEqual(alone)
  })
})

describe('files', () => {
  it('reads a Phi-3 as transformers wrote it, and what it saves', async () => {
    const answers = await fixture('models/decoder-fused-pretrained')
    const inputIds = get(tensorsOf(answers, 'phi3-safetensors', 'in').input_ids)
    const expected = get(tensorsOf(answers, 'phi3-safetensors', 'out').logits)
    const model = await DecoderLM.fromPretrained(fixturePath('models/phi3-safetensors'))
    expectClose(get((await model.forward({ inputIds })).logits), expected)
    const to = join(directory, 'phi3')
    await model.save(to)
    const again = await DecoderLM.fromPretrained(to)
    expect(again.config).toMatchObject(model.config)
    expectClose(get((await again.forward({ inputIds })).logits), expected)
    await expect(model.saveGguf(join(directory, 'phi3.gguf'))).rejects.toThrow(/llama, mistral, .*qwen2.*, got 'phi3'/)
  })

  it('saves an InternLM2 under its published names, and reads it back', async () => {
    const { model, inputs } = open('internlm2', file)
    const to = join(directory, 'internlm2')
    await model.save(to)
    const { tensors } = await loadSafetensors(join(to, 'model.safetensors'))
    const layer = (rest: string) => `model.layers.0.${rest}.weight`
    const names = ['attention.wqkv', 'attention.wo', 'feed_forward.w1', 'feed_forward.w2', 'feed_forward.w3']
    expect(Object.keys(tensors)).toEqual(
      expect.arrayContaining([
        'model.tok_embeddings.weight',
        'output.weight',
        'model.norm.weight',
        ...[...names, 'attention_norm', 'ffn_norm'].map(layer),
      ]),
    )
    const again = await DecoderLM.fromPretrained(to)
    expect(again.config.modelType).toBe('internlm2')
    const [a, b] = [await model.forward(inputs), await again.forward(inputs)]
    expect(get(a.loss).equal(get(b.loss))).toBe(true)
    const { 'output.weight': _, ...rest } = model.stateDict()
    expect(() => again.loadStateDict(rest)).toThrow(CheckpointError)
  })

  it.each([
    ['phi-3-mini-4k', 3_821_079_552],
    ['internlm2-1.8b', 1_889_110_016],
    ['internlm2-7b', 7_737_708_544],
    ['qwen2-0.5b', 494_032_768],
  ])('%s has %d parameters', (name, expected) => {
    const model = DecoderLM.fromConfig(name, { device: 'meta' })
    expect(model.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)).toBe(expected)
  })

  it('refuses configurations that contradict themselves', () => {
    const refused = (config: object, message: RegExp) => {
      expect(() => new DecoderLM({ ...TINY, ...config } as DecoderLMConfig)).toThrow(ConfigError)
      expect(() => new DecoderLM({ ...TINY, ...config } as DecoderLMConfig)).toThrow(message)
    }
    const phi3 = { modelType: 'phi3', originalMaxPositionEmbeddings: 16 }
    const scaling = (more: object) => ({ ...phi3, ropeScaling: { ...FACTORS.ropeScaling, ...more } })
    refused(scaling({ longFactor: [1, 2] }), /4 numbers in long_factor.*got 2/)
    refused(scaling({ shortFactor: null }), /short_factor.*got 0/)
    refused(scaling({ shortFactor: [1, 1, 0, 1] }), /above 0/)
    refused(scaling({ shortFactor: [1, 'a', 1, 1] }), /number/)
    refused({ ...scaling({}), originalMaxPositionEmbeddings: 1 }, /above 1/)
    refused({ ...phi3, residPdrop: 0.1 }, /residPdrop 0/)
    refused({ ...phi3, attentionBias: true }, /attentionBias false/)
    refused(
      { modelType: 'internlm2', layerTypes: ['sliding_attention'] },
      /DecoderLM: layerTypes\[0\]: expected 'full_attention', which follows from slidingWindow, useSlidingWindow and/,
    )
  })
})

describe('LoRA on fused projections', () => {
  it.each([
    ['phi3', 'phi3'],
    ['internlm2', 'internlm2'],
  ])("%s: PEFT's files, answers and gradients; merged as unmerged; cached; saved as PEFT saves", async (name, base) => {
    const reference = await fixture<{ name: string; targets: string[] }>('models/decoder-fused-lora')
    const inputIds = get(tensorsOf(reference, name, 'in').input_ids)
    const { logits, loss } = tensorsOf(reference, name, 'out')
    const { model } = open(base, file)
    const folder = fixturePath(`models/${name}-adapter`)
    const peft = await PeftModel.fromPretrained(model, folder, { isTrainable: true })
    const output = await model.forward({ inputIds, labels: inputIds, logitsToKeep: 0 })
    expectClose(get(output.logits), get(logits))
    expectClose(get(output.loss), get(loss))
    await get(output.loss).backward()
    const trained = new Map(model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad))
    const grads = Object.entries(tensorsOf(reference, name, 'grad'))
    expect(grads.length).toBe(trained.size)
    for (const [key, gradient] of grads) expectClose(get(get(trained.get(key)).grad), gradient, 1e-5, key)

    const to = join(directory, `${name}-adapter`)
    await peft.savePretrained(to)
    const [ours, theirs] = [
      await loadSafetensors(join(to, 'adapter_model.safetensors')),
      await loadSafetensors(join(folder, 'adapter_model.safetensors')),
    ]
    expect(Object.keys(ours.tensors).sort()).toEqual(Object.keys(theirs.tensors).sort())
    for (const [key, value] of Object.entries(theirs.tensors))
      expect(get(ours.tensors[key]).equal(value), key).toBe(true)

    // Quick steps with an adapter, against passes.
    const settings = { maxNewTokens: 5, eosTokenId: null, outputLogits: true }
    const generated = await model.generate({ inputIds }, settings)
    const whole = await model.forward({
      inputIds: generated.sequences.narrow(1, 0, 12).to(inputIds.device),
      logitsToKeep: 5,
    })
    expectClose(get(generated.logits).transpose(0, 1), get(whole.logits), 1e-5, 'generated')
    peft.mergeAdapter()
    expectClose(get((await model.forward({ inputIds })).logits), get(logits), 1e-5, 'merged')
  })

  it('attaches to what their families call them', () => {
    for (const [, config] of KINDS) {
      const model = made(config)
      const names = config.modelType === 'phi3' ? ['qkv_proj', 'gate_up_proj'] : ['wqkv', 'w1']
      getPeftModel(model, { r: 2, targetModules: names })
      expect(model.parameters().filter(({ requiresGrad }) => requiresGrad).length).toBe(2 * 2 * names.length)
      expect(() => getPeftModel(made(config), { r: 2, targetModules: ['q_proj'] })).toThrow(/q_proj/)
    }
  })
})

it('gives the fused network in parts the same answers', async () => {
  const { model, inputs, expected, real } = open('internlm2', file)
  const { config } = model
  const state = model.stateDict()
  const { bias: _, ...shared } = camelKeys(get(file.cases.find(({ name }) => name === 'internlm2')).config)
  const llama = new DecoderLM({ ...shared, modelType: 'llama' } as DecoderLMConfig).eval()
  const [heads, groups, dim] = [config.numAttentionHeads, config.numKeyValueHeads, config.headDim] as [
    number,
    number,
    number,
  ]
  const each = heads / groups
  const renamed = Object.entries(state).flatMap(([name, value]): [string, Tensor][] => {
    const to = name
      .replace('tok_embeddings', 'embed_tokens')
      .replace(/^output/, 'lm_head')
      .replace('attention_norm', 'input_layernorm')
      .replace('ffn_norm', 'post_attention_layernorm')
      .replace('attention.wo', 'self_attn.o_proj')
      .replace('feed_forward.w1', 'mlp.gate_proj')
      .replace('feed_forward.w2', 'mlp.down_proj')
      .replace('feed_forward.w3', 'mlp.up_proj')
    if (!name.includes('wqkv')) return [[to, value]]
    const slots = value.reshape([groups, each + 2, dim, -1])
    const part = (of: string, from: number, count: number): [string, Tensor] => [
      name.replace('attention.wqkv', `self_attn.${of}_proj`),
      slots.narrow(1, from, count).reshape([groups * count * dim, -1]),
    ]
    return [part('q', 0, each), part('k', each, 1), part('v', each + 1, 1)]
  })
  noGrad(() => llama.loadStateDict(Object.fromEntries(renamed)))
  expectClose(atReal(get((await llama.forward({ ...inputs, logitsToKeep: 0 })).logits), real, 1), get(expected.logits))
})
