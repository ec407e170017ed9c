import { afterEach, describe, expect, test } from 'vitest'
import {
  autograd,
  getNumThreads,
  manualSeed,
  memoryStats,
  noGrad,
  ones,
  ops,
  randn,
  scope,
  setNumThreads,
  type Tensor,
  tensor,
  withDevice,
  zeros,
} from '../../lib/index.js'
import { opAsync } from '../../lib/native/call.js'
import { settledTensors } from '../helpers.js'

const busy = expect.objectContaining({ name: 'BusyError', code: 'ERR_BUSY' })

/** A job that takes long enough to look at it while it is queued: hundreds of milliseconds. */
const slow = (x: Tensor): Promise<Tensor> => ops.async.linalgMatrixPower(x, 2 ** 30)
const large = zeros([700, 700]).add(ops.eye(700))

afterEach(async () => {
  // Nothing of one test is left in the queue of the next.
  await ops.async.zeros([1]).then((value) => value.dispose())
})

describe('ops.async', () => {
  test('gives what ops gives', () =>
    scope(async () => {
      const x = tensor([
        [1.5, 2],
        [4, 3],
      ])
      expect((await ops.async.matmul(x, x)).toArray()).toEqual(ops.matmul(x, x).toArray())
      const { values, indices } = await ops.async.max(x, 1)
      expect([values.toArray(), indices.toArray()]).toEqual([
        [2, 4],
        [1, 0],
      ])
      expect((await ops.async.split(x, 1)).map((part) => part.shape)).toEqual([
        [1, 2],
        [1, 2],
      ])
      expect(await ops.async.numel(x)).toBe(4)
      expect(await ops.async.equal(x, x)).toBe(true)
      expect(await ops.async.item(x.sum())).toBe(10.5)
      expect((await ops.async.sum(x, [1], { keepdim: true })).shape).toEqual([2, 1])
      expect((await ops.async.zeros([2])).toArray()).toEqual([0, 0])
      expect(await ops.async.add_(x, 1)).toBe(x)
      expect(x.at(0, 0).item()).toBe(2.5)
      expect((await withDevice('meta', () => ops.async.zeros([2]))).device).toBe('meta')
    }))

  test('runs in the order of queueing', () =>
    scope(async () => {
      const x = zeros([1])
      const order: number[] = []
      const jobs: Promise<unknown>[] = []
      for (let i = 1; i <= 20; i += 1) {
        jobs.push(ops.async.mul_(x, 2).then(() => order.push(2 * i)))
        jobs.push(ops.async.add_(x, i % 2).then(() => order.push(2 * i + 1)))
      }
      await Promise.all(jobs)
      expect(order).toEqual(Array.from({ length: 40 }, (_, i) => i + 2))
      let expected = 0
      for (let i = 1; i <= 20; i += 1) expected = expected * 2 + (i % 2)
      expect(x.item()).toBe(expected)
    }))

  test('data() reads in the order of queueing, too', () =>
    scope(async () => {
      const x = zeros([1])
      const add = ops.async.add_(x, 5)
      const read = x.data()
      const again = ops.async.add_(x, 5)
      expect(Array.from((await read) as Float32Array)).toEqual([5])
      await Promise.all([add, again])
      expect(x.item()).toBe(10)
    }))

  test('a failed job does not stop the next', () =>
    scope(async () => {
      const x = ones([2])
      const results = await Promise.allSettled([
        ops.async.add(x, 1),
        ops.async.matmul(x, ones([3])),
        ops.async.add(x, 2),
      ])
      expect(results.map((result) => result.status)).toEqual(['fulfilled', 'rejected', 'fulfilled'])
    }))

  test('rejects what cannot be queued, and never throws', () =>
    scope(async () => {
      const queue: [() => Promise<unknown>, string][] = [
        [() => ops.async.add(ones([1]), '1' as never), 'ERR_CONFIG'],
        [() => ops.async.add(ones([1]), Symbol('x') as never), 'ERR_CONFIG'],
        [() => (ops.async.matmul as unknown as () => Promise<unknown>)(), 'ERR_CONFIG'],
      ]
      for (const [start, code] of queue) await expect(start()).rejects.toThrow(expect.objectContaining({ code }))
    }))

  test('an error has the class of its cause and the stack of the caller', async () => {
    async function theCaller(x: Tensor): Promise<Tensor> {
      return ops.async.matmul(x, x)
    }
    const x = ones([2, 3])
    const error = await theCaller(x).then(
      () => null,
      (reason) => reason,
    )
    expect(error).toMatchObject({ name: 'ShapeError', op: 'matmul' })
    expect(error.stack).toMatch(/^ShapeError: matmul/)
    expect(error.stack).toMatch(/theCaller[\s\S]*executor\.test/)
    x.dispose()
  })

  test('so has a failed backward', async () => {
    async function trainingStep(): Promise<void> {
      await ones([1]).backward()
    }
    const error = await trainingStep().then(
      () => null,
      (reason) => reason,
    )
    expect(error.name).toBe('GradientError')
    expect(error.stack).toMatch(/trainingStep[\s\S]*executor\.test/)
  })

  test('a result that is awaited late or never is freed by its scope', async () => {
    const before = await settledTensors()
    await scope(async () => {
      void ops.async.add(ones([1]), 1)
      await ops.async.zeros([1])
    })
    expect(memoryStats().liveTensors).toBeLessThanOrEqual(before)
  })
})

