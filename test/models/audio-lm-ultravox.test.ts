import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  AudioLM,
  type AudioLMConfig,
  CheckpointError,
  KvCache,
  loadSafetensors,
  ops,
  PeftModel,
  saveSafetensors,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import type { AudioLMMessage } from '../../lib/models/audio-lm/processor.js'
import { expectClose, fixture, fixturePath, ROUNDING, settledTensors, tensorsOf } from '../helpers.js'
import { type Given, paddedLeft, samplesOf } from './audio-lm.js'
import { atReal, get } from './decoder.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config?: Record<string, unknown>
  tokens?: number[][]
  penalized?: number[][]
  messages?: AudioLMMessage[]
  chat?: number[][]
}

const AUDIO = 263
const GREEDY = { maxNewTokens: 6, eosTokenId: [] as number[] }
const file = await fixture<Case>('models/audio-lm-ultravox')
const FOLDERS = fixturePath('models/audio-lm-folder-ultravox')
const PLACES = { audioModelId: join(FOLDERS, 'whisper'), textModelId: join(FOLDERS, 'llama') }
const NAMES = ['v05', 'v04', 'gelu', 'lora']
const SAVED = process.env.VOXTORCH_SAVED
const directory = SAVED ?? mkdtempSync(join(tmpdir(), 'voxtorch-ultravox-'))
afterAll(() => {
  if (SAVED === undefined) rmSync(directory, { recursive: true })
})

/** The fixture's inputs for a model, whose audio token is the first after its tokenizer's. */
function given(name: string, model?: AudioLM) {
  const inputs = camelKeys(tensorsOf(file, name, 'in')) as unknown as Given
  const audioId = (model?.config.audioTokenIndex ?? AUDIO) as number
  inputs.inputIds = inputs.inputIds.maskedFill(inputs.inputIds.eq(AUDIO), audioId)
  const real = inputs.attentionMask.to({ dtype: 'float32' })
  const one = get(file.cases.find((one) => one.name === name))
  return { inputs, real, expected: tensorsOf(file, name, 'out'), ...one }
}

/** The folder of the original, with its parts. The configuration says which of them are in other folders. */
function load(name: string, folder = join(FOLDERS, name)): Promise<AudioLM> {
  const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8')) as Record<string, unknown>
  const { audioModelId, textModelId } = PLACES
  const places = {
    ...(config.audio_model_id != null && { audioModelId }),
    ...(config.text_model_id != null && { textModelId }),
  }
  return AudioLM.fromPretrained(folder, { config: places as AudioLMConfig })
}

/** The logits of every eighth token of the vocabulary. */
const some = (logits: Tensor | null, real: Tensor): Tensor => atReal(get(logits), real, 1).slice(2, 0, null, 8)

