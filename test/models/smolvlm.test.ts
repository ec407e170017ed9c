import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  DataError,
  getPeftModel,
  loadSafetensors,
  memoryStats,
  noGrad,
  ops,
  SmolVLM,
  scope,
  smolVLMImages,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import type { SmolVLMConfig } from '../../lib/models/smolvlm/config.js'
import { smolVLMImageOptions, smolVLMPrompt } from '../../lib/models/smolvlm/images.js'
import { expectClose, fixture, fixturePath, ROUNDING, settledTensors, tensorsOf } from '../helpers.js'
import { atReal, get } from './decoder.js'
import { camelKeys, expectGradients, loadParameters } from './networks.js'

interface Case {
  name: string
  config?: Record<string, unknown>
  tokens?: number[][] | null
  settings?: Record<string, unknown>
  grid?: [number, number]
  text?: string
  parameters?: number
}

const file = await fixture<Case>('models/smolvlm')
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-smolvlm-'))
afterAll(() => rmSync(directory, { recursive: true }))

function configOf(name: string): SmolVLMConfig {
  const { PadTokenId: _, ...config } = camelKeys(get(get(file.cases.find((one) => one.name === name)).config))
  return {
    ...config,
    visionConfig: camelKeys(config.visionConfig as Record<string, unknown>),
    textConfig: camelKeys(config.textConfig as Record<string, unknown>),
  }
}

function open(name: string) {
  const model = new SmolVLM(configOf(name)).eval()
  const given = tensorsOf(file, name, 'param')
  if (model.config.tieWordEmbeddings) loadTied(model, given)
  else loadParameters(model, file, name)
  const inputs = camelKeys(tensorsOf(file, name, 'in')) as Record<
    'inputIds' | 'attentionMask' | 'labels' | 'pixelValues',
    Tensor
  >
  return { model, inputs, expected: tensorsOf(file, name, 'out'), real: inputs.attentionMask.to({ dtype: 'float32' }) }
}

function loadTied(model: SmolVLM, given: Record<string, Tensor>): void {
  const names = Object.keys(model.stateDict()).filter((name) => !(name in given))
  expect(names.every((name) => name === 'language_model.lm_head.weight')).toBe(true)
  noGrad(() => {
    for (const [name, parameter] of model.namedParameters()) parameter.copy_(get(given[name]))
  })
}

/** Move the padding of rows to the left. */
function paddedLeft(ids: Tensor, mask: Tensor): { inputIds: Tensor; attentionMask: Tensor } {
  const [rows, masks] = [ids.toArray() as number[][], mask.toArray() as number[][]]
  const moved = (list: number[], own: number[]) => {
    const real = own.reduce((a, b) => a + b, 0)
    return [...list.slice(real), ...list.slice(0, real)]
  }
  return {
    inputIds: tensor(
      rows.map((row, i) => moved(row, get(masks[i]))),
      { dtype: 'int64' },
    ),
    attentionMask: tensor(
      masks.map((row) => moved(row, row)),
      { dtype: 'int64' },
    ),
  }
}

