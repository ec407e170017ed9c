import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it, vi } from 'vitest'
import {
  ConfigError,
  DataError,
  loadSafetensors,
  noGrad,
  quantize,
  scope,
  type Tensor,
  tensor,
  writeWav,
} from '../../../lib/index.js'
import {
  ECPE_WORDING,
  EMOTION_LABELS,
  EmoVerse,
  emoverseCollate,
  emoverseLoss,
  emoverseRecipe,
  SENTIMENT_LABELS,
  type SwiftRecord,
  type TrainEmoVerseOptions,
  trainEmoVerse,
  writeSwiftDataset,
} from '../../../lib/systems/emoverse/index.js'
import { type EcpeLine, ecpeQuestion, questionOf } from '../../../lib/systems/emoverse/published/wording.js'
import { settledTensors } from '../../helpers.js'
import { start } from '../../train/trainer/child.js'
import { faceData } from './faces.js'
import { asked, byteTokenizer, TINY, tinyEmoVerse } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-train-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const fast = { learningRate: 1e-2, batchSize: 6, accumulation: 1, epochs: 4, gradientCheckpointing: false, logSteps: 5 }
const quiet: Pick<TrainEmoVerseOptions, 'args'> = { args: { progress: false, reportTo: 'none' } }

describe('records as tokens', () => {
  it('are turns with their ends, of which the answers are learnt, those before too', async () => {
    using model = await tinyEmoVerse({ system: 'S' })
    const record: SwiftRecord = {
      query: 'c<video>',
      response: 'd',
      history: [['<image>a', 'b']],
      videos: ['v'],
      images: ['i'],
    }
    const { inputIds, labels, task } = await model.encode(record)
    const text = model.tokenizer.decode(inputIds, { skipSpecialTokens: false })
    expect(text).toBe(
      '<|im_start|>system\nS<|im_end|><|im_start|>user\na<|im_end|><|im_start|>assistant\nb<|im_end|><|im_start|>user\nc<|im_end|><|im_start|>assistant\nd<|im_end|>',
    )
    const learnt = labels.filter((id, i) => id !== -100 && id === inputIds[i])
    expect(learnt).toHaveLength(labels.filter((id) => id !== -100).length)
    expect(model.tokenizer.decode(learnt, { skipSpecialTokens: false })).toBe('b<|im_end|>d<|im_end|>')
    expect(task).toBe('other')
    expect((await model.encode({ ...record, system: 'Own' })).inputIds.length).toBe(inputIds.length + 2)
    const { inputIds: prompt } = await model.encode(record, { answer: false })
    expect(prompt).toEqual(inputIds.slice(0, -2))
    await expect(model.encode({ query: 'a', response: null })).rejects.toBeInstanceOf(DataError)
    expect(model.lengthOf(record)).toBe(inputIds.length + 2)
    const tasks = await Promise.all(asked(4).map(async (one) => (await model.encode(one)).task))
    expect(tasks).toEqual(['MSA', 'MER', 'MER', 'MSA'])
  })

  it('have the loss of the network itself, and gradients alike', async () => {
    using model = await tinyEmoVerse({ dtype: 'float64' })
    await scope(async () => {
      const batch = emoverseCollate(await Promise.all(asked(5).map((record) => model.encode(record))))
      const grads = async (lossOf: () => Promise<Tensor>) => {
        for (const parameter of model.model.parameters()) parameter.grad = null
        const loss = await lossOf()
        await loss.backward()
        return { loss: loss.item() as number, grads: model.model.parameters().map(({ grad }) => Array.from((grad as Tensor).flatten().toArray() as number[])) }
      } // biome-ignore format: one line
      const { inputIds, labels, sequenceLengths } = batch
      const own = await grads(async () => (await emoverseLoss(model, batch)).loss)
      const native = await grads(
        async () => (await model.llm.forward({ inputIds, labels, sequenceLengths })).loss as Tensor,
      )
      // The loss is float32 in both, the cross-entropy of float32 logits in ours.
      expect(Math.abs(own.loss - native.loss)).toBeLessThan(1e-5)
      for (const [i, grad] of own.grads.entries()) {
        const other = native.grads[i] as number[]
        const scale = Math.max(...other.map(Math.abs))
        expect(Math.max(...grad.map((value, j) => Math.abs(value - (other[j] as number)))) / scale).toBeLessThan(1e-5)
      }
    })
    await noGrad(async () => {
      const { logits, loss } = await emoverseLoss(
        model,
        emoverseCollate(await Promise.all(asked(5).map((one) => model.encode(one)))),
      )
      const rows = (logits as Tensor).toArray() as [number, number, number][]
      const tokens = rows.reduce((sum, [, count]) => sum + count, 0)
      expect(rows).toHaveLength(5)
      expect(rows.reduce((sum, [one]) => sum + one, 0) / tokens).toBeCloseTo(loss.item() as number, 5)
      logits?.dispose()
      loss.dispose()
    })
  })

  it('have their numbers from a head that is packed too', async () => {
    using model = await tinyEmoVerse()
    await quantize(model.model, { scheme: 'q8_0' })
    await scope(() =>
      noGrad(async () => {
        const batch = emoverseCollate(await Promise.all(asked(5).map((record) => model.encode(record))))
        const { inputIds, labels, sequenceLengths } = batch
        const { loss: native } = await model.llm.forward({ inputIds, labels, sequenceLengths })
        const { logits: all } = await model.llm.forward({ inputIds, sequenceLengths })
        const { loss, logits } = await emoverseLoss(model, batch)
        expect(loss.item()).toBeCloseTo(native?.item() as number, 5)
        const likeliest = (all as Tensor).argmax(-1).flatten().toArray() as number[]
        const right = [0, 0, 0, 0, 0]
        const { places, ids, records } = batch.targets
        for (const [i, place] of places.entries()) if (likeliest[place - 1] === ids[i]) right[records[i] as number] = (right[records[i] as number] as number) + 1
        const rows = (logits as Tensor).toArray() as [number, number, number][]
        expect(rows.map(([, tokens, own]) => [tokens, own])).toEqual(right.map((own, record) => [records.filter((one) => one === record).length, own]))
        expect(rows.reduce((sum, [one]) => sum + one, 0) / places.length).toBeCloseTo(loss.item() as number, 5)
      }),
    )
  }) // biome-ignore format: long lines
})

