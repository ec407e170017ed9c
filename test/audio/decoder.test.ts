import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { AacDecoder } from '../../lib/audio/codecs/aac.js'
import { OggDecoder } from '../../lib/audio/codecs/ogg.js'
import { decodeCompressed } from '../../lib/audio/decoder.js'
import { DataError } from '../../lib/base/errors.js'
import { MemorySource, Place } from '../../lib/files/byte-source.js'
import { BitWriter, flacFrame, flacHead } from './flac-bytes.js'
import { OGG_FIRST, OGG_LAST, oggPage, withChecksum } from './ogg-bytes.js'

afterEach(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

describe("the decoder's thread", () => {
  const silence = flacFrame(0, 4, 0, 4, new BitWriter().put(0, 8).put(7, 16).bytes())
  const file = Buffer.concat([flacHead(8000, 1, 16), silence])
  const source = () => new MemorySource(file, new Place('clip.flac', DataError))

  test('does not begin for one that is aborted', async () => {
    const post = vi.spyOn(Worker.prototype, 'postMessage')
    const gone = new Error('gone')
    await expect(decodeCompressed(source(), 'flac', AbortSignal.abort(gone)).next()).rejects.toBe(gone)
    expect(post).not.toHaveBeenCalled()
    const { value } = await decodeCompressed(source(), 'flac').next()
    expect([value?.sampleRate, value?.channelData[0]?.length]).toEqual([8000, 4])
  })

  test('is stopped where it answers nothing for 20 seconds', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    vi.spyOn(Worker.prototype, 'postMessage').mockImplementation(() => {})
    const terminate = vi.spyOn(Worker.prototype, 'terminate')
    const decoded = decodeCompressed(source(), 'flac').next()
    const refused = expect(decoded).rejects.toMatchObject({
      name: 'DataError',
      message: 'clip.flac: the flac decoder did not respond for 20 s',
    })
    await vi.waitUntil(() => vi.getTimerCount() > 0, { interval: 1 })
    await vi.advanceTimersByTimeAsync(19_000)
    expect(terminate).not.toHaveBeenCalled()
    await vi.advanceTimersByTimeAsync(1000)
    await refused
    expect(terminate).toHaveBeenCalledTimes(1)
  })
})

describe('AAC goes to its package in pieces', () => {
  /** A decoder with the package's interface, that makes `perByte` samples of each byte. */
  function decoderOf(perByte: number, last: number) {
    const calls: (number | string)[] = []
    const made = (length: number) => ({ channelData: [new Float32Array(length)], sampleRate: 8000 })
    const decode = (bytes: Uint8Array) => {
      calls.push(bytes.length)
      return made(perByte * bytes.length)
    }
    const flush = () => {
      calls.push('flush')
      return made(last)
    }
    const free = () => calls.push('free')
    const decoder: AacDecoder = Reflect.construct(AacDecoder, [{ decode, flush, free }, 4096])
    return { decoder, calls }
  }
  const lengthsOf = (decoder: AacDecoder) => {
    const lengths: number[] = []
    for (let made = decoder.next(); made !== undefined; made = decoder.next()) lengths.push(made.channelData[0]!.length)
    return lengths
  }

  test('that grow from 512 bytes to 4096, and what its flush gives comes last and once', () => {
    const { decoder, calls } = decoderOf(1, 7)
    decoder.feed(new Uint8Array(6000))
    decoder.feed(new Uint8Array(6000))
    expect(lengthsOf(decoder)).toEqual([512, 1024, 2048, 4096, 4096, 224])
    decoder.end()
    expect(lengthsOf(decoder)).toEqual([7])
    expect(lengthsOf(decoder)).toEqual([])
    decoder.free()
    expect(calls).toEqual([512, 1024, 2048, 4096, 4096, 224, 'flush', 'free'])
  })

  test('whose samples fit in 4 MB, but for pieces of 64 bytes', () => {
    // 1024 samples of 4 bytes of each byte: 1024 bytes make 4 MB.
    const { decoder, calls } = decoderOf(1024, 0)
    decoder.feed(new Uint8Array(2560))
    decoder.end()
    expect(lengthsOf(decoder)).toHaveLength(3)
    expect(calls).toEqual([512, 1024, 1024, 'flush'])
    const bomb = decoderOf(65_536, 0)
    bomb.decoder.feed(new Uint8Array(640))
    lengthsOf(bomb.decoder)
    expect(bomb.calls).toEqual([512, 64, 64])
  })

  test('that make no samples until there is something to hear', () => {
    const { decoder, calls } = decoderOf(0, 0)
    decoder.feed(new Uint8Array(1536))
    expect(decoder.next()).toBeUndefined()
    expect(calls).toEqual([512, 1024])
  })
})

