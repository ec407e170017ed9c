import { describe, expect, test } from 'vitest'
import { StreamDecoder, VorbisDecoder } from '../../lib/audio/codecs/native.js'
import { zeros } from '../../lib/index.js'
import { native } from '../../lib/native/addon.js'
import { beginsMp3, Codec, decodePcmInto, oggChecksum } from '../../lib/native/codec.js'
import { copyFloats } from '../../lib/tensor/tensor.js'
import { BitWriter, flacFrame, flacHead } from './flac-bytes.js'
import { oggPage } from './ogg-bytes.js'

/** Decode a file in pieces and return its first channel. */
function decoded(format: 'flac' | 'mp3', file: Uint8Array, piece = 100_000): number[] {
  const decoder = new StreamDecoder(format)
  const samples: number[] = []
  const take = () => {
    for (let part = decoder.next(); part !== undefined; part = decoder.next()) samples.push(...part.channelData[0]!)
  }
  try {
    for (let at = 0; at < file.length; at += piece) {
      decoder.feed(file.subarray(at, at + piece))
      take()
    }
    decoder.end()
    take()
    return samples
  } finally {
    decoder.free()
  }
}

const BITS_16 = 4
/** A file with one frame of one channel with 16 bits. */
const flacFile = (size: number, body: BitWriter, depth = 16, code = BITS_16) =>
  Buffer.concat([flacHead(8000, 1, depth, size), flacFrame(0, size, 0, code, body.bytes())])
/** The beginning of a subframe: a zero, its type, and that no bits are wasted. */
const subframe = (type: number) => new BitWriter().put(type << 1, 8)

