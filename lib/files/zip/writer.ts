/**
 * Headers and directory of a zip archive (PKWARE's APPNOTE 6.3): stored entries, zip64 where a number requires it. The same
 * entries give the same bytes, since there are no dates.
 */

export interface WrittenEntry {
  name: string
  size: number
  crc: number
  /** Offset of its header. */
  offset: number
}

const WIDE = 0xffffffff
const UTF8_NAME = 0x0800
// 1 January 1980, the format's first day.
const DATE = 0x0021

const isWide = (value: number): boolean => value >= WIDE
const narrow = (value: number): number => (isWide(value) ? WIDE : value)

/** Encode numbers, each with its width in bytes. */
function record(...fields: [value: number, width: 2 | 4 | 8][]): Buffer {
  const bytes = Buffer.alloc(fields.reduce((sum, [, width]) => sum + width, 0))
  let at = 0
  for (const [value, width] of fields) {
    if (width === 8) bytes.writeBigUInt64LE(BigInt(value), at)
    else bytes.writeUIntLE(value, at, width)
    at += width
  }
  return bytes
}

/** Return the zip64 field for numbers that exceed 32 bits. */
function wideField(...values: number[]): Buffer {
  return values.length === 0
    ? Buffer.alloc(0)
    : record([1, 2], [8 * values.length, 2], ...values.map((value): [number, 8] => [value, 8]))
}

/** Return the header before an entry's data. */
export function zipHead({ name, size, crc }: WrittenEntry): Uint8Array {
  const bytes = Buffer.from(name)
  const extra = isWide(size) ? wideField(size, size) : wideField()
  const head = record(
    [0x04034b50, 4],
    [isWide(size) ? 45 : 20, 2],
    [UTF8_NAME, 2],
    [0, 2],
    [0, 2],
    [DATE, 2],
    [crc, 4],
    [narrow(size), 4],
    [narrow(size), 4],
    [bytes.length, 2],
    [extra.length, 2],
  )
  return Buffer.concat([head, bytes, extra])
}

/** Return the directory after the last entry's data, which ends at `start`. */
export function zipDirectory(entries: readonly WrittenEntry[], start: number): Uint8Array {
  const directory = Buffer.concat(entries.map(directoryRecord))
  const count = entries.length
  const size = directory.length
  const wide = count >= 0xffff || isWide(start) || isWide(size)
  const wideEnd = wide
    ? [
        record(
          [0x06064b50, 4],
          [44, 8],
          [45, 2],
          [45, 2],
          [0, 4],
          [0, 4],
          [count, 8],
          [count, 8],
          [size, 8],
          [start, 8],
        ),
        record([0x07064b50, 4], [0, 4], [start + size, 8], [1, 4]),
      ]
    : []
  const short = Math.min(count, 0xffff)
  const end = record(
    [0x06054b50, 4],
    [0, 2],
    [0, 2],
    [short, 2],
    [short, 2],
    [narrow(size), 4],
    [narrow(start), 4],
    [0, 2],
  )
  return Buffer.concat([directory, ...wideEnd, end])
}

function directoryRecord({ name, size, crc, offset }: WrittenEntry): Buffer {
  const bytes = Buffer.from(name)
  const extra = wideField(...(isWide(size) ? [size, size] : []), ...(isWide(offset) ? [offset] : []))
  const version = extra.length > 0 ? 45 : 20
  const head = record(
    [0x02014b50, 4],
    [version, 2],
    [version, 2],
    [UTF8_NAME, 2],
    [0, 2],
    [0, 2],
    [DATE, 2],
    [crc, 4],
    [narrow(size), 4],
    [narrow(size), 4],
    [bytes.length, 2],
    [extra.length, 2],
    [0, 2],
    [0, 2],
    [0, 2],
    [0, 4],
    [narrow(offset), 4],
  )
  return Buffer.concat([head, bytes, extra])
}
