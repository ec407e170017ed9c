import { describe, expect, it, vi } from 'vitest'
import {
  ConfigError,
  DecoderLM,
  Embedding,
  getPeftModel,
  Linear,
  type LoraConfig,
  loadSafetensors,
  Module,
  noGrad,
  PeftModel,
  randint,
  randn,
  type Tensor,
} from '../../lib/index.js'
import { expectClose } from '../helpers.js'
import { adapterFolder, temporary } from './adapter-folder.js'

const decoder = (tieWordEmbeddings: boolean) =>
  new DecoderLM({
    vocabSize: 13,
    hiddenSize: 8,
    intermediateSize: 8,
    numHiddenLayers: 2,
    numAttentionHeads: 2,
    tieWordEmbeddings,
  }).eval()
const adapted = (model: Module) =>
  model.namedParameters().flatMap(([name]) => /^(.*)\.lora_(?:embedding_)?A\./.exec(name)?.[1] ?? [])

describe('patterns', () => {
  const slow = '([a-z0-9_.]+)+!'
  const configs: [string, LoraConfig][] = [
    ['targetModules', { targetModules: slow }],
    ['excludeModules', { targetModules: ['q_proj'], excludeModules: slow }],
    ['rankPattern', { targetModules: ['q_proj'], rankPattern: { [slow]: 3 } }],
    ['alphaPattern', { targetModules: ['q_proj'], alphaPattern: { [slow]: 3 } }],
    ['layersPattern', { targetModules: ['q_proj'], layersToTransform: [0], layersPattern: slow }],
  ]

  it.each(configs)('%s that backtracks without end is refused within a bound', async (_, config) => {
    const model = decoder(false)
    const before = model.namedParameters().map(([name]) => name)
    expect(() => getPeftModel(model, config)).toThrow(ConfigError)
    expect(() => getPeftModel(model, config)).toThrow(/takes too long on the modules' paths/)
    expect(model.namedParameters().map(([name]) => name)).toEqual(before)
  })

  it('of one configuration have one limit of time together', () => {
    const rankPattern = Object.fromEntries(Array.from({ length: 20 }, (_, i) => [`layers.${i}.q_proj`, 3]))
    const config = { targetModules: ['q_proj'], rankPattern }
    let now = 0
    let step = 1
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => (now += step))
    try {
      getPeftModel(decoder(false), config)
      // Each of them takes a tenth of the limit.
      step = 100
      expect(() => getPeftModel(decoder(false), config)).toThrow(/with those before it takes too long/)
    } finally {
      clock.mockRestore()
    }
  })

  it.each([
    ['q_proj(?<=proj)x*', []],
    ['(?i)MODEL\\.LAYERS\\.0\\.self_attn\\.Q_PROJ', ['model.layers.0.self_attn.q_proj']],
    ['\\Amodel\\.layers\\.1\\.mlp\\.up_proj\\Z', ['model.layers.1.mlp.up_proj']],
    [
      'model\\.layers\\.(?P<n>\\d)\\.mlp\\.up_proj(?P=n)?',
      ['model.layers.0.mlp.up_proj', 'model.layers.1.mlp.up_proj'],
    ],
  ])('%s is read as Python does', (targetModules, expected) => {
    const model = decoder(false)
    if (expected.length === 0) expect(() => getPeftModel(model, { targetModules })).toThrow(/expected names of layers/)
    else {
      getPeftModel(model, { targetModules })
      expect(adapted(model)).toEqual(expected)
    }
  })

  it.each(['(a', '(?(1)a|b)', 'a{1000000000}{1000000000}{10000}('])('%s is refused', (targetModules) => {
    expect(() => getPeftModel(decoder(false), { targetModules })).toThrow(ConfigError)
  })
})

describe("'all-linear'", () => {
  it('leaves out the output layer, tied or not', () => {
    for (const tied of [true, false]) {
      const model = decoder(tied)
      getPeftModel(model, { targetModules: 'all-linear' })
      expect(adapted(model)).toHaveLength(14)
      expect(adapted(model).some((path) => path.includes('lm_head'))).toBe(false)
    }
  })

  it('leaves out the classes of a classifier', () => {
    class Classifier extends Module {
      readonly hidden = new Linear(4, 4)
      readonly classifier = new Linear(4, 2)
    }
    for (const taskType of ['SEQ_CLS', null]) {
      const model = new Classifier()
      getPeftModel(model, { targetModules: 'all-linear', taskType })
      expect(adapted(model)).toEqual(taskType ? ['hidden'] : ['hidden', 'classifier'])
    }
  })
})

