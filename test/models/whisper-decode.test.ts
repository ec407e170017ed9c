import { describe, expect, it } from 'vitest'
import {
  type GenerationConfig,
  getPeftModel,
  manualSeed,
  noGrad,
  quantize,
  randn,
  scope,
  type Tensor,
  tensor,
  Whisper,
  type WhisperConfig,
} from '../../lib/index.js'
import { expectAsNear } from '../helpers.js'
import { get } from './decoder.js'
import { unpack, withIntegerInputs } from './unpacked.js'

// A head of 64 as in all published sizes, and one that is no whole number of blocks.
const sizes: Record<string, WhisperConfig> = {
  'heads of 64': { dModel: 128, encoderAttentionHeads: 2, decoderAttentionHeads: 2 },
  'heads of 20': { dModel: 60, encoderAttentionHeads: 3, decoderAttentionHeads: 3 },
}
const rest: WhisperConfig = {
  vocabSize: 700,
  numMelBins: 8,
  encoderLayers: 1,
  decoderLayers: 2,
  encoderFfnDim: 96,
  decoderFfnDim: 200,
  maxSourcePositions: 37,
  maxTargetPositions: 40,
  padTokenId: 0,
  bosTokenId: 1,
  eosTokenId: 1,
  decoderStartTokenId: 2,
  initStd: 0.2,
}

function made(size: string) {
  manualSeed(5)
  const model = new Whisper({ ...rest, ...sizes[size] }).eval()
  model.freeze()
  return { model, inputFeatures: randn([4, 8, 74]) }
}

const off = (one: Tensor, other: Tensor): number =>
  scope(() => (one.sub(other).abs().max().item() as number) / (other.abs().max().item() as number))

const config: GenerationConfig = { maxNewTokens: 24, minNewTokens: 24, outputLogits: true, noRepeatNgramSize: 2 }

/** What is written, with the logits of each step, and those of one whole pass over the same text, [steps, vocabSize] a row. */
async function both(model: Whisper, inputFeatures: Tensor, more: GenerationConfig = {}) {
  const rows = inputFeatures.size(0)
  const inputIds = tensor(Array.from({ length: rows }, () => [2n, 7n, 11n]))
  const { logits, sequences, tokens } = await model.generate({ inputFeatures, inputIds }, { ...config, ...more })
  const decoderInputIds = sequences.narrow(1, 0, sequences.size(1) - 1)
  /** The same of another network with the same text. */
  const passOf = async (network: Whisper) => {
    const { dtype } = network.parameters()[0] as Tensor
    const passed = await noGrad(() => network.forward({ inputFeatures: inputFeatures.to({ dtype }), decoderInputIds }))
    return get(passed.logits).narrow(1, 2, 24)
  }
  return { tokens, steps: get(logits).transpose(0, 1), whole: (await passOf(model)).to('float32'), passOf }
}

/** Of the values that codes stand for. */
function copied(model: Whisper, dtype: 'float32' | 'float64'): Whisper {
  const copy = new Whisper(model.config, { dtype }).eval()
  unpack(model, copy)
  return copy
}

describe('a token on the CPU, through the decoder over plain pointers', () => {
  it.each(Object.keys(sizes))('%s: the logits are those of a whole pass', async (size) => {
    const { model, inputFeatures } = made(size)
    for (const rows of [1, 3, 4]) {
      const { steps, whole } = await both(model, inputFeatures.narrow(0, 0, rows))
      expect(off(steps, whole)).toBeLessThan(1e-5)
    }
  })

  it.each(
    Object.keys(sizes).flatMap((size) => (['bfloat16', 'float16'] as const).map((dtype) => [size, dtype] as const)),
  )('%s: in %s, of which the steps round less', async (size, dtype) => {
    const { model, inputFeatures } = made(size)
    await model.to({ dtype })
    const { steps, whole, passOf } = await both(model, inputFeatures.to(dtype))
    expectAsNear(steps, whole, await passOf(copied(model, 'float64')))
    // They are not rounded to that dtype themselves: this is another way than the whole pass.
    expect(steps.to(dtype).to('float32').equal(steps)).toBe(false)
  })

  it('with weights in int8, as near to the same weights as numbers as inputs in integers let it be', async () => {
    const { model, inputFeatures } = made('heads of 64')
    const packed = quantize(model, { scheme: 'int8' })
    const { steps, passOf } = await both(model, inputFeatures)
    const coarse = copied(model, 'float32')
    // What was heard comes as many rows, of which the values are made.
    const ofTokens = packed.filter((path) => /decoder(?!.*encoder_attn\.[kv]_proj)/.test(path))
    expect(ofTokens.length).toBe(2 * 8)
    withIntegerInputs(coarse, ofTokens)
    expectAsNear(steps, await passOf(coarse), await passOf(copied(model, 'float64')))
  })

  it('rows that end, beams and several answers keep to their clips', async () => {
    const { model, inputFeatures } = made('heads of 64')
    const inputIds = tensor(Array.from({ length: 4 }, () => [2n, 7n]))
    // Every hundredth token ends a row.
    const eosTokenId = Array.from({ length: 70 }, (_, i) => 10 * i + 3)
    for (const more of [{}, { numBeams: 2 }, { doSample: true, numReturnSequences: 2 }] as GenerationConfig[]) {
      const settings = { ...more, maxNewTokens: 20, eosTokenId }
      const uniforms = randn(more.numBeams ? [20, 4, 8] : [20, 8]).sigmoid()
      const options = more.doSample ? { uniforms } : {}
      const together = await model.generate({ inputFeatures, inputIds }, settings, options)
      const lengths = new Set(together.tokens.map((row) => row.length))
      expect(lengths.size).toBeGreaterThan(1)
      const copies = more.numReturnSequences ?? 1
      for (let i = 0; i < 4 * copies; i++) {
        const clip = Math.floor(i / copies)
        const alone = await model.generate(
          { inputFeatures: inputFeatures.narrow(0, clip, 1), inputIds: inputIds.narrow(0, 0, 1) },
          { ...settings, ...(copies > 1 && { numReturnSequences: 1 }) },
          more.doSample ? { uniforms: uniforms.narrow(1, i, 1) } : {},
        )
        expect(together.tokens[i]).toEqual(alone.tokens[0])
      }
    }
  })

  it('sees weights that change, hooks and adapters', async () => {
    const { model, inputFeatures } = made('heads of 64')
    const one = inputFeatures.narrow(0, 0, 1)
    const before = await both(model, one)
    noGrad(() =>
      scope(() => void (model.get('model.decoder.layers.1.fc2') as unknown as { weight: Tensor }).weight.mul_(-1)),
    )
    const changed = await both(model, one)
    expect(off(changed.steps, changed.whole)).toBeLessThan(1e-5)
    expect(off(changed.steps, before.steps)).toBeGreaterThan(0.1)
    let calls = 0
    const remove = model.get('model.decoder.layers.0.fc1').registerForwardHook(() => {
      calls++
    })
    await both(model, one)
    expect(calls).toBeGreaterThan(24)
    remove()
    getPeftModel(model, { r: 2, targetModules: ['q_proj'], initLoraWeights: false })
    const adapted = await both(model, one)
    expect(off(adapted.steps, adapted.whole)).toBeLessThan(1e-5)
    expect(off(adapted.steps, changed.steps)).toBeGreaterThan(1e-3)
  })
})
