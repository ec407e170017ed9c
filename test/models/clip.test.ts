import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  Clip,
  ClipTextModel,
  ClipVisionModel,
  ConfigError,
  cat,
  manualSeed,
  memoryStats,
  ones,
  randn,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import type { ClipTextOutput, ClipVisionOutput } from '../../lib/models/clip/clip.js'
import { expectClose, fixture, fixturePath, ROUNDING, settledTensors, tensorsOf } from '../helpers.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  part: 'text' | 'vision' | 'clip'
  config: Record<string, unknown>
}

const file = await fixture<Case>('models/clip')
const classes = { text: ClipTextModel, vision: ClipVisionModel, clip: Clip }

function deep(config: Record<string, unknown>): Record<string, unknown> {
  const isObject = (value: unknown): value is Record<string, unknown> =>
    typeof value === 'object' && value !== null && !Array.isArray(value)
  return camelKeys(
    Object.fromEntries(Object.entries(config).map(([key, value]) => [key, isObject(value) ? deep(value) : value])),
  )
}

const configOf = (name: string) => deep(file.cases.find((one) => one.name === name)?.config ?? {})
/** What was computed in float64 and stored in float32. */
const ROUNDED = 4 * ROUNDING.float32
const sum = (tensors: Tensor[]) => tensors.reduce((a, b) => a.add(b))

describe('against transformers', () => {
  it.each(file.cases.filter(({ part }) => part !== 'clip'))('$name', async ({ name, part, config }) => {
    const model = new classes[part](deep(config) as never) as ClipTextModel | ClipVisionModel
    loadParameters(model, file, name)
    const inputs = camelKeys(tensorsOf(file, name, 'in'))
    const cotangent = tensorsOf(file, name, 'cotangent')
    const expected = tensorsOf(file, name, 'out')
    const run = async (more: object = {}) =>
      (await model.forward({ ...inputs, ...more } as never)) as ClipTextOutput | ClipVisionOutput
    const back = ({ lastHiddenState, poolerOutput }: ClipTextOutput | ClipVisionOutput) => {
      const { last, pooled } = cotangent as { last: Tensor; pooled: Tensor }
      return sum([lastHiddenState.mul(last).sum(), poolerOutput.mul(pooled).sum()]).backward()
    }
    const plain = await run()
    expectClose(plain.lastHiddenState, expected.last as Tensor, 1e-5, 'states')
    expectClose(plain.poolerOutput, expected.pooled as Tensor, 1e-5, 'pooled')
    expect([plain.hiddenStates, plain.attentions]).toEqual([[], []])
    await back(plain)
    await expectGradients(model, file, name, {
      again: async (as) => back(await run('pixelValues' in inputs ? { pixelValues: as(inputs.pixelValues) } : {})),
    })
    const full = await run({ outputHiddenStates: true, outputAttentions: true })
    expectClose(full.poolerOutput, expected.pooled as Tensor, 1e-5, 'pooled, with attentions')
    full.hiddenStates.forEach((hidden, i) => {
      expectClose(hidden, expected[`hidden.${i}`] as Tensor, 1e-5, `hidden state ${i}`)
    })
    full.attentions.forEach((attention, i) => {
      expectClose(attention, expected[`attention.${i}`] as Tensor, 1e-5, `attention ${i}`)
    })
    expect([full.hiddenStates.length, full.attentions.length]).toEqual([3, 2])
  })

  it('both encoders, their logits and the loss', async () => {
    const name = 'clip'
    const model = new Clip(configOf(name))
    loadParameters(model, file, name)
    const { inputIds, attentionMask, pixelValues } = camelKeys(tensorsOf(file, name, 'in')) as Record<string, Tensor>
    const expected = camelKeys(tensorsOf(file, name, 'out')) as Record<string, Tensor>
    const { logits } = tensorsOf(file, name, 'cotangent') as { logits: Tensor }
    const run = (pixels = pixelValues as Tensor) =>
      model.forward({
        inputIds: inputIds as Tensor,
        attentionMask: attentionMask as Tensor,
        pixelValues: pixels,
        returnLoss: true,
      })
    const back = async (pixels?: Tensor) => {
      const { loss, logitsPerImage } = await run(pixels)
      await sum([loss as Tensor, logitsPerImage.mul(logits).sum()]).backward()
    }
    const output = await run()
    for (const key of ['loss', 'logitsPerImage', 'textEmbeds', 'imageEmbeds'] as const) {
      expectClose(output[key] as Tensor, expected[key] as Tensor, 1e-5, key)
    }
    expectClose(output.logitsPerText.t(), expected.logitsPerImage as Tensor)
    await back()
    await expectGradients(model, file, name, { again: (as) => back(as(pixelValues as Tensor)) })
    const texts = await model.textFeatures({ inputIds: inputIds as Tensor, attentionMask: attentionMask as Tensor })
    const images = await model.imageFeatures({ pixelValues: pixelValues as Tensor })
    for (const [features, embeds] of [
      [texts, output.textEmbeds],
      [images, output.imageEmbeds],
    ] as const) {
      expectClose(features.div(features.norm({ p: 2, dim: [-1], keepdim: true } as never)), embeds)
    }
    expect((await model.forward({ inputIds, pixelValues } as never)).loss).toBeNull()
  })
})

