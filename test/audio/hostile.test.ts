import { describe, expect, test } from 'vitest'
import { readAudio, readAudioStream } from '../../lib/index.js'
import { decodeAudio, encodedAudio } from '../../lib/serve/audio-part.js'
import { MEMORY_SLACK, PATIENCE } from '../patience.js'
import { flacFrame, flacHead } from './flac-bytes.js'
import { chunk, formatChunk, pcm16, riff, wideSizes } from './wav-bytes.js'

const samples = pcm16(1, 2, 3, 4)
const data = chunk('data', samples)
const format = formatChunk()

describe('WAV files that lie', () => {
  const files: Record<string, [Uint8Array, RegExp]> = {
    'nothing at all': [Buffer.alloc(0), /expected WAV.* got an empty file/],
    'only the beginning of a header': [riff([]).subarray(0, 11), /expected WAV.* got an unknown format|WAV header/],
    'a RIFF file of something else': [
      Buffer.concat([Buffer.from('RIFF\x04\0\0\0AVI ', 'latin1'), format]),
      /expected WAV.* got an unknown format/,
    ],
    'no chunks': [riff([]), /expected a 'fmt ' chunk, found none/],
    'no samples': [riff([format]), /expected a 'data' chunk, found none/],
    'samples before their format': [riff([data, format]), /'fmt ' chunk before the 'data' chunk/],
    'two formats': [riff([format, format, data]), /one 'fmt ' chunk, got two/],
    'more samples than bytes': [
      riff([format, chunk('data', samples, 1000)]),
      /expected 1000 bytes of samples, .* got 8/,
    ],
    'a cut file': [riff([format, chunk('data', Buffer.alloc(5000))]).subarray(0, 3000), /expected 5000 bytes/],
    'a chunk of 4 GiB before the samples': [riff([chunk('LIST', samples, 0xfffffff0), format, data]), /got 4294967280/],
    'a format that is cut': [riff([chunk('fmt ', Buffer.alloc(14)), data]), /at least 16 bytes, got 14/],
    'no channels': [riff([formatChunk({ channels: 0, blockAlign: 2 }), data]), /channels: expected 1 to 1024, got 0/],
    '65535 channels': [riff([formatChunk({ channels: 65535 }), data]), /channels: expected 1 to 1024, got 65535/],
    'a sample rate of 0': [riff([formatChunk({ sampleRate: 0 }), data]), /sample rate: expected .* got 0/],
    'a sample rate of 4 GHz': [
      riff([formatChunk({ sampleRate: 0xffffffff }), data]),
      /sample rate: expected .* got 4294967295/,
    ],
    'frames of 0 bytes': [riff([formatChunk({ blockAlign: 0 }), data]), /bytes per frame: .* got 0/],
    'frames smaller than their samples': [
      riff([formatChunk({ channels: 2, blockAlign: 2 }), data]),
      /bytes per frame: .* got 2/,
    ],
    'samples of 0 bits': [riff([formatChunk({ bits: 0, blockAlign: 2 }), data]), /of 0 bits/],
    'samples of 65535 bits': [riff([formatChunk({ bits: 65535, blockAlign: 8192 }), data]), /of 65535 bits/],
    'floats of 16 bits': [
      riff([formatChunk({ tag: 3, bits: 16 }), data]),
      /unsupported sample format: float of 16 bits/,
    ],
    'integers of 64 bits': [riff([formatChunk({ bits: 64 }), data]), /integer of 64 bits/],
    'compressed samples': [riff([formatChunk({ tag: 49, bits: 0, blockAlign: 65 }), data]), /GSM/],
    'ADPCM without blocks': [
      riff([formatChunk({ tag: 2, bits: 4, blockAlign: 1 }), data]),
      /at least 26 bytes for ADPCM/,
    ],
    'an unknown encoding': [riff([formatChunk({ tag: 0x1234 }), data]), /unknown \(tag 4660\)/],
    'an unknown extensible encoding': [
      riff([Buffer.from(formatChunk({ subformat: 1 })).fill(0xab, 40, 48), data]),
      /expected a known GUID/,
    ],
    'an extensible format that is cut': [
      riff([chunk('fmt ', formatChunk({ tag: 0xfffe }).subarray(8)), data]),
      /extensible chunk 'fmt ': expected at least 40 bytes, got 16/,
    ],
    'an RF64 of 2^63 bytes': [
      riff([wideSizes(2n ** 63n - 1n), format, chunk('data', samples, 0xffffffff)], 'RF64', 0xffffffff),
      /expected 9223372036854776000 bytes/,
    ],
    'an RF64 without room for its sizes': [
      riff([chunk('ds64', Buffer.alloc(8)), format, data], 'RF64', 0xffffffff),
      /chunk 'ds64': expected at least 24 bytes, got 8/,
    ],
    'a million empty chunks': [
      riff([format, Buffer.concat(Array<Buffer>(1_000_000).fill(chunk('junk', Buffer.alloc(0)))), data]),
      /at most 1000 chunks/,
    ],
  }
  for (const [name, [bytes, message]] of Object.entries(files)) {
    test(name, async () => {
      const rss = process.memoryUsage().rss
      const begin = performance.now()
      const error = await readAudio(bytes).then(
        () => undefined,
        (thrown) => thrown,
      )
      expect(performance.now() - begin).toBeLessThan(PATIENCE)
      expect(process.memoryUsage().rss - rss).toBeLessThan(200e6 * MEMORY_SLACK)
      expect(error).toMatchObject({ name: 'DataError', code: 'ERR_DATA', file: 'the audio in memory' })
      expect(error.message).toMatch(message)
    })
  }
})

