import { describe, expect, it } from 'vitest'
import {
  autograd,
  ConfigError,
  full,
  getPeftModel,
  manualSeed,
  memoryStats,
  noGrad,
  randint,
  randn,
  Spectra,
  scope,
  slice,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import type { SpectraConfig, SpectraInputs } from '../../lib/systems/spectra/index.js'
import { SpectraForPreTraining } from '../../lib/systems/spectra/index.js'
import { expectClose, settledTensors } from '../helpers.js'

const sizes = { hiddenSize: 16, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 24 }
const tiny = (options: Partial<SpectraConfig> = {}, audio: object = {}): SpectraConfig => ({
  textConfig: { ...sizes, vocabSize: 60, maxPositionEmbeddings: 40, typeVocabSize: 2, layerNormEps: 1e-5 },
  audioConfig: {
    ...sizes,
    convDim: [6, 6, 6],
    convKernel: [10, 3, 2],
    convStride: [5, 2, 2],
    numConvPosEmbeddings: 8,
    numConvPosEmbeddingGroups: 2,
    ...audio,
  },
  numFusedLayers: 2,
  ...options,
})

interface Networks {
  fromConfig(config: SpectraConfig): Spectra | SpectraForPreTraining
}
/** The same weights, with and without padding. */
function both<N extends Networks>(Network: N, options: Partial<SpectraConfig> = {}, audio: object = {}) {
  return [true, false].map((paddingFree) => {
    manualSeed(3)
    return Network.fromConfig(tiny({ ...options, paddingFree }, audio)).eval()
  }) as [ReturnType<N['fromConfig']>, ReturnType<N['fromConfig']>]
}

/** Texts and clips of these lengths, padded. */
function inputsOf(tokens: number[], samples: number[], time = 12): SpectraInputs {
  const attentionMask = tensor(tokens.map((length) => Array.from({ length: time }, (_, i) => i < length)))
  const inputIds = randint(3, 60, [tokens.length, time]).mul(attentionMask).add(attentionMask.logicalNot().long())
  return {
    inputIds,
    attentionMask,
    inputValues: randn([samples.length, Math.max(...samples, 1)]),
    audioLengths: tensor(samples, { dtype: 'int64' }),
    audiosPerText: (samples.length / tokens.length) as 1 | 2,
  }
}

/** max |a - b| of all gradients, relative to the largest of all: those of keys' biases are rounding errors alone. */
function apart(a: readonly (Tensor | null | undefined)[], b: readonly (Tensor | null | undefined)[]): number {
  const most = (tensors: readonly (Tensor | null | undefined)[]) =>
    Math.max(...tensors.map((one) => (one?.abs().max().item() as number) ?? 0))
  return most(a.map((one, i) => one?.sub(b[i] as Tensor))) / most(b)
}

const real = (output: { lastHiddenState: Tensor; attentionMask: Tensor }) =>
  output.lastHiddenState.index([output.attentionMask])

const cases: [string, SpectraInputs][] = [
  ['one clip', inputsOf([12, 5, 8], [700, 111, 380])],
  ['one clip, some absent', inputsOf([12, 5, 8], [700, 0, 20])],
  ['two clips, some absent', inputsOf([12, 5, 8], [700, 111, 0, 450, 95, 0])],
  ['texts alone', inputsOf([12, 5, 8], [0, 0, 0])],
  ['clips of one length', inputsOf([12, 5, 8], [400, 400, 400])],
  ['one row that has padding', inputsOf([5], [300])],
]

describe.each([
  ['a norm over time', {}],
  ['norms over channels', { featExtractNorm: 'layer', doStableLayerNorm: true }],
])('SPECTRA without padding, %s', (_, audio) => {
  it.each(cases)('has the states and gradients that it has with padding: %s', async (_, inputs) => {
    await scope(async () => {
      const [free, padded] = both(Spectra, { hasAudioCls: true }, audio)
      const [a, b] = [await free.forward(inputs), await padded.forward(inputs)]
      expect(a.lastHiddenState.shape).toEqual(b.lastHiddenState.shape)
      expect(a.attentionMask.equal(b.attentionMask)).toBe(true)
      expectClose(real(a), real(b), 1e-5)
      // Nothing is computed for padding, and what is not computed is 0.
      const padding = a.attentionMask.logicalNot()
      expect(a.lastHiddenState.index([padding]).abs().max().item()).toBe(0)
      expect(b.lastHiddenState.index([padding]).abs().max().item()).toBeGreaterThan(0.1)

      const gradients = (network: Spectra, output: typeof a) =>
        autograd.grad(real(output).pow(3).sum(), network.parameters(), { allowUnused: true })
      expect(apart(await gradients(free, a), await gradients(padded, b))).toBeLessThan(1e-5)
      await noGrad(async () => expectClose(real(await free.forward(inputs)), real(b), 1e-5, 'without a graph'))
    })
  })
})

describe('SPECTRA without padding', () => {
  const inputs = inputsOf([12, 5, 8], [700, 111, 380])

  it('changes nothing where there is none', async () => {
    await scope(async () => {
      const full = inputsOf([12, 12], [400, 400])
      const [free, padded] = both(Spectra)
      const [a, b] = [await free.forward(full), await padded.forward(full)]
      expect(a.lastHiddenState.equal(b.lastHiddenState)).toBe(true)
    })
  })

  it('has the same losses and gradients in pre-training', async () => {
    await scope(async () => {
      const pairs = inputsOf([12, 9, 5, 7], [700, 450, 300, 500, 95, 610])
      const given = {
        ...pairs,
        audiosPerText: undefined,
        mlmLabels: full([2, 12], -100, { dtype: 'int64' }),
        mamMask: zeros([6, 34], { dtype: 'int8' }),
        mamSource: zeros([6, 34], { dtype: 'int64' }),
        startMask: zeros([2, 12]).bool(),
        endMask: zeros([2, 12]).bool(),
        starts: tensor([0.25]),
        ends: tensor([0.5]),
      }
      given.mlmLabels.setAt([slice(), 2], 7)
      given.mamMask.setAt([slice(), slice(0, 3)], 1)
      given.mamMask.setAt([1, slice(10, 14)], 2)
      given.mamSource.setAt([1, slice(10, 14)], 5)
      given.mamMask.setAt([3, slice(4, 7)], 3)
      given.startMask.setAt([1, 1], true)
      given.endMask.setAt([0, 3], true)
      const [free, padded] = both(SpectraForPreTraining, { mamTargetGradients: true })
      const [a, b] = [await free.forward(given), await padded.forward(given)]
      for (const name of ['mlmLoss', 'mamLoss', 'crsLoss', 'tppLoss'] as const) {
        expect(b[name].item()).not.toBe(0)
        expectClose(a[name], b[name], 1e-5, name)
      }
      const gradients = (network: SpectraForPreTraining, loss: Tensor) =>
        autograd.grad(loss, network.parameters(), { allowUnused: true })
      expect(apart(await gradients(free, a.loss), await gradients(padded, b.loss))).toBeLessThan(1e-5)
    })
  })

  it('has the same gradients with activation checkpointing, and drops out the same', async () => {
    await scope(async () => {
      manualSeed(3)
      const network = Spectra.fromConfig(tiny({}, { hiddenDropout: 0.2, attentionDropout: 0.1, layerdrop: 0.3 }))
      const run = async () => {
        manualSeed(8)
        return autograd.grad(
          real(await network.forward(inputs))
            .pow(3)
            .sum(),
          network.parameters(),
          {
            allowUnused: true,
          },
        )
      }
      const plain = await run()
      network.gradientCheckpointing(true)
      expect(apart(await run(), plain)).toBeLessThan(1e-6)
    })
  })

  it('trains adapters alike', async () => {
    await scope(async () => {
      const gradients = []
      for (const network of both(Spectra)) {
        manualSeed(5)
        getPeftModel(network, {
          r: 2,
          targetModules: ['query', 'value', 'q_proj', 'v_proj', 'dense', 'conv_layers.1.conv'],
        })
        manualSeed(6)
        const lora = [...network.namedParameters()].filter(([name]) => name.includes('lora_'))
        noGrad(() => {
          for (const [, one] of lora) one.copy_(randn(one.shape).mul(0.1))
        })
        const loss = real(await network.forward(inputs))
          .pow(3)
          .sum()
        const adapters = lora.map(([, one]) => one)
        gradients.push(await autograd.grad(loss, adapters, { allowUnused: true }))
      }
      expect(gradients[0]?.length).toBeGreaterThan(40)
      expect(apart(gradients[0] as Tensor[], gradients[1] as Tensor[])).toBeLessThan(1e-5)
    })
  })

  it('gives the same states with attention maps', async () => {
    await scope(async () => {
      const network = both(Spectra)[0]
      const maps = await network.forward({ ...inputs, outputAttentions: true })
      expect(maps.attentions).toHaveLength(2)
      expectClose(real(maps), real(await network.forward(inputs)), 1e-5)
    })
  })

  it('cannot be where padding is read', () => {
    for (const options of [{ compat: 'published' }, { legacyFusionMask: true }] as const) {
      const build = () => Spectra.fromConfig(tiny({ ...options, paddingFree: true }))
      expect(build).toThrow(ConfigError)
      expect(build).toThrow(/padding_free/)
    }
  })

  it('leaves nothing behind', async () => {
    const network = both(Spectra)[0]
    const before = await settledTensors()
    await scope(async () => {
      await real(await network.forward(inputs))
        .sum()
        .backward()
    })
    network.zeroGrad()
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})