describe('FLAC', () => {
  /** Residuals of 0, in one partition with the parameter 0. */
  const noResiduals = (body: BitWriter, count: number) => {
    body.put(0, 10)
    for (let i = 0; i < count; i += 1) body.put(1, 1)
    return body
  }

  // RFC 9639, section 9.2.6: the sum of products with the previous samples, shifted to the right.
  for (const [kind, depth, code, precision] of [
    ['in 32 bits', 16, BITS_16, 10],
    ['in more than 32 bits', 24, 6, 15],
  ] as const) {
    test(`predicts linearly from 1 to 32 samples, ${kind}`, () => {
      for (let order = 1; order <= 32; order += 1) {
        const size = order + 40
        const shift = precision - 1
        const weights = Array.from({ length: order }, (_, j) => ((j * 37 + order) % 301) - 150)
        const samples = Array.from({ length: order }, (_, i) => BigInt(((i * 7919 + order) % 20_000) - 10_000))
        const body = subframe(32 | (order - 1))
        for (const sample of samples) body.put(sample & ((1n << BigInt(depth)) - 1n), depth)
        body.put(precision - 1, 4).put(shift, 5)
        for (const weight of weights) body.put(weight & ((1 << precision) - 1), precision)
        noResiduals(body, size - order)
        while (samples.length < size) {
          let sum = 0n
          weights.forEach((weight, j) => {
            sum += BigInt(weight) * samples[samples.length - 1 - j]!
          })
          samples.push(sum >> BigInt(shift))
        }
        const wanted = samples.map((sample) => Number(sample) / 2 ** (depth - 1))
        expect(decoded('flac', flacFile(size, body, depth, code)), `order ${order}`).toEqual(wanted)
      }
    })
  }

  test('reads Rice codes of any length, in pieces of any size', () => {
    for (const parameter of [0, 1, 5, 14]) {
      const values = [0, -1, 1, 30, -30, 5].map((value) => value << (parameter >> 1))
      const body = subframe(8).put(0, 2).put(0, 4).put(parameter, 4)
      for (const value of values) {
        const folded = value < 0 ? -2 * value - 1 : 2 * value
        for (let zeros = folded >> parameter; zeros > 0; zeros -= 1) body.put(0, 1)
        body.put(1, 1).put(folded & ((1 << parameter) - 1), parameter)
      }
      const file = flacFile(values.length, body)
      const wanted = values.map((value) => value / 32_768)
      for (const piece of [1, 7, 100_000]) expect(decoded('flac', file, piece)).toEqual(wanted)
    }
  })

  test('refuses what is damaged', () => {
    const constant = new BitWriter().put(0, 8).put(7, 16)
    const frame = flacFrame(0, 4, 0, BITS_16, constant.bytes())
    const one = (body: BitWriter) => Buffer.concat([flacHead(8000, 1, 16), flacFrame(0, 4, 0, BITS_16, body.bytes())])
    const files: Record<string, [Uint8Array, RegExp]> = {
      'another file': [Buffer.from('RIFF....'), /expected 'fLaC' at the beginning/],
      'a header that ends': [flacHead(8000, 1, 16).subarray(0, 20), /ends within its header/],
      'no STREAMINFO': [Buffer.from('fLaC\x84\x00\x00\x00....', 'latin1'), /expected a STREAMINFO block/],
      'a short STREAMINFO': [Buffer.from('fLaC\x80\x00\x00\x04....', 'latin1'), /at least 34 bytes, got 4/],
      'a rate of 0': [flacHead(0, 1, 16), /expected a sample rate above 0 Hz/],
      'no frame': [Buffer.concat([flacHead(8000, 1, 16), Buffer.alloc(30, 1)]), /byte 42 does not begin as one/],
      'a flipped bit': [
        Buffer.concat([flacHead(8000, 1, 16), frame.subarray(0, 9), Buffer.of(1), frame.subarray(10)]),
        /checksum/,
      ],
      'other channels': [Buffer.concat([flacHead(8000, 2, 16), frame]), /has 1 channels, expected 2 as in the header/],
      'fewer frames': [Buffer.concat([flacHead(8000, 1, 16, 9), frame]), /expected 9 frames, .* got 4/],
      'half a frame': [Buffer.concat([flacHead(8000, 1, 16), frame.subarray(0, 12)]), /ends within a frame/],
      'a channel with a set first bit': [one(new BitWriter().put(128, 8)), /a channel that does not begin as one/],
      'more wasted bits than bits': [one(new BitWriter().put(1, 8).put(0, 16).put(1, 1)), /more bits left out/],
      'an unknown type': [one(subframe(2)), /the unknown type 2/],
      'a predictor longer than the frame': [one(subframe(32 | 7).put(0, 200)), /shorter than its predictor/],
      'a predictor of 16 bits': [one(subframe(32).put(0, 16).put(15, 4).put(0, 5)), /has a predictor that/],
      'a shift to the left': [one(subframe(32).put(0, 16).put(3, 4).put(31, 5)), /has a predictor that/],
      'unknown residuals': [one(subframe(8).put(2, 2).put(0, 20)), /residuals of an unknown kind/],
      'partitions that do not divide': [
        one(subframe(8).put(0, 2).put(3, 4).put(0, 20)),
        /partitions that do not divide/,
      ],
      'a code without an end': [
        Buffer.concat([one(subframe(8).put(0, 10)).subarray(0, -2), Buffer.alloc(1 << 12)]),
        /is longer than its samples/,
      ],
      'another rate': [
        Buffer.concat([flacHead(8000, 1, 16), frame, rateOf(frame)]),
        /expected one sample rate, got 8000 and then 44100 Hz/,
      ],
    }
    for (const [name, [file, message]] of Object.entries(files)) {
      expect(() => decoded('flac', file), name).toThrow(message)
    }
  })

  /** The same frame with the code of 44.1 kHz. */
  function rateOf(frame: Buffer): Buffer {
    const changed = Buffer.from(frame)
    changed[2] = (changed[2]! & 0xf0) | 9
    const body = new BitWriter().put(0, 8).put(7, 16).bytes()
    const size = changed.length - body.length - 3
    changed[size] = checksum(changed.subarray(0, size), 0x07, 8)
    changed.writeUInt16BE(checksum(changed.subarray(0, -2), 0x8005, 16), changed.length - 2)
    return changed
  }
})

