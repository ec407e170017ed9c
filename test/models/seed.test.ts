import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  ConfigError,
  DecoderLM,
  DecoderLMForSequenceClassification,
  type Module,
  manualSeed,
  type NetworkOptions,
  QFormer,
  Roberta,
  RobertaForSequenceClassification,
  rand,
  Salmonn,
  Spectra,
  WavLM,
  WavLMForCTC,
  Whisper,
} from '../../lib/index.js'
import type { SalmonnConfig } from '../../lib/systems/salmonn/index.js'
import { smallSpectra } from '../systems/spectra/network.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-seed-'))
afterAll(() => rmSync(folder, { recursive: true }))

const size = { hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 16 }
const speech = { ...size, convDim: [8], convKernel: [10], convStride: [5], numConvPosEmbeddings: 4, numConvPosEmbeddingGroups: 2 } // biome-ignore format: one line
const text = { ...size, vocabSize: 30, maxPositionEmbeddings: 20 }
const whisper = { dModel: 16, encoderLayers: 1, decoderLayers: 1, encoderAttentionHeads: 2, decoderAttentionHeads: 2, encoderFfnDim: 16, decoderFfnDim: 16, vocabSize: 30, maxSourcePositions: 20, maxTargetPositions: 20, padTokenId: 0, bosTokenId: 1, eosTokenId: 2, decoderStartTokenId: 1 } // biome-ignore format: one line
const qformer = { ...size, encoderWidth: 16, queryLength: 1 }
const beats = { encoderLayers: 1, encoderEmbedDim: 16, encoderFfnEmbedDim: 16, encoderAttentionHeads: 2, embedDim: 16, convPos: 4, convPosGroups: 2 } // biome-ignore format: one line
const salmonn = { whisper, beats, llm: text, qformer: { ...qformer, encoderWidth: 32 } } as SalmonnConfig

const NETWORKS: Record<string, (options: NetworkOptions) => Module> = {
  WavLM: (options) => WavLM.fromConfig(speech, options),
  WavLMForCTC: (options) => WavLMForCTC.fromConfig({ ...speech, vocabSize: 8 }, options),
  Roberta: (options) => Roberta.fromConfig(text, options),
  RobertaForSequenceClassification: (options) => RobertaForSequenceClassification.fromConfig({ ...text, numLabels: 3 }, options), // biome-ignore format: one line
  DecoderLM: (options) => DecoderLM.fromConfig(text, options),
  DecoderLMForSequenceClassification: (options) => DecoderLMForSequenceClassification.fromConfig({ ...text, numLabels: 3 }, options), // biome-ignore format: one line
  Whisper: (options) => Whisper.fromConfig(whisper, options),
  QFormer: (options) => QFormer.fromConfig(qformer, options),
  Spectra: (options) => Spectra.fromConfig(smallSpectra(30), options),
  Salmonn: (options) => Salmonn.fromConfig(salmonn, options),
}
const same = (a: Module, b: Module) => {
  const other = b.stateDict()
  return Object.entries(a.stateDict()).every(([name, value]) => other[name]?.equal(value))
}

describe('a seed', () => {
  it.each(Object.entries(NETWORKS))('decides the first weights of %s, and nothing after them', (_, make) => {
    manualSeed(1)
    const next = rand([4])
    manualSeed(1)
    using first = make({ seed: 5 })
    expect(rand([4]).equal(next)).toBe(true)
    using again = make({ seed: 5 })
    using other = make({ seed: 6 })
    expect(same(first, again)).toBe(true)
    expect(same(first, other)).toBe(false)
    expect(() => make({ seed: 1.5 })).toThrow(ConfigError)
  })

  it('decides what a file lacks', async () => {
    using trunk = Roberta.fromConfig({ ...text, addPoolingLayer: false })
    await trunk.save(folder)
    const load = (seed: number) => Roberta.fromPretrained(folder, { allowMissing: true, seed })
    const network = async (seed: number) =>
      RobertaForSequenceClassification.fromPretrained(folder, { seed, allowMissing: true })
    using plain = await load(1)
    expect(same(plain, trunk)).toBe(true)
    using a = await network(3)
    using b = await network(3)
    using c = await network(4)
    expect([same(a, b), same(a, c)]).toEqual([true, false])
  })
})
