import { afterEach, describe, expect, it, vi } from 'vitest'
import {
  DecoderLM,
  type DecoderLMConfig,
  type GenerateOptions,
  type GenerationConfig,
  getPeftModel,
  KvCache,
  noGrad,
  quantize,
  type Tensor,
  tensor,
} from '../../../lib/index.js'
import { op } from '../../../lib/native/call.js'
import { dequantizeLayer } from '../../../lib/peft/index.js'
import { expectClose } from '../../helpers.js'
import { counted, counts } from './counts.js'

const refuseGraphs = op('pretended_cuda::refuse_graphs')

const CONFIG: DecoderLMConfig = {
  ...{ modelType: 'llama', vocabSize: 97, hiddenSize: 64, intermediateSize: 96 },
  ...{ numHiddenLayers: 2, numAttentionHeads: 4, initializerRange: 0.2 },
}
type Where = 'cpu' | 'cuda'
/** The same network on either device. */
const network = (config: DecoderLMConfig, device: Where) =>
  DecoderLM.fromConfig({ ...CONFIG, ...config }, { device, seed: 3 }).eval()

const PROMPTS = [
  [3, 14, 15, 92, 65],
  [35, 89, 79, 32, 38],
  [46, 26, 43, 38, 32],
]
const REAL = [
  [0, 0, 1, 1, 1],
  [1, 1, 1, 1, 1],
  [0, 1, 1, 1, 1],
]
const int64 = (values: number[][]) => tensor(values, { dtype: 'int64', device: 'cpu' })
const inputIds = int64(PROMPTS)
const attentionMask = int64(REAL)
const ENDLESS = { eosTokenId: [] as number[], padTokenId: 1 }

interface Case {
  config?: DecoderLMConfig
  change?: (model: DecoderLM) => unknown
  inputs?: { inputIds: Tensor; attentionMask?: Tensor }
  generation?: GenerationConfig
  options?: GenerateOptions
}

const qwen: DecoderLMConfig = {
  ...{ modelType: 'qwen2', numKeyValueHeads: 2, tieWordEmbeddings: true },
  ...{ useSlidingWindow: true, slidingWindow: 4, maxWindowLayers: 1 },
}
const phi3: DecoderLMConfig = { modelType: 'phi3', numKeyValueHeads: 2 }
const factors: DecoderLMConfig = {
  originalMaxPositionEmbeddings: 9,
  ropeScaling: {
    type: 'longrope',
    shortFactor: Array.from({ length: 8 }, (_, i) => 1 + i / 20),
    longFactor: Array.from({ length: 8 }, (_, i) => 1 + i / 3),
  },
}
const internlm2: DecoderLMConfig = {
  ...{ modelType: 'internlm2', numKeyValueHeads: 2, bias: false },
  ropeScaling: { type: 'dynamic', factor: 2 },
}
const TARGETS = ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj']
function adapted(model: DecoderLM, targetModules = TARGETS): void {
  getPeftModel(model, { r: 4, loraAlpha: 8, targetModules })
  // By a formula, so that both devices have the same.
  for (const parameter of model.parameters().filter(({ requiresGrad }) => requiresGrad)) {
    const values = Array.from({ length: parameter.numel() }, (_, i) => 0.1 * Math.sin(i * 0.7))
    noGrad(() => parameter.copy_(tensor(values, { device: parameter.device as 'cpu' }).view(parameter.shape)))
  }
}

