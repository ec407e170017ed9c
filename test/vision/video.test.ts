import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, describe, expect, test } from 'vitest'
import {
  ConfigError,
  DataError,
  DisposedError,
  memoryStats,
  openVideo,
  ops,
  preprocessVideo,
  sampleFrames,
  type Tensor,
} from '../../lib/index.js'
import { expectClose, type Fixture, fixture, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { nodeAv } from './node-av.js'

const folder = mkdtempSync(join(tmpdir(), 'voxtorch-video-'))
afterAll(() => rmSync(folder, { recursive: true }))

interface Case {
  name: string
  size: [number, number]
  count: number
  rate: number
}
const file = (await fixture<Case>('vision/videos-decoded')) as Fixture<Case>

/** A file of the fixture. */
function fileOf(name: string, length = Number.POSITIVE_INFINITY): string {
  const path = join(folder, `${name}-${length}.mp4`)
  writeFileSync(path, (file.tensors[`${name}/file/bytes`]!.dataSync() as Uint8Array).subarray(0, length))
  return path
}

const every6 = (frames: Tensor): Tensor => {
  const places = (size: number) => ops.arange(0, size, 6)
  return frames.indexSelect(1, places(frames.size(1))).indexSelect(2, places(frames.size(2)))
}
const mostOff = (a: Tensor, b: Tensor) => a.int().sub(b.int()).abs().max().item() as number

describe.skipIf(!nodeAv)('videos of npm node-av', { timeout: PATIENCE }, () => {
  test.each(file.cases)("$name: PyAV's frames, in sequence and by number", async ({ name, size, count, rate }) => {
    const video = await openVideo(fileOf(name))
    try {
      expect([video.height, video.width, video.frameCount]).toEqual([...size, count])
      expect(video.rate).toBeCloseTo(rate, 3)
      const wanted = file.tensors[`${name}/out/every6`]!
      const inSequence: Tensor[] = []
      for await (const frame of video.stream()) inSequence.push(frame)
      expect(inSequence.length).toBe(count)
      const all = ops.stack(inSequence)
      expect(mostOff(every6(all), wanted)).toBeLessThanOrEqual(1)
      // Backwards, twice, and over the middle.
      for (const places of [[count - 1, 0], sampleFrames(count, { count: 3 }), [(count / 2) | 0, (count / 2) | 0]]) {
        const leaps = await video.frames(places)
        expect(leaps.shape).toEqual([places.length, ...size, 3])
        for (const [i, place] of places.entries()) {
          expect(ops.equal(leaps.select(0, i), inSequence[place]!), `frame ${place}`).toBe(true)
        }
      }
    } finally {
      await video.close()
    }
  })

  test('its sound', async () => {
    const video = await openVideo(fileOf('h264-sound'))
    expect(video.audioTrack).toEqual({ sampleRate: 16000, channels: 2 })
    const { samples, sampleRate } = await video.audio({ channels: 'all' })
    expect(sampleRate).toBe(16000)
    // AAC fills its last block up; whether that is cut off again depends on FFmpeg's version.
    const wanted = file.tensors['h264-sound/out/sound']!
    expect(samples.size(1)).toBeGreaterThanOrEqual(12_800)
    const kept = samples.indexSelect(1, ops.arange(0, 12_800, 16))
    expectClose(kept, wanted.narrow(1, 0, 800), 1e-4)
    const mean = await video.audio()
    expectClose(mean.samples, samples.mean(0))
    const lower = await video.audio({ sampleRate: 8000 })
    expect([lower.sampleRate, lower.samples.size(0)]).toEqual([8000, Math.ceil(samples.size(1) / 2)])
    await expect(video.audio({ maxBytes: 1000 })).rejects.toThrow(/at most 1000 bytes of audio, got more. Set maxBytes/)
    expect((await video.frames([3])).shape).toEqual([1, 48, 64, 3])
    await video.close()
    const silent = await openVideo(fileOf('h264'))
    expect(silent.audioTrack).toBeNull()
    await expect(silent.audio()).rejects.toThrow(/expected a video with audio/)
    await silent.close()
  })

  test('a clip for a network', async () => {
    await using video = await openVideo(fileOf('h264'))
    const clip = await video.frames(sampleFrames(video.frameCount))
    expect((await preprocessVideo(clip)).shape).toEqual([3, 8, 224, 224])
  })

  test('which frames are shown between two seconds, of a variable rate too', async () => {
    await using even = await openVideo(fileOf('h264'))
    const { rate, frameCount } = even as { rate: number; frameCount: number }
    expect(even.framesBetween(0)).toEqual([0, frameCount])
    expect(even.framesBetween(4 / rate, 9 / rate)).toEqual([4, 9])
    expect(even.framesBetween(4.5 / rate, 9.5 / rate)).toEqual([4, 10])
    // Within one frame, and behind the last.
    expect(even.framesBetween(4.3 / rate, 4.6 / rate)).toEqual([4, 5])
    expect(even.framesBetween(1000, 1001)).toEqual([frameCount - 1, frameCount])
    expect(even.framesBetween(4 / rate)).toEqual([4, frameCount])
    // As test/reference/vision_videos.py shows them: the first ten take as long as the last two.
    const times = Array.from({ length: 20 }, (_, i) => (i * 40 + 13 * i * i) / 1000)
    await using uneven = await openVideo(fileOf('h264-variable'))
    for (const [i, time] of times.entries()) expect(uneven.framesBetween(time, time)[0], `frame ${i}`).toBe(i)
    expect(uneven.framesBetween(1, 3)).toEqual([7, 14])
    expect(uneven.framesBetween(0, 0.1)).toEqual([0, 2])
    // A file of the same frames without times has its rate alone.
    await using raw = await openVideo(fileOf('h264-raw'))
    expect(raw.framesBetween(0.2)[0]).toBe(Math.floor(0.2 * (raw.rate as number) + 1e-6))
    expect(() => even.framesBetween(-1)).toThrow(ConfigError)
    expect(() => even.framesBetween(2, 1)).toThrow(/Video.framesBetween: expected end to be a number of at least 2/)
  })

  test('calls wait for each other, and leaving a loop ends decoding', async () => {
    const video = await openVideo(fileOf('h264'))
    const whole = await video.frames(Array.from({ length: 20 }, (_, i) => i))
    const several = await Promise.all([5, 1, 19].map((place) => video.frames([place])))
    for (const [i, place] of [5, 1, 19].entries())
      expect(ops.equal(several[i]!.select(0, 0), whole.select(0, place))).toBe(true)
    for await (const frame of video.stream()) {
      expect(ops.equal(frame, whole.select(0, 0))).toBe(true)
      break
    }
    expect(ops.equal((await video.frames([7])).select(0, 0), whole.select(0, 7))).toBe(true)
    await video.close()
    await expect(video.frames([0])).rejects.toThrow(DisposedError)
  })

  test('a thread whose video was closed reads the next one, and one that was stopped in the middle does not', async () => {
    let started = 0
    const count = () => {
      started += 1
    }
    process.on('worker', count)
    try {
      const first = await openVideo(fileOf('h264'))
      const frame = await first.frames([3])
      await first.close()
      const before = started
      for (const name of ['vp9', 'h264', 'h264-sound']) {
        const video = await openVideo(fileOf(name))
        const read = await video.frames([3])
        if (name === 'h264') expect(ops.equal(read, frame)).toBe(true)
        if (name === 'h264-sound') expect((await video.audio()).sampleRate).toBe(16_000)
        await video.close()
      }
      expect(started).toBe(before)
      // Two at once are of two threads, and the one of a stream that is left is lost.
      const [one, other] = await Promise.all([openVideo(fileOf('h264')), openVideo(fileOf('h264'))])
      const stream = one.stream()
      expect(ops.equal((await stream.next()).value!, (await other.frames([0])).select(0, 0))).toBe(true)
      await one.close()
      await expect(stream.next()).rejects.toThrow(DisposedError)
      expect(ops.equal(await other.frames([3]), frame)).toBe(true)
      await other.close()
      await using last = await openVideo(fileOf('h264'))
      expect(ops.equal(await last.frames([3]), frame)).toBe(true)
    } finally {
      process.off('worker', count)
    }
  })

  test('an abort ends it, and another call begins anew', async () => {
    const path = fileOf('h264')
    await expect(openVideo(path, { signal: AbortSignal.abort(new Error('enough')) })).rejects.toThrow('enough')
    const opening = new AbortController()
    const opened = openVideo(path, { signal: opening.signal })
    await sleep(1)
    opening.abort(new Error('enough'))
    await opened.then(
      (video) => video.close(),
      (error: Error) => expect(error.message).toBe('enough'),
    )
    const video = await openVideo(path)
    const controller = new AbortController()
    const read: Tensor[] = []
    const reading = (async () => {
      for await (const frame of video.stream(undefined, { signal: controller.signal })) {
        read.push(frame)
        if (read.length === 2) controller.abort(new Error('enough'))
      }
    })()
    await expect(reading).rejects.toThrow('enough')
    expect(read.length).toBe(2)
    const frames = video.frames([1, 2], { signal: controller.signal })
    await expect(frames).rejects.toThrow('enough')
    expect(ops.equal((await video.frames([1])).select(0, 0), read[1]!)).toBe(true)
    await video.close()
  })

  test('what is no video, or not all of one', async () => {
    const text = join(folder, 'talk.mp4')
    writeFileSync(text, 'Hello, this is text.\n'.repeat(500))
    await expect(openVideo(text)).rejects.toMatchObject({ code: 'ERR_DATA', file: text })
    await expect(openVideo(text)).rejects.toThrow(/expected a video file, got an unknown format/)
    // A list of other files, which must not be followed.
    for (const list of [
      `ffconcat version 1.0\nfile '${fileOf('h264')}'\n`,
      `#EXTM3U\n#EXTINF:1,\n${fileOf('h264')}\n`,
    ]) {
      writeFileSync(text, list)
      await expect(openVideo(text)).rejects.toThrow(/expected a video file, got an unknown format/)
    }
    writeFileSync(text, '')
    await expect(openVideo(text)).rejects.toThrow(DataError)
    await expect(openVideo(fileOf('h264', 2000))).rejects.toThrow(/truncated before its index/)
    await expect(openVideo(join(folder, 'nowhere.mp4'))).rejects.toThrow(/nowhere\.mp4: cannot be opened/)
    // Without an index at its end, what is there can be read.
    const bytes = file.tensors['h264-mpegts/file/bytes']!.size(0)
    const part = await openVideo(fileOf('h264-mpegts', bytes >> 1))
    expect(part.frameCount).toBeLessThan(20)
    expect((await part.frames([0])).shape).toEqual([1, 48, 64, 3])
    await part.close()
  })

  test('a file that is cut off while it is open', async () => {
    const path = fileOf('odd', 1e9)
    const video = await openVideo(path)
    truncateSync(path, 1500)
    const read = await video.frames([0, 19]).catch((error: Error) => error)
    // What the decoder had read already it may still show.
    if (read instanceof Error) expect(read).toBeInstanceOf(DataError)
    await video.close()
  })

  test('wrong arguments and limits', async () => {
    const path = fileOf('h264')
    const video = await openVideo(path)
    await expect(video.frames([20])).rejects.toThrow(/places to be frame indices from 0 to 19, got 20/)
    await expect(video.frames([-1])).rejects.toThrow(ConfigError)
    await expect(video.frames([0.5])).rejects.toThrow(ConfigError)
    await expect(video.frames(7 as never)).rejects.toThrow(/an array of frame indices/)
    await expect(video.frames([0, 1], { maxBytes: 10_000 })).rejects.toThrow(
      /at most 10000 bytes, got 2 frames .* 18432 bytes. Set maxBytes/,
    )
    await expect(video.frames([0], { size: 1 } as never)).rejects.toThrow(/expected a known option, got 'size'/)
    await expect(video.stream([2, 1]).next()).rejects.toThrow(/ascending indices/)
    await expect(video.audio({ channels: 2 as never })).rejects.toThrow(/'mean', 'all'/)
    expect((await video.frames([])).shape).toEqual([0, 48, 64, 3])
    await video.close()
    await expect(openVideo(path, { maxPixels: 3071 })).rejects.toThrow(
      /at most 3071 pixels, got 64 × 48. Set maxPixels/,
    )
    await expect(openVideo(path, { rate: 25 })).rejects.toThrow(/rate: expected undefined for a file, got 25/)
    await expect(openVideo(path, { threads: 0 })).rejects.toThrow(/threads/)
    await expect(openVideo(7 as never)).rejects.toThrow(/path to be a path/)
  })

  test('no temporaries stay', async () => {
    const video = await openVideo(fileOf('h264-sound'))
    await video.frames([1])
    const before = await settledTensors()
    const made = [await video.frames([3, 1, 3]), (await video.audio({ sampleRate: 8000 })).samples]
    expect(memoryStats().liveTensors - before).toBe(made.length)
    await video.close()
  })
})
