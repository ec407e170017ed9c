import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it, vi } from 'vitest'
import { AudioLM, type AudioLMConfig, KvCache, loadSafetensors, randn, type Tensor, tensor } from '../../lib/index.js'
import { expectClose, fixture, fixturePath, ROUNDING, tensorsOf } from '../helpers.js'
import { atReal, get } from './decoder.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  tokens: number[][]
}
interface Given {
  inputIds: Tensor
  attentionMask: Tensor
  labels: Tensor
  inputFeatures: Tensor
  featuresMask: Tensor
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

/** Move the padding of rows to the left. */
function paddedLeft({ inputIds, attentionMask }: Given) {
  const masks = attentionMask.toArray() as bigint[][]
  const moved = (list: bigint[], i: number) => {
    const real = get(masks[i]).filter((one) => Number(one) === 1).length
    return [...list.slice(real), ...list.slice(0, real)]
  }
  const all = (rows: bigint[][]) => tensor(rows.map(moved), { dtype: 'int64' })
  return { inputIds: all(inputIds.toArray() as bigint[][]), attentionMask: all(masks) }
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

it("reports an adapter in Granite Speech's folder, which it does not attach", async () => {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-audio-lm-'))
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  try {
    cpSync(fixturePath('models/audio-lm-folder-granite_speech'), folder, { recursive: true })
    const file = join(folder, 'config.json')
    writeFileSync(file, readFileSync(file, 'utf8').replace('"has_lora_adapter": false', '"has_lora_adapter": true'))
    await AudioLM.fromPretrained(folder)
    expect(warned).not.toHaveBeenCalled()
    writeFileSync(join(folder, 'adapter_config.json'), '{}')
    await AudioLM.fromPretrained(folder)
    expect(String(warned.mock.calls[0]?.[0])).toMatch(/adapter_config\.json: this adapter/)
  } finally {
    warned.mockRestore()
    rmSync(folder, { recursive: true })
  }
})

it('contradictory widths are refused with the key', () => {
  const meta = { device: 'meta' } as const
  const qwen = { modelType: 'qwen3_asr', audioConfig: { outputDim: 2000 } } as const
  expect(() => new AudioLM(qwen, meta)).toThrow(/outputDim: expected the language model's hiddenSize 2048, got 2000/)
  const glm = { modelType: 'glmasr', audioConfig: { intermediateSize: 2560 } } as const
  expect(() => new AudioLM(glm, meta)).toThrow(/intermediateSize: expected 4 times hiddenSize 1280, got 2560/)
})
