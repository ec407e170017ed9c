import { describe, expect, test } from 'vitest'
import {
  CLIP_STATISTICS,
  memoryStats,
  normalizeImage,
  ops,
  preprocessDepth,
  preprocessImage,
  preprocessVideo,
  resizeImage,
  resizeTensor,
  sampleFrames,
  type Tensor,
  zeros,
} from '../../lib/index.js'
import { expectClose, fixture, numbers, ROUNDING, settledTensors } from '../helpers.js'
import { noise } from './images.js'

/** What the fixtures keep of a result. */
const every7 = (result: Tensor): Tensor => {
  const places = ops.arange(0, 224, 7)
  return result.indexSelect(-1, places).indexSelect(-2, places)
}

interface Case {
  name: string
  seed: number
  shape: number[]
  antialias: boolean
}

describe("preprocessImage with processor 'clip' is transformers' CLIPImageProcessorPil", async () => {
  const file = await fixture<{ name: string }>('vision/clip')
  test.each(file.cases)('$name', async ({ name }) => {
    const pixels = file.tensors[`${name}/in/pixels`]!
    const result = await preprocessImage(pixels, { processor: 'clip', size: 32 })
    // Bytes are the same: what is left is the rounding of float32, of which the reference does the first step in float64.
    expectClose(result, file.tensors[`${name}/out/values`]!, 4 * ROUNDING.float32)
    expect([result.shape, result.dtype, result.isContiguous()]).toEqual([[3, 32, 32], 'float32', true])
  })

  test('refuses what Pillow does not do', async () => {
    const pixels = noise(1, [40, 50, 3])
    await expect(preprocessImage(pixels, { processor: 'clip', antialias: false })).rejects.toThrow(/antialias/)
    await expect(preprocessImage(pixels, { processor: 'dinov2' as never })).rejects.toThrow(/'languagebind', 'clip'/)
  })
})

describe("preprocessImage is LanguageBind's image and thermal processor", async () => {
  const file = await fixture<Case>('vision/pictures')
  test.each(file.cases)('$name', async ({ name, seed, shape, antialias }) => {
    const result = await preprocessImage(noise(seed, shape), { antialias })
    expect([result.shape, result.dtype, result.isContiguous()]).toEqual([[3, 224, 224], 'float32', true])
    expectClose(every7(result), file.tensors[`${name}/out/every7`]!)
  })

  test('antialiases unless told otherwise, and takes several', async () => {
    const [first, second] = [noise(1, [300, 257, 3]), noise(2, [40, 61, 3])]
    const both = await preprocessImage([first, second])
    expect(both.shape).toEqual([2, 3, 224, 224])
    expect(ops.equal(both.select(0, 0), await preprocessImage(first, { antialias: true }))).toBe(true)
    expect(ops.equal(both.select(0, 1), await preprocessImage(second))).toBe(true)
    const own = await preprocessImage(first, { size: 30, mean: [0, 0, 0], std: [1, 1, 1] })
    expect(own.shape).toEqual([3, 30, 30])
    expect(Math.abs((own.mean().item() as number) - 0.5)).toBeLessThan(0.05)
  })
})

describe("preprocessDepth is LanguageBind's depth processor", async () => {
  const file = await fixture<Case & { maxDepth: number }>('vision/depth-towers')
  const stepsOf = (seed: number, shape: number[]) => {
    const bytes = noise(seed, shape).int()
    return bytes.select(-1, 0).add(bytes.select(-1, 1).floorDivide(4).mul(256)).int()
  }
  test.each(file.cases)('$name', async ({ name, seed, shape, antialias, maxDepth }) => {
    const steps = stepsOf(seed, shape)
    const result = await preprocessDepth(steps, { antialias, maxDepth })
    expect(result.shape).toEqual([3, 224, 224])
    expectClose(every7(result), file.tensors[`${name}/out/every7`]!)
    if (maxDepth === 10) expect(ops.equal(await preprocessDepth(steps, { antialias }), result)).toBe(true)
  })

  test('of a file, and of one without any distance', async () => {
    const { tensors } = await fixture('vision/depths')
    const png = tensors['png-16/file/bytes']!.dataSync() as Uint8Array
    const steps = tensors['png-16/out/values']!
    expect(ops.equal(await preprocessDepth(png), await preprocessDepth(steps))).toBe(true)
    const nothing = await preprocessDepth(zeros([5, 5]), { maxDepth: 0, minDepth: 0, size: 4 })
    expect(numbers(nothing).every(Number.isFinite)).toBe(true)
  })
})

describe("preprocessVideo is LanguageBind's video processor", async () => {
  const file = await fixture<Case>('vision/videos')
  const smooth = await fixture<Case & { own: number }>('vision/videos-smooth')
  test.each(file.cases)('$name', async ({ name, seed, shape }) => {
    const result = await preprocessVideo(noise(seed, shape))
    expect([result.shape, result.dtype, result.isContiguous()]).toEqual([[3, 2, 224, 224], 'float32', true])
    expectClose(every7(result), file.tensors[`${name}/out/every7`]!)
  })

  test.each(smooth.cases)('$name antialiased, as PyTorch resizes', async ({ name, seed, shape, own }) => {
    const result = await preprocessVideo(noise(seed, shape), { antialias: true })
    expect([result.shape, result.dtype, result.isContiguous()]).toEqual([[3, 2, 224, 224], 'float32', true])
    expectClose(every7(result), smooth.tensors[`${name}/out/every7`]!, Math.max(1e-5, 3 * own))
  })

  test('in one pass as step by step', async () => {
    const frames = noise(5, [3, 97, 61, 3])
    const planes = await normalizeImage(frames.permute([0, 3, 1, 2]).double().div(255), CLIP_STATISTICS)
    for (const size of [30, 61, 100]) {
      const long = Math.floor((97 / 61) * size)
      const resized = await resizeTensor(planes, [long, size], { antialias: false })
      const top = Math.trunc((long - size) / 2) + ((long - size) % 4 === 3 ? 1 : 0)
      expectClose(await preprocessVideo(frames, { size }), resized.narrow(2, top, size).transpose(0, 1).float())
    }
    const smooth = await preprocessVideo(frames, { size: 30, antialias: true })
    expect(smooth.shape).toEqual([3, 3, 30, 30])
    const mean = smooth.mean().sub(planes.mean()).abs().item() as number
    expect(mean).toBeLessThan(0.05)
    expect(ops.equal(smooth, await preprocessVideo(frames, { size: 30 }))).toBe(false)
  })

  test('mirrored when that is asked for, and the same each time', async () => {
    const frames = noise(3, [2, 50, 60, 3])
    const plain = await preprocessVideo(frames)
    expect(ops.equal(await preprocessVideo(frames), plain)).toBe(true)
    expect(ops.equal(await preprocessVideo(frames, { flip: true }), plain.flip([-1]))).toBe(true)
  })
})