const CASES: Record<string, Case> = {
  'one row': { inputs: { inputIds: inputIds.narrow(0, 0, 1) } },
  'several rows': {},
  'rows with padding before them': { inputs: { inputIds, attentionMask } },
  'a sliding window': { config: { modelType: 'mistral', slidingWindow: 3, numKeyValueHeads: 2 } },
  'a sliding window and padding': {
    config: { modelType: 'mistral', slidingWindow: 3, numKeyValueHeads: 2 },
    inputs: { inputIds, attentionMask },
  },
  'shared keys, biases, a tied head, windows of some layers': { config: qwen },
  'biases everywhere and another activation': {
    config: { attentionBias: true, mlpBias: true, hiddenAct: 'gelu_pytorch_tanh', numKeyValueHeads: 1 },
  },
  'scaled angles': {
    config: {
      ropeScaling: {
        ...{ type: 'llama3', factor: 8, lowFreqFactor: 1, highFreqFactor: 4, originalMaxPositionEmbeddings: 16 },
      },
    },
  },
  'angles that depend on the length': {
    config: { ropeScaling: { type: 'dynamic', factor: 2 }, maxPositionEmbeddings: 8 },
  },
  'one projection for queries, keys and values, one for gate and up': { config: phi3 },
  'factors of angles that change on the way': { config: { ...phi3, ...factors } },
  'factors that change, and padding': { config: { ...phi3, ...factors }, inputs: { inputIds, attentionMask } },
  'projections by group': { config: internlm2 },
  'projections by group, and padding': { config: internlm2, inputs: { inputIds, attentionMask } },
  'joined projections in NF4 with adapters': {
    config: phi3,
    change: (model) => {
      quantize(model, { scheme: 'nf4' })
      adapted(model, ['qkv_proj', 'o_proj', 'gate_up_proj', 'down_proj'])
    },
  },
  'projections by group in NF4 with adapters': {
    config: internlm2,
    change: (model) => {
      quantize(model, { scheme: 'nf4' })
      adapted(model, ['wqkv', 'wo', 'w1', 'w2', 'w3'])
    },
  },
  'more rows than a kernel of few rows takes': { inputs: { inputIds: int64([...PROMPTS, ...PROMPTS, ...PROMPTS]) } },
  NF4: { change: (model) => quantize(model, { scheme: 'nf4', blockSize: 64 }) },
  'NF4 with packed scales': { change: (model) => quantize(model, { scheme: 'nf4', doubleQuant: true }) },
  int8: {
    change: (model) => {
      quantize(model, { scheme: 'int8' })
      // There inputs are rounded to 8 bits too; CUDA multiplies with the codes' values.
      if (model.parameters()[0]?.device === 'cpu') for (const layer of model.modules()) dequantizeLayer(layer)
    },
  },
  'an adapter of all projections': { change: (model) => adapted(model) },
  'NF4 and an adapter': {
    change: (model) => {
      quantize(model, { scheme: 'nf4' })
      adapted(model)
    },
  },
  'processed scores': { generation: { repetitionPenalty: 1.3, noRepeatNgramSize: 2 } },
  'sampled tokens': {
    generation: { doSample: true, temperature: 0.8, topK: 20 },
    options: {
      uniforms: tensor(
        Array.from({ length: 12 }, (_, i) => PROMPTS.map((_, j) => ((i * 37 + j * 11) % 100) / 100)),
        { dtype: 'float64', device: 'cpu' },
      ),
    },
  },
  beams: { generation: { numBeams: 3 } },
  'beams over padding': { generation: { numBeams: 3 }, inputs: { inputIds, attentionMask } },
  'a draft of what follows': {
    inputs: { inputIds: inputIds.narrow(0, 0, 1) },
    generation: { promptLookupNumTokens: 3 },
  },
}

async function made({ config = {}, change }: Case, device: Where): Promise<DecoderLM> {
  const model = network(config, device)
  await change?.(model)
  return model
}

const generation = (one: Case): GenerationConfig => ({ maxNewTokens: 12, ...ENDLESS, ...one.generation })

