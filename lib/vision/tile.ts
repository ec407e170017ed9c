import { requireWhole } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { type ChangesOf, settings, unchecked } from '../base/settings.js'
import { cat, scope, type Tensor } from '../tensor/index.js'
import { requireImage, resizeImage } from './resize.js'
import { setOrder } from './tile-order.js'

/** Columns and rows of tiles. */
export type TileGrid = readonly [columns: number, rows: number]

const SETTINGS = settings({
  /** Side of a tile in pixels. Default 448. */
  size: { type: 'integer', min: 1, default: 448 },
  /** Minimum and maximum number of tiles, without the thumbnail. Default 1 and 12. */
  minTiles: { type: unchecked<number>(), default: 1 },
  maxTiles: { type: unchecked<number>(), default: 12 },
  /** Whether to append a thumbnail, the image resized to one tile, if there are several tiles. Default true. */
  thumbnail: { type: 'boolean', default: true },
  /** Version of Pillow whose resampling is used, see {@link ResizeImageOptions}. Default 12. */
  pillow: { type: unchecked<12 | 13>(), default: 12 },
})

/** Options of {@link tileImage} and {@link tileGrid}. @interface */
export type TileImageOptions = ChangesOf<typeof SETTINGS.table>

export interface TiledImage {
  /** uint8 [tiles, size, size, 3], row by row, the thumbnail last. */
  tiles: Tensor
  grid: TileGrid
}

/** Most tiles of a grid: an image of 100 tiles has 25,600 tokens. */
const MOST = 100

const grids = new Map<string, readonly TileGrid[]>()

/** Return all grids with `minTiles` to `maxTiles` tiles, in the order of the published code, which breaks ties by order. */
export function tileGrids(minTiles = 1, maxTiles = 12): readonly TileGrid[] {
  const key = `${minTiles} ${maxTiles}`
  const known = grids.get(key)
  if (known) return known
  const where = 'tileImage'
  requireWhole(where, 'minTiles', minTiles, 1)
  requireWhole(where, 'maxTiles', maxTiles, 1)
  if (minTiles > maxTiles || maxTiles > MOST) {
    throw new ConfigError(
      `${where}: minTiles, maxTiles: expected 1 <= minTiles <= maxTiles <= ${MOST}, got ${minTiles} and ${maxTiles}`,
      { minTiles, maxTiles },
    )
  }
  const pairs: [number, number][] = []
  for (let n = minTiles; n <= maxTiles; n++) {
    for (let i = 1; i <= n; i++) {
      for (let j = 1; j <= n; j++) if (i * j <= maxTiles && i * j >= minTiles) pairs.push([i, j])
    }
  }
  const ordered = setOrder(pairs).sort((a, b) => a[0] * a[1] - b[0] * b[1])
  grids.set(key, ordered)
  return ordered
}

/**
 * Return the grid of square tiles whose aspect ratio is closest to that of an image. Of two equally close grids the later one,
 * with more tiles, wins if the image has more than half of its pixels.
 * @throws ConfigError for invalid sizes and options
 */
export function tileGrid(width: number, height: number, options: TileImageOptions = {}): TileGrid {
  const where = 'tileGrid'
  requireWhole(where, 'width', width, 1)
  requireWhole(where, 'height', height, 1)
  const { size, minTiles, maxTiles } = SETTINGS.read(where, options)
  const ratio = width / height
  let best: TileGrid = [1, 1]
  let least = Number.POSITIVE_INFINITY
  for (const grid of tileGrids(minTiles, maxTiles)) {
    const distance = Math.abs(ratio - grid[0] / grid[1])
    if (distance < least) {
      least = distance
      best = grid
    } else if (distance === least && width * height > 0.5 * size * size * grid[0] * grid[1]) {
      best = grid
    }
  }
  return best
}

/**
 * Split an image into tiles for InternVL (https://arxiv.org/abs/2404.16821): resize it to the grid with the closest aspect ratio,
 * cut that into tiles, and append a thumbnail if there are several. The bytes equal those of Pillow's `resize`.
 *
 * ```ts
 * const { tiles, grid } = await tileImage(image, { maxTiles: 12 })
 * ```
 *
 * @param image uint8 [height, width, 3]
 * @throws ConfigError for invalid options; ShapeError for a tensor of another shape or dtype
 */
export async function tileImage(image: Tensor, options: TileImageOptions = {}): Promise<TiledImage> {
  const where = 'tileImage'
  requireImage(where, image)
  const { size, thumbnail, pillow } = SETTINGS.read(where, options)
  const [height, width, channels] = image.shape as [number, number, number]
  const grid = tileGrid(width, height, options)
  const [columns, rows] = grid
  const tiles = await scope(async () => {
    const whole = await resizeImage(image, [size * rows, size * columns], { pillow })
    const cut = whole
      .reshape([rows, size, columns, size, channels])
      .permute([0, 2, 1, 3, 4])
      .reshape([rows * columns, size, size, channels])
    if (!thumbnail || rows * columns === 1) return cut.contiguous()
    return cat([cut, (await resizeImage(image, [size, size], { pillow })).unsqueeze(0)], 0)
  })
  return { tiles, grid }
}