test('a backward pass gives the same bits whether it runs at once or behind a queued job', async () => {
  const gradients = (isQueued: boolean) =>
    scope(async () => {
      manualSeed(5)
      const [x, w, b] = [randn([101, 100]), randn([100, 400]), randn([400])].map((one) => one.requiresGrad_())
      const loss = x.matmul(w).add(b).mul(0.1).sigmoid().sum([0]).square().mean()
      // In the graph's way: the executor still has it when backward is called.
      const before = isQueued ? slow(large) : null
      await loss.backward()
      await before
      return [x, w, b].map((one) => (one.grad as Tensor).flatten().toArray())
    })
  const usual = getNumThreads()
  for (const threads of [1, 2, 3, usual]) {
    setNumThreads(threads)
    const queued = await gradients(true)
    for (let i = 0; i < 3; i += 1) expect(await gradients(false)).toEqual(queued)
  }
})

test('jobs are counted until their promises settle', async () => {
  for (let i = 0; i < 300; i += 1) {
    const job = ops.async.zeros([1])
    expect(memoryStats().queuedJobs, `round ${i}`).toBeLessThanOrEqual(1)
    ;(await job).dispose()
    expect(memoryStats().queuedJobs, `round ${i}`).toBe(0)
  }
})

describe('the event loop', () => {
  test('turns while a long job runs', async () => {
    let turns = 0
    let running = true
    const job = slow(large).finally(() => {
      running = false
    })
    while (running) {
      await new Promise((resolve) => setImmediate(resolve))
      if (running) turns += 1
    }
    expect(turns).toBeGreaterThan(3)
    ;(await job).dispose()
  })

  test('synchronous operators go on beside it', async () => {
    let count = 0
    let running = true
    const job = slow(large).finally(() => {
      running = false
    })
    while (running) {
      scope(() => ones([2]).add(count))
      count += 1
      if (count % 100 === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    expect(count).toBeGreaterThan(100)
    ;(await job).dispose()
  })
})

describe('memory that a queued job uses', () => {
  test('may be read, not changed, while the job reads it', () =>
    scope(async () => {
      const x = large.clone()
      const job = slow(x)
      expect(() => x.add_(1)).toThrow(busy)
      expect(() => x.at(0).zero_()).toThrow(busy)
      expect(() => x.setAt([0], 1)).toThrow(busy)
      expect(() => x.t().mul_(2)).toThrow(busy)
      expect(() => x.setData(ones([1]))).toThrow(busy)
      expect(() => x.copy_(large)).toThrow(busy)
      expect(() => ops.add(large, 1, { out: x } as never)).toThrow(busy)
      expect(() => x.detach().add_(1)).toThrow(busy)
      expect(x.sum().item()).toBe(700)
      expect(x.add(1).at(0, 0).item()).toBe(2)
      await job
      expect(x.add_(1)).toBe(x)
    }))

  test('may not even be read while the job writes it', () =>
    scope(async () => {
      const x = large.clone()
      const view = x.at(0)
      const first = slow(large)
      const job = ops.async.mul_(x, 3)
      expect(() => x.sum()).toThrow(busy)
      expect(() => x.toArray()).toThrow(busy)
      expect(() => x.dataSync()).toThrow(busy)
      expect(() => x.item()).toThrow(expect.objectContaining({ code: expect.stringMatching(/^ERR_/) }))
      expect(() => x.at(0, 0).item()).toThrow(busy)
      expect(() => String(x)).toThrow(busy)
      expect(() => view.add(1)).toThrow(busy)
      expect(() => ops.cat([x, x])).toThrow(busy)
      expect(() => zeros([700, 700]).copy_(x)).toThrow(busy)
      expect(() => x.clone()).toThrow(busy)
      expect.soft(() => zeros([2, 700]).setAt([0], view)).toThrow(busy)
      // What does not touch the values.
      expect([x.shape, x.dtype, x.disposed]).toEqual([[700, 700], 'float32', false])
      await job
      expect(x.at(0, 0).item()).toBe(3)
      await first
    }))

  test('as an index of at and setAt', () =>
    scope(async () => {
      const index = zeros([1], { dtype: 'int64' })
      const first = slow(large)
      const job = ops.async.add_(index, 1)
      const x = ones([3])
      expect.soft(() => x.at(index)).toThrow(busy)
      expect.soft(() => x.clone().setAt([index], 5)).toThrow(busy)
      await job
      expect(x.setAt([index], 5).toArray()).toEqual([1, 5, 1])
      await first
    }))

  test('as a gradient that is read, replaced or cleared', () =>
    scope(async () => {
      const x = large.clone().requiresGrad_()
      await x.sum().backward()
      const gradient = x.grad!
      const first = slow(large)
      const pass = x.mul(2).sum().backward()
      expect(() => x.grad).toThrow(busy)
      expect(() => {
        x.grad = null
      }).toThrow(busy)
      expect(() => gradient.sum()).toThrow(busy)
      expect(() => gradient.zero_()).toThrow(busy)
      // The leaf itself is only read.
      expect(x.detach().sum().item()).toBe(700)
      expect(() => noGrad(() => x.add_(1))).toThrow(busy)
      await pass
      expect(x.grad!.at(0, 0).item()).toBe(3)
      await first
    }))

  test('as what backward has saved', () =>
    scope(async () => {
      const x = large.clone().requiresGrad_()
      const hidden = x.mul(1)
      const y = hidden.pow(2).sum()
      const first = slow(large)
      const pass = y.backward().catch(() => {})
      expect(() => noGrad(() => hidden.add_(1))).toThrow(busy)
      await first
      await pass
      expect(x.grad!.at(0, 0).item()).toBe(2)
    }))

  test('as the retained gradient of an inner tensor', () =>
    scope(async () => {
      const x = large.clone().requiresGrad_()
      const hidden = x.mul(1).retainGrad()
      const y = hidden.pow(2).sum()
      const first = slow(large)
      const pass = y.backward()
      expect(() => hidden.grad).toThrow(busy)
      await first
      await pass
      expect(hidden.grad!.at(0, 0).item()).toBe(2)
    }))

  test('autograd.grad leaves the grad fields free', () =>
    scope(async () => {
      const x = large.clone().requiresGrad_()
      const first = slow(large)
      const pass = autograd.grad(x.mul(2).sum(), x)
      expect(x.grad).toBeNull()
      await first
      expect((await pass)[0]!.at(0, 0).item()).toBe(2)
    }))

  test('is free again after a job that failed', () =>
    scope(async () => {
      const x = ones([2, 3])
      await expect(ops.async.matmul(x, x)).rejects.toThrow(/cannot be multiplied/)
      await expect(ops.async.add_(x, ones([7]))).rejects.toThrow(/must match the size/)
      expect(x.add_(1).sum().item()).toBe(12)
    }))

  test('is as busy as it was after a call that could not be queued', () =>
    scope(async () => {
      const x = large.clone()
      const gone = ones([1])
      gone.dispose()
      await expect(ops.async.add(x, gone)).rejects.toThrow(expect.objectContaining({ code: 'ERR_DISPOSED' }))
      const job = slow(x)
      expect(() => x.add_(1)).toThrow(busy)
      await job
      expect(x.add_(1)).toBe(x)
    }))

  test('is free once the result is there, without another turn', () =>
    scope(async () => {
      for (let i = 0; i < 200; i += 1) {
        const x = ones([4])
        await ops.async.add_(x, 1)
        expect(x.add_(1).at(0).item()).toBe(3)
      }
    }))

  test('a call that fails on busy memory changes nothing', () =>
    scope(async () => {
      const [x, y] = [large.clone(), ones([700, 700])]
      const job = slow(x)
      expect(() => ops.add(y, x, { out: x } as never)).toThrow(busy)
      await job
      expect([x.at(0, 1).item(), y.at(0, 0).item()]).toEqual([0, 1])
    }))
})

test('setNumThreads is for the executor, and is checked', async () => {
  const threads = async () => Number(await opAsync('voxtorch::parallel_threads')())
  setNumThreads(1)
  expect(await threads()).toBe(1)
  setNumThreads(2)
  expect(await threads()).toBe(2)
  for (const wrong of [0, -1, 1.5, Number.NaN, 1e9, '2']) {
    expect(() => setNumThreads(wrong as number)).toThrow(expect.objectContaining({ code: 'ERR_CONFIG' }))
  }
})

test('warnings of libtorch become process warnings, from calls and from jobs', async () => {
  const seen: Error[] = []
  const listen = (warning: Error) => seen.push(warning)
  process.on('warning', listen)
  try {
    await scope(async () => {
      const x = ones([1], { requiresGrad: true })
      await x.mul(x).backward({ createGraph: true })
      x.grad = null
      // An `out` of the wrong size is resized with a warning.
      ops.add(ones([3]), 1, { out: zeros([2]) } as never)
      await new Promise((resolve) => setImmediate(resolve))
    })
  } finally {
    process.off('warning', listen)
  }
  expect(seen.map((warning) => warning.name)).toEqual(['LibtorchWarning', 'LibtorchWarning'])
  expect(seen[0]!.message).toMatch(/create_graph=True/)
  expect(seen[1]!.message).toMatch(/resized/)
})