describe('against transformers', () => {
  it.each(file.cases.filter(({ config }) => config))('$name', async ({ name }) => {
    const { model, inputs, expected, real } = open(name)
    inputs.pixelValues.requiresGrad_()
    expectClose(await model.vision_model.forward(inputs.pixelValues), get(expected.states), 1e-5, 'states')
    const { logits, loss, imageEmbeds } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(get(imageEmbeds), get(expected.features), 1e-5, 'features')
    expectClose(atReal(get(logits), real, 1), get(expected.logits), 1e-5, 'logits')
    expectClose(get(loss), get(expected.loss), 1e-5, 'loss')
    await get(loss).backward()
    expectClose(get(inputs.pixelValues.grad), get(expected['pixels.grad']), 1e-5, 'gradient of pixels')
    if (Object.keys(tensorsOf(file, name, 'grad')).length === 0) return
    await expectGradients(model, file, name, {
      // transformers takes the language model's norms through float32.
      exact: 16 * ROUNDING.float32,
      again: async (as) => {
        const again = await model.forward({ ...inputs, pixelValues: as(inputs.pixelValues) })
        await get(again.loss).backward()
      },
    })
  })

  it.each(file.cases.filter(({ tokens }) => tokens))('$name generates the same tokens', async ({ name, tokens }) => {
    const { model, inputs } = open(name)
    const { pixelValues } = inputs
    const prompt = paddedLeft(inputs.inputIds, inputs.attentionMask)
    const greedy = { maxNewTokens: 6, eosTokenId: [] }
    const made = await model.generate({ ...prompt, pixelValues }, greedy)
    expect(made.tokens).toEqual(tokens)
    // A row alone, streamed; and one without an image.
    const length = Number(get(prompt.attentionMask.sum(1).toArray() as number[])[2])
    const alone = prompt.inputIds.narrow(0, 2, 1).narrow(1, prompt.inputIds.size(1) - length, length)
    const streamed: (number | null)[] = []
    for await (const step of model.stream({ inputIds: alone }, greedy)) streamed.push(get(step.tokens)[0] ?? null)
    expect(streamed).toEqual(get(tokens)[2])
    // The embeddings of images made before.
    const imageFeatures = await model.encodeImages(pixelValues)
    expect(imageFeatures.size(1)).toBe(model.tileTokens)
    expect((await model.generate({ ...prompt, imageFeatures }, greedy)).tokens).toEqual(tokens)
  })

  it.each(file.cases.filter(({ parameters }) => parameters))('$name has $parameters parameters', (one) => {
    const model = SmolVLM.fromConfig(one.name.slice('size-'.length), { device: 'meta' })
    expect(model.parameters().reduce((sum, parameter) => sum + parameter.numel(), 0)).toBe(one.parameters)
  })

  it('LoRA has the loss and gradients of PEFT', async () => {
    const { model, inputs } = open('smolvlm')
    const given = tensorsOf(file, 'lora', 'param')
    getPeftModel(model, {
      ...{ r: 2, loraAlpha: 8 },
      targetModules: '^(vision_model.*(q_proj|fc2)|connector.*proj|language_model.*(v_proj|down_proj))$',
    })
    const plain = (name: string) => name.replace('.default', '')
    const trained = model.namedParameters().filter(([, { requiresGrad }]) => requiresGrad)
    expect(trained.map(([name]) => plain(name)).sort()).toEqual(Object.keys(given).sort())
    noGrad(() => {
      for (const [name, parameter] of trained) parameter.copy_(get(given[plain(name)]))
    })
    const { loss } = await model.forward(inputs)
    expectClose(get(loss), get(tensorsOf(file, 'lora', 'out').loss))
    await get(loss).backward()
    const grads = tensorsOf(file, 'lora', 'grad')
    for (const [name, { grad }] of trained) expectClose(get(grad), get(grads[plain(name)]), 2e-5, name)
  })
})

