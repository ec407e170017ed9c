import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import * as vt from '../../lib/index.js'
import { PATIENCE } from '../patience.js'

describe('lists whose length lies', () => {
  it('are refused by every metric and data set, in a child process that lives on', {
    timeout: 2 * PATIENCE,
  }, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'voxtorch-lists-'))
    const script = fileURLToPath(new URL('./hostile-lists.mjs', import.meta.url))
    // A heap that a list of a billion would fill.
    const child = spawn(process.execPath, ['--max-old-space-size=700', script, directory], { timeout: PATIENCE })
    const text = { out: '', err: '' }
    child.stdout.on('data', (part) => (text.out += part))
    child.stderr.on('data', (part) => (text.err += part))
    const [code, signal] = await new Promise<[number | null, string | null]>((resolve) =>
      child.on('exit', (...values) => resolve(values)),
    )
    rmSync(directory, { recursive: true, force: true })
    const lines = text.out.trimEnd().split('\n')
    expect({ code, signal, last: lines.at(-1), error: text.err.slice(-500) }).toMatchObject({ code: 0, last: 'done' })
    // biome-ignore format: one line
    expect(lines.filter((line) => /UNTYPED/.test(line)).map((line) => line.slice(0, 300))).toEqual([])
    // Samples of an array are read when they are asked for; any other list has been read, or was refused.
    const lazy =
      /^(ConcatDataset part|DataLoader|Subset dataset|mapDataset|randomSplit dataset) of an array with its ends/
    expect(lines.filter((line) => / a result$/.test(line) && !lazy.test(line))).toEqual([])
    expect(lines.length).toBeGreaterThan(500)
  })

  it('leaves agreement what it was with many classes, which no matrix would hold', () => {
    const classes = Array.from({ length: 200_000 }, (_, i) => i)
    const shifted = classes.map((label) => (label % 2 === 0 ? label : label - 1))
    // Half are right, and each class is true once: the definition by hand.
    const n = classes.length
    expect(vt.matthewsCorrcoef(classes, classes)).toBeCloseTo(1, 12)
    expect(vt.cohenKappa(classes, shifted)).toBeCloseTo(1 - n / 2 / (n - (n / 2) * 2 / n), 12) // biome-ignore format: as the formula
    expect(() => vt.confusionMatrix(classes, classes)).toThrow(vt.DataError)
    expect(() => vt.confusionMatrix(classes, classes)).toThrow(/at most 8192 classes.*got 200000/)
  })
})
