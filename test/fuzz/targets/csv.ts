import { parseCsv } from '../../../lib/files/csv/csv.js'
import type { FuzzTarget } from './target.js'

export const target: FuzzTarget = {
  name: 'csv',
  seeds: () =>
    [
      'Sr No.,Utterance,Speaker\r\n1,"He said ""hi"", then\r\nleft",Joey\r\n\r\n2,they’re,Ross\n',
      '\ufeffa,__proto__,c\n1,"x\ny",""\n4,5" disk,"6"7\r8,9,10',
      'a\tb\n"1\t2"\t3\n',
    ].map((text) => Buffer.from(text)),
  async run(bytes) {
    // The first byte chooses the options.
    const [choice = 0] = bytes
    const encoding = (['utf-8', 'windows-1252', 'mixed'] as const)[choice % 3]!
    const options = {
      encoding,
      relaxQuotes: choice % 2 === 1,
      delimiter: choice % 5 === 0 ? '\t' : ',',
      maxRowLength: 1 << 16,
    }
    const half = bytes.length >> 1
    for await (const _ of parseCsv([bytes.subarray(0, half), bytes.subarray(half)], 'fuzz', options));
  },
}
