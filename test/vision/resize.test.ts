import { createHash } from 'node:crypto'
import { describe, expect, test } from 'vitest'
import {
  CLIP_STATISTICS,
  centerCrop,
  memoryStats,
  normalizeImage,
  ones,
  ops,
  resizeImage,
  resizeTensor,
  ShapeError,
  scope,
  type Tensor,
  tensor,
  zeros,
} from '../../lib/index.js'
import type { ImageFilter } from '../../lib/vision/resize.js'
import { expectClose, fixture, numbers, ROUNDING, settledTensors } from '../helpers.js'
import { PATIENCE } from '../patience.js'
import { noise } from './images.js'

const bytesOf = (image: Tensor) => image.contiguous().dataSync() as Uint8Array
const hashOf = (image: Tensor) => createHash('sha256').update(bytesOf(image)).digest('hex').slice(0, 16)

describe('resizeImage is Pillow to the byte', async () => {
  interface Case {
    name: string
    seed: number
    from: number[]
    to: [number, number]
    filter: ImageFilter
    pillow12: string
    /** Where it differs. */
    pillow13?: string
  }
  const { cases } = await fixture<Case>('vision/pillow')
  for (const filter of ['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos'] as const) {
    test(
      filter,
      async () => {
        const own = cases.filter((one) => one.filter === filter)
        expect(own.length).toBeGreaterThan(80)
        const wrong: string[] = []
        for (const { seed, from, to, pillow12, pillow13 = pillow12 } of own) {
          await scope(async () => {
            for (const pillow of [12, 13] as const) {
              const resized = await resizeImage(noise(seed, from), to, { filter, pillow })
              expect(resized.shape).toEqual([...to, from[2]])
              if (hashOf(resized) !== (pillow === 12 ? pillow12 : pillow13)) {
                wrong.push(`${from} to ${to}, seed ${seed}, as Pillow ${pillow}`)
              }
            }
          })
        }
        expect(wrong).toEqual([])
      },
      PATIENCE,
    )
  }
})

test('several pictures are resized each by itself, and views as what they show', async () => {
  const pictures = noise(1, [2, 3, 9, 8, 3])
  const resized = await resizeImage(pictures, [5, 13])
  expect(resized.shape).toEqual([2, 3, 5, 13, 3])
  const one = pictures.select(0, 1).select(0, 2)
  expect(ops.equal(resized.select(0, 1).select(0, 2), await resizeImage(one, [5, 13]))).toBe(true)
  const turned = one.transpose(0, 1)
  expect(ops.equal(await resizeImage(turned, [4, 4]), await resizeImage(turned.contiguous(), [4, 4]))).toBe(true)
  expect((await resizeImage(zeros([0, 9, 8, 3], { dtype: 'uint8' }), [5, 13])).shape).toEqual([0, 5, 13, 3])
})

test('one side: the shorter becomes it, the longer keeps the ratio rounded down', async () => {
  const wide = zeros([120, 161, 3], { dtype: 'uint8' })
  expect((await resizeImage(wide, 224)).shape).toEqual([224, 300, 3])
  expect((await resizeImage(wide.transpose(0, 1), 224)).shape).toEqual([300, 224, 3])
  expect((await resizeTensor(zeros([1, 3, 120, 161]), 224)).shape).toEqual([1, 3, 224, 300])
})

test('pictures keep what they are at their own size', async () => {
  const picture = noise(5, [6, 7, 3])
  const same = await resizeImage(picture, [6, 7])
  expect(ops.equal(same, picture)).toBe(true)
  same.fill_(0)
  expect(ops.equal(picture, noise(5, [6, 7, 3]))).toBe(true)
})

describe('resizeTensor is torch', async () => {
  const file = await fixture<{
    name: string
    filter: 'bilinear' | 'bicubic'
    antialias: boolean
    to: [number, number]
  }>('vision/tensors')
  const picture = Object.entries(file.tensors).find(([key]) => key.includes('/in/'))![1]
  test.each(file.cases)('$name', async ({ name, filter, antialias, to }) => {
    const options = { filter, antialias }
    const wanted = file.tensors[`${name}/out/picture`]!
    expectClose(await resizeTensor(picture, to, options), wanted)
    expectClose(await resizeTensor(picture.double(), to, options), wanted.double(), 4 * ROUNDING.float32)
    const lifted = await resizeTensor(picture.unsqueeze(0).unsqueeze(0), to, options)
    expect(lifted.shape).toEqual([1, 1, 2, 3, ...to])
    expectClose((await resizeTensor(picture.select(0, 0), to, options)).unsqueeze(0), wanted.narrow(0, 0, 1))
  })

  test('it antialiases unless told otherwise', async () => {
    const small = await resizeTensor(picture, [7, 12])
    expect(ops.equal(small, await resizeTensor(picture, [7, 12], { antialias: true }))).toBe(true)
    expect(ops.equal(small, await resizeTensor(picture, [7, 12], { antialias: false }))).toBe(false)
  })

  test('its gradient', async () => {
    const leaf = picture.clone().requiresGrad_()
    await (await resizeTensor(leaf, [38, 52], { antialias: false })).sum().backward()
    // Each pixel gives its weight to the outputs, four to one: all weights sum to their number.
    expect(leaf.grad!.sum().item()).toBeCloseTo(2 * 3 * 38 * 52, 0)
  })
})