describe('files', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-clip-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  const folders = [
    ['transformers', 'clip-transformers'],
    ['open-clip', 'clip-open-clip'],
  ] as const

  it.each(folders)('of %s are read, saved in the layout of transformers and read again', async (name, folder) => {
    const answers = await fixture('models/clip-pretrained')
    const { input_ids: inputIds, pixel_values: pixelValues } = tensorsOf(answers, name, 'in') as Record<string, Tensor>
    const expected = tensorsOf(answers, name, 'out') as Record<string, Tensor>
    const inputs = { inputIds, pixelValues } as { inputIds: Tensor; pixelValues: Tensor }
    const model = await Clip.fromPretrained(fixturePath(`models/${folder}`))
    const output = await model.forward(inputs)
    expectClose(output.textEmbeds, expected.texts as Tensor)
    expectClose(output.imageEmbeds, expected.images as Tensor)
    expectClose(output.logitsPerImage, expected.logits as Tensor)

    const { logits } = tensorsOf(answers, name, 'cotangent') as { logits: Tensor }
    const exact = await Clip.fromPretrained(fixturePath(`models/${folder}`), { dtype: 'float64' })
    const { logitsPerImage } = await exact.forward({ ...inputs, pixelValues: inputs.pixelValues.double() })
    await logitsPerImage.mul(logits.double()).sum().backward()
    const own = Object.fromEntries(exact.namedParameters()) as Record<string, Tensor>
    const gradOf = (key: string) => own[key]?.grad as Tensor
    const layer = 'vision_model.encoder.layers.1.self_attn'
    const places: Record<string, () => Tensor> = {
      logit_scale: () => gradOf('logit_scale'),
      'visual.proj': () => gradOf('visual_projection.weight').t(),
      text_projection: () => gradOf('text_projection.weight').t(),
      positional_embedding: () => gradOf('text_model.embeddings.position_embedding.weight'),
      'transformer.resblocks.0.mlp.c_fc.bias': () => gradOf('text_model.encoder.layers.0.mlp.fc1.bias'),
    }
    for (const [key, wanted] of Object.entries(tensorsOf(answers, name, 'grad'))) {
      if (!key.endsWith('in_proj_weight'))
        expectClose(places[key]?.() as Tensor, (wanted as Tensor).double(), ROUNDED, key)
      else {
        const rows = ['q', 'k', 'v'].map((part) => gradOf(`${layer}.${part}_proj.weight`))
        expectClose(cat(rows), (wanted as Tensor).double(), ROUNDED, key)
      }
    }

    await model.save(join(directory, name))
    const again = await Clip.fromPretrained(join(directory, name))
    expect((await again.forward(inputs)).logitsPerImage.equal(output.logitsPerImage)).toBe(true)
    const text = await ClipTextModel.fromPretrained(join(directory, name))
    const vision = await ClipVisionModel.fromPretrained(fixturePath(`models/${folder}`))
    const state = model.stateDict()
    for (const [prefix, encoder] of [
      ['text_model', text],
      ['vision_model', vision],
    ] as const) {
      const names = Object.keys(state).filter((key) => key.startsWith(`${prefix}.`))
      expect(Object.keys(encoder.stateDict()).map((key) => `${prefix}.${key}`)).toEqual(names)
      for (const key of names) {
        expect(encoder.stateDict()[key.slice(prefix.length + 1)]?.equal(state[key] as Tensor), key).toBe(true)
      }
    }
    await text.save(join(directory, `${name}-text`))
    const alone = await ClipTextModel.fromPretrained(join(directory, `${name}-text`))
    const pooled = (await text.forward({ inputIds: inputs.inputIds })).poolerOutput
    expect((await alone.forward({ inputIds: inputs.inputIds })).poolerOutput.equal(pooled)).toBe(true)
  })

  it('of another network are refused by name', async () => {
    await expect(Clip.fromPretrained(fixturePath('models/roberta-safetensors'))).rejects.toThrow(
      /model_type: expected .*, got "roberta".*Load it with Roberta/,
    )
    const folder = join(directory, 'siglip')
    mkdirSync(folder)
    const write = (vision: object) =>
      writeFileSync(
        join(folder, 'open_clip_config.json'),
        JSON.stringify({ model_cfg: { vision_cfg: vision, text_cfg: {} } }),
      )
    write({ timm_model_name: 'vit_base_patch16_siglip_224' })
    await expect(Clip.fromPretrained(folder)).rejects.toThrow(/vision_cfg\.timm_model_name/)
    write({ width: 'wide' })
    await expect(Clip.fromPretrained(folder)).rejects.toThrow(ConfigError)
    write({})
    await expect(Clip.fromPretrained(folder)).rejects.toThrow(CheckpointError)
  })
})

