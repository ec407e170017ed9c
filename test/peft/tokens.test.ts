import { expect, it } from 'vitest'
import {
  ConfigError,
  DecoderLM,
  Embedding,
  functional,
  getPeftModel,
  Linear,
  Module,
  noGrad,
  ops,
  randn,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose } from '../helpers.js'

class Words extends Module {
  embed = new Embedding(9, 4, { paddingIdx: 0 })
  middle = new Linear(4, 4)
  head = new Linear(4, 9)

  override forward(ids: Tensor): Tensor {
    return this.head.forward(this.middle.forward(this.embed.forward(ids)))
  }
}
const ids = tensor([[0, 3, 5, 3, 8]], { dtype: 'int64' })
const rows = [5, 0, 3]

it.each([false, true])('trains rows of layers written in TypeScript; tied: %s', async (tied) => {
  const model = new Words()
  if (tied) model.head.weight = model.embed.weight
  const before = model.embed.weight.detach().clone()
  const plain = model.forward(ids)
  const peft = getPeftModel(model, { targetModules: ['middle'], trainableTokenIndices: { embed: rows } })
  expectClose(model.forward(ids), plain, 1e-6)
  const [name, delta] = model.namedParameters().find(([key]) => key.includes('delta')) as [string, Tensor]
  expect(name).toBe('embed.token_adapter.trainable_tokens_delta.default')
  noGrad(() => delta.add_(randn([3, 4])))

  // The same by a copy of the whole table.
  const own = delta.detach().clone()
  own.requiresGrad = true
  const expected = (share: number) =>
    scope(() => {
      const index = tensor(rows, { dtype: 'int64' })
      const values = ops
        .indexSelect(before, 0, index)
        .mul(1 - share)
        .add(own.mul(share))
      const table = ops.indexCopy(before, 0, index, values) as Tensor
      const hidden = functional.linear(
        functional.embedding(ids, table, { paddingIdx: 0 }),
        model.middle.weight,
        model.middle.bias,
      )
      return functional.linear(hidden, tied ? table : model.head.weight, model.head.bias)
    })
  const output = model.forward(ids)
  const wanted = expected(1)
  expectClose(output, wanted, 1e-6)
  const cotangent = randn(output.shape)
  await output.mul(cotangent).sum().backward()
  await wanted.mul(cotangent).sum().backward()
  expectClose(delta.grad as Tensor, own.grad as Tensor, 1e-5)
  expectClose(
    peft.scaleAdapter(0.25, () => model.forward(ids)),
    expected(0.25),
    1e-5,
  )

  const adapted = model.forward(ids)
  peft.mergeAdapter()
  expectClose(model.forward(ids), adapted, 1e-6)
  peft.unmergeAdapter()
  expect(model.embed.weight.equal(before)).toBe(true)
})

it('ties the output layer again once its rows are merged', () => {
  const sizes = { vocabSize: 9, hiddenSize: 8, intermediateSize: 6, numHiddenLayers: 1, numAttentionHeads: 2 }
  const model = new DecoderLM({ ...sizes, tieWordEmbeddings: true })
  const names = Object.keys(model.stateDict())
  const peft = getPeftModel(model, { targetModules: ['q_proj'], trainableTokenIndices: [4, 2] })
  noGrad(() => {
    for (const [key, delta] of model.namedParameters()) if (key.includes('delta')) delta.add_(1)
  })
  peft.mergeAndUnload()
  expect(Object.keys(model.stateDict())).toEqual(names)
})

it.each([
  [{ trainableTokenIndices: [9] }, /'embed'|embed_tokens/],
  [{ trainableTokenIndices: { embed: [9] } }, /'embed' has 9 rows, so no row 9/],
  [{ trainableTokenIndices: { embed: [1, 1] } }, /embed.*1 twice/],
  [{ trainableTokenIndices: { embed: [] } }, /embed.*list of token ids/],
  [{ trainableTokenIndices: { lost: [1] } }, /'lost'/],
  [{ trainableTokenIndices: { head: [1] }, targetModules: ['head'] }, /'head'.*targetModules/],
  [{ trainableTokenIndices: { embed: [1] }, modulesToSave: ['embed'] }, /'embed'.*modulesToSave/],
])('refuses %o by name', (config, message) => {
  const attach = () => getPeftModel(new Words(), { targetModules: ['middle'], ...config } as never)
  expect(attach).toThrow(ConfigError)
  expect(attach).toThrow(message)
})

it('refuses two adapters that train rows of one layer at a time, and sums of them', () => {
  const peft = getPeftModel(new Words(), { targetModules: ['middle'], trainableTokenIndices: { embed: [1] } })
  peft.addAdapter('other', { targetModules: ['middle'], trainableTokenIndices: { embed: [2] } })
  expect(() => peft.setAdapter(['default', 'other'])).toThrow(/trainableTokenIndices.*'embed'/)
  expect(() => peft.addWeightedAdapter(['default', 'other'], [1, 1], 'sum')).toThrow(/trainableTokenIndices/)
})