describe('weights that two modules share', () => {
  class Tied extends Module {
    readonly embed = new Embedding(7, 4)
    readonly inner = new Linear(4, 4)
    readonly head = new Linear(4, 7, { bias: false })

    constructor() {
      super()
      this.head.weight = this.embed.weight
    }

    override forward(ids: Tensor): Tensor {
      return this.head.forward(this.inner.forward(this.embed.forward(ids)))
    }
  }

  it.each([[['embed']], [['head']], [['embed', 'head']]])('train apart in %o, and come back', (modulesToSave) => {
    const model = new Tied()
    const ids = randint(0, 7, [2, 3])
    const shared = model.embed.weight
    const plain = noGrad(() => model.forward(ids))
    const peft = getPeftModel(model, { targetModules: ['inner'], modulesToSave })
    expect(model.embed.weight).not.toBe(model.head.weight)
    expect(model.embed.weight.requiresGrad).toBe(modulesToSave.includes('embed'))
    expect(model.head.weight.requiresGrad).toBe(modulesToSave.includes('head'))
    const other = model.head.weight.clone()
    if (modulesToSave.includes('embed')) {
      noGrad(() => model.embed.weight.add_(1))
      expect(model.head.weight.equal(other)).toBe(true)
    }
    expectClose(
      noGrad(() => peft.disableAdapter(() => model.forward(ids))),
      plain,
      1e-6,
    )
    peft.unload()
    expect(model.embed.weight).toBe(shared)
    expect(model.head.weight).toBe(shared)
    expectClose(
      noGrad(() => model.forward(ids)),
      plain,
      1e-6,
    )
  })

  it('of a language model are two once they are merged, and are saved so', async () => {
    const model = decoder(true)
    const peft = getPeftModel(model, { targetModules: ['lm_head', 'q_proj'] })
    noGrad(() => {
      for (const parameter of model.parameters()) if (parameter.requiresGrad) parameter.add_(randn(parameter.shape))
    })
    const inputIds = randint(1, 13, [2, 4])
    const { logits } = await model.forward({ inputIds })
    peft.mergeAndUnload()
    const folder = await adapterFolder({}, { unused: inputIds })
    await model.save(folder)
    const loaded = await DecoderLM.fromPretrained(folder)
    expect(loaded.config.tieWordEmbeddings).toBe(false)
    expectClose((await loaded.forward({ inputIds })).logits as Tensor, logits as Tensor, 1e-5)
  })
})

describe('modulesToSave', () => {
  it('refuses a layer that has an adapter as well', () => {
    expect(() => getPeftModel(decoder(false), { targetModules: ['lm_head'], modulesToSave: ['head'] })).toThrow(
      /expected 'lm_head' in targetModules or modulesToSave/,
    )
  })

  it('may name modules that are not there in a file: peft writes all that a classifier may have', async () => {
    class Classifier extends Module {
      readonly hidden = new Linear(4, 4)
      readonly classifier = new Linear(4, 2)
    }
    const peft = getPeftModel(new Classifier(), { targetModules: ['hidden'], modulesToSave: ['classifier'] })
    const folder = temporary()
    await peft.savePretrained(folder)
    const { tensors } = await loadSafetensors(`${folder}/adapter_model.safetensors`)
    const config = { r: 8, target_modules: ['hidden'], modules_to_save: ['classifier', 'score'], task_type: 'SEQ_CLS' }
    const loaded = await PeftModel.fromPretrained(new Classifier(), await adapterFolder(config, tensors))
    expect(loaded.model.classifier.weight.equal(peft.model.classifier.weight)).toBe(true)
    expect(() => getPeftModel(new Classifier(), { targetModules: ['hidden'], modulesToSave: ['score'] })).toThrow(
      /'score'/,
    )
  })

  it('refuses an adapter of embeddings with another vocabulary', async () => {
    const model = decoder(false)
    const peft = getPeftModel(model, { targetModules: ['embed_tokens'] })
    const folder = await adapterFolder({}, {})
    await peft.savePretrained(folder)
    const other = new DecoderLM({ ...model.config, vocabSize: 12 })
    await expect(PeftModel.fromPretrained(other, folder)).rejects.toThrow(
      /embed_tokens\.base_layer\.weight \[13,8\] for \[12,8\]/,
    )
    expect(adapted(other)).toEqual([])
  })
})
