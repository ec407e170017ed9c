import { mkdtempSync, rmSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  Data2VecAudio,
  Hubert,
  loadSafetensors,
  type Module,
  manualSeed,
  memoryStats,
  noGrad,
  ones,
  randn,
  type SpeechEncoderConfig,
  type SpeechEncoderInputs,
  type SpeechEncoderOutput,
  saveSafetensors,
  scope,
  slice,
  type Tensor,
  Wav2Vec2,
  Wav2Vec2Bert,
  Wav2Vec2Conformer,
  WavLM,
  type WavLMConfig,
  zeros,
} from '../../lib/index.js'
import { fairseqConfig, fairseqName } from '../../lib/models/encoders/fairseq.js'
import { expectClose, type Fixture, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
}
const networks = { wav2vec2: Wav2Vec2, wavlm: WavLM, hubert: Hubert }
type Kind = keyof typeof networks
const kinds = Object.keys(networks) as Kind[]
/** Also those that padding reaches, or that read features. */
const all = {
  ...networks,
  'data2vec-audio': Data2VecAudio,
  'wav2vec2-conformer': Wav2Vec2Conformer,
  'wav2vec2-bert': Wav2Vec2Bert,
}
type AnyKind = keyof typeof all
const allKinds = Object.keys(all) as AnyKind[]
const files = Object.fromEntries(
  await Promise.all(allKinds.map(async (kind) => [kind, await fixture<Case>(`models/${kind}`)] as const)),
) as Record<AnyKind, Fixture<Case>>

const tiny: SpeechEncoderConfig = { ...camelKeys(files.wavlm.cases[0]?.config ?? {}) }
const steady: SpeechEncoderConfig = {
  ...tiny,
  applySpecAugment: false,
  layerdrop: 0,
  hiddenDropout: 0,
  attentionDropout: 0,
  activationDropout: 0,
}
const last = async (model: Wav2Vec2 | WavLM, inputs: SpeechEncoderInputs) =>
  (await model.forward(inputs)).lastHiddenState
const distance = (a: Tensor, b: Tensor) => a.sub(b).abs().max().item() as number

describe.each(allKinds)('%s against transformers', (kind) => {
  const file = files[kind]
  it.each(file.cases)('$name', async ({ name, config }) => {
    const model = new all[kind](camelKeys(config)).eval() as Wav2Vec2
    loadParameters(model, file, name)
    const inputs = camelKeys(tensorsOf(file, name, 'in')) as unknown as SpeechEncoderInputs
    const cotangent = tensorsOf(file, name, 'cotangent')
    const expected = tensorsOf(file, name, 'out')
    const compare = (output: SpeechEncoderOutput, label: string) => {
      expectClose(output.lastHiddenState, expected.last as Tensor, 1e-5, `${label} last hidden state`)
      // transformers' Hubert returns none.
      if (expected.features) expectClose(output.extractFeatures, expected.features, 1e-5, `${label} features`)
    }

    const plain = await model.forward(inputs)
    compare(plain, 'plain')
    expect([plain.hiddenStates.length, plain.attentions.length]).toEqual([0, 0])
    const weighted = (output: Tensor, by: Tensor | undefined) => output.mul(by as Tensor).sum()
    const back = ({ lastHiddenState, extractFeatures }: SpeechEncoderOutput) => {
      const states = weighted(lastHiddenState, cotangent.last)
      return (cotangent.features ? states.add(weighted(extractFeatures, cotangent.features)) : states).backward()
    }
    await back(plain)
    await expectGradients(model, file, name, {
      again: async (as) =>
        back(
          await model.forward(Object.fromEntries(Object.entries(inputs).map(([key, one]) => [key, as(one)])) as never),
        ),
    })

    await noGrad(async () => compare(await model.forward(inputs), 'without a graph'))
    const full = await model.forward({ ...inputs, outputHiddenStates: true, outputAttentions: true })
    compare(full, 'with attentions')
    expect([full.hiddenStates.length, full.attentions.length]).toEqual([3, 2])
    const frames = model.featureLengths([Object.values(inputs)[0].shape[1] as number])
    expect(frames).toEqual([full.lastHiddenState.shape[1]])
    if (!expected['hidden.0']) return
    full.hiddenStates.forEach((hidden, i) => {
      expectClose(hidden, expected[`hidden.${i}`] as Tensor, 1e-5, `hidden state ${i}`)
    })
    full.attentions.forEach((attention, i) => {
      expectClose(attention, expected[`attention.${i}`] as Tensor, 1e-5, `attention ${i}`)
    })
  })
})