describe('Ultravox against its repository', () => {
  it('encoder, connector, logits, loss and gradients', async () => {
    const { inputs, real, expected, config } = given('v05')
    const model = new AudioLM(camelKeys(get(config)) as AudioLMConfig).eval()
    loadParameters(model, file, 'v05')
    expect(model.config.audioTokenIndex).toBe(AUDIO)
    const { inputFeatures, featuresMask } = inputs
    inputFeatures.requiresGrad_()
    const states = await model.encodeAudio({ inputFeatures, featuresMask })
    const lengths = (featuresMask.sum(1).toArray() as bigint[]).map((steps) => Math.ceil(Number(steps) / 2))
    const rows = ops.cat(lengths.map((frames, i) => states.select(0, i).narrow(0, 0, frames)))
    expectClose(rows, get(expected.states), 1e-5, 'states')
    const { logits, loss, audioEmbeds } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(get(audioEmbeds), get(expected.embeds), 1e-5, 'embeddings')
    expectClose(some(logits, real), get(expected.logits), 1e-5, 'logits')
    expectClose(get(loss), get(expected.loss), 1e-5, 'loss')
    await get(loss).backward()
    expectClose(get(inputFeatures.grad), get(expected['features.grad']), 1e-5, 'gradient of features')
    await expectGradients(model, file, 'v05', {
      // transformers computes norms and rotations in float32.
      exact: 64 * ROUNDING.float32,
      again: async (as) => {
        const again = await model.forward({ ...inputs, inputFeatures: as(inputFeatures) })
        await get(again.loss).backward()
      },
    })
    // Audio tokens are never labels.
    const all = await model.forward({ ...inputs, labels: inputs.inputIds.maskedFill(inputs.labels.eq(-100), AUDIO) })
    expectClose(get(all.loss), get(expected.loss), 1e-6, 'loss with audio tokens in the labels')
  })

  it.each(NAMES)('%s: reads the folder, and answers alike', async (name) => {
    using model = await load(name)
    const { inputs, real, expected, tokens, penalized } = given(name, model)
    const { logits, loss } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(some(logits, real), get(expected.logits), 1e-5, 'logits')
    await get(loss).backward()
    for (const [key, grad] of Object.entries(tensorsOf(file, name, 'grad'))) {
      if (key.includes('projector'))
        expectClose(get(get(model.namedParameters().find(([one]) => one === key))[1].grad), grad, 1e-5, key)
    }
    const { inputFeatures, featuresMask } = inputs
    const prompt = { ...paddedLeft(inputs), inputFeatures, featuresMask }
    expect((await model.generate(prompt, GREEDY)).tokens).toEqual(tokens)
    // The end token stands in the places of audio, and counts as repeated.
    expect((await model.generate(prompt, { ...GREEDY, repetitionPenalty: 1.8 })).tokens).toEqual(penalized)
  })

  it('streams a row, and continues a cached one', async () => {
    using model = await load('v05')
    const { inputs, tokens } = given('v05', model)
    const { inputFeatures, featuresMask } = inputs
    const rows = inputs.inputIds.toArray() as bigint[][]
    const streamed: (number | null)[] = []
    const text = { inputIds: inputs.inputIds.narrow(0, 2, 1).narrow(1, 0, 4) }
    for await (const step of model.stream(text, GREEDY)) streamed.push(get(step.tokens)[0] ?? null)
    expect(streamed).toEqual(get(tokens)[2])
    const audioEmbeds = await model.projectAudio(await model.encodeAudio({ inputFeatures, featuresMask }), featuresMask)
    const ids = get(rows[0]).map(Number)
    const end = ids.indexOf(98) + 3
    const count = (list: number[]) => list.filter((id) => id === model.config.audioTokenIndex).length
    const [first, rest] = [count(ids.slice(0, end)), count(ids.slice(end))]
    const cache = new KvCache()
    const row = inputs.inputIds.narrow(0, 0, 1)
    await model.forward({ inputIds: row.narrow(1, 0, end), audioEmbeds: audioEmbeds.narrow(0, 0, first), cache })
    const last = ids.filter((id) => id !== 256).length
    const next = { inputIds: row.narrow(1, end, last - end), audioEmbeds: audioEmbeds.narrow(0, first, rest) }
    expect((await model.generate({ ...next, cache }, GREEDY)).tokens[0]).toEqual(get(tokens)[0])
  })

  it.each(file.cases.filter(({ messages }) => messages))(
    '$name: the prompt and features of its processor',
    async ({ name, messages, chat }) => {
      using model = await load('v05')
      const expected = tensorsOf(file, name, 'out')
      const talk = get(messages).map(({ role, content }) => ({
        role,
        content:
          typeof content === 'string'
            ? content
            : content.map((part) =>
                typeof part === 'object' && part.type === 'audio'
                  ? { ...part, audio: samplesOf(part.audio as unknown as number) }
                  : part,
              ),
      }))
      const inputs = await model.prepare(talk)
      const ids = inputs.inputIds.maskedFill(
        inputs.inputIds.eq(get(model.tokenizer).tokenToId('<|audio|>') as number),
        258,
      )
      expect(ids.equal(get(expected.input_ids))).toBe(true)
      if (expected.features) {
        expectClose(get(inputs.inputFeatures), expected.features, 1e-5, 'features')
        expect(get(inputs.featuresMask).sum(1).equal(get(expected.lengths))).toBe(true)
      } else expect(inputs.inputFeatures).toBeUndefined()
      const { logits } = await model.forward({ ...inputs, logitsToKeep: 1 })
      expectClose(get(logits).select(1, 0), get(expected.last), 1e-5, 'logits')
      expect((await model.generate(inputs, GREEDY)).tokens).toEqual(chat)
    },
  )

  it.each(NAMES)('%s: writes a folder that has all parts', async (name) => {
    using model = await load(name)
    const { inputs, real, expected } = given(name, model)
    const to = join(directory, name)
    await model.save(to)
    using again = await AudioLM.fromPretrained(to)
    const { logits } = await again.forward({ ...inputs, logitsToKeep: 0, labels: null })
    expectClose(some(logits, real), get(expected.logits), 1e-5, 'logits')
    const config = JSON.parse(readFileSync(join(to, 'config.json'), 'utf8'))
    expect(config).toMatchObject({
      model_type: 'ultravox',
      architectures: ['UltravoxModel'],
      audio_config: { model_type: 'whisper' },
    })
    expect(config.audio_config._name_or_path).toContain('whisper')
    expect(config.text_config.model_type).toBe('llama')
    expect([config.audio_model_id ?? null, config.text_model_id ?? null]).toEqual([null, null])
  })
})