const tinyVision = configOf('vision-quick')

describe('the vision encoder', () => {
  it('takes pictures that are not square, row by row', async () => {
    const model = new ClipVisionModel({ ...tinyVision, imageSize: [8, 16], numHiddenLayers: 1 }, { seed: 1 }).eval()
    expect(model.stateDict()['embeddings.position_embedding.weight']?.shape).toEqual([2 * 4 + 1, 12])
    const pixelValues = randn([1, 3, 8, 16])
    const { hiddenStates } = await model.forward({ pixelValues, outputHiddenStates: true })
    // The second patch of the second row stands behind the class token and the four of the first row.
    const { weight } = model.get('embeddings.patch_embedding') as unknown as { weight: Tensor }
    const { weight: places } = model.get('embeddings.position_embedding') as unknown as { weight: Tensor }
    const patch = pixelValues
      .narrow(2, 4, 4)
      .narrow(3, 4, 4)
      .mul(weight)
      .sum([1, 2, 3] as never)
    const norm = model.get('pre_layrnorm') as unknown as { weight: Tensor; bias: Tensor }
    const given = patch.add(places.select(0, 6))
    const centred = given.sub(given.mean())
    const wanted = centred.div(centred.square().mean().add(1e-5).sqrt()).mul(norm.weight).add(norm.bias)
    expectClose((hiddenStates[0] as Tensor).select(1, 6).squeeze(0), wanted)
    await expect(model.forward({ pixelValues: randn([1, 3, 16, 8]) })).rejects.toThrow(/\[batch, 3, 8, 16\]/)
  })

  it('takes frames, whose mean it gives', async () => {
    const model = new ClipVisionModel(tinyVision, { seed: 2 }).eval()
    const pixelValues = randn([2, 3, 4, 8, 8])
    const { poolerOutput, frameOutput, lastHiddenState } = await model.forward({ pixelValues })
    expect(lastHiddenState.shape).toEqual([8, 5, 12])
    expect(frameOutput.shape).toEqual([2, 4, 12])
    for (let frame = 0; frame < 4; frame += 1) {
      const alone = await model.forward({ pixelValues: pixelValues.select(2, frame) })
      expectClose(frameOutput.select(1, frame), alone.poolerOutput)
    }
    expectClose(poolerOutput, frameOutput.mean([1] as never))
  })

  it('drops patches in training only, and keeps the class token', async () => {
    const config = { ...tinyVision, imageSize: 32, forcePatchDropout: 0.4, numHiddenLayers: 1 }
    const model = new ClipVisionModel(config, { seed: 3 }).train()
    const pixelValues = randn([2, 3, 3, 32, 32])
    const states = async () =>
      (await model.forward({ pixelValues, outputHiddenStates: true })).hiddenStates[0] as Tensor
    const kept = await states()
    // 64 patches, of which trunc(64 · 0.6) stay.
    expect(kept.shape).toEqual([6, 38 + 1, 12])
    model.eval()
    const all = await states()
    expect(all.shape).toEqual([6, 65, 12])
    expectClose(kept.select(1, 0), all.select(1, 0))
    const placesOf = (row: number) =>
      Array.from({ length: 38 }, (_, i) => {
        const distance = all
          .select(0, row)
          .sub(kept.select(0, row).narrow(0, i + 1, 1))
          .abs()
          .sum([1] as never)
        return distance.argmin().item() as number
      })
    const [first, second] = [placesOf(0), placesOf(3)]
    expect(new Set(first).size).toBe(38)
    // The same of all frames of a clip, others of another clip.
    expect(placesOf(2)).toEqual(first)
    expect([...second].sort()).not.toEqual([...first].sort())
    model.train()
    const again = async () => {
      manualSeed(7)
      return states()
    }
    expect((await again()).equal(await again())).toBe(true)
  })

  it('runs its layers again for backward where that is asked for, with the same gradients', async () => {
    const gradients = async (enabled: boolean) => {
      const config = { ...tinyVision, addTimeAttn: true, numFrames: 2, attentionDropout: 0.2 }
      const model = new ClipVisionModel(config, { seed: 4 }).train()
      model.gradientCheckpointing(enabled)
      manualSeed(5)
      const pixelValues = randn([2, 3, 2, 8, 8])
      await (await model.forward({ pixelValues })).poolerOutput.square().sum().backward()
      return model.parameters().map(({ grad }) => grad as Tensor)
    }
    const [plain, checkpointed] = [await gradients(false), await gradients(true)]
    for (const [i, grad] of plain.entries()) expect(grad.equal(checkpointed[i] as Tensor)).toBe(true)
  })
})

