import { afterEach, describe, expect, it } from 'vitest'
import {
  DecoderLM,
  type DecoderLMConfig,
  getNumThreads,
  getPeftModel,
  manualSeed,
  noGrad,
  ones,
  ops,
  profile,
  quantize,
  randint,
  scope,
  setNumThreads,
  type Tensor,
} from '../../lib/index.js'
import { expectAsNear, expectClose } from '../helpers.js'
import { get } from './decoder.js'
import { FAMILIES } from './decoder-families.js'
import { unpack, withIntegerInputs } from './unpacked.js'

// A token behind others, in one native step, against one pass over the whole text in float64.

const CONFIG = {
  vocabSize: 61,
  hiddenSize: 80,
  intermediateSize: 144,
  numHiddenLayers: 2,
  numAttentionHeads: 6,
  numKeyValueHeads: 2,
  headDim: 8,
  maxPositionEmbeddings: 512,
}

/** Larger weights than at a network's beginning: with those it would say much the same to all. */
function made(more: Partial<DecoderLMConfig> = {}, dtype: 'float32' | 'bfloat16' | 'float16' = 'float32'): DecoderLM {
  manualSeed(7)
  const model = new DecoderLM({ ...CONFIG, ...more }, { dtype }).eval()
  noGrad(() => {
    for (const [, parameter] of model.namedParameters()) {
      if (parameter.dim() === 2) parameter.mul_(6)
      else if (parameter.dim() === 1)
        parameter.add_(
          randint(0, 9, parameter.shape)
            .to({ dtype })
            .mul(1 / 32),
        )
    }
  })
  return model
}

const STEPS = 12

/** Ministral 3, whose queries have a scale from a position on. */
const scaledFrom = (originalMaxPositionEmbeddings: number): Partial<DecoderLMConfig> => ({
  modelType: 'ministral3',
  ropeParameters: { ...FAMILIES.ministral3.ropeParameters, originalMaxPositionEmbeddings },
})

interface Checked {
  rows?: number
  time?: number
  /** The later rows are texts that are padded on the left. */
  padded?: boolean
  /** The same network in float64. */
  exact: DecoderLM
  /** Whether a token after the prompt is computed in one step. Default true. */
  fused?: boolean | 'partly'
  /** One whose whole pass rounds as coarsely; without it the logits are those of `exact`, but for float32's roundings. */
  coarse?: DecoderLM
}

async function check(model: DecoderLM, { rows = 1, time = 9, padded = false, fused = true, exact, coarse }: Checked) {
  await scope(async () => {
    const inputIds = randint(0, CONFIG.vocabSize, [rows, time])
    const mask = ones([rows, time], { dtype: 'int64' })
    if (padded)
      noGrad(() =>
        mask
          .narrow(0, 1, rows - 1)
          .narrow(1, 0, 4)
          .fill_(0),
      )
    const attentionMask = padded ? mask : undefined
    const config = { outputLogits: true, eosTokenId: null }
    const generated = async (maxNewTokens: number) => {
      const run = () => model.generate({ inputIds, attentionMask }, { ...config, maxNewTokens })
      const { result, rows: operators } = await profile(run)
      return { ...result, norms: get(operators.find(({ name }) => name === 'voxtorch::rms_norm_residual')).calls }
    }
    const { logits, sequences, norms } = await generated(STEPS)
    // The prompt's pass alone is made of operators.
    const { norms: least } = await generated(1)
    if (fused === 'partly') {
      expect(norms).toBeGreaterThan(least)
      expect(norms).toBeLessThan(least * STEPS)
    } else {
      expect(norms).toBe(least * (fused ? 1 : STEPS))
    }
    const whole = ops.cat([mask, ones([rows, STEPS - 1], { dtype: 'int64' })], 1)
    const pass = async (network: DecoderLM) => {
      const passed = await network.forward({
        inputIds: sequences.narrow(1, 0, time + STEPS - 1),
        ...(padded ? { attentionMask: whole } : {}),
        logitsToKeep: STEPS,
      })
      return get(passed.logits).double().transpose(0, 1)
    }
    if (coarse) expectAsNear(get(logits), await pass(coarse), await pass(exact))
    else expectClose(get(logits).double(), await pass(exact))
  })
}

