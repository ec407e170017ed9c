import { describe, expect, test } from 'vitest'
import { autocast, DataLoader, keepAlive, memoryStats, ones, ops, scope, type Tensor, tensor } from '../../lib/index.js'
import { counts } from './counts.js'

const live = () => memoryStats().liveTensors
const tick = () => new Promise((resolve) => setImmediate(resolve))

/** The change of the live count while `fn` runs, which must be synchronous: garbage collection cannot come between. */
function _change(fn: () => void): number {
  const before = live()
  fn()
  return live() - before
}

describe('an asynchronous scope', () => {
  test('lasts until the promise settles', async () => {
    const before = live()
    let early: Tensor | undefined
    const promise = scope(async () => {
      early = ones([1])
      await tick()
      const late = early.add(1)
      expect(early.disposed).toBe(false)
      await tick()
      return { late }
    })
    await tick()
    expect(early!.disposed).toBe(false)
    const { late } = await promise
    expect(early!.disposed).toBe(true)
    expect(live() - before).toBe(1)
    late.dispose()
    expect(live()).toBe(before)
  })

  test('what is made outside meanwhile is not its own', async () => {
    const promise = scope(async () => {
      await tick()
      ones([1])
      await tick()
    })
    const outside = ones([1])
    await promise
    expect(outside.disposed).toBe(false)
    outside.dispose()
  })

  test('a rejection frees everything', async () => {
    const before = counts()
    await expect(
      scope(async () => {
        ones([1])
        await tick()
        ones([1])
        throw new Error('mine')
      }),
    ).rejects.toThrow('mine')
    expect(counts()).toEqual(before)
  })

  test('many interleaved scopes free exactly their own', async () => {
    const before = counts()
    const tasks = Array.from({ length: 20 }, (_, i) =>
      scope(async () => {
        const own: Tensor[] = []
        for (let turn = 0; turn < 5; turn += 1) {
          own.push(tensor([i, turn]))
          await tick()
          scope(() => own[turn]!.add(1))
          expect(own.map((value) => value.toArray())).toEqual(own.map((_, t) => [i, t]))
        }
        if (i % 3 === 0) throw new Error('mine')
        return i % 2 === 0 ? own[0]! : null
      }),
    )
    const results = await Promise.allSettled(tasks)
    const kept = results.flatMap((result) =>
      result.status === 'fulfilled' && result.value !== null ? [result.value] : [],
    )
    expect(kept).toHaveLength(6)
    expect(live() - before.liveTensors).toBe(6)
    for (const value of kept) value.dispose()
    expect(counts()).toEqual(before)
  })

  test('nested', async () => {
    const before = counts()
    await scope(async () => {
      const inner = await scope(async () => {
        await tick()
        return [ones([1]), ones([1])]
      })
      expect(live() - before.liveTensors).toBe(2)
      expect(inner[0]!.disposed).toBe(false)
      scope(() => {
        ones([1])
      })
      expect(live() - before.liveTensors).toBe(2)
    })
    expect(counts()).toEqual(before)
  })

  test('a task that outlives its scope makes tensors in the scope around it', async () => {
    const before = counts()
    await scope(async () => {
      let late: Tensor | undefined
      let done: Promise<void> | undefined
      scope(() => {
        done = (async () => {
          await tick()
          late = ones([1])
        })()
      })
      await done
      expect(late!.disposed).toBe(false)
      expect(live() - before.liveTensors).toBe(1)
    })
    expect(counts()).toEqual(before)
  })

  test('a task that outlives every scope leaves tensors to garbage collection', async () => {
    let late: Tensor | undefined
    let done: Promise<void> | undefined
    scope(() => {
      done = (async () => {
        await tick()
        late = ones([1])
      })()
    })
    // Other scopes come and go in the numbers of the closed one.
    scope(() => {
      ones([1])
    })
    const other = scope(async () => {
      await done
      await tick()
    })
    await done
    await other
    expect(late!.disposed).toBe(false)
    late!.dispose()
  })

  test('the result of a job belongs to the scope that queued it', async () => {
    const before = counts()
    let result: Tensor | undefined
    await scope(async () => {
      result = await ops.async.add(ones([2]), 1)
      expect(live() - before.liveTensors).toBe(2)
    })
    expect(result!.disposed).toBe(true)
    expect(counts()).toEqual(before)
  })

  test('a job that ends after its scope: the result goes to the scope around, or to garbage collection', async () => {
    const before = live()
    let job: Promise<Tensor> | undefined
    scope(() => {
      job = ops.async.add(ones([2]), 1)
    })
    const result = await job!
    expect(result.toArray()).toEqual([2, 2])
    result.dispose()
    expect(live()).toBe(before)
  })

  test('inputs may be freed while a job uses them', async () => {
    const x = ones([300, 300])
    const job = ops.async.matmul(x, x)
    x.dispose()
    const result = await job
    expect(result.at(0, 0).item()).toBe(300)
    result.dispose()
  })

  test('keep in an async scope', async () => {
    const before = counts()
    const kept: Tensor[] = []
    await scope(async () => {
      await scope(async () => {
        await tick()
        kept.push(keepAlive(ones([1])))
      })
      expect(kept[0]!.disposed).toBe(false)
    })
    expect(kept[0]!.disposed).toBe(true)
    expect(counts()).toEqual(before)
  })

  test('a thenable that never settles keeps its tensors, one that settles at once frees them', async () => {
    const before = counts()
    const thenable = scope(() => {
      ones([1])
      // biome-ignore lint/suspicious/noThenProperty: that is the point.
      return { then: (resolve: (value: number) => unknown) => Promise.resolve(5).then(resolve) } as PromiseLike<number>
    })
    expect(await thenable).toBe(5)
    expect(counts()).toEqual(before)
  })

  // A query builder, for instance: nothing happens before somebody calls `then`, which gives nothing back.
  function lazy<T>(work: () => Promise<T>) {
    return {
      // biome-ignore lint/suspicious/noThenProperty: that is the point.
      then(resolve: (value: T) => void, reject: (error: unknown) => void): void {
        work().then(resolve, reject)
      },
    } as unknown as PromiseLike<T>
  }

  test('a thenable whose `then` returns nothing keeps the scope open until it settles, and gives its value', async () => {
    const before = counts()
    let inside: Tensor | undefined
    const result = scope(() =>
      lazy(async () => {
        inside = ones([2])
        await tick()
        expect(inside.disposed).toBe(false)
        return inside.add(1)
      }),
    )
    const value = await result
    expect(value.toArray()).toEqual([2, 2])
    expect(inside?.disposed).toBe(true)
    value.dispose()
    expect(counts()).toEqual(before)
    const failed = scope(() =>
      lazy(async () => {
        ones([1])
        await tick()
        throw new Error('mine')
      }),
    )
    await expect(failed).rejects.toThrow('mine')
    expect(counts()).toEqual(before)
  })

  test('a thenable of a thenable, a function with a `then`, and one whose `then` throws', async () => {
    const before = counts()
    const nested = scope(() => lazy(async () => ones([1]).dispose()))
    expect(await scope(() => lazy(async () => nested))).toBeUndefined()
    // biome-ignore lint/suspicious/noThenProperty: that is the point.
    const callable = Object.assign(() => 0, { then: (resolve: (value: number) => void) => resolve(3) })
    expect(await scope(() => callable)).toBe(3)
    const throwing = {
      // biome-ignore lint/suspicious/noThenProperty: that is the point.
      get then(): unknown {
        throw new Error('mine')
      },
    }
    expect(() =>
      scope(() => {
        ones([1])
        return throwing
      }),
    ).toThrow('mine')
    expect(counts()).toEqual(before)
  })

  test('autocast waits for a thenable too', async () => {
    const product = autocast({}, () => lazy(async () => ones([2, 2]).matmul(ones([2, 2]))))
    expect((await product).dtype).toBe('bfloat16')
  })

  test('an async generator’s body', async () => {
    const before = counts()
    async function* numbers() {
      for (let i = 0; i < 3; i += 1) {
        yield scope(() => ones([1]).mul(i))
      }
    }
    for await (const value of numbers()) value.dispose()
    expect(counts()).toEqual(before)
  })

  test('a DataLoader in a scope', async () => {
    const before = counts()
    await scope(async () => {
      for await (const batch of new DataLoader(
        [1, 2, 3, 4].map((value) => ({ value: Float32Array.of(value) })),
        { batchSize: 2 },
      ))
        void batch
    })
    expect(counts()).toEqual(before)
  })
})
