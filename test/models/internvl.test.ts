import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  arange,
  CheckpointError,
  ConfigError,
  DecoderLM,
  getPeftModel,
  InternViT,
  InternVL,
  type InternVLConfig,
  KvCache,
  loadSafetensors,
  type Module,
  memoryStats,
  noGrad,
  ops,
  PeftModel,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { pixelShuffle } from '../../lib/models/internvl/projector.js'
import { quantizationOf } from '../../lib/nn/quantized-weight.js'
import { expectClose, fixture, fixturePath, ROUNDING, settledTensors, tensorsOf } from '../helpers.js'
import { atReal, get } from './decoder.js'
import { IMAGE, type InternVLCase, internVLConfigOf, openInternVL } from './internvl.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

const file = await fixture<InternVLCase>('models/internvl')
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-internvl-'))
afterAll(() => rmSync(directory, { recursive: true }))
const CASES = file.cases.filter(({ name }) => name !== 'lora')

const configOf = (name: string): InternVLConfig => internVLConfigOf(file, name)
const open = (name: string) => openInternVL(file, name)

describe('against transformers', () => {
  it.each(CASES)('$name', async ({ name }) => {
    const { model, inputs, expected, real } = open(name)
    inputs.pixelValues.requiresGrad_()
    const { lastHiddenState } = await model.vision_model.forward({ pixelValues: inputs.pixelValues })
    expectClose(lastHiddenState, get(expected.states), 1e-5, 'states')
    const { logits, loss, imageEmbeds } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(get(imageEmbeds), get(expected.features), 1e-5, 'features')
    expectClose(atReal(get(logits), real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(loss), get(expected.loss), 1e-5, 'loss')
    await get(loss).backward()
    expectClose(get(inputs.pixelValues.grad), get(expected['pixels.grad']), 1e-5, 'gradient of pixels')
    if (Object.keys(tensorsOf(file, name, 'grad')).length > 0) {
      await expectGradients(model, file, name, {
        // transformers takes the language model's norms through float32.
        exact: 16 * ROUNDING.float32,
        again: async (as) => {
          const again = await model.forward({ ...inputs, pixelValues: as(inputs.pixelValues) })
          await get(again.loss).backward()
        },
      })
    }
  })

  it('has the same gradients with checkpointing', async () => {
    const { model, inputs } = open('qwen2')
    model.vision_model.gradientCheckpointing(true)
    model.language_model.gradientCheckpointing(true)
    await get((await model.forward(inputs)).loss).backward()
    await expectGradients(model, file, 'qwen2', { tolerance: 2e-5 })
  })

  it('has the states that are asked for, of every layer', async () => {
    const { model, inputs, expected } = open('qwen2')
    const { pixelValues } = inputs
    const output = await model.vision_model.forward({ pixelValues, outputHiddenStates: true, outputAttentions: true })
    expect(output.hiddenStates.map(({ shape }) => shape)).toEqual(Array(3).fill([3, 17, 16]))
    expect(output.attentions.map(({ shape }) => shape)).toEqual(Array(2).fill([3, 2, 17, 17]))
    expectClose(get(output.hiddenStates[2]), get(expected.states))
    expectClose(get(output.attentions[0]).sum(-1), ops.onesLike(get(output.attentions[0]).sum(-1)))
    const before = new InternVL({ ...configOf('qwen2'), selectLayer: -2 }).eval()
    loadParameters(before, file, 'qwen2')
    const shuffled = await before.encodeImages(pixelValues)
    const grid = get(output.hiddenStates[1]).narrow(1, 1, 16).reshape([3, 4, 4, 16])
    expectClose(shuffled.select(1, 1).narrow(1, 0, 16), grid.select(1, 0).select(1, 2), 1e-6)
  })
})

describe('pixel shuffle', () => {
  it('stands by the formula in both versions', async () => {
    const states = arange(2 * (1 + 8 * 4) * 3, { dtype: 'float32' }).reshape([2, 33, 3])
    for (const swapped of [false, true]) {
      const shuffled = await pixelShuffle(states, [8, 4], 2, swapped)
      expect(shuffled.shape).toEqual([2, 8, 12])
      const [from, to] = [states.toArray() as number[][][], shuffled.toArray() as number[][][]]
      for (let p = 0; p < 4; p++) {
        for (let q = 0; q < 2; q++) {
          const token = swapped ? q * 4 + p : p * 2 + q
          for (const [t, s, k] of [0, 1].flatMap((t) =>
            [0, 1].flatMap((s) => [0, 1, 2].map((k) => [t, s, k] as const)),
          )) {
            expect(to[1]?.[token]?.[t * 6 + s * 3 + k]).toBe(from[1]?.[1 + (2 * p + t) * 4 + 2 * q + s]?.[k])
          }
        }
      }
    }
    for (const [down, across, factor] of [
      [8, 5, 2],
      [8, 4, 3],
      [0, 4, 2],
      [4, 4, 2],
      [8, 4, 0],
    ] as const) {
      await expect(pixelShuffle(states, [down, across], factor, false)).rejects.toThrow(/grid|states/)
    }
  })

  it('is taken by configuration', async () => {
    const { inputs } = open('qwen2')
    const [v1, v2] = (['v1', 'v2'] as const).map((psVersion) => {
      const model = new InternVL({ ...configOf('qwen2'), psVersion }).eval()
      loadParameters(model, file, 'qwen2')
      return model
    }) as [InternVL, InternVL]
    const [a, b] = [await v1.encodeImages(inputs.pixelValues), await v2.encodeImages(inputs.pixelValues)]
    expect(a.equal(b)).toBe(false)
    expect(a.reshape([3, 2, 2, -1]).transpose(1, 2).reshape(b.shape).equal(b)).toBe(true)
  })
})

describe('pictures in a text', () => {
  it('may come from what was made of them before', async () => {
    const { model, inputs } = open('qwen2')
    const { pixelValues, ...text } = inputs
    const imageFeatures = await model.encodeImages(pixelValues)
    expect(imageFeatures.shape).toEqual([3, model.tileTokens(), 64])
    const imageEmbeds = await model.projectImages(imageFeatures)
    const [a, b, c] = [
      await model.forward({ ...text, pixelValues }),
      await model.forward({ ...text, imageFeatures }),
      await model.forward({ ...text, imageEmbeds }),
    ]
    expect(get(a.loss).equal(get(b.loss)) && get(a.loss).equal(get(c.loss))).toBe(true)
    await expect(model.forward({ ...text, imageEmbeds, pixelValues })).rejects.toThrow(/pixelValues and imageEmbeds/)
  })

  it('refuses a wrong count with both numbers, and what are no pictures', async () => {
    const { model, inputs } = open('qwen2')
    const { pixelValues, inputIds } = inputs
    const wrong = model.forward({ inputIds, pixelValues: pixelValues.narrow(0, 0, 2) })
    await expect(wrong).rejects.toThrow(ShapeError)
    await expect(wrong).rejects.toThrow(/expected 8 times <IMG_CONTEXT> .*, got 12/)
    await expect(model.forward({ inputIds })).rejects.toThrow(/expected 0 times <IMG_CONTEXT> .*, got 12/)
    await expect(model.generate({ inputIds, pixelValues: pixelValues.narrow(0, 0, 2) })).rejects.toThrow(/got 12/)
    await expect(model.forward({ inputIds: tensor([[1, 2]]), pixelValues })).rejects.toThrow(
      /expected 12 times <IMG_CONTEXT> .*, got 0/,
    )
    await expect(model.encodeImages(pixelValues.select(0, 0))).rejects.toThrow(/\[tiles, channels, height, width\]/)
    await expect(model.encodeImages(zeros([1, 1, 15, 16]))).rejects.toThrow(/divisible/)
    await expect(model.encodeImages(zeros([1, 3, 16, 16]))).rejects.toThrow(
      /intern_vit_forward: pixel_values must be \[images, 1, height, width\], got \[1, 3, 16, 16\]/,
    )
    await expect(model.encodeImages(zeros([1, 1, 12, 12]))).rejects.toThrow(/no squares of 2/)
    await expect(model.projectImages(zeros([1, 4, 63]))).rejects.toThrow(/features must be/)
    await expect(model.forward({ inputIds, pixelValues, nonsense: 1 } as never)).rejects.toThrow(/nonsense/)
    await expect(model.generate({ inputIds, pixelValues, labels: inputIds } as never)).rejects.toThrow(/labels/)
    const without = new InternVL({ ...configOf('qwen2'), imgContextTokenId: null }).eval()
    await expect(without.forward({ inputIds, pixelValues })).rejects.toThrow(/imgContextTokenId/)
    expect(get((await without.forward({ inputIds: tensor([[1, 2]]) })).logits).shape).toEqual([1, 2, 29])
  })

  it('changes the answer when only the picture changes', async () => {
    const { model, inputs } = open('qwen2')
    const logits = async (pixelValues: Tensor) =>
      get((await model.forward({ ...inputs, labels: null, pixelValues })).logits)
    const a = await logits(inputs.pixelValues)
    const b = await logits(inputs.pixelValues.flip([0]))
    expect(a.sub(b).abs().max().item()).toBeGreaterThan(0.01)
    // The third row has no picture.
    expectClose(a.narrow(0, 2, 1), b.narrow(0, 2, 1), 1e-6)
  })
})

describe('generation', () => {
  const greedy = { maxNewTokens: 6, eosTokenId: null }

  it("has transformers' tokens, streamed and in a batch padded on the left too", async () => {
    const { model, inputs } = open('qwen2')
    const wanted = get(get(CASES[0]).tokens)
    const rows = [0, 1, 2].map((row) => {
      const ids = inputs.inputIds.select(0, row)
      const mask = inputs.attentionMask.select(0, row)
      return ids.maskedSelect(mask.ne(0))
    })
    const first = { inputIds: get(rows[0]).unsqueeze(0), pixelValues: inputs.pixelValues.narrow(0, 0, 2) }
    expect((await model.generate(first, greedy)).tokens).toEqual([wanted])
    const streamed: (number | null)[] = []
    for await (const { tokens } of model.stream(first, greedy)) streamed.push(get(tokens)[0] ?? null)
    expect(streamed).toEqual(wanted)
    const second = { inputIds: get(rows[1]).unsqueeze(0), pixelValues: inputs.pixelValues.narrow(0, 2, 1) }
    const third = { inputIds: get(rows[2]).unsqueeze(0) }
    const alone = [
      wanted,
      ...(await model.generate(second, greedy)).tokens,
      ...(await model.generate(third, greedy)).tokens,
    ]
    const longest = Math.max(...rows.map(({ shape }) => shape[0] as number))
    const pad = (row: Tensor) => ops.cat([zeros([longest - row.size(0)], { dtype: 'int64' }), row])
    const inputIds = ops.stack(rows.map(pad))
    const attentionMask = ops.stack(rows.map((row) => pad(ops.onesLike(row))))
    const together = await model.generate({ inputIds, attentionMask, pixelValues: inputs.pixelValues }, greedy)
    expect(together.tokens).toEqual(alone)
  })

  it('keeps pictures over turns in a cache', async () => {
    const { model, inputs } = open('qwen2')
    const { pixelValues } = inputs
    const row = inputs.inputIds.narrow(0, 0, 1)
    const question = tensor([[5, 7, 9]])
    using cache = new KvCache()
    const one = await model.generate({ inputIds: row, pixelValues: pixelValues.narrow(0, 0, 2), cache }, greedy)
    const last = tensor([[get(one.tokens[0]).at(-1) as number]])
    const two = await model.generate({ inputIds: ops.cat([last, question], 1), cache }, greedy)
    const whole = ops.cat([row, tensor([one.tokens[0] as number[]]), question], 1)
    const again = await model.generate({ inputIds: whole, pixelValues: pixelValues.narrow(0, 0, 2) }, greedy)
    expect(two.tokens).toEqual(again.tokens)
  })
})

describe('adapters', () => {
  const EXPRESSION = '^(language_model|mlp1)(?!.*(lm_head|output|emb|wte|shared)).*'

  it('have the answers and gradients of PEFT, merged as unmerged, and go both ways', async () => {
    const { model, inputs, real } = open('qwen2')
    const given = tensorsOf(file, 'lora', 'param')
    const { logits, loss } = tensorsOf(file, 'lora', 'out')
    const peft = getPeftModel(model, { r: 2, loraAlpha: 8, targetModules: EXPRESSION })
    const trained = new Map(model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad))
    const plain = (name: string) => name.replace('.default', '')
    expect([...trained.keys()].map(plain).sort()).toEqual(Object.keys(given).sort())
    noGrad(() => trained.forEach((parameter, name) => void parameter.copy_(get(given[plain(name)]))))
    const output = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(atReal(get(output.logits), real, 1), get(logits))
    expectClose(get(output.loss), get(loss))
    await get(output.loss).backward()
    const grads = tensorsOf(file, 'lora', 'grad')
    for (const [name, parameter] of trained) expectClose(get(parameter.grad), get(grads[plain(name)]), 1e-5, name)
    expect(model.vision_model.parameters().every(({ grad }) => grad === null)).toBe(true)

    const to = join(directory, 'adapter')
    await peft.savePretrained(to)
    const { tensors } = await loadSafetensors(join(to, 'adapter_model.safetensors'))
    expect(Object.keys(tensors)).toContain(
      'base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight',
    )
    expect(Object.keys(tensors)).toContain('base_model.model.mlp1.3.lora_B.weight')
    const other = open('qwen2').model
    await PeftModel.fromPretrained(other, to)
    expectClose(atReal(get((await other.forward({ ...inputs, logitsToKeep: 0 })).logits), real, 1), get(logits))
    peft.mergeAdapter()
    expectClose(
      atReal(get((await model.forward({ ...inputs, logitsToKeep: 0 })).logits), real, 1),
      get(logits),
      1e-5,
      'merged',
    )
  })

  it.each([
    ['internvl2-1b', 938_158_976, 4_453_376],
    ['internvl2-2b', 2_205_754_368, 7_946_240],
    ['internvl2-4b', 4_146_855_936, 12_689_408],
    ['internvl2-8b', 8_075_365_376, 19_005_440],
    ['internvl2.5-8b', 8_075_365_376, 19_005_440],
  ])('%s has %d parameters, and its adapters %d', (name, expected, adapters) => {
    const count = (module: Module, only = false) =>
      module
        .parameters()
        .filter(({ requiresGrad }) => !only || requiresGrad)
        .reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)
    const model = InternVL.fromConfig(name, { device: 'meta' })
    expect(count(model)).toBe(expected)
    expect(count(model.vision_model)).toBe(304_012_288)
    getPeftModel(model, { r: 8, targetModules: EXPRESSION })
    expect(count(model, true)).toBe(adapters)
  })

  it.each([
    ['internvl3-1b', 938_193_024, 304_012_288],
    ['internvl3-2b', 2_088_957_440, 304_012_288],
    ['internvl2.5-4b', 3_712_637_952, 304_012_288],
    ['internvl3-8b', 7_944_373_760, 304_012_288],
    ['internvl3-14b', 15_117_256_704, 304_012_288],
    ['internvl2.5-26b', 25_514_186_112, 5_536_496_000],
    ['internvl3-38b', 38_388_164_992, 5_536_496_000],
    ['internvl3-78b', 78_408_318_336, 5_536_496_000],
  ])('%s has %d parameters, %d of them in the vision encoder', (name, expected, vision) => {
    const model = InternVL.fromConfig(name, { device: 'meta' })
    const count = (module: Module) => module.parameters().reduce((sum, one) => sum + one.numel(), 0)
    expect([count(model), count(model.vision_model)]).toEqual([expected, vision])
  })
})

