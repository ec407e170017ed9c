import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { AudioLM, type AudioLMConfig, functional, loadSafetensors, type Tensor, tensor } from '../../lib/index.js'
import { orderedTimes } from '../../lib/models/audio-lm/align.js'
import { countItems, defaultLoss } from '../../lib/train/trainer/loss.js'
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

  it('smooths and reduces the loss of labels that are not shifted', async () => {
    using model = await AudioLM.fromPretrained(FOLDER)
    const one = get(file.cases.find(({ text }) => text))
    const expected = tensorsOf(file, one.name, 'out')
    const labels = get(expected.labels)
    const { inputFeatures, featuresMask } = await model.features(samplesOf(get(one.samples)))
    const inputs = { inputIds: get(expected.input_ids), inputFeatures, ...(featuresMask && { featuresMask }), labels }
    const flat = get(expected.logits).flatten(0, 1)
    for (const options of [{ labelSmoothing: 0.5 }, { reduction: 'sum' }, { reduction: 'none' }] as const) {
      const wanted = functional.crossEntropy(flat, labels.flatten(), options)
      const { loss } = await model.forward({ ...inputs, ...options })
      const shaped = 'reduction' in options && options.reduction === 'none' ? wanted.reshape(labels.shape) : wanted
      expectClose(get(loss), shaped, 1e-5, JSON.stringify(options))
    }
    for (const [key, value] of Object.entries({ lossTemperature: 9, logitsToKeep: 1 })) {
      await expect(model.forward({ ...inputs, [key]: value })).rejects.toThrow(
        `AudioLM.forward: ${key}: expected ${key === 'lossTemperature' ? 1 : 0} with a forced aligner, got ${value}`,
      )
    }
    // The Trainer counts the first label of a row, and smooths labels in the model.
    expect(countItems(model, { labels: tensor([[3, -100, 4]], { dtype: 'int64' }) })).toBe(2)
    const { loss } = (await defaultLoss(0.5)(model, inputs)) as { loss: Tensor }
    expectClose(loss, functional.crossEntropy(flat, labels.flatten(), { labelSmoothing: 0.5 }), 1e-5, 'Trainer')
    using asr = await AudioLM.fromPretrained(fixturePath('models/audio-lm-folder-qwen3_asr'))
    expect(asr.shiftsLabels).toBe(true)
  })

  it('refuses an invalid duration of a class', async () => {
    const folder = join(directory, 'step')
    cpSync(FOLDER, folder, { recursive: true })
    const read = (name: string) => JSON.parse(readFileSync(join(folder, name), 'utf8'))
    const [config, processor] = [read('config.json'), read('processor_config.json')]
    const check = async (inConfig: unknown, inProcessor: unknown) => {
      writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, timestamp_segment_time: inConfig }))
      const other = JSON.stringify({ ...processor, timestamp_segment_time: inProcessor })
      writeFileSync(join(folder, 'processor_config.json'), other)
      await expect(AudioLM.fromPretrained(folder)).rejects.toThrow(/timestampSegmentTime to be a number of at least 1/)
    }
    for (const value of ['x', 1e308, -80, 0, '80', [80]]) {
      await check(value, undefined)
      await check(80, value)
    }
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
  let count = 0
  /** Load the folder with a changed `thinker_config`, and return the warning of keys that are not read. */
  async function load(change: (thinker: Record<string, Record<string, unknown>>) => void) {
    const folder = join(directory, `thinker-${count++}`)
    cpSync(fixturePath('models/audio-lm-folder-qwen3-original/asr'), folder, { recursive: true })
    const path = join(folder, 'config.json')
    const config = JSON.parse(readFileSync(path, 'utf8'))
    change(config.thinker_config)
    writeFileSync(path, JSON.stringify(config))
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    try {
      using model = await AudioLM.fromPretrained(folder)
      const warnings = warn.mock.calls.map(([message]) => String(message)).filter((one) => one.includes('not read'))
      return { scaling: model.language_model.config.ropeScaling ?? null, warnings }
    } finally {
      warn.mockRestore()
    }
  }

  it('unknown keys are reported, and other types are refused', async () => {
    expect(await load(() => {})).toEqual({ scaling: null, warnings: [] })
    const { warnings } = await load((thinker) => {
      thinker.foo_bar = {}
      get(thinker.audio_config).foo_audio = 1
      get(thinker.text_config).foo_text = 1
    })
    expect(warnings).toHaveLength(1)
    for (const key of ['foo_bar', 'foo_audio', 'foo_text']) expect(warnings[0]).toContain(key)
    const refused = (part: string, key: string, value: unknown, message: RegExp) =>
      expect(load((thinker) => Object.assign(get(thinker[part]), { [key]: value }))).rejects.toThrow(message)
    await refused(
      'text_config',
      'model_type',
      'gemma2',
      /config\.json: thinker_config\.text_config\.model_type: expected 'qwen3_asr_text' or 'qwen3', got "gemma2"/,
    )
    await refused('audio_config', 'model_type', 'whisper', /thinker_config\.audio_config\.model_type: expected/)
    await refused(
      'text_config',
      'rope_scaling',
      { factor: 4 },
      /config\.json: thinker_config\.text_config\.rope_scaling\.rope_type: expected/,
    )
    await refused('text_config', 'rope_scaling', 'x', /rope_scaling: expected an object, got "x"/)
    const linear = { type: 'linear', factor: 4, mrope_section: [2, 1, 1] }
    const { scaling } = await load((thinker) => Object.assign(get(thinker.text_config), { rope_scaling: linear }))
    expect(scaling).toMatchObject({ ropeType: 'linear', factor: 4 })
  })

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