describe('WAV files that are odd and sound', () => {
  const wanted = [1, 2, 3, 4].map((value) => value / 32768)
  const files: Record<string, Uint8Array> = {
    'chunks of odd length': riff([chunk('odd!', Buffer.from('abc')), format, chunk('LIST', Buffer.from('x')), data]),
    'an odd chunk whose padding was forgotten': riff([chunk('odd!', Buffer.from('abc')).subarray(0, 11), format, data]),
    'bytes after the samples': riff([format, data, Buffer.from('anything')]),
    'a stream that never got its sizes': riff([format, chunk('data', samples, 0)], 'RIFF', 0),
    'a stream with the largest size': riff([format, chunk('data', samples, 0xffffffff)], 'RIFF', 0xffffffff),
    "a stream of arecord's": riff([format, chunk('data', samples, 0x80000000)], 'RIFF', 0x80000024),
    "a stream of sox's": riff([format, chunk('data', samples, 0x7ffff000)], 'RIFF', 0x7ffff024),
    'RF64 with its size': riff([wideSizes(8n), format, chunk('data', samples, 0xffffffff)], 'RF64', 0xffffffff),
    BW64: riff([wideSizes(8n), format, chunk('data', samples, 0xffffffff)], 'BW64', 0xffffffff),
    'half a frame at the end': riff([format, chunk('data', Buffer.concat([samples, Buffer.from('x')]))]),
    'an extensible format': riff([formatChunk({ subformat: 1 }), data]),
    '12 bits in 16': riff([formatChunk({ bits: 12 }), data]),
  }
  for (const [name, bytes] of Object.entries(files)) {
    test(name, async () => {
      const { samples: read } = await readAudio(bytes)
      expect(read.toArray()).toEqual(wanted)
    })
  }

  test('no samples, and said so', async () => {
    expect(
      (await readAudio(riff([format, chunk('data', Buffer.alloc(0)), chunk('LIST', samples)]))).samples.shape,
    ).toEqual([0])
    const both = await readAudio(riff([formatChunk({ channels: 2 }), chunk('data', Buffer.alloc(0))]), {
      channels: 'all',
    })
    expect(both.samples.shape).toEqual([2, 0])
  })
})

/** FLAC that says nothing for long: frames of 65535 samples on eight channels in 36 bytes each. */
const flacBomb = (frames: number): Buffer =>
  Buffer.concat([
    flacHead(16000, 8, 16),
    ...Array.from({ length: frames }, (_, number) => flacFrame(number, 65535, 7, 4, Buffer.alloc(24))),
  ])

test('a FLAC bomb is stopped at the bound', async () => {
  const { samples } = await readAudio(flacBomb(3), { channels: 'all' })
  expect(samples.shape).toEqual([8, 3 * 65535])
  const bomb = flacBomb(2500)
  const rss = process.memoryUsage().rss
  const begin = performance.now()
  await expect(readAudio(bomb, { channels: 'all' })).rejects.toThrow(/at most 67108864 bytes of decoded samples/)
  expect(performance.now() - begin).toBeLessThan(PATIENCE)
  // It would unfold to 5 GB; what the decoder in its thread takes varies.
  expect(process.memoryUsage().rss - rss).toBeLessThan(400e6 * MEMORY_SLACK)
})

