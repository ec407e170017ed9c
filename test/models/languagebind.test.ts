import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  type AudioClip,
  CheckpointError,
  ConfigError,
  cat,
  DataError,
  getPeftModel,
  LanguageBind,
  type LanguageBindModality,
  Linear,
  languageBindAudio,
  Module,
  manualSeed,
  noGrad,
  openVideo,
  preprocessDepth,
  preprocessImage,
  preprocessVideo,
  Random,
  randint,
  randn,
  resizePositions,
  sampleFrames,
  saveSafetensors,
  stack,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { fitFrames } from '../../lib/models/languagebind/audio.js'
import { difference, expectClose, fixture, settledTensors, tensorsOf } from '../helpers.js'
import { nodeAv } from '../vision/node-av.js'
import { expectGradients } from './networks.js'

interface Case {
  name: string
  modality: LanguageBindModality
  seed: number | null
  config: Record<string, Record<string, unknown>>
}
interface Joint {
  name: string
  modalities: LanguageBindModality[]
}

const file = await fixture<Case>('models/languagebind')
const encoders = file.cases.filter(({ config }) => config !== undefined)
const caseOf = (name: string) => encoders.find((one) => one.name === name) as Case

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-languagebind-'))
afterAll(() => rmSync(directory, { recursive: true }))

/** A folder as the original has it, out of a case. */
async function folderOf(name: string, change: { config?: object; drop?: RegExp; as?: string } = {}): Promise<string> {
  const folder = join(directory, change.as ?? name)
  mkdirSync(folder, { recursive: true })
  const state = Object.entries(tensorsOf(file, name, 'param')).filter(([key]) => !change.drop?.test(key))
  await saveSafetensors(join(folder, 'model.safetensors'), Object.fromEntries(state))
  writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...caseOf(name).config, ...change.config }))
  return folder
}

const load = async (name: string, options: object = {}) =>
  LanguageBind.fromPretrained(await folderOf(name), { ...options })

/** The case's names in the original under ours. */
const renamed = (modality: string, name: string) =>
  name === 'logit_scale'
    ? `modality_scale.${modality}`
    : name
        .replace('.base_model.model.', '.')
        .replace('vision_model.', `modality_encoder.${modality}.`)
        .replace('visual_projection.', `modality_proj.${modality}.`)
        .replace('text_model.', 'modality_encoder.language.')
        .replace('text_projection.', 'modality_proj.language.')

const textOf = (inputs: Record<string, Tensor>) => ({
  inputIds: inputs.input_ids as Tensor,
  attentionMask: inputs.attention_mask as Tensor,
})

