import { describe, expect, test } from 'vitest'
import {
  AutogradFunction,
  autograd,
  type FunctionContext,
  memoryStats,
  ones,
  ops,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import { counts } from './counts.js'

const collect = globalThis.gc as () => void
const macrotask = () => new Promise((resolve) => setTimeout(resolve, 5))

/** Garbage collections until `done` holds, or 50 were in vain. What a WeakRef gave stays alive for its macrotask. */
async function collectUntil(done: () => boolean): Promise<boolean> {
  for (let i = 0; i < 50; i += 1) {
    if (done()) return true
    await macrotask()
    collect()
    await macrotask()
  }
  return done()
}

const live = () => memoryStats().liveTensors
const MB = 2 ** 20

describe('garbage collection', () => {
  test('frees tensors that belong to no scope', async () => {
    const before = live()
    ;(() => {
      for (let i = 0; i < 100; i += 1) ones([10]).add(1)
    })()
    expect(await collectUntil(() => live() <= before)).toBe(true)
  })

  test('leaves what is still used', async () => {
    const x = ones([3])
    const gone = new WeakRef(x.add(1))
    expect(await collectUntil(() => gone.deref() === undefined)).toBe(true)
    expect(x.sum().item()).toBe(3)
    x.dispose()
  })

  test('frees what was kept out of a scope', async () => {
    const before = live()
    ;(() => scope(() => [ones([1]), ones([1])]))()
    expect(await collectUntil(() => live() <= before)).toBe(true)
  })

  test('frees results of jobs and of promises that nobody awaited', async () => {
    const before = live()
    ;(() => {
      const x = ones([4])
      void ops.async.add(x, 1)
      void ops.async.max(x.view(2, 2), 1)
      void x.data()
    })()
    await macrotask()
    expect(await collectUntil(() => live() <= before)).toBe(true)
  })

  test('a disposed tensor’s slot is not freed a second time when its object is collected', async () => {
    ;(() => {
      for (let i = 0; i < 50; i += 1) ones([1]).dispose()
    })()
    const others = Array.from({ length: 50 }, (_, i) => tensor([i]))
    for (let i = 0; i < 5; i += 1) {
      collect()
      await macrotask()
    }
    expect(others.map((value) => value.item())).toEqual(others.map((_, i) => i))
    for (const value of others) value.dispose()
  })

  test('a graph is freed with its last tensor: custom functions do not hold it', async () => {
    const before = live()
    const kept: WeakRef<object>[] = []
    class Scale extends AutogradFunction {
      static override forward(ctx: FunctionContext, x: Tensor): Tensor {
        ctx.big = { memory: new Array(1000).fill(0) }
        kept.push(new WeakRef(ctx), new WeakRef(ctx.big))
        return x.mul(2)
      }
      static override backward(_: FunctionContext, gradient: Tensor): Tensor {
        return gradient.mul(2)
      }
    }
    await (async () => {
      const x = ones([2], { requiresGrad: true })
      await Scale.apply(x).sum().backward()
      // And one that never runs backward.
      Scale.apply(x)
    })()
    expect(await collectUntil(() => live() <= before && kept.every((ref) => ref.deref() === undefined))).toBe(true)
  })

  test('nor do hooks', async () => {
    const before = live()
    const kept: WeakRef<object>[] = []
    ;(() => {
      for (const x of [ones([2], { requiresGrad: true }), ones([2], { requiresGrad: true }).mul(2)]) {
        const hook = () => {}
        kept.push(new WeakRef(hook))
        x.registerHook(hook)
      }
    })()
    expect(await collectUntil(() => live() <= before && kept.every((ref) => ref.deref() === undefined))).toBe(true)
  })

  test('a removed hook is forgotten while its tensor lives', async () => {
    const x = ones([1], { requiresGrad: true })
    const ref = (() => {
      const hook = () => {}
      x.registerHook(hook)()
      return new WeakRef(hook)
    })()
    expect(await collectUntil(() => ref.deref() === undefined)).toBe(true)
    x.dispose()
  })

  test('a scope’s tensors are not waited for: they need no collection', () => {
    const before = live()
    scope(() => {
      for (let i = 0; i < 1000; i += 1) ones([1])
    })
    expect(live()).toBe(before)
  })
})

describe('what V8 is told', () => {
  // What is reported to V8, which shows it nowhere since its heap statistics count array buffers only.
  const external = () => memoryStats().liveBytes

  test('grows with a CPU tensor and falls when it goes', () => {
    const before = external()
    const x = zeros([64, MB / 4])
    expect(external() - before).toBeGreaterThan(60 * MB)
    x.dispose()
    expect(external() - before).toBeLessThan(4 * MB)
  })

  test('counts a storage once: not its views, nor what a view is made of again', () => {
    const x = zeros([16, MB / 4])
    const before = external()
    const views = [x.at(0), x.view(-1), x.detach(), x.t(), x.at(1).unsqueeze(0), x.expand(2, 16, MB / 4)]
    expect(Math.abs(external() - before)).toBeLessThan(2 * MB)
    for (const value of views) value.dispose()
    expect(Math.abs(external() - before)).toBeLessThan(2 * MB)
    x.dispose()
    expect(before - external()).toBeGreaterThan(14 * MB)
  })

  test('in-place operators count nothing', () => {
    const x = zeros([16, MB / 4])
    const before = external()
    x.add_(1).mul_(2)
    expect(Math.abs(external() - before)).toBeLessThan(2 * MB)
    x.dispose()
  })

  test('many small tensors count together', () => {
    const before = external()
    const made = Array.from({ length: 1000 }, () => zeros([MB / 64]))
    expect(external() - before).toBeGreaterThan(55 * MB)
    for (const value of made) value.dispose()
    expect(external() - before).toBeLessThan(4 * MB)
  })

  test('a scope gives back what was made in it', () => {
    const before = external()
    scope(() => {
      zeros([64, MB / 4])
      expect(external() - before).toBeGreaterThan(60 * MB)
    })
    expect(external() - before).toBeLessThan(4 * MB)
  })

  test('meta tensors have no memory', () => {
    const before = external()
    const x = zeros([2 ** 40], { device: 'meta' })
    expect(Math.abs(external() - before)).toBeLessThan(2 * MB)
    x.dispose()
  })

  test('results of jobs are told of too', async () => {
    const before = external()
    const x = await ops.async.zeros([64, MB / 4])
    expect(external() - before).toBeGreaterThan(60 * MB)
    x.dispose()
    expect(external() - before).toBeLessThan(4 * MB)
  })

  test('pressure makes V8 collect: a loop outside scopes does not grow without bound', async () => {
    const before = process.memoryUsage().rss
    for (let i = 0; i < 100; i += 1) {
      zeros([16, MB / 4]).add_(1)
      await new Promise((resolve) => setImmediate(resolve))
    }
    // 1.6 GiB were made.
    expect(process.memoryUsage().rss - before).toBeLessThan(800 * MB)
  })
})

describe('counts', () => {
  test('memoryStats', async () => {
    const before = memoryStats()
    const x = ones([256])
    const view = x.at(0)
    const now = memoryStats()
    expect(now.liveTensors - before.liveTensors).toBe(2)
    expect(now.liveBytes - before.liveBytes).toBe(1024)
    scope(() => expect(memoryStats().liveScopes - before.liveScopes).toBe(1))
    x.dispose()
    view.dispose()
    expect(memoryStats()).toEqual(before)
  })

  test('gradients are freed with their tensor', async () => {
    const before = counts()
    const x = ones([1000], { requiresGrad: true })
    await scope(() => x.mul(2).sum().backward())
    x.grad!.dispose()
    x.dispose()
    expect(counts()).toEqual(before)
  })

  test('a training loop holds steady', async () => {
    // What earlier tests forgot must not be freed in the middle.
    for (let i = 0; i < 3; i += 1) {
      collect()
      await macrotask()
    }
    const weight = ones([10, 10], { requiresGrad: true })
    const seen = new Set<string>()
    for (let step = 0; step < 50; step += 1) {
      await scope(async () => {
        const loss = ones([4, 10]).matmul(weight).relu().mean()
        const [gradient] = await autograd.grad(loss, weight)
        weight.detach().sub_(gradient!.mul(0.01))
      })
      seen.add(JSON.stringify(counts()))
    }
    expect(seen.size).toBe(1)
    weight.dispose()
  })
})
