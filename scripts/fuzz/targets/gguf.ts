import { readFileSync } from 'node:fs'
import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { openGguf } from '../../../lib/files/gguf/gguf.js'
import { READ_TYPES } from '../../../lib/files/gguf/types.js'
import { CheckpointError, scope, VoxtorchError } from '../../../lib/index.js'
import { configOf } from '../../../lib/models/decoder/gguf.js'
import { fromGguf } from '../../../lib/text/gguf.js'
import { safetensorsBytes } from '../stored-bytes.js'
import type { FuzzTarget } from './target.js'

const stored = (name: string, tensor: string): Uint8Array =>
  safetensorsBytes(readFileSync(new URL(`../../../test/fixtures/files/${name}.safetensors`, import.meta.url)), tensor)

/** Reads what can be read of it, as a network and a tokenizer do; what they refuse must be typed too. */
async function readAll(bytes: Uint8Array): Promise<void> {
  const file = await openGguf(new MemorySource(bytes, new Place('x.gguf', CheckpointError)))
  for (const read of [() => configOf(file), () => fromGguf(file)]) {
    try {
      read()
    } catch (error) {
      if (!(error instanceof VoxtorchError)) throw error
    }
  }
  await file.load({ names: (name) => READ_TYPES.includes(file.tensors[name]?.type ?? '') })
}

export const target: FuzzTarget = {
  name: 'gguf',
  seeds: () => [stored('gguf', 'file/in/file'), stored('decoder-gguf', 'llama/in/file')],
  words: [
    'GGUF',
    'general.alignment',
    'general.architecture',
    'tokenizer.ggml.tokens',
    'llama',
    '\0\0\0\0\0\0\0\x80',
    '\xff\xff\xff\xff',
  ],
  run: (bytes) => scope(() => readAll(bytes)),
}
