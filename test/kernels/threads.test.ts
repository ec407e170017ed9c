import { readFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { expect, test } from 'vitest'
import { getNumThreads } from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'

// native/core counts the threads that its own at::parallel_for really ran on.
test('parallel_for in core uses every thread on the executor and one elsewhere', async () => {
  const threads = Number(await opAsync('voxtorch::parallel_threads')())
  expect(threads).toBe(getNumThreads())
  if (availableParallelism() > 1) expect(threads).toBeGreaterThan(1)
  expect(Number(op('voxtorch::parallel_threads')())).toBe(1)
})

test.runIf(process.platform === 'linux')('one OpenMP runtime is mapped', () => {
  const mapped = new Set(readFileSync('/proc/self/maps', 'utf8').match(/\/\S*lib(?:gomp|iomp|omp)[^\s/]*/g))
  expect([...mapped]).toHaveLength(1)
})
