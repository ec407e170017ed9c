import { describe, expect, test } from 'vitest'
import { ops, readAudio, readAudioStream, type Tensor } from '../../lib/index.js'
import { expectClose, fixture } from '../helpers.js'
import { BitWriter, flacFrame, flacHead } from './flac-bytes.js'
import { OGG_FIRST, OGG_LAST, oggPage } from './ogg-bytes.js'

type Case = { name: string; sampleRate: number; format: string; channels: number }

/**
 * Of max|a - b| / max|b|. What is stored losslessly is equal bit for bit. npm's opus-decoder has libopus with its quick
 * power of two, which gives 0.99992522 for 1: each band may be wrong by 7.5e-5, which is 0.0006 dB.
 */
const tolerance = (format: string) => ({ opus: 7.5e-5, mp3: 2e-6, vorbis: 1e-5 })[format] ?? 0

async function gathered(bytes: Uint8Array, chunkSeconds: number): Promise<Tensor> {
  const parts: Tensor[] = []
  for await (const { samples } of readAudioStream(bytes, { channels: 'all', chunkSeconds })) parts.push(samples.clone())
  return ops.cat(parts, -1)
}

for (const name of ['containers', 'adpcm', 'mp3', 'mpeg-1', 'mpeg-2', 'mpeg-2-intensity', 'flac-and-ogg']) {
  describe(`as libsndfile reads it: ${name}`, async () => {
    const { cases, tensors } = await fixture<Case>(`audio/${name}`)
    for (const { name: file, sampleRate, format, channels } of cases) {
      test(file, async () => {
        const bytes = tensors[`${file}/file/bytes`]!.dataSync() as Uint8Array
        const wanted = tensors[`${file}/out/samples`]!
        const audio = await readAudio(bytes, { channels: 'all' })
        expect(audio.source).toEqual({ format, sampleRate, channels })
        expectClose(audio.samples, wanted, tolerance(format))
        expect(ops.equal(await gathered(bytes, 0.003), audio.samples), 'as a stream').toBe(true)
        // From the middle of a block.
        const from = Math.min(37, wanted.size(1) - 1)
        const part = await readAudio(bytes, { channels: 'all', start: from / sampleRate })
        expect(ops.equal(part.samples, audio.samples.narrow(1, from, wanted.size(1) - from)), 'a part').toBe(true)
      })
    }
  })
}

describe('FLAC', async () => {
  const { tensors } = await fixture<Case>('audio/flac-and-ogg')
  const flac = Buffer.from(tensors['flac-16-2/file/bytes']!.dataSync() as Uint8Array)
  const wanted = tensors['flac-16-2/out/samples']!

  test('of 32 bits, whose difference of sides has 33', async () => {
    const left = [2147483647, -2147483648, 5, -7]
    const right = [-2147483648, 2147483647, 9, -2147483648]
    const body = new BitWriter().put(2, 8)
    for (const value of left) body.put(BigInt(value), 32)
    body.put(2, 8)
    left.forEach((value, i) => {
      body.put(BigInt(value) - BigInt(right[i]!), 33)
    })
    const file = Buffer.concat([flacHead(8000, 2, 32), flacFrame(0, 4, 8, 7, body.bytes())])
    const { samples } = await readAudio(file, { channels: 'all' })
    expect(samples.toArray()).toEqual([left, right].map((plane) => plane.map((value) => Math.fround(value / 2 ** 31))))
  })

  // RFC 9639, 9.2.5: the residual of a fixed predictor of order n is the nth difference.
  test.each([0, 1, 2, 3, 4])('of a fixed predictor of order %i', async (order) => {
    const values = [3, -5, 120, 77, -128, 127, 0, 0, 9, -1]
    let residual = values
    for (let i = 0; i < order; i += 1) residual = residual.slice(1).map((value, at) => value - residual[at]!)
    const body = new BitWriter().put((8 + order) << 1, 8)
    for (const value of values.slice(0, order)) body.put(value & 0xffff, 16)
    // One Rice partition whose residuals are written plainly, in 15 bits each.
    body.put(0, 2).put(0, 4).put(15, 4).put(15, 5)
    for (const value of residual) body.put(value & 0x7fff, 15)
    const file = Buffer.concat([flacHead(8000, 1, 16), flacFrame(0, values.length, 0, 4, body.bytes())])
    const { samples } = await readAudio(file)
    expect(samples.mul(2 ** 15).toArray()).toEqual(values)
  })

  test('in Ogg', async () => {
    // One block or frame to a packet: what lies between the syncs of this small file.
    const blocks: Buffer[] = []
    let at = 4
    for (let last = false; !last; ) {
      last = (flac[at]! & 128) !== 0
      const length = 4 + flac.readUIntBE(at + 1, 3)
      blocks.push(flac.subarray(at, at + length))
      at += length
    }
    const head = Buffer.concat([Buffer.from('\x7fFLAC\x01\x00\x00\x01fLaC', 'latin1'), blocks[0]!])
    const ogg = [
      oggPage([head], { flags: OGG_FIRST }),
      oggPage(blocks.slice(1), { sequence: 1 }),
      oggPage([flac.subarray(at)], { sequence: 2, granule: wanted.size(1), flags: OGG_LAST }),
    ]
    const audio = await readAudio(Buffer.concat(ogg), { channels: 'all' })
    expect(audio.source.format).toBe('flac')
    expect(ops.equal(audio.samples, wanted)).toBe(true)
  })

  test('with a flipped bit is refused by frame and byte; what follows its last frame is passed over', async () => {
    const broken = Buffer.from(flac)
    broken[flac.length - 20]! ^= 4
    await expect(readAudio(broken)).rejects.toThrow(/the frame at byte \d+ has a wrong checksum/)
    const tagged = Buffer.concat([flac, Buffer.from('TAG'), Buffer.alloc(125)])
    expect(ops.equal((await readAudio(tagged, { channels: 'all' })).samples, wanted)).toBe(true)
  })
})

