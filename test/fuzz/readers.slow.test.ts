import { fileURLToPath } from 'node:url'
import { describe, expect, test, vi } from 'vitest'
import { PATIENCE } from '../patience.js'
import { nodeAv } from '../vision/node-av.js'
import { fuzzReaders, targetNames } from './reader-run.js'

const known = fileURLToPath(new URL('../fixtures/fuzz/', import.meta.url))
const folder = fileURLToPath(new URL('faulty/', import.meta.url))

/** What a user's own corpus brings. */
const MORE = ['textgrid', 'units', 'filelist']
/** Decoders that are others' work: of each format so many. */
const PICTURES = ['png', 'jpg', 'mp4']
const FILMS = ['video', 'mp4']

// Hundreds of broken files for each reader, and every file that was ever a finding;
// `node --import tsx test/fuzz/readers.ts` does a million.
describe('broken files give typed errors, and nothing crashes, hangs or leaks', () => {
  // Video files need npm's node-av.
  test.each(targetNames().filter((name) => nodeAv || !FILMS.includes(name)))('%s', async (target) => {
    const inputs = MORE.includes(target) ? 2000 : PICTURES.includes(target) ? 1000 : 600
    const [result] = await fuzzReaders({ seed: 1, inputs, targets: [target], known })
    expect(result!.findings).toEqual([])
    expect(result!.inputs).toBeGreaterThanOrEqual(inputs)
    // A target that reads nothing, or everything, tests nothing.
    expect(result!.accepted).toBeGreaterThan(20)
    expect(Object.values(result!.errors).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(100)
  })
})

describe('the fuzz finds what it looks for', () => {
  test.each(['crash', 'hang', 'leak', 'memory', 'slow', 'untyped', 'typed'])('%s', async (fault) => {
    vi.stubEnv('VOXTORCH_FAULT', fault)
    const [result] = await fuzzReaders({ seed: 1, inputs: 2, folder, patience: fault === 'hang' ? 10_000 : PATIENCE })
    vi.unstubAllEnvs()
    const { findings } = result!
    expect(findings.map(({ kind }) => kind).slice(0, 1)).toEqual(fault === 'typed' ? [] : [fault])
    for (const { input } of findings) expect(Buffer.from(input, 'base64').toString()).toBe(fault)
  })
})
