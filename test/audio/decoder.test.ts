import { Worker } from 'node:worker_threads'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { AacDecoder } from '../../lib/audio/codecs/aac.js'
import { decodeCompressed } from '../../lib/audio/decoder.js'
import { DataError } from '../../lib/base/errors.js'
import { MemorySource, Place } from '../../lib/files/byte-source.js'
import { BitWriter, flacFrame, flacHead } from './flac-bytes.js'

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
      message: 'clip.flac: its decoder makes nothing of it in 20 s',
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