// Of the files of OpenGVLab/InternVL2-1B, -2B, -4B and -8B.
const VISION_TOP = {
  class_embedding: '1,1,1024',
  'patch_embedding.weight': '1024,3,14,14',
  'patch_embedding.bias': '1024',
  position_embedding: '1,1025,1024',
}
const VISION_LAYER = {
  'attn.qkv.weight': '3072,1024',
  'attn.qkv.bias': '3072',
  'attn.proj.weight': '1024,1024',
  'attn.proj.bias': '1024',
  'norm1.weight': '1024',
  'norm1.bias': '1024',
  'norm2.weight': '1024',
  'norm2.bias': '1024',
  ls1: '1024',
  ls2: '1024',
  'mlp.fc1.weight': '4096,1024',
  'mlp.fc1.bias': '4096',
  'mlp.fc2.weight': '1024,4096',
  'mlp.fc2.bias': '1024',
}
interface PublishedShapes {
  dim: number
  layers: number
  top: Record<string, string>
  layer: Record<string, string>
}
const internlm2 = (dim: number, layers: number, qkv: number, inner: number): PublishedShapes => ({
  dim,
  layers,
  top: {
    'model.tok_embeddings.weight': `92553,${dim}`,
    'output.weight': `92553,${dim}`,
    'model.norm.weight': `${dim}`,
  },
  layer: {
    'attention.wqkv.weight': `${qkv},${dim}`,
    'attention.wo.weight': `${dim},${dim}`,
    'feed_forward.w1.weight': `${inner},${dim}`,
    'feed_forward.w3.weight': `${inner},${dim}`,
    'feed_forward.w2.weight': `${dim},${inner}`,
    'attention_norm.weight': `${dim}`,
    'ffn_norm.weight': `${dim}`,
  },
})
const PUBLISHED: Record<string, PublishedShapes> = {
  'internvl2-1b': {
    dim: 896,
    layers: 24,
    top: { 'model.embed_tokens.weight': '151655,896', 'lm_head.weight': '151655,896', 'model.norm.weight': '896' },
    layer: {
      'self_attn.q_proj.weight': '896,896',
      'self_attn.q_proj.bias': '896',
      'self_attn.k_proj.weight': '128,896',
      'self_attn.k_proj.bias': '128',
      'self_attn.v_proj.weight': '128,896',
      'self_attn.v_proj.bias': '128',
      'self_attn.o_proj.weight': '896,896',
      'mlp.gate_proj.weight': '4864,896',
      'mlp.up_proj.weight': '4864,896',
      'mlp.down_proj.weight': '896,4864',
      'input_layernorm.weight': '896',
      'post_attention_layernorm.weight': '896',
    },
  },
  'internvl2-2b': internlm2(2048, 24, 4096, 8192),
  'internvl2-4b': {
    dim: 3072,
    layers: 32,
    top: { 'model.embed_tokens.weight': '32020,3072', 'lm_head.weight': '32020,3072', 'model.norm.weight': '3072' },
    layer: {
      'self_attn.qkv_proj.weight': '9216,3072',
      'self_attn.o_proj.weight': '3072,3072',
      'mlp.gate_up_proj.weight': '16384,3072',
      'mlp.down_proj.weight': '3072,8192',
      'input_layernorm.weight': '3072',
      'post_attention_layernorm.weight': '3072',
    },
  },
  'internvl2-8b': internlm2(4096, 32, 6144, 14336),
}

