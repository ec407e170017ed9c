import { createHash } from 'node:crypto'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { ConfigError, type InternVL, loadSafetensors, type Module, type Tensor } from '../../../lib/index.js'
import { readMeld } from '../../../lib/kit/emotion/meld.js'
import {
  EmoVerse,
  type EmoVerseQuestion,
  type TrainEmoVerseOptions,
  trainEmoVerse,
} from '../../../lib/systems/emoverse/index.js'
import { FACE_LABELS, type Face, faceData, MELD_WORDS } from './faces.js'
import { seeingEmoVerse } from './tiny.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-emoverse-faces-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const quiet: Pick<TrainEmoVerseOptions, 'args'> = { args: { progress: false, reportTo: 'none' } }
const fast = { learningRate: 3e-3, batchSize: 8, accumulation: 1, gradientCheckpointing: false, validationShare: 0 }

const LIVELY = { seed: 3, initializerRange: 0.2 }

const [learnt, unseen] = [faceData('learnt', 96, 1), faceData('unseen', 24, 2)]
for (const { files } of [learnt, unseen]) {
  for (const [name, bytes] of Object.entries(files)) writeFileSync(join(folder, name), bytes)
}

function hashOf(module: Module): string {
  const hash = createHash('sha256')
  for (const [name, tensor] of Object.entries(module.stateDict())) {
    hash.update(name).update(Float64Array.from((tensor as Tensor).detach().flatten().toArray() as number[]))
  }
  return hash.digest('hex')
}

/** The mean likelihood of the true labels. */
async function likelihood(model: EmoVerse, records: readonly EmoVerseQuestion[]): Promise<number> {
  let sum = 0
  for (const record of records) {
    const shares = await model.scoreLabels(record, FACE_LABELS, { mediaRoot: folder })
    sum += shares[record.response as Face] as number
  }
  return sum / records.length
}

