import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { getNumThreads, setNumThreads } from '../../lib/index.js'
import { op, opAsync } from '../../lib/native/call.js'

// native/core counts the threads that its own at::parallel_for really ran on.
test('parallel_for in core uses every thread on the executor and one elsewhere', async () => {
  expect(Number(await opAsync('voxtorch::parallel_threads')())).toBe(getNumThreads())
  setNumThreads(2)
  expect(Number(await opAsync('voxtorch::parallel_threads')())).toBe(2)
  expect(Number(op('voxtorch::parallel_threads')())).toBe(1)
})

test.runIf(process.platform === 'linux')('one OpenMP runtime is mapped', () => {
  const mapped = new Set(readFileSync('/proc/self/maps', 'utf8').match(/\/\S*lib(?:gomp|iomp|omp)[^\s/]*/g))
  expect([...mapped]).toHaveLength(1)
})