describe.each(kinds)('%s with padding', (kind) => {
  const padded = async (config: SpeechEncoderConfig) => {
    manualSeed(3)
    const model = new networks[kind](config).eval()
    const clips = [randn([1, 400]), randn([1, 263])]
    const inputValues = zeros([2, 400])
    const attentionMask = zeros([2, 400], { dtype: 'int64' })
    const alone: Tensor[] = []
    for (const [i, clip] of clips.entries()) {
      const samples = clip.shape[1] as number
      inputValues.setAt([i, slice(0, samples)], clip.at(0))
      attentionMask.setAt([i, slice(0, samples)], 1)
      alone.push(await last(model, { inputValues: clip }))
    }
    const together = await last(model, { inputValues, attentionMask })
    const frames = model.featureLengths([400, 263])
    expect(alone.map(({ shape }) => shape[1])).toEqual(frames)
    return alone.map((row, i) => distance(together.at(i, slice(0, frames[i] as number)), row.at(0)))
  }

  it('gives each clip what it has alone where the norms are over channels', async () => {
    for (const difference of await padded({ ...tiny, featExtractNorm: 'layer', doStableLayerNorm: true })) {
      expect(difference).toBeLessThan(1e-5)
    }
  })

  it('does not where the first norm is over time, as documented', async () => {
    const [whole, short] = await padded(tiny)
    expect(whole).toBeLessThan(1e-5)
    expect(short).toBeGreaterThan(1e-2)
  })

  it('never looks at padding, and a row without a whole frame counts as one frame', async () => {
    const model = new networks[kind]({ ...tiny, featExtractNorm: 'layer' }).eval()
    const inputValues = randn([2, 400])
    const attentionMask = ones([2, 400], { dtype: 'bool' })
    attentionMask.setAt([1, slice(10)], false)
    const before = await last(model, { inputValues, attentionMask })
    inputValues.setAt([1, slice(60)], 1000)
    const after = await last(model, { inputValues, attentionMask })
    expect(after.isfinite().all().item()).toBe(true)
    expect(distance(before.at(1, 0), after.at(1, 0))).toBe(0)
  })
})

describe('w2v-BERT 2.0', () => {
  const config = camelKeys(files['wav2vec2-bert'].cases[1]?.config ?? {})

  it('gives a clip what it has alone, whatever its padding is and on whichever side', async () => {
    manualSeed(3)
    const model = new Wav2Vec2Bert(config).eval()
    const clip = randn([1, 9, 6])
    const alone = (await model.forward({ inputFeatures: clip })).lastHiddenState
    for (const from of [0, 5]) {
      const inputFeatures = randn([2, 14, 6])
      const attentionMask = ones([2, 14], { dtype: 'int64' })
      attentionMask.setAt([1], 0)
      attentionMask.setAt([1, slice(from, from + 9)], 1)
      inputFeatures.setAt([1, slice(from, from + 9)], clip.at(0))
      const { lastHiddenState } = await model.forward({ inputFeatures, attentionMask })
      expect(distance(lastHiddenState.at(1, slice(from, from + 9)), alone.at(0))).toBeLessThan(1e-5)
    }
  })

  it('is finite for a row of padding, and names what does not fit', async () => {
    const model = new Wav2Vec2Bert(config).eval()
    const inputFeatures = randn([2, 7, 6])
    const attentionMask = ones([2, 7], { dtype: 'bool' })
    attentionMask.setAt([1], false)
    const { lastHiddenState } = await model.forward({ inputFeatures, attentionMask })
    expect(lastHiddenState.isfinite().all().item()).toBe(true)
    const refused = (inputs: object) => expect(model.forward({ inputFeatures, ...inputs })).rejects
    await refused({ inputFeatures: randn([2, 7, 5]) }).toThrow(
      /input_features must be \[batch, time, 6\], got \[2, 7, 5\]/,
    )
    await refused({ inputFeatures: randn([2, 7]) }).toThrow(/input_features must be/)
    await refused({ attentionMask: ones([2, 8]) }).toThrow(
      /attention_mask must have the shape \[2, 7\] of input_features/,
    )
  })
})

