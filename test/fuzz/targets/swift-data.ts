import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readSwiftDataset } from '../../../lib/systems/emoverse/data/dataset.js'
import type { FuzzTarget } from './target.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-swift-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

/** One JSON array, or lines, by what they begin with: records in each form that ms-swift reads. */
export const target: FuzzTarget = {
  name: 'swift-data',
  words: [
    ...['"query"', '"response"', '"history"', '"system"', '"messages"', '"role"', '"user"', '"assistant"'],
    ...[
      '"conversations"',
      '"from"',
      '"gpt"',
      '"images"',
      '"videos"',
      '<image>',
      '<video>',
      '<audio>',
      '<img>',
      '</img>',
    ],
    ...['null', '[[', ']]', '[', ']', ',', '\\"', '\n', '\ufeff'],
  ],
  seeds: () =>
    [
      '[{"query": "<image>a <emotion>", "response": "Joy.", "images": ["a.png"]},\n {"query": "b", "response": null, "history": [["c", "d"]]}]',
      '{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n{"query": "x", "response": "y"}\n',
      '\ufeff[\n{"conversations": [{"from": "human", "value": "<img>a.png</img>q"}, {"from": "gpt", "value": "]\\"}"}], "videos": "v.mp4"}\n]\n',
      '[]',
    ].map((text) => Buffer.from(text)),
  async run(bytes) {
    const file = join(folder, 'data.json')
    writeFileSync(file, bytes)
    // Of every other length what cannot be used ends it.
    const onBadRecord = bytes.length % 2 === 1 ? 'stop' : 'skip'
    for await (const _ of await readSwiftDataset(file, { onBadRecord, requireResponse: bytes.length % 3 === 0 }));
  },
}
