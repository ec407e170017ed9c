import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { readResults, readStrictLines } from '../../../lib/systems/emoverse/evaluation/results.js'
import type { FuzzTarget } from './target.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-fuzz-swift-'))
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

/** Result lines, as they are scored robustly, and as Python reads them. */
export const target: FuzzTarget = {
  name: 'swift-results',
  words: ['"query"', '"label"', '"response"', '"probabilities"', 'null', 'NaN', '12345678901234567', '\r', '\n', '{}'],
  seeds: () =>
    [
      '{"system": null, "query": "<emotion>", "response": "Joy.", "label": "Joy.", "history": [], "images": ["a.png"]}\n',
      '{"query": "<sentiment>", "label": "1.5", "response": null}\r\n\n{"label": "3_joy,1;3_joy,3", "response": "3_joy,3"}\n',
      '{"label": "", "response": "", "probabilities": {"Joy.": 0.25, "Fear.": 1e-7}}',
    ].map((text) => Buffer.from(text)),
  async run(bytes) {
    const file = join(folder, 'results.jsonl')
    writeFileSync(file, bytes)
    if (bytes.length % 2 === 1) await readResults(file)
    else for (const _ of (await readStrictLines(file)).lines);
  },
}
