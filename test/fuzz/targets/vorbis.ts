import { VorbisDecoder } from '../../../lib/audio/codecs/native.js'
import { OggDecoder } from '../../../lib/audio/codecs/ogg.js'
import { oggPage } from '../../audio/ogg-bytes.js'
import { asDecoded, audioFiles, drain } from '../audio-seeds.js'
import type { FuzzTarget } from './target.js'

/** Packets as 'OggP', two bytes of length and the bytes, so that mutations get past the checksums of pages; or an Ogg file. */
export const target: FuzzTarget = {
  name: 'vorbis',
  words: ['OggP', 'OggS', 'BCV', '\x01vorbis', '\x05vorbis'],
  seeds: () => [
    ...audioFiles('flac-and-ogg', /^vorbis-[12]/).map(packetsOf),
    ...audioFiles('flac-and-ogg', /^vorbis-1/),
  ],
  run: (bytes) =>
    asDecoded(async () => {
      const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
      const file = text.toString('latin1', 0, 4) === 'OggP' ? ogg(text) : bytes
      const decoder = new OggDecoder(async (first) =>
        first.length > 7 && Buffer.from(first.subarray(0, 7)).toString('latin1') === '\x01vorbis'
          ? new VorbisDecoder(first)
          : undefined,
      )
      await drain(decoder, file)
      if (!decoder.opened) throw new Error('it has no stream')
    }),
}

function packetsOf(file: Uint8Array): Uint8Array {
  const parts: Buffer[] = []
  let packet: Uint8Array[] = []
  for (let at = 0; at < file.length; ) {
    const count = file[at + 26]!
    let body = at + 27 + count
    for (const length of file.subarray(at + 27, at + 27 + count)) {
      packet.push(file.subarray(body, body + length))
      body += length
      if (length === 255) continue
      const whole = Buffer.concat(packet)
      const head = Buffer.from('OggP\0\0', 'latin1')
      head.writeUInt16LE(whole.length, 4)
      parts.push(head, whole)
      packet = []
    }
    at = body
  }
  return Buffer.concat(parts)
}

function ogg(bytes: Buffer): Uint8Array {
  const pages: Buffer[] = []
  for (let at = 0; at + 6 <= bytes.length; ) {
    const length = bytes.readUInt16LE(at + 4)
    const packet = bytes.subarray(at + 6, at + 6 + length)
    pages.push(oggPage([packet.subarray(0, 60_000)], { flags: at === 0 ? 2 : 0, granule: 64 * pages.length }))
    at += 6 + length
  }
  return Buffer.concat(pages)
}