describe('a token on CUDA', () => {
  it.each(Object.entries(CASES))('is the one of the CPU with %s', async (_, one) => {
    const inputs = one.inputs ?? { inputIds }
    const config = generation(one)
    const [cpu, cuda] = [await made(one, 'cpu'), await made(one, 'cuda')]
    const wanted = await cpu.generate(inputs, { ...config, outputLogits: true }, one.options)
    const got = await cuda.generate(inputs, { ...config, outputLogits: true }, one.options)
    expect(got.tokens).toEqual(wanted.tokens)
    expectClose(got.logits as Tensor, wanted.logits as Tensor)
    // Without logits the next token is computed before this one is known.
    expect((await cuda.generate(inputs, config, one.options)).tokens).toEqual(wanted.tokens)
  })

  it('is the one of the CPU where rows end at different times, and what is in the cache is too', async () => {
    const [cpu, cuda] = [network({}, 'cpu'), network({}, 'cuda')]
    const free = await cpu.generate({ inputIds, attentionMask }, { maxNewTokens: 12, ...ENDLESS })
    // Tokens that rows write at different places.
    const eosTokenId = [free.tokens[0]?.[3] as number, free.tokens[1]?.[6] as number]
    const turns = async (model: DecoderLM, keep: boolean) => {
      using cache = new KvCache()
      const said: unknown[] = []
      let mask: Tensor | undefined = attentionMask
      for (const ids of [
        PROMPTS,
        [[7], [8], [9]],
        [
          [5, 6],
          [7, 8],
          [9, 10],
        ],
      ]) {
        const inputs = { inputIds: int64(ids), ...(mask ? { attentionMask: mask } : {}), ...(keep ? { cache } : {}) }
        const output = await model.generate(inputs, { maxNewTokens: 9, eosTokenId, padTokenId: 1 })
        said.push(output.tokens, output.finishReasons, output.attentionMask?.toArray(), cache.length)
        if (!keep) break
        const more = tensor(ids.map((row) => row.map(() => 1)).slice(0, 3), { dtype: 'int64', device: 'cpu' })
        mask = joined(output.attentionMask as Tensor, more.narrow(1, 0, 1), said.length === 4 ? 1 : 2)
      }
      return said
    }
    for (const keep of [false, true]) expect(await turns(cuda, keep)).toEqual(await turns(cpu, keep))
    expect(new Set(free.finishReasons)).toEqual(new Set(['length']))
  })

  it('is read by nobody who leaves the stream before it', async () => {
    const left = async (device: Where) => {
      using cache = new KvCache()
      const model = network({}, device)
      const seen: unknown[] = []
      for await (const { step, tokens } of model.stream({ inputIds, cache }, { maxNewTokens: 12, ...ENDLESS })) {
        seen.push(tokens, cache.length)
        if (step === 3) break
      }
      const more = await model.forward({ inputIds: int64([[1], [2], [3]]).to(device), cache })
      return { seen, length: cache.length, logits: more.logits as Tensor }
    }
    const [cpu, cuda] = [await left('cpu'), await left('cuda')]
    expect(cuda.seen).toEqual(cpu.seen)
    expect(cuda.length).toBe(cpu.length)
    expectClose(cuda.logits, cpu.logits)
  })
})

/** A mask with `count` more columns of ones. */
function joined(mask: Tensor, column: Tensor, count: number): Tensor {
  const rows = mask.toArray() as number[][]
  const ones = Array.from({ length: count }, () => 1)
  expect(column.shape[0]).toBe(rows.length)
  return int64(rows.map((row) => [...row, ...ones]))
}

/** What one more token costs, by runs of 10 and of 20 that both capture a graph. */
async function perToken(model: DecoderLM, config: GenerationConfig = {}, prompt: Tensor = inputIds.narrow(0, 0, 1)) {
  const ids = prompt.to('cuda')
  const write = (count: number) =>
    counted(() => model.generate({ inputIds: ids }, { maxNewTokens: count, ...ENDLESS, ...config }))
  await write(2)
  const [less, more] = [await write(10), await write(20)]
  const each = (name: 'launches' | 'replayed' | 'waits' | 'mainThreadWaits' | 'bytesToDevice' | 'bytesToHost') =>
    (more[name] - less[name]) / 10
  return {
    launches: each('launches'),
    replayed: each('replayed'),
    waits: each('waits'),
    mainThreadWaits: each('mainThreadWaits'),
    bytesToDevice: each('bytesToDevice'),
    bytesToHost: each('bytesToHost'),
    captures: more.captures,
  }
}

const WEIGHTS: Record<string, { dtype?: 'bfloat16'; most: number; change?: (model: DecoderLM) => unknown }> = {
  float32: { most: 8 },
  bfloat16: { most: 8, dtype: 'bfloat16' },
  int8: { most: 8, change: (model) => quantize(model, { scheme: 'int8' }) },
  NF4: { most: 8, change: (model) => quantize(model, { scheme: 'nf4', doubleQuant: true }) },
  // A joined product with adapters takes a second launch, for what goes through their ranks.
  'LoRA of all seven': { most: 12, change: adapted },
  'NF4 and LoRA of all seven': {
    most: 12,
    change: (model) => {
      quantize(model, { scheme: 'nf4' })
      adapted(model)
    },
  },
}

