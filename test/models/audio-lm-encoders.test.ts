import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { AudioLM, type AudioLMConfig, KvCache, loadSafetensors, randn, saveSafetensors } from '../../lib/index.js'
import { expectClose, fixture, fixturePath, ROUNDING, tensorsOf } from '../helpers.js'
import { type Given, paddedLeft } from './audio-lm.js'
import { atReal, get } from './decoder.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  tokens: number[][]
}
const FAMILIES = ['qwen3_asr', 'glmasr', 'granite_speech'] as const
type Family = (typeof FAMILIES)[number]
const files = new Map(
  await Promise.all(FAMILIES.map(async (name) => [name, await fixture<Case>(`models/audio-lm-${name}`)] as const)),
)
const directory = process.env.VOXTORCH_SAVED ?? mkdtempSync(join(tmpdir(), 'voxtorch-audio-lm-'))
afterAll(() => {
  if (process.env.VOXTORCH_SAVED === undefined) rmSync(directory, { recursive: true })
})

function given(name: Family) {
  const file = get(files.get(name))
  const inputs = camelKeys(tensorsOf(file, name, 'in')) as unknown as Given
  const real = inputs.attentionMask.to({ dtype: 'float32' })
  return { file, inputs, real, expected: tensorsOf(file, name, 'out'), tokens: get(file.cases[0]).tokens }
}

function open(name: Family) {
  const all = given(name)
  const model = new AudioLM(camelKeys(get(all.file.cases[0]).config) as AudioLMConfig).eval()
  loadParameters(model, all.file, name)
  return { ...all, model }
}

