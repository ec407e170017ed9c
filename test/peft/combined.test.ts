import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  getPeftModel,
  type LoraConfig,
  type Module,
  manualSeed,
  noGrad,
  ops,
  PeftModel,
  quantize,
  Roberta,
  randint,
  type Tensor,
  type WeightedAdapterOptions,
} from '../../lib/index.js'
import { expectClose, fixture, tensorsOf } from '../helpers.js'
import { camelKeys } from '../models/networks.js'
import { adapterFolder, temporary } from './adapter-folder.js'
import { Small } from './networks.js'

interface Case {
  name: string
  configs: Record<string, Record<string, unknown>>
  options: Record<string, unknown>
  of: string[]
  weights: number[]
  config: Record<string, unknown>
}
const file = await fixture<Case>('peft/combined')
const base = file.cases[0] as Case

function network(): Small {
  const model = new Small()
  model.loadStateDict(tensorsOf(file, 'base', 'param'))
  return model.eval() as Small
}

/** scaling · B A of one layer's adapter, in the weight's shape. */
function delta(model: Module, path: string, name: string, scaling = 1): Tensor {
  const of = (part: string) =>
    model.namedParameters().find(([key]) => key.startsWith(`${path}.${part}.${name}`))?.[1] as Tensor
  const embedding = path === 'embed'
  const [A, B] = embedding ? [of('lora_embedding_A'), of('lora_embedding_B')] : [of('lora_A'), of('lora_B')]
  const product = ops.mm(B.flatten(1), A.flatten(1)).mul(scaling).detach()
  return embedding ? product.t() : product.reshape((model.get(path) as Module & { weight: Tensor }).weight.shape)
}

async function three(): Promise<PeftModel<Small>> {
  const peft = new PeftModel(network())
  for (const [name, config] of Object.entries(base.configs)) {
    await peft.loadAdapter(await adapterFolder(config, tensorsOf(file, 'base', `file-${name}`)), { adapterName: name })
  }
  return peft
}

describe('addWeightedAdapter', () => {
  it.each(file.cases.filter(({ of }) => of))('$options of $of by $weights is what peft makes', async (item) => {
    const peft = await three()
    peft.addWeightedAdapter(item.of, item.weights, 'made', camelKeys(item.options) as WeightedAdapterOptions)
    const wanted = tensorsOf(file, item.name, 'out')
    for (const [path, expected] of Object.entries(wanted)) {
      expectClose(delta(peft.model, path, 'made'), expected, 1e-5, path)
    }
    expect(peft.activeAdapters).toEqual(['a'])
    // It computes with it, and it can be saved and loaded.
    const ids = randint(2, 20, [3, 7])
    peft.setAdapter('made')
    const output = await noGrad(() => peft.model.forward(ids))
    const folder = temporary()
    await peft.savePretrained(folder, { selectedAdapters: ['made'] })
    const again = await PeftModel.fromPretrained(network(), `${folder}/made`)
    expectClose(await noGrad(() => again.model.forward(ids)), output, 1e-6)
  })

  it('side by side computes the weighted sum', async () => {
    const peft = await three()
    const ids = randint(2, 20, [3, 7])
    peft.addWeightedAdapter(['a', 'c'], [1, 1], 'sum', { combinationType: 'cat' })
    peft.setAdapter(['a', 'c'])
    const both = await noGrad(() => peft.model.forward(ids))
    peft.setAdapter('sum')
    expectClose(await noGrad(() => peft.model.forward(ids)), both, 1e-5)
  })

  it('leaves out random values, and scales the rest', async () => {
    manualSeed(1)
    const peft = await three()
    peft.addWeightedAdapter(['a'], [1], 'thin', { combinationType: 'dare_linear', density: 0.5 })
    const [from, to] = ['a', 'thin'].map(
      (name) => peft.model.namedParameters().find(([key]) => key === `hidden.lora_A.${name}.weight`)?.[1] as Tensor,
    ) as [Tensor, Tensor]
    const ratio = to
      .div(from)
      .div(Math.sqrt(2) * 2)
      .detach()
    const kept = (ratio.flatten().toArray() as number[]).map((value) => Math.round(value * 1e5) / 1e5)
    expect(new Set(kept)).toEqual(new Set([0, 1]))
  })

  it('clamps A and B to a quantile of their values', async () => {
    const peft = await three()
    peft.addWeightedAdapter(['a', 'c'], [1, 1], 'clamped', { svdClamp: 0.8 })
    const parts = peft.model.namedParameters().filter(([key]) => /^hidden\.lora_[AB]\.clamped/.test(key))
    const largest = parts.map(([, part]) => Number(part.abs().max().item()))
    expect(largest[0]).toBeCloseTo(largest[1] as number, 6)
  })

  it.each<[string, string[], number[], object, RegExp]>([
    ['no adapters', [], [], {}, /names of adapters/],
    ['an unknown adapter', ['a', 'x'], [1, 1], {}, /expected one of the adapters .*, got 'x'/],
    ['an adapter twice', ['a', 'a'], [1, 1], {}, /different names/],
    ['weights too few', ['a', 'b'], [1], {}, /a list of 2 numbers/],
    ['another way', ['a', 'b'], [1, 1], { combinationType: 'mean' }, /combinationType/],
    ['other ranks', ['a', 'c'], [1, 1], { combinationType: 'linear' }, /of equal rank for 'linear', got 2, 3/],
    ['no density', ['a', 'b'], [1, 1], { combinationType: 'ties' }, /density/],
    ['a density of 0', ['a', 'b'], [1, 1], { combinationType: 'dare_ties', density: 0 }, /density/],
    [
      'an unknown option',
      ['a', 'b'],
      [1, 1],
      { densty: 1 },
      /addWeightedAdapter: expected a known option, got 'densty'; did you mean 'density'\?/,
    ],
  ])('refuses %s', async (_, adapters, weights, options, message) => {
    const peft = await three()
    const call = () => peft.addWeightedAdapter(adapters, weights, 'made', options)
    expect(call).toThrow(message)
    expect(call).toThrow(ConfigError)
    expect(peft.adapterNames).toEqual(['a', 'b', 'c'])
  })

  it('copies a module that one of them trains, and refuses one that two do', () => {
    const peft = getPeftModel(
      network(),
      { r: 2, targetModules: ['hidden'], modulesToSave: ['head'] },
      { adapterName: 'a' },
    )
    peft.addAdapter('b', { r: 2, targetModules: ['hidden'] })
    noGrad(() => peft.model.head.weight.add_(1))
    const value = peft.model.head.weight.clone()
    peft.addWeightedAdapter(['a', 'b'], [1, 1], 'both', { combinationType: 'linear' })
    peft.setAdapter('both')
    expect(peft.model.head.weight.equal(value)).toBe(true)
    expect(() => peft.addWeightedAdapter(['a', 'both'], [1, 1], 'more')).toThrow(
      /at most one adapter that trains 'head' in full/,
    )
  })
})