describe('Wav2Vec2Conformer in training', () => {
  it('normalizes by the batch, and its statistics follow', async () => {
    const model = new Wav2Vec2Conformer({
      ...camelKeys(files['wav2vec2-conformer'].cases[0]?.config ?? {}),
      layerdrop: 0,
    })
    const name = 'encoder.layers.0.conv_module.batch_norm'
    const state = model.stateDict()
    const [mean, batches] = [state[`${name}.running_mean`] as Tensor, state[`${name}.num_batches_tracked`] as Tensor]
    await scope(() => last(model as never, { inputValues: randn([2, 320]) }).then(() => undefined))
    expect([Number(batches.item()), mean.abs().max().item() === 0]).toEqual([1, false])
    await scope(() => last(model.eval() as never, { inputValues: randn([2, 320]) }).then(() => undefined))
    expect(Number(batches.item())).toBe(1)
    model.train().gradientCheckpointing(true)
    const before = mean.clone()
    await scope(async () => (await last(model as never, { inputValues: randn([2, 320]) })).sum().backward())
    expect([Number(batches.item()), mean.equal(before)]).toEqual([2, false])
  })
})

describe.each(kinds)('%s in training', (kind) => {
  const make = (config: SpeechEncoderConfig) => {
    manualSeed(5)
    return new networks[kind](config)
  }

  it('is what it is in evaluation when nothing is random', async () => {
    const model = make(steady)
    const inputValues = randn([2, 320])
    expect((await last(model, { inputValues })).equal(await last(model.eval(), { inputValues }))).toBe(true)
  })

  it.each(['hiddenDropout', 'attentionDropout', 'activationDropout', 'featProjDropout'])('has %s', async (name) => {
    const model = make({ ...steady, [name]: 0.5 })
    const inputValues = randn([2, 320])
    const draw = (seed: number) => {
      manualSeed(seed)
      return last(model, { inputValues })
    }
    const [a, b, c] = [await draw(1), await draw(2), await draw(1)]
    expect(a.equal(b)).toBe(false)
    expect(a.equal(c)).toBe(true)
    model.eval()
    expect((await draw(1)).equal(await draw(2))).toBe(true)
  })

  it('skips layers as often as layerdrop says, but never the one that others have their bias from', async () => {
    const layers = 10
    const inputValues = randn([1, 60])
    const kept = async (layerdrop: number) => {
      const model = make({ ...steady, numHiddenLayers: layers, layerdrop })
      const output = await model.forward({ inputValues, outputAttentions: true, outputHiddenStates: true })
      expect(output.hiddenStates).toHaveLength(layers + 1)
      model.dispose()
      return output.attentions.length
    }
    expect(await kept(1)).toBe(kind === 'wavlm' ? 1 : 0)
    const model = make({ ...steady, numHiddenLayers: layers, layerdrop: 0.3 })
    let count = 0
    for (let i = 0; i < 40; i += 1)
      count += (await model.forward({ inputValues, outputAttentions: true })).attentions.length
    const droppable = kind === 'wavlm' ? layers - 1 : layers
    const expected = 40 * (layers - droppable + droppable * 0.7)
    expect(Math.abs(count - expected)).toBeLessThan(5 * Math.sqrt(40 * droppable * 0.21))
    expect((await model.eval().forward({ inputValues, outputAttentions: true })).attentions).toHaveLength(layers)
  })

  it('freezes its feature extractor', async () => {
    const model = make(steady).freeze('feature_extractor')
    await (await last(model, { inputValues: randn([1, 320]) })).square().sum().backward()
    for (const [name, { grad }] of model.namedParameters()) {
      const trained = !name.startsWith('feature_extractor.') && name !== 'masked_spec_embed'
      expect(grad !== null, name).toBe(trained)
    }
  })
})