describe('files', () => {
  const folder = fixturePath('models/smolvlm-transformers')
  it('of transformers are read and written', async () => {
    const answers = await fixture('models/smolvlm-pretrained')
    const inputs = camelKeys(tensorsOf(answers, 'smolvlm-transformers', 'in')) as Record<
      'inputIds' | 'attentionMask' | 'pixelValues',
      Tensor
    >
    const expected = get(tensorsOf(answers, 'smolvlm-transformers', 'out').logits)
    const model = await SmolVLM.fromPretrained(folder)
    const real = inputs.attentionMask.to({ dtype: 'float32' })
    const { logits } = await model.forward({ ...inputs, logitsToKeep: 0 })
    expectClose(atReal(get(logits), real, 1), expected)
    const to = join(directory, 'saved')
    await model.save(to)
    const [ours, theirs] = [to, folder].map((from) => loadSafetensors(join(from, 'model.safetensors')))
    const [a, b] = [(await get(ours)).tensors, (await get(theirs)).tensors]
    expect(Object.keys(a).sort()).toEqual(Object.keys(b).sort())
    for (const [name, value] of Object.entries(b)) expect(get(a[name]).equal(value), name).toBe(true)
    const [mine, yours] = [to, folder].map((from) => JSON.parse(readFileSync(join(from, 'config.json'), 'utf8')))
    for (const key of ['architectures', 'model_type', 'scale_factor', 'image_token_id', 'tie_word_embeddings']) {
      expect(mine[key], key).toEqual(yours[key])
    }
    expect(mine.vision_config).toMatchObject(yours.vision_config)
    const again = await SmolVLM.fromPretrained(to)
    expect(get((await again.forward({ ...inputs, logitsToKeep: 0 })).logits).equal(get(logits))).toBe(true)
  })

  it('with a tied head, and of Idefics3, keep their kind; others are refused by name', async () => {
    const { model, inputs } = open('idefics3')
    const to = join(directory, 'idefics3')
    await model.save(to)
    expect(JSON.parse(readFileSync(join(to, 'config.json'), 'utf8'))).toMatchObject({
      ...{ model_type: 'idefics3', architectures: ['Idefics3ForConditionalGeneration'], tie_word_embeddings: true },
      vision_config: { model_type: 'idefics3_vision' },
    })
    const again = await SmolVLM.fromPretrained(to)
    expectClose(get((await again.forward(inputs)).loss), get((await model.forward(inputs)).loss), 1e-6)
    await expect(SmolVLM.fromPretrained(fixturePath('models/internvl-port'))).rejects.toThrow(/Load it with InternVL/)
    const config = JSON.parse(readFileSync(join(to, 'config.json'), 'utf8'))
    config.text_config.num_hidden_layers = 3
    writeFileSync(join(to, 'config.json'), JSON.stringify(config))
    await expect(SmolVLM.fromPretrained(to)).rejects.toThrow(CheckpointError)
    await expect(SmolVLM.fromPretrained(to)).rejects.toThrow(/layers\.2/)
  })
})

it('wrong configurations and inputs are refused by name', async () => {
  const base = configOf('smolvlm')
  for (const [change, message] of [
    [{ scaleFactor: 3 }, /scaleFactor: expected a divisor of the 4 patches/],
    [{ scaleFactor: 0 }, /scaleFactor/],
    [{ imageTokenId: -1 }, /imageTokenId/],
    [{ tieWordEmbeddings: 1 }, /tieWordEmbeddings/],
    [{ modelType: 'llava' }, /modelType/],
    [{ visionConfig: 3 }, /visionConfig/],
    [{ visionConfig: { ...base.visionConfig, numAttentionHeads: 5 } }, /num_attention_heads/],
    [{ visionConfig: { ...base.visionConfig, visionUseHead: true } }, /visionUseHead/],
    [{ textConfig: { ...base.textConfig, qkLayerNorms: true } }, /qkLayerNorms/],
    [{ textConfig: { modelType: 'gpt2' } }, /gpt2/],
    [{ pixelShuffle: 2 }, /pixelShuffle/],
  ] as const) {
    expect(() => new SmolVLM({ ...base, ...change } as never), JSON.stringify(change)).toThrow(message)
  }
  expect(() => SmolVLM.fromConfig('smolvlm-9b')).toThrow(/smolvlm-256m/)
  const { model, inputs } = open('smolvlm')
  const { inputIds, pixelValues } = inputs
  await expect(model.forward({ inputIds, pixelValues: pixelValues.narrow(0, 0, 2) })).rejects.toThrow(
    /expected 8 times <image> \(26\) for the image tokens, got 12/,
  )
  await expect(model.encodeImages(zeros([1, 3, 9, 12]))).rejects.toThrow(/multiple of 2 patches of 3 pixels/)
  await expect(model.forward({ ...inputs, pixelAttentionMask: pixelValues } as never)).rejects.toThrow(
    /pixelAttentionMask|pixel_attention_mask/,
  )
})

