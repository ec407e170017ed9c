import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import {
  AudioLM,
  type AudioLMConfig,
  getPeftModel,
  type LoraConfig,
  loadSafetensors,
  manualSeed,
  noGrad,
  PeftModel,
  quantize,
  type Tensor,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { atReal, get } from '../models/decoder.js'
import { camelKeys, loadParameters } from '../models/networks.js'
import { adapterFolder, temporary } from './adapter-folder.js'

interface Case {
  name: string
  config: Record<string, unknown>
}
const NAME = 'qwen2_audio'
const base = await fixture<Case>(`models/audio-lm-${NAME}`)
const file = await fixture<Case>('peft/audio-lm')

function open(isQuantized = false) {
  const model = new AudioLM(camelKeys(get(base.cases[0]).config) as AudioLMConfig).eval()
  loadParameters(model, base, NAME)
  if (isQuantized) quantize(model, { scheme: 'nf4', doubleQuant: false, modules: 'language_model.model.layers' })
  const inputs = camelKeys(tensorsOf(base, NAME, 'in')) as Record<string, Tensor> & { inputIds: Tensor }
  const real = get(inputs.attentionMask).to({ dtype: 'float32' })
  const run = async () => {
    const { logits, loss } = await model.forward({ ...inputs, logitsToKeep: 0 })
    return { logits: atReal(get(logits), real, 1), loss: get(loss) }
  }
  return { model, run }
}

/** Parameters with a gradient, by the names of transformers' network in PEFT's. */
function gradients(model: AudioLM): Map<string, Tensor> {
  const names = model.adapterFileNames
  return new Map(
    model.namedParameters().flatMap(([name, { grad }]) => (grad ? [[names.toFile(name), grad] as const] : [])),
  )
}

describe.each(file.cases)('an adapter of PEFT on Qwen2-Audio, $name', ({ name, config }) => {
  const expected = tensorsOf(file, name, 'out')
  const tensors = tensorsOf(file, name, 'file')
  const load = async (isTrainable = true) => {
    const { model, run } = open(name === 'nf4')
    const folder = await adapterFolder(config, tensors)
    const peft = await PeftModel.fromPretrained(model, folder, { isTrainable })
    return { model, run, peft }
  }

  it('computes the same, with the same gradients, merged too', async () => {
    const { model, run, peft } = await load()
    const { logits, loss } = await run()
    expectClose(logits, get(expected.logits), 1e-5, 'logits')
    expectClose(loss, get(expected.loss), 1e-5, 'loss')
    await loss.backward()
    const wanted = Object.entries(tensorsOf(file, name, 'grad')).map(
      ([key, grad]) => [key.replace(/base_layer\.|modules_to_save\.default\./, ''), grad] as const,
    )
    const own = gradients(model)
    expect([...own.keys()].sort()).toEqual(wanted.map(([key]) => key).sort())
    const largest = (tensor: Tensor) => tensor.abs().max().item() as number
    const scale = Math.max(...wanted.map(([, grad]) => largest(grad))) / 100
    for (const [key, grad] of wanted) {
      const error = largest(get(own.get(key)).sub(grad)) / Math.max(largest(grad), scale)
      expect(error, `gradient of ${key}`).toBeLessThanOrEqual(1e-5)
    }
    peft.mergeAdapter(undefined, { dequantize: true })
    expectClose((await noGrad(run)).logits, get(expected.logits), 1e-5, 'merged')
    model.dispose()
  })

  it('is saved with the names and values of PEFT, and read again', async () => {
    const { model, peft, run } = await load()
    const folder = temporary()
    await peft.savePretrained(folder)
    const { tensors: saved } = await loadSafetensors(join(folder, 'adapter_model.safetensors'))
    // PEFT writes what it saves of wrapped modules once, too.
    const kept = Object.keys(tensors).filter((key) => !/\.(original_module|modules_to_save)\./.test(key))
    expect(Object.keys(saved).sort()).toEqual(kept.sort())
    for (const key of kept) expect(get(saved[key]).equal(get(tensors[key])), key).toBe(true)
    const { modules_to_save: whole } = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8'))
    expect(whole ?? null).toEqual(config.modules_to_save ?? null)
    const other = open(name === 'nf4')
    await PeftModel.fromPretrained(other.model, folder)
    const [one, two] = [await noGrad(run), await noGrad(other.run)]
    expect(one.logits.equal(two.logits)).toBe(true)
    model.dispose()
    other.model.dispose()
  })

  it('is read with the older names of transformers 4', async () => {
    const { model, run } = open(name === 'nf4')
    const old = Object.entries(tensors).map(([key, value]) => [
      key
        .replace('model.model.language_model.', 'model.language_model.model.')
        .replace('base_model.model.lm_head', 'base_model.model.language_model.lm_head')
        .replace(/model\.model\.(audio_tower|multi_modal_projector)/, 'model.$1'),
      value,
    ])
    const folder = await adapterFolder(config, Object.fromEntries(old))
    await PeftModel.fromPretrained(model, folder)
    expectClose((await noGrad(run)).logits, get(expected.logits), 1e-5)
    model.dispose()
  })
})

const sizes = (await fixture<{ name: string; modules?: string[] }>('models/audio-lm-sizes')).cases
const ultravox = (await fixture<{ name: string; shapes?: object }>('models/audio-lm-ultravox')).cases
const holderOf = (name: string) => name.replace(/\.[^.]+$/, '')
const named = [
  ...sizes.map(({ name, modules }) => ({ name, modules })),
  ...ultravox.map(({ name, shapes }) => ({ name, modules: shapes && Object.keys(shapes).map(holderOf) })),
].filter((one): one is { name: string; modules: string[] } => one.modules !== undefined)

it('all families are compared with Python', () => {
  expect(named).toHaveLength(9)
})

it.each(named)("$name: adapters have the names of Python's modules", ({ name, modules }) => {
  const config = name === 'granite_speech' ? ({ modelType: name } as AudioLMConfig) : name
  const model = AudioLM.fromConfig(config, { device: 'meta' })
  const names = model.adapterFileNames
  const paths = new Set(model.namedParameters().map(([key]) => holderOf(key)))
  expect(paths.size).toBeGreaterThan(100)
  const known = new Set(modules)
  const missing = [...paths].filter((path) => !known.has(names.toFile(path).replace(/\.\d+(?=\.|$)/g, '.*')))
  expect(missing).toEqual([])
  for (const path of paths) expect(names.toModel(`${names.toFile(path)}.weight`)).toBe(`${path}.weight`)
  const odd = ['constructor', 'toString', '__proto__']
  expect([names.savedToFile(odd), names.savedToModel(odd)]).toEqual([odd, odd])
})

it.each<[name: string, lora: Partial<LoraConfig>, isKept: boolean]>([
  ['a regular expression', { targetModules: 'language_model\\.model\\.layers\\..*\\.q_proj' }, false],
  ['ends of inner paths', { targetModules: ['model.layers.0.self_attn.q_proj', 'language_model.lm_head'] }, false],
  ['all-linear', { targetModules: 'all-linear' }, false],
  ['an excluded part', { targetModules: ['q_proj'], excludeModules: '(model\\.)?audio_tower\\..*' }, true],
  ['an excluded inner path', { targetModules: ['q_proj'], excludeModules: 'language_model\\.model\\..*' }, false],
  ['plain names', { targetModules: ['q_proj', 'lm_head'] }, true],
])('%s selects the same layers in PEFT', async (_, lora, isKept) => {
  const { model } = open()
  const targetModules = get(lora.targetModules)
  const peft = getPeftModel(model, { r: 2, ...lora, targetModules })
  const folder = temporary()
  await peft.savePretrained(folder)
  const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8'))
  const { tensors } = await loadSafetensors(join(folder, 'adapter_model.safetensors'))
  const layers = Object.keys(tensors).flatMap((key) => /^base_model\.model\.(.*)\.lora_A\.weight$/.exec(key)?.[1] ?? [])
  expect(layers.length).toBeGreaterThan(0)
  if (isKept) expect(config.target_modules).toEqual(targetModules)
  else expect(config.target_modules.sort()).toEqual(layers.sort())
  const other = open()
  const again = await PeftModel.fromPretrained(other.model, folder)
  expect(again.adapterNames).toEqual(['default'])
  model.dispose()
  other.model.dispose()
})

it('trainParts selects by names that PEFT has too', async () => {
  const { model } = open()
  manualSeed(1)
  const lora = { r: 2, useDora: true } satisfies Partial<LoraConfig>
  const peft = model.trainParts({ encoder: 'lora', connector: 'full', decoder: 'lora' }, lora)
  const folder = temporary()
  await get(peft).savePretrained(folder)
  const { target_modules: pattern } = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8'))
  const { tensors } = await loadSafetensors(join(folder, 'adapter_model.safetensors'))
  const layers = new Set(
    Object.keys(tensors).flatMap((key) => /^base_model\.model\.(.*)\.lora_A\.weight$/.exec(key)?.[1] ?? []),
  )
  expect(layers.size).toBeGreaterThan(20)
  const expression = new RegExp(`^(?:${pattern})$`)
  for (const layer of layers) {
    expect(layer).toMatch(/^model\.(audio_tower|language_model)\./)
    expect(layer).toMatch(expression)
  }
  expect('model.multi_modal_projector.linear').not.toMatch(expression)
  expect('lm_head').not.toMatch(expression)
  expect(Object.keys(tensors)).toContain('base_model.model.model.multi_modal_projector.linear.weight')
  model.dispose()
})
