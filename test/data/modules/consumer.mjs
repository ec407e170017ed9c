import { parentPort, workerData } from 'node:worker_threads'

/** Goes through a loader that has workers of its own, for ever, and says when it has begun. */
const { DataLoader, padCollate } = await import(workerData.voxtorch)
const collate = padCollate({ values: { pad: 0 } })
const loader = new DataLoader(new URL('./squares.mjs', import.meta.url), {
  workers: 2,
  batchSize: 4,
  collate,
  workerData: { length: 1e6 },
})
let batches = 0
for await (const { values } of loader) {
  await values.matmul(values.t()).data()
  if (++batches === 3) parentPort.postMessage(batches)
}
