import { describe, expect, it } from 'vitest'
import {
  AdamW,
  autocast,
  DecoderLM,
  type DType,
  functional,
  type Module,
  PeftModel,
  quantize,
  Roberta,
  Salmonn,
  type Tensor,
  WavLM,
  Whisper,
} from '../../lib/index.js'
import { SpectraForSequenceClassification } from '../../lib/systems/spectra/index.js'
import { fixture, here, tensorsOf } from '../helpers.js'
import { camelKeys, loadParameters } from '../models/networks.js'
import { loadTiny, promptsOf, salmonnFile, tinyConfig, tinyTokenizer } from '../systems/salmonn/network/tiny.js'
import { configOf, type SpectraCase } from '../systems/spectra/network/cases.js'
import { adapterFolder } from './adapter-folder.js'

interface Case {
  name: string
  targets: string[]
  r: number
  alpha: number
}

const file = await fixture<Case>('peft/precision')
const methods = ['full', 'lora', 'dora', 'nf4', 'int8'] as const
const precisions = ['float64', 'float32', 'bfloat16', 'float16', 'autocast'] as const
type Method = (typeof methods)[number]
type Precision = (typeof precisions)[number]

/** Of one number of the format. Half a dozen roundings follow each other between a layer's input and its output. */
const units: Record<Precision, number> = {
  float64: 1e-6, // transformers takes LLaMA's norms and softmax through float32
  float32: 1e-5,
  bfloat16: 8 * 2 ** -8,
  float16: 8 * 2 ** -11,
  autocast: 8 * 2 ** -8,
}

interface Network {
  model: Module
  /** The part that has the adapter. */
  adapted: Module
  loss(dtype: DType): Promise<Tensor>
}

const llama = await fixture<{ config: Record<string, unknown> }>('models/decoder-lm')
const whisper = await fixture<{ config: Record<string, unknown> }>('models/whisper')
const roberta = await fixture<{ config: Record<string, unknown> }>('models/roberta')
const wavlm = await fixture<{ config: Record<string, unknown> }>('models/wavlm')
const spectra = await fixture<SpectraCase>('spectra/forward')
const still = { layerdrop: 0, hiddenDropout: 0, attentionDropout: 0, activationDropout: 0, featProjDropout: 0 }

const configFrom = (source: typeof llama, name: string) =>
  camelKeys(source.cases.find((each) => (each as unknown as Case).name === name)?.config ?? {})
const given = (name: string) => tensorsOf(file, name, 'in') as Record<string, Tensor>
const exactly = (tensor: Tensor) => (tensor.dtype === 'float64' ? tensor : tensor.to({ dtype: 'float32' }))
const mse = (output: Tensor, target: Tensor) =>
  functional.mseLoss(exactly(output), target.to({ dtype: exactly(output).dtype }))

const networks: Record<string, () => Promise<Network>> = {
  async roberta() {
    const model = new Roberta(configFrom(roberta, 'base'))
    loadParameters(model, roberta, 'base')
    const { input_ids: inputIds, target } = given('roberta') as { input_ids: Tensor; target: Tensor }
    return { model, adapted: model, loss: async () => mse((await model.forward({ inputIds })).lastHiddenState, target) }
  },
  async wavlm() {
    const model = new WavLM({ ...configFrom(wavlm, 'base'), ...still, applySpecAugment: false })
    loadParameters(model, wavlm, 'base')
    const { input_values: values, target } = given('wavlm') as { input_values: Tensor; target: Tensor }
    const run = (dtype: DType) => model.forward({ inputValues: values.to({ dtype }) })
    return { model, adapted: model, loss: async (dtype) => mse((await run(dtype)).lastHiddenState, target) }
  },
  async whisper() {
    const model = new Whisper(configFrom(whisper, 'plain'))
    loadParameters(model, whisper, 'plain')
    const { input_features: features, labels } = given('whisper') as { input_features: Tensor; labels: Tensor }
    const run = (dtype: DType) => model.forward({ inputFeatures: features.to({ dtype }), labels })
    return { model, adapted: model, loss: async (dtype) => (await run(dtype)).loss as Tensor }
  },
  async llama() {
    const model = new DecoderLM({ ...configFrom(llama, 'llama'), modelType: 'llama' })
    loadParameters(model, llama, 'llama')
    const { input_ids: inputIds, labels } = given('llama') as { input_ids: Tensor; labels: Tensor }
    return { model, adapted: model, loss: async () => (await model.forward({ inputIds, labels })).loss as Tensor }
  },
  async spectra() {
    const { config, clips } = spectra.cases.find(({ name }) => name === 'classes') as SpectraCase
    const model = SpectraForSequenceClassification.fromConfig(configOf(config))
    loadParameters(model, spectra, 'classes')
    const inputs = camelKeys(tensorsOf(spectra, 'classes', 'in')) as Record<string, Tensor>
    const run = (dtype: DType) =>
      model.forward({ ...inputs, inputValues: inputs.inputValues?.to({ dtype }), audiosPerText: clips } as never)
    return { model, adapted: model, loss: async (dtype) => ((await run(dtype)) as { loss: Tensor }).loss }
  },
  async salmonn() {
    const model = Salmonn.fromConfig(tinyConfig())
    loadTiny(model)
    model.peft?.unload()
    model.compat = 'published' // reads all of Whisper's window, as the reference
    model.tokenizer = await tinyTokenizer()
    const batch = salmonnFile.cases.find(({ name }) => name === 'one') as (typeof salmonnFile.cases)[number]
    const run = () => model.forward({ prompts: promptsOf(batch), targets: batch.targets } as never)
    return { model, adapted: model.llm, loss: async () => ((await run()) as { loss: Tensor }).loss }
  },
}

