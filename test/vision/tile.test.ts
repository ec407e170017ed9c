import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import {
  ConfigError,
  loadSafetensors,
  resizeImage,
  ShapeError,
  type Tensor,
  tileGrid,
  tileImage,
  zeros,
} from '../../lib/index.js'
import { tileGrids } from '../../lib/vision/tile.js'
import { fixturePath } from '../helpers.js'

const file = JSON.parse(readFileSync(fixturePath('vision/tiles.json'), 'utf8')) as {
  orders: Record<string, string>
  sizes: [width: number, height: number, maxTiles: number, columns: number, rows: number][]
}

describe('grids', () => {
  it.each(Object.entries(file.orders))('%s: in the order of a set of CPython', (key, expected) => {
    const [from, to] = key.includes('-') ? key.split('-').map(Number) : [1, Number(key)]
    expect(
      tileGrids(from, to)
        .map((grid) => grid.join('x'))
        .join(' '),
    ).toBe(expected)
  })

  it('has the published 35 of 12 tiles, and 14 of 6', () => {
    expect([tileGrids().length, tileGrids(1, 6).length]).toEqual([35, 14])
    const text = tileGrids().map((grid) => grid.join('x'))
    expect(text.join(' ')).toBe(
      '1x1 1x2 2x1 3x1 1x3 2x2 4x1 1x4 5x1 1x5 1x6 6x1 3x2 2x3 7x1 1x7 4x2 2x4 1x8 8x1 1x9 3x3 9x1 2x5 5x2 10x1 1x10 11x1 1x11 12x1 3x4 4x3 1x12 6x2 2x6',
    )
  })

  it.each([
    [448, 448, '1x1', '1x1'],
    [640, 360, '2x1', '2x1'],
    [1280, 720, '4x2', '2x1'],
    [480, 360, '4x3', '3x2'],
    [800, 1200, '2x3', '2x3'],
    [1000, 1000, '3x3', '2x2'],
    [2000, 500, '4x1', '4x1'],
    [500, 2000, '1x4', '1x4'],
    [3000, 400, '8x1', '6x1'],
    [224, 224, '1x1', '1x1'],
  ])('%d x %d', (width, height, twelve, six) => {
    expect(tileGrid(width, height).join('x')).toBe(twelve)
    expect(tileGrid(width, height, { maxTiles: 6 }).join('x')).toBe(six)
    expect(tileGrid(width, height, { maxTiles: 1 })).toEqual([1, 1])
  })

  it('of 500 random sizes', () => {
    for (const [width, height, maxTiles, ...expected] of file.sizes) {
      expect(tileGrid(width, height, { maxTiles }), `${width} x ${height}, ${maxTiles}`).toEqual(expected)
    }
  })
})

describe('pixels', () => {
  it("are Pillow's to the byte", async () => {
    const { tensors } = await loadSafetensors(fixturePath('vision/tile-pixels.safetensors'))
    const names = new Set(Object.keys(tensors).map((name) => name.split('/')[0] as string))
    expect(names.size).toBe(4)
    for (const name of names) {
      const [picture, expected] = [tensors[`${name}/picture`] as Tensor, tensors[`${name}/tiles`] as Tensor]
      const options = { size: 16, maxTiles: Number(name.split('-')[1]), pillow: 13 } as const
      const { tiles, grid } = await tileImage(picture, options)
      expect(tiles.shape, name).toEqual(expected.shape)
      expect(tiles.equal(expected), name).toBe(true)
      const count = grid[0] * grid[1]
      expect(tiles.size(0)).toBe(count === 1 ? 1 : count + 1)
      const bare = await tileImage(picture, { ...options, thumbnail: false })
      expect(bare.tiles.equal(tiles.narrow(0, 0, count))).toBe(true)
      if (count > 1)
        expect((await resizeImage(picture, [16, 16], { pillow: 13 })).equal(tiles.select(0, count))).toBe(true)
    }
  })

  it('refuses what is no picture, and options that are none', async () => {
    const picture = zeros([4, 4, 3], { dtype: 'uint8' })
    await expect(tileImage(zeros([4, 4, 3]))).rejects.toThrow(/uint8/)
    await expect(tileImage(zeros([0, 4, 3], { dtype: 'uint8' }))).rejects.toThrow(ShapeError)
    await expect(tileImage(picture, { maxTiles: 0 })).rejects.toThrow(ConfigError)
    await expect(tileImage(picture, { minTiles: 4, maxTiles: 3 })).rejects.toThrow(/4 and 3/)
    await expect(tileImage(picture, { maxTiles: 101 })).rejects.toThrow(/100/)
    await expect(tileImage(picture, { thumbnail: 1 as never })).rejects.toThrow(/thumbnail/)
    await expect(tileImage(picture, { tiles: 3 } as never)).rejects.toThrow(/tiles/)
    expect(() => tileGrid(0, 4)).toThrow(ConfigError)
    expect(() => tileGrid(4, 1.5)).toThrow(ConfigError)
  })
})
