import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  getPeftModel,
  loadSafetensors,
  memoryStats,
  preprocessImage,
  randn,
  SiglipVisionModel,
  scope,
  siglipImageOptions,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, fixturePath, settledTensors, tensorsOf } from '../helpers.js'
import { get } from './decoder.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config: Record<string, unknown>
  resized?: boolean
  parameters?: number
}

const file = await fixture<Case>('models/siglip')
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-siglip-'))
afterAll(() => rmSync(directory, { recursive: true }))
const networks = file.cases.filter(({ resized }) => resized !== undefined)
const configOf = (name: string) => camelKeys(get(file.cases.find((one) => one.name === name)).config)

describe('against transformers', () => {
  it.each(networks)('$name', async ({ name, resized }) => {
    const model = new SiglipVisionModel(configOf(name))
    loadParameters(model, file, name)
    const pixelValues = get(tensorsOf(file, name, 'in').pixel_values).requiresGrad_()
    const cotangent = tensorsOf(file, name, 'cotangent') as Record<string, Tensor>
    const expected = tensorsOf(file, name, 'out') as Record<string, Tensor>
    const run = (pixels: Tensor, more: object = {}) =>
      model.forward({ pixelValues: pixels, interpolatePosEncoding: resized === true, ...more })
    const back = async (pixels: Tensor) => {
      const { lastHiddenState, poolerOutput } = await run(pixels)
      const loss = lastHiddenState.mul(get(cotangent.last)).sum()
      await (poolerOutput ? loss.add(poolerOutput.mul(get(cotangent.pooled)).sum()) : loss).backward()
    }
    const plain = await run(pixelValues)
    expectClose(plain.lastHiddenState, get(expected.last), 1e-5, 'states')
    if (expected.pooled) expectClose(get(plain.poolerOutput), expected.pooled, 1e-5, 'pooled')
    else expect(plain.poolerOutput).toBeNull()
    expect([plain.hiddenStates, plain.attentions]).toEqual([[], []])
    await back(pixelValues)
    expectClose(get(pixelValues.grad), get(expected['pixels.grad']), 1e-5, 'gradient of pixels')
    await expectGradients(model, file, name, { again: (as) => back(as(pixelValues)) })
    if (!expected['hidden.0']) return
    const full = await run(pixelValues, { outputHiddenStates: true, outputAttentions: true })
    expect([full.hiddenStates.length, full.attentions.length]).toEqual([3, 2])
    for (const [i, hidden] of full.hiddenStates.entries()) expectClose(hidden, get(expected[`hidden.${i}`]), 1e-5)
    for (const [i, one] of full.attentions.entries()) expectClose(one, get(expected[`attention.${i}`]), 1e-5)
  })

  it.each(file.cases.filter(({ parameters }) => parameters))('$name has $parameters parameters', (one) => {
    const model = SiglipVisionModel.fromConfig(one.name.slice('size-'.length), { device: 'meta' })
    expect(model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)).toBe(one.parameters)
  })
})

describe('files', () => {
  it("of a whole SigLIP are read, and saved under transformers' names", async () => {
    const folder = fixturePath('models/siglip-transformers')
    const answers = await fixture('models/siglip-pretrained')
    const pixelValues = get(tensorsOf(answers, 'siglip-transformers', 'in').pixel_values)
    const expected = tensorsOf(answers, 'siglip-transformers', 'out')
    const model = await SiglipVisionModel.fromPretrained(folder)
    expect(model.training).toBe(false)
    const output = await model.forward({ pixelValues })
    expectClose(output.lastHiddenState, get(expected.last))
    expectClose(get(output.poolerOutput), get(expected.pooled))
    const to = join(directory, 'alone')
    await model.save(to)
    const [ours, theirs] = [
      (await loadSafetensors(join(to, 'model.safetensors'))).tensors,
      (await loadSafetensors(join(folder, 'model.safetensors'))).tensors,
    ]
    const names = Object.keys(theirs).filter((name) => name.startsWith('vision_model.'))
    expect(
      Object.keys(ours)
        .map((name) => `vision_model.${name}`)
        .sort(),
    ).toEqual(names.sort())
    expect(JSON.parse(readFileSync(join(to, 'config.json'), 'utf8'))).toMatchObject({
      ...{ model_type: 'siglip_vision_model', architectures: ['SiglipVisionModel'], hidden_size: 12, image_size: 8 },
      vision_use_head: true,
    })
    const again = await SiglipVisionModel.fromPretrained(to)
    expect((await again.forward({ pixelValues })).lastHiddenState.equal(output.lastHiddenState)).toBe(true)
  })

  it('of another network, or with values of another network, are refused by name', async () => {
    await expect(SiglipVisionModel.fromPretrained(fixturePath('models/clip-transformers'))).rejects.toThrow(
      /model_type: expected .*, got "clip".*Load it with Clip/,
    )
    const folder = join(directory, 'wrong')
    mkdirSync(folder)
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ model_type: 'siglip', vision_config: 3 }))
    writeFileSync(
      join(folder, 'model.safetensors'),
      readFileSync(fixturePath('models/siglip-transformers/model.safetensors')),
    )
    await expect(SiglipVisionModel.fromPretrained(folder)).rejects.toThrow(/visionConfig: expected an object/)
    writeFileSync(join(folder, 'config.json'), JSON.stringify({ model_type: 'siglip', text_config: {} }))
    await expect(SiglipVisionModel.fromPretrained(folder)).rejects.toThrow(CheckpointError)
    await expect(SiglipVisionModel.fromPretrained(folder)).rejects.toThrow(/embeddings\.position_embedding\.weight/)
  })
})

