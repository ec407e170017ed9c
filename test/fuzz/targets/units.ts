import { parseUnits } from '../../../lib/models/units/unit-folder.js'
import type { FuzzTarget } from './target.js'

export const target: FuzzTarget = {
  name: 'units',
  words: ['0', '9999', '10000', '-1', ' ', '\n', '\t'],
  seeds: () => ['5884 2411 5280', '0\n9999\n0\n', ' 7\t7 \r\n', '1'].map((text) => Buffer.from(text)),
  run: (bytes) => void parseUnits(bytes, 'fuzz', 10_000),
}