async function weighed(name: string, numHiddenLayers: number): Promise<DecoderLM> {
  const { dtype, change } = WEIGHTS[name] as (typeof WEIGHTS)[string]
  const model = network({ numHiddenLayers }, 'cuda')
  if (dtype) model.to({ dtype })
  await change?.(model)
  return model
}

describe('the cost of a token on CUDA', () => {
  it.each(Object.entries(WEIGHTS))('is at most the launches of a layer with %s', async (name, { most }) => {
    const [one, four] = [await perToken(await weighed(name, 1)), await perToken(await weighed(name, 4))]
    expect((four.replayed - one.replayed) / 3).toBeLessThanOrEqual(most)
    // The graph, the ids that go into it, the choice, and its copy to the host.
    expect(four.launches).toBe(4)
    expect(four.captures).toBe(1)
  })

  it.each(Object.keys(WEIGHTS))('is one wait with %s, and not of the event loop', async (name) => {
    const cost = await perToken(await weighed(name, 2))
    expect(cost).toMatchObject({ waits: 1, mainThreadWaits: 0, bytesToDevice: 0, bytesToHost: 8 })
  })

  it.each([
    ['processed', { repetitionPenalty: 1.3 }],
    ['sampled', { doSample: true }],
    ['of beams', { numBeams: 3 }],
    ['of several answers', { doSample: true, numReturnSequences: 3 }],
  ] as [string, GenerationConfig][])('is one wait where it is %s', async (_, config) => {
    const cost = await perToken(await weighed('float32', 2), config)
    expect(cost.waits).toBe(1)
    expect(cost.mainThreadWaits).toBe(0)
    // Ids, and with beams at most two numbers for each row that moves.
    expect(cost.bytesToDevice).toBeLessThanOrEqual(3 * 3 * 8)
  })
})

describe('the graph of a token', () => {
  afterEach(() => refuseGraphs(false))
  const outputs = (model: DecoderLM, count = 12) =>
    model.generate({ inputIds, attentionMask }, { maxNewTokens: count, ...ENDLESS, outputLogits: true })

  it('is not needed: where it cannot be captured the kernels are launched, and that is said', async () => {
    const model = network({}, 'cuda')
    const { tokens } = await outputs(model)
    refuseGraphs(true)
    const said: string[] = []
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void said.push(String(warning)))
    const cost = await counted(async () => expect((await outputs(model)).tokens).toEqual(tokens))
    warn.mockRestore()
    expect(said).toEqual([
      'a token of DecoderLM is not captured as a graph, but each kernel launched: CUDA error: operation not supported',
    ])
    expect(cost.launchesBy.graph).toBeUndefined()
  })

  it.each(Object.keys(WEIGHTS))('gives the bits that its launches give, with %s', async (name) => {
    const model = await weighed(name, 2)
    const replayed = (await outputs(model)).logits as Tensor
    expect(counts().captures).toBeGreaterThan(0)
    refuseGraphs(true)
    const launched = (await outputs(model)).logits as Tensor
    expect(replayed.to('cpu').toArray()).toEqual(launched.to('cpu').toArray())
  })

  it('is captured anew when rows are dropped or an adapter comes, and not else', async () => {
    const model = network({}, 'cuda')
    const { tokens } = await outputs(model)
    const captures = async (run: () => unknown) => (await counted(run)).captures
    expect(await captures(() => outputs(model, 40))).toBe(1)
    const eosTokenId = [tokens[0]?.[4] as number]
    const dropping = { maxNewTokens: 12, eosTokenId, padTokenId: 1 }
    expect(await captures(() => model.generate({ inputIds, attentionMask }, dropping))).toBe(2)
    const attached = async () => {
      let step = 0
      for await (const _ of model.stream({ inputIds }, { maxNewTokens: 12, ...ENDLESS })) {
        if (++step === 6) adapted(model)
      }
    }
    expect(await captures(attached)).toBe(2)
  })

  it('gives back its memory with the generation', async () => {
    const model = network({}, 'cuda')
    await outputs(model)
    const before = counts().liveBytes
    for (let i = 0; i < 3; i++) await model.generate({ inputIds }, { maxNewTokens: 8, ...ENDLESS })
    expect(counts().liveBytes).toBe(before)
  })
})
