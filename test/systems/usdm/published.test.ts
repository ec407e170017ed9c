import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { saveNpy } from '../../../lib/files/index.js'
import {
  DecoderLM,
  noGrad,
  readAudio,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
  Wav2Vec2,
  writeWav,
} from '../../../lib/index.js'
import { runCommand } from '../../../lib/kit/command.js'
import { predict } from '../../../lib/systems/usdm/commands/predict.js'
import { respond } from '../../../lib/systems/usdm/commands/respond.js'
import {
  unitExtractorOfArguments,
  usdmOfArguments,
  usdmTokenizerOfArguments,
  usdmTrainedOfArguments,
} from '../../../lib/systems/usdm/configuration/apply.js'
import { readUsdmPredictions, Usdm } from '../../../lib/systems/usdm/index.js'
import { fixture, fixturePath, numbers, relativeError, tensorsOf } from '../../helpers.js'
import { chirp, scriptedLlm, tinyLlm, tinySpeech, tinyTokenizer, tinyUnits } from './tiny-parts.js'

// The published parts as they are found: small, with random weights, in the layouts and under the names of the original.

const home = mkdtempSync(join(tmpdir(), 'voxtorch-usdm-published-'))
afterAll(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true, force: true })
})
const cache = join(home, 'cache')
const question = join(home, 'question.wav')
const COMMIT = '0123456789abcdef0123456789abcdef01234567'
const LLM = 'naver-ai/USDM-DailyTalk'
const VOICEBOX = 'naver-ai/xlsr-token-Voicebox'
const VOCODER = 'nvidia/bigvgan_22khz_80band'

/** Where the hub's cache has what was fetched of a repository. */
const snapshot = (repository: string): string => {
  const folder = join(cache, `models--${repository.replace('/', '--')}`)
  mkdirSync(join(folder, 'refs'), { recursive: true })
  writeFileSync(join(folder, 'refs/main'), COMMIT)
  const found = join(folder, 'snapshots', COMMIT)
  mkdirSync(found, { recursive: true })
  return found
}
const changed = (folder: string, change: (config: Record<string, unknown>) => object): void => {
  const file = join(folder, 'config.json')
  writeFileSync(file, JSON.stringify(change(JSON.parse(readFileSync(file, 'utf8')))))
}

let whole: Usdm
beforeAll(async () => {
  setNumThreads(1)
  vi.stubEnv('HF_HUB_OFFLINE', '1')
  mkdirSync(cache)
  copyFileSync(fixturePath('models/units-fairseq.pt'), join(cache, 'xlsr2_1b_v2.pt'))
  await saveNpy(
    join(cache, 'kmeans_10k.npy'),
    tensorsOf(await fixture('models/units'), 'units', 'in').centroids as Tensor,
  )
  const tokenizer = await tinyTokenizer(join(home, 'text'))
  const llm = scriptedLlm(tokenizer)
  const { voicebox, vocoder } = tinySpeech()
  whole = new Usdm({ llm, tokenizer, units: await tinyUnits(), voicebox, vocoder: vocoder.folded() })
  await llm.save(snapshot(LLM), { maxShardBytes: 150_000 })
  changed(snapshot(LLM), (config) => ({
    ...config,
    architectures: ['CustomMistralForCausalLM'],
    torch_dtype: 'float32',
  }))
  tokenizer.saveTo(snapshot(LLM))
  await voicebox.save(snapshot(VOICEBOX))
  changed(snapshot(VOICEBOX), ({ model_type: _, architectures: __, ...config }) => ({ ...config, solver: 'euler' }))
  await vocoder.save(snapshot(VOCODER))
  await scope(() => writeWav(question, tensor(chirp(0.5)), { sampleRate: 16_000, format: 'float32' }))
})

const OPTIONS = { steps: 2, seed: 3 } as const

