import { readFileSync } from 'node:fs'
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
import { LinearPattern, NotLinear } from '../../lib/peft/linear-match.js'
import { patternValues } from '../../lib/peft/patterns.js'
import { expectClose, fixturePath } from '../helpers.js'
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
    const layersPattern = Array.from({ length: 20 }, () => 'layers')
    const config = { targetModules: ['q_proj'], layersToTransform: [0, 1], layersPattern }
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

  it('of ranks and alphas match what they match in peft, in linear time', () => {
    const { paths, keys } = JSON.parse(readFileSync(fixturePath('peft/patterns.json'), 'utf8')) as {
      paths: string[]
      keys: Record<string, string[] | null>
    }
    for (const [key, expected] of Object.entries(keys)) {
      const matched = () => [...patternValues('LoraConfig.rankPattern', { [key]: 3 }, paths).keys()]
      if (expected === null) expect(matched, key).toThrow(ConfigError)
      else expect(matched(), key).toEqual(expected)
    }
    // Python's own engine does not come to the end of this one, nor does JavaScript's.
    const work = { left: 100_000 }
    expect(new LinearPattern(slow).matchesEnd('a'.repeat(1000), work)).toBe(false)
    expect(work.left).toBeGreaterThan(0)
    const model = decoder(false)
    getPeftModel(model, { targetModules: ['q_proj'], rankPattern: { [slow]: 3 }, alphaPattern: { [slow]: 3 } })
    expect(adapted(model)).toEqual(['model.layers.0.self_attn.q_proj', 'model.layers.1.self_attn.q_proj'])
  })

  it.each([
    [
      'q_proj(?<=_proj)',
      /rankPattern: expected regular expressions that are matched in linear time as keys, got 'q_proj/,
    ],
    ['(q)_proj\\1', /a back reference/],
    ['[a]'.repeat(30_000), /more than 20000 steps/],
    ['(((.{50}){50}){50}){50}', /more than 20000 steps/],
    ['('.repeat(5000), /more than 100 groups inside each other/],
    ['(a', /expected regular expressions as keys, got '\(a' \(missing \)/],
  ])('of ranks without a linear form are refused by name: %.30s', (key, message) => {
    const config = { targetModules: ['q_proj'], rankPattern: { [key]: 3 } }
    expect(() => getPeftModel(decoder(false), config)).toThrow(ConfigError)
    expect(() => getPeftModel(decoder(false), config)).toThrow(message)
  })

  it('of ranks have a bound on the work of all of them together', () => {
    const paths = Array.from({ length: 100 }, (_, i) => `${i}${'.a'.repeat(2000)}`)
    const keys = Object.fromEntries(Array.from({ length: 100 }, (_, i) => [`(a|[.]|a.)*${i}`, 3]))
    const started = new Set<string>()
    const spy = vi.spyOn(LinearPattern.prototype, 'matchesEnd').mockImplementation(function (
      this: LinearPattern,
      _,
      work,
    ) {
      started.add(String(started.size))
      work.left -= 1_000_000
      if (work.left < 0) throw new NotLinear('more work')
      return false
    })
    try {
      expect(() => patternValues('LoraConfig.rankPattern', keys, paths)).toThrow(
        /got '\(a\|\[\.\]\|a\.\)\*2' \(more work\)/,
      )
      expect(started.size).toBe(201)
    } finally {
      spy.mockRestore()
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
