import { describe, expect, test } from 'vitest'
import { DataError, readAudio } from '../../lib/index.js'
import { chunk, riff } from './wav-bytes.js'

// What the headers of AIFF, AU and CAF may and may not say. The samples are bytes of one channel, unless a case says more.

const text = (value: string) => Buffer.from(value, 'latin1')
const u16 = (value: number) => Buffer.of(value >> 8, value & 255)
const u32 = (value: number) => Buffer.of(value >>> 24, (value >> 16) & 255, (value >> 8) & 255, value & 255)
const u64 = (value: bigint) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigInt64BE(value)
  return bytes
}
const join = (...parts: Buffer[]) => Buffer.concat(parts)
/** As signed bytes: 1, 2 and so on in 128ths. */
const samples = (count: number) => Buffer.from(Array.from({ length: count }, (_, i) => i + 1))

/** IEEE 754's 80 bits of a number that is not zero. */
function extended(value: number): Buffer {
  const exponent = Math.floor(Math.log2(Math.abs(value)))
  const mantissa = BigInt(Math.round(Math.abs(value) * 2 ** (52 - exponent))) << 11n
  return join(u16((value < 0 ? 0x8000 : 0) + exponent + 16383), u64(BigInt.asIntN(64, mantissa)))
}

const aiffChunk = (id: string, body: Buffer, size = body.length) =>
  join(text(id), u32(size), body, Buffer.alloc(body.length % 2))
const aiff = (...chunks: Buffer[]) => {
  const body = join(text('AIFF'), ...chunks)
  return join(text('FORM'), u32(body.length), body)
}
const comm = ({ channels = 1, frames = 4, bits = 8, rate = 8000, compression = '' } = {}) =>
  aiffChunk('COMM', join(u16(channels), u32(frames), u16(bits), extended(rate), text(compression)))
const ssnd = (data: Buffer, offset = 0) => aiffChunk('SSND', join(u32(offset), u32(0), data))

const au = ({ magic = '.snd', begin = 24, size = 4, kind = 2, rate = 8000, channels = 1, data = samples(4) } = {}) => {
  const words = join(...[begin, size, kind, rate, channels].map(u32))
  return join(text(magic), magic === '.snd' ? words : words.swap32(), data)
}

const cafChunk = (id: string, body: Buffer, size = BigInt(body.length)) => join(text(id), u64(size), body)
const caf = (...chunks: Buffer[]) => join(text('caff'), u16(1), u16(0), ...chunks)
const desc = ({ rate = 8000, kind = 'lpcm', flags = 0, packet = 1, channels = 1, bits = 8 } = {}) => {
  const hertz = Buffer.alloc(8)
  hertz.writeDoubleBE(rate)
  return cafChunk('desc', join(hertz, text(kind), u32(flags), u32(packet), u32(1), u32(channels), u32(bits)))
}
const cafData = (data: Buffer, size?: bigint) => cafChunk('data', join(u32(0), data), size)

describe('is read', () => {
  const ramp = [1, 2, 3, 4]
  test.each<[string, Buffer, number[], number?]>([
    ['AIFF', aiff(comm(), ssnd(samples(4))), ramp],
    ['AIFF whose samples begin later', aiff(comm({ frames: 2 }), ssnd(samples(4), 2)), [3, 4]],
    ['AIFF with no samples behind their offset', aiff(comm({ frames: 0 }), ssnd(samples(4), 4)), []],
    ['AIFF of fewer frames than there are', aiff(comm({ frames: 3 }), ssnd(samples(4))), [1, 2, 3]],
    ['AIFF behind a chunk of an odd size', aiff(aiffChunk('NAME', text('abc')), comm(), ssnd(samples(4))), ramp],
    ['AIFF of a rate that is no whole number', aiff(comm({ rate: 7999.6 }), ssnd(samples(4))), ramp],
    [
      'AIFF of 11 bits, in the upper part of two bytes',
      aiff(comm({ bits: 11, frames: 1 }), ssnd(Buffer.of(2, 128))),
      [2.5],
    ],
    [
      'AIFF of 16 bits backwards',
      aiff(comm({ bits: 16, frames: 1, compression: 'sowt' }), ssnd(Buffer.of(128, 2))),
      [2.5],
    ],
    ['AU', au(), ramp],
    ['AU with a remark', au({ begin: 28, data: join(text('hey!'), samples(4)) }), ramp],
    ['AU whose size is not known', au({ size: 0xffffffff }), ramp],
    ['AU of a part of what is there', au({ size: 2 }), [1, 2]],
    ['AU backwards', au({ magic: 'dns.' }), ramp],
    ['CAF', caf(desc(), cafData(samples(4))), ramp],
    ['CAF to its end', caf(desc(), cafData(samples(4), -1n)), ramp],
    ['CAF behind another chunk', caf(cafChunk('info', samples(3)), desc(), cafData(samples(4))), ramp],
    ['CAF of 16 bits backwards', caf(desc({ bits: 16, packet: 2, flags: 2 }), cafData(Buffer.of(128, 2))), [2.5]],
  ])('%s', async (_, file, wanted) => {
    const { samples, source } = await readAudio(file)
    expect(samples.mul(128).toArray()).toEqual(wanted)
    expect(source).toMatchObject({ sampleRate: 8000, channels: 1 })
  })
})