describe('the text encoder', () => {
  const tiny = configOf('text-quick')

  it('gives the same for a text with padding and without', async () => {
    const model = new ClipTextModel(tiny, { seed: 1 }).eval()
    const inputIds = tensor([[3, 8, 4, 29, 29, 29, 29]])
    const short = (await model.forward({ inputIds: inputIds.narrow(1, 0, 4) })).poolerOutput
    expectClose((await model.forward({ inputIds })).poolerOutput, short)
    const attentionMask = tensor([[1, 1, 1, 1, 0, 0, 0]])
    expectClose((await model.forward({ inputIds, attentionMask })).poolerOutput, short)
  })

  it('stays finite where padding comes first', async () => {
    const model = new ClipTextModel(tiny, { seed: 1 }).eval()
    const inputIds = tensor([[0, 0, 3, 29]])
    const attentionMask = tensor([[0, 0, 1, 1]])
    const { lastHiddenState } = await model.forward({ inputIds, attentionMask })
    expect(lastHiddenState.isfinite().all().item()).toBe(true)
  })

  it('says what is wrong', async () => {
    const model = new ClipTextModel(tiny)
    const long = ones([1, 11], { dtype: 'int64' })
    await expect(model.forward({ inputIds: long })).rejects.toThrow(/11 tokens.*positions end at 10/)
    const inputIds = ones([1, 3], { dtype: 'int64' })
    await expect(model.forward({ inputIds, attentionMask: ones([1, 4]) })).rejects.toThrow(
      /attention_mask must be \[1, 3\]/,
    )
    await expect(model.forward({ inputIds: zeros([1, 3]) })).rejects.toThrow(/int64/)
    expect(() => new ClipVisionModel({ imageSize: 8, patchSize: 16 })).toThrow(/patch_size/)
    expect(() => new ClipVisionModel({ addTimeAttn: true, clipType: 'vl_new', tubeSize: 2 })).toThrow(/tube_size/)
    expect(() => new Clip({ textConfig: 3 as never })).toThrow(ConfigError)
    expect(() => Clip.fromConfig('vit-huge')).toThrow(/config: expected a published size of .*, got "vit-huge"/)
  })
})

describe('the whole', () => {
  it('has the published number of parameters and allocates nothing on meta', () => {
    const before = memoryStats().liveTensors
    const count = (name: string) => {
      const model = Clip.fromConfig(name, { device: 'meta' })
      const total = model.parameters().reduce((all, { shape }) => all + shape.reduce((a, b) => a * b, 1), 0)
      model.dispose()
      return total
    }
    // As transformers counts them.
    expect([count('vit-base-patch32'), count('vit-base-patch16'), count('vit-large-patch14')]).toEqual([
      151_277_313, 149_620_737, 427_616_513,
    ])
    expect(memoryStats().liveTensors).toBe(before)
  })

  it('leaves no tensors behind', async () => {
    const model = new Clip({ ...configOf('clip') }, { seed: 1 }).eval()
    const inputs = { inputIds: tensor([[3, 4, 29]]), pixelValues: randn([1, 3, 8, 8]) }
    const before = await settledTensors()
    const output = await model.forward(inputs)
    for (const value of Object.values(output)) value?.dispose()
    expect(await settledTensors()).toBe(before)
  })
})