it('wrong configurations and inputs are refused by name', async () => {
  const tiny = configOf('head')
  for (const [change, message] of [
    [{ imageSize: 3 }, /image_size/],
    [{ imageSize: [8, 8] }, /image_size/],
    [{ numAttentionHeads: 5 }, /num_attention_heads/],
    [{ patchSize: 0 }, /patch_size/],
    [{ numChannels: -1 }, /num_channels/],
    [{ visionUseHead: 'yes' }, /vision_use_head/],
    [{ attentionDropout: 2 }, /attention_dropout/],
    [{ hiddenAct: 'none' }, /none/],
    [{ numMelBins: 3 }, /numMelBins/],
  ] as const) {
    expect(() => new SiglipVisionModel({ ...tiny, ...change } as never), JSON.stringify(change)).toThrow(message)
  }
  expect(() => SiglipVisionModel.fromConfig('huge')).toThrow(/so400m-patch14-384/)
  const model = new SiglipVisionModel(tiny)
  await expect(model.forward({ pixelValues: zeros([1, 3, 12, 8]) })).rejects.toThrow(/interpolate_pos_encoding/)
  await expect(model.forward({ pixelValues: zeros([1, 3, 3, 8]), interpolatePosEncoding: true })).rejects.toThrow(
    /at least 4 high and wide/,
  )
  await expect(model.forward({ pixelValues: zeros([1, 1, 8, 8]) })).rejects.toThrow(/\[images, 3, height, width\]/)
})

it('checkpointing changes no gradient, and LoRA trains its layers', async () => {
  const model = new SiglipVisionModel(configOf('head'))
  loadParameters(model, file, 'head')
  const pixelValues = get(tensorsOf(file, 'head', 'in').pixel_values)
  const cotangent = tensorsOf(file, 'head', 'cotangent') as Record<string, Tensor>
  const loss = async () => {
    const { lastHiddenState, poolerOutput } = await model.forward({ pixelValues })
    return lastHiddenState
      .mul(get(cotangent.last))
      .sum()
      .add(get(poolerOutput).mul(get(cotangent.pooled)).sum())
  }
  model.gradientCheckpointing(true)
  await (await loss()).backward()
  await expectGradients(model, file, 'head', { tolerance: 2e-5 })
  model.gradientCheckpointing(false)
  const before = Number((await loss()).item())
  const peft = getPeftModel(model, { r: 2, targetModules: ['q_proj', 'v_proj', 'fc2'] })
  expect(Number((await loss()).item())).toBe(before)
  await (await loss()).backward()
  const trained = peft.model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
  // Two layers with q, v and fc2, and the head's fc2, of two matrices each.
  expect(trained.length).toBe(14)
  expect(trained.every(([, { grad }]) => grad !== null)).toBe(true)
})

describe('the image processor', () => {
  it.each(file.cases.filter(({ name }) => name.startsWith('picture-')))('$name', async ({ name, config }) => {
    const folder = mkdtempSync(join(directory, 'processor-'))
    writeFileSync(join(folder, 'preprocessor_config.json'), JSON.stringify(config))
    const options = await siglipImageOptions(folder)
    const image = get(tensorsOf(file, name, 'in').pixels)
    expectClose(await preprocessImage(image, options), get(tensorsOf(file, name, 'out').pixels), 1e-5)
  })

  it('refuses by name what it does not compute', async () => {
    const folder = mkdtempSync(join(directory, 'refused-'))
    for (const [key, value] of Object.entries({
      ...{ size: { height: 16, width: 12 }, resample: 0, do_resize: false, do_rescale: false, rescale_factor: 1 },
      ...{ do_normalize: 3, do_center_crop: true, do_pad: true, data_format: 'channels_last' },
    })) {
      writeFileSync(join(folder, 'preprocessor_config.json'), JSON.stringify({ [key]: value }))
      const refused = siglipImageOptions(folder)
      await expect(refused).rejects.toThrow(ConfigError)
      const camel = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
      await expect(refused, key).rejects.toThrow(new RegExp(`expected ${camel} `))
    }
    const image = get(tensorsOf(file, 'picture-bicubic', 'in').pixels)
    await expect(preprocessImage(image, { processor: 'siglip', antialias: false })).rejects.toThrow(/antialias/)
    await expect(preprocessImage(image, { processor: 'clip', resample: 'bilinear' })).rejects.toThrow(/resample/)
  })
})

it('leaves nothing behind', async () => {
  const before = await settledTensors()
  const model = new SiglipVisionModel(configOf('head')).eval()
  await scope(async () => void (await model.forward({ pixelValues: randn([1, 3, 8, 8]) })))
  model.dispose()
  expect(await settledTensors()).toBeLessThanOrEqual(before)
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})
