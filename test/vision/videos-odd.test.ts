import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, test } from 'vitest'
import { openVideo, ops, preprocessVideo, readImage, sampleFrames, type Tensor } from '../../lib/index.js'
import { mp4Claims } from '../../lib/vision/mp4-samples.js'
import { type Fixture, fixture } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { box, boxAt, repeated } from './mp4.js'
import { nodeAv } from './node-av.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-video-odd-'))
afterAll(() => rmSync(folder, { recursive: true }))

const usual = (await fixture('vision/videos-decoded')) as Fixture<unknown>
const odd = (await fixture<{ name: string; size: [number, number]; count: number }>('vision/videos-odd')) as Fixture<{
  name: string
  size: [number, number]
  count: number
}>
const bytesOf = (file: Fixture<unknown>, name: string) =>
  Buffer.from(file.tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array)
const written = (name: string, bytes: Uint8Array): string => {
  const path = join(folder, name)
  writeFileSync(path, bytes)
  return path
}
const mostOff = (a: Tensor, b: Tensor) => a.int().sub(b.int()).abs().max().item() as number

describe.skipIf(!nodeAv)('videos that are unlike others, of npm node-av', { timeout: PATIENCE }, () => {
  // One pixel; 30,000 pixels wide.
  test.each(odd.cases)("$name: PyAV's frames, and what a network is given of them", async ({ name, size, count }) => {
    await using video = await openVideo(written(`${name}.mp4`, bytesOf(odd, name)))
    expect([video.height, video.width, video.frameCount, video.audioTrack]).toEqual([...size, count, null])
    const frames = await video.frames(Array.from({ length: count }, (_, i) => i))
    const every6 = frames.indexSelect(1, ops.arange(0, size[0], 6)).indexSelect(2, ops.arange(0, size[1], 6))
    expect(mostOff(every6, odd.tensors[`${name}/out/every6`]!)).toBeLessThanOrEqual(1)
    expect((await video.frames([count - 1])).shape).toEqual([1, ...size, 3])
    expect((await preprocessVideo(frames)).shape).toEqual([3, count, 224, 224])
    // Its short side is made 224 pixels long: of 2 × 30,000 that would be 3 GB a frame. Without antialiasing only the middle of it is made.
    const smooth = preprocessVideo(frames, { antialias: true })
    if (name !== 'wide') expect((await smooth).shape).toEqual([3, count, 224, 224])
    else {
      await expect(smooth).rejects.toThrow(/got 30000 × 2 pixels, so narrow that its longer side would become 3360000/)
      await expect(smooth).rejects.toMatchObject({ code: 'ERR_DATA', width: 30_000, height: 2 })
    }
  })

  test('frames of a film that players turn are as they are stored', async () => {
    const bytes = bytesOf(usual, 'h264')
    const turned = Buffer.from(bytes)
    // The matrix of a quarter turn.
    const at = boxAt(turned, 'moov/trak/tkhd').from + 40
    for (const [i, value] of [0, 0x10000, 0, 0xffff0000, 0, 0, 0, 0, 0x40000000].entries())
      turned.writeUInt32BE(value, at + 4 * i)
    expect(turned.equals(bytes)).toBe(false)
    await using straight = await openVideo(written('straight.mp4', bytes))
    await using video = await openVideo(written('turned.mp4', turned))
    expect([video.width, video.height, video.frameCount]).toEqual([64, 48, 20])
    expect(ops.equal(await video.frames([0, 7, 19]), await straight.frames([0, 7, 19]))).toBe(true)
  })

  test('eight frames of two hours', async () => {
    const bytes = bytesOf(usual, 'h264')
    const [keys, count] = [[0, 8, 16], 2 * 3600 * 25]
    await using video = await openVideo(written('long.mp4', repeated(bytes, keys, count)))
    expect([video.frameCount, video.rate]).toEqual([count, 25])
    const before = process.memoryUsage().rss
    const wanted = sampleFrames(count, { count: 8 })
    expect([wanted[0], wanted[7]]).toEqual([0, count - 1])
    const frames = await video.frames(wanted)
    expect(process.memoryUsage().rss - before).toBeLessThan(300 * 2 ** 20)
    await using short = await openVideo(written('short.mp4', bytes))
    const shown = await short.frames(keys)
    for (const [i, place] of wanted.entries())
      expect(ops.equal(frames.select(0, i), shown.select(0, place % keys.length)), `${place}`).toBe(true)
  })

  test('sound alone, and a film of which no frame is there', async () => {
    const { tensors } = await fixture('audio/flac-and-ogg')
    const found = Object.values(tensors).flatMap((one) => (one.dtype === 'uint8' ? [one.dataSync() as Uint8Array] : []))
    const ogg = found.find((bytes) => Buffer.from(bytes.subarray(0, 4)).toString('latin1') === 'OggS')
    const sound = written('sound.ogv', ogg as Uint8Array)
    await expect(openVideo(sound)).rejects.toMatchObject({ code: 'ERR_DATA', file: sound })
    await expect(openVideo(sound)).rejects.toThrow(/sound\.ogv: expected a file with video/)
    // Matroska up to its first cluster of frames.
    const film = bytesOf(usual, 'h264-open')
    const cluster = film.indexOf(Buffer.from([0x1f, 0x43, 0xb6, 0x75]))
    expect(cluster).toBeGreaterThan(100)
    const empty = written('empty.mkv', film.subarray(0, cluster))
    await expect(openVideo(empty)).rejects.toThrow(
      /empty\.mkv: expected a video file, got an unknown format, or a file truncated/,
    )
  })

  test('a stream decodes no more ahead than it says', async () => {
    const path = written('many.mp4', repeated(bytesOf(usual, 'h264'), [0, 8, 16], 400))
    let decoded = 0
    const count = (worker: { on(event: 'message', heard: (reply: object) => void): void }) =>
      worker.on('message', (reply) => {
        if ('pixels' in reply) decoded += 1
      })
    process.on('worker', count as never)
    try {
      // Threads that wait for a film are not started anew.
      await using one = await openVideo(path)
      await using other = await openVideo(path)
      await using third = await openVideo(path)
      expect([one.frameCount, other.frameCount]).toEqual([400, 400])
      const stream = third.stream()
      await stream.next()
      // Until nothing comes any more.
      for (let before = -1; before !== decoded; await sleep(300)) before = decoded
      expect(decoded).toBeGreaterThan(1)
      // 32 frames, which are less than 64 MB here, behind the one that was taken.
      expect(decoded).toBeLessThanOrEqual(34)
      await stream.return(undefined)
    } finally {
      process.off('worker', count as never)
    }
  })

  test('what a file claims is counted before its frames are', async () => {
    const bytes = bytesOf(usual, 'h264')
    const stbl = 'moov/trak/mdia/minf/stbl'
    const changed = (path: string, at: number, ...words: number[]) => {
      const copy = Buffer.from(bytes)
      for (const [i, word] of words.entries()) copy.writeUInt32BE(word, boxAt(copy, path).from + at + 4 * i)
      return copy
    }
    const fragment = (count: number) => {
      const trun = Buffer.alloc(8)
      trun.writeUInt32BE(count, 4)
      return Buffer.concat([bytes, box('moof', box('traf', box('trun', trun)))])
    }
    const compressed = Buffer.from(bytes)
    compressed.write('cmov', boxAt(compressed, 'moov/trak').from - 4, 'latin1')
    const claims: [string, Buffer, RegExp][] = [
      ['samples of one size', changed(`${stbl}/stsz`, 4, 1, 0xffffffff), /4294967295 samples of 1 bytes, but has only/],
      [
        'samples of no size',
        changed(`${stbl}/stsz`, 4, 0, 1 << 24),
        /at most 4194304 frames, the file declares 16777216/,
      ],
      ['fragments', fragment(1 << 24), /at most 4194304 frames, the file declares 16777216/],
      ['a compressed index', compressed, /a compressed index \(cmov\)/],
    ]
    for (const [name, file, says] of claims) {
      const path = written('claims.mp4', file)
      expect(mp4Claims(path).fault, name).toMatch(says)
      await expect(openVideo(path), name).rejects.toThrow(says)
      await expect(openVideo(path), name).rejects.toMatchObject({ code: 'ERR_DATA', file: path })
    }
    expect(mp4Claims(written('sound.mp4', bytes))).toEqual({ isMp4: true })
    expect(mp4Claims(written('other.mkv', Buffer.from('\x1a\x45\xdf\xa3matroska')))).toEqual({ isMp4: false })
  })

  test('edits that show every sample again count for each', () => {
    const words = (...values: number[]) => {
      const made = Buffer.alloc(4 * values.length)
      for (const [i, value] of values.entries()) made.writeUInt32BE(value, 4 * i)
      return made
    }
    const track = (kind: string, count: number, duration: number, edits: number) =>
      box(
        'moov',
        box(
          'trak',
          box('hdlr', words(0, 0), Buffer.from(kind)),
          box('edts', box('elst', words(0, edits))),
          box('stts', words(0, 1, count, duration)),
          box('stsz', words(0, 0, count)),
        ),
      )
    const claim = (...file: Buffer[]) => mp4Claims(written('edits.mov', Buffer.concat(file))).fault
    expect(claim(track('vide', 1 << 20, 1, 4))).toBe(undefined)
    expect(claim(track('vide', 1 << 20, 1, 5))).toMatch(/at most 4194304 frames, .* 5242880/)
    // Two hours of plain sound, which FFmpeg indexes by chunks.
    expect(claim(track('soun', 7200 * 48_000, 1, 1))).toBe(undefined)
    expect(claim(track('vide', 7200 * 48_000, 1, 1))).toMatch(/at most 4194304 frames, .* 345600000/)
    // What stands in the media data is no box.
    expect(claim(box('ftyp'), box('mdat', track('vide', 1 << 24, 1, 1)))).toBe(undefined)
  })

  test('mp4 cut off at every tenth of its length is read as far as it goes, or refused by name', async () => {
    const bytes = bytesOf(usual, 'h264-sound')
    for (let tenth = 1; tenth < 10; tenth += 1) {
      const path = written('cut.mp4', bytes.subarray(0, Math.floor((bytes.length * tenth) / 10)))
      await expect(openVideo(path), `${tenth}`).rejects.toMatchObject({ code: 'ERR_DATA', file: path })
    }
  })
})

describe('pictures that are unlike others', () => {
  test('30,000 pixels wide', async () => {
    const row = Buffer.from(Uint8Array.from({ length: 90_000 }, (_, i) => i % 251))
    const wide = await readImage(Buffer.concat([Buffer.from('P6 30000 1 255\n'), row]))
    expect(wide.shape).toEqual([1, 30_000, 3])
    expect(wide.select(0, 0).select(0, 29_999).toArray()).toEqual([89_997, 89_998, 89_999].map((i) => i % 251))
    const tall = await readImage(Buffer.concat([Buffer.from('P6 1 30000 255\n'), row]))
    expect(tall.shape).toEqual([30_000, 1, 3])
  })
})
