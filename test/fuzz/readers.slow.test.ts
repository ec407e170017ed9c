import { fileURLToPath } from 'node:url'
import { beforeAll, describe, expect, test } from 'vitest'
import { PATIENCE } from '../patience.js'
import { nodeAv } from '../vision/node-av.js'
import { fuzzReaders, type ReaderResult, targetNames } from './reader-run.js'

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
  const inputsOf = (target: string) => (MORE.includes(target) ? 2000 : PICTURES.includes(target) ? 1000 : 600)
  // Video files need npm's node-av.
  const targets = targetNames().filter((name) => nodeAv || !FILMS.includes(name))
  let results: ReaderResult[]
  beforeAll(async () => {
    results = await fuzzReaders({ seed: 1, inputs: inputsOf, targets, known, patience: PATIENCE })
  })

  test.each(targets)('%s', (target) => {
    const result = results.find((one) => one.target === target)
    expect(result!.findings).toEqual([])
    expect(result!.inputs).toBeGreaterThanOrEqual(inputsOf(target))
    // A target that reads nothing, or everything, tests nothing.
    expect(result!.accepted).toBeGreaterThan(20)
    expect(Object.values(result!.errors).reduce((sum, count) => sum + count, 0)).toBeGreaterThan(100)
  })
})

describe('the fuzz finds what it looks for', () => {
  const faults = targetNames(folder)
  let results: ReaderResult[]
  beforeAll(async () => {
    const others = faults.filter((fault) => fault !== 'hang')
    results = [
      // In one process, with those before it, and after it died.
      ...(await fuzzReaders({ seed: 1, inputs: 2, folder, targets: others, patience: PATIENCE })),
      ...(await fuzzReaders({ seed: 1, inputs: 2, folder, targets: ['hang'], patience: 10_000 })),
    ]
  })

  test.each(faults)('%s', (fault) => {
    const { findings } = results.find(({ target }) => target === fault)!
    expect(findings.map(({ kind }) => kind).slice(0, 1)).toEqual(fault === 'typed' ? [] : [fault])
    for (const { input } of findings) expect(Buffer.from(input, 'base64').toString()).toBe(fault)
  })

  test('and has every fault', () => {
    expect(faults).toEqual(['crash', 'hang', 'leak', 'memory', 'slow', 'typed', 'untyped'])
  })
})
