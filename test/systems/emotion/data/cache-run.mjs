// A feature cache that the tests kill while it fills: `node cache-run.mjs FOLDER`. Prints "done N" after each batch, and in the
// end "computed N" and "hash H" of all vectors.

import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import * as vt from 'voxtorch'
import { FeatureCache } from 'voxtorch/emotion'

const [folder] = process.argv.slice(2)
vt.setNumThreads(1)
const dialogs = Array.from({ length: 30 }, (_, d) => ({
  ...{ id: String(d), source: `made ${d}` },
  utterances: Array.from({ length: 4 }, (_, u) => ({ id: u, text: `${d} ${u}`, speaker: 'A' })),
}))
let computed = 0
const encoder = {
  ...{ modality: 'text', size: 6, network: null, recipe: { encoder: 'made' } },
  source: async ({ utterances }, place) => utterances[place].text,
  read: async ({ utterances }, place) => utterances[place].text.split(' ').map(Number),
  async encode(inputs) {
    computed += inputs.length
    // Long enough for a kill.
    await sleep(30)
    return vt.scope(() =>
      vt
        .tensor(inputs, { dtype: 'float32' })
        .matmul(vt.ones([2, 6]))
        .sin(),
    )
  },
}
const cache = FeatureCache.open(folder)
const vectors = await cache.vectors(encoder, dialogs, {
  batchSize: 5,
  onProgress: ({ done }) => console.log(`done ${done}`),
})
await cache.close()
const hash = createHash('sha256')
for (const vector of vectors.flat()) hash.update(vector)
console.log(`computed ${computed}`)
console.log(`hash ${hash.digest('hex')}`)
