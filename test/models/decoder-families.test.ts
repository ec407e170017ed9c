import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  ContinuousBatching,
  DecoderLM,
  type DecoderLMConfig,
  getPeftModel,
  loadSafetensors,
  manualSeed,
  noGrad,
  ops,
  randint,
  saveSafetensors,
  type Tensor,
} from '../../lib/index.js'
import { expectClose, tensorsOf } from '../helpers.js'
import { atReal, file, get, open } from './decoder.js'
import { FAMILIES } from './decoder-families.js'

// Each family of the table of families as a whole. Numbers of single passes are in decoder-lm.test.ts, of steps in decoder-step.test.ts.

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-families-'))
afterAll(() => rmSync(directory, { recursive: true }))

const TINY: DecoderLMConfig = {
  vocabSize: 61,
  hiddenSize: 32,
  intermediateSize: 40,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 16,
  maxPositionEmbeddings: 256,
}

function made(modelType: string, config: DecoderLMConfig): DecoderLM {
  manualSeed(11)
  const model = new DecoderLM({ ...TINY, ...config, modelType } as DecoderLMConfig).eval()
  noGrad(() => {
    for (const parameter of model.parameters()) if (parameter.dim() === 2) parameter.mul_(8)
  })
  return model
}

const ENDLESS = { eosTokenId: null, padTokenId: 0 }

describe.each(Object.entries(FAMILIES))('%s', (modelType, config) => {
  const cases = file.cases.filter(({ config }) => config.model_type === modelType).map(({ name }) => name)

  it("generates transformers' greedy tokens, of a batch padded on the left too", async () => {
    expect(cases.length).toBeGreaterThan(1)
    for (const name of cases) {
      const { model, inputs, prompts, expected } = open(name)
      if (!inputs.inputIds) continue
      if (prompts) {
        const { tokens } = await model.generate({ inputIds: prompts }, { ...ENDLESS, maxNewTokens: 12 })
        expect(tokens, name).toEqual(get(expected.prompted).toArray())
      }
      const { inputIds, attentionMask } = inputs
      const { tokens } = await model.generate({ inputIds, attentionMask }, { ...ENDLESS, maxNewTokens: 12 })
      expect(tokens, name).toEqual(get(expected.tokens).toArray())
    }
  })

  it("is read from files in transformers' layout, and written to them", async () => {
    for (const name of cases) {
      const { real, inputs, expected } = open(name)
      const { config } = get(file.cases.find((one) => one.name === name))
      const [from, to] = [join(directory, `${name}-from`), join(directory, `${name}-to`)]
      mkdirSync(from)
      writeFileSync(join(from, 'config.json'), JSON.stringify(config))
      const parameters = tensorsOf(file, name, 'param')
      await saveSafetensors(join(from, 'model.safetensors'), parameters)
      const model = await DecoderLM.fromPretrained(from)
      const { logits } = await model.forward({ ...inputs, logitsToKeep: 0 })
      expectClose(atReal(get(logits), real, 1), get(expected.logits), 1e-5, name)
      await model.save(to)
      const saved = JSON.parse(readFileSync(join(to, 'config.json'), 'utf8')) as Record<string, unknown>
      expect(saved).toMatchObject(config)
      const { tensors } = await loadSafetensors(join(to, 'model.safetensors'))
      expect(Object.keys(tensors).sort()).toEqual(Object.keys(parameters).sort())
      for (const [key, value] of Object.entries(parameters)) expect(get(tensors[key]).equal(value), key).toBe(true)
    }
  })

  it('says the same of texts alone, in a padded batch, in a stream and in passes that they share', async () => {
    const model = made(modelType, config)
    const texts = [randint(1, 61, [1, 12]), randint(1, 61, [1, 3]), randint(1, 61, [1, 9])]
    const settings = { ...ENDLESS, maxNewTokens: 12 }
    const alone: number[][] = []
    for (const inputIds of texts) alone.push(get((await model.generate({ inputIds }, settings)).tokens[0]))
    expect(new Set(alone.flat()).size).toBeGreaterThan(3)
    const pad = (text: Tensor) => ops.cat([ops.zeros([1, 12 - text.size(1)], { dtype: 'int64' }), text], 1)
    const inputIds = ops.cat(texts.map(pad), 0)
    const attentionMask = inputIds.ne(0).to({ dtype: 'int64' })
    expect((await model.generate({ inputIds, attentionMask }, settings)).tokens).toEqual(alone)
    const streamed: (number | null)[] = []
    for await (const { tokens } of model.stream({ inputIds: get(texts[0]) }, settings)) {
      streamed.push(get(tokens)[0] ?? null)
    }
    expect(streamed).toEqual(alone[0])
    using batching = new ContinuousBatching(model)
    const together = await Promise.all(texts.map((inputIds) => model.generate({ inputIds }, settings, { batching })))
    expect(together.map(({ tokens }) => tokens[0])).toEqual(alone)
  })

  it('has the logits of whole passes in steps with LoRA, merged too', async () => {
    const model = made(modelType, config)
    const attention = ['q_proj', 'k_proj', 'v_proj', 'o_proj']
    const targetModules = [...attention, 'gate_proj', 'up_proj', 'down_proj', 'gate', 'w1', 'w2', 'w3']
    const peft = getPeftModel(model, { r: 2, loraAlpha: 8, targetModules, initLoraWeights: false })
    const inputIds = randint(1, 61, [2, 7])
    const settings = { ...ENDLESS, maxNewTokens: 5, outputLogits: true }
    const { sequences, logits } = await model.eval().generate({ inputIds }, settings)
    const read = { inputIds: sequences.narrow(1, 0, 11), logitsToKeep: 5 }
    const whole = get((await model.forward(read)).logits)
    expectClose(get(logits).transpose(0, 1), whole, 1e-5, 'steps')
    const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
    const targeted = model.namedModules().filter(([path]) => targetModules.some((name) => path.endsWith(`.${name}`)))
    expect(trained.length).toBe(2 * targeted.length)
    expect(trained.length).toBeGreaterThanOrEqual(2 * 2 * (attention.length + 3))
    const { loss } = await model.forward({ inputIds, labels: inputIds })
    await get(loss).backward()
    for (const [name, { grad }] of trained) {
      // An expert without tokens has no gradient.
      if (grad === null) expect(name).toContain('.experts.')
      else expect(grad.abs().max().item(), name).toBeGreaterThan(0)
    }
    peft.mergeAdapter()
    expectClose(get((await model.forward(read)).logits), whole, 1e-5, 'merged')
  })
})