describe('sampleFrames', async () => {
  const file = await fixture<{ name: string; count: number }>('vision/frames')
  test.each(file.cases)('$count of n = 1 to 400', ({ name, count }) => {
    for (const method of ['linspace', 'segments'] as const) {
      const wanted = file.tensors[`${name}/out/${method}`]!.toArray() as number[][]
      expect(wanted.length).toBe(400)
      for (const [at, places] of wanted.entries()) {
        expect(sampleFrames(at + 1, { count, method }), `${method} of ${at + 1}`).toEqual(places)
      }
    }
  })

  test("the papers' own numbers", () => {
    expect(sampleFrames(86)).toEqual([0, 12, 24, 36, 48, 60, 72, 85])
    expect(sampleFrames(86, { method: 'segments' })).toEqual([5, 16, 26, 37, 47, 58, 69, 79])
    expect(sampleFrames(2 ** 40)[7]).toBe(2 ** 40 - 1)
  })

  test('wrong arguments', () => {
    expect(() => sampleFrames(0)).toThrow(/frames to be an integer of at least 1/)
    expect(() => sampleFrames(8, { count: 0 })).toThrow(/count/)
    expect(() => sampleFrames(8, { count: 2 ** 31 - 1 })).toThrow(/count to be at most 1048576/)
    expect(() => sampleFrames(8, { method: 'random' as never })).toThrow(/'linspace', 'segments'/)
    expect(() => sampleFrames(8, { fps: 1 } as never)).toThrow(/expected a known option, got 'fps'/)
  })
})

test('wrong arguments', async () => {
  const frames = zeros([2, 4, 4, 3], { dtype: 'uint8' })
  await expect(preprocessVideo(frames.select(0, 0))).rejects.toThrow(/uint8 \[count, height, width, 3\]/)
  await expect(preprocessVideo(frames, { flip: 1 as never })).rejects.toThrow(/flip to be a boolean/)
  await expect(preprocessVideo(frames, { mean: [1, 2] })).rejects.toThrow(/mean to be 3 finite numbers/)
  await expect(preprocessVideo(frames, { size: 0 })).rejects.toThrow(/size to be an integer/)
  await expect(preprocessImage([])).rejects.toThrow(/images to be an image, or several/)
  await expect(preprocessImage(frames.select(0, 0), { flip: true } as never)).rejects.toThrow(
    /expected a known option, got 'flip'/,
  )
  await expect(preprocessDepth(frames)).rejects.toThrow(/\[height, width\]/)
  await expect(preprocessDepth(zeros([2, 2]), { scale: 0 })).rejects.toThrow(/scale/)
  await expect(preprocessImage('nowhere.png')).rejects.toThrow(/nowhere\.png/)
})

test('pictures of 30,000 pixels by one, and of one pixel', async () => {
  const wide = noise(1, [1, 30_000, 3])
  expect((await resizeImage(wide, [224, 224])).shape).toEqual([224, 224, 3])
  expect((await resizeImage(wide.transpose(0, 1), [3, 7], { pillow: 13 })).shape).toEqual([3, 7, 3])
  for (const picture of [wide, wide.transpose(0, 1)]) {
    await expect(preprocessImage(picture)).rejects.toThrow(/so narrow that its longer side would become 6720000/)
    await expect(preprocessDepth(picture.select(-1, 0))).rejects.toThrow(/so narrow/)
    await expect(preprocessVideo(picture.unsqueeze(0), { antialias: true })).rejects.toThrow(/so narrow/)
    expect((await preprocessVideo(picture.unsqueeze(0))).shape).toEqual([3, 1, 224, 224])
  }
  expect((await preprocessImage(wide, { size: 2 })).shape).toEqual([3, 2, 2])
  const pixel = noise(2, [1, 1, 3])
  const square = await preprocessImage(pixel)
  expectClose(square, square.narrow(1, 0, 1).narrow(2, 0, 1).expand([3, 224, 224]))
  expect((await preprocessVideo(pixel.unsqueeze(0), { size: 3 })).shape).toEqual([3, 1, 3, 3])
})

test('no temporaries stay', async () => {
  const picture = noise(3, [20, 30, 3])
  const frames = noise(3, [2, 20, 30, 3])
  const before = await settledTensors()
  const made = [
    await preprocessImage(picture),
    await preprocessImage([picture, picture], { antialias: false }),
    await preprocessDepth(zeros([9, 9]), { maxDepth: 0 }),
    await preprocessVideo(frames),
    await preprocessVideo(frames, { antialias: true, flip: true }),
  ]
  // One more is the picture of zeros.
  expect(memoryStats().liveTensors - before).toBe(made.length + 1)
})
