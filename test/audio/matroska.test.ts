import { describe, expect, test } from 'vitest'
import { DataError, ops, readAudio, readAudioStream, readClip } from '../../lib/index.js'
import { expectClose, fixture } from '../helpers.js'

interface Case {
  name: string
  codec: string
  format: string
  sampleRate: number
  channels: number
}

const { cases, tensors } = await fixture<Case>('audio/matroska')
const bytesOf = (name: string) => Buffer.from(tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array)
const samplesOf = (name: string) => tensors[`${name}/out/samples`]!

/** Of max|a - b| / max|b|; formats.test.ts says why. What is stored losslessly is equal bit for bit. */
const tolerance = (codec: string) => ({ libopus: 7.5e-5, vorbis: 1e-5, libmp3lame: 1e-5 })[codec] ?? 0

describe('as PyAV and libsndfile read it', () => {
  test.each(cases)('$name', async ({ name, codec, format, sampleRate, channels }) => {
    const audio = await readAudio(bytesOf(name), { channels: 'all' })
    expect(audio.source).toEqual({ format, sampleRate, channels })
    expectClose(audio.samples, samplesOf(name), tolerance(codec))
    const parts = []
    for await (const { samples } of readAudioStream(bytesOf(name), { channels: 'all', chunkSeconds: 0.007 })) {
      parts.push(samples.clone())
    }
    expect(ops.equal(ops.cat(parts, -1), audio.samples)).toBe(true)
  })
})

const CLUSTER = Buffer.from('1f43b675', 'hex')
const SEGMENT = Buffer.from('18538067', 'hex')

/** The file with every size of these elements unknown, as a browser's recorder writes it. */
function unknownSizes(file: Buffer): Buffer {
  const live = Buffer.from(file)
  for (const id of [CLUSTER, SEGMENT]) {
    for (let at = live.indexOf(id); at >= 0; at = live.indexOf(id, at + 4)) {
      const length = Math.clz32(live[at + 4]!) - 23
      live.fill(0xff, at + 4, at + 4 + length)
      live[at + 4] = 0xff >> (length - 1)
    }
  }
  return live
}

