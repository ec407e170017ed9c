import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DecoderLM, tensor, writeWav } from '../../../lib/index.js'
import {
  EmoVerse,
  SpeechBranch,
  type TrainEmoVerseOptions,
  trainEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { byteTokenizer, ppm, TINY, TINY_EARS, tinyEmoVerse, voice } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-speech-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const { whisper, qformer } = TINY_EARS

const face = join(folder, 'face.ppm')
writeFileSync(
  face,
  ppm(28, 28, (x, y) => [8 * x, 8 * y, 100]),
)

describe('a speech branch', () => {

  it('is trained in a stage of its own, and comes back with the model or with its stages', async () => {
    const said = { deep: 'No.', high: 'Yes.' }
    const records = (count: number, from: number) =>
      Array.from({ length: count }, (_, i) => {
        const isHigh = i % 2 === 1
        const pitch = (isHigh ? 2000 : 150) + 20 * ((i + from) % 5)
        const file = `${from}-${i}.wav`
        return { pitch, file, record: { query: '<audio>Well?', response: isHigh ? said.high : said.deep, audios: [file] } }
      })
    const [learnt, unseen] = [records(24, 0), records(8, 3)]
    for (const { file, pitch } of [...learnt, ...unseen]) {
      await writeWav(join(folder, file), tensor(voice(pitch, 0.4, pitch)).unsqueeze(0), { sampleRate: 16000 })
    }
    const data = learnt.map(({ record }) => record)
    const make = async () => {
      const tokenizer = await byteTokenizer()
      const model = DecoderLM.fromConfig({ ...TINY, initializerRange: 0.2 }, { seed: 3 })
      return new EmoVerse({ model, tokenizer, system: null, speech: await SpeechBranch.begin({ whisper, qformer, seed: 3 }, TINY.hiddenSize) })
    }
    using model = await make()
    const base = join(folder, 'base')
    await model.save(base)
    const recipe = { learningRate: 1e-2, batchSize: 8, accumulation: 1, gradientCheckpointing: false, validationShare: 0 }
    const options: TrainEmoVerseOptions = {
      ...{ args: { progress: false, reportTo: 'none' }, outputDir: join(folder, 'run'), mediaRoot: folder },
      stages: [
        { data, recipe: { ...recipe, epochs: 2 }, speech: 'alone' },
        { data, recipe: { ...recipe, epochs: 18 }, speech: 'whole', lora: { loraDropout: 0 } },
        { data, recipe: { ...recipe, epochs: 1 } },
      ],
    }
    const encoderBefore = JSON.stringify((model.speech as SpeechBranch).speech_encoder.parameters().map((one) => one.sum().item()))
    const wordsBefore = JSON.stringify(model.llm.parameters().map((one) => one.sum().item()))
    const { stages, model: saved } = await trainEmoVerse(model, { ...options, stages: options.stages.slice(0, 1), saveModel: false })
    // The ears alone: a norm of 16, a Q-Former, and a projection from 16 to 32.
    const own = (model.speech as SpeechBranch).namedParameters().filter(([name]) => !name.startsWith('speech_encoder.'))
    expect([stages[0]?.trained, saved]).toEqual([own.reduce((sum, [, one]) => sum + one.numel(), 0), null])
    expect(JSON.stringify(model.llm.parameters().map((one) => one.sum().item()))).toBe(wordsBefore)
    using whole = await make()
    const drops: boolean[] = []
    const onStepEnd = () => void drops.push((whole.speech as SpeechBranch).qformer.training)
    const results = await trainEmoVerse(whole, { ...options, callbacks: [{ onStepEnd }] })
    // 24 records in three steps; ears that stay as they are drop nothing out.
    expect(drops).toEqual([...Array(18 * 3).fill(true), ...Array(3).fill(false)])
    expect(JSON.stringify((whole.speech as SpeechBranch).speech_encoder.parameters().map((one) => one.sum().item()))).toBe(encoderBefore)
    const shares = async (one: EmoVerse) => {
      const all: number[] = []
      for (const { record } of unseen) all.push((await one.scoreLabels(record, ['Yes.', 'No.'], { mediaRoot: folder }))[record.response] as number)
      return all
    }
    const right = await shares(whole)
    expect(Math.min(...right)).toBeGreaterThan(0.8)
    using again = await EmoVerse.fromPretrained(results.model as string, { system: null })
    expect(again.hearsMedia).toBe(true)
    const adapters = results.stages.map(({ adapter }) => adapter)
    using staged = await EmoVerse.fromPretrained({ base, adapters }, { system: null })
    for (const one of [await shares(again), await shares(staged)]) {
      for (const [i, share] of one.entries()) expect(share).toBeCloseTo(right[i] as number, 5)
    }
    // Without the voice nothing tells them apart.
    using deaf = await EmoVerse.fromPretrained(results.model as string, { system: null, audio: 'ignore' })
    expect(new Set((await shares(deaf)).map((share) => share.toFixed(6))).size).toBe(2)
    // Ended stages are found, the ears' too; a base without ears needs some.
    using found = await make()
    expect((await trainEmoVerse(found, options)).stages).toEqual(results.stages)
    for (const [i, share] of (await shares(found)).entries()) expect(share).toBeCloseTo(right[i] as number, 4)
    const plain = join(folder, 'plain')
    using earless = await tinyEmoVerse({ seed: 3, media: 'read' })
    await earless.save(plain)
    await expect(EmoVerse.fromPretrained({ base: plain, adapters })).rejects.toThrow(/expected a speech branch, but .* the model has none/)
    await expect(EmoVerse.fromPretrained(base, { speech: { whisper } })).rejects.toThrow(/expected a model without a speech branch/)
    await expect(trainEmoVerse(earless, { ...options, outputDir: join(folder, 'deaf') })).rejects.toThrow(/expected a model with a speech branch, got one without/)
    await expect(trainEmoVerse(found, { ...options, outputDir: join(folder, 'both'), stages: [{ data, speech: 'alone', lora: {} }] })).rejects.toThrow(/expected no lora and projector with speech 'alone'/)
  })
}) // biome-ignore format: long lines
