import { readFileSync } from 'node:fs'
import { readImage } from '../../../lib/vision/image.js'
import type { Random } from '../random.js'
import type { FuzzTarget } from './target.js'

/** Read the files of an image or video fixture, whose tensors are called `<case>/file/bytes`. */
export function imageFiles(name: string): Uint8Array[] {
  const bytes = readFileSync(new URL(`../../fixtures/vision/${name}.safetensors`, import.meta.url))
  const begin = 8 + Number(bytes.readBigUInt64LE(0))
  const head = JSON.parse(bytes.toString('utf8', 8, begin)) as Record<string, { data_offsets: [number, number] }>
  const files = Object.entries(head).filter(([key]) => key.endsWith('/file/bytes'))
  return files.map(
    ([
      ,
      {
        data_offsets: [from, to],
      },
    ]) => bytes.subarray(begin + from, begin + to),
  )
}

/** JPEG, PNG, WebP, GIF, TIFF, AVIF, BMP, PPM and PGM, in both modes: sizes are checked before content is used. */
export const target: FuzzTarget = {
  name: 'image',
  words: ['IHDR', 'IDAT', 'PLTE', 'tRNS', '\xff\xc0', '\xff\xda', '\xff\xdb', 'VP8 ', 'VP8L', 'ANMF', 'P6 ', '65535'],
  seeds: () => [...imageFiles('images'), ...imageFiles('more-images'), ...imageFiles('depths')],
  generate(random: Random) {
    const number = () =>
      random.pick(['0', '1', '2', '3', '7', '255', '256', '65535', '65536', '99999999999', '-1', 'x'])
    const head = `P${random.pick(['2', '3', '5', '6'])} ${random.chance(0.2) ? '# note\n' : ''}${number()} ${number()}\n`
    const body = Array.from({ length: random.below(60) }, () => random.pick([number(), ' ', '\n', '#']))
    return Buffer.from(`${head}${number()}\n${body.join(random.pick([' ', '']))}`, 'latin1')
  },
  run: read,
}

async function read(bytes: Uint8Array): Promise<void> {
  const mode = (bytes[bytes.length - 1] ?? 0) % 4 === 0 ? 'depth' : 'rgb'
  ;(await readImage(bytes, { mode, maxPixels: 1 << 20 })).dispose()
}

/** Select the images that begin like one format. */
export const ofFormat = (name: string, begin: string, words: readonly string[]): FuzzTarget => ({
  ...{ name, words, run: read },
  seeds: () =>
    target.seeds().filter((bytes) => Buffer.from(bytes.subarray(0, begin.length)).equals(Buffer.from(begin, 'latin1'))),
})
