import { readFileSync } from 'node:fs'
import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { openGguf } from '../../../lib/files/gguf/gguf.js'
import { READ_TYPES } from '../../../lib/files/gguf/types.js'
import { CheckpointError, noGrad, ones, scope, VoxtorchError } from '../../../lib/index.js'
import { configOf } from '../../../lib/models/decoder/gguf.js'
import { op } from '../../../lib/native/call.js'
import { blockSchemeOf } from '../../../lib/nn/quantized-weight.js'
import { fromGguf } from '../../../lib/text/gguf.js'
import { safetensorsBytes } from '../stored-bytes.js'
import type { FuzzTarget } from './target.js'

const multiply = op('voxtorch::quantized_linear')
const stored = (name: string, tensor: string): Uint8Array =>
  safetensorsBytes(readFileSync(new URL(`../../fixtures/files/${name}.safetensors`, import.meta.url)), tensor)

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
  // Blocks of any bytes are computed with as they are.
  for (const [name, { type, shape }] of Object.entries(file.tensors)) {
    const scheme = blockSchemeOf(type)
    if (scheme === undefined || shape.length !== 2 || shape.includes(0)) continue
    const blocks = await file.blocks(name)
    noGrad(() => multiply(ones([2, shape[1] as number]), blocks, null, shape, null, { scheme }))
  }
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