/** With a head of its own. */
function copied(model: DecoderLM, dtype: 'float32' | 'bfloat16' | 'float16' | 'float64'): DecoderLM {
  const copy = new DecoderLM({ ...model.config, tieWordEmbeddings: false }, { dtype }).eval()
  unpack(model, copy)
  return copy
}

const exactly = (model: DecoderLM): DecoderLM => copied(model, 'float64')

describe('a step on the CPU has the logits of a whole pass', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('%i rows, padded too', async (rows) => {
    const model = made()
    await check(model, { rows, exact: exactly(model) })
    if (rows > 1) await check(model, { rows, padded: true, exact: exactly(model) })
  })

  it.each<{ name: string; config: Partial<DecoderLMConfig>; time: number; fused?: Checked['fused'] }>([
    { name: 'a long past', config: {}, time: 300 },
    { name: 'a window', config: { modelType: 'mistral', slidingWindow: 5 }, time: 9 },
    { name: 'a window over a long past', config: { modelType: 'mistral', slidingWindow: 140 }, time: 290 },
    { name: 'biases of queries, keys and values', config: { modelType: 'qwen2' }, time: 9 },
    { name: 'biases everywhere', config: { attentionBias: true, mlpBias: true }, time: 9 },
    { name: 'a tied head', config: { tieWordEmbeddings: true }, time: 9 },
    {
      name: 'one projection for queries, keys and values, one for gate and up',
      config: { modelType: 'phi3' },
      time: 9,
    },
    { name: 'projections by group', config: { modelType: 'internlm2' }, time: 9 },
    { name: 'projections by group of one', config: { modelType: 'internlm2', numKeyValueHeads: 6 }, time: 130 },
    { name: 'as many key heads as heads', config: { numKeyValueHeads: 6, headDim: 20 }, time: 130 },
    { name: 'heads of 128', config: { numAttentionHeads: 2, numKeyValueHeads: 1, headDim: 128 }, time: 40 },
    { name: 'sizes that nothing divides', config: { hiddenSize: 75, intermediateSize: 37, headDim: 6 }, time: 9 },
    ...Object.entries(FAMILIES).map(([name, config]) => ({
      name,
      config: { ...config, modelType: name } as DecoderLMConfig,
      time: 130,
      fused: !('numExpertsPerTok' in config || name === 'ministral3'),
    })),
    { name: 'positions before queries get a scale', config: scaledFrom(64), time: 9 },
    { name: 'positions until queries get a scale', config: scaledFrom(16), time: 9, fused: 'partly' },
  ])('$name', async ({ config, time, fused }) => {
    const model = made(config)
    await check(model, { time, fused, exact: exactly(model) })
    await check(model, { time, fused, rows: 3, padded: true, exact: exactly(model) })
  })

  it.each(['silu', 'gelu', 'gelu_new', 'gelu_pytorch_tanh', 'quick_gelu', 'relu', 'tanh', 'mish'])(
    'with %s',
    async (hiddenAct) => {
      const model = made({ hiddenAct })
      await check(model, { exact: exactly(model) })
    },
  )

  it.each(['bfloat16', 'float16'] as const)('in %s', async (dtype) => {
    const model = made({}, dtype)
    for (const rows of [1, 8]) await check(model, { rows, exact: exactly(model), coarse: model })
  })

  it.each(['int8', 'nf4', 'q8_0', 'q4_0'] as const)('in %s', async (scheme) => {
    const config = {
      hiddenSize: 128,
      intermediateSize: 192,
      headDim: 32,
      numAttentionHeads: 4,
      tieWordEmbeddings: true,
    }
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      const model = made(config, dtype)
      const packed = quantize(model, { scheme })
      const exact = exactly(model)
      const coarse = copied(model, dtype)
      // All kinds but nf4 take inputs of 8 bits in a step. Blocks are the embeddings too, which are the head here.
      const layers = packed.map((path) => (path === 'model.embed_tokens' ? 'lm_head' : path))
      if (scheme !== 'nf4') withIntegerInputs(coarse, layers)
      const rounds = scheme !== 'nf4' || dtype !== 'float32'
      for (const rows of [1, 5]) await check(model, rounds ? { rows, exact, coarse } : { rows, exact })
    }
  })

  it.each([
    ['phi3', 'int8'],
    ['phi3', 'nf4'],
    ['phi3', 'q8_0'],
    ['internlm2', 'int8'],
    ['internlm2', 'nf4'],
    ['internlm2', 'q4_0'],
  ] as const)('%s with its joined projections in %s', async (modelType, scheme) => {
    const config = { modelType, hiddenSize: 128, intermediateSize: 192, headDim: 32, numAttentionHeads: 4 }
    const model = made(config)
    const layers = quantize(model, { scheme, modules: 'model.layers' })
    const coarse = copied(model, 'float32')
    if (scheme !== 'nf4') withIntegerInputs(coarse, layers)
    for (const rows of [1, 5]) {
      await check(model, scheme === 'nf4' ? { rows, exact: exactly(model) } : { rows, exact: exactly(model), coarse })
    }
  })

  it.each([
    ['phi3', ['qkv_proj', 'gate_up_proj', 'down_proj']],
    ['internlm2', ['wqkv', 'w1', 'w3', 'output']],
  ] as const)('%s with adapters', async (modelType, names) => {
    const adapted = () => {
      const model = made({ modelType })
      const targetModules = names.slice()
      getPeftModel(model, { r: 3, loraAlpha: 12, targetModules, initLoraWeights: false })
      return model.eval()
    }
    await check(adapted(), { rows: 2, exact: await adapted().to({ dtype: 'float64' }) })
  })

  it('with an adapter of each projection, and of the head', async () => {
    for (const dtype of ['float32', 'bfloat16', 'float16'] as const) {
      const adapted = () => {
        const model = made({}, dtype)
        getPeftModel(model, {
          r: 3,
          loraAlpha: 12,
          targetModules: ['q_proj', 'v_proj', 'o_proj', 'gate_proj', 'down_proj', 'lm_head'],
          initLoraWeights: false,
        })
        return model.eval()
      }
      const model = adapted()
      const exact = await adapted().to({ dtype: 'float64' })
      await check(model, dtype === 'float32' ? { rows: 2, exact } : { rows: 2, exact, coarse: model })
    }
  })

  it('follows a network that changes between tokens', async () => {
    const model = made({ tieWordEmbeddings: true })
    const inputIds = randint(0, CONFIG.vocabSize, [1, 6])
    const seen: number[] = []
    const bias = model.get('model.norm').parameters()[0] as Tensor
    for await (const { tokens } of model.stream({ inputIds }, { maxNewTokens: 8, eosTokenId: null })) {
      seen.push(tokens[0] as number)
      // All logits become 0, and the first token the best.
      if (seen.length === 4) noGrad(() => bias.zero_())
    }
    expect(seen.slice(4)).toEqual([0, 0, 0, 0])
    expect(seen.slice(0, 4)).not.toEqual([0, 0, 0, 0])
  })
})

describe('workers', () => {
  const threads = getNumThreads()
  afterEach(() => setNumThreads(threads))

  it('give the same bits, however many there are', async () => {
    const model = made({}, 'float32')
    const inputIds = randint(0, CONFIG.vocabSize, [2, 140])
    const texts: Tensor[] = []
    for (const count of [1, 2, 7, 3, 1]) {
      setNumThreads(count)
      const { logits } = await model.generate({ inputIds }, { maxNewTokens: 40, outputLogits: true, eosTokenId: null })
      // The prompt is read by ATen.
      texts.push(get(logits).narrow(0, 1, 39))
    }
    for (const other of texts.slice(1)) expectClose(other, get(texts[0]), 1e-6)
  })
})
