import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { gunzipSync } from 'node:zlib'
import { afterAll, expect } from 'vitest'
import { loadDataset } from '../../lib/files/index.js'
import { DataLoader } from '../../lib/index.js'

const fixture = new URL('../fixtures/data/parquet.json.gz', import.meta.url)
const cases = JSON.parse(gunzipSync(readFileSync(fixture)).toString()) as { name: string; file: string }[]
export const bytesOf = (name: string) => Buffer.from(cases.find((one) => one.name === name)?.file as string, 'base64')
export const shards = cases.map(({ name }) => name).filter((name) => name.startsWith('train-'))
export const directory = mkdtempSync(join(tmpdir(), 'voxtorch-datasets-'))
afterAll(() => rmSync(directory, { recursive: true }))
let count = 0

/** A new folder with these files. */
export function folder(files: Record<string, string | Uint8Array>): string {
  const path = join(directory, String(count++))
  for (const [name, content] of Object.entries(files)) {
    mkdirSync(dirname(join(path, name)), { recursive: true })
    writeFileSync(join(path, name), content)
  }
  return path
}
export const sharded = () => folder(Object.fromEntries(shards.map((name) => [`data/${name}`, bytesOf(name)])))
export const ids = (from: number, to: number) => Array.from({ length: to - from }, (_, i) => from + i)
export const lines = (from: number, to: number) =>
  ids(from, to)
    .map((id) => `${JSON.stringify({ id })}\n`)
    .join('')

export async function gather<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = []
  for await (const item of stream) all.push(item)
  return all
}
export type Row = { id: number }

const written = sharded()
/** Parquet shards and one JSON Lines file: 137 records. */
export const mixed = () => {
  const path = folder({ 'b.jsonl': lines(100, 137) })
  return [...shards.map((name) => join(written, 'data', name)), join(path, 'b.jsonl')]
}
/** What a worker imports. */
export const library = pathToFileURL(resolve('dist/files/index.js')).href
export const url = new URL('./modules/folder.mjs', import.meta.url)

type Options = { workers: number; shuffleBuffer: number; rank?: number }
export async function loaderOf(source: string[], { workers, shuffleBuffer, rank }: Options): Promise<DataLoader<Row>> {
  const options = {
    ...{ batchSize: 4, workers, shuffleBuffer, seed: 3 },
    ...(rank !== undefined && { shard: { rank, worldSize: 2 } }),
  }
  return workers > 0
    ? new DataLoader<Row>(url, { ...options, workerData: { source, library } })
    : new DataLoader<Row>(await loadDataset<Row>(source), options)
}

/** Two ranks read every record once, and a loader goes on from the states after the batches `positions`. */
export async function expectResumes(workers: number, shuffleBuffer: number, positions: number[]): Promise<void> {
  const source = mixed()
  const whole = await Promise.all(
    [0, 1].map(async (rank) => {
      const loader = await loaderOf(source, { workers, shuffleBuffer, rank })
      const batches: { ids: number[]; state: string }[] = []
      for await (const batch of loader) {
        batches.push({ ids: batch.map(({ id }) => id), state: JSON.stringify(loader.state()) })
      }
      return batches
    }),
  )
  const all = whole.flat().flatMap((batch) => batch.ids)
  expect(all.sort((a, b) => a - b)).toEqual(ids(0, 137))
  for (const at of positions) {
    const resumed = await loaderOf(source, { workers: workers === 0 ? 0 : 2, shuffleBuffer, rank: at % 2 })
    const batches = whole[at % 2] as (typeof whole)[0]
    resumed.loadState(JSON.parse((batches[at] as { state: string }).state))
    const rest = (await gather(resumed)).map((batch) => batch.map(({ id }) => id))
    expect(rest).toEqual(batches.slice(at + 1).map((batch) => batch.ids))
  }
}
