import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { AudioLM, type AudioLMConfig, KvCache, ops, PeftModel, type Tensor } from '../../lib/index.js'
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
  await refused({}, /audio_model_id: expected a string|audio_model_id/, { audioModelId: 7, textModelId })
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
  const lora = join(directory, 'refused-lora')
  cpSync(join(FOLDERS, 'lora'), lora, { recursive: true })
  writeFileSync(
    join(lora, 'config.json'),
    JSON.stringify({ ...config, audio_model_lora_config: { r: 5, lora_alpha: 2 } }),
  )
  await expect(AudioLM.fromPretrained(lora, { config: PLACES as AudioLMConfig })).rejects.toThrow(
    /audio_model_lora_config: expected .* which is 2, got 2 and 5/,
  )
  expect(() => new AudioLM({ modelType: 'ultravox', textModelLoraConfig: { r: 8 } }, { device: 'meta' })).toThrow(
    /textModelLoraConfig/,
  )
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