it('are read out of the cache that the hub keeps: a language model in shards, a Voicebox, a vocoder', async () => {
  expect(readdirSync(snapshot(LLM)).filter((name) => name.endsWith('.safetensors')).length).toBeGreaterThan(1)
  const hearing = { encoder: join(cache, 'xlsr2_1b_v2.pt'), kmeans: join(cache, 'kmeans_10k.npy'), layer: 2 }
  const from = { llm: LLM, voicebox: VOICEBOX, vocoder: VOCODER, ...hearing }
  using usdm = await Usdm.fromPretrained(from, { cacheDir: cache })
  expect([usdm.llm.config.modelType, usdm.tokenizer.units, usdm.units.layer]).toEqual(['mistral', 40, 2])
  expect(usdm.units.encoder.network).toBeInstanceOf(Wav2Vec2)
  const [mine, theirs] = [await whole.respond(question, OPTIONS), await usdm.respond(question, OPTIONS)]
  expect({ ...theirs, wav: null }).toEqual({ ...mine, wav: null })
  expect(relativeError(theirs.wav!.samples, mine.wav!.samples)).toBeLessThan(1e-5)
  using llm = await DecoderLM.fromPretrained(LLM, { cacheDir: cache })
  expect(llm.config.vocabSize).toBe(301)
  // The class says that a token sees one more than the window of the configuration, in whatever it is saved to later.
  expect([usdm.llm, llm].map(({ config }) => [config.slidingWindow, config.windowInclusive])).toEqual([
    [4096, true],
    [4096, true],
  ])
  expect(whole.llm.config.windowInclusive).toBe(false)
  await llm.save(join(home, 'again'))
  const config = JSON.parse(readFileSync(join(home, 'again/config.json'), 'utf8'))
  expect(config).toMatchObject({ architectures: ['MistralForCausalLM'], sliding_window: 4096, window_inclusive: true })
  const strict = { cacheDir: cache, config: { windowInclusive: false } }
  using other = await DecoderLM.fromPretrained(LLM, strict)
  expect(other.config.windowInclusive).toBe(false)
})

it('see at inference the window that they were trained with, token by token as in one pass', async () => {
  const tokenizer = whole.tokenizer
  for (const [architecture, seen] of [
    ['CustomMistralForCausalLM', 7],
    ['MistralForCausalLM', 6],
  ] as const) {
    const folder = join(home, architecture)
    using made = tinyLlm(tokenizer.vocabSize, { slidingWindow: 6, numHiddenLayers: 1 })
    await made.save(folder)
    changed(folder, (config) => ({ ...config, architectures: [architecture] }))
    using llm = await DecoderLM.fromPretrained(folder)
    await noGrad(() =>
      scope(async () => {
        const ids = Array.from({ length: 20 }, (_, i) => (i * 37) % tokenizer.vocabSize)
        const last = async (list: number[]) => {
          const { logits } = await llm.forward({ inputIds: tensor([list], { dtype: 'int64' }) })
          return numbers((logits as Tensor).select(0, 0).select(0, list.length - 1)) as number[]
        }
        const changedAt = async (back: number) => {
          const other = ids.map((id, i) => (i === ids.length - back ? (id + 1) % tokenizer.vocabSize : id))
          return relativeError(await last(other), await last(ids))
        }
        expect(await changedAt(seen)).toBeGreaterThan(1e-4)
        expect(await changedAt(seen + 1)).toBe(0)
        const { tokens } = await llm.generate({ inputIds: tensor([ids], { dtype: 'int64' }) }, { maxNewTokens: 8, eosTokenId: null }) // biome-ignore format: one line
        for (const token of tokens[0]?.slice(-8) ?? []) {
          const logits = await last(ids)
          expect(token).toBe(logits.indexOf(Math.max(...logits)))
          ids.push(token)
        }
      }),
    )
  }
})

it("answer by the original's command line", async () => {
  const [mine, answer] = [await whole.respond(question, { ...OPTIONS, reference: question }), join(home, 'answer.wav')]
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const line = `--input_path ${question} --reference_path ${question} --output_path ${answer} --model_cache_dir ${cache}
    --layer 2 --dtype float32 --solver-steps 2 --seed 3`
  try {
    expect(await runCommand('voxtorch usdm respond', respond, line.split(/\s+/))).toBe(0)
    expect(log.mock.calls.flat()).toEqual([`${question}\n  heard: hi!\n  reply: ok. (0.2 s)`, `  ${answer}`])
  } finally {
    log.mockRestore()
  }
  const { samples, sampleRate } = await readAudio(answer)
  expect(sampleRate).toBe(22_050)
  expect(relativeError((await samples.flatten().data()) as Float32Array, mine.wav!.samples)).toBeLessThan(1e-5)
})