describe('trainEmoVerse', () => {
  it('trains a fresh adapter in each stage on what the one before made, and answers as taught', async () => {
    using model = await tinyEmoVerse({ seed: 3 })
    const words = model.model.stateDict()
    const frozen = hashOf(words['model.embed_tokens.weight'] as Tensor)
    const outputDir = join(folder, 'two')
    const notes: string[] = []
    const first = asked(60).map((record) => ({ ...record, images: ['a.png'] }))
    const { stages, model: saved } = await trainEmoVerse(model, {
      ...{ ...quiet, outputDir, onNote: (note) => void notes.push(note) },
      stages: [
        { data: first.filter(({ query }) => query.includes('sentiment')), recipe: { ...fast, epochs: 6 }, lora: { loraDropout: 0 } },
        { name: 'second', data: asked(90), recipe: { ...fast, epochs: 12, loadBest: true, validationShare: 0.1 }, lora: { loraDropout: 0 } },
      ],
    }) // biome-ignore format: one stage a line
    expect(notes[0]).toMatch(/^the longest record has \d+ tokens/)
    expect(notes[1]).toBe('the model has no vision or audio encoder: it is trained on the texts only')
    expect(stages.map(({ name }) => name)).toEqual(['stage-1', 'second'])
    expect(stages[0]?.samples).toEqual({ train: 19, valid: 1, test: 0 })
    expect(stages[1]?.valid?.accuracy).toBe(1)
    expect(Object.keys(stages[1]?.valid?.tasks ?? {}).sort()).toEqual(['MER', 'MSA'])
    // 14 linear layers of rank 8.
    const sizes = [[32, 32], [32, 16], [32, 16], [32, 32], [32, 64], [32, 64], [64, 32]] as const // biome-ignore format: one line
    expect(stages[0]?.trained).toBe(2 * 8 * sizes.reduce((sum, [a, b]) => sum + a + b, 0))
    expect(hashOf(model.model.stateDict()['model.embed_tokens.weight'] as Tensor)).toBe(frozen)
    const log = readFileSync(join(outputDir, 'second/tasks.jsonl'), 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(log.at(-1).tasks.MER.accuracy).toBeGreaterThan(log[0].tasks.MER.accuracy)
    for (const { tasks } of log) for (const { seconds } of Object.values(tasks) as { seconds: number }[]) expect(seconds).toBeGreaterThan(0)
    expect(log[0].tasks.MSA.records + log[0].tasks.MER.records).toBe(30)
    // 12 passes over 81 records, those behind the last log too.
    expect(log.reduce((sum, { tasks }) => sum + tasks.MSA.records + tasks.MER.records, 0)).toBe(12 * 81)
    const questions = asked(6)
    const texts = async (one: EmoVerse) => (await one.generate(questions, { maxNewTokens: 8 })).map(({ text }) => text)
    expect(await texts(model)).toEqual(questions.map(({ response }) => response))
    // The whole model, and its base with the adapters of both stages, say the same.
    using whole = await EmoVerse.fromPretrained(saved as string, { system: null })
    using base = await tinyEmoVerse({ seed: 3 })
    await base.save(join(folder, 'base'))
    const adapters = stages.map(({ adapter }) => adapter)
    using merged = await EmoVerse.fromPretrained({ base: join(folder, 'base'), adapters }, { system: null })
    for (const name of ['model.layers.0.self_attn.q_proj.weight', 'model.layers.1.mlp.down_proj.weight']) {
      expect(hashOf(whole.model.stateDict()[name] as Tensor)).toBe(hashOf(model.model.stateDict()[name] as Tensor))
      expect(hashOf(merged.model.stateDict()[name] as Tensor)).toBe(hashOf(model.model.stateDict()[name] as Tensor))
    }
    expect(await texts(merged)).toEqual(questions.map(({ response }) => response))
    // Once more: the results that are there, and the model with all stages in it.
    using again = await tinyEmoVerse({ seed: 3 })
    const own = first.filter(({ query }) => query.includes('sentiment'))
    const settings = (epochs: number, data: SwiftRecord[] = own) => ({
      ...{ ...quiet, outputDir },
      stages: [
        { data, recipe: { ...fast, epochs }, lora: { loraDropout: 0 } },
        { name: 'second', data: asked(90), recipe: { ...fast, epochs: 12, loadBest: true, validationShare: 0.1 }, lora: { loraDropout: 0 } },
      ],
    }) // biome-ignore format: one stage a line
    expect((await trainEmoVerse(again, settings(6))).stages).toEqual(stages)
    expect(hashOf(again.model.stateDict()['model.layers.0.self_attn.q_proj.weight'] as Tensor)).toBe(
      hashOf(model.model.stateDict()['model.layers.0.self_attn.q_proj.weight'] as Tensor),
    )
    using same = await tinyEmoVerse({ seed: 3 })
    await expect(trainEmoVerse(same, settings(7))).rejects.toThrow(/expected a stage with the same settings, got another one \(recipe\.epochs differs\)\. Choose another outputDir/)
    await expect(trainEmoVerse(same, settings(6, first))).rejects.toThrow(/same settings, got another one \(data differs/)
    await expect(trainEmoVerse(again, settings(6))).rejects.toThrow(/same settings, got another one \(base differs/)
    using other = await tinyEmoVerse({ seed: 4 })
    await expect(trainEmoVerse(other, settings(6))).rejects.toThrow(/same settings, got another one \(base differs/)
    const changed = settings(6)
    await expect(
      trainEmoVerse(same, { ...changed, stages: [changed.stages[0] as never, { ...changed.stages[1], data: own }] }),
    ).rejects.toThrow(/second.*same settings, got another one \(data differs/)
  })

  it('tells data in a file by its bytes, wherever it lies, and a stage that was begun by what it was begun with', async () => {
    const [one, two] = ['one.json', 'two.json'].map((name) => join(folder, name)) as [string, string]
    await writeSwiftDataset(one, asked(12))
    cpSync(one, two)
    const recipe = { ...fast, epochs: 1 }
    const stop = { onStepEnd: () => { throw new Error('stopped') } }
    const run = async (data: string, more: Partial<TrainEmoVerseOptions> = {}) => {
      using model = await tinyEmoVerse({ seed: 3 })
      const notes: string[] = []
      const { stages, model: saved } = await trainEmoVerse(model, { ...quiet, outputDir: join(folder, 'bytes'), stages: [{ data, recipe }], onNote: (note) => void notes.push(note), ...more })
      return { adapter: stages[0]?.adapter, saved, notes }
    }
    await expect(run(one, { callbacks: [stop] })).rejects.toThrow('stopped')
    const other = join(folder, 'other.json')
    await writeSwiftDataset(other, asked(13))
    // It has no results yet, and is another's all the same.
    await expect(run(other)).rejects.toThrow(/same settings, got another one \(data differs/)
    const home = join(folder, 'bytes')
    expect(await run(two)).toEqual({ adapter: join(home, 'stage-1/adapter'), saved: join(home, 'model'), notes: [expect.stringMatching(/^the longest/)] })
    // A folder of its own for what is another training, the same one each time.
    for (let i = 0; i < 2; i++) {
      const { adapter, saved, notes } = await run(other, { versions: true })
      expect([adapter, saved, notes[0]]).toEqual([join(home, 'v1/stage-1/adapter'), join(home, 'v1/model'), `${home} holds another training: this one is written to ${join(home, 'v1')}`])
    }
    expect((await run(one, { versions: true })).notes).toEqual([])
    expect((await run(one, { versions: true, args: { ...quiet.args, maxSteps: 1 } })).saved).toBe(join(home, 'v2/model'))
    // One stage more: the model is another one.
    const before = readFileSync(join(home, 'model/model.safetensors'))
    await run(one, { stages: [{ data: one, recipe }, { data: other, recipe }] })
    expect(readFileSync(join(home, 'model/model.safetensors')).equals(before)).toBe(false)
  }) // biome-ignore format: long lines

  it('gives each stage an adapter of its own: its B is zero, and its A is not the one that was trained before', async () => {
    using model = await tinyEmoVerse({ seed: 3 })
    const begun: Map<string, Tensor>[] = []
    const onTrainBegin = () => void begun.push(new Map(model.model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad).map(([name, one]) => [name, one.detach().clone()])))
    const stage = { data: asked(12), recipe: { ...fast, epochs: 1 } }
    const { stages } = await trainEmoVerse(model, { ...quiet, outputDir: join(folder, 'fresh'), stages: [stage, stage], callbacks: [{ onTrainBegin }] })
    expect(begun.map(({ size }) => size)).toEqual([28, 28])
    const { tensors: trained } = await loadSafetensors(join(stages[0]?.adapter as string, 'adapter_model.safetensors'))
    expect(Object.keys(trained)).toHaveLength(28)
    for (const [name, own] of begun[1] as Map<string, Tensor>) {
      const before = trained[`base_model.model.${name.replace('.default', '')}`] as Tensor
      expect(own.shape, name).toEqual(before.shape)
      const isB = name.includes('lora_B')
      expect([own.abs().max().item() === 0, before.abs().max().item() === 0], name).toEqual([isB, false])
      expect(own.equal(before), name).toBe(false)
      if (!isB) expect(own.equal(begun[0]?.get(name) as Tensor), name).toBe(false)
    }
  }) // biome-ignore format: long lines

  it('begins at any stage, with the model as it is', async () => {
    using model = await tinyEmoVerse()
    const stage = { data: asked(12), recipe: { ...fast, epochs: 1 } }
    const options = { ...quiet, outputDir: join(folder, 'late'), stages: [stage, stage], saveModel: false }
    const { stages, model: saved } = await trainEmoVerse(model, { ...options, startAt: 2 })
    expect([stages.map(({ name }) => name), saved]).toEqual([['stage-2'], null])
    expect(existsSync(join(folder, 'late/stage-1'))).toBe(false)
    await expect(trainEmoVerse(model, { ...options, startAt: 3 })).rejects.toThrow(/startAt/)
  })

  it('puts records of like length into one batch where that is asked for', async () => {
    const data = asked(24).map((one, i) => (i % 2 ? one : { ...one, query: `${'word '.repeat(20)}${one.query}` }))
    const widths = async (groupByLength: boolean) => {
      using model = await tinyEmoVerse()
      const encode = vi.spyOn(model, 'encode')
      const stages = [{ data, recipe: { ...fast, batchSize: 4, epochs: 1, validationShare: 0 } }]
      const outputDir = join(folder, `grouped-${groupByLength}`)
      await trainEmoVerse(model, { outputDir, stages, args: { ...quiet.args, groupByLength } })
      const lengths = await Promise.all(encode.mock.results.map(async ({ value }) => (await value).inputIds.length))
      expect(lengths).toHaveLength(24)
      const batches = [0, 4, 8, 12, 16, 20].map((from) => lengths.slice(from, from + 4))
      return batches.map((some) => Math.max(...some) - Math.min(...some))
    }
    expect(Math.max(...(await widths(false)))).toBeGreaterThan(50)
    expect(Math.max(...(await widths(true)))).toBeLessThan(10)
  })

  it('leaves out what is too long, and says so; replaces it as published where that is wanted', async () => {
    using model = await tinyEmoVerse()
    const notes: string[] = []
    const path = join(folder, 'long.json')
    await writeSwiftDataset(path, [...asked(10), { query: 'x'.repeat(300), response: 'y' }])
    const options = (compat?: 'published') => ({
      ...{ ...quiet, outputDir: join(folder, `long-${compat}`), saveModel: false, onNote: (note: string) => void notes.push(note) },
      stages: [{ data: path, recipe: { ...fast, epochs: 1, maxLength: 200, validationShare: 0 } }],
      ...(compat && { compat }),
    }) // biome-ignore format: one line
    expect((await trainEmoVerse(model, options())).stages[0]?.samples.train).toBe(10)
    expect(notes[0]).toMatch(/long\.json: 10 records, without 1 that are too long/)
    expect((await trainEmoVerse(model, options('published'))).stages[0]?.samples.train).toBe(11)
  })

  it('refuses what cannot be', async () => {
    using model = await tinyEmoVerse()
    const stage = { data: asked(6) }
    const bad: [object, RegExp][] = [
      [{ stages: [], outputDir: 'x' }, /a list of stages/],
      [{ stages: [stage], outputDir: 1 }, /outputDir/],
      [{ stages: [{ ...stage, epochs: 1 }], outputDir: 'x' }, /epochs/],
      [{ stages: [{ ...stage, recipe: { epoch: 1 } }], outputDir: 'x' }, /did you mean 'epochs'/],
      [{ stages: [{ ...stage, name: '../up' }], outputDir: 'x' }, /a name that a folder can have/],
      [
        {
          stages: [
            { ...stage, name: 'a' },
            { ...stage, name: 'a' },
          ],
          outputDir: 'x',
        },
        /different name/,
      ],
      [{ stages: [stage], outputDir: 'x', output: 1 }, /output/],
    ]
    for (const [options, message] of bad) {
      await expect(trainEmoVerse(model, options as TrainEmoVerseOptions)).rejects.toThrow(message)
    }
    await expect(trainEmoVerse({} as EmoVerse, { stages: [stage], outputDir: 'x' })).rejects.toThrow(ConfigError)
    expect(() => emoverseRecipe({ batchSize: 0 })).toThrow(/batchSize/)
    expect(existsSync('x')).toBe(false)
  })

  const script = fileURLToPath(new URL('./stages-run.mjs', import.meta.url))
  const bytes = (outputDir: string, name: string) => readFileSync(join(outputDir, name))
  /** Trains to the end, and with a kill after so many lines of each kind; both must have left the same. */
  async function expectSameAfterKills(home: string, stages: readonly string[], kills: readonly (readonly [RegExp, number])[]) {
    const [whole, killed] = [join(home, 'whole'), join(home, 'killed')]
    const run = (outputDir: string) => start([script, outputDir, join(home, 'media')])
    const ends = async (outputDir: string) => {
      const child = run(outputDir)
      expect(await child.exit, child.errors()).toEqual({ code: 0, signal: null })
    }
    await ends(whole)
    for (const [line, count] of kills) {
      const child = run(killed)
      for (let i = 0; i < count; i++) await child.line(line)
      child.process.kill('SIGKILL')
      expect((await child.exit).signal).toBe('SIGKILL')
      // As a kill in the middle of writing leaves it.
      const features = join(killed, 'features')
      for (const name of readdirSync(features)) if (name.endsWith('.features')) truncateSync(join(features, name), statSync(join(features, name)).size - 5)
    }
    await ends(killed)
    const losses = (outputDir: string) => stages.map((stage) => bytes(outputDir, `${stage}/tasks.jsonl`).toString().replaceAll(/"seconds":[^}]*/g, ''))
    expect(losses(killed)).toEqual(losses(whole))
    expect(readdirSync(killed).sort()).toEqual(['features', 'model', ...stages])
    const weights = (readdirSync(whole, { recursive: true }) as string[]).filter((name) => name.endsWith('model.safetensors') && !name.includes('checkpoint'))
    for (const name of weights) expect(bytes(killed, name).equals(bytes(whole, name)), name).toBe(true)
    return { killed, whole, weights, ends }
  }
  function mediaIn(home: string): string {
    mkdirSync(join(home, 'media'), { recursive: true })
    for (const [name, picture] of Object.entries(faceData('face', 8, 1).files)) writeFileSync(join(home, 'media', name), picture)
    return join(home, 'media')
  }

  it('ends with the same bytes after SIGKILLs in each stage, between two and while the model is written', async () => {
    const home = join(folder, 'kills')
    mediaIn(home)
    // After steps of the first stage, of the second, when the first has ended, and when both have.
    const kills = [[/^step/, 3], [/^step/, 6], [/^stage-1 ends/, 1], [/^step/, 4], [/^stage-2 ends/, 1]] as const
    const { killed, whole, weights, ends } = await expectSameAfterKills(home, ['stage-1', 'stage-2'], kills)
    expect(weights.sort()).toEqual(['model/model.safetensors', 'stage-1/adapter/adapter_model.safetensors', 'stage-2/adapter/adapter_model.safetensors'])
    // A model that was cut off while it was written is written again.
    cpSync(killed, join(home, 'cut'), { recursive: true })
    rmSync(join(home, 'cut/model'), { recursive: true })
    await ends(join(home, 'cut'))
    expect(bytes(join(home, 'cut'), 'model/model.safetensors').equals(bytes(whole, 'model/model.safetensors'))).toBe(true)
  })

  it('ends with the same bytes after SIGKILLs with ears: while they train alone, beside the adapter, and when they stay as they are', async () => {
    const home = join(folder, 'ears')
    const media = mediaIn(home)
    for (let i = 0; i < 6; i++) {
      const samples = Float32Array.from({ length: 4000 + 3000 * i }, (_, k) => 0.3 * Math.sin((k * (i + 2)) / 30))
      await writeWav(join(media, `voice${i}.wav`), tensor(samples).unsqueeze(0), { sampleRate: 16000 })
    }
    const kills = [[/^step/, 3], [/^stage-1 ends/, 1], [/^step/, 5], [/^stage-2 ends/, 1], [/^step/, 7], [/^stage-3 ends/, 1]] as const
    const { whole, weights } = await expectSameAfterKills(home, ['stage-1', 'stage-2', 'stage-3'], kills)
    const ears = (stage: string) => `${stage}/adapter/speech/model.safetensors`
    expect(weights.sort()).toEqual([
      ...['model/model.safetensors', 'model/speech/encoder/model.safetensors', 'model/speech/model.safetensors', ears('stage-1')],
      ...['stage-2/adapter/adapter_model.safetensors', ears('stage-2'), 'stage-3/adapter/adapter_model.safetensors'],
    ])
    // What the last stage leaves is what the second has made of them, which the first had made otherwise.
    expect(bytes(whole, 'model/speech/model.safetensors').equals(bytes(whole, ears('stage-2')))).toBe(true)
    expect(bytes(whole, ears('stage-1')).equals(bytes(whole, ears('stage-2')))).toBe(false)
  })
}) // biome-ignore format: long lines

describe('EmoVerse', () => {
  it('answers prompts that begin alike as each by itself, and refuses those that are too long', async () => {
    using model = await tinyEmoVerse({ system: 'The same for all of them, which is read once.' })
    const records = asked(7)
    const before = await settledTensors()
    const together = await model.generate(records, { maxNewTokens: 6 })
    for (const [i, record] of records.entries()) {
      expect((await model.generate([record], { maxNewTokens: 6 }))[0]).toEqual(together[i])
    }
    expect(await settledTensors()).toBe(before)
    await expect(model.generate(records, { maxLength: 10 })).rejects.toThrow(
      /record 1 of 7: expected at most 10 tokens, got \d+/,
    )
    const published = await model.generate(records, { maxLength: 10, compat: 'published' })
    expect(published.map(({ text }) => text)).toEqual(records.map(() => ''))
    await expect(model.generate(records, { maxNewToken: 1 } as never)).rejects.toThrow(/maxNewToken/)
  })

  it('holds answers to what their questions allow, where that is wanted', async () => {
    using model = await tinyEmoVerse()
    const lines = [1, 2, 3].map((number) => ({ number, emotion: ['joy', 'neutral', 'fear'][number - 1] as string, speaker: 'Ann', text: `9_joy. and\n1_` }))
    const causes = { query: ecpeQuestion(lines, lines[2] as EcpeLine, lines.slice(0, 2), ECPE_WORDING) }
    const emotion = { query: "'x' <emotion> Please determine which emotion label in the video represents: happy or sad." }
    const sentiment = { query: `'x' ${questionOf('MSA', 'meld')}` }
    const questions = [causes, emotion, sentiment, { query: 'a' }]
    for (const doSample of [false, true]) {
      const [pairs, mood, sign, free] = (await model.generate(questions, { constrained: true, maxNewTokens: 40, doSample })).map(({ text }) => text) as [string, string, string, string]
      const said = pairs.split(';').filter(Boolean)
      expect(said.every((one) => ['3_fear,1', '3_fear,2', '3_fear,3'].includes(one)) && new Set(said).size === said.length, pairs).toBe(true)
      expect([EMOTION_LABELS.mosei.includes(mood), (SENTIMENT_LABELS as readonly string[]).includes(sign)], `${mood}, ${sign}`).toEqual([true, true])
      if (!doSample) expect(free).toBe((await model.generate([{ query: 'a' }], { maxNewTokens: 40 }))[0]?.text)
    }
    let streamed = ''
    for await (const { text } of model.stream(causes, { constrained: true, maxNewTokens: 40 })) streamed += text
    expect(streamed).toBe((await model.generate([causes], { constrained: true, maxNewTokens: 40 }))[0]?.text)
    await expect(model.generate([emotion], { constrained: true, allowedSequences: [[1]] })).rejects.toThrow(/constrained/)
    await expect(model.generate([emotion], { constrained: 1 as never })).rejects.toThrow(/constrained/)
  }) // biome-ignore format: long lines

  it('leaves special tokens in an answer but for its end, as ms-swift', async () => {
    using model = await tinyEmoVerse()
    const ids = (text: string) => model.tokenizer.encode(text, { addSpecialTokens: false }).inputIds
    expect(model.textOf(ids('Joy.<|im_end|>'))).toBe('Joy.')
    expect(model.textOf(ids('Joy.<|im_start|> <|im_end|>'))).toBe('Joy.<|im_start|> ')
    expect(model.textOf(ids('Joy.<|im_end|><|im_end|>'))).toBe('Joy.')
    expect(model.textOf(ids(' Joy. '))).toBe(' Joy. ')
  })

  it('is made of a configuration too', async () => {
    const tokenizer = await byteTokenizer()
    using model = EmoVerse.fromConfig(TINY, { tokenizer, seed: 1, system: null })
    expect([model.template, model.seesMedia, model.system]).toEqual(['hermes2', false, null])
    expect(() => EmoVerse.fromConfig(TINY, { tokenizer, template: 'llama' as never })).toThrow(/template/)
    expect(() => EmoVerse.fromConfig(TINY, { tokenizer, size: 1 } as never)).toThrow(/size/)
    await expect(EmoVerse.fromPretrained({ base: 'x' } as never)).rejects.toThrow(/adapters/)
  })
})

const hashOf = (tensor: Tensor): string =>
  createHash('sha256')
    .update(Buffer.from(Float64Array.from(tensor.detach().flatten().toArray() as number[]).buffer))
    .digest('hex')