describe('what a browser records', () => {
  test.each(['webm opus', 'webm opus stereo, live', 'mka vorbis', 'mka flac'])('%s, of unknown sizes', async (name) => {
    const live = unknownSizes(bytesOf(name))
    const whole = await readAudio(bytesOf(name), { channels: 'all' })
    expect(ops.equal((await readAudio(live, { channels: 'all' })).samples, whole.samples)).toBe(true)
    // Cut off in the middle of a block, as when the page was closed, it gives what is there.
    const { samples } = await readAudio(live.subarray(0, live.length - 40), { channels: 'all' }).catch((error) => {
      // FLAC says in its head how many samples there are.
      expect([name, error.message]).toEqual(['mka flac', expect.stringMatching(/expected .* frames|samples/)])
      return whole
    })
    expect(samples.size(1)).toBeGreaterThan(0)
    expect(samples.size(1)).toBeLessThanOrEqual(whole.samples.size(1))
  })

  test('is a clip like any other', async () => {
    expect((await readClip(bytesOf('webm opus'))).size(0)).toBe(Math.round((samplesOf('webm opus').size(1) * 16) / 48))
  })

  const text = (value: string) => Buffer.from(value, 'latin1')
  const element = (id: string, ...parts: Buffer[]) => {
    const content = Buffer.concat(parts)
    const size = Buffer.alloc(8)
    size.writeBigUInt64BE((1n << 56n) | BigInt(content.length))
    return Buffer.concat([Buffer.from(id, 'hex'), size, content])
  }
  const pcm = (bits: number, channels: number) => [
    element('86', text('A_PCM/INT/LIT')),
    element(
      'e1',
      element('9f', Buffer.of(channels)),
      element('6264', Buffer.of(bits)),
      element('b5', Buffer.from('45fa0000', 'hex')),
    ),
  ]
  const file = (track: Buffer[], ...blocks: Buffer[]) =>
    Buffer.concat([
      element('1a45dfa3'),
      element(
        '18538067',
        element('1654ae6b', element('ae', element('d7', Buffer.of(1)), element('83', Buffer.of(2)), ...track)),
        element('1f43b675', ...blocks),
      ),
    ])
  const block = (flags: number, ...frames: Buffer[]) => Buffer.concat([Buffer.of(0x81, 0, 0, flags), ...frames])
  const bytes = (...values: number[]) => Buffer.of(...values)
  const read = async (data: Buffer) => (await readAudio(data)).samples.mul(128).toArray()

  // RFC 9559, 10.2: the same frames, laced in each way.
  test.each([
    ['not', [block(0, bytes(129, 130)), block(0, bytes(131)), block(0, bytes(132, 133, 134))]],
    ["by Xiph's way", [block(2, bytes(2, 2, 1), bytes(129, 130, 131, 132, 133, 134))]],
    ["by EBML's way", [block(6, bytes(2, 0x82, 0xbe), bytes(129, 130, 131, 132, 133, 134))]],
    ['in equal parts', [block(4, bytes(2), bytes(129, 130, 131, 132, 133, 134))]],
  ])('frames that are laced: %s', async (_, blocks) => {
    expect(await read(file(pcm(8, 1), ...blocks.map((one) => element('a3', one))))).toEqual([1, 2, 3, 4, 5, 6])
    expect(await read(file(pcm(8, 1), ...blocks.map((one) => element('a0', element('a1', one)))))).toEqual([
      1, 2, 3, 4, 5, 6,
    ])
  })

  test('an error names its byte, also behind an element that comes in several pieces', async () => {
    // Read 256 kB at a time: the void element begins at byte 12 and ends at 300024.
    const head = Buffer.concat([element('1a45dfa3'), element('ec', Buffer.alloc(300_000))])
    const endless = Buffer.concat([head, Buffer.from('1654ae6bff', 'hex'), Buffer.alloc(9)])
    await expect(readAudio(endless)).rejects.toThrow(`element 0x1654ae6b at byte ${head.length}: expected a known size`)
  })

  test('padding is discarded, other tracks are skipped, a stripped prefix is restored', async () => {
    const group = (nanoseconds: bigint) => {
      const padding = Buffer.alloc(8)
      padding.writeBigInt64BE(nanoseconds)
      return element('a0', element('a1', block(0, bytes(129, 130, 131, 132))), element('75a2', padding))
    }
    // At 8000 Hz a sample is 125 µs.
    expect(await read(file(pcm(8, 1), group(250_000n)))).toEqual([1, 2])
    expect(await read(file(pcm(8, 1), group(-125_000n)))).toEqual([2, 3, 4])
    const other = Buffer.concat([Buffer.of(0x82, 0, 0, 0), bytes(1, 2, 3)])
    expect(await read(file(pcm(8, 1), element('a3', other), element('a3', block(0, bytes(129)))))).toEqual([1])
    const stripped = element(
      '6d80',
      element('6240', element('5034', element('4254', bytes(3)), element('4255', bytes(129)))),
    )
    expect(await read(file([...pcm(8, 1), stripped], element('a3', block(0, bytes(130)))))).toEqual([1, 2])
  })

  test.each([
    ['a codec that is not read', file([element('86', text('A_AC3'))]), /expected Opus, Vorbis, .* got A_AC3/],
    ['PCM of 12 bits', file(pcm(12, 1)), /A_PCM\/INT\/LIT of 12 bits/],
    [
      'pictures alone',
      Buffer.concat([
        element('1a45dfa3'),
        element('18538067', element('1654ae6b', element('ae', element('83', bytes(1))))),
      ]),
      /expected a file with an audio track/,
    ],
    ['no tracks', element('1a45dfa3'), /expected a file with an audio track/],
    [
      'a compressed track',
      file([...pcm(8, 1), element('6d80', element('6240', element('5034', element('4254', bytes(0)))))]),
      /additional compression or encryption/,
    ],
    [
      'a block longer than it is',
      file(pcm(8, 1), element('a3', block(2, bytes(1, 200), bytes(1)))),
      /expected frames within their block/,
    ],
    [
      'a part of a frame',
      file(pcm(8, 1), element('a3', block(4, bytes(1), bytes(1, 2, 3)))),
      /expected a block of 2 frames of equal size, got 3 bytes/,
    ],
    [
      'an element without end',
      Buffer.concat([element('1a45dfa3'), Buffer.from('1654ae6bff', 'hex')]),
      /expected a known size/,
    ],
    [
      '4 GB of headers',
      Buffer.concat([element('1a45dfa3'), Buffer.from('1654ae6b0100000100000000', 'hex')]),
      /at most 67108864 bytes, got one of 4294967296/,
    ],
    ['no element', Buffer.concat([element('1a45dfa3'), Buffer.alloc(64)]), /expected an element id, got 0x0/],
  ])('%s is refused', async (_, data, says) => {
    const error = await readAudio(data).catch((error) => error)
    expect(error).toBeInstanceOf(DataError)
    expect(error.message).toMatch(says)
  })
})