describe('is refused', () => {
  test.each([
    ['AIFF: a short COMM', aiff(aiffChunk('COMM', Buffer.alloc(17))), /'COMM': expected at least 18 bytes, got 17/],
    [
      'AIFF: samples before their format',
      aiff(ssnd(samples(4)), comm()),
      /expected a 'COMM' chunk before the 'SSND' chunk/,
    ],
    [
      'AIFF: a short SSND',
      aiff(comm(), aiffChunk('SSND', Buffer.alloc(7))),
      /'SSND': expected at least 8 bytes, got 7/,
    ],
    [
      'AIFF: an offset behind the end',
      aiff(comm({ frames: 0 }), ssnd(samples(4), 5)),
      /'SSND': expected an offset of at most 4, got 5/,
    ],
    [
      'AIFF: more frames than there are',
      aiff(comm({ frames: 5 }), ssnd(samples(4))),
      /expected 5 frames, as the header declares, got 4/,
    ],
    ['AIFF: no COMM', aiff(aiffChunk('NAME', text('ab'))), /expected a 'COMM' chunk, found none/],
    ['AIFF: no SSND', aiff(comm()), /expected a 'SSND' chunk, found none/],
    [
      'AIFF: a chunk longer than the file',
      aiff(comm(), aiffChunk('SSND', samples(4), 1000)),
      /"SSND": expected at most 4 bytes, the rest of the file, got 1000/,
    ],
    ['AIFF: no channel', aiff(comm({ channels: 0 }), ssnd(samples(4))), /channels: expected 1 to 1024, got 0/],
    ['AIFF: a negative rate', aiff(comm({ rate: -8000 }), ssnd(samples(4))), /sample rate: expected .* got -8000/],
    [
      'AIFF: another codec',
      aiff(comm({ compression: 'QDM2' }), ssnd(samples(4))),
      /unsupported sample format: "QDM2" of 8 bits/,
    ],
    ['AIFF: 33 bits', aiff(comm({ bits: 33 }), ssnd(samples(4))), /unsupported sample format: "NONE" of 33 bits/],
    [
      'AIFF: more than 1000 chunks',
      aiff(...Array<Buffer>(1001).fill(aiffChunk('ANNO', Buffer.alloc(0))), comm()),
      /at most 1000 chunks/,
    ],
    ['AU: a cut header', au().subarray(0, 23), /expected an AU header of 24 bytes, got a file of 23/],
    ['AU: another kind', au({ kind: 23 }), /unsupported sample format: AU encoding 23/],
    ['AU: samples in the header', au({ begin: 23 }), /offset of samples: expected 24 to 28, got 23/],
    ['AU: samples behind the end', au({ begin: 29 }), /offset of samples: expected 24 to 28, got 29/],
    ['AU: more samples than there are', au({ size: 5 }), /expected 5 bytes of samples, as the header declares, got 4/],
    ['AU: no rate', au({ rate: 0 }), /sample rate: expected .* got 0/],
    [
      'CAF: a short desc',
      caf(cafChunk('desc', Buffer.alloc(31)), cafData(samples(4))),
      /'desc': expected at least 32 bytes, got 31/,
    ],
    [
      'CAF: samples before their format',
      caf(cafData(samples(4)), desc()),
      /expected a 'desc' chunk before the 'data' chunk/,
    ],
    ['CAF: a short data', caf(desc(), cafChunk('data', Buffer.alloc(3))), /'data': expected at least 4 bytes, got 3/],
    ['CAF: no desc', caf(cafChunk('info', samples(3))), /expected a 'desc' chunk, found none/],
    ['CAF: no data', caf(desc()), /expected a 'data' chunk, found none/],
    ['CAF: a negative size', caf(desc(), cafData(samples(4), -2n)), /"data": expected at most 8 bytes, .* got -2/],
    [
      'CAF: another chunk without end',
      caf(cafChunk('info', samples(3), -1n)),
      /"info": expected at most 3 bytes, .* got -1/,
    ],
    [
      'CAF: another codec',
      caf(desc({ kind: 'aac ' }), cafData(samples(4))),
      /unsupported sample format: "aac " of 8 bits/,
    ],
    [
      'CAF: floats of 16 bits',
      caf(desc({ flags: 1, bits: 16, packet: 2 }), cafData(samples(4))),
      /unsupported sample format: "lpcm" of 16 bits/,
    ],
    [
      'CAF: 12 bits',
      caf(desc({ bits: 12, packet: 2 }), cafData(samples(4))),
      /unsupported sample format: "lpcm" of 12 bits/,
    ],
    [
      'CAF: frames of another size',
      caf(desc({ packet: 2 }), cafData(samples(4))),
      /bytes per frame: expected 1, got 2/,
    ],
  ])('%s', async (_, file, message) => {
    const error = await readAudio(file).catch((thrown: Error) => thrown)
    expect(error).toBeInstanceOf(DataError)
    expect(error).toMatchObject({
      file: 'the audio in memory',
      byte: expect.any(Number),
      message: expect.stringMatching(message),
    })
  })
})

