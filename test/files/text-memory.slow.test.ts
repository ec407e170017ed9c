import { closeSync, mkdtempSync, openSync, rmSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { readJsonl } from '../../lib/index.js'

let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'voxtorch-hostile-'))
})
afterAll(() => rmSync(folder, { recursive: true, force: true }))

function file(bytes: string | Uint8Array, size?: number): string {
  const path = join(folder, 'file')
  rmSync(path, { recursive: true, force: true })
  writeFileSync(path, bytes)
  if (size !== undefined) truncateSync(path, size)
  return path
}

/** Some bytes again and again: no hole, but without holding them here. */
function repeated(bytes: string, megabytes: number, head = ''): string {
  const path = file('')
  const block = Buffer.from(bytes.repeat(Math.ceil(2 ** 20 / bytes.length)))
  const handle = openSync(path, 'w')
  writeSync(handle, head)
  for (let i = 0; i < megabytes; i++) writeSync(handle, block)
  closeSync(handle)
  return path
}

test('a JSONL file of 200 MB is read within 100 MB of memory', async () => {
  const path = repeated(`${JSON.stringify({ text: 'x'.repeat(1014) })}\n`, 200)
  const before = process.memoryUsage().rss
  let rows = 0
  let peak = 0
  for await (const _ of readJsonl(path)) if (++rows % 10_000 === 0) peak = Math.max(peak, process.memoryUsage().rss)
  expect(rows).toBeGreaterThan(195_000)
  expect((peak - before) / 1e6).toBeLessThan(100)
})
