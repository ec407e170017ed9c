import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { writeEmptyDecoder } from './empty-decoder.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-load-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const root = fileURLToPath(new URL('../../', import.meta.url))
const child = fileURLToPath(new URL('load-memory.mjs', import.meta.url))
const MEBIBYTE = 2 ** 20

/** About 200 million weights: 400 MB in two bytes each. */
const config = {
  model_type: 'llama',
  vocab_size: 4096,
  hidden_size: 1024,
  intermediate_size: 2816,
  num_hidden_layers: 16,
  num_attention_heads: 8,
  num_key_value_heads: 8,
}

function load(options: object): { peak: number; bytes: number } {
  const printed = execFileSync(process.execPath, [child, folder, JSON.stringify(options)], {
    cwd: root,
    encoding: 'utf8',
  })
  return JSON.parse(printed)
}

describe.runIf(process.platform === 'linux')('memory that loading a language model takes', () => {
  const inFile = writeEmptyDecoder(folder, config, { dtype: 'F16', shards: 2 })

  it.each([
    ['in the dtype of the file', { dtype: 'float16' }, 1],
    ['converted to another dtype', { dtype: 'bfloat16' }, 1],
    ['packed to int8', { dtype: 'bfloat16', quantize: 'int8' }, 0.54],
    ['packed to NF4', { dtype: 'bfloat16', quantize: 'nf4' }, 0.288],
    ['packed to NF4 alone', { dtype: 'bfloat16', quantize: { scheme: 'nf4', doubleQuant: false } }, 0.31],
  ])('is that of the weights alone: %s', (_, options, part) => {
    const { peak, bytes } = load(options)
    expect(bytes).toBeLessThan(part * inFile * 1.001)
    // Beside them: the scratch memory of two threads, pages of code, and a layer's weight while its codes are made.
    expect(peak).toBeLessThan(1.1 * bytes + 40 * MEBIBYTE)
  })

  it('is next to none where the file is mapped', () => {
    expect(load({ dtype: 'float16', mmap: true }).peak).toBeLessThan(24 * MEBIBYTE)
  })
})
