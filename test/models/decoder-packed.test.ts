import { describe, expect, it } from 'vitest'
import {
  DecoderLM,
  type DecoderLMConfig,
  ops,
  packSequences,
  randint,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose } from '../helpers.js'
import { get } from './decoder.js'
import { FAMILIES } from './decoder-families.js'

const SIZES: DecoderLMConfig = {
  vocabSize: 60,
  hiddenSize: 32,
  intermediateSize: 48,
  numHiddenLayers: 2,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  maxPositionEmbeddings: 256,
}
/** Longer and shorter than the windows; the longest is more than one block of queries behind the first window. */
const LENGTHS = [9, 1, 150, 4, 30]

const made = (config: DecoderLMConfig = {}) =>
  DecoderLM.fromConfig({ ...SIZES, ...config }, { dtype: 'float64', seed: 5 }).eval()

const texts = (lengths = LENGTHS): number[][] =>
  lengths.map((length) => (randint(0, 60, [length]).toArray() as bigint[]).map(Number))

/** Loss and gradients of texts one by one, as the mean over all tokens that are told. */
async function oneByOne(model: DecoderLM, all: number[][]) {
  const parameters = model.parameters()
  const outputs: Tensor[] = []
  let sum: Tensor | undefined
  let count = 0
  for (const text of all) {
    const inputIds = tensor([text])
    const { loss, logits } = await model.forward({ inputIds, labels: inputIds, logitsToKeep: 0 })
    outputs.push(get(logits).detach())
    const told = text.length - 1
    if (told === 0) continue
    count += told
    sum = sum ? sum.add(get(loss).mul(told)) : get(loss).mul(told)
  }
  const loss = get(sum).div(count)
  await loss.backward()
  const gradients = parameters.map((parameter) => get(parameter.grad).clone())
  for (const parameter of parameters) parameter.grad = null
  return { loss: loss.detach(), logits: ops.cat(outputs, 1), gradients }
}

