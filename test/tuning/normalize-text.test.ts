import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { normalizeEnglish, readSpellings } from '../../lib/tuning/normalize-text.js'
import { fixture } from '../helpers.js'

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-normalize-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
const { cases } = await fixture<{ spellings: Record<string, string>; cases: [string, string][] }>(
  'tuning/normalize-text',
)
const [given] = cases as [(typeof cases)[0]]

describe('the English normalizer', () => {
  it('equals that of transformers', () => {
    const spellings = new Map(Object.entries(given.spellings))
    expect(given.cases.length).toBeGreaterThan(400)
    const wrong = given.cases
      .map(([text, expected]) => [text, expected, normalizeEnglish(text, spellings)])
      .filter(([, expected, found]) => found !== expected)
    expect(wrong).toEqual([])
  })

  it('takes time in proportion to long texts', () => {
    for (const text of [
      ' ',
      '1',
      "'",
      '$0.',
      'one ',
      'and a half ',
      '(',
      '.',
      '1,',
      'nine ',
      'million ',
      'two million ',
    ]) {
      const count = Math.ceil(200_000 / text.length)
      const start = performance.now()
      expect(typeof normalizeEnglish(text.repeat(count))).toBe('string')
      expect(performance.now() - start, text).toBeLessThan(20_000)
    }
  })

  it('reads the spellings of a folder, and names what is wrong', async () => {
    expect(await readSpellings(directory)).toBeUndefined()
    const file = join(directory, 'normalizer.json')
    writeFileSync(file, JSON.stringify({ colour: 'color' }))
    expect(normalizeEnglish('Colour', await readSpellings(directory))).toBe('color')
    expect(normalizeEnglish('Colour', await readSpellings(file))).toBe('color')
    expect(normalizeEnglish('Colour')).toBe('colour')
    for (const text of ['[1]', '{"a": 1}', '{', 'null']) {
      writeFileSync(file, text)
      await expect(readSpellings(directory)).rejects.toThrow(/normalizer\.json/)
    }
    await expect(readSpellings(join(directory, 'none.json'))).rejects.toThrow(/none\.json/)
  })
})
