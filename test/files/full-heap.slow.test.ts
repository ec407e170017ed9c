import { execFile } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, describe, expect, it } from 'vitest'
import { jsonlStream, readJsonl } from '../../lib/index.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-full-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const script = fileURLToPath(new URL('./modules/read-full.mjs', import.meta.url))

// V8 ends a process whose heap is full or whose list is too long. A small heap shows the former soon.
describe('files that would fill the heap are refused, and the process lives', () => {
  it('of 256 MB', { timeout: 900_000 }, async () => {
    const { stdout } = await promisify(execFile)(process.execPath, ['--max-old-space-size=256', script, folder])
    const outcomes = new Map<string, string>(
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    )
    expect(outcomes.size).toBe(19)
    for (const [name, outcome] of outcomes) {
      const bad = name.startsWith('only ')
      expect(outcome, name).toMatch(bad ? /^DataError: .*expected a value/ : /^DataError: .*holds more than fits/)
      if (!bad) expect(outcome, name).not.toMatch(/byte 0 of/)
    }
  })
})

it('lines longer than a text can be are refused', async () => {
  const path = join(folder, 'line.jsonl')
  const out = openSync(path, 'w')
  const part = Buffer.alloc(2 ** 20, 'x')
  for (let i = 0; i < 521; i++) writeSync(out, part)
  closeSync(out)
  const all = async (lines: AsyncIterable<unknown>) => {
    for await (const _ of lines);
  }
  const limit = { maxLineBytes: 2 ** 31 - 1 }
  for (const lines of [readJsonl(path, limit), jsonlStream(path, limit).iterate()])
    await expect(all(lines)).rejects.toMatchObject({ name: 'DataError', line: 1 })
  rmSync(path)
})

describe('what has no end', () => {
  it('results of scopes, and samplers', { timeout: 900_000 }, async () => {
    const endless = fileURLToPath(new URL('../data/modules/endless.mjs', import.meta.url))
    const { stdout } = await promisify(execFile)(process.execPath, ['--max-old-space-size=600', endless])
    const outcomes = Object.fromEntries(
      stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line)),
    )
    expect(outcomes).toEqual({
      'a list of holes': '200000000',
      'a list with a tensor behind holes': '7',
      'the same object again and again': '30000000',
      keep: '200000000',
      'an endless sampler': expect.stringMatching(/^ConfigError: DataLoader: the sampler's result does not end/),
      'an endless batch': expect.stringMatching(/^ConfigError: DataLoader: the batchSampler's batch does not end/),
    })
  })
})