describe('packed rows', () => {
  it.each<[string, DecoderLMConfig]>([
    ['without a window', {}],
    ['with as many keys as heads', { numKeyValueHeads: 4 }],
    ['with one key for all heads', { numKeyValueHeads: 1 }],
    ['with a window', { modelType: 'mistral', slidingWindow: 7 }],
    ['with a window that is inclusive', { modelType: 'mistral', slidingWindow: 7, windowInclusive: true }],
    [
      'with a window in some layers',
      { modelType: 'qwen2', slidingWindow: 7, useSlidingWindow: true, maxWindowLayers: 1 },
    ],
    ...Object.entries(FAMILIES).map(
      ([modelType, config]) =>
        [`of ${modelType}`, { modelType, ...config } as DecoderLMConfig] as [string, DecoderLMConfig],
    ),
  ])('%s give what separate texts give, and so do the gradients', async (_, config) => {
    await scope(async () => {
      const model = made(config)
      const all = texts()
      const alone = await oneByOne(model, all)
      const batch = packSequences(['inputIds', 'labels'])(all.map((inputIds) => ({ inputIds, labels: inputIds })))
      const { inputIds, labels, sequenceLengths } = batch
      for (const checkpointing of [false, true]) {
        model.train(checkpointing).gradientCheckpointing(checkpointing)
        const packed = await model.forward({ inputIds, labels, sequenceLengths, logitsToKeep: 0 })
        expectClose(get(packed.logits), alone.logits, 1e-10, 'logits')
        expectClose(get(packed.loss), alone.loss, 1e-10, 'loss')
        await get(packed.loss).backward()
        for (const [i, [name, parameter]] of model.namedParameters().entries()) {
          // A bias of the keys has no effect, and its gradient would be rounding errors.
          if (!name.endsWith('k_proj.bias')) expectClose(get(parameter.grad), alone.gradients[i] as Tensor, 1e-9, name)
          parameter.grad = null
        }
      }
      model.eval()
      // Attention as a table, with a mask for all pairs.
      const tables = await model.forward({
        inputIds,
        sequenceLengths,
        outputAttentions: true,
        outputHiddenStates: true,
      })
      expectClose(get(tables.logits), alone.logits, 1e-10, 'logits with attentions')
      expect(tables.attentions.map(({ shape }) => shape)).toEqual(Array(2).fill([1, 4, 194, 194]))
      expect(tables.hiddenStates.map(({ shape }) => shape)).toEqual(Array(3).fill([1, 194, 32]))
      // In float32 within the bound of the house.
      const low = model.to({ dtype: 'float32' })
      const { logits } = await low.forward({ inputIds, sequenceLengths })
      expectClose(get(logits), alone.logits.to('float32'), 1e-5, 'float32')
    })
  })

  it('may be several: each ends with a text, and positions begin anew', async () => {
    await scope(async () => {
      const model = made({ modelType: 'mistral', slidingWindow: 3 })
      const all = texts([3, 5, 8, 1, 7])
      const alone = await oneByOne(model, all)
      const inputIds = tensor(all.flat()).reshape([3, 8])
      const sequenceLengths = [3, 5, 8, 0, 1, 7]
      const rows = { inputIds, sequenceLengths, outputHiddenStates: true }
      const { logits, lastHiddenState, hiddenStates } = await model.forward(rows)
      expectClose(get(logits).reshape([1, 24, 60]), alone.logits, 1e-10)
      expect([lastHiddenState.shape, ...hiddenStates.map(({ shape }) => shape)]).toEqual(Array(4).fill([3, 8, 32]))
      const counted = tensor([
        [0, 1, 2, 0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [0, 0, 1, 2, 3, 4, 5, 6],
      ])
      const given = await model.forward({ inputIds, sequenceLengths, positionIds: counted })
      expect(get(given.logits).equal(get(logits))).toBe(true)
      const embedded = await model.forward({ inputsEmbeds: model.embed(inputIds), sequenceLengths })
      expect(get(embedded.logits).equal(get(logits))).toBe(true)
    })
  })

  it.each([
    [false, 4],
    [true, 5],
  ])('a token sees as many others: inclusive %s, %i', async (windowInclusive, seen) => {
    await scope(async () => {
      const model = made({ modelType: 'mistral', slidingWindow: 4, windowInclusive, numHiddenLayers: 1 })
      for (const sequenceLengths of [null, [12, 12]]) {
        const inputsEmbeds = ops.randn([1, 24, 32], { dtype: 'float64' }).requiresGrad_()
        const { logits } = await model.forward({ inputsEmbeds, sequenceLengths })
        await get(logits).select(1, 11).pow(2).sum().backward()
        const touched = (get(inputsEmbeds.grad).abs().sum([0, 2]).toArray() as number[]).map((size) => size > 0)
        expect(touched).toEqual(Array.from({ length: 24 }, (_, i) => i <= 11 && i > 11 - seen))
      }
    })
  })

  it('refuses lengths that do not fit', async () => {
    const model = made()
    const inputIds = tensor([
      [1, 2, 3, 4],
      [5, 6, 7, 8],
    ])
    const refused = (inputs: object, message: RegExp) =>
      expect(model.forward({ inputIds, ...inputs })).rejects.toThrow(message)
    await refused({ sequenceLengths: [3, 5] }, /reaches beyond the end of its row/)
    await refused({ sequenceLengths: [4, 3] }, /are 7 in all, and there are 8/)
    await refused({ sequenceLengths: [4, 4, 1] }, /do not fit/)
    await refused({ sequenceLengths: [-1, 5, 4] }, /cannot have -1/)
    await refused({ sequenceLengths: [] }, /are 0 in all/)
    await refused({ sequenceLengths: [2 ** 40, 2 ** 40] }, /do not fit/)
    await refused({ sequenceLengths: [4, 4], attentionMask: ops.onesLike(inputIds) }, /no attention_mask/)
    await refused({ sequenceLengths: [4, 4], outputAttentions: true }, /for one row/)
  })
})
