import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readArchive } from '../../lib/files/index.js'
import { CheckpointError, DataError, loadTorch, memoryStats, readPickle } from '../../lib/index.js'
import { settledTensors } from '../helpers.js'
import { MEMORY_SLACK, PATIENCE } from '../patience.js'
import { hostilePickles, hostileTars, hostileTorch, hostileZips } from './hostile.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-hostile-'))
const path = join(folder, 'inside', 'file')
mkdirSync(join(folder, 'inside'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Tensors before the first file: none of them leaves any. */
let tensors = 0
beforeAll(async () => {
  tensors = await settledTensors()
})

/** Reads a file that must not be read: quickly, in little memory, leaving nothing. */
async function refused(
  file: Buffer,
  read: () => Promise<unknown>,
  Wanted: typeof DataError,
  says: RegExp,
): Promise<void> {
  writeFileSync(path, file)
  const memory = process.memoryUsage().rss
  let most = memory
  const watch = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 5)
  const start = performance.now()
  const error = await read().then(
    () => undefined,
    (cause) => cause,
  )
  const time = performance.now() - start
  most = Math.max(most, process.memoryUsage().rss)
  clearInterval(watch)
  expect(error, 'an error').toBeInstanceOf(Wanted)
  expect(error.message).toMatch(says)
  expect(error.message.length).toBeLessThan(1000)
  expect(error.file).toBe(path)
  expect(time).toBeLessThan(PATIENCE)
  expect((most - memory) / 2 ** 20, 'MiB').toBeLessThan(200 * MEMORY_SLACK)
  expect(memoryStats().liveTensors).toBe(tensors)
  expect(readdirSync(folder)).toEqual(['inside'])
  expect(readdirSync(join(folder, 'inside'))).toEqual(['file'])
}

async function unpackAll(): Promise<void> {
  for await (const entry of readArchive(path)) await entry.bytes()
}

describe('hostile pickles', () => {
  for (const [name, file, says] of hostilePickles) {
    it(name, () => refused(file, () => readPickle(path), DataError, says))
  }
})

describe('hostile zip archives', () => {
  for (const [name, file, says] of hostileZips) it(name, () => refused(file, unpackAll, DataError, says))
})

describe('hostile tar archives', () => {
  for (const [name, file, says] of hostileTars) it(name, () => refused(file, unpackAll, DataError, says))
})

describe('hostile torch files', () => {
  for (const [name, file, says] of hostileTorch) {
    it(name, () => refused(file, () => loadTorch(path), CheckpointError, says))
  }

  for (const [name, file] of [...hostilePickles, ...hostileZips]) {
    it(name, () => refused(file, () => loadTorch(path), CheckpointError, /./))
  }
})