it('a part that is not there, and settings that are not computed, are refused by name', async () => {
  const folder = join(directory, 'refused')
  cpSync(join(FOLDERS, 'v05'), folder, { recursive: true })
  const path = join(folder, 'config.json')
  const config = JSON.parse(readFileSync(path, 'utf8'))
  const { audioModelId, textModelId } = PLACES
  const refused = async (change: object, message: RegExp, places: object = PLACES) => {
    writeFileSync(path, JSON.stringify({ ...config, ...change }))
    await expect(AudioLM.fromPretrained(folder, { config: places as AudioLMConfig })).rejects.toThrow(message)
  }
  await refused(
    { text_model_id: '/nowhere/llama' },
    /config\.json: text_model_id: .*language model.*nowhere.*config: \{ textModelId: FOLDER \}/s,
    { audioModelId },
  )
  await refused({ audio_model_id: '/nowhere/whisper' }, /audio_model_id: .*Whisper encoder.*audioModelId/s, {
    textModelId,
  })
  await refused({}, /expected audio_model_id to be a string, got 7/, { audioModelId: 7, textModelId })
  await refused({}, /audio_config\.model_type: expected 'whisper', got "llama"/, {
    audioModelId: textModelId,
    textModelId,
  })
  await refused({ audio_latency_block_size: 100 }, /audioLatencyBlockSize/)
  await refused({ llm_only_training: true }, /llmOnlyTraining/)
  await refused({ projector_act: 'swish2' }, /swish2/)
  await refused({ stack_factor: 0 }, /stack/)
  await refused({ text_model_id: null }, /expected text_config or text_model_id for the language model, got neither/, {
    audioModelId,
  })
  expect(() => new AudioLM({ modelType: 'ultravox', textModelLoraConfig: { r: 8 } }, { device: 'meta' })).toThrow(
    /textModelLoraConfig/,
  )
})

describe('an adapter of training in the weights', async () => {
  const base = join(FOLDERS, 'lora')
  const config = JSON.parse(readFileSync(join(base, 'config.json'), 'utf8'))
  const { tensors } = await loadSafetensors(join(base, 'model.safetensors'))
  const DOWN = Object.keys(tensors).find((name) => name.startsWith('audio_tower') && name.includes('lora_A')) as string
  const UP = DOWN.replace('lora_A', 'lora_B')
  let count = 0
  /** A copy of the folder with other settings of the encoder's adapter, and other tensors. */
  async function changed(settings: unknown, others: Record<string, Tensor> = {}) {
    const folder = join(directory, `lora-${count++}`)
    mkdirSync(folder)
    cpSync(join(FOLDERS, 'lora'), folder, { recursive: true })
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, audio_model_lora_config: settings }))
    const kept = Object.entries({ ...tensors, ...others }).map(([name, one]) => [name, one.clone()])
    rmSync(join(folder, 'model.safetensors'))
    await saveSafetensors(join(folder, 'model.safetensors'), Object.fromEntries(kept), { format: 'pt' })
    return folder
  }
  const own = config.audio_model_lora_config
  const refused = async (message: RegExp, settings: unknown, others: Record<string, Tensor> = {}) => {
    const loading = load('lora', await changed(settings, others))
    await expect(loading).rejects.toThrow(CheckpointError)
    await expect(loading).rejects.toThrow(message)
  }

  it('is merged with the scale of PEFT', async () => {
    const path = DOWN.replace('base_model.model.', '').replace('.lora_A.default', '')
    using base = await load('lora', await changed({ ...own, lora_alpha: 0 }))
    const weight = get(base.stateDict()[path])
    const product = get(tensors[UP]).matmul(get(tensors[DOWN]))
    const scales: [settings: object, scale: number][] = [
      [own, own.lora_alpha / 2],
      [{ r: 2 }, 8 / 2],
      [{ ...own, use_rslora: true }, own.lora_alpha / Math.sqrt(2)],
      [
        { ...own, bias: 'none', lora_dropout: 0, alpha_pattern: {}, use_dora: false, unfreeze_layers: null },
        own.lora_alpha / 2,
      ],
    ]
    for (const [settings, scale] of scales) {
      using model = await load('lora', await changed(settings))
      expectClose(get(model.stateDict()[path]), weight.add(product.mul(scale)), 1e-6, JSON.stringify(settings))
    }
  })

  it('is refused by name with settings that are not computed', async () => {
    await refused(/config\.json: audio_model_lora_config.*alpha_pattern/s, { ...own, alpha_pattern: { '.*': 99 } })
    await refused(/config\.json: audio_model_lora_config.*'foo'/s, { ...own, foo: 1 })
    await refused(/audio_model_lora_config.*use_dora/s, { ...own, use_dora: true })
    await refused(/audio_model_lora_config.*init_lora_weights/s, { ...own, init_lora_weights: 'pissa' })
    await refused(/audio_model_lora_config.*loraAlpha/s, { ...own, lora_alpha: '6' })
    await refused(/audio_model_lora_config\.lora_alpha: expected a number of at most/, { ...own, lora_alpha: 1e308 })
    await refused(/audio_model_lora_config: expected an object, got "x"/, 'x')
    await refused(/lora_A.*audio_model_lora_config\.r is 5, got float32 \[2, /s, { ...own, r: 5 })
    await refused(/lora_A.*audio_model_lora_config\.r is 0/s, { ...own, r: 0 })
    await refused(/lora_A.*audio_model_lora_config\.r is 0/s, null)
  })

  it('is refused by name with other shapes', async () => {
    const up = get(tensors[UP])
    const shapes = [[1, 2], [5, 7], [], [1, ...up.shape], [up.size(1), up.size(0)].map((size) => size + 1)]
    for (const shape of shapes) {
      const form = `model\\.safetensors: audio_tower.*lora_A.*with float32 \\[${shape.join(', ')}\\] for float32`
      await refused(new RegExp(form, 's'), own, { [UP]: zeros(shape) })
    }
    await refused(/lora_A.*got float32 \[2\] with/s, own, { [DOWN]: zeros([2]) })
    await refused(/lora_A.*with int64/s, own, { [UP]: up.to({ dtype: 'int64' }) })
    await refused(/model\.safetensors.*constructor\.x\.lora_A/s, own, {
      'constructor.x.lora_A.default.weight': zeros([2, 4]),
      'constructor.x.lora_B.default.weight': zeros([4, 2]),
      'constructor.x.weight': zeros([4, 4]),
    })
  })
})