// Microsoft, "Multiple Channel Audio Data and WAVE Files" and the registry of WAVE formats: IMA's block is a head of 4 bytes for
// each channel and eight samples in 4 bytes; Microsoft's a head of 7 with two samples, and a sample in 4 bits.
describe('blocks of ADPCM in WAV', () => {
  const u16le = (...values: number[]) => join(...values.map((value) => Buffer.of(value & 255, value >> 8)))
  const adpcm = (tag: number, channels: number, blockBytes: number, bits: number, more: Buffer) => {
    const head = join(u16le(tag, channels, 8000, 0, 8000, 0, blockBytes, bits, more.length), more)
    return riff([chunk('fmt ', head), chunk('data', Buffer.alloc(2 * blockBytes))])
  }
  const ima = (channels: number, blockBytes: number, frames: number, bits = 4) =>
    adpcm(17, channels, blockBytes, bits, u16le(frames))
  const ms = (channels: number, blockBytes: number, frames: number, count = 1, pairs = count) =>
    adpcm(2, channels, blockBytes, 4, join(u16le(frames, count), Buffer.alloc(4 * pairs)))

  test.each([
    ['IMA, one channel', ima(1, 36, 65), 65],
    ['IMA, fewer samples than there are', ima(1, 36, 57), 57],
    ['IMA, the heads alone', ima(2, 8, 1), 1],
    ['IMA, two channels', ima(2, 40, 33), 33],
    ["Microsoft's, one channel", ms(1, 17, 22), 22],
    ["Microsoft's, two channels", ms(2, 24, 12), 12],
    ["Microsoft's, the heads alone", ms(1, 7, 2), 2],
    ["Microsoft's, 256 pairs of weights", ms(1, 7, 2, 256), 2],
  ])('are read: %s', async (_, file, frames) => {
    expect((await readAudio(file)).samples.shape).toEqual([2 * frames])
  })

  test.each([
    ['no samples', ima(1, 36, 0), /0 samples of 1 channels do not fit a block of 36 bytes/],
    ['eight more than there are', ima(1, 36, 73), /73 samples of \d channels do not fit/],
    ['a part of eight', ima(1, 36, 58), /58 samples of \d channels do not fit/],
    ['one byte too few', ima(2, 39, 33), /33 samples of 2 channels do not fit a block of 39 bytes/],
    ['IMA of 3 bits', ima(1, 36, 65, 3), /ADPCM of 3 bits/],
    ['a cut head', adpcm(17, 1, 36, 4, Buffer.alloc(0)), /expected at least 20 bytes for ADPCM, got 18/],
    ["Microsoft's of one sample", ms(1, 17, 1), /1 samples of \d channels do not fit/],
    ["Microsoft's of one sample too many", ms(1, 17, 23), /23 samples of \d channels do not fit/],
    ["Microsoft's of two channels, one too many", ms(2, 24, 13), /13 samples of \d channels do not fit/],
    ['no pairs of weights', ms(1, 17, 22, 0, 1), /expected 1 to 256 pairs of weights .* got 0/],
    ['257 pairs of weights', ms(1, 17, 22, 257), /expected 1 to 256 pairs of weights .* got 257/],
    [
      'fewer pairs of weights than claimed',
      ms(1, 17, 22, 2, 1),
      /pairs of weights within the 'fmt ' chunk of 26 bytes, got 2/,
    ],
  ])('are refused: %s', async (_, file, message) => {
    const error = await readAudio(file).catch((thrown: Error) => thrown)
    expect(error).toBeInstanceOf(DataError)
    expect((error as Error).message).toMatch(message)
  })
})
