import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { AudioLM, type AudioLMConfig, loadSafetensors } from '../../lib/index.js'
import { orderedTimes } from '../../lib/models/audio-lm/align.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { type Given, samplesOf } from './audio-lm.js'
import { atReal, get } from './decoder.js'
import { camelKeys } from './networks.js'

interface Case {
  name: string
  text?: string
  language?: string | null
  samples?: number
  words?: { text: string; start_time: number; end_time: number }[]
  times?: [bins: number[], times: number[]][]
}

const file = await fixture<Case>('models/audio-lm-aligner')
const FOLDER = fixturePath('models/audio-lm-folder-aligner')
const SAVED = process.env.VOXTORCH_SAVED
const directory = SAVED ?? mkdtempSync(join(tmpdir(), 'voxtorch-aligner-'))
afterAll(() => {
  if (SAVED === undefined) rmSync(directory, { recursive: true })
})

describe("Qwen3-ASR's forced aligner against transformers", () => {
  it.each(file.cases.filter(({ text }) => text))('$name: words, logits, loss and gradient', async (one) => {
    using model = await AudioLM.fromPretrained(FOLDER)
    const expected = tensorsOf(file, one.name, 'out')
    const clip = samplesOf(get(one.samples))
    const { inputFeatures, featuresMask } = await model.features(clip)
    const inputs = { inputIds: get(expected.input_ids), inputFeatures, ...(featuresMask && { featuresMask }) }
    const { logits, loss } = await model.forward({ ...inputs, labels: get(expected.labels) })
    expectClose(get(logits), get(expected.logits), 1e-5, 'logits')
    expectClose(get(loss), get(expected.loss), 1e-5, 'loss')
    await get(loss).backward()
    expectClose(get(get(model.score).weight.grad), get(expected['score.grad']), 1e-5, 'gradient')
    const words = get(one.words).map(({ text, start_time: start, end_time: end }) => ({ text, start, end }))
    const options = one.language ? { language: one.language } : {}
    expect(await model.align(clip, get(one.text), options)).toEqual(words)
    const before = await settledTensors()
    // A list of words keeps its punctuation.
    const list = words.map(({ text }) => `${text},`)
    expect(await model.align(clip, list, options)).toEqual(words.map((word) => ({ ...word, text: `${word.text},` })))
    expect(await settledTensors()).toBeLessThanOrEqual(before)
  })

  it('puts times in order as its processor', () => {
    const { times } = get(file.cases.at(-1))
    for (const [bins, ordered] of get(times))
      expect(orderedTimes(bins.map((bin) => bin * 80)), bins.join()).toEqual(ordered)
  })

  it('writes the folder again', async () => {
    const to = join(directory, 'aligner')
    using model = await AudioLM.fromPretrained(FOLDER)
    await model.save(to)
    const names = async (path: string) =>
      Object.keys((await loadSafetensors(join(path, 'model.safetensors'))).tensors).sort()
    expect(await names(to)).toEqual(await names(FOLDER))
    const { architectures } = JSON.parse(readFileSync(join(to, 'config.json'), 'utf8')) as Record<string, unknown>
    expect(architectures).toEqual(['Qwen3ASRForTokenClassification'])
    using again = await AudioLM.fromPretrained(to)
    const clip = samplesOf(9000)
    expect(await again.align(clip, 'so it is')).toEqual(await model.align(clip, 'so it is'))
  })

  it('has random weights from a seed, and its classifier trains', () => {
    const sizes = {
      audioConfig: {
        encoderLayers: 1,
        dModel: 8,
        encoderAttentionHeads: 2,
        encoderFfnDim: 8,
        outputDim: 16,
        numMelBins: 5,
      },
      textConfig: {
        modelType: 'qwen3',
        hiddenSize: 16,
        numHiddenLayers: 1,
        numAttentionHeads: 2,
        numKeyValueHeads: 1,
        headDim: 8,
      },
    }
    const small = {
      modelType: 'qwen3_asr',
      ...sizes,
      numLabels: 3,
      tokenClassificationBias: true,
    } as unknown as AudioLMConfig
    const make = () => get(AudioLM.fromConfig(small, { seed: 3 }).score)
    expect(make().weight.equal(make().weight)).toBe(true)
    expect(get(make().bias).toArray()).toEqual([0, 0, 0])
    expect(make().weight.std().item() as number).toBeLessThan(0.04)
    for (const numLabels of [0, -1, 1.5, 'x', 2 ** 40]) {
      expect(() => new AudioLM({ ...small, numLabels } as AudioLMConfig, { device: 'meta' })).toThrow(/numLabels/)
    }
  })

  it('refuses what it does not align, by name', async () => {
    using model = await AudioLM.fromPretrained(FOLDER)
    const clip = samplesOf(9000)
    const refused = (made: Promise<unknown>, message: RegExp) => expect(made).rejects.toThrow(message)
    await refused(model.align(clip, 'a', { language: 'xx' }), /language.*one of zh, yue/)
    await refused(model.align(clip, 'こんにちは', { language: 'Japanese' }), /list of words for Japanese/)
    await refused(model.align(clip, ['a', '…']), /text\[1\].*letters or digits/)
    await refused(model.align(clip, 7 as never), /text.*a text or a list of words/)
    await refused(model.align(clip, 'a'.repeat(100_001)), /at most 100000 characters/)
    await refused(model.align(clip, 'a '.repeat(300)), /within 512 tokens/)
    await refused(model.align(samplesOf(52_000), 'a'), /at most 3\.2 s.*got 3\.3 s/)
    await refused(model.align(join(directory, 'nowhere.wav'), 'a'), /nowhere\.wav/)
    await refused(model.align(clip, 'a', { words: 3 } as never), /words/)
    expect(await model.align(clip, ' … ')).toEqual([])
    expect(() => model.stream({ inputIds: samplesOf as never })).toThrow(/forced aligner.*align/)
    await refused(model.transcribe(clip), /forced aligner.*align/)
    using asr = await AudioLM.fromPretrained(fixturePath('models/audio-lm-folder-qwen3_asr'))
    await refused(asr.align(clip, 'a'), /expected a forced aligner such as/)
    const odd = join(directory, 'odd')
    cpSync(FOLDER, odd, { recursive: true })
    const path = join(odd, 'processor_config.json')
    writeFileSync(
      path,
      readFileSync(path, 'utf8').replace(/"timestamp_segment_time": [\d.]+/, '"timestamp_segment_time": "x"'),
    )
    await refused(AudioLM.fromPretrained(odd), /processor_config\.json.*timestampSegmentTime/)
  })
})

describe("Qwen's own layout against its package", async () => {
  const original = await fixture<{ name: string }>('models/audio-lm-qwen3-original')
  it.each(original.cases)('$name', async ({ name }) => {
    const inputs = camelKeys(tensorsOf(original, name, 'in')) as unknown as Given
    const real = inputs.attentionMask.to({ dtype: 'float32' })
    const check = async (model: AudioLM) => {
      const { logits } = await model.forward({ ...inputs, logitsToKeep: 0 })
      expectClose(atReal(get(logits), real, 1), get(tensorsOf(original, name, 'out').logits), 1e-5, 'logits')
    }
    using model = await AudioLM.fromPretrained(fixturePath(`models/audio-lm-folder-qwen3-original/${name}`))
    await check(model)
    expect(model.score !== null).toBe(name === 'aligner')
    // It is saved in transformers' layout.
    const to = join(directory, `original-${name}`)
    await model.save(to)
    expect(readFileSync(join(to, 'config.json'), 'utf8')).not.toContain('thinker')
    using again = await AudioLM.fromPretrained(to)
    await check(again)
  })
})
