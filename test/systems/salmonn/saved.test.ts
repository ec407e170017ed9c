// A saved SALMONN brings its own sizes, whatever a configuration says, and tells which of its parts were never trained.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { ConfigError, manualSeed, noGrad, readJson, Salmonn, setNumThreads } from '../../../lib/index.js'
import {
  readSalmonnConfiguration,
  salmonnConfiguration,
  salmonnOfConfiguration,
} from '../../../lib/systems/salmonn/index.js'
import { fixturePath, numbers } from '../../helpers.js'

const published = fixturePath('models/salmonn-published')
const parts = {
  whisper: join(published, 'whisper'),
  beats: join(published, 'beats.pt'),
  llm: join(published, 'vicuna'),
}
const directory = mkdtempSync(join(tmpdir(), 'salmonn-saved-'))
const saved = join(directory, 'model')
const example = new URL('../../../examples/configs/salmonn-finetune.yaml', import.meta.url).pathname
const warnings: string[] = []
const LORA = { r: 4, loraAlpha: 12, loraDropout: 0.2, targetModules: ['q_proj', 'k_proj'] }
const QFORMER = { hiddenSize: 8, numAttentionHeads: 2, intermediateSize: 16, queryLength: 3, window: 8, stride: 4 }

beforeAll(async () => {
  setNumThreads(1)
  manualSeed(3)
  vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(String(warning)))
  using model = await Salmonn.fromPretrained(parts, { dtype: 'float32', config: { lora: LORA, qformer: QFORMER } })
  await model.save(saved)
})
afterAll(() => {
  vi.restoreAllMocks()
  rmSync(directory, { recursive: true })
})

const isSaved = (model: Salmonn) => {
  const { lora, qformer } = model.config
  expect({ ...lora, loraDropout: 0.2 }).toEqual(LORA)
  expect(qformer).toMatchObject(QFORMER)
}

describe('a saved model with sizes of its own', () => {
  it('is loaded by the configuration of the page, which names other sizes, and says so', async () => {
    const configuration = await readSalmonnConfiguration(example, [
      'model.queries=1',
      'model.secondsPerWindow=0.333333',
    ])
    using model = await salmonnOfConfiguration(configuration, { model: saved, dtype: 'float32' })
    isSaved(model)
    expect(model.config.lora?.loraDropout).toBe(0.1)
    const file = join(saved, 'adapter.safetensors')
    expect(configuration.ignored).toEqual([
      { key: 'loraRank', reason: `${file} has lora.r 4, not 8` },
      { key: 'loraAlpha', reason: `${file} has lora.loraAlpha 12, not 32` },
      { key: 'queries', reason: `${file} has qformer.queryLength 3, not 1` },
      { key: 'secondsPerWindow', reason: `${file} has qformer.window 8, not 17` },
    ])
  })

  it('is loaded by the published form, and as an adapter of parts', async () => {
    const own = await salmonnConfiguration({ model: { lora: true, lora_rank: 8, lora_alpha: 32 }, run: {} })
    using model = await salmonnOfConfiguration(own, { model: saved, dtype: 'float32' })
    isSaved(model)
    using direct = await Salmonn.fromPretrained({ ...parts, adapter: saved }, { dtype: 'float32' })
    isSaved(direct)
    const state = direct.stateDict()
    for (const [name, value] of Object.entries(model.stateDict())) {
      if (value) expect(numbers(state[name]!), name).toEqual(numbers(value))
    }
    const config = await salmonnConfiguration({ model: { ...parts, adapter: saved, loraRank: 8, lora: true } })
    using again = await salmonnOfConfiguration(config, { dtype: 'float32' })
    isSaved(again)
    expect(config.ignored.map(({ key }) => key)).toEqual(['loraRank'])
  })

  it('refuses other shapes of a call, and takes what is no shape', async () => {
    const load = (config: object) => Salmonn.fromPretrained(saved, { dtype: 'float32', config })
    await expect(load({ lora: { r: 8 } })).rejects.toThrow(ConfigError)
    await expect(load({ lora: { r: 8 } })).rejects.toThrow(
      /config\.lora\.r: expected 4, as .*adapter\.safetensors has it, got 8\. Leave it out/,
    )
    await expect(load({ lora: { targetModules: ['q_proj', 'v_proj'] } })).rejects.toThrow(/lora\.targetModules/)
    await expect(load({ lora: null })).rejects.toThrow(/config\.lora: expected an adapter/)
    await expect(load({ qformer: { queryLength: 1 } })).rejects.toThrow(/qformer\.queryLength: expected 3/)
    using model = await load({
      lora: { r: 4, loraAlpha: 8, targetModules: ['k_proj', 'q_proj'] },
      qformer: { window: 17 },
    })
    expect([model.config.lora?.loraAlpha, model.config.qformer.window]).toEqual([8, 17])
  })

  it('without LoRA stays without, unless LoRA is asked for', async () => {
    const plain = join(directory, 'plain')
    {
      using model = await Salmonn.fromPretrained(parts, { dtype: 'float32', config: { lora: null, qformer: QFORMER } })
      await model.save(plain)
    }
    using model = await salmonnOfConfiguration(await salmonnConfiguration({}), { model: plain, dtype: 'float32' })
    expect(model.config.lora).toBeNull()
    const asking = await salmonnConfiguration({ model: { lora: true, loraRank: 2 } })
    using grown = await salmonnOfConfiguration(asking, { model: plain, dtype: 'float32' })
    expect(grown.config.lora).toMatchObject({ r: 2, targetModules: ['q_proj', 'v_proj'] })
    expect(asking.ignored).toEqual([])
  })
})

