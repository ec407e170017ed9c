import { parseYaml } from '../../../lib/files/yaml/parse.js'
import type { FuzzTarget } from './target.js'

export const target: FuzzTarget = {
  name: 'yaml',
  seeds: () =>
    [
      'model:\n  lr: 3e-5\n  lora: yes\n  sizes: [1, 0x1F, 1_000, 1:30]\nrun: {amp: off, "k": ~}\n',
      'base: &b {x: 1, y: [1, 2]}\nc: {<<: *b, y: 5}\nd: *b\n? k\n: - - 1\n',
      'a: |\n  one\n   two\nb: >-\n  x\nc: !!int "7"\n--- # next\n...\n',
    ].map((text) => Buffer.from(text)),
  run: async (bytes) => void (await parseYaml([bytes], 'fuzz')),
}