describe('SpecAugment', () => {
  const lengths = [60, 40, 9, 3]
  // Convolutions of one sample a frame, and positions that add nothing: the first hidden state is the masked projection.
  const bare = (config: SpeechEncoderConfig) => {
    const model = new Wav2Vec2({
      ...steady,
      numHiddenLayers: 0,
      convDim: [4],
      convKernel: [1],
      convStride: [1],
      featExtractNorm: 'layer',
      doStableLayerNorm: true,
      applySpecAugment: true,
      ...config,
    })
    noGrad(() => {
      const zero = /pos_conv_embed\.conv\.(bias|parametrizations\.weight\.original0)/
      for (const [name, parameter] of model.namedParameters()) if (zero.test(name)) parameter.zero_()
    })
    return model
  }
  const attentionMask = zeros([4, 60])
  lengths.forEach((length, i) => {
    attentionMask.setAt([i, slice(0, length)], 1)
  })
  const inputValues = randn([4, 60])
  const maskOf = (model: Wav2Vec2): Promise<boolean[][]> =>
    scope(async () => {
      const { hiddenStates } = await model.forward({ inputValues, attentionMask, outputHiddenStates: true })
      const embed = model.stateDict().masked_spec_embed as Tensor
      return (hiddenStates[0] as Tensor).eq(embed).all(-1).toArray() as unknown as boolean[][]
    })

  // Mean and deviation of the masked frames in each row: 20,000 draws of transformers' _compute_mask_indices.
  it.each([
    { prob: 0.4, length: 5, min: 0, mean: [20.93, 14.14, 3.6, 0], deviation: [2.81, 2.36, 2.25, 0] },
    { prob: 0.3, length: 7, min: 2, mean: [16.42, 12.83, 8.33, 0], deviation: [3.54, 1.95, 0.47, 0] },
    { prob: 0.05, length: 10, min: 2, mean: [18.36, 17.39, 0, 0], deviation: [2.8, 3.2, 0, 0] },
  ])('masks spans of $length frames by transformers’ law', async ({ prob, length, min, mean, deviation }) => {
    const model = bare({ maskTimeProb: prob, maskTimeLength: length, maskTimeMinMasks: min })
    manualSeed(11)
    const draws = 120
    const counts: number[][] = lengths.map(() => [])
    for (let i = 0; i < draws; i += 1) {
      for (const [row, mask] of (await maskOf(model)).entries()) {
        const spans = mask
          .map(Number)
          .join('')
          .split('0')
          .filter((span) => span !== '')
        for (const span of spans) expect(span.length).toBeGreaterThanOrEqual(length)
        expect(mask.lastIndexOf(true)).toBeLessThan(lengths[row] as number)
        counts[row]?.push(mask.filter(Boolean).length)
      }
    }
    for (const [row, values] of counts.entries()) {
      const average = values.reduce((sum, value) => sum + value, 0) / draws
      const spread = Math.sqrt(values.reduce((sum, value) => sum + (value - average) ** 2, 0) / draws)
      const sigma = deviation[row] as number
      expect(Math.abs(average - (mean[row] as number))).toBeLessThan((4 * sigma) / Math.sqrt(draws) + 0.01)
      expect(Math.abs(spread - sigma)).toBeLessThan(0.25 * sigma + 0.01)
    }
    model.eval()
    expect((await maskOf(model)).flat().some(Boolean)).toBe(false)
  })

  it('zeroes features', async () => {
    const model = bare({ maskTimeProb: 0, maskFeatureProb: 0.5, maskFeatureLength: 3 })
    const { hiddenStates } = await model.forward({ inputValues, outputHiddenStates: true })
    const zeroed = (hiddenStates[0] as Tensor).eq(0).toArray() as unknown as boolean[][][]
    const rows = zeroed.map((frames) => frames.map((frame) => frame.map(Number).join('')))
    for (const row of rows) {
      expect(new Set(row).size).toBe(1) // the same in all frames
      expect(
        row[0]
          ?.split('0')
          .filter((span) => span !== '')
          .every((span) => span.length >= 3),
      ).toBe(true)
    }
    expect(rows.flat().some((row) => row.includes('1'))).toBe(true)
  })

  it('follows the seed, and can be switched off', async () => {
    const model = bare({ maskTimeProb: 0.4, maskTimeLength: 5 })
    const draw = (seed: number) => {
      manualSeed(seed)
      return maskOf(model)
    }
    expect(await draw(1)).toEqual(await draw(1))
    expect(await draw(1)).not.toEqual(await draw(2))
    const off = bare({ maskTimeProb: 0.4, maskTimeLength: 5, applySpecAugment: false })
    expect((await maskOf(off)).flat().some(Boolean)).toBe(false)
    const maskTimeIndices = zeros([4, 60], { dtype: 'bool' })
    await expect(off.forward({ inputValues, maskTimeIndices })).rejects.toThrow(/apply_spec_augment/)
  })
})