describe("against the original's modules", () => {
  it.each(encoders)('$name', async ({ name, modality, seed }) => {
    const model = await load(name, { lora: 'keep' })
    if (seed !== null) model.train()
    const inputs = tensorsOf(file, name, 'in') as Record<string, Tensor>
    const expected = tensorsOf(file, name, 'out') as Record<string, Tensor>
    const { pooled: cotangent } = tensorsOf(file, name, 'cotangent') as { pooled: Tensor }
    const given = inputs.pixel_values as Tensor
    for (const parameter of model.parameters()) parameter.requiresGrad = true

    const run = async (pixels: Tensor) => {
      if (seed !== null) manualSeed(seed)
      const encoder = model.encoder(modality)
      const seen = await encoder.forward({ pixelValues: pixels })
      if (seed !== null) manualSeed(seed)
      const { text, [modality]: scaled } = (await model.forward({
        text: textOf(inputs),
        [modality]: pixels,
      })) as Record<string, Tensor>
      const logits = (scaled as Tensor).matmul((text as Tensor).t())
      return { seen, text, logits }
    }
    const { seen, text, logits } = await run(given)
    expectClose(seen.poolerOutput, expected.pooled as Tensor, 1e-5, 'pooled')
    expectClose(seen.lastHiddenState, expected.last as Tensor, 1e-5, 'states')
    expectClose(text as Tensor, expected.text as Tensor, 1e-5, 'text')
    expectClose(logits, expected.logits as Tensor, 1e-5, 'logits')
    const { [modality]: unit } = (await model.forward({ [modality]: given }, { useTemp: false })) as Record<
      string,
      Tensor
    >
    if (seed === null) expectClose(unit as Tensor, expected[modality] as Tensor, 1e-5, 'unit length')

    // The gradients of the contrastive loss and of the pooled states.
    const back = async (pixels: Tensor) => {
      const { seen, logits } = await run(pixels)
      const own = (scores: Tensor) => scores.logSoftmax(-1).diagonal().mean().neg()
      const loss = own(logits).add(own(logits.t())).div(2)
      await loss.add(seen.poolerOutput.mul(cotangent).sum()).backward()
      return loss
    }
    expectClose(await back(given), expected.loss as Tensor, 1e-5, 'loss')
    const grads = Object.entries(tensorsOf(file, name, 'grad')).filter(([key]) => key !== 'logit_scale')
    const wanted = {
      ...file,
      tensors: Object.fromEntries(grads.map(([key, value]) => [`${name}/grad/${renamed(modality, key)}`, value])),
    }
    await expectGradients(model, wanted, name, { again: async (as) => back(as(given)) })
  })

  it.each(file.cases.filter(({ name }) => name.startsWith('joint-')) as unknown as Joint[])(
    '$name',
    async ({ name, modalities }) => {
      const from: Record<string, string> = {}
      for (const modality of modalities) from[modality] = await folderOf(modality)
      const model = await LanguageBind.fromPretrained(from)
      const { input_ids, attention_mask, ...inputs } = tensorsOf(file, name, 'in') as Record<string, Tensor>
      const text = textOf({ input_ids, attention_mask } as Record<string, Tensor>)
      const expected = tensorsOf(file, name, 'out') as Record<string, Tensor>
      for (const [useTemp, prefix] of [
        [true, 'scaled'],
        [false, 'unit'],
      ] as const) {
        const found = (await model.embed({ text, ...inputs }, { useTemp, batchSize: 2 })) as Record<string, Tensor>
        expect(Object.keys(found).sort()).toEqual(['text', ...modalities].sort())
        expectClose(found.text as Tensor, expected[`${prefix}.language`] as Tensor, 1e-5, 'text')
        for (const modality of modalities) {
          expectClose(found[modality] as Tensor, expected[`${prefix}.${modality}`] as Tensor, 1e-5, modality)
        }
      }
      expect(model.temperature(modalities[0] as LanguageBindModality)).toBeCloseTo(Math.exp(2.5), 4)
      expect(model.namedBuffers().map(([key]) => key)).toEqual(modalities.map((one) => `modality_scale.${one}`))
      expect(model.namedParameters().some(([key]) => key.includes('scale'))).toBe(false)
    },
  )

  it('a table of positions of another grid', () => {
    const { table } = tensorsOf(file, 'resized', 'in') as { table: Tensor }
    const expected = tensorsOf(file, 'resized', 'out') as { table: Tensor }
    expectClose(resizePositions(table, [2, 7]), expected.table)
    expect(resizePositions(randn([593, 4]), [16, 16], [8, 74]).shape).toEqual([257, 4])
    expect(() => resizePositions(randn([593, 4]), [16, 16])).toThrow(/LanguageBind_Audio_FT/)
    expect(() => resizePositions(table, [0, 2])).toThrow(ConfigError)
  })
})

describe('time', () => {
  it('has an order exactly where its embedding is not zero', async () => {
    const model = await load('video')
    const clip = randn([1, 3, 4, 8, 8])
    const turned = clip.indexSelect(2, tensor([2, 0, 3, 1]))
    const of = async (video: Tensor) => (await model.embed({ video })).video
    const distance = async () =>
      (await of(clip))
        .sub(await of(turned))
        .abs()
        .max()
        .item() as number
    expect(await distance()).toBeGreaterThan(1e-2)
    noGrad(() => {
      for (const [name, value] of model.namedParameters()) if (name.endsWith('temporal_embedding')) value.zero_()
    })
    expect(await distance()).toBeLessThan(1e-5)
  })

  it('wants as many frames as the checkpoint', async () => {
    const model = await load('video')
    await expect(model.embed({ video: randn([1, 3, 5, 8, 8]) })).rejects.toThrow(/5 frames.*num_frames is 4/)
  })
})

