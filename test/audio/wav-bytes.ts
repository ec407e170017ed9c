import { truncateSync, writeFileSync } from 'node:fs'

/** A chunk of a RIFF file with its padding; `size` is what it claims. */
export function chunk(id: string, body: Uint8Array, size = body.length): Buffer {
  const head = Buffer.alloc(8)
  head.write(id, 0, 'latin1')
  head.writeUInt32LE(size >>> 0, 4)
  return Buffer.concat([head, body, Buffer.alloc(body.length % 2)])
}

export interface FormatFields {
  tag?: number
  channels?: number
  sampleRate?: number
  bits?: number
  blockAlign?: number
  /** Makes it extensible: the first two bytes of the GUID. */
  subformat?: number
}

export function formatChunk(fields: FormatFields = {}): Buffer {
  const { tag = 1, channels = 1, sampleRate = 8000, bits = 16, subformat } = fields
  const blockAlign = fields.blockAlign ?? channels * Math.ceil(bits / 8)
  const body = Buffer.alloc(subformat === undefined ? 16 : 40)
  body.writeUInt16LE(subformat === undefined ? tag : 0xfffe, 0)
  body.writeUInt16LE(channels, 2)
  body.writeUInt32LE(sampleRate, 4)
  body.writeUInt32LE((sampleRate * blockAlign) >>> 0, 8)
  body.writeUInt16LE(blockAlign & 65535, 12)
  body.writeUInt16LE(bits, 14)
  if (subformat !== undefined) {
    body.writeUInt16LE(22, 16)
    body.writeUInt16LE(bits, 18)
    body.writeUInt16LE(subformat, 24)
    Buffer.from('000000001000800000aa00389b71', 'hex').copy(body, 26)
  }
  return chunk('fmt ', body)
}

export function riff(chunks: Uint8Array[], kind = 'RIFF', size?: number): Buffer {
  const body = Buffer.concat([Buffer.from('WAVE', 'latin1'), ...chunks])
  const head = Buffer.alloc(8)
  head.write(kind, 0, 'latin1')
  head.writeUInt32LE((size ?? body.length) >>> 0, 4)
  return Buffer.concat([head, body])
}

/** The 'ds64' chunk of RF64: sizes of the file, of the samples, and frames. */
export function wideSizes(data: bigint, riffSize = data + 100n): Buffer {
  const body = Buffer.alloc(28)
  body.writeBigUInt64LE(riffSize, 0)
  body.writeBigUInt64LE(data, 8)
  return chunk('ds64', body)
}

export const pcm16 = (...values: number[]): Buffer => {
  const bytes = Buffer.alloc(values.length * 2)
  values.forEach((value, i) => {
    bytes.writeInt16LE(value, 2 * i)
  })
  return bytes
}

/** Write a file of silence at 16,000 Hz that takes no room on the disk. */
export function writeSilence(path: string, seconds: number): void {
  const bytes = seconds * 16000 * 2
  writeFileSync(
    path,
    riff([formatChunk({ sampleRate: 16000 }), chunk('data', Buffer.alloc(0), bytes)], 'RIFF', bytes + 36),
  )
  truncateSync(path, 44 + bytes)
}