describe('sizes', () => {
  const count = (model: Module) =>
    model.parameters().reduce((sum, { shape }) => sum + shape.reduce((a, b) => a * b, 1), 0)

  // Counted in transformers' models of the published configurations.
  it.each([
    ['wavlm', 'base', 94_381_936],
    ['wavlm', 'base-plus', 94_381_936],
    ['wavlm', 'large', 315_453_120],
    ['wav2vec2', 'base', 94_371_712],
    ['wav2vec2', 'large', 315_428_992],
    ['wav2vec2', 'large-960h-lv60', 315_438_720],
    ['wav2vec2', 'xlsr-53', 315_438_720],
    ['wav2vec2', 'xls-r-300m', 315_438_720],
    ['wav2vec2', 'xls-r-1b', 962_497_408],
    ['wav2vec2', 'xls-r-2b', 2_159_259_648],
    ['hubert', 'base', 94_371_712],
    ['hubert', 'large', 315_438_720],
    ['hubert', 'xlarge', 962_497_408],
    ['data2vec-audio', 'base', 93_164_288],
    ['data2vec-audio', 'large', 313_276_416],
    ['wav2vec2-conformer', 'rel-pos-large', 618_559_104],
    ['wav2vec2-conformer', 'rope-large', 593_344_128],
    ['wav2vec2-bert', '2.0', 580_493_120],
  ] as const)('%s %s has %i parameters', (kind, size, parameters) => {
    expect(count(all[kind].fromConfig(size, { device: 'meta' }))).toBe(parameters)
  })

  it('knows how many frames a clip becomes', () => {
    const seven = WavLM.fromConfig('base', { device: 'meta' })
    const lengths = [0, 1, 100, 399, 400, 16_000, 160_000, 320_000]
    expect(seven.featureLengths(lengths)).toEqual([0, 0, 0, 0, 1, 49, 499, 999])
    const eight = WavLM.fromConfig(
      {
        convDim: Array(8).fill(512),
        convKernel: [10, 3, 3, 3, 3, 2, 2, 5],
        convStride: [5, 2, 2, 2, 2, 2, 2, 5],
      },
      { device: 'meta' },
    )
    expect(eight.featureLengths([1679, 1680, 16_000, 160_000, 320_000])).toEqual([0, 1, 9, 99, 199])
    expect(() => seven.featureLengths([-1])).toThrow(ConfigError)
  })

  it.each<[WavLMConfig, RegExp]>([
    [{ convStride: [5] }, /conv_stride/],
    [{ convStride: [5, 0, 2] }, /positive/],
    [{ convDim: [] }, /conv_dim/],
    [{ featExtractNorm: 'batch' as 'group' }, /feat_extract_norm/],
    [{ numBuckets: 2 }, /num_buckets/],
    [{ numAttentionHeads: 5 }, /num_attention_heads/],
    [{ numHiddenLayers: -1 }, /num_hidden_layers/],
    [{ maskTimeLength: 0 }, /mask_time_length/],
    [{ layerdrop: 1.5 }, /layerdrop/],
    [{ hiddenAct: 'maxout' }, /maxout/],
    [{ addAdapter: true, adapterStride: 0 }, /adapter_stride/],
    [{ adapterAttnDim: 4, doStableLayerNorm: true }, /adapter_attn_dim/],
    [{ hiddenSize: 'wide' as unknown as number }, /hidden_size/],
  ])('refuses %o', (config, message) => {
    const make = () => WavLM.fromConfig({ ...tiny, ...config })
    expect(make).toThrow(ConfigError)
    expect(make).toThrow(message)
  })

  it.each<[string, () => unknown, RegExp]>([
    ['no convolutions for positions', () => new Data2VecAudio({ numConvPosEmbeddings: 0 }), /num_conv_pos_embeddings/],
    [
      'an even kernel',
      () => new Wav2Vec2Conformer({ convDepthwiseKernelSize: 4 }),
      /conv_depthwise_kernel_size.*odd, got 4/,
    ],
    [
      'Shaw’s positions',
      () => new Wav2Vec2Conformer({ positionEmbeddingsType: 'relative_key' }),
      /'relative', 'rotary' or null, not 'relative_key'/,
    ],
    [
      'others',
      () => new Wav2Vec2Bert({ positionEmbeddingsType: 'alibi' as never }),
      /'relative', 'rotary', 'relative_key' or null, not 'alibi'/,
    ],
    ['an odd head', () => new Wav2Vec2Bert({ hiddenSize: 48, positionEmbeddingsType: 'rotary' }), /even number/],
    [
      'no features',
      () => new Wav2Vec2Bert({ featureProjectionInputDim: 0 }),
      /feature_projection_input_dim must be positive/,
    ],
    [
      'an adapter’s width',
      () => new Wav2Vec2Bert({ addAdapter: true, outputHiddenSize: 100 }),
      /output_hidden_size 100 is not divisible/,
    ],
    ['its layer before it', () => new Wav2Vec2Bert({ useIntermediateFfnBeforeAdapter: true }), /needs add_adapter/],
    ['a key of others', () => new Wav2Vec2Bert({ convKernel: [3] }), /'convKernel'/],
    ['an adapter of HuBERT', () => new Hubert({ addAdapter: true }), /'addAdapter'/],
  ])('of the relatives refuse %s', (_, make, message) => {
    expect(make).toThrow(ConfigError)
    expect(make).toThrow(message)
  })

  it('refuses a size that is not published', () => {
    expect(() => WavLM.fromConfig('huge')).toThrow(ConfigError)
    expect(() => WavLM.fromConfig('base', { dtype: 'int64' })).toThrow(/dtype: expected float32/)
  })
})

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-speech-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  const path = (name: string, file = '') => join(directory, name, file)
  const inputValues = randn([1, 320])

  /** The same directory with other names in its weights. */
  async function rename(name: string, to: (name: string) => string, more: Record<string, Tensor> = {}): Promise<void> {
    const { tensors } = await loadSafetensors(path(name, 'model.safetensors'))
    const state = Object.fromEntries(Object.entries(tensors).map(([key, value]) => [to(key), value]))
    await saveSafetensors(path(name, 'model.safetensors'), { ...state, ...more })
  }

  it.each(allKinds)('%s saves what it loads', async (kind) => {
    // Fields that a published file has besides those of the network stay in it.
    const config = camelKeys(files[kind].cases[0]?.config ?? {})
    const model = new all[kind]({ ...config, maxLength: 160_000, numFeatExtractLayers: 3 }).eval() as Wav2Vec2
    await model.save(path(kind))
    const written = JSON.parse(await readFile(path(kind, 'config.json'), 'utf8'))
    expect(written).toMatchObject({ model_type: kind, max_length: 160_000, hidden_size: 12 })
    const again = (await all[kind].fromPretrained(path(kind))) as Wav2Vec2
    expect(again.training).toBe(false)
    const inputs = (kind === 'wav2vec2-bert' ? { inputFeatures: randn([1, 9, 6]) } : { inputValues }) as never
    expect((await last(again, inputs)).equal(await last(model, inputs))).toBe(true)
    const { masked_spec_embed: _, ...rest } = model.stateDict()
    const [first] = Object.keys(rest) as [string]
    await saveSafetensors(path(kind, 'model.safetensors'), Object.fromEntries(Object.entries(rest).slice(1)))
    await expect(all[kind].fromPretrained(path(kind))).rejects.toMatchObject({ missing: [first] })
    await saveSafetensors(path(kind, 'model.safetensors'), { ...rest, 'encoder.layers.9.other': ones([1]) })
    await expect(all[kind].fromPretrained(path(kind))).rejects.toMatchObject({ unexpected: ['encoder.layers.9.other'] })
  })

  it('reads old names of the weight norm, inside a model with heads', async () => {
    const model = new Wav2Vec2(tiny)
    await model.save(path('old'))
    const old = (name: string) =>
      `wav2vec2.${name}`
        .replace('parametrizations.weight.original0', 'weight_g')
        .replace('parametrizations.weight.original1', 'weight_v')
    await rename('old', old, { 'quantizer.codevectors': ones([1, 4]), 'project_hid.weight': ones([3, 3]) })
    expect(
      (await last(await Wav2Vec2.fromPretrained(path('old')), { inputValues })).equal(
        await last(model.eval(), { inputValues }),
      ),
    ).toBe(true)
  })

  it('does not need the vector that only SpecAugment reads, but everything else', async () => {
    const model = new WavLM(tiny).eval()
    await model.save(path('bare'))
    const { masked_spec_embed: embed, ...rest } = model.stateDict()
    await saveSafetensors(path('bare', 'model.safetensors'), rest)
    const again = await WavLM.fromPretrained(path('bare'))
    expect((await last(again, { inputValues })).equal(await last(model, { inputValues }))).toBe(true)
    const fresh = (again.stateDict().masked_spec_embed as Tensor).toArray() as unknown as number[]
    expect(fresh.every((value) => value >= 0 && value < 1) && new Set(fresh).size > 1).toBe(true)

    await writeFile(
      path('bare', 'config.json'),
      JSON.stringify({ ...JSON.parse(await readFile(path('bare', 'config.json'), 'utf8')), mask_time_prob: 0 }),
    )
    await saveSafetensors(path('bare', 'model.safetensors'), { ...rest, masked_spec_embed: embed as Tensor })
    expect(Object.keys((await WavLM.fromPretrained(path('bare'))).stateDict())).not.toContain('masked_spec_embed')

    const { 'encoder.layers.0.attention.rel_attn_embed.weight': _, ...less } = rest
    await saveSafetensors(path('bare', 'model.safetensors'), less)
    const load = WavLM.fromPretrained(path('bare'))
    await expect(load).rejects.toThrow(CheckpointError)
    await expect(load).rejects.toMatchObject({ missing: ['encoder.layers.0.attention.rel_attn_embed.weight'] })
  })

  it('reads the names of fairseq and of the original WavLM', async () => {
    const model = new WavLM({ ...tiny, featExtractNorm: 'layer' }).eval()
    await model.save(path('fairseq'))
    const originals: [RegExp, string][] = [
      [/^masked_spec_embed/, 'mask_emb'],
      [/^feature_projection\.projection/, 'post_extract_proj'],
      [/^feature_projection\.layer_norm/, 'layer_norm'],
      [/^encoder\.pos_conv_embed\.conv/, 'encoder.pos_conv.0'],
      [/parametrizations\.weight\.original0/, 'weight_g'],
      [/parametrizations\.weight\.original1/, 'weight_v'],
      [/(conv_layers\.\d+)\.conv\./, '$1.0.'],
      [/(conv_layers\.\d+)\.layer_norm\./, '$1.2.1.'],
      [/(layers\.\d+)\.layer_norm/, '$1.self_attn_layer_norm'],
      [/attention\.rel_attn_embed/, 'self_attn.relative_attention_bias'],
      [/attention\.gru_rel_pos_linear/, 'self_attn.grep_linear'],
      [/attention\.gru_rel_pos_const/, 'self_attn.grep_a'],
      [/attention\./, 'self_attn.'],
      [/feed_forward\.intermediate_dense/, 'fc1'],
      [/feed_forward\.output_dense/, 'fc2'],
    ]
    const toFairseq = (name: string) => originals.reduce((result, [from, to]) => result.replace(from, to), name)
    await rename('fairseq', toFairseq, { 'final_proj.weight': ones([2, 2]), label_embs_concat: ones([2]) })
    const names = Object.keys((await loadSafetensors(path('fairseq', 'model.safetensors'))).tensors)
    // Names of WavLM-Large.pt, and of its base sizes.
    expect(names).toEqual(
      expect.arrayContaining([
        'mask_emb',
        'feature_extractor.conv_layers.0.0.weight',
        'feature_extractor.conv_layers.0.2.1.weight',
        'post_extract_proj.weight',
        'encoder.pos_conv.0.weight_g',
        'encoder.layers.0.self_attn.grep_a',
        'encoder.layers.0.self_attn.grep_linear.weight',
        'encoder.layers.0.self_attn.relative_attention_bias.weight',
        'encoder.layers.1.self_attn.k_proj.bias',
        'encoder.layers.1.self_attn_layer_norm.weight',
        'encoder.layers.1.fc1.weight',
        'encoder.layers.1.final_layer_norm.weight',
        'encoder.layer_norm.weight',
        'layer_norm.weight',
      ]),
    )
    const again = await WavLM.fromPretrained(path('fairseq'))
    expect((await last(again, { inputValues })).equal(await last(model, { inputValues }))).toBe(true)
    expect(fairseqName('feature_extractor.conv_layers.0.2.weight')).toBe(
      'feature_extractor.conv_layers.0.layer_norm.weight',
    )
    expect(fairseqName('w2v_encoder.w2v_model.encoder.layers.3.fc2.bias')).toBe(
      'encoder.layers.3.feed_forward.output_dense.bias',
    )
    for (const name of Object.keys(model.stateDict())) expect(fairseqName(name)).toBe(name)
  })

  it('reads the cfg of such a file', () => {
    const cfg = {
      extractor_mode: 'layer_norm',
      encoder_layers: 24,
      encoder_embed_dim: 1024,
      encoder_ffn_embed_dim: 4096,
      encoder_attention_heads: 16,
      activation_fn: 'gelu',
      layer_norm_first: true,
      conv_feature_layers: '[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2',
      conv_bias: false,
      dropout: 0,
      conv_pos: 128,
      conv_pos_groups: 16,
      num_buckets: 320,
      max_distance: 800,
      mask_prob: 0.8,
    }
    const config = fairseqConfig(cfg)
    expect(config).toMatchObject({
      hiddenSize: 1024,
      doStableLayerNorm: true,
      featExtractNorm: 'layer',
      convDim: Array(7).fill(512),
      convKernel: [10, 3, 3, 3, 3, 2, 2],
      convStride: [5, 2, 2, 2, 2, 2, 2],
      maxBucketDistance: 800,
      hiddenDropout: 0,
      layerdrop: 0,
    })
    expect(count(WavLM.fromConfig(config, { device: 'meta' }))).toBe(
      count(WavLM.fromConfig('large', { device: 'meta' })),
    )
    expect(fairseqConfig({ model: cfg })).toEqual(config)
    // A pickle may hold itself.
    const itself: Record<string, unknown> = {}
    itself.model = itself
    expect(() => fairseqConfig(itself)).toThrow(CheckpointError)
    for (const text of ['[(512,10,5)] * 1000000', '__import__("os")', '[(1,2)]', 7]) {
      expect(() => fairseqConfig({ conv_feature_layers: text }), String(text)).toThrow(CheckpointError)
    }
  })
  const count = (model: WavLM) => model.parameters().length
})