describe('centerCrop', () => {
  test('its corner is rounded half to even', () => {
    for (const [side, first] of [
      [4, 0],
      [5, 0],
      [6, 1],
      [7, 2],
      [8, 2],
      [9, 2],
      [10, 3],
      [11, 4],
    ] as const) {
      const numbersOf = Uint8Array.from({ length: side * side * 3 }, (_, i) => (i % (3 * side)) / 3)
      const cropped = centerCrop(tensor(numbersOf, { shape: [side, side, 3] }), 4)
      expect(cropped.shape).toEqual([4, 4, 3])
      expect(cropped.select(0, 0).select(-1, 0).toArray(), `${side}`).toEqual([first, first + 1, first + 2, first + 3])
      const rows = ops.arange(side).float().reshape([1, side, 1]).expand([2, 3, side, side])
      expect(numbers(centerCrop(rows, [4, 1]).select(0, 0).select(0, 0))).toEqual([
        first,
        first + 1,
        first + 2,
        first + 3,
      ])
    }
  })

  test('refuses what is smaller', () => {
    expect(() => centerCrop(zeros([3, 224, 100]), 224)).toThrow(ShapeError)
    expect(() => centerCrop(zeros([100, 224, 3], { dtype: 'uint8' }), [101, 3])).toThrow(
      /at most 100 × 224, the image's, got 101 × 3/,
    )
  })
})

test('normalizeImage takes each channel by itself', async () => {
  const image = ops.stack([zeros([2, 2]), ones([2, 2]), ones([2, 2]).mul(0.5)])
  const { mean, std } = CLIP_STATISTICS
  const wanted = [0, 1, 0.5].map((value, channel) => (value - mean[channel]!) / std[channel]!)
  for (const given of [image, image.unsqueeze(0).expand([2, 3, 2, 2])]) {
    const normalized = await normalizeImage(given, CLIP_STATISTICS)
    expect(normalized.shape).toEqual(given.shape)
    for (const [channel, value] of wanted.entries()) {
      const plane = normalized.select(-3, channel)
      expectClose(plane, ones(plane.shape).mul(value), 1e-6)
    }
  }
  await expect(normalizeImage(image, { mean: [0], std: [1] })).rejects.toThrow(/mean to be 3 finite numbers/)
  await expect(normalizeImage(image, { mean: [0, 0, 0], std: [1, 0, 1] })).rejects.toThrow(
    /std to be 3 finite nonzero numbers/,
  )
})

test('what is no picture, size or option', async () => {
  const picture = zeros([4, 4, 3], { dtype: 'uint8' })
  await expect(resizeImage(zeros([4, 4, 3]), [2, 2])).rejects.toThrow(
    /image: expected uint8 .* got float32 \[4, 4, 3\]/,
  )
  await expect(resizeImage(zeros([3, 4, 4], { dtype: 'uint8' }), [2, 2])).rejects.toThrow(ShapeError)
  await expect(resizeImage(zeros([4, 0, 3], { dtype: 'uint8' }), [2, 2])).rejects.toThrow(ShapeError)
  await expect(resizeImage(picture, [0, 2])).rejects.toThrow(/size to be an integer of at least 1, got 0/)
  await expect(resizeImage(picture, [2 ** 30, 2])).rejects.toThrow(/between 1 and/)
  await expect(resizeImage(picture, [2] as never)).rejects.toThrow(/\[height, width\]/)
  await expect(resizeImage(picture, [2, 2], { filter: 'cubic' as never })).rejects.toThrow(/'bicubic'/)
  await expect(resizeImage(picture, [2, 2], { antialias: true } as never)).rejects.toThrow(
    /expected a known option, got 'antialias'/,
  )
  await expect(resizeTensor(picture, [2, 2])).rejects.toThrow(/floating-point/)
  await expect(resizeTensor(zeros([3, 4, 4]), [2, 2], { filter: 'lanczos' as never })).rejects.toThrow(/'bicubic'/)
})

test('no temporaries stay', async () => {
  const picture = noise(3, [20, 30, 3])
  const planes = zeros([2, 3, 9, 9])
  const before = await settledTensors()
  const made = [
    await resizeImage(picture, [4, 4]),
    await resizeTensor(planes, [4, 4]),
    centerCrop(planes, 4),
    await normalizeImage(planes, CLIP_STATISTICS),
  ]
  expect(memoryStats().liveTensors - before).toBe(made.length)
})
