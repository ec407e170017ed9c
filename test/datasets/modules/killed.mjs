// Reads batches of a dataset and appends the ids of each, with the loader's state, to a log. Resumes from the last line of it.
import { appendFileSync, existsSync, readFileSync } from 'node:fs'

const { library, root, log, source, workers, rank, worldSize, shuffleBuffer } = JSON.parse(process.argv[2])
const { DataLoader } = await import(root)
const { loadDataset } = await import(library)
const options = { batchSize: 4, workers, shuffleBuffer, seed: 5, shard: { rank, worldSize } }
const loader =
  workers > 0
    ? new DataLoader(new URL('./folder.mjs', import.meta.url), { ...options, workerData: { source, library } })
    : new DataLoader(await loadDataset(source), options)
const lines = existsSync(log) ? readFileSync(log, 'utf8').trimEnd().split('\n') : []
if (lines.length > 0) loader.loadState(JSON.parse(lines.at(-1)).state)
for await (const batch of loader) {
  appendFileSync(log, `${JSON.stringify({ ids: batch.map(({ id }) => id), state: loader.state() })}\n`)
  // The parent kills this process somewhere in here.
  await new Promise((resolve) => setTimeout(resolve, lines.length > 0 ? 0 : 20))
}
appendFileSync(log, '')