describe('files', () => {
  it.each(encoders.filter(({ seed }) => seed === null))('$name is saved and read again', async ({ name, modality }) => {
    const model = await load(name)
    const pixels = tensorsOf(file, name, 'in').pixel_values as Tensor
    const of = async (one: LanguageBind) =>
      ((await one.embed({ [modality]: pixels })) as Record<string, Tensor>)[modality]
    const before = (await of(model)) as Tensor
    const folder = join(directory, `${name}-saved`)
    await model.save(folder)
    const again = await LanguageBind.fromPretrained(folder)
    expect((await of(again))?.equal(before)).toBe(true)
    expect(again.config).toEqual(model.config)
    // Without indices of positions, as newer programs write it.
    const bare = await LanguageBind.fromPretrained(await folderOf(name, { drop: /position_ids/, as: `${name}-bare` }))
    expect((await of(bare))?.equal(before)).toBe(true)
  })

  it.each(['video-lora', 'audio-lora'])('adapters of %s are merged, or kept and saved as such', async (name) => {
    const { modality } = caseOf(name)
    const pixels = tensorsOf(file, name, 'in').pixel_values as Tensor
    const of = async (one: LanguageBind) =>
      ((await one.embed({ [modality]: pixels })) as Record<string, Tensor>)[modality] as Tensor
    const [merged, kept] = [await load(name), await load(name, { lora: 'keep' })]
    expect(merged.namedParameters().some(([key]) => key.includes('lora_'))).toBe(false)
    const adapters = kept.namedParameters().filter(([key]) => key.includes('lora_'))
    // Of time in a video encoder, of space in the others; four of each of two layers.
    expect(adapters.length).toBe(16)
    expect(adapters.every(([key]) => key.includes(modality === 'video' ? 'temporal_attn' : 'self_attn'))).toBe(true)
    expectClose(await of(kept), await of(merged))
    const folder = join(directory, `${name}-kept`)
    await kept.save(folder)
    const again = await LanguageBind.fromPretrained(folder)
    expect((await of(again)).equal(await of(kept))).toBe(true)
    const state = tensorsOf(file, name, 'param')
    const some = Object.keys(state).find((key) => key.endsWith('q_proj.lora_A.default.weight')) as string
    const drop = new RegExp(some.replaceAll('.', '\\.'))
    const broken = await folderOf(name, { drop, as: `${name}-half` })
    await expect(LanguageBind.fromPretrained(broken)).rejects.toThrow(/expected lora_A and lora_B, got only lora_/)
    const without = await folderOf(name, { drop: /lora_/, as: `${name}-none` })
    await expect(LanguageBind.fromPretrained(without)).rejects.toThrow(
      /expected adapters of rank 2 \(lora_r\), got none/,
    )
  })

  it('an audio encoder in the configuration of pictures is told from its positions', async () => {
    const { config } = caseOf('audio')
    const vision_config = { ...config.vision_config, num_mel_bins: 0, target_length: 0 }
    const folder = await folderOf('audio', { config: { vision_config }, as: 'audio-wrong' })
    await expect(LanguageBind.fromPretrained({ audio: folder })).rejects.toThrow(
      /expected 5 positions for 2 × 2 patches of .*, got 13/,
    )
    const table = randn([593, 8])
    const state = { ...tensorsOf(file, 'audio', 'param'), 'vision_model.embeddings.position_embedding.weight': table }
    await saveSafetensors(join(folder, 'model.safetensors'), state)
    await expect(LanguageBind.fromPretrained({ audio: folder })).rejects.toThrow(
      /expected 5 positions .*, got 593, as 8 × 74 patches of 112 bands × 1,036 frames: LanguageBind_Audio_FT/,
    )
  })

  it('what does not fit is refused by name', async () => {
    const video = await folderOf('video')
    await expect(LanguageBind.fromPretrained({ audio: video })).rejects.toThrow(
      /LanguageBindAudio.*"LanguageBindVideo"/,
    )
    await expect(LanguageBind.fromPretrained({})).rejects.toThrow(/expected modalities of .*, got no modality/)
    await expect(LanguageBind.fromPretrained({ smell: video } as never)).rejects.toThrow(
      /expected modalities of .*, got "smell"/,
    )
    const short = await folderOf('video', { drop: /temporal_embedding/, as: 'video-short' })
    const failing = LanguageBind.fromPretrained({ video: short })
    await expect(failing).rejects.toThrow(CheckpointError)
    await expect(failing).rejects.toMatchObject({
      missing: expect.arrayContaining(['modality_encoder.video.encoder.layers.0.temporal_embedding']),
    })
    const filled = await LanguageBind.fromPretrained({ video: short }, { allowMissing: true, seed: 1 })
    expect(
      filled.stateDict()['modality_encoder.video.encoder.layers.0.temporal_embedding']?.abs().max().item(),
    ).not.toBe(0)
    expect(() => LanguageBind.fromConfig({ video: 'LanguageBind_Smell' })).toThrow(
      /expected a published name of .*, got "LanguageBind_Smell"/,
    )
    await expect((await load('image')).embed({ audio: 'x.wav' })).rejects.toThrow(
      /expected a modality of text, image, got "audio"/,
    )
    await expect((await load('image')).embed({ text: 'a dog' })).rejects.toThrow(/no tokenizer/)
  })
})

