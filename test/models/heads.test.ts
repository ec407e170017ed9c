import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import * as voxtorch from '../../lib/index.js'
import {
  type DType,
  type Module,
  manualSeed,
  scope,
  type Tensor,
  Wav2Vec2ForCTC,
  Wav2Vec2ForSequenceClassification,
  WavLMForXVector,
} from '../../lib/index.js'
import type { DecoderLMClassifierConfig } from '../../lib/models/decoder/classification.js'
import type { SpeechHeadConfig } from '../../lib/models/encoders/speech-head.js'
import { expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { type As, camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  network: string
  config: Record<string, unknown>
}
type Outputs = Record<'loss' | 'logits' | 'embeddings', Tensor>
type Head = Module & { forward(inputs: object): Promise<Outputs> }
type HeadClass = new (config: SpeechHeadConfig, options?: { dtype?: DType }) => Head

const speech = await fixture<Case>('models/speech-heads')
const text = await fixture<Case>('models/text-heads')
const cases = [speech, text].flatMap((file) => file.cases.map((one) => ({ ...one, file })))
// transformers takes LLaMA's norms and softmax through float32.
const exact = cases.filter(({ network }) => /^(Wav|Roberta)/.test(network))
const classOf = (name: string): HeadClass =>
  (voxtorch as unknown as Record<string, HeadClass>)[name.replace(/^(Llama|Mistral|Qwen2)/, 'DecoderLM')] as HeadClass
const tiny = camelKeys((speech.cases[0] as Case).config) as SpeechHeadConfig

describe.each([
  ['float32', 1e-5, cases],
  ['float64', 1e-9, exact],
] as const)('heads in %s', (dtype, tolerance, cases) => {
  it.each(cases)(
    '$name has the outputs, loss and gradients of transformers',
    async ({ name, network, config, file }) => {
      const model = new (classOf(network))(camelKeys(config), { dtype }).eval()
      loadParameters(model, file, name)
      const inputs = camelKeys(tensorsOf(file, name, 'in'))
      if (inputs.inputValues) inputs.inputValues = inputs.inputValues.to(dtype)
      if (inputs.inputFeatures) inputs.inputFeatures = inputs.inputFeatures.to(dtype)
      const output = await model.forward(inputs)
      const expected = Object.entries(tensorsOf(file, name, 'out'))
      const cotangent = tensorsOf(file, name, 'cotangent')
      for (const [key, value] of expected) expectClose(output[key as 'loss'], value, tolerance, key)
      const back = (outputs: Outputs) =>
        expected
          .map(([key]) => outputs[key as 'loss'].mul(cotangent[key] as Tensor).sum())
          .reduce((sum, one) => sum.add(one))
          .backward()
      await back(output)
      const again = async (as: As) =>
        back(await model.forward(Object.fromEntries(Object.entries(inputs).map(([key, one]) => [key, as(one)]))))
      await expectGradients(model, file, name, dtype === 'float32' && file === speech ? { again } : { tolerance })
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
    const directory = mkdtempSync(join(tmpdir(), 'voxtorch-heads-'))
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
    const directory = mkdtempSync(join(tmpdir(), 'voxtorch-heads-'))
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

  it('over a language model takes the model of one, and needs the end of each text', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'voxtorch-heads-'))
    const { config } = text.cases.find(({ network }) => network.startsWith('Llama')) as Case
    const small = camelKeys(config) as DecoderLMClassifierConfig
    const { numLabels: _, ...rest } = small
    const lm = new voxtorch.DecoderLM(rest)
    await lm.save(directory)
    const options = { allowMissing: true }
    const model = await voxtorch.DecoderLMForSequenceClassification.fromPretrained(directory, options)
    const weight = 'model.layers.0.mlp.up_proj.weight'
    expect(model.stateDict()[weight]?.equal(lm.stateDict()[weight] as Tensor)).toBe(true)
    expect(model.score.weight.shape).toEqual([2, 8])
    await model.save(directory)
    const back = await voxtorch.DecoderLMForSequenceClassification.fromPretrained(directory)
    expect(back.score.weight.equal(model.score.weight)).toBe(true)
    const endless = new voxtorch.DecoderLMForSequenceClassification({ ...small, padTokenId: null })
    const inputIds = voxtorch.tensor(
      [
        [3, 4],
        [5, 6],
      ],
      { dtype: 'int64' },
    )
    await expect(endless.forward({ inputIds })).rejects.toThrow(
      /expected a padTokenId in the configuration, to find the ends of 2 texts/,
    )
  })

  it('takes adapters: LoRA on the trunk and the head together', async () => {
    const { config } = text.cases[0] as Case
    const model = new voxtorch.RobertaForSequenceClassification(camelKeys(config)).eval()
    const peft = voxtorch.getPeftModel(model, new voxtorch.LoraConfig({ targetModules: ['query', 'dense'], r: 2 }))
    const inputIds = voxtorch.tensor([[3, 4, 5]], { dtype: 'int64' })
    const { loss } = await peft.forward({ inputIds, labels: voxtorch.tensor([1], { dtype: 'int64' }) })
    await (loss as Tensor).backward()
    const learnt = model.namedParameters().filter(([, parameter]) => parameter.grad !== null)
    expect(learnt.some(([name]) => name.includes('classifier.dense.lora_'))).toBe(true)
    expect(learnt.some(([name]) => name.includes('attention.self.query.lora_'))).toBe(true)
  })

  it('refuses what it cannot do, by name', async () => {
    const bad = (config: SpeechHeadConfig) => () => new Wav2Vec2ForSequenceClassification({ ...tiny, ...config })
    expect(bad({ addAdapter: true })).toThrow(/addAdapter: expected false/)
    expect(bad({ numLabels: 0 })).toThrow(/numLabels: expected an integer/)
    expect(bad({ id2label: { 0: 'a' } })).toThrow(/numLabels: expected 1, the number of names in id2label, got 3/)
    expect(() => new Wav2Vec2ForCTC({ ...tiny, ctcLossReduction: 'avg' as 'sum' })).toThrow(/ctcLossReduction/)
    const short = new WavLMForXVector(tiny)
    await expect(short.forward({ inputValues: voxtorch.randn([1, 40]) })).rejects.toThrow(
      /clip 0: expected at least 7 frames for the x-vector, got 3\. Use a longer clip/,
    )
    const model = new Wav2Vec2ForCTC(tiny)
    const inputValues = voxtorch.randn([1, 160])
    for (const label of [7, -1]) {
      const labels = voxtorch.tensor([[label]], { dtype: 'int64' })
      await expect(model.forward({ inputValues, labels })).rejects.toThrow(
        /labels: expected token ids below 7, or -100 for padding/,
      )
    }
  })
})
