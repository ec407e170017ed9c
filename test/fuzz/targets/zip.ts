import { MemorySource, Place } from '../../../lib/files/byte-source.js'
import { ZipArchive } from '../../../lib/files/zip/zip.js'
import { makeZip, type ZipPart } from '../../files/zip-maker.js'
import type { Random } from '../random.js'
import { type FuzzTarget, fixtureFiles } from './target.js'

const numbers = [0, 1, 2, 29, 30, 46, 255, 0xffff, 0x7fffffff, 0xfffffffe, 0xffffffff]

export const target: FuzzTarget = {
  name: 'zip',
  seeds: () => fixtureFiles('archive').filter((bytes) => bytes[0] === 0x50 && bytes.length < 20_000),
  async run(bytes) {
    const archive = await ZipArchive.open(new MemorySource(bytes, new Place('fuzz.zip')))
    for (const entry of archive.entries.values()) {
      let size = 0
      for await (const chunk of archive.stream(entry)) size += chunk.length
      if (size !== entry.size) throw new Error(`${size} bytes came, ${entry.size} were promised`)
    }
  },
  /** An archive whose parts lie in one or two numbers. */
  generate(random: Random) {
    const parts: ZipPart[] = Array.from({ length: 1 + random.below(4) }, (_, i) => ({
      name: random.pick(['a', 'b', `c${i}`, 'ü', '']),
      data: Buffer.alloc(random.below(200), 'data'),
      deflate: random.chance(0.5),
    }))
    const [liar] = parts as [ZipPart]
    if (random.chance(0.7)) {
      const field = random.pick(['size', 'packed', 'crc', 'offset'] as const)
      liar.says = { [field]: random.chance(0.5) ? random.pick(numbers) : random.below(300) }
    }
    return makeZip(parts, (end) => {
      if (random.chance(0.3)) end.writeUInt16LE(random.pick(numbers) & 0xffff, random.pick([4, 6, 8, 10, 20]))
      if (random.chance(0.3)) end.writeUInt32LE(random.pick(numbers), random.pick([12, 16]))
    })
  },
  words: [
    'PK\x01\x02',
    'PK\x03\x04',
    'PK\x05\x06',
    'PK\x06\x06',
    'PK\x06\x07',
    'PK\x07\x08',
    '\x01\0\x18\0',
    '\xff\xff\xff\xff',
  ],
}
