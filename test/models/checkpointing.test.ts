import { describe, expect, it } from 'vitest'
import {
  autocast,
  autograd,
  ConfigError,
  DecoderLM,
  emptyCache,
  getPeftModel,
  Linear,
  manualSeed,
  NativeModule,
  Roberta,
  randint,
  randn,
  type Tensor,
  Wav2Vec2,
  Wav2Vec2Conformer,
  WavLM,
} from '../../lib/index.js'
import { here } from '../helpers.js'

const SPEECH = {
  hiddenSize: 32,
  numHiddenLayers: 3,
  numAttentionHeads: 4,
  intermediateSize: 64,
  convDim: [16, 16],
  convKernel: [10, 3],
  convStride: [5, 2],
  numConvPosEmbeddings: 8,
  numConvPosEmbeddingGroups: 4,
  maskTimeProb: 0,
}
const DROPOUT = { hiddenDropout: 0.2, attentionDropout: 0.1, activationDropout: 0.1 }
type Outputs = { lastHiddenState: Tensor; attentions?: Tensor[] }
type Network = NativeModule & { forward(inputs: object): Promise<Outputs> }

const NETWORKS: [string, (wide?: object) => Network, () => object][] = [
  [
    'Roberta',
    (wide) =>
      Roberta.fromConfig({
        vocabSize: 50,
        hiddenSize: 32,
        numHiddenLayers: 3,
        numAttentionHeads: 4,
        intermediateSize: 64,
        hiddenDropoutProb: 0.2,
        attentionProbsDropoutProb: 0.1,
        ...wide,
      }) as unknown as Network,
    () => ({ inputIds: randint(3, 50, [2, 9]) }),
  ],
  [
    'DecoderLM',
    (wide) =>
      DecoderLM.fromConfig({
        vocabSize: 50,
        hiddenSize: 32,
        numHiddenLayers: 3,
        numAttentionHeads: 4,
        numKeyValueHeads: 2,
        intermediateSize: 64,
        attentionDropout: 0.2,
        ...wide,
      }) as unknown as Network,
    () => ({ inputIds: randint(3, 50, [2, 9]) }),
  ],
  [
    'WavLM',
    (wide) => WavLM.fromConfig({ ...SPEECH, ...DROPOUT, layerdrop: 0.3, ...wide }) as unknown as Network,
    () => ({ inputValues: randn([2, 700]) }),
  ],
  [
    'Wav2Vec2',
    (wide) =>
      Wav2Vec2.fromConfig({
        ...SPEECH,
        ...DROPOUT,
        layerdrop: 0,
        doStableLayerNorm: true,
        ...wide,
      }) as unknown as Network,
    () => ({ inputValues: randn([2, 700]) }),
  ],
  [
    'Wav2Vec2Conformer',
    // Positions that add to the scores take another of ATen's attention kernels where no gradient is recorded.
    (wide) =>
      Wav2Vec2Conformer.fromConfig({
        ...SPEECH,
        ...DROPOUT,
        positionEmbeddingsType: 'rotary',
        layerdrop: 0.3,
        ...wide,
      }) as unknown as Network,
    () => ({ inputValues: randn([2, 700]) }),
  ],
]

const bits = (tensors: readonly (Tensor | null)[]) => tensors.map((one) => one?.toArray())

describe.each(NETWORKS)('gradient checkpointing of %s', (_, make, makeInputs) => {
  const run = async (model: Network, inputs: object, dtype?: 'bfloat16') => {
    manualSeed(4)
    const output = dtype
      ? await autocast({ device: here(), dtype }, () => model.forward(inputs))
      : await model.forward(inputs)
    const loss = output.lastHiddenState.float().pow(2).sum()
    const grads = await autograd.grad(loss, [...model.parameters()], { allowUnused: true })
    return { output, state: bits([output.lastHiddenState]), grads: bits(grads) }
  }

  it('gives the same bits, also while dropout is on and under autocast', async () => {
    manualSeed(1)
    const model = make()
    const inputs = makeInputs()
    for (const training of [true, false]) {
      for (const dtype of [undefined, 'bfloat16'] as const) {
        model.train(training)
        model.gradientCheckpointing(false)
        const plain = await run(model, inputs, dtype)
        model.gradientCheckpointing(true)
        const saved = await run(model, inputs, dtype)
        expect(saved.state).toEqual(plain.state)
        expect(saved.grads).toEqual(plain.grads)
        expect(saved.grads.filter((grad) => grad !== undefined).length).toBeGreaterThan(10)
      }
    }
  })

  it('holds less memory on the CPU between forward and backward', async () => {
    const wide = { hiddenSize: 128, intermediateSize: 512, numHiddenLayers: 6 }
    const model = make(wide)
    const inputs =
      'inputIds' in makeInputs() ? { inputIds: randint(3, 50, [8, 200]) } : { inputValues: randn([8, 2000]) }
    // What the first pass allocates once is not counted.
    const { lastHiddenState: warm } = await model.forward(inputs)
    warm.dispose()
    const held: number[] = []
    for (const enabled of [true, false]) {
      model.gradientCheckpointing(enabled)
      emptyCache()
      const before = process.memoryUsage.rss()
      const { lastHiddenState } = await model.forward(inputs)
      emptyCache()
      held.push(process.memoryUsage.rss() - before)
      lastHiddenState.dispose()
    }
    // Six layers' activations against their inputs.
    expect(held[0]).toBeLessThan((held[1] as number) / 2)
  })
})

describe('gradientCheckpointing', () => {
  it('refuses networks without layers', () => {
    const model = Roberta.fromConfig({ vocabSize: 9, hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2 })
    const part = model.get('embeddings')
    expect(part).toBeInstanceOf(NativeModule)
    expect(() => (part as NativeModule).gradientCheckpointing(true)).toThrow(ConfigError)
    expect(() => model.gradientCheckpointing('yes' as never)).toThrow(ConfigError)
    expect('gradientCheckpointing' in new Linear(1, 1)).toBe(false)
  })

  it('takes no shortcut of inference in either run: a few rows through adapters', async () => {
    manualSeed(2)
    const config = { vocabSize: 50, hiddenSize: 256, intermediateSize: 512, numHiddenLayers: 2, numAttentionHeads: 4 }
    const model = DecoderLM.fromConfig({ ...config, modelType: 'llama' })
    getPeftModel(model, { r: 4, targetModules: 'all-linear', initLoraWeights: false })
    const adapters = model.parameters().filter((parameter) => parameter.requiresGrad)
    const inputIds = randint(3, 50, [1, 5])
    const grads = []
    for (const enabled of [false, true]) {
      model.gradientCheckpointing(enabled)
      const { lastHiddenState } = await model.forward({ inputIds })
      grads.push(bits(await autograd.grad(lastHiddenState.pow(2).sum(), adapters, { allowUnused: true })))
    }
    expect(grads[1]).toEqual(grads[0])
  })

  it('says so when train() or eval() comes in between', async () => {
    const model = Roberta.fromConfig({ vocabSize: 9, hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2 })
    model.gradientCheckpointing(true).train()
    const { lastHiddenState } = await model.forward({ inputIds: randint(3, 9, [1, 4]) })
    model.eval()
    await expect(lastHiddenState.sum().backward()).rejects.toThrow(/train\(\) or eval\(\)/)
  })
})
