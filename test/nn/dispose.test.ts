import { describe, expect, it } from 'vitest'
import {
  Beats,
  DecoderLM,
  DisposedError,
  getPeftModel,
  KvCache,
  Linear,
  Module,
  type NativeModule,
  QFormer,
  Roberta,
  randn,
  Sequential,
  scope,
  tensor,
  WavLM,
  Whisper,
  WhisperEncoder,
} from '../../lib/index.js'
import { settledTensors } from '../helpers.js'
import { tinySalmonn } from '../systems/salmonn/network/tiny.js'

const LLM = { vocabSize: 11, hiddenSize: 8, intermediateSize: 8, numHiddenLayers: 1, numAttentionHeads: 2 }
const WHISPER = {
  vocabSize: 51865,
  dModel: 8,
  encoderLayers: 1,
  encoderAttentionHeads: 2,
  encoderFfnDim: 8,
  decoderLayers: 1,
  decoderAttentionHeads: 2,
  decoderFfnDim: 8,
  maxSourcePositions: 10,
}
const ENCODER = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8 }

class Head extends Module {
  llm = DecoderLM.fromConfig(LLM)
  out = new Sequential(new Linear(8, 2))
}

const makers: [string, () => Module | Promise<Module>][] = [
  ['Linear', () => new Linear(2, 2)],
  ['Sequential', () => new Sequential(new Linear(2, 2))],
  ['DecoderLM', () => DecoderLM.fromConfig(LLM)],
  ['a part of a DecoderLM', () => DecoderLM.fromConfig(LLM).get('model')],
  ['DecoderLM with LoRA', () => getPeftModel(DecoderLM.fromConfig(LLM), { r: 2, targetModules: ['q_proj'] }).model],
  ['Whisper', () => Whisper.fromConfig(WHISPER)],
  ['WhisperEncoder', () => WhisperEncoder.fromConfig(WHISPER)],
  ['Roberta', () => Roberta.fromConfig({ ...ENCODER, vocabSize: 9 })],
  ['WavLM', () => WavLM.fromConfig({ ...ENCODER, numConvPosEmbeddings: 4, numConvPosEmbeddingGroups: 2 })],
  ['Beats', () => Beats.fromConfig({ encoderLayers: 1, encoderEmbedDim: 16, encoderFfnEmbedDim: 8, encoderAttentionHeads: 2 })],
  ['QFormer', () => new QFormer({ hiddenSize: 8, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 8, encoderWidth: 6 })],
  ['a Module with native parts', () => new Head()],
  ['Salmonn', () => tinySalmonn()],
] // biome-ignore format: a line for each

describe('dispose', () => {
  it.each(makers)('is harmless when repeated: %s', async (_name, make) => {
    const before = await settledTensors()
    {
      using model = await make()
      model.dispose()
      model.dispose()
      expect(() => model.parameters()[0]?.item()).toThrow(DisposedError)
    }
    expect(await settledTensors()).toBeLessThanOrEqual(before)
  })

  it('leaves a network that throws DisposedError', async () => {
    const model = DecoderLM.fromConfig(LLM)
    model.dispose()
    model.dispose()
    const inputIds = tensor([[1, 2]], { dtype: 'int64' })
    await expect((async () => model.forward({ inputIds }))()).rejects.toThrow(DisposedError)
    expect(() => model.training).toThrow(DisposedError)
    expect(() => model.train()).toThrow(DisposedError)
    const part: NativeModule = model.get('model')
    expect(() => part.eval()).toThrow(DisposedError)
    const linear = new Linear(2, 2)
    linear.dispose()
    linear.dispose()
    expect(() => scope(() => linear.forward(randn([1, 2])))).toThrow(DisposedError)
  })

  it('is harmless when repeated: KvCache', () => {
    using cache = new KvCache()
    cache.dispose()
    expect(() => cache.length).toThrow(DisposedError)
  })
})
