import { describe, expect, it } from 'vitest'
import {
  AdamW,
  ConfigError,
  ContrastiveModel,
  contrastiveLoss,
  LanguageBind,
  manualSeed,
  noGrad,
  ones,
  randn,
  retrievalMetrics,
  ShapeError,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, fixture, ROUNDING, settledTensors, tensorsOf } from '../helpers.js'

const file = await fixture<{ name: string; config?: object }>('models/languagebind')

const size = { hiddenSize: 16, intermediateSize: 24, numAttentionHeads: 2, numHiddenLayers: 1, hiddenAct: 'gelu' }
const config = (vision: object) => ({
  textConfig: { vocabSize: 20, maxPositionEmbeddings: 6, ...size },
  visionConfig: { imageSize: 8, patchSize: 4, ...size, ...vision },
  projectionDim: 12,
})
const image = () => LanguageBind.fromConfig({ image: config({}) }, { seed: 1 })

describe('contrastiveLoss', () => {
  it.each(file.cases.filter((one) => one.config !== undefined))('is that of the original, $name', ({ name }) => {
    const { loss, logits } = tensorsOf(file, name, 'out') as Record<string, Tensor>
    // The scores as cosines: rows of the identity have those of the columns.
    const exact = (logits as Tensor).double()
    const wanted = exact.logSoftmax(-1).diagonal().mean().add(exact.t().logSoftmax(-1).diagonal().mean()).div(-2)
    expectClose(wanted, (loss as Tensor).double(), 16 * ROUNDING.float32)
    const { text, ...items } = tensorsOf(file, name, 'out') as Record<string, Tensor>
    const own = Object.entries(items).find(([key]) => /video|audio|image|depth|thermal/.test(key))?.[1] as Tensor
    const longer = own.double().mul(3)
    expectClose(contrastiveLoss(longer, (text as Tensor).double(), { logitScale: 2.5 }), wanted, 64 * ROUNDING.float32)
    const scale = tensor(2.5, { dtype: 'float64' }) as Tensor
    expectClose(
      contrastiveLoss(longer, (text as Tensor).double(), { logitScale: scale }),
      wanted,
      64 * ROUNDING.float32,
    )
  })

  it('is ln n where nothing can be told apart, and refuses what does not match', () => {
    const same = ones([3, 2])
    expect(contrastiveLoss(same, same).item()).toBeCloseTo(Math.log(3), 6)
    expect(() => contrastiveLoss(randn([2, 3]), randn([3, 3]))).toThrow(ShapeError)
    expect(() => contrastiveLoss(randn([2, 3]), randn([2, 3]), { scale: 1 } as never)).toThrow(
      /expected a known option, got 'scale'/,
    )
  })
})

