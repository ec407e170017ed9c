import { describe, expect, it } from 'vitest'
import {
  autograd,
  blockDiagonalMask,
  ConfigError,
  cat,
  DataError,
  DataLoader,
  Embedding,
  functional,
  Linear,
  memoryStats,
  PackedBatchSampler,
  packSequences,
  Roberta,
  ShapeError,
  scope,
  type Tensor,
  tensor,
} from '../../lib/index.js'
import { expectClose, settledTensors } from '../helpers.js'

const sequences = [
  [5, 6, 7],
  [8, 9],
  [4, 4, 3, 2],
]
const samples = sequences.map((inputIds) => ({ inputIds, labels: inputIds }))

describe('packSequences', () => {
  it('puts sequences into one row', () => {
    const before = memoryStats().liveTensors
    scope(() => {
      const batch = packSequences(['inputIds', 'labels'], { positionOffset: 2 })(samples)
      expect(batch.inputIds.toArray()).toEqual([[5, 6, 7, 8, 9, 4, 4, 3, 2]])
      expect(batch.labels.toArray()).toEqual([[-100, 6, 7, -100, 9, -100, 4, 3, 2]])
      expect(batch.positionIds.toArray()).toEqual([[2, 3, 4, 2, 3, 2, 3, 4, 5]])
      expect(batch.sequenceIds.toArray()).toEqual([[0, 0, 0, 1, 1, 2, 2, 2, 2]])
      expect(batch.cuSeqlens.toArray()).toEqual([0, 3, 5, 9])
      expect(batch.sequenceLengths).toEqual([3, 2, 4])
      expect([batch.cuSeqlens.dtype, batch.inputIds.dtype, batch.maxSeqlen]).toEqual(['int32', 'int64', 4])
      const plain = packSequences(['labels'], { causalLabels: [] })(samples)
      expect(plain.labels.toArray()).toEqual([sequences.flat()])
      const typed = packSequences(['inputIds'])([
        { inputIds: BigInt64Array.of(1n, 2n) },
        { inputIds: new Int32Array(0) },
      ])
      expect(typed.cuSeqlens.toArray()).toEqual([0, 2, 2])
      const mask = blockDiagonalMask(batch.sequenceIds).toArray() as boolean[][][][]
      const ids = [0, 0, 0, 1, 1, 2, 2, 2, 2]
      expect(mask).toEqual([[ids.map((a) => ids.map((b) => a === b))]])
      const causal = blockDiagonalMask(batch.sequenceIds, { causal: true })
      expect(causal.toArray()).toEqual([[ids.map((a, i) => ids.map((b, j) => a === b && j <= i))]])
    })
    expect(memoryStats().liveTensors).toBe(before)
  })

  it('gives attention, loss and gradients what one sequence after the other gives', async () => {
    await scope(async () => {
      const embedding = new Embedding(10, 8)
      const positions = new Embedding(4, 8)
      // A bias of the keys has no effect, and its gradient would be rounding errors.
      const key = new Linear(8, 8, { bias: false })
      const [query, value, out] = [new Linear(8, 8), new Linear(8, 8), new Linear(8, 10)]
      const modules = [embedding, positions, query, key, value, out]
      const run = async (batch: { inputIds: Tensor; labels: Tensor; positionIds: Tensor; sequenceIds: Tensor }) => {
        for (const module of modules) for (const parameter of module.parameters()) parameter.grad = null
        const x = embedding.forward(batch.inputIds).add(positions.forward(batch.positionIds))
        const heads = (layer: Linear) => layer.forward(x).unflatten(2, [2, 4]).transpose(1, 2)
        const attended = functional.scaledDotProductAttention(heads(query), heads(key), heads(value), {
          attnMask: blockDiagonalMask(batch.sequenceIds, { causal: true }),
        })
        const hidden = attended.transpose(1, 2).flatten(2)
        // As a causal language model does: the label of the next token.
        const logits = out.forward(hidden).slice(1, 0, -1).flatten(0, 1)
        const loss = functional.crossEntropy(logits, batch.labels.slice(1, 1).flatten(), { reduction: 'sum' })
        await loss.backward()
        const gradients = modules.flatMap((module) => [...module.parameters()].map((p) => (p.grad as Tensor).clone()))
        return { hidden, loss, gradients }
      }
      const collate = packSequences(['inputIds', 'labels'])
      const packed = await run(collate(samples))
      let loss = 0
      let place = 0
      let gradients: Tensor[] | undefined
      for (const sample of samples) {
        const alone = await run(collate([sample]))
        const length = sample.inputIds.length
        expectClose(packed.hidden.slice(1, place, place + length), alone.hidden, 1e-6)
        place += length
        loss += alone.loss.item() as number
        gradients = alone.gradients.map((gradient, i) => (gradients ? gradient.add(gradients[i] as Tensor) : gradient))
      }
      expectClose(packed.loss, tensor(loss), 1e-6)
      for (const [i, gradient] of packed.gradients.entries()) expectClose(gradient, gradients?.[i] as Tensor, 1e-5)
    })
  })

  it('gives RoBERTa the positions that it counts itself', async () => {
    const config = { vocabSize: 20, hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 16 }
    await scope(async () => {
      const network = Roberta.fromConfig({ ...config, maxPositionEmbeddings: 16, padTokenId: 1 }).eval()
      const { inputIds, positionIds } = packSequences(['inputIds'], { positionOffset: 2 })([{ inputIds: [5, 6, 7, 8] }])
      const given = await network.forward({ inputIds, positionIds })
      const counted = await network.forward({ inputIds })
      expectClose(given.lastHiddenState, counted.lastHiddenState, 1e-7)
    })
  })

  it.each([
    ['sequence by sequence', 1],
    ['with the whole mask', 2],
  ])('gives RoBERTa what one row for each sequence gives, %s', async (_, maskHeads) => {
    const sizes = { vocabSize: 20, hiddenSize: 8, numHiddenLayers: 2, numAttentionHeads: 2, intermediateSize: 16 }
    await scope(async () => {
      // Positions for one sequence, not for all of them in one row.
      const network = Roberta.fromConfig({ ...sizes, maxPositionEmbeddings: 8, padTokenId: 1, addPoolingLayer: false })
      network.eval()
      const collate = packSequences(['inputIds'], { positionOffset: 2 })
      const forward = async (batch: ReturnType<typeof collate>) => {
        const mask = blockDiagonalMask(batch.sequenceIds)
        const { shape } = mask
        const attentionMask = mask.expand([1, maskHeads, shape[2] as number, shape[3] as number])
        return network.forward({ ...pickInputs(batch), attentionMask, outputHiddenStates: true })
      }
      const pickInputs = ({ inputIds, positionIds }: ReturnType<typeof collate>) => ({ inputIds, positionIds })
      // A sum of all states would be the same for any: the last norm sees to that.
      const loss = (states: Tensor) => states.pow(3).sum()
      const rows: Tensor[] = []
      let total: Tensor | undefined
      for (const sample of samples) {
        const { lastHiddenState } = await network.forward({ inputIds: tensor([sample.inputIds]) })
        rows.push(lastHiddenState)
        total = total ? total.add(loss(lastHiddenState)) : loss(lastHiddenState)
      }
      const alone = await autograd.grad(total as Tensor, network.parameters(), { allowUnused: true })
      const packed = await forward(collate(samples))
      expectClose(packed.lastHiddenState, cat(rows, 1), 1e-5)
      expect(packed.hiddenStates.map(({ shape }) => shape)).toEqual(Array(3).fill([1, 9, 8]))
      const together = await autograd.grad(loss(packed.lastHiddenState), network.parameters(), { allowUnused: true })
      const names = [...network.namedParameters()].map(([name]) => name)
      for (const [i, gradient] of together.entries()) {
        // A bias of the keys has no effect, and its gradient would be rounding errors.
        if (names[i]?.endsWith('key.bias')) continue
        expectClose(gradient as Tensor, alone[i] as Tensor, 1e-5, names[i])
      }
      // Without the mask sequences see each other.
      const mixed = await network.forward(pickInputs(collate(samples)))
      expect(mixed.lastHiddenState.sub(packed.lastHiddenState).abs().max().item()).toBeGreaterThan(1e-3)
    })
  })

  it('works in a loader', async () => {
    const before = await settledTensors()
    const many = Array.from({ length: 40 }, (_, i) => ({ inputIds: Array.from({ length: 1 + (i % 9) }, () => i) }))
    const batchSampler = new PackedBatchSampler({
      lengths: many.map((s) => s.inputIds.length),
      maxLength: 16,
      shuffle: true,
    })
    const loader = new DataLoader(many, { batchSampler, collate: packSequences(['inputIds'], { maxLength: 16 }) })
    const seen = new Set<number>()
    let rows = 0
    for await (const { inputIds, cuSeqlens } of loader) {
      rows++
      expect(inputIds.shape).toEqual([1, (cuSeqlens.toArray() as number[]).at(-1)])
      for (const id of (inputIds.toArray() as number[][]).flat()) seen.add(id)
    }
    expect(rows).toBe(loader.length)
    expect(seen.size).toBe(40)
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })

  it('refuses bad input', () => {
    const pack = packSequences(['inputIds', 'labels'])
    expect(() => pack([])).toThrow(DataError)
    expect(() => pack([{ inputIds: [1], labels: [] }])).toThrow(
      /field labels of sample 0 .* length of inputIds, 1, got 0/,
    )
    expect(() => pack([{ inputIds: [1.5], labels: [1] }])).toThrow(/got 1\.5/)
    expect(() => pack([{ inputIds: [1] } as never])).toThrow(/field labels/)
    expect(() => packSequences(['inputIds'], { maxLength: 3 })(samples)).toThrow(/\(maxLength\), got 9/)
    expect(() => packSequences([])).toThrow(ConfigError)
    expect(() => packSequences(['positionIds'])).toThrow(ConfigError)
    expect(() => packSequences(['a'], { causalLabels: ['labels'] })).toThrow(ConfigError)
    expect(() => packSequences(['a'], { causalLabels: 'a' as never })).toThrow(/causalLabels.*an array of names/)
    expect(() => blockDiagonalMask(3 as never)).toThrow(ConfigError)
    scope(() => expect(() => blockDiagonalMask(tensor([1, 2]))).toThrow(ShapeError))
  })
})