it('answer the turns of dialogs for score, once each', async () => {
  const lines = ['hi', 'hello', 'ok'].map((text, turn) => ({
    dialog: 'a',
    turn,
    speaker: turn % 2,
    text,
    wav: question,
  }))
  const [data, output] = [join(home, 'turns.jsonl'), join(home, 'predictions.jsonl')]
  writeFileSync(data, lines.map((line) => JSON.stringify(line)).join('\n'))
  const log = vi.spyOn(console, 'log').mockImplementation(() => {})
  const line = `--data ${data} --output ${output} --model_cache_dir ${cache} --layer 2 --dtype float32 --solver-steps 1`
  const run = (more: string) => runCommand('voxtorch usdm predict', predict, `${line} ${more}`.trim().split(/\s+/))
  try {
    expect(await run('--limit 1')).toBe(0)
    expect(await run('')).toBe(0)
    expect(log.mock.calls.flat()).toEqual([1, 2].map((count) => `${output}: ${count} replies, ${count} with audio`))
  } finally {
    log.mockRestore()
  }
  const { predictions } = await readUsdmPredictions(output)
  const heard = { transcript: 'hi!', reply: 'ok.' }
  expect(predictions).toMatchObject([
    { id: 'a:0', user: 'hi', agent: 'hello', ...heard },
    { id: 'a:1', user: 'hello', agent: 'ok', ...heard },
  ])
  for (const { wav } of predictions) expect((await readAudio(wav as string)).sampleRate).toBe(22_050)
  // Another way of asking is another model.
  await expect(run('--strict')).rejects.toThrow(
    /predictions\.jsonl: expected predictions of this model, got one of another model/,
  )
  await expect(run('--test-metadata x')).rejects.toThrow(/--test-metadata: expected with DailyTalk data/)
  await expect(run('--text-only')).rejects.toThrow(/--solver-steps: expected with audio output/)
})

it('are those of the cache where nothing is said, the language model in half precision', async () => {
  using usdm = await usdmOfArguments({ modelCacheDir: cache, layer: 2 })
  expect(usdm.speaks).toBe(true)
  expect([usdm.llm, usdm.units.encoder.network].map((part) => part.parameters()[0]?.dtype)).toEqual([
    'bfloat16',
    'float32',
  ])
  // The folder alone is a whole USDM; this one's encoder is shorter than the published.
  await expect(Usdm.fromPretrained(cache)).rejects.toThrow(/xlsr2_1b_v2\.pt: layer: expected 1 to 3, .*, got 35/)
  await expect(usdmOfArguments({ modelCacheDir: home })).rejects.toThrow(
    /--encoder: expected a path or the file .*xlsr2_1b_v2\.pt/,
  )
  await expect(usdmOfArguments({})).rejects.toThrow(
    /--encoder: expected a path or the file xlsr2_1b_v2\.pt in --model-cache-dir/,
  )
  await expect(usdmTokenizerOfArguments({ model: LLM })).rejects.toThrow(/USDM-DailyTalk/)
  // The original's variable stands for what is not said.
  vi.stubEnv('MODEL_CACHE_DIR', cache)
  using again = await usdmOfArguments({ layer: 2 })
  expect([again.speaks, again.units.units]).toEqual([true, 40])
  expect((await usdmTokenizerOfArguments({ model: LLM })).units).toBe(40)
  using extractor = await unitExtractorOfArguments({ layer: 2 })
  expect(extractor.units).toBe(40)
  const trained = await usdmTrainedOfArguments({ dtype: 'float32' }, LLM)
  using network = trained.model
  expect([network.config.vocabSize, trained.tokenizer.units]).toEqual([301, 40])
  await expect(usdmOfArguments({ modelCacheDir: home })).rejects.toThrow(
    /--encoder: expected a path or the file .*xlsr2_1b_v2\.pt/,
  )
  vi.stubEnv('MODEL_CACHE_DIR', '')
  rmSync(snapshot(VOCODER), { recursive: true })
  await expect(usdmOfArguments({ modelCacheDir: cache, layer: 2 })).rejects.toThrow(/bigvgan_22khz_80band/)
})
