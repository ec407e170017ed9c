import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, test } from 'vitest'
import { arange, emptyCache, full, memoryStats, ops, scope, type Tensor, zeros } from '../../lib/index.js'

const library = new URL('../../dist/index.js', import.meta.url).href
const MiB = 2 ** 20
const cached = () => memoryStats().cachedBytes

afterEach(emptyCache)

/** Bytes cached, after a program that ends by printing them. */
async function inProcess(program: string, environment: Record<string, string> = {}): Promise<number> {
  const code = `import { emptyCache, memoryStats, zeros } from ${JSON.stringify(library)}\n${program}\nconsole.log(memoryStats().cachedBytes)`
  const env = { ...process.env, ...environment }
  const { stdout, stderr } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code], { env })
  expect(stderr).toBe('')
  return Number(stdout)
}

describe('the cache of CPU memory', () => {
  test('keeps what is freed, gives it to the next tensor of about that size, and emptyCache() gives it back', () => {
    emptyCache()
    expect(cached()).toBe(0)
    zeros([4 * MiB]).dispose()
    const kept = cached()
    expect(kept).toBeGreaterThanOrEqual(16 * MiB)
    expect(kept).toBeLessThan(1.13 * 16 * MiB + 4096)
    const again = zeros([4 * MiB - 1000])
    expect(cached()).toBeLessThan(8192)
    again.dispose()
    expect(cached()).toBe(kept)
    emptyCache()
    expect(cached()).toBe(0)
  })

  test('cuts what is freed for smaller tensors, and joins it again for a larger one', () => {
    emptyCache()
    zeros([8 * MiB]).dispose()
    const kept = cached()
    const parts = [3, 1, 2, 1].map((size) => zeros([size * MiB]))
    expect(cached()).toBeLessThan(kept - 27 * MiB)
    expect(cached()).toBeGreaterThan(kept - 29 * MiB)
    for (const i of [1, 3, 0, 2]) parts[i]?.dispose()
    expect(cached()).toBe(kept)
    const whole = zeros([8 * MiB])
    expect(cached()).toBeLessThan(MiB)
    whole.dispose()
  })

  test('keeps every byte through random lives and sizes', () => {
    let state = 1
    const random = (below: number) => {
      state = (state * 48271) % 0x7fffffff
      return state % below
    }
    const living: { tensor: Tensor; value: number }[] = []
    for (let i = 0; i < 4000; i += 1) {
      const size = 1 + random(2 ** (4 + random(16)))
      living.push({ tensor: full([size], i), value: i })
      if (living.length < 60) continue
      const { tensor, value } = living.splice(random(living.length), 1)[0] as (typeof living)[number]
      expect(
        scope(() => tensor.eq(value).all().item()),
        `tensor ${value} of ${tensor.shape}`,
      ).toBe(true)
      tensor.dispose()
    }
    for (const { tensor } of living) tensor.dispose()
  })

  test('never shares bytes between tensors that live', () => {
    const sizes = [1, 15, 16, 17, 255, 256, 257, 1000, 4096, 100_003, MiB - 16, MiB, 2 * MiB + 5]
    const holds = (round: number) =>
      scope(() => {
        const made = sizes.flatMap((size, i) => [0, 1, 2].map((k) => full([size], round * 1000 + i * 10 + k)))
        for (const [n, tensor] of made.entries()) {
          const value = round * 1000 + Math.floor(n / 3) * 10 + (n % 3)
          expect(tensor.eq(value).all().item(), `round ${round}, ${tensor.shape}`).toBe(true)
        }
      })
    for (let round = 0; round < 5; round += 1) holds(round)
  })

  test('serves threads that make what others free', async () => {
    const jobs = Array.from({ length: 400 }, (_, i) => ops.async.add(arange(i % 40), i))
    for (const [i, tensor] of (await Promise.all(jobs)).entries()) {
      expect(tensor.toArray()).toEqual(Array.from({ length: i % 40 }, (_, k) => k + i))
      tensor.dispose()
    }
    const code = `import(${JSON.stringify(library)}).then(({ arange, scope }) => {
      let sum = 0
      for (let i = 0; i < 2000; i++) scope(() => { sum += arange(i % 300).sum().item() })
      require('node:worker_threads').parentPort.postMessage(sum)
    })`
    const expected = Array.from({ length: 2000 }, (_, i) => ((i % 300) * ((i % 300) - 1)) / 2).reduce((a, b) => a + b)
    const sums = await Promise.all(
      [0, 1, 2].map(
        () =>
          new Promise((resolve, reject) => {
            const worker = new Worker(code, { eval: true, execArgv: [] })
            worker.once('message', resolve).once('error', reject)
          }),
      ),
    )
    expect(sums).toEqual([expected, expected, expected])
  })

  test('holds no more than a quarter above the peak of what was used, and 128 MiB', async () => {
    // Each size comes once: what cannot be used again would pile up.
    const program = 'for (let i = 4; i < 64; i++) zeros([i * 2 ** 18 * 2]).dispose()'
    const peak = 63 * 2 * MiB
    expect(await inProcess(program)).toBeLessThan(1.25 * peak + 128 * MiB)
  })

  test('is off where VOXTORCH_NO_CPU_CACHE says so', async () => {
    const program = 'zeros([2 ** 22]).dispose()'
    expect(await inProcess(program)).toBeGreaterThan(16 * MiB)
    expect(await inProcess(program, { VOXTORCH_NO_CPU_CACHE: '1' })).toBe(0)
  })

  test('what the system cannot give is an error, and the process goes on', () => {
    expect(() => zeros([2 ** 46])).toThrow(/allocate memory/)
    const one = zeros([3])
    expect(one.toArray()).toEqual([0, 0, 0])
    one.dispose()
  })
})
