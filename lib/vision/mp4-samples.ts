import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

/**
 * Counts the samples that an MP4 or QuickTime file (ISO/IEC 14496-12) declares, before FFmpeg opens it. FFmpeg's index takes
 * 40 bytes per sample, and a few bytes of a file can declare 4 billion samples.
 */

/** Most frames of a track: 19 hours at 60 per second. */
export const MOST_SAMPLES = 1 << 22
const MOST_BOXES = 1 << 20
const PIECE = 1 << 20
/** Bytes read after a box name at the end of a piece. */
const TAIL = 32
/** FFmpeg indexes uncompressed audio in chunks of that many samples. */
const AUDIO_CHUNK = 1024

/** Names of the first box of a file that FFmpeg detects as MP4. */
const FIRST = 'ftyp styp moov moof mdat wide free skip junk pnot udta uuid sidx emsg pict prfl ediw'.split(' ')

/** Result of {@link mp4Claims}. `fault` describes why the file is refused, if it is. */
export interface Mp4Claims {
  /** Whether the file is MP4 or QuickTime. */
  isMp4: boolean
  fault?: string
}

/** Check the sample counts that the boxes of a file declare, without reading its media data. Synchronous: call it in a worker. */
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
      if (boxes === MOST_BOXES) return { isMp4: true, fault: `expected at most ${MOST_BOXES} boxes, got more` }
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

/** Return the offset of the end of a box. Length 0 means the end of the file, 1 an eight-byte length after the name. */
function boxEnd(head: Buffer, at: number, size: number): number {
  const short = head.readUInt32BE(0)
  const length = short === 1 ? Number(head.readBigUInt64BE(8)) : short
  return length < 8 || length > size - at ? size : at + length
}

/** Find boxes by their names at any nesting, because FFmpeg accepts them in several places. */
function scan(read: (into: Buffer, at: number) => number, from: number, to: number, track: Track): void {
  const piece = Buffer.alloc(Math.min(PIECE, to - from) + TAIL)
  for (let at = from; at < to; at += PIECE) {
    const length = read(piece, at)
    const limit = Math.min(PIECE, to - at)
    const boxes: [at: number, name: string][] = []
    for (const name of NAMES) {
      for (let p = piece.indexOf(name, 0, 'latin1'); p >= 0 && p < limit; p = piece.indexOf(name, p + 4, 'latin1')) {
        if (p < length) boxes.push([p, name])
      }
    }
    boxes.sort(([a], [b]) => a - b)
    for (const [p, name] of boxes) track.box(name, piece.subarray(p + 4, Math.min(p + TAIL, length)))
  }
}

const NAMES = ['trak', 'hdlr', 'stts', 'stsz', 'stz2', 'elst', 'trun', 'cmov']

/** The declared sample counts of one track, whose boxes come in any order. */
class Track {
  fault: string | undefined
  #samples = 0
  #edits = 1
  #fragments = 0
  #isAudio = false
  #isVideo = false
  #isEvenAudio = false

  /** @param size bytes of the file */
  constructor(readonly size: number) {}

  /** Read one box. @param content bytes after the name */
  box(name: string, content: Buffer): void {
    const word = (at: number): number => (at + 4 <= content.length ? content.readUInt32BE(at) : 0)
    if (name === 'trak') this.close()
    else if (name === 'cmov')
      this.fault ??= 'unsupported: a compressed index (cmov). Convert the file, for example with ffmpeg -c copy.'
    else if (name === 'hdlr') {
      const kind = content.toString('latin1', 8, 12)
      this.#isAudio ||= kind === 'soun'
      this.#isVideo ||= kind === 'vide'
    } else if (name === 'stts') this.#isEvenAudio = word(4) === 1 && word(12) === 1
    else if (name === 'elst') this.#edits = Math.max(this.#edits, word(4))
    else if (name === 'trun') {
      this.#fragments += word(4)
      this.#require(this.#fragments)
    } else {
      const [bytes, count] = [name === 'stsz' ? word(4) : 0, word(8)]
      // With a constant sample size the file has no list of sizes, so the count is only bounded by the size of the file.
      if (bytes * count > this.size) {
        this.fault ??= `the file declares ${count} samples of ${bytes} bytes, but has only ${this.size} bytes`
      }
      this.#samples += count
    }
  }

  close(): void {
    const isChunked = this.#isAudio && !this.#isVideo && this.#isEvenAudio
    this.#require(Math.ceil(this.#samples / (isChunked ? AUDIO_CHUNK : 1)) * this.#edits)
    this.#samples = 0
    this.#edits = 1
    this.#isAudio = false
    this.#isVideo = false
    this.#isEvenAudio = false
  }

  #require(count: number): void {
    if (count > MOST_SAMPLES) this.fault ??= `expected at most ${MOST_SAMPLES} frames, the file declares ${count}`
  }
}
