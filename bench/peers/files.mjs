import { join } from 'node:path'
import { loadSafetensors, ops, randn, readPickle, scope } from 'voxtorch'
import { serve, timedBlocks } from './serve.mjs'

const folder = process.env.VOXTORCH_BENCH_FILES
const file = (name) => join(folder, name)
const wide = randn([1024, 1024])
const tall = randn([1024, 1024])
const matrix = randn([4096, 4096])
const vector = randn([4096])

/** Runs a job n times and frees what it made. */
const repeated = (job) => async (n) => {
  for (let i = 0; i < n; i++) {
    await scope(async () => {
      await job()
    })
  }
}

await serve(
  timedBlocks({
    safetensorsCopy: repeated(() => loadSafetensors(file('model.safetensors'))),
    safetensorsMap: repeated(() => loadSafetensors(file('model.safetensors'), { mmap: true })),
    safetensorsDefault: repeated(() => loadSafetensors(file('model.safetensors'))),
    pickle: repeated(() => readPickle(file('mosi.pkl'))),
    gemm: repeated(() => ops.async.matmul(wide, tall)),
    gemv: repeated(() => ops.async.matmul(matrix, vector)),
  }),
)
