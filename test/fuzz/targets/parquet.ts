import { DataError } from '../../../lib/base/errors.js'
import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { ParquetFile } from '../../../lib/files/parquet/file.js'
import { type FuzzTarget, fixtureFiles } from './target.js'

export const target: FuzzTarget = {
  name: 'parquet',
  seeds: () => fixtureFiles('parquet'),
  async run(bytes) {
    const file = await ParquetFile.from(new MemorySource(bytes, new Place('fuzz', DataError)))
    // Rows that are passed over take other paths than those that are read.
    const from = (bytes[bytes.length >> 1] ?? 0) % 40
    for await (const _ of file.read({ from, wants: (row) => row % 3 > 0 }));
  },
  words: ['PAR1', '\u0015\u0000', '\u001c', '\u0019'],
}