describe('the published layout', () => {
  it.each(Object.keys(PUBLISHED))('%s has every key and shape of its files, and no others', (name) => {
    const model = InternVL.fromConfig(name, { device: 'meta' })
    const shapes = Object.fromEntries(Object.entries(model.stateDict()).map(([key, { shape }]) => [key, shape.join()]))
    const { dim, layers, top, layer } = get(PUBLISHED[name])
    const each = (prefix: string, count: number, of: Record<string, string>) =>
      Array.from({ length: count }, (_, i) =>
        Object.entries(of).map(([key, shape]) => [`${prefix}${i}.${key}`, shape]),
      ).flat()
    const under = (prefix: string, of: Record<string, string>) =>
      Object.entries(of).map(([key, shape]) => [`${prefix}${key}`, shape])
    expect(shapes).toEqual(
      Object.fromEntries([
        ...under('vision_model.embeddings.', VISION_TOP),
        ...each('vision_model.encoder.layers.', 24, VISION_LAYER),
        ...under('mlp1.', {
          '0.weight': '4096',
          '0.bias': '4096',
          '1.weight': `${dim},4096`,
          '1.bias': `${dim}`,
          '3.weight': `${dim},${dim}`,
          '3.bias': `${dim}`,
        }),
        ...under('language_model.', top),
        ...each('language_model.model.layers.', layers, layer),
      ]),
    )
  })

  it.each(['qwen2', 'internlm2', 'phi3'])(
    '%s: saved in one file and in shards, and in the layout of transformers',
    async (kind) => {
      const base = configOf(kind === 'phi3' ? 'phi3' : 'qwen2')
      const llmConfig =
        kind === 'internlm2' ? { ...base.llmConfig, modelType: 'internlm2' as const, bias: false } : base.llmConfig
      const model = InternVL.fromConfig({ ...base, llmConfig, template: 'Hermes-2' }, { seed: 5 }).eval()
      const { pixelValues, inputIds, attentionMask } = open('qwen2').inputs
      const answer = async (network: InternVL) =>
        get((await network.forward({ pixelValues, inputIds, attentionMask })).logits)
      const expected = await answer(model)
      for (const maxShardBytes of [1e9, 10_000]) {
        const to = join(directory, `${kind}-${maxShardBytes}`)
        await model.save(to, { maxShardBytes })
        expect(readdirSync(to).some((name) => name.endsWith('index.json'))).toBe(maxShardBytes < 1e6)
        const again = await InternVL.fromPretrained(to)
        expect((await answer(again)).equal(expected)).toBe(true)
        expect(again.config).toMatchObject({ template: 'Hermes-2', imgContextTokenId: IMAGE })
        expect(Object.keys(again.stateDict())).toEqual(Object.keys(model.stateDict()))
      }
      const port = join(directory, `${kind}-port`)
      await model.save(port, { layout: 'transformers' })
      const written = JSON.parse(readFileSync(join(port, 'config.json'), 'utf8'))
      expect(written).toMatchObject({ model_type: 'internvl', image_token_id: IMAGE })
      // transformers refuses one that is written as a whole number.
      expect(written.vision_config.layer_scale_init_value).toBe(0.1)
      const whole = InternVL.fromConfig({ ...base, visionConfig: { ...base.visionConfig, initializerFactor: 1 } })
      await whole.save(join(directory, `${kind}-whole`), { layout: 'transformers' })
      const other = JSON.parse(readFileSync(join(directory, `${kind}-whole`, 'config.json'), 'utf8'))
      expect(other.vision_config).not.toHaveProperty('layer_scale_init_value')
      const again = await InternVL.fromPretrained(port)
      expect(again.config.llmConfig.modelType).toBe(kind === 'internlm2' ? 'llama' : kind)
      expectClose(await answer(again), expected, 1e-5)
    },
  )

  it('takes the id of <IMG_CONTEXT> from the tokenizer, and says what a folder lacks', async () => {
    const { model } = open('qwen2')
    const to = join(directory, 'ids')
    model.config.imgContextTokenId = null
    await model.save(to)
    expect((await InternVL.fromPretrained(to)).config.imgContextTokenId).toBeNull()
    writeFileSync(join(to, 'added_tokens.json'), JSON.stringify({ '<img>': 24, '</img>': 25, '<IMG_CONTEXT>': 26 }))
    expect((await InternVL.fromPretrained(to)).config.imgContextTokenId).toBe(26)
    const config = JSON.parse(readFileSync(join(to, 'config.json'), 'utf8'))
    expect(config).toMatchObject({ model_type: 'internvl_chat', llm_config: { architectures: ['Qwen2ForCausalLM'] } })
    writeFileSync(
      join(to, 'config.json'),
      JSON.stringify({ ...config, llm_config: { ...config.llm_config, num_hidden_layers: 3 } }),
    )
    const load = InternVL.fromPretrained(to)
    await expect(load).rejects.toThrow(CheckpointError)
    await expect(load).rejects.toThrow(/language_model\.model\.layers\.2/)
    await expect(DecoderLM.fromPretrained(to)).rejects.toThrow(
      /model_type: expected 'llama' for DecoderLM, got "internvl_chat"\. Load it with InternVL/,
    )
  })

  it('takes changes of a part, and packs the layers of the language model', async () => {
    const { model, inputs } = open('qwen2')
    const to = join(directory, 'changes')
    await model.save(to)
    const again = await InternVL.fromPretrained(to, { config: { llmConfig: { attentionDropout: 0.25 } } })
    expect(again.config.llmConfig).toMatchObject({ attentionDropout: 0.25, vocabSize: 29, modelType: 'qwen2' })
    expect(again.config.imgContextTokenId).toBe(IMAGE)
    const packed = await InternVL.fromPretrained(to, { quantize: 'int8' })
    const paths = packed.namedModules().flatMap(([path, module]) => (quantizationOf(module) ? [path] : []))
    expect(paths.length).toBe(14)
    expect(paths.every((path) => path.startsWith('language_model.model.layers.'))).toBe(true)
    const [a, b] = [
      await model.forward({ ...inputs, logitsToKeep: 0 }),
      await packed.forward({ ...inputs, logitsToKeep: 0 }),
    ]
    expectClose(get(b.logits), get(a.logits), 0.05)
    await expect(packed.save(join(directory, 'no'), { layout: 'transformers' })).rejects.toThrow(
      /expected weights without quantization/,
    )
  })

  it('reads what transformers writes, and writes what it reads', async () => {
    const answers = await fixture('models/internvl-pretrained')
    const inputs = camelKeys(tensorsOf(answers, 'internvl-port', 'in')) as Record<
      'inputIds' | 'attentionMask' | 'pixelValues',
      Tensor
    >
    const expected = get(tensorsOf(answers, 'internvl-port', 'out').logits)
    const folder = fixturePath('models/internvl-port')
    const model = await InternVL.fromPretrained(folder)
    const real = inputs.attentionMask.to({ dtype: 'float32' })
    expectClose(atReal(get((await model.forward(inputs)).logits), real, 1), expected)
    const to = join(directory, 'port')
    await model.save(to, { layout: 'transformers' })
    const [ours, theirs] = [
      await loadSafetensors(join(to, 'model.safetensors')),
      await loadSafetensors(join(folder, 'model.safetensors')),
    ]
    expect(Object.keys(ours.tensors).sort()).toEqual(Object.keys(theirs.tensors).sort())
    for (const [name, value] of Object.entries(theirs.tensors))
      expect(get(ours.tensors[name]).equal(value), name).toBe(true)
    const [a, b] = [to, folder].map((from) => JSON.parse(readFileSync(join(from, 'config.json'), 'utf8')))
    for (const key of ['vision_config', 'text_config']) {
      for (const [name, value] of Object.entries(a[key])) {
        if (name in b[key]) expect(value, name).toEqual(b[key][name])
      }
    }
    const vit = await InternViT.fromPretrained(join(directory, 'qwen2-1000000000')).catch((error) => error)
    expect(vit).toBeInstanceOf(CheckpointError)
  })
})

