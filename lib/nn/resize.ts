import { requireOneOf } from '../base/check.js'
import { ConfigError } from '../base/errors.js'
import { op } from '../native/call.js'
import { ops, type Tensor } from '../tensor/index.js'
import { byPosition } from './by-position.js'
import { otherRank, requireTensors, sizeList } from './check.js'

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
  size?: number | readonly number[] | null
  scaleFactor?: number | readonly number[] | null
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
  alignCorners?: boolean | null
  /** Compute the scale from the (integer) sizes instead of `scaleFactor`. Default: false. */
  recomputeScaleFactor?: boolean | null
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
export const INTERPOLATE_OPTIONS = [
  ...(['size', 'scaleFactor', 'mode', 'alignCorners'] as const),
  ...(['recomputeScaleFactor', 'antialias'] as const),
] as const
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
export const interpolate = byPosition(
  'interpolate',
  INTERPOLATE_OPTIONS,
  (input: Tensor, options: InterpolateOptions): Tensor => interpolated(input, options),
)

function interpolated(input: Tensor, options: InterpolateOptions): Tensor {
  const { size = null, scaleFactor = null, mode = 'nearest', alignCorners = null, antialias = false } = options
  if ((size === null) === (scaleFactor === null)) {
    throw new ConfigError('interpolate: expected either size or scaleFactor', { size, scaleFactor })
  }
  requireOneOf('interpolate', 'mode', mode, Object.keys(RANKS))
  const plain = mode === 'nearest' || mode === 'nearest-exact' || mode === 'area'
  if (plain && alignCorners !== null) {
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

function perDimension(name: string, value: number | readonly number[] | null, dims: number): number[] | null {
  if (value === null) return null
  const list = typeof value === 'number' ? Array<number>(dims).fill(value) : value
  if (Array.isArray(list) && list.length === dims && list.every((item) => typeof item === 'number')) return [...list]
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
  alignCorners?: boolean | null
}

const GRID_MODES = ['bilinear', 'nearest', 'bicubic']
const GRID_PADDINGS = ['zeros', 'border', 'reflection']

/**
 * Sample input [batch, channels, height, width] at the positions of grid [batch, outHeight, outWidth, 2], which are (x, y) in
 * [-1, 1] across the input: [batch, channels, outHeight, outWidth]. For volumes with a depth and 3 coordinates accordingly
 * (Jaderberg et al. 2015, https://arxiv.org/abs/1506.02025).
 */
export const gridSample = byPosition(
  'gridSample',
  ['mode', 'paddingMode', 'alignCorners'],
  (input: Tensor, grid: Tensor, options: GridSampleOptions): Tensor => {
    requireTensors('gridSample', input, grid)
    const { mode = 'bilinear', paddingMode = 'zeros', alignCorners } = options
    requireOneOf('gridSample', 'mode', mode, GRID_MODES)
    requireOneOf('gridSample', 'paddingMode', paddingMode, GRID_PADDINGS)
    const codes = [GRID_MODES.indexOf(mode), GRID_PADDINGS.indexOf(paddingMode)] as const
    return ops.gridSampler(input, grid, ...codes, alignCorners ?? false)
  },
)

export interface AffineGridArguments {
  /** Shape of the output. */
  size: readonly number[]
  /** -1 and 1 are the centers of the corner elements instead of their outer edges. Default: false. */
  alignCorners?: boolean | null
}

/**
 * Return the grid for {@link gridSample} of affine maps theta [batch, 2, 3] (or [batch, 3, 4]) for outputs of `size` [batch,
 * channels, height, width] (or with a depth): [batch, height, width, 2] (or 3).
 */
export const affineGrid = byPosition(
  'affineGrid',
  ['size', 'alignCorners'],
  (theta: Tensor, { size, alignCorners }: AffineGridArguments): Tensor =>
    ops.affineGridGenerator(theta, size, alignCorners ?? false),
)

/** Resize like {@link interpolate}, under its older name. */
export const upsample = byPosition(
  'upsample',
  ['size', 'scaleFactor', 'mode', 'alignCorners'],
  (input: Tensor, options: Pick<InterpolateOptions, 'size' | 'scaleFactor' | 'mode' | 'alignCorners'>): Tensor =>
    interpolated(input, options),
)

type UpsampleOptions = Pick<InterpolateOptions, 'size' | 'scaleFactor'>

/** Resize like {@link interpolate}, by nearest neighbor. */
export const upsampleNearest = byPosition(
  'upsampleNearest',
  ['size', 'scaleFactor'],
  (input: Tensor, options: UpsampleOptions): Tensor => interpolated(input, { ...options, mode: 'nearest' }),
)

/** Resize images like {@link interpolate} in mode 'bilinear', with aligned corners. */
export const upsampleBilinear = byPosition(
  'upsampleBilinear',
  ['size', 'scaleFactor'],
  (input: Tensor, options: UpsampleOptions): Tensor =>
    interpolated(input, { ...options, mode: 'bilinear', alignCorners: true }),
)

export type PaddingMode = 'constant' | 'reflect' | 'replicate' | 'circular'

export interface PadArguments {
  /** [before, after] of the last dimension, then of the second to last, …; negative numbers crop. */
  pad: readonly number[]
  /** Source of the padding's elements. Default: 'constant'. */
  mode?: PaddingMode
  /** Constant of the padding. Default: 0. */
  value?: number | null
}

/** Pad a tensor at both ends of its last dimensions. */
export const pad = byPosition(
  'pad',
  ['pad', 'mode', 'value'],
  (input: Tensor, { pad: padding, mode = 'constant', value = null }: PadArguments): Tensor =>
    ops.pad(input, padding, mode, value),
)

export interface UnfoldArguments {
  /** Size of the window. */
  kernelSize: number | readonly number[]
  /** Dilation of the window. Default: 1. */
  dilation?: number | readonly number[]
  /** Zeros added at both ends. Default: 0. */
  padding?: number | readonly number[]
  /** Stride. Default: 1. */
  stride?: number | readonly number[]
}

export interface FoldArguments extends UnfoldArguments {
  /** Spatial sizes of the output. */
  outputSize: number | readonly number[]
}

/** Return kernel size, dilation, padding and stride of both spatial dimensions. */
function windowOf(where: string, options: UnfoldArguments): [number[], number[], number[], number[]] {
  const { kernelSize, dilation = 1, padding = 0, stride = 1 } = options
  return [
    sizeList(where, 'kernelSize', kernelSize, 2, 1),
    sizeList(where, 'dilation', dilation, 2, 1),
    sizeList(where, 'padding', padding, 2),
    sizeList(where, 'stride', stride, 2, 1),
  ]
}

/** Extract windows as columns: [batch, channels, height, width] → [batch, channels · kernel, windows] */
export const unfold = byPosition(
  'unfold',
  ['kernelSize', 'dilation', 'padding', 'stride'],
  (input: Tensor, options: UnfoldArguments): Tensor => {
    requireTensors('unfold', input)
    return ops.im2col(input, ...windowOf('unfold', options))
  },
)

/** Sum columns into windows: [batch, channels · kernel, windows] → [batch, channels, ...outputSize] */
export const fold = byPosition(
  'fold',
  ['outputSize', 'kernelSize', 'dilation', 'padding', 'stride'],
  (input: Tensor, options: FoldArguments): Tensor => {
    requireTensors('fold', input)
    return ops.col2im(input, sizeList('fold', 'outputSize', options.outputSize, 2, 1), ...windowOf('fold', options))
  },
)

export const { channelShuffle, pixelShuffle, pixelUnshuffle } = ops