describe('ContrastiveModel', () => {
  const pairs = () =>
    scope(() => {
      manualSeed(3)
      const ids = Array.from({ length: 6 }, (_, i) => [i + 1, i + 7, 19])
      return { text: { inputIds: tensor(ids, { dtype: 'int64' }) }, image: randn([6, 3, 8, 8]) }
    })

  it.each([{ lora: { r: 4 } }, { lora: null, also: 'projection' as const }])(
    'learns which text belongs to which picture, %o',
    async (options) => {
      const model = image()
      const frozen = Object.fromEntries(
        model.namedParameters().map(([name, value]) => [name, noGrad(() => value.detach().clone())]),
      )
      const training = new ContrastiveModel(model, options)
      const trained = training.parameters().filter(({ requiresGrad }) => requiresGrad)
      const optimizer = new AdamW(trained, { lr: 0.02, weightDecay: 0 })
      const batch = pairs()
      let last = Number.POSITIVE_INFINITY
      let first: number | undefined
      for (let step = 0; step < 150 && last > 0.05; step += 1) {
        await scope(async () => {
          const { loss } = await training.forward(batch)
          await loss.backward()
          last = loss.item() as number
          first ??= last
        })
        await optimizer.step()
        optimizer.zeroGrad()
      }
      expect(first).toBeGreaterThan(1)
      expect(last).toBeLessThan(0.05)
      const temperature = Math.exp(training.logit_scale.item() as number)
      expect(temperature).not.toBeCloseTo(model.temperature('image'), 3)
      expect(temperature).toBeLessThanOrEqual(100.001)
      training.applyTemperature()
      expect(model.temperature('image')).toBeCloseTo(temperature, 4)
      // Texts, and with adapters all that was there, are as before.
      for (const [name, value] of model.namedParameters()) {
        const before = frozen[name]
        const mayMove = options.lora === null && /\.image\./.test(name)
        if (before && !mayMove) expect(value.detach().equal(before), name).toBe(true)
      }
      const { text, image: found } = await model.embed(batch)
      expect(retrievalMetrics(model.similarity(text, found)).recall[1]).toBe(1)
    },
  )

  it('trains what was published by default: attention over time where there is any', () => {
    const names = (vision: object) =>
      new ContrastiveModel(LanguageBind.fromConfig({ video: config(vision) }, { seed: 1 }))
        .namedParameters()
        .filter(([, { requiresGrad }]) => requiresGrad)
        .map(([name]) => name)
    const timed = names({ addTimeAttn: true, numFrames: 2 })
    expect(timed.filter((name) => name.includes('.temporal_attn.') && name.includes('.lora_')).length).toBe(8)
    expect(timed.length).toBe(9)
    expect(timed).toContain('logit_scale')
    expect(names({}).filter((name) => name.includes('.self_attn.')).length).toBe(8)
  })

  it('keeps the temperature at 100 at most', async () => {
    const training = new ContrastiveModel(image(), { lora: { r: 1 } })
    noGrad(() => training.logit_scale.fill_(6))
    await training.forward(pairs())
    expect(Math.exp(training.logit_scale.item() as number)).toBeCloseTo(100, 3)
  })

  it('says what is wrong', async () => {
    const two = LanguageBind.fromConfig({ image: config({}), depth: config({}) }, { seed: 1 })
    expect(() => new ContrastiveModel(two)).toThrow(/modality: expected one of image, depth/)
    expect(() => new ContrastiveModel(two, { modality: 'audio' })).toThrow(
      /expected a modality of text, image, depth, got "audio"/,
    )
    expect(() => new ContrastiveModel({} as LanguageBind)).toThrow(ConfigError)
    const training = new ContrastiveModel(two, { modality: 'image' })
    const batch = pairs()
    await expect(training.forward({ text: batch.text })).rejects.toThrow(/expected text and image, got only text/)
    await expect(training.forward({ ...batch, depth: batch.image })).rejects.toThrow(
      /expected only text and image, got 'depth'/,
    )
    await expect(training.forward({ ...batch, image: batch.image.narrow(0, 0, 2) })).rejects.toThrow(/got 6 and 2/)
  })

  it('leaves no tensors behind', async () => {
    const training = new ContrastiveModel(image())
    const batch = pairs()
    await training.forward(batch)
    const before = await settledTensors()
    const { loss, logits } = await training.forward(batch)
    loss.dispose()
    logits.dispose()
    expect(await settledTensors()).toBe(before)
  })
})

describe('classify', () => {
  it('says which label fits, the likeliest first, and how much', async () => {
    const model = image()
    const texts: string[][] = []
    const tokenizer = {
      encode: (given: string[]) => {
        texts.push(given)
        const rows = given.map((text) => [(text.length % 18) + 1, 19])
        return {
          inputIds: tensor(rows, { dtype: 'int64' }),
          attentionMask: tensor(rows, { dtype: 'int64' }).clamp(1, 1),
        }
      },
    }
    model.tokenizer = tokenizer as never
    const pictures = randn([3, 3, 8, 8])
    const found = await model.classify({ image: pictures }, ['dog', 'horse'], { template: 'a {}.' })
    expect(texts).toEqual([['a dog.', 'a horse.']])
    const { text, image: own } = await model.embed({ text: ['a dog.', 'a horse.'], image: pictures })
    const wanted = model.similarity(own, text).softmax(-1).toArray() as number[][]
    for (const [i, labels] of found.entries()) {
      const scores = Object.fromEntries(labels.map(({ label, score }) => [label, score]))
      expect(scores.dog).toBeCloseTo(wanted[i]?.[0] as number, 5)
      expect(scores.horse).toBeCloseTo(wanted[i]?.[1] as number, 5)
      expect(labels[0]?.score).toBeGreaterThanOrEqual(labels[1]?.score as number)
    }
    await expect(model.classify({ image: pictures }, [])).rejects.toThrow(ConfigError)
    await expect(model.classify({}, ['dog'])).rejects.toThrow(/one modality/)
    await expect(model.classify({ image: pictures }, ['dog'], { template: 'a' })).rejects.toThrow(/\{\}/)
  })
})
