import { describe, expect, it } from 'vitest'
import * as voxtorch from '../../lib/index.js'
import {
  type DType,
  type Module,
  manualSeed,
  type SpeechHeadConfig,
  scope,
  type Tensor,
  Wav2Vec2ForCTC,
  Wav2Vec2ForSequenceClassification,
  WavLMForXVector,
} from '../../lib/index.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  network: string
  config: Record<string, unknown>
}
type Outputs = Record<'loss' | 'logits' | 'embeddings', Tensor>
type Head = Module & { forward(inputs: object): Promise<Outputs> }
type HeadClass = new (config: SpeechHeadConfig, options?: { dtype?: DType }) => Head

const file = await fixture<Case>('models/speech-heads')
const classOf = (name: string) => (voxtorch as unknown as Record<string, HeadClass>)[name] as HeadClass
const tiny = camelKeys((file.cases[0] as Case).config) as SpeechHeadConfig

describe.each([
  ['float32', 1e-5],
  ['float64', 1e-9],
] as const)('heads of speech encoders in %s', (dtype, tolerance) => {
  it.each(file.cases)(
    '$name has the outputs, loss and gradients of transformers',
    async ({ name, network, config }) => {
      const model = new (classOf(network))(camelKeys(config), { dtype }).eval()
      loadParameters(model, file, name)
      const inputs = camelKeys(tensorsOf(file, name, 'in')) as { inputValues: Tensor }
      const output = await model.forward({ ...inputs, inputValues: inputs.inputValues.to(dtype) })
      const expected = Object.entries(tensorsOf(file, name, 'out'))
      const cotangent = tensorsOf(file, name, 'cotangent')
      for (const [key, value] of expected) expectClose(output[key as 'loss'], value, tolerance, key)
      const weighted = expected.map(([key]) => output[key as 'loss'].mul(cotangent[key] as Tensor).sum())
      await weighted.reduce((sum, one) => sum.add(one)).backward()
      await expectGradients(model, file, name, { tolerance })
    },
  )
})

describe('a head', () => {
  it('begins as transformers has it: normal weights, no biases, equal layers', () => {
    manualSeed(1)
    const model = new Wav2Vec2ForSequenceClassification({
      ...tiny,
      useWeightedLayerSum: true,
      classifierProjSize: 4000,
    })
    const { weight, bias } = model.projector
    expect(weight.std().item()).toBeCloseTo(0.02, 3)
    expect(bias?.abs().max().item()).toBe(0)
    expect(model.layer_weights?.toArray()).toEqual([1 / 3, 1 / 3, 1 / 3].map(Math.fround))
  })

  it('takes the encoder of a checkpoint without one, where that is allowed', async () => {
    const { mkdtemp } = await import('node:fs/promises')
    const { tmpdir } = await import('node:os')
    const directory = await mkdtemp(`${tmpdir()}/voxtorch-`)
    const trunk = new voxtorch.Wav2Vec2(tiny)
    await trunk.save(directory)
    await expect(Wav2Vec2ForCTC.fromPretrained(directory)).rejects.toMatchObject({
      name: 'CheckpointError',
      missing: ['lm_head.weight', 'lm_head.bias'],
    })
    const model = await Wav2Vec2ForCTC.fromPretrained(directory, { allowMissing: true })
    const weight = 'encoder.layers.0.attention.q_proj.weight'
    expect(model.stateDict()[`wav2vec2.${weight}`]?.equal(trunk.stateDict()[weight] as Tensor)).toBe(true)
    expect(model.lm_head.bias?.abs().max().item()).toBe(0)
  })

  it('finds its way from another head to its own', async () => {
    const { mkdtemp } = await import('node:fs/promises')
    const { tmpdir } = await import('node:os')
    const directory = await mkdtemp(`${tmpdir()}/voxtorch-`)
    await new Wav2Vec2ForCTC(tiny).save(directory)
    const options = { allowMissing: true }
    const model = await Wav2Vec2ForSequenceClassification.fromPretrained(directory, options)
    expect(model).toBeInstanceOf(Wav2Vec2ForSequenceClassification)
    expect(model.classifier.weight.shape).toEqual([3, 5])
  })

  it('leaves no tensor but its outputs', async () => {
    const model = new Wav2Vec2ForSequenceClassification({ ...tiny, useWeightedLayerSum: true }).eval()
    const inputValues = voxtorch.randn([2, 160])
    const labels = voxtorch.tensor([0, 1], { dtype: 'int64' })
    await scope(() => model.forward({ inputValues, labels }).then(() => undefined))
    const before = await settledTensors()
    const { loss, logits } = await model.forward({ inputValues, labels })
    expect((await settledTensors()) - before).toBe(2)
    loss?.dispose()
    logits.dispose()
  })

  it('refuses what it cannot do, by name', async () => {
    const bad = (config: SpeechHeadConfig) => () => new Wav2Vec2ForSequenceClassification({ ...tiny, ...config })
    expect(bad({ addAdapter: true })).toThrow(/addAdapter is for CTC/)
    expect(bad({ numLabels: 0 })).toThrow(/numLabels must be a whole number/)
    expect(bad({ id2label: { 0: 'a' } })).toThrow(/numLabels is 3, but id2label names 1/)
    expect(() => new Wav2Vec2ForCTC({ ...tiny, ctcLossReduction: 'avg' as 'sum' })).toThrow(/ctcLossReduction/)
    const short = new WavLMForXVector(tiny)
    await expect(short.forward({ inputValues: voxtorch.randn([1, 40]) })).rejects.toThrow(/clip 0 has \d+ frames/)
    const model = new Wav2Vec2ForCTC(tiny)
    const inputValues = voxtorch.randn([1, 160])
    for (const label of [7, -1]) {
      const labels = voxtorch.tensor([[label]], { dtype: 'int64' })
      await expect(model.forward({ inputValues, labels })).rejects.toThrow(/one of 7 tokens/)
    }
  })
})
