import { expect, it } from 'vitest'
import { readImage } from '../../lib/index.js'
import { pngAddress, pngBytes } from '../../lib/vision/png.js'

const noise = (length: number) => Uint8Array.from({ length }, (_, i) => (i * 7919 + (i >> 3) * 31) % 256)

it('writes pixels that come back to the byte', async () => {
  for (const [width, height] of [
    [1, 1],
    [5, 3],
    [64, 48],
  ] as const) {
    const pixels = noise(3 * width * height)
    using back = await readImage(await pngBytes(pixels, width, height))
    expect(back.shape).toEqual([height, width, 3])
    expect(new Uint8Array((await back.data()) as Uint8Array)).toEqual(pixels)
  }
  expect(await pngAddress(noise(3), 1, 1)).toMatch(/^data:image\/png;base64,iVBOR/)
})

it('refuses pixels that are of another size', async () => {
  await expect(pngBytes(noise(10), 1, 1)).rejects.toThrow(/pixels/)
  await expect(pngBytes(noise(0), 0, 5)).rejects.toThrow(/pixels/)
})