describe('sizes on meta', () => {
  const count = (model: Module, trained = false) =>
    model
      .parameters()
      .filter(({ requiresGrad }) => !trained || requiresGrad)
      .reduce((all, { shape }) => all + shape.reduce((a, b) => a * b, 1), 0)
  const meta = { device: 'meta' } as const

  it('are those of the published checkpoints', () => {
    const both = LanguageBind.fromConfig({ video: 'LanguageBind_Video_FT' }, meta)
    expect(count(both.encoder('text'))).toBe(123_060_480)
    expect(count(both.encoder('video'))).toBe(404_187_136)
    expect(count(both.modality_proj.at('language'))).toBe(589_824)
    expect(count(both.modality_proj.at('video'))).toBe(786_432)
    expect(count(both)).toBe(528_623_872)
    expect(count(both) + both.namedBuffers().length).toBe(528_623_873)
    const audio = LanguageBind.fromConfig({ audio: 'LanguageBind_Audio_FT' }, meta)
    expect(count(audio.encoder('audio'))).toBe(303_523_840)
    expect(count(audio) + 1).toBe(427_960_577)
    expect(count(LanguageBind.fromConfig({ audio: 'LanguageBind_Audio' }, meta).encoder('audio'))).toBe(303_599_616)
    const three = { video: 'LanguageBind_Video_FT', audio: 'LanguageBind_Audio_FT' }
    expect(count(LanguageBind.fromConfig(three, meta))).toBe(832_934_144)
    const tubes = LanguageBind.fromConfig({ video: 'LanguageBind_Video_V1.5_FT' }, meta).encoder('video').stateDict()
    expect(tubes['embeddings.class_embedding']?.shape).toEqual([8, 1024])
    expect(tubes['embeddings.patch_embedding.weight']?.shape).toEqual([1024, 3, 1, 14, 14])
  })

  it('are what the experiments counted, with adapters and all biases', () => {
    class Classifier extends Module {
      model: LanguageBind
      linear: Linear
      constructor(config: Record<string, string>) {
        super()
        this.model = LanguageBind.fromConfig(config, meta)
        this.linear = new Linear(768 * (Object.keys(config).length + 1), 7, { bias: false, ...meta })
      }
    }
    const attention = ['q_proj', 'k_proj', 'v_proj', 'out_proj']
    const counted = (config: Record<string, string>, targetModules: string[]) => {
      const model = new Classifier(config)
      getPeftModel(model, { r: 16, loraAlpha: 16, bias: 'all', targetModules })
      return [count(model, true), count(model)]
    }
    const two = { video: 'LanguageBind_Video_FT' }
    expect(counted(two, attention)).toEqual([7_968_512, 536_105_728])
    expect(counted(two, [...attention, 'fc1', 'fc2'])).toEqual([13_375_232, 541_512_448])
    const three = { ...two, audio: 'LanguageBind_Audio_FT' }
    expect(counted(three, [...attention, 'fc1', 'fc2'])).toEqual([20_725_504, 852_905_984])
  })
})