describe.each(kinds)('%s as a module', (kind) => {
  it('leaves nothing behind', async () => {
    const before = await settledTensors()
    const model = new networks[kind](tiny)
    await scope(async () => {
      const inputValues = randn([2, 320])
      await model.forward({
        inputValues,
        attentionMask: ones([2, 320]),
        outputHiddenStates: true,
        outputAttentions: true,
      })
    })
    model.dispose()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('leaves its inputs as they are', async () => {
    const model = new networks[kind]({ ...tiny, featExtractNorm: 'layer', hiddenAct: 'relu' }).eval()
    const inputValues = randn([1, 320])
    const copy = inputValues.clone()
    await noGrad(() => model.forward({ inputValues }))
    expect(inputValues.equal(copy)).toBe(true)
  })

  it('runs in bfloat16, and takes float32 audio', async () => {
    manualSeed(4)
    const model = new networks[kind](tiny).eval()
    const inputValues = randn([2, 320])
    const exact = await last(model, { inputValues })
    const rough = await last(model.to({ dtype: 'bfloat16' }), { inputValues })
    expect(rough.dtype).toBe('bfloat16')
    expect(distance(rough.to({ dtype: 'float32' }), exact)).toBeLessThan(0.1)
  })

  it('starts as transformers’ networks do', () => {
    manualSeed(6)
    const state = new networks[kind]({ ...tiny, hiddenSize: 96, convDim: [64, 64, 64], convBias: true }).stateDict()
    const deviation = (name: string) => state[name]?.std().item() as number
    const close = (name: string, expected: number) =>
      expect(Math.abs(deviation(name) / expected - 1), name).toBeLessThan(0.1)
    close('feature_extractor.conv_layers.1.conv.weight', Math.sqrt(2 / (64 * 3)))
    close('feature_projection.projection.weight', kind === 'hubert' ? 0.02 : Math.sqrt(1 / 64 / 3))
    close('encoder.layers.0.feed_forward.intermediate_dense.weight', 0.02)
    close('encoder.pos_conv_embed.conv.parametrizations.weight.original1', 2 * Math.sqrt(1 / (8 * 96)))
    const direction = state['encoder.pos_conv_embed.conv.parametrizations.weight.original1'] as Tensor
    const gain = state['encoder.pos_conv_embed.conv.parametrizations.weight.original0'] as Tensor
    expectClose(gain, direction.square().sum([0, 1], { keepdim: true }).sqrt(), 1e-5)
    expect(state['feature_extractor.conv_layers.1.conv.bias']?.abs().max().item()).toBeLessThan(Math.sqrt(1 / (64 * 3)))
  })

  it('refuses what does not fit with the name of the argument', async () => {
    const model = new networks[kind](tiny)
    const inputValues = randn([2, 320])
    const refused = (inputs: Partial<SpeechEncoderInputs>) => expect(model.forward({ inputValues, ...inputs })).rejects
    await refused({ inputValues: randn([320]) }).toMatchObject({
      code: 'ERR_SHAPE',
      message: expect.stringMatching(/input_values.*\[320\]/),
    })
    await refused({ inputValues: randn([0, 320]) }).toMatchObject({ code: 'ERR_SHAPE' })
    await refused({ inputValues: randn([1, 29]) }).toMatchObject({
      code: 'ERR_SHAPE',
      message: expect.stringMatching(/input_values.*29 samples.*at least 30/),
    })
    await refused({ inputValues: zeros([1, 320], { dtype: 'int64' }) }).toMatchObject({
      code: 'ERR_DTYPE',
      message: expect.stringMatching(/input_values/),
    })
    await refused({ attentionMask: ones([2, 319]) }).toMatchObject({
      code: 'ERR_SHAPE',
      message: expect.stringMatching(/attention_mask/),
    })
    await refused({ maskTimeIndices: ones([2, 320], { dtype: 'bool' }) }).toMatchObject({
      code: 'ERR_SHAPE',
      message: expect.stringMatching(/mask_time_indices.*\[2, 15\]/),
    })
    expect((await last(model, { inputValues: randn([1, 30]) })).shape).toEqual([1, 1, 12])
  })
})