it('the revision selects a commit of the model alone', async () => {
  const cacheDir = join(directory, 'hub')
  const repository = join(cacheDir, 'models--org--whisper')
  const commit = 'a'.repeat(40)
  mkdirSync(join(repository, 'refs'), { recursive: true })
  writeFileSync(join(repository, 'refs', 'main'), commit)
  cpSync(PLACES.audioModelId, join(repository, 'snapshots', commit), { recursive: true })
  const options = { revision: 'v0.5', offline: true, cacheDir }
  const places = { audioModelId: 'org/whisper', textModelId: PLACES.textModelId } as AudioLMConfig
  using model = await AudioLM.fromPretrained(join(FOLDERS, 'v05'), { config: places, ...options })
  expect(model.config.modelType).toBe('ultravox')
})

it('parts train by adapters, and the connector in full', async () => {
  using model = await load('v05')
  const { inputs } = given('v05', model)
  const before = get((await model.forward(inputs)).loss).item() as number
  const peft = get(model.trainParts({ encoder: 'lora', connector: 'full', decoder: 'lora' }, { r: 2 }))
  const names = model.namedParameters().flatMap(([name, { requiresGrad }]) => (requiresGrad ? [name] : []))
  expect(names.filter((name) => !name.includes('lora_'))).toEqual([
    'multi_modal_projector.ln_pre.weight',
    'multi_modal_projector.linear_1.weight',
    'multi_modal_projector.ln_mid.weight',
    'multi_modal_projector.linear_2.weight',
  ])
  await get((await model.train().forward(inputs)).loss).backward()
  const grads = model.namedParameters().filter(([, { grad }]) => grad !== null)
  expect(grads.map(([name]) => name)).toEqual(names)
  for (const [, parameter] of grads) parameter.setData(parameter.detach().sub(get(parameter.grad).mul(0.05)))
  const after = get((await model.eval().forward(inputs)).loss)
  expect(after.item() as number).toBeLessThan(before)
  await peft.savePretrained(join(directory, 'adapter'))
  using other = await load('v05')
  await PeftModel.fromPretrained(other, join(directory, 'adapter'))
  expectClose(get((await other.forward(inputs)).loss), after, 1e-6, 'loss of the loaded adapter')
})

it('transcribes, and leaves nothing behind', async () => {
  using model = await load('v05')
  const clips = [samplesOf(7000), samplesOf(160), samplesOf(25000)]
  const texts = await model.transcribe(clips, { maxNewTokens: 3 })
  expect(texts.map(({ segments }) => segments.length)).toEqual([1, 1, 1])
  const before = await settledTensors()
  await model.transcribe(clips, { maxNewTokens: 2, batchSize: 3 })
  expect(await settledTensors()).toBeLessThanOrEqual(before)
  const { audioTokens, inputFeatures } = await model.features(clips)
  expect([audioTokens, inputFeatures.shape]).toEqual([
    [3, 1, 10],
    [6, 8, 48],
  ])
})