const pictures = file.cases.filter(({ settings }) => settings)

describe('the processor', () => {
  it.each(pictures)('$name', async ({ name, settings, grid, text }) => {
    const folder = mkdtempSync(join(directory, 'processor-'))
    writeFileSync(join(folder, 'preprocessor_config.json'), JSON.stringify(settings))
    // The fixture is of Pillow 13.
    const options = { folder, pillow: 13 } as const
    const image = get(tensorsOf(file, name, 'in').pixels)
    const { pixelValues, grids } = await smolVLMImages(image, options)
    expect(grids).toEqual([grid])
    expectClose(pixelValues, get(tensorsOf(file, name, 'out').pixels), 1e-5)
    expect(smolVLMPrompt('<image>', grids, 2)).toBe(text)
    expect(smolVLMPrompt('a<image>b<image>', [get(grid), [0, 0]], 2)).toBe(
      `a${text}b<fake_token_around_image><global-img><image><image><fake_token_around_image>`,
    )
    const two = await smolVLMImages([image, image], options)
    expect(two.grids).toEqual([grid, grid])
    expect(two.pixelValues.equal(ops.cat([pixelValues, pixelValues], 0))).toBe(true)
  })

  it('refuses by name what it does not compute', async () => {
    const folder = mkdtempSync(join(directory, 'refused-'))
    for (const [key, value] of Object.entries({
      ...{ size: { height: 16, width: 16 }, max_image_size: { longest_edge: 0 }, resample: 0, do_resize: false },
      ...{ do_image_splitting: 'yes', do_rescale: false, rescale_factor: 1, do_normalize: 3, do_center_crop: true },
    })) {
      writeFileSync(join(folder, 'preprocessor_config.json'), JSON.stringify({ [key]: value }))
      const refused = smolVLMImageOptions(folder)
      await expect(refused).rejects.toThrow(ConfigError)
      const camel = key.replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
      await expect(refused, key).rejects.toThrow(new RegExp(`expected ${camel} `))
    }
    const image = get(tensorsOf(file, 'picture-wide', 'in').pixels)
    await expect(smolVLMImages(image, { size: 4096, tileSize: 1 })).rejects.toThrow(/expected size to be at most 32/)
    await expect(smolVLMImages([])).rejects.toThrow(/images/)
    await expect(smolVLMImages(image, { crop: 3 } as never)).rejects.toThrow(/crop/)
    const { model } = open('smolvlm')
    expect(() => model.prompt('<image>', [])).toThrow(DataError)
    expect(() => model.prompt('<image>', [])).toThrow(/expected 1 grids for 1 times <image>.*got 0/)
    expect(() => model.prompt('', [[1, 0]])).toThrow(/grids/)
    expect(() => model.prompt('<image>', [[2 ** 15, 2 ** 15]])).toThrow(/image tokens/)
    expect(() => model.prompt(3 as never, [])).toThrow(/text/)
    expect(model.prompt('<image>', [[0, 0]]).split('<image>').length - 1).toBe(model.tileTokens)
    await expect(smolVLMImages(image, { folder: join(directory, 'nowhere') })).rejects.toThrow(/preprocessor_config/)
  })
})

it('leaves nothing behind', async () => {
  const before = await settledTensors()
  const model = new SmolVLM(configOf('smolvlm')).eval()
  await scope(async () => {
    const { pixelValues, inputIds, attentionMask } = open('smolvlm').inputs
    await model.forward({ pixelValues, inputIds, attentionMask })
    await smolVLMImages(zeros([9, 20, 3], { dtype: 'uint8' }), { size: 24, tileSize: 12 })
  })
  model.dispose()
  expect(await settledTensors()).toBeLessThanOrEqual(before)
  expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
})
