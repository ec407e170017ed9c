import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  Beats,
  ConfigError,
  DecoderLM,
  DecoderLMForSequenceClassification,
  KvCache,
  memoryStats,
  NativeModule,
  QFormer,
  Roberta,
  RobertaForSequenceClassification,
  tensor,
  WavLM,
  WavLMForCTC,
  Whisper,
  WhisperEncoder,
} from '../../lib/index.js'
import { settledTensors } from '../helpers.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-network-class-'))
afterAll(() => rmSync(folder, { recursive: true }))

const size = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 }
const text = { ...size, vocabSize: 30, maxPositionEmbeddings: 20 }
const speech = { ...size, convDim: [8], convKernel: [10], convStride: [5], numConvPosEmbeddings: 4, numConvPosEmbeddingGroups: 2 } // biome-ignore format: one line

describe('the classes of networks', () => {
  it('make what their static methods are called on', async () => {
    class Mine extends WavLM {}
    using made = Mine.fromConfig(speech)
    expect(made).toBeInstanceOf(Mine)
    await made.save(folder)
    using read: WavLM = await Mine.fromPretrained(folder)
    expect(read).toBeInstanceOf(Mine)
    expect(read.featureLengths([25])).toEqual([4])
    expect(new Mine(speech)).toBeInstanceOf(NativeModule)
  })

  it('so do those of heads', async () => {
    class Mine extends WavLMForCTC {}
    using made: Mine = Mine.fromConfig(speech)
    await made.save(folder)
    using read: Mine = await Mine.fromPretrained(folder)
    expect(read).toBeInstanceOf(Mine)
    expect(read.featureLengths([25])).toEqual([4])
  })

  it('name themselves and the option that is wrong', () => {
    const classes: unknown[] = [WavLM, WavLMForCTC, Roberta, RobertaForSequenceClassification, Whisper, WhisperEncoder, Beats, QFormer, DecoderLM, DecoderLMForSequenceClassification] // biome-ignore format: one line
    for (const type of classes as (typeof WavLM)[]) {
      expect(() => type.fromConfig('huge')).toThrow(
        new RegExp(`^${type.name}: config: expected a published size of .*, got "huge"`),
      )
      expect(() => type.fromConfig(7 as never)).toThrow(`${type.name}: config: expected a configuration`)
      expect(() => type.fromConfig({}, null as never)).toThrow(ConfigError)
    }
    expect(() => RobertaForSequenceClassification.fromConfig(text, { dtpye: 1 } as never)).toThrow("'dtype'")
  })

  it('keep nothing of a directory whose generation_config.json is broken', async () => {
    using model = DecoderLM.fromConfig(text)
    await model.save(folder)
    writeFileSync(join(folder, 'generation_config.json'), '[]')
    const before = await settledTensors()
    await expect(DecoderLM.fromPretrained(folder)).rejects.toThrow('generation_config.json: expected a JSON object')
    expect(memoryStats().liveTensors).toBe(before)
  })

  it('give the operator the caches of a decoder, and only those', async () => {
    using model = DecoderLM.fromConfig({ ...text, hiddenSize: 16, numAttentionHeads: 2 })
    using cache = new KvCache()
    const inputIds = tensor([[1n, 2n, 3n]])
    const { logits } = await model.forward({ inputIds, cache, logitsToKeep: 1 })
    expect(cache.length).toBe(3)
    expect(logits?.shape).toEqual([1, 1, 30])
    await expect(model.forward({ inputIds, cache: {} as never })).rejects.toThrow('cache: expected a KvCache')
    using encoder = Roberta.fromConfig(text)
    await expect((async () => encoder.forward({ inputIds, cache } as never))()).rejects.toThrow(/cache/)
  })
})