it('writes numbers with a decimal point where transformers 5 refuses integers', async () => {
  const to = join(directory, 'floats')
  await made('gemma2', { ...FAMILIES.gemma2, finalLogitSoftcapping: 30, initializerRange: 1 }).save(to)
  const gemma = readFileSync(join(to, 'config.json'), 'utf8')
  expect(gemma).toContain('"final_logit_softcapping": 30.0,')
  expect(gemma).toContain('"initializer_range": 1.0,')
  expect(gemma).toContain('"hidden_size": 32,')
  await made('mixtral', { ...FAMILIES.mixtral, routerJitterNoise: 0, routerAuxLossCoef: 1 }).save(to)
  const mixtral = readFileSync(join(to, 'config.json'), 'utf8')
  expect(mixtral).toContain('"router_jitter_noise": 0.0,')
  expect(mixtral).toContain('"router_aux_loss_coef": 1.0,')
})

it('lists the tensors of experts that a file lacks, and those of none', async () => {
  const model = made('qwen3_moe', FAMILIES.qwen3_moe)
  const to = join(directory, 'lacking')
  await model.save(to)
  const { tensors } = await loadSafetensors(join(to, 'model.safetensors'))
  const lacking = 'model.layers.1.mlp.experts.3.up_proj.weight'
  const extra = 'model.layers.1.mlp.experts.6.up_proj.weight'
  const { [lacking]: found, ...rest } = tensors
  await saveSafetensors(join(to, 'model.safetensors'), { ...rest, [extra]: get(found) })
  await expect(DecoderLM.fromPretrained(to)).rejects.toMatchObject({ missing: [lacking], unexpected: [extra] })
})

