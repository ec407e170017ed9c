import { requireOneOf, requireOptions } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { ops, type Tensor } from '../tensor/index.js'
import { otherRank, requireTensors } from './check.js'

export type InterpolateMode =
  | 'nearest'
  | 'nearest-exact'
  | 'linear'
  | 'bilinear'
  | 'bicubic'
  | 'trilinear'
  | 'area'
  | 'lanczos'

export interface InterpolateOptions {
  /** Output size of each spatial dimension; alternative to `scaleFactor`. */
  size?: number | number[]
  scaleFactor?: number | number[]
  /**
   * Interpolation mode. Default: 'nearest'. 'nearest', 'nearest-exact' (the rounding of Pillow and scikit-image) and 'area'
   * support three to five dimensions, 'linear' three, 'bilinear', 'bicubic' and 'lanczos' (with `antialias` only) four,
   * 'trilinear' five.
   */
  mode?: InterpolateMode
  /**
   * Align the centers of the corner elements instead of their outer edges. Not for 'nearest', 'nearest-exact' and 'area'.
   * Default: false.
   */
  alignCorners?: boolean
  /** Compute the scale from the (integer) sizes instead of `scaleFactor`. Default: false. */
  recomputeScaleFactor?: boolean
  /** When downsampling, average over all input pixels, like Pillow. For 'bilinear', 'bicubic', 'lanczos'. */
  antialias?: boolean
}

type Resize = (input: Tensor, ...values: unknown[]) => Tensor

const ANY = [3, 4, 5]
const RANKS: Record<InterpolateMode, number[]> = {
  nearest: ANY,
  'nearest-exact': ANY,
  linear: [3],
  bilinear: [4],
  bicubic: [4],
  trilinear: [5],
  area: ANY,
  lanczos: [4],
}
export const INTERPOLATE_OPTIONS = ['size', 'scaleFactor', 'mode', 'alignCorners', 'recomputeScaleFactor', 'antialias']
// By number of spatial dimensions, from one.
const nearest: Resize[] = [ops.upsampleNearest1d, ops.upsampleNearest2d, ops.upsampleNearest3d] as Resize[]
const exact = [1, 2, 3].map((dims) => op(`aten::_upsample_nearest_exact${dims}d`)) as Resize[]
const area: Resize[] = [ops.adaptiveAvgPool1d, ops.adaptiveAvgPool2d, ops.adaptiveAvgPool3d] as Resize[]
const weighted: Partial<Record<InterpolateMode, Resize>> = {
  linear: ops.upsampleLinear1d as Resize,
  bilinear: ops.upsampleBilinear2d as Resize,
  bicubic: ops.upsampleBicubic2d as Resize,
  trilinear: ops.upsampleTrilinear3d as Resize,
}
const smooth: Partial<Record<InterpolateMode, Resize>> = {
  bilinear: op('aten::_upsample_bilinear2d_aa'),
  bicubic: op('aten::_upsample_bicubic2d_aa'),
  lanczos: op('aten::_upsample_lanczos2d_aa'),
}

