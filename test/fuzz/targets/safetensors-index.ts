import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { readIndex } from '../../../lib/files/safetensors/shards.js'
import { CheckpointError } from '../../../lib/index.js'
import type { FuzzTarget } from './target.js'

export const target: FuzzTarget = {
  name: 'safetensors-index',
  seeds: () =>
    [
      '{"metadata":{"total_size":12},"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}',
      '{\n  "weight_map": {\n    "\\u00e4": "x",\n    "__proto__": "y"\n  },\n  "z": [1, -2.5e3, null, {"a": [true, false]}]\n}\n',
      '{"weight_map": {}}',
    ].map((text) => Buffer.from(text)),
  words: [
    '"weight_map":{',
    '"metadata":',
    '"../x"',
    '"/x"',
    '".."',
    '{',
    '}',
    '[',
    ']',
    ',',
    ':',
    '"',
    '\\',
    '\\ud800',
    'null',
  ],
  async run(bytes) {
    await readIndex(new MemorySource(bytes, new Place('model.safetensors.index.json', CheckpointError)))
  },
}
