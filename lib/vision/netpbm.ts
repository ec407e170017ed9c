import type { ByteSource } from '../files/byte-source.js'
import { type Pixels, refuseSize, type Wanted } from './pixels.js'

// PPM and PGM (https://netpbm.sourceforge.net/doc/ppm.html): a text header, then samples of one byte, of two bytes if the
// maximum is above 255, or as text.

const LONGEST_HEAD = 1 << 16
const LONGEST_TEXT = 1 << 28
const SPACE = /\s/

/**
 * Read the first image of a file.
 * @throws DataError for a truncated file, or a sample that is not a number from 0 to the header's maximum
 */
export async function readNetpbm(source: ByteSource, { maxPixels }: Wanted): Promise<Pixels> {
  const head = new Words((await source.bytes(0, Math.min(source.size, LONGEST_HEAD))).toString('latin1'), 2)
  const kind = head.text[1]!
  const [width, height, most] = ['width', 'height', 'maximum'].map((what) => {
    const word = head.next()
    if (/^\d{1,10}$/.test(word)) return Number(word)
    throw source.error(`${what}: expected a number, got ${JSON.stringify(word.slice(0, 20))}`, {
      byte: head.at - word.length,
    })
  }) as [number, number, number]
  if (most < 1 || most > 65535) throw source.error(`maximum: expected 1 to 65535, got ${most}`)
  refuseSize(source, width, height, maxPixels)
  const channels = kind === '3' || kind === '6' ? 3 : 1
  const count = width * height * channels
  const shared = { width, height, channels, most } as const
  if (kind === '2' || kind === '3') {
    return { ...shared, data: await textSamples(source, head.at, count, most) }
  }
  // One byte of white space ends the header.
  const begin = head.at + 1
  const wide = most > 255
  const missing = begin + count * (wide ? 2 : 1) - source.size
  if (missing > 0) throw source.error(`the file is truncated: ${missing} bytes are missing`, { byte: source.size })
  const bytes = await source.bytes(begin, count * (wide ? 2 : 1))
  if (!wide) return { ...shared, data: new Uint8Array(bytes.buffer, bytes.byteOffset, count) }
  const data = new Uint16Array(count)
  for (let i = 0; i < count; i++) data[i] = bytes.readUInt16BE(2 * i)
  return { ...shared, data }
}

async function textSamples(source: ByteSource, begin: number, count: number, most: number) {
  if (source.size > LONGEST_TEXT)
    throw source.error(`expected at most ${LONGEST_TEXT} bytes of text, got ${source.size}`)
  // A sample takes at least two bytes, so a truncated file is detected before memory is allocated.
  if (source.size - begin < 2 * count - 1)
    throw source.error('the file ends before its last sample', { byte: source.size })
  const words = new Words((await source.bytes(begin)).toString('latin1'), 0)
  const data = most > 255 ? new Uint16Array(count) : new Uint8Array(count)
  for (let i = 0; i < count; i++) {
    const word = words.next()
    const value = /^\d{1,10}$/.test(word) ? Number(word) : Number.NaN
    if (!(value <= most)) {
      const what = `sample ${i}: expected a number from 0 to ${most}, got ${JSON.stringify(word.slice(0, 20))}`
      throw source.error(word === '' ? `the file ends before sample ${i}` : what, { sample: i })
    }
    data[i] = value
  }
  return data
}

/** Reader of words separated by white space and comments, which extend from # to the end of the line. */
class Words {
  constructor(
    readonly text: string,
    /** Position after the last word. */
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