describe('the front end of sounds', async () => {
  const sounds = await fixture<{ name: string; mels?: number; frames?: number }>('models/languagebind-audio')
  const samples = (tensorsOf(sounds, 'mels-112', 'in').samples as Tensor).squeeze(0).to('float32').div(32768)

  it.each([112, 126])('gives the bands of the original, %i of them', async (nMels) => {
    const { whole } = tensorsOf(sounds, `mels-${nMels}`, 'out') as { whole: Tensor }
    const found = (await languageBindAudio(samples, { nMels })).squeeze(0)
    expect(found.shape).toEqual([3, nMels, 1036])
    const some = found.indexSelect(1, every(7, nMels)).indexSelect(2, every(41, 1036))
    expectClose(some, whole, 1e-4)
  })

  it('resamples as the original', async () => {
    const { whole } = tensorsOf(sounds, 'resampled', 'out') as { whole: Tensor }
    const clip: AudioClip = { samples: samples.narrow(0, 0, 12000), sampleRate: 22050 }
    const found = (await languageBindAudio(clip)).squeeze(0)
    expectClose(found.indexSelect(1, every(7, 112)).indexSelect(2, every(41, 1036)), whole, 1e-4)
  })

  it.each([300, 1036, 1037, 1500])('repeats or cuts %i frames as the original', (frames) => {
    const { places } = tensorsOf(sounds, `frames-${frames}`, 'out') as { places: Tensor }
    const ramp = tensor(Array.from({ length: frames }, (_, i) => [i, i]))
    const found = fitFrames(ramp, 1036)
    expect(found.shape).toEqual([3, 2, 1036])
    expect(found.select(1, 0).to('int32').equal(places)).toBe(true)
  })

  it('cuts anywhere in each third where that is asked for, the same for the same seed', async () => {
    const ramp = tensor(Array.from({ length: 1500 }, (_, i) => [i]))
    const starts = (random: Random) => fitFrames(ramp, 1036, random).select(1, 0).select(1, 0).toArray() as number[]
    const many = Array.from({ length: 50 }, (_, seed) => starts(new Random(seed)))
    // 465 places in three parts.
    for (const [part, low] of [0, 155, 310].entries()) {
      const found = many.map((places) => places[part] as number)
      expect(Math.min(...found)).toBeGreaterThanOrEqual(low)
      expect(Math.max(...found)).toBeLessThan(low + 155)
      expect(new Set(found).size).toBeGreaterThan(20)
    }
    expect(starts(new Random(3))).toEqual(many[3])
    const long = randn([400 + 160 * 1100])
    const of = (crop: 'first' | 'random') => languageBindAudio(long, { crop, random: new Random(1) })
    expect((await of('random')).equal(await of('random'))).toBe(true)
    expect((await of('random')).equal(await of('first'))).toBe(false)
  })

  it('repeats what is short, and pads what has no frame', async () => {
    const found = await languageBindAudio([samples, new Float32Array(10)])
    expect(found.shape).toEqual([2, 3, 112, 1036])
    expect(found.isfinite().all().item()).toBe(true)
    await expect(languageBindAudio([])).rejects.toThrow(ConfigError)
    await expect(languageBindAudio(samples, { crops: 'first' } as never)).rejects.toThrow(
      /expected a known option, got 'crops'/,
    )
  })
})

const every = (step: number, length: number) =>
  tensor(Array.from({ length: Math.ceil(length / step) }, (_, i) => BigInt(i * step)))