describe('Ogg hands over the packets of its streams', () => {
  const CONTINUED = 1
  const text = (value: string) => Buffer.from(value)

  /** What the decoders of streams that begin with 'head' are given, from a file in pieces of some bytes. */
  async function packetsOf(pages: Buffer[], piece = 1000) {
    const heard: string[] = []
    let streams = 0
    const decoder = new OggDecoder(async (first) => {
      if (Buffer.from(first).toString() !== 'head') return undefined
      const stream = ++streams
      return {
        decode: (packets) => {
          for (const { bytes, granule, last } of packets) {
            const packet = bytes.length > 20 ? `${bytes.length} bytes` : Buffer.from(bytes).toString()
            heard.push(`${stream} ${packet}${granule === undefined ? '' : ` at ${granule}`}${last ? ', last' : ''}`)
          }
          return undefined
        },
        free: () => heard.push(`${stream} freed`),
      }
    })
    const file = new Uint8Array(Buffer.concat(pages))
    for (let at = 0; at < file.length; at += piece) {
      decoder.feed(file.subarray(at, at + piece))
      await decoder.next()
    }
    decoder.end()
    await decoder.next()
    decoder.free()
    return heard
  }
  const head = oggPage([text('head')], { flags: OGG_FIRST })

  test('with the place and the end of each page, and frees each stream once', async () => {
    const pages = [
      head,
      oggPage([text('a'), text('b')], { sequence: 1, granule: 20 }),
      oggPage([text('of another')], { serial: 9, granule: 7 }),
      oggPage([text('c')], { sequence: 2, granule: 30, flags: OGG_LAST }),
      oggPage([text('behind the end')], { sequence: 3 }),
      oggPage([text('head')], { flags: OGG_FIRST, serial: 2 }),
      oggPage([text('d')], { serial: 2, sequence: 1, granule: -1, flags: OGG_LAST }),
    ]
    const wanted = [
      '1 head at 0',
      '1 a',
      '1 b at 20',
      '1 c at 30, last',
      '1 freed',
      '2 head at 0',
      '2 d, last',
      '2 freed',
    ]
    for (const piece of [1, 7, 1000]) expect(await packetsOf(pages, piece)).toEqual(wanted)
  })

  // RFC 3533: a page may end in the middle of a packet, after a segment of 255 bytes.
  test('that go over several pages, and leaves out one whose beginning is not there', async () => {
    const long = Buffer.alloc(255 + 3)
    const begun = (packets: Buffer[]) => {
      const page = oggPage(packets, { sequence: 1, granule: -1 })
      // Without the last segment of its lacing, which says that the packet ends.
      const shorter = Buffer.concat([
        page.subarray(0, 26),
        Buffer.of(page[26]! - 1),
        page.subarray(27, 26 + page[26]!),
        page.subarray(27 + page[26]!),
      ])
      return withChecksum(shorter)
    }
    const rest = oggPage([long.subarray(255), text('e')], { sequence: 2, granule: 5, flags: CONTINUED })
    expect(await packetsOf([head, begun([text('x'), long.subarray(0, 255)]), rest])).toEqual([
      '1 head at 0',
      '1 x',
      '1 258 bytes',
      '1 e at 5',
      '1 freed',
    ])
    expect(await packetsOf([head, rest])).toEqual(['1 head at 0', '1 e at 5', '1 freed'])
  })
})