it('refuses configurations that contradict themselves', () => {
  const refused = (change: object, message: RegExp) => {
    const make = () => new InternVL({ ...configOf('qwen2'), ...change } as InternVLConfig)
    expect(make).toThrow(ConfigError)
    expect(make).toThrow(message)
  }
  const vision = (change: object) => ({ visionConfig: { ...configOf('qwen2').visionConfig, ...change } })
  refused({ downsampleRatio: 0.3 }, /downsampleRatio/)
  refused({ downsampleRatio: 1 / 3 }, /expected 4 x 4 patches to divide into squares of .*, got squares of 3/)
  refused({ psVersion: 'v3' }, /psVersion/)
  refused({ selectLayer: 3 }, /expected a layer of the 2 of the vision encoder/)
  refused({ imgContextTokenId: -1 }, /imgContextTokenId/)
  refused({ llmConfig: { architectures: ['GPT2LMHeadModel'] } }, /GPT2LMHeadModel/)
  refused({ llmConfig: { architectures: ['LlamaForCausalLM'], modelType: 'qwen2' } }, /LlamaForCausalLM/)
  refused({ llmConfig: 7 }, /llmConfig/)
  refused(vision({ normType: 'batch_norm' }), /norm_type/)
  refused(vision({ numAttentionHeads: 3 }), /num_attention_heads/)
  refused(vision({ patchSize: 3 }), /patch_size|squares/)
  refused(vision({ dropPathRate: 1 }), /drop_path_rate/)
  expect(() => InternVL.fromConfig('internvl9')).toThrow(/internvl2-1b/)
})

it('drops layers of the vision part while it trains alone, and is still when frozen', async () => {
  const base = configOf('qwen2')
  const model = new InternVL({
    ...base,
    visionConfig: { ...base.visionConfig, dropPathRate: 0.5, initializerFactor: 1 },
  })
  const { pixelValues } = open('qwen2').inputs
  const encode = () => model.encodeImages(pixelValues)
  model.train()
  const seen = [await encode(), await encode(), await encode(), await encode()]
  expect(seen.some((one) => !one.equal(get(seen[0])))).toBe(true)
  model.vision_model.freeze()
  model.train()
  expect((await encode()).equal(await encode())).toBe(true)
})

it('leaves nothing behind', async () => {
  const before = await settledTensors()
  const model = new InternVL(configOf('qwen2')).eval()
  await scope(async () => {
    const { pixelValues, inputIds, attentionMask } = open('qwen2').inputs
    await model.forward({ pixelValues, inputIds, attentionMask })
    await model.generate(
      { inputIds: inputIds.narrow(0, 0, 1), pixelValues: pixelValues.narrow(0, 0, 2) },
      { maxNewTokens: 2 },
    )
  })
  model.dispose()
  expect(await settledTensors()).toBeLessThanOrEqual(before)
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})