describe.each(FAMILIES)('%s against transformers', (name) => {
  it('embeddings, logits, loss and gradients', async () => {
    const { file, model, inputs, expected, real } = open(name)
    const { inputFeatures } = inputs
    inputFeatures.requiresGrad_()
    const { logits, loss, audioEmbeds } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(get(audioEmbeds), get(expected.embeds), 1e-5, 'embeddings')
    expectClose(atReal(get(logits), real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(loss), get(expected.loss), 1e-5, 'loss')
    await get(loss).backward()
    expectClose(get(inputFeatures.grad), get(expected['features.grad']), 1e-5, 'gradient of features')
    await expectGradients(model, file, name, {
      // transformers computes the language model's norms and rotations in float32, before the gradients of the encoder.
      exact: 64 * ROUNDING.float32,
      again: async (as) => {
        const again = await model.forward({ ...inputs, inputFeatures: as(inputFeatures) })
        await get(again.loss).backward()
      },
    })
  })

  it('generates the same tokens, padded on the left, without audio, and after a cached prefix', async () => {
    const { model, inputs, tokens } = open(name)
    const { inputFeatures, featuresMask } = inputs
    const greedy = { maxNewTokens: 6, eosTokenId: [] }
    const prompt = paddedLeft(inputs)
    expect((await model.generate({ ...prompt, inputFeatures, featuresMask }, greedy)).tokens).toEqual(tokens)
    const rows = inputs.inputIds.toArray() as bigint[][]
    const text = inputs.inputIds.narrow(0, 2, 1).narrow(1, 0, 4)
    expect((await model.generate({ inputIds: text }, greedy)).tokens[0]).toEqual(get(tokens)[2])
    // The first clip and the text after it are in the cache of the second.
    const audioEmbeds = await model.projectAudio(await model.encodeAudio({ inputFeatures, featuresMask }), featuresMask)
    const row = inputs.inputIds.narrow(0, 0, 1)
    const ids = get(rows[0]).map(Number)
    const end = ids.indexOf(28) + 3
    const count = (list: number[]) => list.filter((id) => id === 26).length
    const [first, rest] = [count(ids.slice(0, end)), count(ids.slice(end))]
    const cache = new KvCache()
    await model.forward({ inputIds: row.narrow(1, 0, end), audioEmbeds: audioEmbeds.narrow(0, 0, first), cache })
    const last = ids.filter((id) => id !== 0).length
    const next = { inputIds: row.narrow(1, end, last - end), audioEmbeds: audioEmbeds.narrow(0, first, rest) }
    expect((await model.generate({ ...next, cache }, greedy)).tokens[0]).toEqual(tokens[0])
  })

  it('reads the folder of transformers, and writes one with the same numbers and names', async () => {
    const { inputs, expected, real } = given(name)
    const folder = fixturePath(`models/audio-lm-folder-${name}`)
    const check = async (model: AudioLM) => {
      const { logits } = await model.forward({ ...inputs, logitsToKeep: 0, labels: null })
      expectClose(atReal(get(logits), real, 1), get(expected.logits), 1e-5, 'logits')
    }
    const model = await AudioLM.fromPretrained(folder)
    await check(model)
    await model.save(join(directory, name))
    await check(await AudioLM.fromPretrained(join(directory, name)))
    const config = (path: string) => JSON.parse(readFileSync(join(path, 'config.json'), 'utf8')) as Case['config']
    const [theirs, ours] = [config(folder), config(join(directory, name))]
    const names = async (path: string) =>
      Object.keys((await loadSafetensors(join(path, 'model.safetensors'))).tensors).sort()
    if (name === 'qwen3_asr') expect(await names(join(directory, name))).toEqual(await names(folder))
    expect(ours.model_type).toBe(name)
    expect(ours.architectures).toEqual(theirs.architectures)
    for (const key of Object.keys(theirs)) if (key !== 'transformers_version') expect(ours).toHaveProperty(key)
  })

  it('computes the features of clips, and expands a text to as many tokens', async () => {
    const { model } = open(name)
    const clips = [randn([20000]).mul(0.1), randn([9000]).mul(0.1)]
    const { inputFeatures, featuresMask, audioTokens } = await model.features(clips)
    expect(audioTokens).toHaveLength(2)
    const text = model.prompt(`${model.audioToken} and ${model.audioToken}`, audioTokens)
    expect(text.split(model.audioToken)).toHaveLength(1 + audioTokens.reduce((sum, count) => sum + count, 0))
    const embeds = await model.projectAudio(await model.encodeAudio({ inputFeatures, featuresMask }), featuresMask)
    expect(embeds.shape).toEqual([audioTokens.reduce((sum, count) => sum + count, 0), model.decoder.config.hiddenSize])
    expect(embeds.isfinite().all().item()).toBe(true)
    model.dispose()
  })

  it('refuses unknown keys by name', () => {
    const make = (config: object) => () =>
      new AudioLM({ modelType: name, ...config } as AudioLMConfig, { device: 'meta' })
    expect(make({ audioTokenIds: 3 })).toThrow(/audioTokenIds/)
    const part = name === 'granite_speech' ? 'encoderConfig' : 'audioConfig'
    expect(make({ [part]: { layerCount: 3 } })).toThrow(new RegExp(`${part}.*layerCount`))
  })
})

describe("Granite Speech's adapter for texts with audio, against PEFT", async () => {
  const name = 'granite_speech'
  const file = await fixture<{ name: string; tokens: number[][]; plain: number[][] }>('models/audio-lm-granite-adapter')
  const { tokens, plain } = get(file.cases[0])
  const heardRead = tensorsOf(file, 'adapter', 'out')
  /** A folder with the adapter, whose names in the file `rename` changes. */
  const folderOf = async (title: string, rename = (key: string) => key) => {
    const folder = join(directory, title)
    cpSync(fixturePath(`models/audio-lm-folder-${name}`), folder, { recursive: true })
    const path = join(folder, 'config.json')
    writeFileSync(path, readFileSync(path, 'utf8').replace('"has_lora_adapter": false', '"has_lora_adapter": true'))
    const adapter = fixturePath('models/audio-lm-granite-adapter')
    cpSync(join(adapter, 'adapter_config.json'), join(folder, 'adapter_config.json'))
    const { tensors } = await loadSafetensors(join(adapter, 'adapter_model.safetensors'))
    const renamed = Object.fromEntries(Object.entries(tensors).map(([key, one]) => [rename(key), one]))
    await saveSafetensors(join(folder, 'adapter_model.safetensors'), renamed)
    return folder
  }
  const { inputs, real } = given(name)
  const { inputFeatures, featuresMask } = inputs
  const greedy = { maxNewTokens: 6, eosTokenId: [], suppressTokens: [26] }
  const text = inputs.inputIds.narrow(0, 2, 1).narrow(1, 0, 4)
  const check = async (model: AudioLM) => {
    const { logits } = await model.forward({ ...inputs, logitsToKeep: 0, labels: null })
    expectClose(atReal(get(logits), real, 1), get(heardRead.heard), 1e-5, 'logits with audio')
    const read = await model.forward({ inputIds: text, logitsToKeep: 0 })
    expectClose(get(read.logits), get(heardRead.read), 1e-5, 'logits without audio')
    const prompt = { ...paddedLeft(inputs), inputFeatures, featuresMask }
    expect((await model.generate(prompt, greedy)).tokens).toEqual(tokens)
    expect((await model.generate({ inputIds: text }, greedy)).tokens).toEqual(plain)
    const streamed: (number | null)[] = []
    for await (const step of model.stream({ inputIds: text }, greedy)) streamed.push(get(step.tokens)[0] ?? null)
    expect(streamed).toEqual(plain[0])
    // A row with audio, streamed.
    const rows = get(inputs.attentionMask.sum(1).toArray() as bigint[])
    const first = { inputIds: inputs.inputIds.narrow(0, 0, 1).narrow(1, 0, Number(rows[0])) }
    const audio = { inputFeatures: inputFeatures.narrow(0, 0, 2), featuresMask: featuresMask.narrow(0, 0, 2) }
    const heard: (number | null)[] = []
    for await (const step of model.stream({ ...first, ...audio }, greedy)) heard.push(get(step.tokens)[0] ?? null)
    expect(heard).toEqual(tokens[0])
  }

  it('is on with audio and off without, and is saved again', async () => {
    const model = await AudioLM.fromPretrained(await folderOf('adapter'))
    await check(model)
    const again = join(directory, 'adapter-again')
    await model.save(again)
    await check(await AudioLM.fromPretrained(again))
    const names = async (path: string) =>
      Object.keys((await loadSafetensors(join(path, 'adapter_model.safetensors'))).tensors).sort()
    expect(await names(again)).toEqual(await names(fixturePath('models/audio-lm-granite-adapter')))
    expect(() => model.trainParts({ connector: 'full' })).toThrow(/without adapters/)
    const adapter = get(model.audioAdapter)
    adapter.mergeAdapter()
    await expect(model.save(again)).rejects.toThrow(/audioAdapter: expected an adapter that is not merged/)
    adapter.unmergeAdapter()
    // An adapter of an earlier save would be attached to the new weights.
    await model.save(again, { withoutAdapters: true })
    expect(existsSync(join(again, 'adapter_config.json'))).toBe(false)
    get(model.audioAdapter).unload()
    expect(get(model.trainParts({ decoder: 'lora' }, { r: 2 })).adapterNames).toEqual(['default'])
  })

  it('has the names of transformers 5 too; other names, and a file without the other, are refused', async () => {
    const newer = (key: string) => key.replace('language_model.model.', 'model.language_model.')
    await check(await AudioLM.fromPretrained(await folderOf('newer', newer)))
    const wrong = await folderOf('wrong', (key) => key.replace('layers.0', 'layers.7'))
    await expect(AudioLM.fromPretrained(wrong)).rejects.toThrow(/adapter_model\.safetensors.*layers\.7/s)
    const half = await folderOf('half')
    rmSync(join(half, 'adapter_model.safetensors'))
    await expect(AudioLM.fromPretrained(half)).rejects.toThrow(/adapter_model\.safetensors/)
  })
})

it('contradictory widths are refused with the key', () => {
  const meta = { device: 'meta' } as const
  const qwen = { modelType: 'qwen3_asr', audioConfig: { outputDim: 2000 } } as const
  expect(() => new AudioLM(qwen, meta)).toThrow(/outputDim: expected the language model's hiddenSize 2048, got 2000/)
  const glm = { modelType: 'glmasr', audioConfig: { intermediateSize: 2560 } } as const
  expect(() => new AudioLM(glm, meta)).toThrow(/intermediateSize: expected 4 times hiddenSize 1280, got 2560/)
})