describe('an EmoVerse in two stages', () => {
  const shared = process.env.VOXTORCH_DATA ?? fileURLToPath(new URL('../../../../shared/data', import.meta.url))
  const meld = join(shared, 'meld/train_sent_emo.csv')
  it.skipIf(!existsSync(meld))('hears words that MELD has in several moods (../shared/data/meld)', async () => {
    const { dialogs } = await readMeld(meld)
    const moods = new Set<string>(FACE_LABELS.map((label) => label.slice(0, -1).toLowerCase()))
    for (const words of MELD_WORDS) {
      const utterances = dialogs.flatMap((dialog) => dialog.utterances).filter(({ text }) => text.trim() === words)
      const found = new Set(utterances.map(({ emotion }) => emotion ?? '').filter((emotion) => moods.has(emotion)))
      expect(found.size, words).toBeGreaterThanOrEqual(3)
    }
  })

  it('looks at the faces that it is shown', async () => {
    using model = await seeingEmoVerse(LIVELY)
    const { vision_model } = model.model as InternVL
    const frozen = hashOf(vision_model)
    const outputDir = join(folder, 'run')
    const options: TrainEmoVerseOptions = {
      ...{ ...quiet, outputDir, mediaRoot: folder, visionCache: join(folder, 'features') },
      stages: [
        { data: learnt.sentiment, recipe: { ...fast, epochs: 6 }, projector: 'whole' },
        { data: learnt.emotion, recipe: { ...fast, epochs: 28 }, projector: 'whole' },
      ],
    }
    const { stages, model: saved } = await trainEmoVerse(model, options)
    expect(hashOf(vision_model)).toBe(frozen)
    expect(stages.map(({ samples }) => samples.train)).toEqual([96, 96])
    expect(await likelihood(model, unseen.emotion)).toBeGreaterThanOrEqual(0.95)
    // Among faces of others a quarter happens to fit.
    const shuffled = unseen.emotion.map((record, i) => ({ ...record, images: unseen.emotion[(i + Math.floor(i / 6)) % 24]?.images ?? [] }))
    expect(Math.abs((await likelihood(model, shuffled)) - 0.25)).toBeLessThan(0.08)
    const said = async (image: string) =>
      (await model.generate([{ query: "'Hey!' <emotion>", images: [image] }], { maxNewTokens: 12, mediaRoot: folder }))[0]?.text
    expect([await said('unseen0.ppm'), await said('unseen1.ppm')]).toEqual(['Joy.', 'Sadness.'])
    // The second adapter began afresh: it is none of what the first one is.
    const [first, second] = await Promise.all(stages.map(async ({ adapter }) => (await loadSafetensors(join(adapter, 'adapter_model.safetensors'))).tensors))
    expect(Object.keys(first ?? {}).sort()).toEqual(Object.keys(second ?? {}).sort())
    expect(Object.keys(first ?? {})).toEqual(expect.arrayContaining(['base_model.model.mlp1.3.weight', 'base_model.model.language_model.model.layers.0.self_attn.q_proj.lora_A.weight']))
    expect(Object.keys(first ?? {}).some((name) => name.includes('vision'))).toBe(false)
    // Whole, or its base with both adapters.
    using whole = await EmoVerse.fromPretrained(saved as string, { system: null })
    using base = await seeingEmoVerse(LIVELY)
    await base.save(join(folder, 'base'))
    const adapters = stages.map(({ adapter }) => adapter)
    using merged = await EmoVerse.fromPretrained({ base: join(folder, 'base'), adapters }, { system: null })
    for (const one of [whole, merged]) expect(hashOf(one.model)).toBe(hashOf(model.model))
    // Once more: what is there, with all features from the disk.
    using again = await seeingEmoVerse(LIVELY)
    expect((await trainEmoVerse(again, options)).stages).toEqual(stages)
    expect(hashOf(again.model)).toBe(hashOf(model.model))
    expect(readdirSync(join(folder, 'features'))).toHaveLength(1)
  }) // biome-ignore format: long lines

  it('learns the same with a vision cache and without, and leaves out what cannot be read', async () => {
    const losses: number[] = []
    const hashes: string[] = []
    const notes: string[] = []
    writeFileSync(join(folder, 'broken.ppm'), 'P6\n9 9\n255\nx')
    const data = learnt.emotion.slice(0, 16)
    for (const visionCache of [undefined, join(folder, 'other'), join(folder, 'other')]) {
      using model = await seeingEmoVerse({ seed: 5 })
      const outputDir = join(folder, `cached-${hashes.length}`)
      const stage = { data: hashes.length === 1 ? [...data, { ...data[0], images: ['broken.ppm'] } as never] : data, valid: unseen.emotion.slice(0, 4), recipe: { ...fast, epochs: 2, seed: 1 } }
      const options = { ...quiet, outputDir, mediaRoot: folder, saveModel: false, stages: [stage], onNote: (note: string) => void notes.push(note) }
      const { stages } = await trainEmoVerse(model, { ...options, ...(visionCache && { visionCache }) })
      losses.push(stages[0]?.valid?.loss as number)
      hashes.push(hashOf(model.model))
    }
    expect(new Set(losses).size).toBe(1)
    expect(new Set(hashes).size).toBe(1)
    const left = expect.stringMatching(/^1 records were left out whose media cannot be read, the first: .*broken\.ppm/)
    expect(notes.filter((note) => !note.startsWith('the longest'))).toEqual([left])
    // Without a cache too; as published it gives way to another.
    for (const [compat, groupByLength] of [[undefined, false], ['published', false], [undefined, true], ['published', true]] as const) {
      using model = await seeingEmoVerse({ seed: 5 })
      notes.length = 0
      const args = { ...quiet.args, groupByLength }
      const stage = { data: [...data, { ...data[0], images: ['broken.ppm'] } as never], recipe: { ...fast, epochs: 1, validationShare: 0 } }
      const { stages } = await trainEmoVerse(model, { args, outputDir: join(folder, `broken-${compat}-${groupByLength}`), mediaRoot: folder, stages: [stage], saveModel: false, onNote: (note) => void notes.push(note), ...(compat && { compat }) })
      expect(stages[0]?.samples.train).toBe(compat ? 17 : 16)
      expect(notes[0]).toEqual(compat ? expect.stringMatching(/are replaced by others, the first: .*broken\.ppm/) : left)
    }
  }) // biome-ignore format: long lines

  it.each(['int8', 'nf4'] as const)('leaves weights packed as %s as they are, and has the stages beside them', async (quantize) => {
    using plain = await seeingEmoVerse(LIVELY)
    const base = join(folder, `packed-${quantize}`)
    await plain.save(base)
    const data = learnt.emotion.slice(0, 8)
    const recipe = { ...fast, batchSize: 2, epochs: 4 }
    using model = await EmoVerse.fromPretrained(base, { quantize, system: null })
    const options = { ...quiet, outputDir: join(folder, `packed-run-${quantize}`), mediaRoot: folder, stages: [{ data, recipe }, { data, recipe }] }
    await expect(trainEmoVerse(model, { ...options, saveModel: true })).rejects.toBeInstanceOf(ConfigError)
    const frozen = hashOf(model.model)
    const { stages, model: saved } = await trainEmoVerse(model, options)
    expect(saved).toBe(null)
    expect(hashOf(model.model)).toBe(frozen)
    const question = { query: "'Hey!' <emotion>", images: [join(folder, 'unseen0.ppm')] }
    const shares = await model.scoreLabels(question, FACE_LABELS)
    const adapters = stages.map(({ adapter }) => adapter)
    using again = await EmoVerse.fromPretrained({ base, adapters }, { quantize, system: null })
    const others = await again.scoreLabels(question, FACE_LABELS)
    for (const label of FACE_LABELS) expect(others[label]).toBeCloseTo(shares[label] as number, 5)
    using alone = await EmoVerse.fromPretrained(base, { quantize, system: null })
    const untrained = await alone.scoreLabels(question, FACE_LABELS)
    expect(Math.max(...FACE_LABELS.map((label) => Math.abs((untrained[label] as number) - (shares[label] as number))))).toBeGreaterThan(1e-3)
  }) // biome-ignore format: long lines

  it('trains the projection as it is told, and the vision part never', async () => {
    const data = learnt.emotion.slice(0, 4)
    const train = async (stage: object) => {
      using model = await seeingEmoVerse()
      const outputDir = mkdtempSync(join(folder, 'parts-'))
      const { stages } = await trainEmoVerse(model, { ...quiet, outputDir, mediaRoot: folder, saveModel: false, stages: [{ data, recipe: { ...fast, epochs: 1 }, ...stage }] })
      return stages[0]?.trained
    }
    // Rank 8 on 14 linear layers of the language model; the projection is LayerNorm(64), 64 -> 32 and 32 -> 32.
    const llm = 2 * 8 * ([[32, 32], [32, 16], [32, 16], [32, 32], [32, 64], [32, 64], [64, 32]] as const).reduce((sum, [a, b]) => sum + a + b, 0)
    expect(await train({})).toBe(llm + 8 * (64 + 32 + 32 + 32))
    expect(await train({ projector: 'whole' })).toBe(llm + 2 * 64 + 64 * 32 + 32 + 32 * 32 + 32)
    expect(await train({ projector: 'frozen' })).toBe(llm)
    expect(await train({ lora: { targetModules: 'all-linear', r: 4 } })).toBe((llm + 8 * (64 + 32 + 32 + 32)) / 2)
    await expect(train({ lora: { targetModules: ['qkv'] } })).rejects.toThrow(/expected targetModules without the vision encoder, which never trains, got 'vision_model/)
    await expect(train({ projector: 'half' })).rejects.toThrow(/projector/)
  }) // biome-ignore format: long lines
})