describe('what unfolds', () => {
  const slow = riff([formatChunk({ sampleRate: 1 }), chunk('data', Buffer.alloc(20_000))])

  test('a WAV file of one sample a second is refused before it becomes 640 MB', async () => {
    const rss = process.memoryUsage().rss
    await expect(readAudio(slow, { sampleRate: 16000 })).rejects.toMatchObject({
      name: 'DataError',
      file: 'the audio in memory',
      maxBytes: 2 ** 26,
      message: expect.stringMatching(/640000000 when resampling from 1 to 16000 Hz.*Set maxBytes/),
    })
    expect(process.memoryUsage().rss - rss).toBeLessThan(100e6)
    const short = riff([formatChunk({ sampleRate: 1 }), chunk('data', Buffer.alloc(100))])
    const { samples } = await readAudio(short, { sampleRate: 16000 })
    expect(samples.shape).toEqual([50 * 16000])
  })

  test('and streams in bounded memory', async () => {
    const rss = process.memoryUsage().rss
    let most = 0
    let frames = 0
    for await (const { samples } of readAudioStream(slow, { sampleRate: 16000, chunkSeconds: 100 })) {
      most = Math.max(most, process.memoryUsage().rss - rss)
      frames += samples.size(0)
      if (frames > 10_000_000) break
    }
    expect(most).toBeLessThan(200e6)
  })

  test('a rate that no filter leads from is told of the file', async () => {
    const odd = riff([formatChunk({ sampleRate: 99_999_989 }), chunk('data', Buffer.alloc(200))])
    const told = {
      name: 'DataError',
      file: 'the audio in memory',
      message: expect.stringMatching(/cannot resample from 99999989 Hz/),
    }
    await expect(readAudio(odd, { sampleRate: 16000 })).rejects.toMatchObject(told)
    const chunks = async () => {
      for await (const _ of readAudioStream(odd, { sampleRate: 16000 }));
    }
    await expect(chunks()).rejects.toMatchObject(told)
  })

  test('counts every channel, and what is passed over', async () => {
    const flac = flacBomb(4)
    const all = 4 * 8 * 4 * 65535
    await readAudio(flac, { channels: 0, maxBytes: all })
    for (const options of [{ channels: 0 }, { start: 10 }]) {
      await expect(readAudio(flac, { ...options, maxBytes: all - 1 })).rejects.toMatchObject({
        name: 'DataError',
        maxBytes: all - 1,
        message: expect.stringMatching(/bytes of decoded samples, got more/),
      })
    }
  })

  test('at a server never takes more than a clip of the allowed length', async () => {
    // 17 MB of this unfold to 250 GB; at the highest rate, so that its length is no bound.
    const bomb = Buffer.concat([flacHead(655350, 8, 16), flacBomb(300).subarray(42)])
    const part = encodedAudio({ data: bomb.toString('base64'), format: 'flac' }, 'param')
    const rss = process.memoryUsage().rss
    await expect(decodeAudio(part, 60, new AbortController().signal)).rejects.toThrow(/at most 23078400 bytes/)
    expect(process.memoryUsage().rss - rss).toBeLessThan(300e6)
  })

  test('ends when nobody waits for it', async () => {
    const bomb = flacBomb(300)
    const gone = new Error('gone')
    await expect(readAudio(bomb, { maxBytes: 1e12, signal: AbortSignal.abort(gone) })).rejects.toBe(gone)
    const later = new AbortController()
    setTimeout(() => later.abort(gone), 20)
    await expect(readAudio(bomb, { maxBytes: 1e12, signal: later.signal })).rejects.toBe(gone)
    const stream = new AbortController()
    const chunks = (async () => {
      for await (const _ of readAudioStream(bomb, { chunkSeconds: 1, signal: stream.signal })) stream.abort(gone)
    })()
    await expect(chunks).rejects.toBe(gone)
    await expect(readAudio(slow, { signal: 'no' as never })).rejects.toMatchObject({ code: 'ERR_CONFIG' })
  })
})
