import { readFileSync } from 'node:fs'
import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { openCTranslate2 } from '../../../lib/files/ctranslate2/ctranslate2.js'
import { CheckpointError, scope } from '../../../lib/index.js'
import { safetensorsBytes } from '../stored-bytes.js'
import type { FuzzTarget } from './target.js'

const fixture = new URL('../../fixtures/files/ctranslate2.safetensors', import.meta.url)

export const target: FuzzTarget = {
  name: 'ctranslate2',
  seeds: () => ['float16', 'int8'].map((name) => safetensorsBytes(readFileSync(fixture), `${name}/in/file`)),
  words: ['WhisperSpec\0', 'decoder/embeddings/weight\0', '\xff\xff\xff\xff', '\0\0'],
  run: (bytes) =>
    scope(async () => {
      const file = await openCTranslate2(new MemorySource(bytes, new Place('model.bin', CheckpointError)))
      await file.load()
    }),
}
