import { join } from 'node:path'
import { loadSafetensors, readPickle, scope } from 'voxtorch'
import { rates } from './rates.mjs'
import { serve, timedBlocks } from './serve.mjs'

const folder = process.env.VOXTORCH_BENCH_FILES
const file = (name) => join(folder, name)

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
    ...rates,
  }),
)