describe('parts that were never trained', () => {
  it('are named when the model is loaded, until they are trained', async () => {
    warnings.length = 0
    using model = await Salmonn.fromPretrained(saved, { dtype: 'float32' })
    expect(model.untrainedParts()).toEqual(['qformer', 'projection'])
    expect(warnings).toEqual([
      expect.stringMatching(
        /speech_query_tokens, ln_speech, ln_audio, speech_Qformer, speech_llama_proj are newly initialized/,
      ),
    ])
    noGrad(() => void model.speech_query_tokens.add_(0.1))
    expect(model.untrainedParts()).toEqual(['projection'])
    const half = join(directory, 'half')
    await model.save(half)
    expect(await readJson(join(half, 'config.json'))).toMatchObject({ untrained: ['projection'] })
    noGrad(() => void model.speech_llama_proj.weight.mul_(2))
    await model.save(half)
    expect(await readJson(join(half, 'config.json'))).not.toHaveProperty('untrained')
    warnings.length = 0
    using again = await Salmonn.fromPretrained(half, { dtype: 'float32' })
    expect([again.untrainedParts(), warnings]).toEqual([[], []])
  })

  it('are none where the published adapter is loaded', async () => {
    warnings.length = 0
    const config = { qformer: { numAttentionHeads: 3 } }
    using model = await Salmonn.fromPretrained(
      { ...parts, adapter: join(published, 'salmonn_v1.pth') },
      { dtype: 'float32', config },
    )
    expect([model.untrainedParts(), warnings]).toEqual([[], []])
  })
})

describe('a configuration without BEATs', () => {
  it.each(['""', 'none'])('says beats_path: %s in the published form', async (value) => {
    const file = join(directory, 'published.yaml')
    const { whisper, llm } = parts
    writeFileSync(
      file,
      `model:\n  llama_path: ${llm}\n  whisper_path: ${whisper}\n  beats_path: ${value}\nrun:\n  seed: 1\n`,
    )
    const configuration = await readSalmonnConfiguration(file)
    expect(configuration.model.beats).toBeNull()
    using model = await salmonnOfConfiguration(configuration, { dtype: 'float32' })
    expect(model.beats).toBeNull()
  })

  it.each(['llm', 'whisper', 'beats'] as const)(
    'that does not say where %s is advises keys that exist',
    async (part) => {
      const { [part]: _, ...rest } = parts
      const silent = salmonnOfConfiguration(await salmonnConfiguration({ model: rest }))
      const error = (await silent.then(
        () => undefined,
        (error: unknown) => error,
      )) as Error
      const keys = [...error.message.matchAll(/\bmodel\.(\w+)/g)].map(([, key = '']) => key)
      expect(keys).toHaveLength(2)
      for (const key of keys) {
        const read = await salmonnConfiguration({ model: { [key]: part === 'beats' ? 'none' : '/x' } })
        expect(read.model).toEqual({ [part]: part === 'beats' ? null : '/x' })
      }
    },
  )
})
