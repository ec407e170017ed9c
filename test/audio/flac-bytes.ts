/** Checksums of FLAC (RFC 9639, sections 9.1.8 and 9.3). */
export function flacChecksum(bytes: Uint8Array, bits: 8 | 16): number {
  const polynomial = bits === 8 ? 0x07 : 0x8005
  let sum = 0
  for (const byte of bytes) {
    sum ^= byte << (bits - 8)
    for (let i = 0; i < 8; i += 1) sum = ((sum << 1) ^ (sum >> (bits - 1) ? polynomial : 0)) & (2 ** bits - 1)
  }
  return sum
}

/** 'fLaC' and a STREAMINFO, the only block unless `last` is false. */
export function flacHead(sampleRate: number, channels: number, bits: number, frames = 0, last = true): Buffer {
  const head = Buffer.alloc(42)
  head.write('fLaC', 0, 'latin1')
  head.writeUInt32BE(last ? 0x80000022 : 0x22, 4)
  head.writeUInt16BE(65535, 8)
  head.writeUInt16BE(65535, 10)
  head.writeUInt32BE(((sampleRate << 12) | ((channels - 1) << 9) | ((bits - 1) << 4)) >>> 0, 18)
  head.writeUInt32BE(frames, 22)
  return head
}

/**
 * A frame from the codes of its header, RFC 9639, section 9.1, and the body behind it.
 * @param codes four bits each: channel assignment, and three of bits of a sample
 */
export function flacFrame(number: number, size: number, assignment: number, depth: number, body: Uint8Array): Buffer {
  const coded =
    number < 128
      ? [number]
      : number < 2048
        ? [0xc0 | (number >> 6), 0x80 | (number & 63)]
        : [0xe0 | (number >> 12), 0x80 | ((number >> 6) & 63), 0x80 | (number & 63)]
  const head = Buffer.from([
    0xff,
    0xf8,
    0x70,
    (assignment << 4) | (depth << 1),
    ...coded,
    (size - 1) >> 8,
    (size - 1) & 255,
  ])
  const frame = Buffer.concat([head, Buffer.from([flacChecksum(head, 8)]), body])
  const check = Buffer.alloc(2)
  check.writeUInt16BE(flacChecksum(frame, 16))
  return Buffer.concat([frame, check])
}

/** Writes bits from the most significant on. */
export class BitWriter {
  readonly #bits: number[] = []

  put(value: number | bigint, count: number): this {
    for (let bit = count - 1; bit >= 0; bit -= 1) this.#bits.push(Number((BigInt(value) >> BigInt(bit)) & 1n))
    return this
  }

  bytes(): Buffer {
    while (this.#bits.length % 8 !== 0) this.#bits.push(0)
    return Buffer.from(
      Array.from({ length: this.#bits.length / 8 }, (_, i) =>
        this.#bits.slice(8 * i, 8 * i + 8).reduce((byte, bit) => 2 * byte + bit, 0),
      ),
    )
  }
}
