import { argumentError, isArrayLike, requireWhole } from '../../base/check.js'
import { ShapeError } from '../../base/errors.js'
import { interpolate } from '../../nn/resize.js'
import { noGrad, ops, scope, Tensor } from '../../tensor/index.js'

/** Number of rows and columns of patches. */
export type PatchGrid = readonly [rows: number, columns: number]

/**
 * Resize a vision encoder's position table [1 + rows · columns, dim] to another grid of patches: bicubic with antialiasing, without
 * aligned corners; the row of the class token is kept. Example: an image encoder's 16 × 16 grid (257 rows) becomes an audio
 * encoder's 8 × 74 (593 rows).
 * @param from grid of the table; default a square
 * @throws ShapeError for a table of another grid, with the checkpoint that has so many rows
 */
export function resizePositions(table: Tensor, to: PatchGrid, from?: PatchGrid): Tensor {
  const where = 'resizePositions'
  if (!(table instanceof Tensor)) throw argumentError(where, 'table', 'a tensor', table)
  for (const [name, grid] of Object.entries({ to, from })) {
    if (name === 'from' && grid === undefined) continue
    if (!isArrayLike(grid) || grid.length !== 2) throw argumentError(where, name, 'rows and columns', grid)
    for (const size of [grid[0], grid[1]]) requireWhole(where, name, size, 1)
  }
  const rows = table.shape[0] ?? 0
  const side = Math.round(Math.sqrt(rows - 1))
  const [height, width] = from ?? [side, side]
  if (table.ndim !== 2 || rows !== height * width + 1) {
    const grid = from ? `${height} × ${width}` : 'a square grid of'
    throw new ShapeError(
      `${where}: table: expected [1 + rows · columns, dim] for ${grid} patches, got [${table.shape.join(', ')}]${knownRows(rows)}. Pass its grid as \`from\`.`,
      { shape: table.shape },
    )
  }
  return noGrad(() =>
    scope(() => {
      const places = table
        .detach()
        .narrow(0, 1, rows - 1)
        .reshape([1, height, width, -1])
        .permute([0, 3, 1, 2])
        .float()
      const resized = interpolate(places.contiguous(), { size: [...to], mode: 'bicubic', antialias: true })
        .permute([0, 2, 3, 1])
        .reshape([to[0] * to[1], -1])
      return ops.cat([table.detach().narrow(0, 0, 1), resized.to(table.dtype)], 0)
    }),
  )
}

/** Published checkpoints by number of positions. */
const KNOWN: Record<number, string> = {
  257: '16 × 16 patches of an image of 224 × 224: LanguageBind_Video, _Image, _Depth, _Thermal, and CLIP ViT-L/14',
  593: '8 × 74 patches of 112 bands × 1,036 frames: LanguageBind_Audio_FT',
  667: '9 × 74 patches of 126 bands × 1,036 frames: LanguageBind_Audio',
}

/** Return ', as …' for a number of rows that a published checkpoint has, otherwise ''. */
export const knownRows = (rows: number): string => (KNOWN[rows] === undefined ? '' : `, as ${KNOWN[rows]}`)
