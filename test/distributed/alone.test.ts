import { afterEach, describe, expect, it } from 'vitest'
import {
  allReduce,
  ConfigError,
  DistributedDataParallel,
  DistributedSampler,
  destroyProcessGroup,
  getRank,
  getWorldSize,
  initProcessGroup,
  isInitialized,
  isMainProcess,
  Linear,
  reduceMetrics,
  SGD,
  tensor,
  ZeroRedundancyOptimizer,
} from '../../lib/index.js'

// What needs no second process.

const NAMES = ['RANK', 'WORLD_SIZE', 'LOCAL_RANK', 'MASTER_ADDR', 'MASTER_PORT'] as const

afterEach(async () => {
  for (const name of NAMES) delete process.env[name]
  await destroyProcessGroup()
})

describe('initProcessGroup', () => {
  it('names the variable that is missing or wrong', async () => {
    await expect(initProcessGroup()).rejects.toThrow(/environment variable RANK/)
    Object.assign(process.env, { RANK: '0', WORLD_SIZE: 'two', MASTER_ADDR: '127.0.0.1', MASTER_PORT: '0' })
    await expect(initProcessGroup()).rejects.toThrow(/WORLD_SIZE, got "two"/)
    process.env.WORLD_SIZE = '1'
    process.env.RANK = '1'
    await expect(initProcessGroup()).rejects.toThrow(/a rank below 1, the number of processes, got 1/)
    process.env.RANK = '0'
    delete process.env.MASTER_ADDR
    await expect(initProcessGroup()).rejects.toThrow(/MASTER_ADDR/)
    expect(isInitialized()).toBe(false)
  })

  it('refuses wrong options and a backend that this build lacks', async () => {
    const here = { rank: 0, worldSize: 1, masterAddr: '127.0.0.1', masterPort: 0 }
    await expect(initProcessGroup({ ...here, backend: 'mpi' as 'gloo' })).rejects.toThrow(ConfigError)
    await expect(initProcessGroup({ ...here, timeOut: 3 } as object)).rejects.toThrow(/timeout/)
    await expect(initProcessGroup({ ...here, timeout: -1 })).rejects.toThrow(ConfigError)
    await expect(initProcessGroup({ ...here, masterAddr: 5 } as never)).rejects.toThrow(/expected masterAddr/)
    await expect(initProcessGroup({ ...here, worldSize: 2, rank: 2 })).rejects.toThrow(ConfigError)
  })

  it('opens a world of one, closes it and opens it again', async () => {
    const here = { rank: 0, worldSize: 1, masterAddr: '127.0.0.1', masterPort: 0, timeout: 5000 }
    for (let i = 0; i < 2; i++) {
      await initProcessGroup(here)
      await expect(initProcessGroup(here)).rejects.toThrow(/expected no open process group/)
      const value = tensor([2, 3], { dtype: 'float32' })
      await allReduce(value, { op: 'mean' })
      expect(value.toArray()).toEqual([2, 3])
      const ddp = new DistributedDataParallel(new Linear(2, 1))
      await (await ddp.forward(tensor([[1, 2]], { dtype: 'float32' }))).sum().backward()
      expect(ddp.module.weight.grad?.toArray()).toEqual([[1, 2]])
      await destroyProcessGroup()
      expect(isInitialized()).toBe(false)
      await expect(ddp.forward(tensor([[1, 2]], { dtype: 'float32' }))).rejects.toThrow(/destroyed/)
    }
  })
})

describe('without a process group', () => {
  it('rank and size are those of one process, or what the launcher said', () => {
    expect([getRank(), getWorldSize(), isMainProcess()]).toEqual([0, 1, true])
    Object.assign(process.env, { RANK: '1', WORLD_SIZE: '4' })
    expect([getRank(), getWorldSize(), isMainProcess()]).toEqual([1, 4, false])
  })

  it('what talks to others says what to do', async () => {
    await expect(allReduce(tensor([1]))).rejects.toThrow(/initProcessGroup\(\) first/)
    expect(() => new DistributedDataParallel(new Linear(1, 1))).toThrow(/initProcessGroup\(\) first/)
    const params = new Linear(1, 1).parameters()
    expect(() => new ZeroRedundancyOptimizer(params, (p) => new SGD(p, { lr: 1 }))).toThrow(
      /initProcessGroup\(\) first/,
    )
    expect(await reduceMetrics({ loss: 2 })).toEqual({ loss: 2 })
    Object.assign(process.env, { RANK: '1', WORLD_SIZE: '4' })
    await expect(reduceMetrics({ loss: 2 })).rejects.toThrow(/initProcessGroup\(\) first/)
    await expect(reduceMetrics(3 as never)).rejects.toThrow(/reduceMetrics: expected metrics/)
    expect(() => new DistributedDataParallel({} as never)).toThrow(/expected a Module/)
  })
})

describe('DistributedSampler', () => {
  const parts = (size: number, worldSize: number, options: object = {}) =>
    Array.from({ length: worldSize }, (_, rank) => [
      ...new DistributedSampler(size, { shuffle: false, ...options, rank, worldSize }),
    ])

  // The numbers are those of torch.utils.data.DistributedSampler(range(size), worldSize, rank, shuffle=False).
  it.each([
    [
      10,
      2,
      false,
      [
        [0, 2, 4, 6, 8],
        [1, 3, 5, 7, 9],
      ],
    ],
    [
      11,
      3,
      false,
      [
        [0, 3, 6, 9],
        [1, 4, 7, 10],
        [2, 5, 8, 0],
      ],
    ],
    [
      11,
      3,
      true,
      [
        [0, 3, 6],
        [1, 4, 7],
        [2, 5, 8],
      ],
    ],
    [2, 5, false, [[0], [1], [0], [1], [0]]],
    [2, 5, true, [[], [], [], [], []]],
  ])('divides %i samples between %i ranks (dropLast: %s) as PyTorch does', (size, world, dropLast, expected) => {
    expect(parts(size, world, { dropLast })).toEqual(expected)
    expect(new DistributedSampler(size, { rank: 0, worldSize: world, dropLast }).length).toBe(expected[0]?.length)
  })

  it('orders by seed and epoch, alike on all ranks', () => {
    const orders = [0, 1].map((epoch) => {
      const all = [0, 1, 2].map((rank) => {
        const sampler = new DistributedSampler(30, { seed: 5, rank, worldSize: 3 })
        sampler.setEpoch(epoch)
        return [...sampler]
      })
      expect(all.flat().sort((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_, i) => i))
      return all[0]
    })
    expect(orders[0]).not.toEqual(orders[1])
    expect([...new DistributedSampler(30, { seed: 6, rank: 0, worldSize: 3 })]).not.toEqual(orders[0])
  })

  it('refuses ranks that are not there and unknown options', () => {
    expect(() => new DistributedSampler(3, { rank: 2, worldSize: 2 })).toThrow(ConfigError)
    expect(() => new DistributedSampler(-1)).toThrow(ConfigError)
    const [fresh, first] = [0, 1].map(() => new DistributedSampler(20, { rank: 0, worldSize: 2 }))
    first?.setEpoch(0)
    expect([...(fresh as DistributedSampler)]).toEqual([...(first as DistributedSampler)])
    expect(() => new DistributedSampler(3, { dropLsat: true } as object)).toThrow(/dropLast/)
  })
})
