/** Boxes of an MP4 file, for tests that change what a file says of itself. */
export interface Box {
  type: string
  /** Where its content begins and ends. */
  from: number
  to: number
}

export function boxes(bytes: Buffer, from = 0, to = bytes.length): Box[] {
  const found: Box[] = []
  for (let at = from; at + 8 <= to; ) {
    const size = bytes.readUInt32BE(at)
    found.push({ type: bytes.toString('latin1', at + 4, at + 8), from: at + 8, to: at + size })
    at += size
  }
  return found
}

/** The box that a path leads to, such as moov/trak. */
export function boxAt(bytes: Buffer, path: string): Box {
  let [from, to] = [0, bytes.length]
  let last: Box | undefined
  for (const type of path.split('/')) {
    last = boxes(bytes, from, to).find((box) => box.type === type)
    if (last === undefined) throw new Error(`no ${type} of ${path}`)
    ;[from, to] = [last.from, last.to]
  }
  return last as Box
}

export function box(type: string, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts)
  const head = Buffer.alloc(8)
  head.writeUInt32BE(8 + content.length, 0)
  head.write(type, 4, 'latin1')
  return Buffer.concat([head, content])
}

const words = (values: readonly number[]): Buffer => {
  const made = Buffer.alloc(4 * values.length)
  for (const [i, value] of values.entries()) made.writeUInt32BE(value, 4 * i)
  return made
}

/** Where each sample of a file with one track lies, and how long it is. */
function samplesOf(bytes: Buffer): { offset: number; size: number }[] {
  const table = (type: string) => boxAt(bytes, `moov/trak/mdia/minf/stbl/${type}`).from
  const [stsz, stco, stsc] = [table('stsz'), table('stco'), table('stsc')]
  const runs = Array.from({ length: bytes.readUInt32BE(stsc + 4) }, (_, i) => ({
    first: bytes.readUInt32BE(stsc + 8 + 12 * i),
    count: bytes.readUInt32BE(stsc + 12 + 12 * i),
  }))
  const found: { offset: number; size: number }[] = []
  for (let chunk = 0; chunk < bytes.readUInt32BE(stco + 4); chunk += 1) {
    let offset = bytes.readUInt32BE(stco + 8 + 4 * chunk)
    const run = runs.filter(({ first }) => first <= chunk + 1).at(-1)
    for (let i = 0; i < (run?.count ?? 0); i += 1) {
      const size = bytes.readUInt32BE(stsz + 12 + 4 * found.length)
      found.push({ offset, size })
      offset += size
    }
  }
  return found
}

/**
 * A film of `count` frames at 25 in a second, which shows those samples of another one over and over that need no others. Its
 * pictures are stored once.
 */
export function repeated(bytes: Buffer, samples: readonly number[], count: number): Buffer {
  const all = samplesOf(bytes)
  const shown = Array.from({ length: count }, (_, i) => all[samples[i % samples.length] as number]!)
  const tables = [
    box('stts', words([0, 1, count, 1])),
    box('stsc', words([0, 1, 1, 1, 1])),
    box('stsz', words([0, 0, count, ...shown.map(({ size }) => size)])),
    box('stco', words([0, count, ...shown.map(({ offset }) => offset)])),
  ]
  const stbl = boxAt(bytes, 'moov/trak/mdia/minf/stbl')
  const stsd = boxes(bytes, stbl.from, stbl.to).find(({ type }) => type === 'stsd') as Box
  const rebuilt = (from: number, to: number): Buffer =>
    Buffer.concat(
      boxes(bytes, from, to).flatMap(({ type, from: begin, to: end }) => {
        if (type === 'edts') return []
        if (type === 'stbl') return [box('stbl', box('stsd', bytes.subarray(stsd.from, stsd.to)), ...tables)]
        if (['trak', 'mdia', 'minf'].includes(type)) return [box(type, rebuilt(begin, end))]
        const content = Buffer.from(bytes.subarray(begin, end))
        // Of version 0: ticks of a second and the length in them.
        if (type === 'mvhd' || type === 'mdhd') content.set(words([25, count]), 12)
        if (type === 'tkhd') content.set(words([count]), 20)
        return [box(type, content)]
      }),
    )
  const moov = boxAt(bytes, 'moov')
  // Places in the file must stay: what was there before the list of contents stays, and the list is free to grow behind it.
  const before = Buffer.from(bytes)
  before.write('free', moov.from - 4, 'latin1')
  return Buffer.concat([before, box('moov', rebuilt(moov.from, moov.to))])
}
