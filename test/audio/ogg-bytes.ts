/** An Ogg page with whole packets of fewer than 255 * 255 bytes in all. */
export function oggPage(
  packets: Uint8Array[],
  fields: { flags?: number; granule?: number; serial?: number; sequence?: number } = {},
): Buffer {
  const { flags = 0, granule = 0, serial = 1, sequence = 0 } = fields
  const lacing = packets.flatMap(({ length }) => [...Array<number>(Math.floor(length / 255)).fill(255), length % 255])
  const head = Buffer.alloc(27)
  head.write('OggS', 0, 'latin1')
  head[5] = flags
  head.writeBigInt64LE(BigInt(granule), 6)
  head.writeUInt32LE(serial, 14)
  head.writeUInt32LE(sequence, 18)
  head[26] = lacing.length
  const page = Buffer.concat([head, Buffer.from(lacing), ...packets])
  return withChecksum(page)
}

/** The page with the checksum of what it holds (RFC 3533, section 6). */
export function withChecksum(page: Buffer): Buffer {
  page.writeUInt32LE(0, 22)
  let sum = 0
  for (const byte of page) {
    sum ^= byte << 24
    for (let i = 0; i < 8; i += 1) sum = (sum << 1) ^ (sum < 0 ? 0x04c11db7 : 0)
  }
  page.writeUInt32LE(sum >>> 0, 22)
  return page
}

export const OGG_FIRST = 2
export const OGG_LAST = 4
