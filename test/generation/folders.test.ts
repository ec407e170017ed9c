import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { camelCase } from '../../lib/base/words.js'
import { kinds } from '../../lib/generation/keys.js'
import { DecoderLM, setNumThreads } from '../../lib/index.js'
import { fixturePath } from '../helpers.js'
import { get } from '../models/decoder.js'
import { inputsOf, network } from './networks.js'

setNumThreads(1)
const directory = mkdtempSync(join(tmpdir(), 'voxtorch-generation-folders-'))
afterAll(() => rmSync(directory, { recursive: true }))
const json = (name: string) => JSON.parse(readFileSync(fixturePath(name), 'utf8'))
const write = (folder: string, value: object) =>
  writeFileSync(join(folder, 'generation_config.json'), JSON.stringify(value))

interface Case {
  name: string
  generation: Record<string, unknown> | null
  config: Record<string, unknown> | null
  tokens: number[][][]
}

// test/reference/generation_files.py writes it.
const cases = json('models/generation-files.json').cases as Case[]

describe('folders, as transformers generates from them', () => {
  it.each(cases)('$name', async ({ name, generation, config, tokens }) => {
    const folder = join(directory, name)
    mkdirSync(folder)
    await network('llama').save(folder)
    if (generation) write(folder, generation)
    else {
      rmSync(join(folder, 'generation_config.json'), { force: true })
      const file = join(folder, 'config.json')
      writeFileSync(file, JSON.stringify({ ...JSON.parse(readFileSync(file, 'utf8')), ...config }))
    }
    const model = (await DecoderLM.fromPretrained(folder)).eval()
    for (const [row, expected] of tokens.entries()) {
      const result = await model.generate(inputsOf(row, row + 1))
      // transformers pads the shorter of several answers.
      const trimmed = expected.map((ids, i) => ids.slice(0, get(result.tokens[i]).length))
      expect(result.tokens, `prompt ${row}`).toEqual(trimmed)
      expect(expected.every((ids, i) => ids.slice(get(trimmed[i]).length).every((id) => id === 1))).toBe(true)
    }
    // What is saved says the same, key by key.
    const saved = join(folder, 'saved')
    await model.save(saved)
    const again = JSON.parse(readFileSync(join(saved, 'generation_config.json'), 'utf8'))
    for (const [key, value] of Object.entries(generation ?? (config as object))) {
      if (Object.hasOwn(kinds, camelCase(key)) && value !== null) expect(again[key], key).toEqual(value)
    }
    expect((await DecoderLM.fromPretrained(saved)).generationConfig).toEqual(model.generationConfig)
  })
})