describe('Ogg', async () => {
  const { tensors } = await fixture<Case>('audio/flac-and-ogg')
  const bytesOf = (name: string) => Buffer.from(tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array)

  test('streams one after the other are one recording', async () => {
    for (const name of ['vorbis-2', 'vorbis-1', 'opus-1']) {
      const bytes = bytesOf(name)
      const wanted = tensors[`${name}/out/samples`]!
      const { samples } = await readAudio(Buffer.concat([bytes, bytes]), { channels: 'all' })
      expectClose(samples, ops.cat([wanted, wanted], 1), tolerance(name.split('-')[0]!), name)
    }
    const turned = Buffer.concat([bytesOf('vorbis-1'), bytesOf('vorbis-2')])
    await expect(readAudio(turned)).rejects.toThrow(/expected a constant number of channels, got \d and then \d/)
    const flacStream = (sampleRate: number, serial: number) => {
      const head = Buffer.concat([Buffer.from('\x7fFLAC\x01\x00\x00\x01', 'latin1'), flacHead(sampleRate, 1, 16)])
      const frame = flacFrame(0, 4, 0, 0, new BitWriter().put(0, 8).put(7, 16).bytes())
      return Buffer.concat([
        oggPage([head], { flags: OGG_FIRST, serial }),
        oggPage([frame], { flags: OGG_LAST, serial, sequence: 1, granule: 4 }),
      ])
    }
    const [slow, fast] = [flacStream(8000, 1), flacStream(16_000, 2)]
    expect((await readAudio(Buffer.concat([slow, slow]))).samples.shape).toEqual([8])
    await expect(readAudio(Buffer.concat([slow, fast]))).rejects.toThrow(
      /expected one sample rate, got 8000 and then 16000 Hz/,
    )
  })

  test('a page with a flipped bit is refused; one that was cut ends the file', async () => {
    for (const name of ['vorbis-2', 'opus-1']) {
      const bytes = bytesOf(name)
      const broken = Buffer.from(bytes)
      broken[bytes.length - 5]! ^= 1
      await expect(readAudio(broken), name).rejects.toThrow(/the Ogg page at byte \d+ has a wrong checksum/)
    }
  })
})

test('MPEG audio of layer II says so', async () => {
  const frame = Buffer.alloc(417)
  frame.set([0xff, 0xfd, 0x90, 0x00])
  await expect(readAudio(Buffer.concat([frame, frame]))).rejects.toThrow(/MPEG audio of layer I or II/)
})
