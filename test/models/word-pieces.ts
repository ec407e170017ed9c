import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Tokenizer } from '../../lib/index.js'

/** A vocabulary of eight pieces, three of them words. */
export async function wordPieces(words: readonly string[] = ['one', 'two', 'three']): Promise<Tokenizer> {
  const folder = mkdtempSync(join(tmpdir(), 'voxtorch-pieces-'))
  try {
    writeFileSync(join(folder, 'vocab.txt'), `[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n${words.join('\n')}\n`)
    return await Tokenizer.fromPretrained(folder)
  } finally {
    rmSync(folder, { recursive: true })
  }
}
