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
  /** Size of each spatial dimension after it; or give `scaleFactor`. */
  size?: number | number[]
  scaleFactor?: number | number[]
  /**
   * Default: 'nearest'. 'nearest', 'nearest-exact' (as Pillow and scikit-image find the nearest) and 'area' are for three
   * to five dimensions, 'linear' for three, 'bilinear', 'bicubic' and 'lanczos' (with `antialias` only) for four,
   * 'trilinear' for five.
   */
  mode?: InterpolateMode
  /** Corner elements, rather than corner edges, coincide. Not for 'nearest', 'nearest-exact' and 'area'. Default: false. */
  alignCorners?: boolean
  /** The scale is that of the sizes, which are integers, and not `scaleFactor` itself. Default: false. */
  recomputeScaleFactor?: boolean
  /** A smaller picture averages over all that it leaves out, as Pillow's. For 'bilinear', 'bicubic', 'lanczos'. */
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
// By the number of spatial dimensions, from one.
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

/** Resizes the spatial dimensions of input [batch, channels, ...spatial] (one to three of them). */
export function interpolate(input: Tensor, options: InterpolateOptions = {}): Tensor {
  requireOptions('interpolate', options, INTERPOLATE_OPTIONS)
  const { size, scaleFactor, mode = 'nearest', alignCorners, antialias = false } = options
  if ((size === undefined) === (scaleFactor === undefined)) {
    throw new ConfigError('interpolate needs either size or scaleFactor', { size, scaleFactor })
  }
  requireOneOf('interpolate', 'mode', mode, Object.keys(RANKS))
  const plain = mode === 'nearest' || mode === 'nearest-exact' || mode === 'area'
  if (plain && alignCorners !== undefined) {
    throw new ConfigError(`interpolate: alignCorners has no meaning in mode '${mode}'`, { mode })
  }
  const ranks = RANKS[mode]
  const wrong = otherRank(`interpolate in mode '${mode}'`, input, ranks, `${ranks.join(' or ')} dimensions`)
  if (wrong) throw wrong
  if (antialias !== (antialias && smooth[mode] !== undefined) || (mode === 'lanczos' && !antialias)) {
    throw new ConfigError(
      mode === 'lanczos'
        ? "interpolate: mode 'lanczos' needs antialias: true"
        : `interpolate: antialias is for the modes bilinear, bicubic and lanczos, not '${mode}'`,
      { mode },
    )
  }
  const spatial = input.ndim - 2
  let [sizes, factors] = [perDimension('size', size, spatial), perDimension('scaleFactor', scaleFactor, spatial)]
  if (options.recomputeScaleFactor === true && factors === null) {
    throw new ConfigError('interpolate: recomputeScaleFactor has no meaning with a size', {})
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
  throw new ConfigError(`interpolate: ${name} must be a number, or one for each of the ${dims} spatial dimensions`, {
    [name]: value,
  })
}

export interface GridSampleOptions {
  /** Default: 'bilinear', which of a volume is trilinear. 'bicubic' is for pictures only. */
  mode?: 'bilinear' | 'nearest' | 'bicubic'
  /** What lies outside: zeros (default), the border, or the input mirrored there. */
  paddingMode?: 'zeros' | 'border' | 'reflection'
  /** -1 and 1 are the centers, rather than the outer edges, of the elements in the corners. Default: false. */
  alignCorners?: boolean
}

const GRID_MODES = ['bilinear', 'nearest', 'bicubic']
const GRID_PADDINGS = ['zeros', 'border', 'reflection']

/**
 * Reads input [batch, channels, height, width] at the places of grid [batch, outHeight, outWidth, 2], which are (x, y) in
 * [-1, 1] across the input: [batch, channels, outHeight, outWidth]. With a depth and 3 coordinates the same for volumes
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
 * The grid for {@link gridSample} of affine maps theta [batch, 2, 3] (or [batch, 3, 4]) for outputs of `size`
 * [batch, channels, height, width] (or with a depth): [batch, height, width, 2] (or 3).
 */
export function affineGrid(theta: Tensor, size: number[], options: { alignCorners?: boolean } = {}): Tensor {
  requireOptions('affineGrid', options, ['alignCorners'])
  return ops.affineGridGenerator(theta, size, options.alignCorners ?? false)
}