/** The checksum of a polynomial, bit by bit. */
function checksum(bytes: Uint8Array, polynomial: number, bits: number): number {
  let sum = 0
  for (const byte of bytes) {
    sum ^= byte << (bits - 8)
    for (let i = 0; i < 8; i += 1) sum = ((sum << 1) ^ ((sum >> (bits - 1)) & 1 ? polynomial : 0)) & (2 ** bits - 1)
  }
  return sum
}

describe('MP3', () => {
  /** A silent frame of MPEG-1 with 32 kbit/s at 32 kHz: 144 bytes. */
  const frame = (mode: number) => Buffer.concat([Buffer.of(0xff, 0xfb, 0x18, mode << 6), Buffer.alloc(140)])
  const MONO = 3

  test('of silence is silent, 1,152 samples of a frame', () => {
    const silence = decoded('mp3', Buffer.concat([frame(MONO), frame(MONO), frame(MONO)]), 10)
    expect(silence).toHaveLength(3 * 1152)
    expect(silence.every((sample) => sample === 0)).toBe(true)
  })

  test('refuses another number of channels, and a megabyte of something else', () => {
    const two = Buffer.concat([frame(MONO), frame(MONO), frame(0), frame(0)])
    expect(() => decoded('mp3', two)).toThrow(/a constant number of channels, got 1 and then 2/)
    expect(() => decoded('mp3', Buffer.alloc(1_100_000))).toThrow(/in the first 1048576 bytes, got none/)
  })

  test('begins where two frames follow each other, or one ends the file', () => {
    const file = Buffer.concat([frame(MONO), frame(MONO)])
    expect(beginsMp3(file, false)).toBe(true)
    expect(beginsMp3(frame(MONO), true)).toBe(true)
    expect(beginsMp3(frame(MONO), false)).toBe(false)
    expect(beginsMp3(Buffer.concat([frame(MONO), Buffer.alloc(200)]), false)).toBe(false)
    expect(beginsMp3(Buffer.alloc(4), true)).toBe(false)
    expect(beginsMp3(Buffer.alloc(0), true)).toBe(false)
  })
})

describe('Vorbis', () => {
  const header = (channels: number, rate: number, blocks: number, framing = 1) => {
    const bytes = Buffer.alloc(30)
    bytes.write('\x01vorbis', 'latin1')
    bytes[11] = channels
    bytes.writeUInt32LE(rate, 12)
    bytes[28] = blocks
    bytes[29] = framing
    return bytes
  }
  const packet = (bytes: Uint8Array) => [{ bytes, granule: undefined, last: false }]
  const setup = (...bytes: number[]) => Buffer.from([5, ...Buffer.from('vorbis'), ...bytes])

  test('refuses headers of another kind, and samples before them', () => {
    expect(() => new VorbisDecoder(header(1, 8000, 0xb8, 0))).toThrow(/identification header of version 0/)
    expect(() => new VorbisDecoder(Buffer.alloc(7))).toThrow(/identification header of version 0/)
    expect(() => new VorbisDecoder(header(0, 8000, 0xb8))).toThrow(/0 channels at 8000 Hz in blocks of 256 and 2048/)
    expect(() => new VorbisDecoder(header(1, 8000, 0x8b))).toThrow(/blocks of 2048 and 256 samples/)
    const decoder = new VorbisDecoder(header(1, 8000, 0xb8))
    expect(decoder.decode(packet(Buffer.alloc(0)))).toBeUndefined()
    expect(() => decoder.decode(packet(Buffer.of(0)))).toThrow(/the Vorbis setup header before the samples/)
    decoder.free()
  })

  test('refuses a damaged setup header', () => {
    const refused: [Uint8Array, RegExp][] = [
      [setup(), /the Vorbis setup header is truncated/],
      [setup(0, 0x42, 0x43, 0x57), /expected a Vorbis codebook, got another signature/],
      [setup(0, 0x42, 0x43, 0x56), /unsupported Vorbis codebook of 0 entries with 0 dimensions/],
      // Dimensions 1, two entries of one length each, without vectors; then the header ends.
      [setup(0, 0x42, 0x43, 0x56, 1, 0, 2, 0, 0, 0, 0), /the Vorbis setup header is truncated/],
      // Both entries have two bits: half of the codewords are missing.
      [setup(0, 0x42, 0x43, 0x56, 1, 0, 2, 0, 0, 0b10000100, 0), /codeword lengths that form a tree/],
      // 2^20 + 1 entries.
      [setup(0, 0x42, 0x43, 0x56, 1, 0, 1, 0, 16), /unsupported Vorbis codebook of 1048577 entries/],
    ]
    for (const [bytes, message] of refused) {
      const decoder = new VorbisDecoder(header(1, 8000, 0xb8))
      expect(() => decoder.decode(packet(bytes)), String(message)).toThrow(message)
      decoder.free()
    }
  })
})