describe('a configuration is refused by name', () => {
  it.each<[string, object, RegExp]>([
    ['qwen3', { layerTypes: 'full_attention' }, /layerTypes: expected a list, got "full_attention"/],
    ['qwen3', { layerTypes: ['full_attention'] }, /layerTypes: expected 2 elements, one for each layer, got 1/],
    [
      'qwen3',
      { layerTypes: ['full_attention', 'chunked'] },
      /layerTypes\[1\]: expected 'full_attention' or 'sliding_attention', got "chunked"/,
    ],
    [
      'qwen3',
      { layerTypes: ['full_attention', 'sliding_attention'] },
      /layerTypes\[1\]: expected 'full_attention' without a slidingWindow that is used/,
    ],
    ['qwen3', { useSlidingWindow: 'yes' }, /use_sliding_window/],
    ['qwen3', { useSlidingWindow: true, slidingWindow: -3 }, /sliding_window must be above 0, got -3/],
    ['qwen3', { attentionBias: 1 }, /attention_bias/],
    ['qwen3', { mlpBias: true }, /mlpBias false/],
    ['qwen3', { hiddenAct: 'softsign' }, /expected hiddenAct "gelu" or .*, got "?'?softsign/],
    ['olmo2', { attentionBias: 'no' }, /attention_bias/],
    ['olmo2', { mlpBias: true }, /mlpBias false/],
    ['smollm3', { noRopeLayers: [1] }, /no_rope_layers must have 2 elements, one for each layer, got 1/],
    ['smollm3', { noRopeLayers: 'all' }, /no_rope_layers/],
    ['smollm3', { noRopeLayerInterval: 0 }, /no_rope_layer_interval must be above 0, got 0/],
    ['smollm3', { noRopeLayerInterval: 1.5 }, /no_rope_layer_interval/],
    ['granite', { logitsScaling: 0 }, /expected logitsScaling to be a finite number above 0, got 0/],
    ['granite', { embeddingMultiplier: '12' }, /expected embeddingMultiplier to be a finite number above 0, got "12"/],
    ['granite', { residualMultiplier: Number.NaN }, /residualMultiplier/],
    ['granite', { attentionMultiplier: -1 }, /attentionMultiplier/],
    ['gemma2', { slidingWindow: null }, /expected slidingWindow to be a finite number above 0, got null/],
    ['gemma2', { queryPreAttnScalar: 0 }, /expected queryPreAttnScalar to be a finite number above 0, got 0/],
    ['gemma2', { attnLogitSoftcapping: -1 }, /attnLogitSoftcapping/],
    ['gemma2', { finalLogitSoftcapping: 'none' }, /finalLogitSoftcapping/],
    ['gemma2', { useBidirectionalAttention: true }, /useBidirectionalAttention false/],
    ['gemma2', { hiddenActivation: 'softsign' }, /expected hiddenActivation "gelu" or .*, got "?'?softsign/],
    ['gemma3_text', { slidingWindow: 0 }, /expected slidingWindow to be a finite number above 0, got 0/],
    ['gemma3_text', { slidingWindowPattern: 0 }, /sliding_window_pattern must be above 0, got 0/],
    [
      'gemma3_text',
      { ropeParameters: { ropeTheta: 5 } },
      /ropeParameters: expected a key of its configuration, got 'ropeTheta'/,
    ],
    [
      'gemma3_text',
      { ropeScaling: { ropeType: 'dynamic', factor: 2 } },
      /not supported with a RoPE of windowed layers/,
    ],
    ['gemma3_text', { layerTypes: ['full_attention', 'chunked'] }, /layerTypes\[1\]/],
    ['phi3', { lmHeadBias: true, padTokenId: 0 }, /lmHeadBias false, got true/],
    ['ministral', { layerTypes: ['full_attention'] }, /layerTypes: expected 2 elements, one for each layer, got 1/],
    [
      'ministral',
      { slidingWindow: null, layerTypes: ['full_attention', 'sliding_attention'] },
      /layerTypes\[1\]: expected 'full_attention' without a slidingWindow that is used/,
    ],
    ['ministral', { attentionBias: true }, /attentionBias false/],
    [
      'ministral3',
      { ropeParameters: { ropeType: 'yarn', factor: 2, llama4ScalingBeta: 0.1 } },
      /llama_4_scaling_beta needs original_max_position_embeddings above 0, got 0/,
    ],
    ['ministral3', { ropeParameters: { llama4ScalingBeta: 'much' } }, /llama_4_scaling_beta/],
    ['mistral', { ropeParameters: { llama4ScalingBeta: 0.1 } }, /got 'llama4ScalingBeta'/],
    ['mixtral', { numLocalExperts: 0 }, /num_local_experts must be above 0, got 0/],
    ['mixtral', { numExpertsPerTok: 9 }, /num_experts_per_tok must be from 1 to num_local_experts, 8, got 9/],
    ['mixtral', { numExpertsPerTok: 1.5 }, /num_experts_per_tok/],
    ['mixtral', { routerJitterNoise: 0.1 }, /routerJitterNoise 0, got 0.1/],
    ['mixtral', { routerAuxLossCoef: 'much' }, /router_aux_loss_coef/],
    ['mixtral', { outputRouterLogits: 1 }, /output_router_logits/],
    ['qwen3_moe', { numExperts: 4, numLocalExperts: 8 }, /numLocalExperts: expected the value of numExperts, 4, got 8/],
    ['qwen3_moe', { decoderSparseStep: 0 }, /decoder_sparse_step must be above 0, got 0/],
    ['qwen3_moe', { mlpOnlyLayers: [2] }, /mlp_only_layers must have numbers of layers from 0 to 1, got 2/],
    ['qwen3_moe', { mlpOnlyLayers: 'all' }, /mlp_only_layers/],
    ['qwen3_moe', { normTopkProb: 'yes' }, /norm_topk_prob/],
    ['qwen3_moe', { moeIntermediateSize: 0 }, /moe_intermediate_size/],
  ])('%s %j', (modelType, config, message) => {
    const make = () => new DecoderLM({ ...TINY, ...config, modelType } as DecoderLMConfig)
    expect(make).toThrow(ConfigError)
    expect(make).toThrow(message)
  })
})
