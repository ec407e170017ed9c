import { describe, expect, it } from 'vitest'
import { runRanks } from './ranks.js'

// Two processes over Gloo run all scenarios. A rank that fails or crashes fails the file with what it wrote to stderr.
const results = await runRanks([
  'collectives',
  'the event loop stays free',
  'synchronized batch norm',
  'gradients with buckets of many sizes',
  'accumulation',
  'gradients',
  'a native network',
  'bfloat16 and float32 together',
  'a training run',
  'buffers',
  'a parameter without gradient',
  'models of other shapes',
  'zero',
  'a sampler in a loader',
])

/** Every value of an object of distances. */
const worstOf = (distances: Record<string, number>) => Math.max(...Object.values(distances))

describe('collectives', () => {
  it('reduce, send and gather; errors are the same on all ranks and leave the group usable', () => {
    const ranks = results.collectives
    for (const [rank, [results, errors, after]] of ranks.entries()) {
      expect(results).toEqual({
        sum: [3, 4],
        mean: [1.5, -0.5],
        min: [1, -1],
        max: [2, 0],
        product: [2, 0],
        ...Object.fromEntries(
          ['float16', 'bfloat16', 'float64', 'int64', 'int32', 'int8', 'uint8'].map((dtype) => [dtype, [2, 4, 6]]),
        ),
        strided: [0, 3, 0, 3, 0, 3],
        broadcast: [1, 1, 0, 1.5],
        gathered: [
          [0, 5],
          [1, 5],
        ],
        objects: [
          { rank: 0, text: '' },
          { rank: 1, text: 'ä' },
        ],
        metrics: { loss: 1, wer: 3 },
        main: rank === 0,
      })
      expect(errors[0]).toMatch(
        new RegExp(`^DistributedError: allReduce: rank ${rank} gave 1 tensors with ${rank + 2} elements`),
      )
      expect(errors[1]).toMatch(/^DistributedError: (barrier|allGather): rank . gave .* called something else/)
      expect(errors[2]).toMatch(/^DTypeError: .*cannot reduce dtype Bool/)
      expect(errors[3]).toMatch(/^DTypeError: .*mean of integer tensors/)
      expect(errors[4]).toMatch(/^DistributedError: reduceMetrics/)
      expect(errors[5]).toMatch(/^ConfigError: broadcast: expected source to be a rank below 2, got 2/)
      expect(after).toEqual({ left: 0 })
    }
  })

  it('leave the event loop free while they wait', () => {
    // Rank 1 comes 600 ms late; a timer of 10 ms would tick 60 times on an idle machine.
    const [[{ ticks }]] = results['the event loop stays free'] as [[{ ticks: number }]]
    expect(ticks).toBeGreaterThan(10)
  })
})

describe('SyncBatchNorm', () => {
  it('equals one process with the batches of all ranks', () => {
    for (const [{ worst, classes, sharesParameters }] of results['synchronized batch norm']) {
      expect(Object.keys(worst)).toHaveLength(5)
      expect(worstOf(worst), JSON.stringify(worst)).toBeLessThanOrEqual(1e-5)
      expect(classes).toEqual(['Sequential', 'SyncBatchNorm', 'Tanh', 'Sequential', 'SyncBatchNorm'])
      expect(sharesParameters).toBe(true)
    }
  })
})

describe('DistributedDataParallel: gradients equal one process with the doubled batch', () => {
  it('with buckets of many sizes, also after they are ordered anew', () => {
    for (const [{ worst }] of results['gradients with buckets of many sizes']) {
      expect(Object.keys(worst)).toHaveLength(9)
      expect(worstOf(worst)).toBeLessThanOrEqual(1e-6)
    }
  })

  it('with accumulation: noSync keeps gradients local, the backward after it sends the sum', () => {
    for (const [{ worst, local }] of results.accumulation) {
      expect(worstOf(worst)).toBeLessThanOrEqual(1e-6)
      expect(local).toEqual([true, true, true])
    }
  })

  it('with parameters that no rank uses, and that one rank alone uses', () => {
    for (const [{ worst, unused }] of results.gradients) {
      expect(worstOf(worst)).toBeLessThanOrEqual(1e-6)
      expect(unused).toEqual([true, true, true, true])
    }
  })

  it('in a native network with an output that the loss ignores', () => {
    for (const [{ worst }] of results['a native network']) {
      expect(worst[0]).toBeLessThanOrEqual(1e-6)
      expect(worst[2]).toBeLessThanOrEqual(1e-6)
      expect([worst[1], worst[3]]).toEqual([true, true])
    }
  })

  it('in bfloat16 beside float32', () => {
    for (const [{ dtype, ratio }] of results['bfloat16 and float32 together']) {
      expect(dtype).toBe('bfloat16')
      expect(ratio).toBeCloseTo(1.5, 1)
    }
  })
})

describe('DistributedDataParallel', () => {
  it('trains to the weights of one process, with clipping, and leaves no tensors behind', () => {
    for (const [{ weights, norms, left }] of results['a training run']) {
      expect(weights).toBeLessThanOrEqual(1e-5)
      expect(norms).toBeLessThanOrEqual(1e-6)
      expect(left).toBe(0)
    }
  })

  it('gives every rank the running statistics of rank 0 before a forward pass', () => {
    for (const [rank, [{ own, inRank0 }, { differs }]] of results.buffers.entries()) {
      if (rank === 1) expect(own).not.toEqual(inRank0)
      expect(differs).toBe(0)
    }
  })

  it('names the parameters that got no gradient', () => {
    for (const [error] of results['a parameter without gradient']) {
      expect(error.name).toBe('GradientError')
      expect(error.parameters).toEqual(['spare.weight', 'spare.bias'])
      expect(error.message).toMatch(/findUnusedParameters: true/)
    }
  })

  it('refuses models that differ between ranks, on every rank', () => {
    for (const [{ name, message }] of results['models of other shapes']) {
      expect(name).toBe('DistributedError')
      expect(message).toMatch(/equal shapes/)
    }
  })
})

describe('ZeroRedundancyOptimizer', () => {
  it('gives the weights and the state of the optimiser alone, and each loads the other', () => {
    const ranks = results.zero
    for (const [rank, [state, end]] of ranks.entries()) {
      expect(state).toEqual({ same: true, owners: 8, shares: [1, 7] })
      expect(end.equal).toEqual(new Array(12).fill(true))
      expect(end.only).toBe(rank === 0 ? 8 : null)
    }
    // Four tensors of state for each parameter, each in one process only.
    expect(ranks.map(([, { held }]) => held)).toEqual([4, 28])
  })
})

describe('DistributedSampler in a DataLoader', () => {
  it('divides each epoch anew between the ranks', () => {
    const [[first], [second]] = results['a sampler in a loader'] as [
      [{ epochs: number[][]; batches: number }],
      [{ epochs: number[][] }],
    ]
    expect(first.batches).toBe(3)
    for (const epoch of [0, 1]) {
      const all = [...(first.epochs[epoch] ?? []), ...(second.epochs[epoch] ?? [])]
      expect(all).toHaveLength(12)
      expect([...new Set(all)].sort((a, b) => a - b)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    }
    expect(first.epochs[0]).not.toEqual(first.epochs[1])
  })
})