test('the checksum of Ogg leaves its field out', () => {
  const page = oggPage([Buffer.from('a packet that is longer than eight bytes')], { sequence: 3, granule: 7 })
  expect(oggChecksum(page)).toBe(page.readUInt32LE(22))
  const changed = Buffer.from(page)
  changed.writeUInt32LE(12_345, 22)
  expect(oggChecksum(changed)).toBe(page.readUInt32LE(22))
  for (const length of [0, 1, 22, 24, 26, 27]) expect(oggChecksum(page.subarray(0, length))).toBeTypeOf('number')
})

describe('the native functions refuse', () => {
  test('what is not a decoder, and one that was closed', () => {
    for (const wrong of [undefined, {}, 1]) {
      expect(() => native.nextOfCodec(wrong as never, 1)).toThrow(/expected a decoder/)
    }
    expect(() => new Codec('wav' as never)).toThrow(/expected 'flac', 'mp3' or 'vorbis', got 'wav'/)
    const codec = new Codec('flac')
    expect(() => codec.decode([Buffer.of(1)], undefined, false)).toThrow(/an open decoder of packets/)
    expect(() => codec.feed(new Float32Array(2) as never)).toThrow(/expected a Uint8Array/)
    codec.free()
    codec.free()
    expect(() => codec.feed(Buffer.of(1))).toThrow(/an open decoder of a stream/)
  })

  test('values that do not fit into a tensor', () => {
    const tensor = zeros([2, 3])
    copyFloats(tensor, 2, Float32Array.of(1, 2))
    expect(tensor.toArray()).toEqual([
      [0, 0, 1],
      [2, 0, 0],
    ])
    for (const offset of [-1, 5, 7]) {
      expect(() => copyFloats(tensor, offset, Float32Array.of(1, 2)), String(offset)).toThrow(/values that fit/)
    }
    expect(() => copyFloats(tensor, 0, new Uint8Array(1) as never)).toThrow(/a Float32Array/)
    expect(() => copyFloats(tensor.t(), 0, Float32Array.of(1))).toThrow(/contiguous float32/)
    expect(() => copyFloats(zeros([2], { dtype: 'float64' }), 0, Float32Array.of(1))).toThrow(/contiguous float32/)
    tensor.dispose()
  })

  test('samples without their bytes, and an unknown encoding', () => {
    const plane = () => [new Float32Array(2)]
    expect(() => decodePcmInto(Buffer.alloc(3), 2, false, plane())).toThrow(/the bytes of all samples/)
    expect(() => decodePcmInto(Buffer.alloc(4), 9, false, plane())).toThrow(/an encoding of samples/)
    expect(() => decodePcmInto(Buffer.alloc(4), 2, false, [new Float64Array(1) as never])).toThrow(/a Float32Array/)
    decodePcmInto(Buffer.alloc(0), 2, false, [])
  })
})
