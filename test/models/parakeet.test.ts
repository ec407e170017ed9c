import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { nemoLogMel, noGrad, randn, type Tensor, tensor, zeros } from '../../lib/index.js'
import {
  FastConformerEncoder,
  type FastConformerInputs,
  type FastConformerOutput,
  ParakeetForCTC,
  ParakeetForRNNT,
  ParakeetForTDT,
} from '../../lib/models/index.js'
import type { ParakeetTransducerInputs } from '../../lib/models/parakeet/transducer.js'
import { expectClose, fixture, fixturePath, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface EncoderCase {
  name: string
  config: Record<string, unknown>
  training: boolean
}
interface HeadCase {
  name: string
  network: 'ParakeetForCTC' | 'ParakeetForRNNT' | 'ParakeetForTDT'
  config: Record<string, unknown>
  loss: object
}
const encoders = await fixture<EncoderCase>('models/parakeet')
const heads = await fixture<HeadCase>('models/parakeet-heads')
const features = await fixture<{ name: string; options: Record<string, number> }>('models/parakeet-features')
const defaults = JSON.parse(await readFile(fixturePath('models/parakeet-keys.json'), 'utf8')) as Record<string, unknown>
const CLASSES = { ParakeetForCTC, ParakeetForRNNT, ParakeetForTDT }

describe('nemoLogMel against transformers', () => {
  it.each(features.cases)('$name', async ({ name, options }) => {
    const clips = Object.values(tensorsOf(features, name, 'in'))
    const lengths = clips.map((clip) => clip.size(0))
    const batch = zeros([clips.length, Math.max(...lengths)])
    for (const [i, clip] of clips.entries()) batch.select(0, i).narrow(0, 0, clip.size(0)).copy_(clip)
    const { feature_size: nMels = 80, n_fft: nFft, sampling_rate: sampleRate, ...rest } = options
    const { inputFeatures, attentionMask } = await nemoLogMel(batch, {
      lengths: tensor(lengths.map(BigInt)),
      nMels,
      ...(nFft !== undefined && { nFft }),
      ...(sampleRate !== undefined && { sampleRate }),
      ...camelKeys(rest),
    })
    const expected = tensorsOf(features, name, 'out')
    expect(attentionMask.toArray()).toEqual((expected.mask as Tensor).toArray())
    expectClose(inputFeatures, expected.features as Tensor, 1e-5, name)
  })

  it('refuses clips shorter than two hops, and lengths beyond the batch', async () => {
    await expect(nemoLogMel(randn([319]))).rejects.toThrow(/nemo_log_mel: a clip must have from 320 samples/)
    await expect(nemoLogMel(randn([2, 400]), { lengths: tensor([400n, 401n]) })).rejects.toThrow(/401/)
    await expect(nemoLogMel(randn([400]), { nMel: 80 } as never)).rejects.toThrow(/nMel/)
  })
})

describe('FastConformerEncoder against transformers', () => {
  it.each(encoders.cases)('$name', async ({ name, config, training }) => {
    const model = new FastConformerEncoder(camelKeys(config)).train(training)
    loadParameters(model, encoders, name)
    const inputs = camelKeys(tensorsOf(encoders, name, 'in')) as unknown as FastConformerInputs
    const cotangent = tensorsOf(encoders, name, 'cotangent').last as Tensor
    const expected = tensorsOf(encoders, name, 'out')
    const valid = (expected.valid as Tensor).unsqueeze(-1)
    const compare = (output: FastConformerOutput, label: string) => {
      expectClose(output.lastHiddenState.mul(valid), expected.last as Tensor, 1e-5, label)
      if (inputs.attentionMask) expect(output.attentionMask?.toArray()).toEqual((expected.valid as Tensor).toArray())
      else expect(output.attentionMask).toBeNull()
    }
    const plain = await model.forward(inputs)
    compare(plain, 'plain')
    const statistics = Object.keys(expected).filter((key) => /running|tracked/.test(key))
    expect(statistics.length > 0).toBe(training)
    for (const key of statistics) expectClose(model.stateDict()[key] as Tensor, expected[key] as Tensor, 1e-5, key)
    const back = (output: FastConformerOutput) => output.lastHiddenState.mul(cotangent).sum().backward()
    await back(plain)
    await expectGradients(model, encoders, name, {
      again: async (as) => back(await model.forward({ ...inputs, inputFeatures: as(inputs.inputFeatures) })),
    })
    if (training) return
    await noGrad(async () => compare(await model.forward(inputs), 'without a graph'))
    if (expected['hidden.0'] === undefined) return
    const full = await model.forward({ ...inputs, outputHiddenStates: true, outputAttentions: true })
    compare(full, 'with attentions')
    expect([full.hiddenStates.length, full.attentions.length]).toEqual([3, 2])
    full.attentions.forEach((attention, i) => {
      const rows = valid.unsqueeze(1)
      expectClose(attention.mul(rows), (expected[`attention.${i}`] as Tensor).mul(rows), 1e-5, `attention ${i}`)
    })
  })

  it('gives each row of a padded batch what it has alone', async () => {
    const model = new FastConformerEncoder({ ...tiny }).eval()
    const [long, short] = [randn([1, 90, 16]), randn([1, 47, 16])]
    const batch = zeros([2, 90, 16])
    const mask = zeros([2, 90], { dtype: 'int64' })
    for (const [i, clip] of [long, short].entries()) {
      batch.select(0, i).narrow(0, 0, clip.size(1)).copy_(clip.select(0, 0))
      mask.select(0, i).narrow(0, 0, clip.size(1)).fill_(1)
    }
    const { lastHiddenState } = await model.forward({ inputFeatures: batch, attentionMask: mask })
    for (const [i, clip] of [long, short].entries()) {
      const alone = (await model.forward({ inputFeatures: clip })).lastHiddenState
      expect(alone.shape[1]).toBe(model.featureLengths([clip.size(1)])[0])
      expectClose(lastHiddenState.select(0, i).narrow(0, 0, alone.size(1)), alone.select(0, 0), 1e-5, `row ${i}`)
    }
  })

  it('checkpoints its layers: the same gradients, and the statistics of a batch once', async () => {
    const run = async (checkpoints: boolean) => {
      const model = new FastConformerEncoder({ ...tiny }).train()
      model.loadStateDict(reference)
      if (checkpoints) model.gradientCheckpointing(true)
      await (await model.forward({ inputFeatures })).lastHiddenState.square().sum().backward()
      return model
    }
    const reference = new FastConformerEncoder({ ...tiny }).stateDict()
    const inputFeatures = randn([2, 40, 16])
    const [plain, again] = [await run(false), await run(true)]
    for (const [key, value] of Object.entries(plain.stateDict()))
      expectClose(again.stateDict()[key] as Tensor, value, 1e-6, key)
    const found = Object.fromEntries(again.namedParameters())
    const largest = Math.max(...plain.parameters().map(({ grad }) => (grad as Tensor).abs().max().item() as number))
    for (const [key, { grad }] of plain.namedParameters()) {
      const difference = (grad as Tensor)
        .sub(found[key]?.grad as Tensor)
        .abs()
        .max()
        .item() as number
      expect(difference / largest, key).toBeLessThan(1e-6)
    }
  })

  it('refuses what does not fit with the name of key or input', async () => {
    const make = (config: object) => () => new FastConformerEncoder({ ...tiny, ...config })
    expect(make({ subsamplingFactor: 6 })).toThrow(/subsampling_factor.*6/)
    expect(make({ convKernelSize: 4 })).toThrow(/conv_kernel_size must be odd, got 4/)
    expect(make({ selfAttentionModel: 'abs_pos' })).toThrow(/self_attention_model.*abs_pos/)
    expect(make({ attContextSize: [3, 3] })).toThrow(/att_context_size/)
    expect(make({ numMelBins: 12 })).toThrow(/num_mel_bins 12/)
    expect(make({ numKeyValueHeads: 1 })).toThrow(/numKeyValueHeads 2, got 1/)
    expect(make({ hiddenSizes: 1 })).toThrow(/hiddenSizes.*did you mean 'hiddenSize'/)
    const model = make({})()
    await expect(model.forward({ inputFeatures: randn([1, 20, 8]) })).rejects.toThrow(/input_features.*16/)
    await expect(model.forward({ inputFeatures: randn([1, 20, 16]), attentionMask: zeros([1, 19]) })).rejects.toThrow(
      /attention_mask/,
    )
  })
})

const tiny = {
  hiddenSize: 8,
  numHiddenLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 12,
  convKernelSize: 5,
  subsamplingConvChannels: 4,
  numMelBins: 16,
  layerdrop: 0,
  dropout: 0,
  activationDropout: 0,
  attentionDropout: 0,
}

describe('configurations', () => {
  const classes = { ParakeetEncoder: FastConformerEncoder, ...CLASSES }
  it.each(Object.keys(classes) as (keyof typeof classes)[])(
    'of %s: each key of transformers is known, with its default',
    (name) => {
      const theirs = defaults[name] as Record<string, unknown>
      const { encoder_config: encoder, ...rest } = theirs
      const given: Record<string, unknown> = {
        ...camelKeys(rest),
        ...(encoder ? { encoderConfig: camelKeys(encoder as Record<string, unknown>) } : {}),
      }
      const known = { ...given } as Record<string, unknown>
      const own = new classes[name]({}, { device: 'meta' }).config as Record<string, unknown>
      // A key that is neither read nor known to have no effect throws here.
      const whole = new classes[name](known as never, { device: 'meta' }).config as Record<string, unknown>
      for (const [key, value] of Object.entries(own)) {
        if (key === 'encoderConfig') continue
        if (key in given) expect({ [key]: value }).toEqual({ [key]: given[key] })
        expect({ [key]: whole[key] }).toEqual({ [key]: value })
      }
      const unread = Object.keys(given).filter((key) => !(key in own))
      expect(unread).toContain('modelType')
      expect(unread).not.toContain('hiddenSize')
    },
  )

  it('refuse unknown keys, and values outside their range, by name', () => {
    const make = (config: object) => () => new ParakeetForTDT(config as never, { device: 'meta' })
    expect(make({ vocabSise: 3 })).toThrow(/vocabSise.*did you mean 'vocabSize'/)
    expect(make({ encoderConfig: { hiddenSise: 8 } })).toThrow(/encoderConfig.*hiddenSise/)
    expect(make({ blankTokenId: 8193 })).toThrow(/blankTokenId: expected a token below vocabSize 8193, got 8193/)
    expect(make({ durations: [0] })).toThrow(/durations/)
    expect(make({ hiddenAct: 'gelu' })).toThrow(/expected hiddenAct "relu" or "tanh" or "sigmoid", got "gelu"/)
    make({ hiddenAct: 'sigmoid' })().dispose()
    expect(make({ decoderHiddenSize: 0 })).toThrow(/decoderHiddenSize/)
    expect(() => new ParakeetForRNNT({ durations: [0, 1] } as never, { device: 'meta' })).toThrow(/durations/)
    expect(() => new ParakeetForCTC({ ctcLossReduction: 'avg' } as never, { device: 'meta' })).toThrow(
      /ctcLossReduction/,
    )
  })
})

describe('labels of a transducer', () => {
  it('are checked by name', async () => {
    const model = new ParakeetForTDT({
      vocabSize: 7,
      blankTokenId: 6,
      padTokenId: 0,
      decoderHiddenSize: 4,
      encoderConfig: tiny,
    })
    const inputFeatures = randn([1, 40, 16])
    const refused = (inputs: object) => expect(model.forward({ inputFeatures, ...inputs })).rejects
    await refused({ labels: tensor([[1n, 7n]]) }).toThrow(/labels: expected token ids below 7/)
    await refused({ labels: tensor([[1n, -100n, 2n]]) }).toThrow(/labels: expected padding only at the end/)
    await refused({ labels: tensor([1n]) }).toThrow(/labels: expected int64 \[1, length\]/)
    await refused({ labels: tensor([[1n]]), reduction: 'avg' }).toThrow(/reduction/)
    await refused({ outputLogits: true }).toThrow(/outputLogits: expected labels/)
    const rnnt = new ParakeetForRNNT({ vocabSize: 7, blankTokenId: 6, decoderHiddenSize: 4, encoderConfig: tiny })
    await expect(rnnt.forward({ inputFeatures, labels: tensor([[1n]]), sigma: 0.1 })).rejects.toThrow(/sigma/)
  })
})

describe('Parakeet models against transformers', () => {
  it.each(heads.cases)('$name', async ({ name, network, config, loss }) => {
    const { encoder_config: encoderConfig, ...rest } = config
    const model = new CLASSES[network]({
      ...camelKeys(rest),
      encoderConfig: camelKeys(encoderConfig as Record<string, unknown>),
    }).eval()
    loadParameters(model, heads, name)
    const inputs = camelKeys(tensorsOf(heads, name, 'in')) as unknown as ParakeetTransducerInputs
    const expected = tensorsOf(heads, name, 'out')
    const asked = network === 'ParakeetForCTC' ? inputs : { ...inputs, ...loss, outputLogits: true }
    const output = await model.forward(asked)
    expectClose(output.loss as Tensor, expected.loss as Tensor, 1e-5, 'loss')
    const logits = output.logits as Tensor
    const { attentionMask } = output
    const mask = attentionMask?.reshape([...attentionMask.shape, ...Array(logits.ndim - 2).fill(1)])
    expectClose(mask ? logits.mul(mask) : logits, expected.logits as Tensor, 1e-5, 'logits')
    await (output.loss as Tensor).backward()
    await expectGradients(model, heads, name, {
      again: async (as) => {
        const { loss: exact } = await model.forward({ ...asked, inputFeatures: as(asked.inputFeatures) })
        await (exact as Tensor).backward()
      },
    })

    const { inputFeatures, attentionMask: given = null } = inputs
    const found = await model.generate({ inputFeatures, attentionMask: given })
    const blank = (network === 'ParakeetForCTC' ? config.pad_token_id : config.blank_token_id) as number
    const sequences = (expected.sequences as Tensor).toArray() as (number | bigint)[][]
    const durations = expected.durations?.toArray() as (number | bigint)[][] | undefined
    const frames = model.featureLengths([inputFeatures.size(1), given ? 61 : inputFeatures.size(1)])
    found.forEach((row, i) => {
      const theirs = hypothesisOf(sequences[i]!.map(Number), durations?.[i]?.map(Number), blank, frames[i] as number)
      if (network === 'ParakeetForRNNT') theirs.durations.fill(1)
      expect(row, `row ${i}`).toEqual(theirs)
    })
    expect(found.flatMap(({ tokens }) => tokens).length).toBeGreaterThan(0)
  })
})

/** What transformers' sequences say: with durations, one step each; without, one frame each. */
function hypothesisOf(sequence: number[], durations: number[] | undefined, blank: number, frames: number) {
  const result: { tokens: number[]; starts: number[]; durations: number[] } = { tokens: [], starts: [], durations: [] }
  let frame = 0
  sequence.forEach((token, i) => {
    const duration = durations?.[i] ?? 1
    const isRepeated = durations === undefined && i > 0 && token === sequence[i - 1]
    if (token !== blank && frame < frames) {
      if (isRepeated) result.durations[result.durations.length - 1]! += 1
      else {
        result.tokens.push(token)
        result.starts.push(frame)
        result.durations.push(duration)
      }
    }
    frame += duration
  })
  return result
}