async function prepare(item: Case, method: Method, precision: Precision): Promise<Network> {
  const network = await (networks[item.name] as () => Promise<Network>)()
  const { model, adapted } = network
  const dtype: DType = precision === 'autocast' ? 'float32' : precision
  model.eval()
  if (method !== 'full') {
    const paths = adapted
      .namedModules()
      .flatMap(([path]) => (item.targets.includes(path.split('.').at(-1) as string) ? [path] : []))
    if (method === 'nf4' || method === 'int8') {
      quantize(adapted, { scheme: method, modules: paths, ...(method === 'nf4' && { doubleQuant: false }) })
    }
    const config = { r: item.r, lora_alpha: item.alpha, target_modules: item.targets, use_dora: method === 'dora' }
    const all = Object.entries(tensorsOf(file, item.name, 'adapter'))
    const tensors = all.filter(([name]) => method === 'dora' || !name.includes('magnitude'))
    // As in peft the network is in its precision first, and the adapter in float32 where that is half of it.
    model.to({ dtype })
    await PeftModel.fromPretrained(adapted, await adapterFolder(config, Object.fromEntries(tensors)), {
      isTrainable: true,
    })
  } else {
    for (const parameter of adapted.parameters()) parameter.requiresGrad = true
    model.to({ dtype })
  }
  return network
}

describe.each(file.cases)('$name', (item) => {
  const out = tensorsOf(file, item.name, 'out')
  const value = (key: string) => out[key]?.item() as number | undefined
  const every = methods.flatMap((method) => precisions.map((precision) => ({ method, precision })))

  it.each(every)('$method in $precision has the loss of peft, and trains a step', async ({ method, precision }) => {
    const { model, loss } = await prepare(item, method, precision)
    const dtype: DType = precision === 'autocast' ? 'float32' : precision
    const measure = () =>
      precision === 'autocast' ? autocast({ device: here(), dtype: 'bfloat16' }, () => loss(dtype)) : loss(dtype)
    const trained = model.parameters().filter((parameter) => parameter.requiresGrad)
    const optimizer = new AdamW(trained, { lr: 1e-2 })
    const before = await measure()
    // Whisper's front end is float32 in SALMONN's reference.
    const unit = units[precision === 'float64' && item.name === 'salmonn' ? 'float32' : precision]
    const exact = value(`exact/${method}`) as number
    const expected = value(`${precision}/${method}`) ?? exact
    expect(Math.abs((before.item() as number) - expected) / Math.abs(exact), 'loss').toBeLessThanOrEqual(unit)
    await before.backward()
    const norm = Math.sqrt(
      trained.reduce(
        (sum, { grad }) => sum + (grad ? (grad.to({ dtype: 'float64' }).pow(2).sum().item() as number) : 0),
        0,
      ),
    )
    const wanted = value(`norm/${method}`) as number
    expect(Math.abs(norm - wanted) / wanted, 'norm of the gradients').toBeLessThanOrEqual(unit * (unit < 1e-4 ? 1 : 4))
    await optimizer.step()
    const after = (await measure()).item() as number
    expect(Number.isFinite(after)).toBe(true)
    expect(after).not.toBe(before.item())
  })
})