describe('what is not prepared yet', () => {
  const pixels = (shape: number[]) => randint(0, 256, shape).to('uint8')

  it('pictures, warmth and depths go the way of the original', async () => {
    const from = { image: await folderOf('image'), depth: await folderOf('depth'), thermal: await folderOf('thermal') }
    const model = await LanguageBind.fromPretrained(from)
    const [one, other] = [pixels([20, 30, 3]), pixels([17, 9, 3])]
    const depth = randint(0, 9000, [12, 15]).to('int32')
    for (const compat of [undefined, 'published'] as const) {
      const options = compat ? { compat } : {}
      const found = await model.embed({ image: [one, other], thermal: other, depth }, { ...options, batchSize: 1 })
      const recipe = { size: 8, ...(compat && { antialias: false }) }
      const wanted = await model.embed({
        image: await preprocessImage([one, other], recipe),
        thermal: await preprocessImage([other], recipe),
        depth: await preprocessDepth([depth], recipe),
      })
      for (const key of ['image', 'thermal', 'depth'] as const) expectClose(found[key], wanted[key], 1e-5, key)
    }
  })

  it('of a clip as many frames are looked at as the encoder reads', async () => {
    const model = await load('video')
    const frames = pixels([11, 12, 16, 3])
    const { video } = await model.embed({ video: frames })
    const chosen = stack([0, 3, 6, 10].map((place) => frames.select(0, place)))
    const wanted = await model.embed({ video: (await preprocessVideo(chosen, { size: 8 })).unsqueeze(0) })
    expectClose(video, wanted.video)
    await expect(model.embed({ video: pixels([11, 12, 3]) })).rejects.toThrow(/frames, uint8/)
    const folder = join(directory, 'frames')
    mkdirSync(folder)
    for (let i = 0; i < 11; i += 1) {
      const rgb = Buffer.from((frames.select(0, i).flatten().toArray() as number[]).map(Number))
      writeFileSync(join(folder, `frame${i}.ppm`), Buffer.concat([Buffer.from('P6 16 12 255\n'), rgb]))
    }
    const both = await model.embed({ video: [folder, frames] })
    expectClose(both.video, cat([video, video]))
    await expect(model.embed({ video: join(directory, 'nowhere.mp4') })).rejects.toThrow(DataError)
  })

  it.skipIf(!nodeAv)('of a film the same, in its own frames (npm node-av)', async () => {
    const model = await load('video')
    const { tensors } = await fixture('vision/videos-decoded')
    const film = join(directory, 'film.mp4')
    writeFileSync(film, tensors['h264/file/bytes']?.dataSync() as Uint8Array)
    const found = await model.embed({ video: [film, film] })
    await using opened = await openVideo(film)
    const clip = await opened.frames(sampleFrames(opened.frameCount, { count: 4 }))
    const wanted = await model.embed({ video: (await preprocessVideo(clip, { size: 8 })).unsqueeze(0) })
    expectClose(found.video, cat([wanted.video, wanted.video]))
    const still = await model.embed({ video: (await opened.frames([0])).expand([4, -1, -1, -1]) })
    expect(difference(still.video, wanted.video)).toBeGreaterThan(1e-3)
  })

  it('sounds are read by the numbers of their checkpoint', async () => {
    const model = await load('audio')
    const samples = randn([4000])
    const { audio } = await model.embed({ audio: [samples, samples.mul(0.5)] })
    const own = { nMels: 8, targetLength: 24 }
    const wanted = await model.embed({ audio: await languageBindAudio([samples, samples.mul(0.5)], own) })
    expectClose(audio, wanted.audio)
  })
})

it('leaves no tensors behind', async () => {
  const model = await load('image')
  const inputs = { image: randn([3, 3, 8, 8]), text: { inputIds: tensor([[3n, 19n]]) } }
  const before = await settledTensors()
  const { image, text } = await model.embed(inputs)
  model.similarity(image, text).dispose()
  image.dispose()
  text.dispose()
  expect(await settledTensors()).toBe(before)
})
