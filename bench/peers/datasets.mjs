import { DataLoader } from 'voxtorch'
import { loadDataset } from 'voxtorch/files'
import { serve } from './serve.mjs'

const megabytes = () => process.memoryUsage().rss / 2 ** 20

/** Reads all rows once: seconds, and the growth of the resident memory after the first tenth of them. */
async function epoch({ file, loader }) {
  const dataset = await loadDataset(file)
  const batches = loader ? new DataLoader(dataset, { batchSize: 32, shuffleBuffer: 1000 }) : dataset.iterate()
  let rows = 0
  let characters = 0
  let before = 0
  let most = 0
  const start = performance.now()
  for await (const item of batches) {
    for (const row of Array.isArray(item) ? item : [item]) {
      characters += row.text.length + row.messages[1].content.length
      rows++
      if (rows === 10_000) before = megabytes()
      if (rows > 10_000 && rows % 1000 === 0) most = Math.max(most, megabytes())
    }
  }
  return { rows, characters, seconds: (performance.now() - start) / 1000, growth: most - before, peak: most }
}

await serve(epoch)
