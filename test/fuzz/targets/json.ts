import { parseJson } from '../../../lib/files/json/json.js'
import { parseJsonl } from '../../../lib/files/json/jsonl.js'
import type { FuzzTarget } from './target.js'

export const target: FuzzTarget = {
  name: 'json',
  seeds: () =>
    [
      '{"a": [1, -2.5e-3, 12345678901234567890], "b": {"__proto__": null, "é😀": "\\u00e9\\ud83d\\n"}, "c": [true, false]}',
      '[NaN, Infinity, -Infinity, 0, -0, 1e400]',
      '\ufeff{"a": 1}\n{"a": "x"}\r\n\n[[[[]]]]\n"last"',
    ].map((text) => Buffer.from(text)),
  async run(bytes) {
    // In two pieces, so that the seam is everywhere in turn.
    const half = bytes.length >> 1
    const pieces = [bytes.subarray(0, half), bytes.subarray(half)]
    if (bytes.length % 2 === 1) await parseJson(pieces, 'fuzz')
    else for await (const _ of parseJsonl(pieces, 'fuzz', { skipBlank: true, maxLineBytes: 1 << 20 }));
  },
}
