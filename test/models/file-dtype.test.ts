import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { DecoderLM, type DType, loadSafetensors, noGrad, tensor } from '../../lib/index.js'
import { difference } from '../helpers.js'

// As transformers' `dtype: 'auto'`: config.json decides, otherwise the file.

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-dtype-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
let count = 0
const CONFIG = {
  ...{ vocabSize: 61, hiddenSize: 64, intermediateSize: 96, numHiddenLayers: 2 },
  ...{ numAttentionHeads: 4, numKeyValueHeads: 2, headDim: 16 },
}
const dtypesOf = (model: { parameters(): { dtype: DType }[] }) => [
  ...new Set(model.parameters().map(({ dtype }) => dtype)),
]
const configOf = (place: string) => JSON.parse(readFileSync(join(place, 'config.json'), 'utf8'))

async function saved(dtype: DType, change: (config: Record<string, unknown>) => void = () => undefined) {
  const place = join(folder, String(count++))
  using model = DecoderLM.fromConfig(CONFIG, { dtype, seed: 1 })
  await model.save(place)
  const config = configOf(place)
  change(config)
  writeFileSync(join(place, 'config.json'), JSON.stringify(config))
  return place
}

describe('the dtype that fromPretrained loads in', () => {
  it.each(['float32', 'bfloat16', 'float16', 'float64'] as const)('is that of a saved folder: %s', async (dtype) => {
    using model = await DecoderLM.fromPretrained(await saved(dtype))
    expect(dtypesOf(model)).toEqual([dtype])
  })

  it('is that of the file without one in config.json', async () => {
    const place = await saved('bfloat16', (config) => Reflect.deleteProperty(config, 'dtype'))
    using model = await DecoderLM.fromPretrained(place)
    expect(dtypesOf(model)).toEqual(['bfloat16'])
  })

  it.each(['dtype', 'torch_dtype'])('is that of config.json under %s, whatever the file has', async (key) => {
    const place = await saved('float32', (config) => {
      Reflect.deleteProperty(config, 'dtype')
      config[key] = 'float16'
    })
    using model = await DecoderLM.fromPretrained(place)
    expect(dtypesOf(model)).toEqual(['float16'])
  })

  it('is the one asked for', async () => {
    using model = await DecoderLM.fromPretrained(await saved('bfloat16'), { dtype: 'float32' })
    expect(dtypesOf(model)).toEqual(['float32'])
  })

  it('is also the dtype of what quantize leaves alone', async () => {
    using model = await DecoderLM.fromPretrained(await saved('bfloat16'), { quantize: 'int8' })
    const norms = [...model.namedParameters()].filter(([name]) => name.includes('norm'))
    expect([...new Set(norms.map(([, { dtype }]) => dtype))]).toEqual(['bfloat16'])
  })

  it.each([
    ['F16', 'float16'],
    ['BF16', 'bfloat16'],
    ['F32', 'float32'],
    ['Q8_0', 'float32'],
  ] as const)('of a GGUF file of type %s is %s', async (type, dtype) => {
    const file = join(folder, `${type}.gguf`)
    using model = DecoderLM.fromConfig(CONFIG, { seed: 1 })
    await model.saveGguf(file, { type })
    using again = await DecoderLM.fromPretrained(file)
    expect([...again.namedParameters()].find(([name]) => name === 'model.norm.weight')?.[1].dtype).toBe(dtype)
  })

  it('is written to config.json, so that transformers loads the same', async () => {
    const place = await saved('float32', (config) => {
      Reflect.deleteProperty(config, 'dtype')
      config.torch_dtype = 'float16'
    })
    using model = await DecoderLM.fromPretrained(place, { dtype: 'float32' })
    const other = join(folder, 'other')
    await model.save(other)
    expect(configOf(other)).toMatchObject({ dtype: 'float32' })
    expect(configOf(other)).not.toHaveProperty('torch_dtype')
    const { tensors } = await loadSafetensors(join(other, 'model.safetensors'))
    expect([...new Set(Object.values(tensors).map((one) => one.dtype))]).toEqual(['float32'])
  })
})

describe('a network in the dtype of its file', () => {
  it.each(['bfloat16', 'float16'] as const)('has the logits of float32 within the roundings of %s', async (dtype) => {
    const place = await saved(dtype)
    using model = await DecoderLM.fromPretrained(place)
    using exact = await DecoderLM.fromPretrained(place, { dtype: 'float64' })
    const inputIds = tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    const [{ logits }, wanted] = await noGrad(() =>
      Promise.all([model.forward({ inputIds }), exact.forward({ inputIds })]),
    )
    expect(logits?.dtype).toBe(dtype)
    expect(difference(logits!.double(), wanted.logits!)).toBeLessThan(dtype === 'float16' ? 2 ** -8 : 2 ** -5)
  })
})
