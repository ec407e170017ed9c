import type { ByteSource } from '../files/byte-source.js'
import { type Pixels, refuseSize, type Wanted } from './pixels.js'

// PPM and PGM (https://netpbm.sourceforge.net/doc/ppm.html): numbers in text, then samples as bytes, in two bytes where they
// may be above 255, or as text too.

const LONGEST_HEAD = 1 << 16
const LONGEST_TEXT = 1 << 28
const SPACE = /\s/

/**
 * One picture; further ones in the file are left alone.
 * @throws DataError where it ends early, or a sample is no number or above the largest that the head allows
 */
export async function readNetpbm(source: ByteSource, { maxPixels }: Wanted): Promise<Pixels> {
  const head = new Words((await source.bytes(0, Math.min(source.size, LONGEST_HEAD))).toString('latin1'), 2)
  const kind = head.text[1]!
  const [width, height, most] = ['width', 'height', 'largest sample'].map((what) => {
    const word = head.next()
    if (/^\d{1,10}$/.test(word)) return Number(word)
    throw source.error(`its ${what} is ${JSON.stringify(word.slice(0, 20))}, not a number`, {
      byte: head.at - word.length,
    })
  }) as [number, number, number]
  if (most < 1 || most > 65535) throw source.error(`its largest sample is ${most}, not one from 1 to 65535`)
  refuseSize(source, width, height, maxPixels)
  const channels = kind === '3' || kind === '6' ? 3 : 1
  const count = width * height * channels
  const shared = { width, height, channels, most } as const
  if (kind === '2' || kind === '3') {
    return { ...shared, data: await textSamples(source, head.at, count, most) }
  }
  // One byte of white space ends the head.
  const begin = head.at + 1
  const wide = most > 255
  const missing = begin + count * (wide ? 2 : 1) - source.size
  if (missing > 0) throw source.error(`${missing} of its bytes are missing`, { byte: source.size })
  const bytes = await source.bytes(begin, count * (wide ? 2 : 1))
  if (!wide) return { ...shared, data: new Uint8Array(bytes.buffer, bytes.byteOffset, count) }
  const data = new Uint16Array(count)
  for (let i = 0; i < count; i++) data[i] = bytes.readUInt16BE(2 * i)
  return { ...shared, data }
}

async function textSamples(source: ByteSource, begin: number, count: number, most: number) {
  if (source.size > LONGEST_TEXT) throw source.error(`it has more than ${LONGEST_TEXT} bytes of text`)
  // A sample takes two bytes at least: nothing is allocated for those that cannot be there.
  if (source.size - begin < 2 * count - 1) throw source.error('it ends before its last sample', { byte: source.size })
  const words = new Words((await source.bytes(begin)).toString('latin1'), 0)
  const data = most > 255 ? new Uint16Array(count) : new Uint8Array(count)
  for (let i = 0; i < count; i++) {
    const word = words.next()
    const value = /^\d{1,10}$/.test(word) ? Number(word) : Number.NaN
    if (!(value <= most)) {
      const what =
        word === '' ? `it ends before its sample ${i}` : `its sample ${i} is ${JSON.stringify(word.slice(0, 20))}`
      throw source.error(word === '' ? what : `${what}, not a number up to ${most}`, { sample: i })
    }
    data[i] = value
  }
  return data
}

/** Words between white space and comments, which go from # to the end of the line. */
class Words {
  constructor(
    readonly text: string,
    /** Behind the last word. */
    public at: number,
  ) {}

  next(): string {
    const { text } = this
    while (this.at < text.length && (text[this.at] === '#' || SPACE.test(text[this.at]!))) {
      if (text[this.at] !== '#') this.at += 1
      else while (this.at < text.length && text[this.at] !== '\n' && text[this.at] !== '\r') this.at += 1
    }
    const begin = this.at
    while (this.at < text.length && text[this.at] !== '#' && !SPACE.test(text[this.at]!)) this.at += 1
    return text.slice(begin, this.at)
  }
}