describe('files that are almost sound', async () => {
  const { tensors: mp3s, cases: kinds } = await fixture<Case>('audio/mp3')
  const { name } = kinds[0] as Case
  const mp3 = Buffer.from(mp3s[`${name}/file/bytes`]!.dataSync() as Uint8Array)

  test.each([1, 7, 4096])('an MP3 behind %s zeros', async (count) => {
    const { samples, source } = await readAudio(Buffer.concat([Buffer.alloc(count), mp3]), { channels: 'all' })
    expect(source.format).toBe('mp3')
    expect(ops.equal(samples, (await readAudio(mp3, { channels: 'all' })).samples)).toBe(true)
  })

  test('zeros before what is no MP3', async () => {
    for (const rest of [Buffer.alloc(9000), Buffer.from([0xff, 0xfb, 0x90, 0, 1, 2, 3]), Buffer.from('RIFF....WAVE')]) {
      await expect(readAudio(Buffer.concat([Buffer.alloc(1), rest]))).rejects.toThrow(/got an unknown format/)
    }
  })

  const wav = (claimed: number, frames: number) => {
    const file = Buffer.alloc(44 + 2 * frames)
    file.write('RIFF', 0)
    file.writeUInt32LE(36 + claimed, 4)
    file.write('WAVEfmt ', 8)
    for (const [at, value] of [
      [16, 16],
      [24, 8000],
      [28, 16000],
    ] as const)
      file.writeUInt32LE(value, at)
    for (const [at, value] of [
      [20, 1],
      [22, 1],
      [32, 2],
      [34, 16],
    ] as const)
      file.writeUInt16LE(value, at)
    file.write('data', 36)
    file.writeUInt32LE(claimed, 40)
    for (let i = 0; i < frames; i++) file.writeInt16LE(i, 44 + 2 * i)
    return file
  }

  test('a WAV that counts its header of 44 bytes as samples is read where that is allowed, and says so', async () => {
    const file = wav(244, 100)
    await expect(readAudio(file)).rejects.toThrow(/expected 244 bytes of samples, .* got 200.*allowTruncated/)
    const { samples, source } = await readAudio(file, { allowTruncated: true })
    expect(samples.mul(32768).toArray()).toEqual(Array.from({ length: 100 }, (_, i) => i))
    expect(source).toEqual({ format: 'wav', sampleRate: 8000, channels: 1, missingBytes: 44 })
    expect((await readClip(file, { allowTruncated: true, sampleRate: null })).size(0)).toBe(100)
    await expect(readClip(file)).rejects.toThrow(/allowTruncated/)
    const parts = []
    for await (const part of readAudioStream(file, { allowTruncated: true })) parts.push(part.samples.size(0))
    expect(parts).toEqual([100])
    // Where nothing is missing, nothing is said.
    expect((await readAudio(wav(200, 100), { allowTruncated: true })).source).not.toHaveProperty('missingBytes')
    await expect(readAudio(file, { allowTruncated: 'yes' as never })).rejects.toThrow(/allowTruncated to be a boolean/)
  })
})