describe('a start that takes from the weight', () => {
  it.each(file.cases.filter(({ name }) => name.startsWith('start')))('$config is that of peft', async (item) => {
    const model = network()
    const ids = tensorsOf(file, item.name, 'in').ids as Tensor
    const plain = await noGrad(() => model.forward(ids))
    const before = model.hidden.weight.clone()
    const config = camelKeys(item.config) as unknown as LoraConfig & { r: number; loraAlpha: number }
    const peft = getPeftModel(model, config, { adapterName: 'a' })
    if (!config.targetModules.includes('embed'))
      expectClose(await noGrad(() => model.forward(ids)), plain, 1e-5, 'the same')
    const scaling = config.loraAlpha / (config.useRslora ? Math.sqrt(config.r) : config.r)
    const out = tensorsOf(file, item.name, 'out')
    for (const path of config.targetModules as string[]) {
      if (path === 'embed') continue
      expectClose((model.get(path) as Small['hidden']).weight, out[`${path}.weight`] as Tensor, 1e-5, `${path}.weight`)
      expectClose(delta(model, path, 'a', scaling), out[`${path}.delta`] as Tensor, 1e-5, `${path}.delta`)
    }
    peft.unload()
    expectClose(model.hidden.weight, before, 1e-6, 'given back')

    // One that peft trained and saved.
    const loaded = await PeftModel.fromPretrained(
      network(),
      await adapterFolder(item.config, tensorsOf(file, item.name, 'file')),
    )
    expectClose(await noGrad(() => loaded.model.forward(ids)), out.trained as Tensor, 1e-5, 'loaded')
    const adapted = await noGrad(() => loaded.model.forward(ids))
    const merged = loaded.mergeAndUnload()
    expectClose(await noGrad(() => merged.forward(ids)), adapted, 1e-5, 'merged')
  })

  it('finds the principal part by iterations too, in a native network', () => {
    const config = { vocabSize: 20, hiddenSize: 16, numHiddenLayers: 1, numAttentionHeads: 2, intermediateSize: 24 }
    const weightOf = (model: Module) => (model.get('encoder.layer.0.intermediate.dense') as Small['hidden']).weight
    const weights = (['pissa', 'pissa_niter_64'] as const).map((initLoraWeights) => {
      manualSeed(3)
      const model = new Roberta(config)
      getPeftModel(model, { r: 4, targetModules: ['intermediate.dense'], initLoraWeights })
      return weightOf(model)
    }) as [Tensor, Tensor]
    expectClose(weights[1], weights[0], 1e-2)
    expect(weights[1].equal(weights[0])).toBe(false)
  })

  it('is refused where there is none, and leaves the network as it was', () => {
    const model = network()
    const before = model.hidden.weight.clone()
    const start = (config: LoraConfig) => () => getPeftModel(model, config)
    expect(start({ targetModules: ['hidden', 'head'], r: 5, initLoraWeights: 'pissa' })).toThrow(
      /at most 4, the rank of 'head'/,
    )
    expect(start({ targetModules: ['hidden', 'conv'], r: 2, initLoraWeights: 'olora' })).toThrow(/'conv' is a Conv1d/)
    expect(start({ targetModules: ['hidden'], initLoraWeights: 'pisa' as 'pissa' })).toThrow(/'pissa_niter_\[number\]'/)
    expectClose(model.hidden.weight, before, 1e-6)
    quantize(model, { scheme: 'int8', modules: 'hidden' })
    expect(start({ targetModules: ['hidden'], r: 2, initLoraWeights: 'pissa' })).toThrow(
      /'hidden' is a quantized layer/,
    )
  })
})