/** Resize the one to three spatial dimensions of input [batch, channels, ...spatial]. */
export function interpolate(input: Tensor, options: InterpolateOptions = {}): Tensor {
  requireOptions('interpolate', options, INTERPOLATE_OPTIONS)
  const { size, scaleFactor, mode = 'nearest', alignCorners, antialias = false } = options
  if ((size === undefined) === (scaleFactor === undefined)) {
    throw new ConfigError('interpolate: expected either size or scaleFactor', { size, scaleFactor })
  }
  requireOneOf('interpolate', 'mode', mode, Object.keys(RANKS))
  const plain = mode === 'nearest' || mode === 'nearest-exact' || mode === 'area'
  if (plain && alignCorners !== undefined) {
    throw new ConfigError(`interpolate: expected a linear or cubic mode with alignCorners, got '${mode}'`, { mode })
  }
  const ranks = RANKS[mode]
  const wrong = otherRank(`interpolate in mode '${mode}'`, input, ranks, `${ranks.join(' or ')} dimensions`)
  if (wrong) throw wrong
  if (antialias !== (antialias && smooth[mode] !== undefined) || (mode === 'lanczos' && !antialias)) {
    throw new ConfigError(
      mode === 'lanczos'
        ? "interpolate: expected antialias: true with mode 'lanczos'"
        : `interpolate: expected mode bilinear, bicubic or lanczos with antialias, got '${mode}'`,
      { mode },
    )
  }
  const spatial = input.ndim - 2
  let [sizes, factors] = [perDimension('size', size, spatial), perDimension('scaleFactor', scaleFactor, spatial)]
  if (options.recomputeScaleFactor === true && factors === null) {
    throw new ConfigError('interpolate: expected scaleFactor with recomputeScaleFactor, got a size', {})
  }
  if (factors !== null && (options.recomputeScaleFactor === true || mode === 'area')) {
    const { shape } = input
    sizes = factors.map((factor, i) => Math.trunc(shape[i + 2]! * factor))
    factors = null
  }
  if (mode === 'area') return area[spatial - 1]!(input, sizes)
  if (plain) return (mode === 'nearest' ? nearest : exact)[spatial - 1]!(input, sizes, factors)
  return (antialias ? smooth : weighted)[mode]!(input, sizes, alignCorners ?? false, factors)
}

function perDimension(name: string, value: number | number[] | undefined, dims: number): number[] | null {
  if (value === undefined) return null
  const list = typeof value === 'number' ? Array<number>(dims).fill(value) : value
  if (Array.isArray(list) && list.length === dims && list.every((item) => typeof item === 'number')) return list
  throw new ConfigError(
    `interpolate: expected ${name} to be a number, or one for each of the ${dims} spatial dimensions`,
    {
      [name]: value,
    },
  )
}

export interface GridSampleOptions {
  /** Interpolation mode. Default: 'bilinear', which is trilinear for a volume. 'bicubic' is for images only. */
  mode?: 'bilinear' | 'nearest' | 'bicubic'
  /** Values outside the input: zeros (default), the border, or the mirrored input. */
  paddingMode?: 'zeros' | 'border' | 'reflection'
  /** -1 and 1 are the centers of the corner elements instead of their outer edges. Default: false. */
  alignCorners?: boolean
}

const GRID_MODES = ['bilinear', 'nearest', 'bicubic']
const GRID_PADDINGS = ['zeros', 'border', 'reflection']

/**
 * Sample input [batch, channels, height, width] at the positions of grid [batch, outHeight, outWidth, 2], which are (x, y) in
 * [-1, 1] across the input: [batch, channels, outHeight, outWidth]. For volumes with a depth and 3 coordinates accordingly
 * (Jaderberg et al. 2015, https://arxiv.org/abs/1506.02025).
 */
export function gridSample(input: Tensor, grid: Tensor, options: GridSampleOptions = {}): Tensor {
  requireOptions('gridSample', options, ['mode', 'paddingMode', 'alignCorners'])
  requireTensors('gridSample', input, grid)
  const { mode = 'bilinear', paddingMode = 'zeros', alignCorners = false } = options
  requireOneOf('gridSample', 'mode', mode, GRID_MODES)
  requireOneOf('gridSample', 'paddingMode', paddingMode, GRID_PADDINGS)
  return ops.gridSampler(input, grid, GRID_MODES.indexOf(mode), GRID_PADDINGS.indexOf(paddingMode), alignCorners)
}

/**
 * Return the grid for {@link gridSample} of affine maps theta [batch, 2, 3] (or [batch, 3, 4]) for outputs of `size` [batch,
 * channels, height, width] (or with a depth): [batch, height, width, 2] (or 3).
 */
export function affineGrid(theta: Tensor, size: number[], options: { alignCorners?: boolean } = {}): Tensor {
  requireOptions('affineGrid', options, ['alignCorners'])
  return ops.affineGridGenerator(theta, size, options.alignCorners ?? false)
}
