import { mkdtempSync, rmSync } from 'node:fs'
import { cp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import {
  CheckpointError,
  ConfigError,
  Conv1d,
  getPeftModel,
  Linear,
  LoraConfig,
  loadSafetensors,
  Module,
  ones,
  PeftModel,
  type Roberta,
  saveSafetensors,
  zeros,
} from '../../lib/index.js'
import { fixturePath } from '../helpers.js'
import { network } from './networks.js'

function refuses(call: () => unknown, message: RegExp): void {
  expect(call).toThrow(message)
  expect(call).toThrow(ConfigError)
}

const small = (config: object) => () => getPeftModel(network('small'), config as LoraConfig)
const targetModules = ['hidden']

describe('a configuration', () => {
  it('is a plain object or a LoraConfig, which has the defaults and is checked when it is made', () => {
    const config = new LoraConfig({ targetModules, r: 2 })
    expect(config).toMatchObject({ targetModules, r: 2, loraAlpha: 8, loraDropout: 0, bias: 'none' })
    const [plain, made] = [{ targetModules, r: 2 }, config].map((given) => getPeftModel(network('small'), given))
    expect(made?.peftConfig).toEqual(plain?.peftConfig)
    expect(made?.getNbTrainableParameters()).toEqual(plain?.getNbTrainableParameters())
    refuses(() => new LoraConfig({ targetModules, r: 0 }), /r to be an integer of at least 1/)
  })

  it.each([
    [{ targetModules, lora_alpha: 2 }, /'lora_alpha'; did you mean 'loraAlpha'/],
    [{ targetModule: ['x'] }, /did you mean 'targetModules'/],
    [{}, /targetModules to be/],
    [
      { targetModules: ['nothing'] },
      /names of layers of Small, got \["nothing"\]; its layers are embed, conv, hidden, head/,
    ],
    [{ targetModules: '(' }, /expected a regular expression, got '\('/],
    [{ targetModules, r: 0 }, /r to be an integer of at least 1, got 0/],
    [{ targetModules, r: 2.5 }, /r to be/],
    [{ targetModules, loraAlpha: '8' }, /loraAlpha to be a number/],
    [{ targetModules, loraDropout: 1 }, /loraDropout to be a number/],
    [{ targetModules, bias: 'some' }, /bias to be 'none', 'all', 'lora_only'/],
    [{ targetModules, initLoraWeights: 'eva' }, /initLoraWeights to be/],
    [{ targetModules, rankPattern: { hidden: 0 } }, /rankPattern of 'hidden'/],
    [{ targetModules, modulesToSave: ['tail'] }, /modulesToSave: expected modules of Small, got 'tail'/],
    [{ targetModules, useDora: 1 }, /useDora to be true or false/],
    [{ targetModules, layersToTransform: [0.5] }, /layersToTransform to be/],
    [null, /to be an object/],
  ])('%j', (config, message) => refuses(small(config as object), message))

  it('leaves the network alone when it is refused', () => {
    const model = network('small')
    refuses(() => getPeftModel(model, { targetModules: ['nothing'] }), /expected names of layers/)
    expect(model.parameters().every((parameter) => parameter.requiresGrad)).toBe(true)
    getPeftModel(model, { targetModules })
  })

  it('names a module that cannot have an adapter', () => {
    class Deep extends Module {
      inner = network('small')
      grouped = new Conv1d(4, 4, 3, { groups: 2 })
      circular = new Conv1d(4, 4, 3, { padding: 1, paddingMode: 'circular' })
      uneven = new Conv1d(4, 4, 2, { padding: 'same' })
    }
    refuses(
      () => getPeftModel(new Deep(), { targetModules: ['inner'] }),
      /expected Linear, .* layers, but 'inner' is a Small/,
    )
    refuses(() => getPeftModel(new Deep(), { targetModules: ['grouped'] }), /'grouped' has 2 groups/)
    refuses(() => getPeftModel(new Deep(), { targetModules: ['circular'] }), /has paddingMode 'circular'/)
    refuses(() => getPeftModel(new Deep(), { targetModules: ['uneven'] }), /has asymmetric padding 'same'/)
  })
})

describe('adapters', () => {
  it('belong to a whole network, and one PeftModel', () => {
    const model = network('roberta') as Roberta
    refuses(
      () => getPeftModel(model.get('encoder'), { targetModules: ['query'] }),
      /expected a whole native network, got a part of one/,
    )
    getPeftModel(model, { targetModules: ['query'] })
    refuses(() => getPeftModel(model, { targetModules: ['value'] }), /expected a network without adapters/)
    refuses(() => getPeftModel({} as Module, { targetModules }), /to be a Module/)
  })

  it('have names that are there, once', () => {
    const peft = getPeftModel(network('small'), { targetModules })
    refuses(() => peft.setAdapter('other'), /expected one of the adapters default, got 'other'/)
    refuses(() => peft.addAdapter('default', { targetModules }), /a new adapter name, got 'default'/)
    refuses(() => peft.addAdapter('a.b', { targetModules }), /adapter name without dots and slashes/)
    refuses(() => peft.deleteAdapter('other'), /expected one of the adapters/)
    refuses(() => peft.setAdapter(7 as unknown as string), /a name or a list of names/)
    refuses(() => getPeftModel(network('small'), { targetModules }, null as never), /options to be an object/)
    refuses(() => peft.withAdapter('default', 3 as never), /to be a function/)
  })

  it('are not changed while they are merged', () => {
    const peft = getPeftModel(network('small'), { targetModules })
    peft.mergeAdapter()
    for (const call of [
      () => peft.setAdapter('default'),
      () => peft.addAdapter('b', { targetModules }),
      () => peft.deleteAdapter('default'),
      () => peft.mergeAdapter(),
      () => peft.disableAdapter(() => 1),
    ]) {
      refuses(call, /expected unmerged adapters/)
    }
    peft.unmergeAdapter()
    peft.setAdapter('default')
  })

  it('of other kinds are not added up', () => {
    const peft = getPeftModel(network('small'), { targetModules })
    peft.addAdapter('dora', { targetModules, useDora: true })
    peft.addAdapter('dropped', { targetModules, loraDropout: 0.1 })
    peft.addAdapter('elsewhere', { targetModules: ['head'], useDora: true })
    refuses(() => peft.setAdapter(['default', 'dora']), /DoRA to be the only active one/)
    refuses(() => peft.setAdapter(['default', 'dropped']), /adapters with equal loraDropout/)
    peft.setAdapter(['default', 'elsewhere'])
    refuses(
      () => peft.addAdapter('biased', { targetModules, bias: 'all' }),
      /LoraConfig.bias: expected 'none' with several adapters/,
    )
  })
})

describe('a directory', () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-peft-errors-'))
  afterAll(() => rmSync(directory, { recursive: true }))
  let count = 0

  /** A copy of an adapter that peft wrote, changed. */
  async function changed(config: object, weights: (tensors: Record<string, unknown>) => void = () => {}) {
    const copy = join(directory, `${++count}`)
    await cp(fixturePath('peft/plain'), copy, { recursive: true })
    const file = join(copy, 'adapter_config.json')
    await writeFile(file, JSON.stringify({ ...JSON.parse(await readFile(file, 'utf8')), ...config }))
    const { tensors } = await loadSafetensors(join(copy, 'adapter_model.safetensors'))
    weights(tensors)
    await saveSafetensors(join(copy, 'adapter_model.safetensors'), tensors)
    return copy
  }

  async function refuses(folder: string, message: RegExp): Promise<void> {
    const model = network('small')
    const peft = getPeftModel(model, { targetModules })
    const names = model.namedParameters().map(([name]) => name)
    const loading = peft.loadAdapter(folder, { adapterName: 'b' })
    await expect(loading).rejects.toThrow(message)
    await expect(loading).rejects.toThrow(CheckpointError)
    expect(model.namedParameters().map(([name]) => name)).toEqual(names)
    expect(Object.keys(peft.peftConfig)).toEqual(['default'])
  }

  it('must be there and be an adapter of this network', async () => {
    await refuses(join(directory, 'nothing'), /adapter_config\.json cannot be read/)
    await refuses(await changed({ peft_type: 'IA3' }), /expected peft_type 'LORA', got "IA3"/)
    await refuses(await changed({ use_qalora: true }), /expected a supported value of 'use_qalora', got true/)
    await refuses(await changed({ r: -1 }), /adapter_config\.json: LoraConfig: expected r to be/)
    await refuses(await changed({ init_lora_weights: 'eva' }), /initLoraWeights/)
    await refuses(
      await changed({ ensure_weight_tying: true }),
      /expected a supported value of 'ensure_weight_tying', got true/,
    )
    const first = 'base_model.model.hidden.lora_A.weight'
    await refuses(
      await changed({}, (tensors) => void delete tensors[first]),
      /adapter_model\.safetensors: expected an adapter of this network; missing: base_model\.model\.hidden\.lora_A/,
    )
    await refuses(await changed({}, (tensors) => void (tensors.more = zeros([1]))), /unexpected: more/)
    await refuses(
      await changed({}, (tensors) => void (tensors[first] = zeros([4, 9]))),
      /mis-shaped: base_model\.model\.hidden\.lora_A\.weight \[4,9\] for \[4,10\]/,
    )
    await refuses(await changed({ r: 3 }), /mis-shaped/)
    const loaded = await PeftModel.fromPretrained(network('small'), await changed({}))
    expect(loaded.activeAdapters).toEqual(['default'])
  })

  it('of another network says which layers it wants', async () => {
    const wrong = await PeftModel.fromPretrained(network('small'), fixturePath('peft/roberta')).catch((error) => error)
    expect(wrong).toBeInstanceOf(ConfigError)
    expect(wrong.message).toMatch(/expected names of layers of Small/)
  })
})

it('a layer alone can be adapted too', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'voxtorch-peft-layer-'))
  const base = new Linear(3, 2)
  const again = new Linear(3, 2)
  again.loadStateDict(base.stateDict())
  const x = ones([1, 3])
  const before = base.forward(x).toArray()
  const peft = getPeftModel(base, { targetModules: 'all-linear', r: 1, initLoraWeights: false })
  expect(peft.forward(x).toArray()).not.toEqual(before)
  await peft.savePretrained(directory)
  const loaded = await PeftModel.fromPretrained(again, directory)
  expect(loaded.forward(x).toArray()).toEqual(peft.forward(x).toArray())
  rmSync(directory, { recursive: true })
})
