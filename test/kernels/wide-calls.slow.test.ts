import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, it } from 'vitest'
import { getNumThreads, ops, randn, setNumThreads } from '../../lib/index.js'
import { here } from '../helpers.js'

const LARGE = 1 << 18
const before = getNumThreads()

afterEach(() => setNumThreads(before))

describe.skipIf(here() === 'cuda')('a large synchronous operator', () => {
  it('is called by workers at the same time, each of which gets its own values', async () => {
    setNumThreads(2)
    const code = `
      const { parentPort, workerData } = require('node:worker_threads')
      import(workerData.library).then(({ ones, ops, scope }) => {
        for (let i = 0; i < 50; i++) scope(() => {
          const x = ones([512, 512]).mul(workerData.value)
          const found = x.matmul(ones([512, 512])).at(3).at(4).item()
          if (found !== 512 * workerData.value) throw new Error('got ' + found)
          ops.gelu(x)
        })
        parentPort.postMessage('done')
      })`
    const library = new URL('../../dist/modules/index.js', import.meta.url).href
    const ended = [1, 2, 3].map(
      (value) =>
        new Promise((resolve, reject) => {
          const worker = new Worker(code, { eval: true, workerData: { library, value } })
          worker.once('message', resolve)
          worker.once('error', reject)
        }),
    )
    for (let i = 0; i < 20; i++) ops.gelu(randn([LARGE]))
    expect(await Promise.all(ended)).toEqual(['done', 'done', 'done'])
  })
})
