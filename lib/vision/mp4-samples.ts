import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

/**
 * How many samples an MP4 or QuickTime file claims (ISO/IEC 14496-12), counted before FFmpeg sees it: FFmpeg's index takes 40
 * bytes for each, and a few bytes of a file can claim four thousand million.
 */

/** Frames of a track: 19 hours at 60 in a second. */
export const MOST_SAMPLES = 1 << 22
const MOST_BOXES = 1 << 20
const PIECE = 1 << 20
/** Of a box whose name ends a piece: what is read of it behind the name. */
const TAIL = 32
/** FFmpeg indexes uncompressed sound by chunks of that many samples. */
const SOUND_CHUNK = 1024

/** What the first box of such a file is called, by FFmpeg's probe. */
const FIRST = 'ftyp styp moov moof mdat wide free skip junk pnot udta uuid sidx emsg pict prfl ediw'.split(' ')

/** What is wrong with the file's claims; undefined where nothing is. */
export interface Mp4Claims {
  /** Whether it is such a file at all. */
  isMp4: boolean
  fault?: string
}

/** Read what the boxes of a file claim, without its media data. Synchronous: call it in a worker. */
export function mp4Claims(path: string): Mp4Claims {
  const file = openSync(path, 'r')
  try {
    const { size } = fstatSync(file)
    const head = Buffer.alloc(16)
    const read = (into: Buffer, at: number): number => readSync(file, into, 0, into.length, at)
    if (read(head, 0) < 8 || !FIRST.includes(head.toString('latin1', 4, 8))) return { isMp4: false }
    const track = new Track(size)
    let boxes = 0
    for (let at = 0; at + 8 <= size; boxes++) {
      if (boxes === MOST_BOXES) return { isMp4: true, fault: `it has more than ${MOST_BOXES} boxes` }
      if (read(head, at) < 8) break
      const end = boxEnd(head, at, size)
      if (head.toString('latin1', 4, 8) !== 'mdat') scan(read, at, end, track)
      at = end
    }
    track.close()
    return track.fault === undefined ? { isMp4: true } : { isMp4: true, fault: track.fault }
  } finally {
    closeSync(file)
  }
}

/** Where a box ends: 0 stands for the end of the file, 1 for a length of eight bytes behind the name. */
function boxEnd(head: Buffer, at: number, size: number): number {
  const short = head.readUInt32BE(0)
  const length = short === 1 ? Number(head.readBigUInt64BE(8)) : short
  return length < 8 || length > size - at ? size : at + length
}

/** Look for the boxes by their names wherever they stand: FFmpeg accepts them in several places too. */
function scan(read: (into: Buffer, at: number) => number, from: number, to: number, track: Track): void {
  const piece = Buffer.alloc(Math.min(PIECE, to - from) + TAIL)
  for (let at = from; at < to; at += PIECE) {
    const length = read(piece, at)
    const own = Math.min(PIECE, to - at)
    const found: [at: number, name: string][] = []
    for (const name of NAMES) {
      for (let p = piece.indexOf(name, 0, 'latin1'); p >= 0 && p < own; p = piece.indexOf(name, p + 4, 'latin1')) {
        if (p < length) found.push([p, name])
      }
    }
    found.sort(([a], [b]) => a - b)
    for (const [p, name] of found) track.box(name, piece.subarray(p + 4, Math.min(p + TAIL, length)))
  }
}

const NAMES = ['trak', 'hdlr', 'stts', 'stsz', 'stz2', 'elst', 'trun', 'cmov']

/** What the boxes of one track say; they come in any order. */
class Track {
  fault: string | undefined
  #samples = 0
  #edits = 1
  #fragments = 0
  #isSound = false
  #isVideo = false
  #isEvenSound = false

  /** @param size of the file */
  constructor(readonly size: number) {}

  /** @param content what follows the name */
  box(name: string, content: Buffer): void {
    const word = (at: number): number => (at + 4 <= content.length ? content.readUInt32BE(at) : 0)
    if (name === 'trak') this.close()
    else if (name === 'cmov') this.fault ??= 'its index is compressed, which is not read; convert it to another file'
    else if (name === 'hdlr') {
      const kind = content.toString('latin1', 8, 12)
      this.#isSound ||= kind === 'soun'
      this.#isVideo ||= kind === 'vide'
    } else if (name === 'stts') this.#isEvenSound = word(4) === 1 && word(12) === 1
    else if (name === 'elst') this.#edits = Math.max(this.#edits, word(4))
    else if (name === 'trun') {
      this.#fragments += word(4)
      this.#require(this.#fragments)
    } else {
      const [bytes, count] = [name === 'stsz' ? word(4) : 0, word(8)]
      // Samples of one size say nothing of themselves: they are as many as the file has room for.
      if (bytes * count > this.size) {
        this.fault ??= `it claims ${count} samples of ${bytes} bytes, and the file has ${this.size}`
      }
      this.#samples += count
    }
  }

  close(): void {
    const isChunked = this.#isSound && !this.#isVideo && this.#isEvenSound
    this.#require(Math.ceil(this.#samples / (isChunked ? SOUND_CHUNK : 1)) * this.#edits)
    this.#samples = 0
    this.#edits = 1
    this.#isSound = false
    this.#isVideo = false
    this.#isEvenSound = false
  }

  #require(count: number): void {
    if (count > MOST_SAMPLES) this.fault ??= `it claims ${count} frames, more than the ${MOST_SAMPLES} that are read`
  }
}
