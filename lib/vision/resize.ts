import { argumentError, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { ops, scope, Tensor, tensor } from '../tensor/index.js'

// Images are uint8 [..., height, width, 3] in RGB, or [..., height, width, 1] in gray, rows from top to bottom as in files. Models
// take floating-point [..., channels, height, width].

/** Resampling filter, by Pillow's names. */
export type ImageFilter = 'nearest' | 'box' | 'bilinear' | 'hamming' | 'bicubic' | 'lanczos'

/** [height, width]; or the length of the shorter side, with the longer one scaled in proportion and rounded down. */
export type ImageSize = number | readonly [height: number, width: number]

export interface ResizeImageOptions {
  /** Resampling filter. Default `'bicubic'`, as in Pillow for RGB. */
  filter?: ImageFilter
  /**
   * Version of Pillow whose order of the horizontal and vertical pass is used; the first pass rounds, so bytes differ by one.
   * 12 (default), with which published models were trained and evaluated: horizontal first, except for images over 100 times
   * as high as wide. 13: vertical first if the height shrinks by over twice as many pixels as the width.
   */
  pillow?: 12 | 13
}

const FILTERS: readonly ImageFilter[] = ['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos']
const resizeImageOp = opAsync('voxtorch::resize_image')

/**
 * Resize an image, or several of one size: uint8 [..., height, width, 3 or 1]. The bytes equal those of Pillow's
 * `Image.resize(size, filter)` for 8-bit RGB and gray images, which applies antialiasing when downsizing. Runs on the executor,
 * on all of its threads.
 *
 * ```ts
 * const square = await resizeImage(image, [448, 448])
 * ```
 *
 * @throws ConfigError for an invalid size, filter or value that is not a tensor; ShapeError and DeviceError for tensors of
 *   another shape, dtype or device
 */
export async function resizeImage(image: Tensor, size: ImageSize, options: ResizeImageOptions = {}): Promise<Tensor> {
  const where = 'resizeImage'
  requireImage(where, image)
  requireOptions(where, options, ['filter', 'pillow'])
  const { filter = 'bicubic', pillow = 12 } = options
  requireOneOf(where, 'filter', filter, FILTERS)
  if (pillow !== 12 && pillow !== 13) throw argumentError(where, 'pillow', '12 or 13', pillow)
  const [toHeight, toWidth] = newSize(where, size, image.size(-3), image.size(-2))
  return resizeImageOp(image, toHeight, toWidth, { filter, pillow })
}

export interface ResizeTensorOptions {
  /** Interpolation. Default `'bilinear'`. */
  filter?: 'bilinear' | 'bicubic'
  /**
   * Whether downsizing applies antialiasing, as in torchvision since 0.17. Bicubic weights differ too: a = -0.5 with it, -0.75
   * without. Default true.
   */
  antialias?: boolean
}

const kernels = {
  bilinear: { plain: opAsync('aten::upsample_bilinear2d'), smooth: opAsync('aten::_upsample_bilinear2d_aa') },
  bicubic: { plain: opAsync('aten::upsample_bicubic2d'), smooth: opAsync('aten::_upsample_bicubic2d_aa') },
}

/**
 * Resize floating-point images [..., channels, height, width] with libtorch's kernels (align_corners=False), as
 * torch.nn.functional.interpolate and torchvision's `resize` do. Return the tensor itself if it already has that size.
 * Differentiable. Runs on the executor.
 * @throws ConfigError for invalid options; ShapeError for tensors of another shape or dtype
 */
export async function resizeTensor(image: Tensor, size: ImageSize, options: ResizeTensorOptions = {}): Promise<Tensor> {
  const where = 'resizeTensor'
  requirePlanes(where, image)
  requireOptions(where, options, ['filter', 'antialias'])
  const { filter = 'bilinear', antialias = true } = options
  requireOneOf(where, 'filter', filter, Object.keys(kernels))
  if (typeof antialias !== 'boolean') throw argumentError(where, 'antialias', 'a boolean', antialias)
  const { shape } = image
  const [height, width] = shape.slice(-2) as [number, number]
  const to = newSize(where, size, height, width)
  if (to[0] === height && to[1] === width) return image
  const outer = shape.slice(0, -3)
  const count = outer.reduce((product, length) => product * length, 1)
  return scope(async () => {
    const images = image.reshape([count, ...shape.slice(-3)])
    const resized: Tensor = await kernels[filter][antialias ? 'smooth' : 'plain'](images, to, false, null, null)
    return resized.reshape([...outer, ...resized.shape.slice(1)])
  })
}

/**
 * Crop the center of images: uint8 [..., height, width, 3 or 1], or floating-point [..., channels, height, width]. Return a view.
 * The corner is at (side - size) / 2, rounded half to even, as in torchvision.
 * @throws ShapeError for an image that is smaller than `size`
 */
export function centerCrop(image: Tensor, size: ImageSize): Tensor {
  const where = 'centerCrop'
  if (!(image instanceof Tensor)) throw argumentError(where, 'image', 'a tensor', image)
  const pixels = image.dtype === 'uint8'
  if (pixels) requireImage(where, image)
  else requirePlanes(where, image)
  const [height, width] = typeof size === 'number' ? bothSides(where, [size, size]) : bothSides(where, size)
  const first = image.ndim - (pixels ? 3 : 2)
  const from = [image.size(first), image.size(first + 1)] as const
  if (height > from[0] || width > from[1]) {
    throw new ShapeError(
      `${where}: size: expected at most ${from.join(' × ')}, the image's, got ${height} × ${width}`,
      {
        size: [height, width],
        shape: image.shape,
      },
    )
  }
  return scope(() =>
    image
      .narrow(first, halfToEven((from[0] - height) / 2), height)
      .narrow(first + 1, halfToEven((from[1] - width) / 2), width),
  )
}

export interface NormalizeImageOptions {
  /** Mean of each channel. */
  mean: readonly number[]
  /** Standard deviation of each channel, not 0. */
  std: readonly number[]
}

/** Channel statistics of CLIP's training images; also used by LanguageBind. */
export const CLIP_STATISTICS: NormalizeImageOptions = {
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
}

/** Channel statistics of ImageNet; used by InternVL and most vision transformers. */
export const IMAGENET_STATISTICS: NormalizeImageOptions = {
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
}

/**
 * Normalize each channel of floating-point images [..., channels, height, width]: (x - mean) / std.
 * @throws ConfigError if `mean` or `std` has another number of channels; ShapeError for integers: divide them by 255 first
 */
export async function normalizeImage(image: Tensor, options: NormalizeImageOptions): Promise<Tensor> {
  const where = 'normalizeImage'
  requirePlanes(where, image)
  requireOptions(where, options, ['mean', 'std'])
  const channels = image.size(-3)
  const { device, dtype } = image
  requireStatistics(where, options, channels)
  const list = (name: 'mean' | 'std') => tensor([...options[name]], { dtype, device, shape: [channels, 1, 1] })
  return scope(async () => {
    const centered = await ops.async.sub(image, list('mean'))
    return ops.async.div(centered, list('std'))
  })
}

export function requireStatistics(where: string, options: NormalizeImageOptions, channels: number): void {
  for (const name of ['mean', 'std'] as const) {
    const values = options[name]
    const good = (value: unknown) => Number.isFinite(value) && (name === 'mean' || value !== 0)
    if (Array.isArray(values) && values.length === channels && values.every(good)) continue
    throw argumentError(
      where,
      name,
      `${channels} finite ${name === 'std' ? 'nonzero ' : ''}numbers, one for each channel`,
      values,
    )
  }
}

/** Check that a value is a tensor of 8-bit images. @throws ConfigError, ShapeError */
export function requireImage(where: string, image: unknown): asserts image is Tensor {
  if (!(image instanceof Tensor)) throw argumentError(where, 'image', 'a uint8 tensor [..., height, width, 3]', image)
  const { shape, dtype } = image
  const channels = shape.at(-1)
  if (dtype === 'uint8' && shape.length >= 3 && (channels === 3 || channels === 1) && shape.at(-2)! * shape.at(-3)! > 0)
    return
  throw new ShapeError(
    `${where}: image: expected uint8 [..., height, width, 3 or 1], got ${dtype} [${shape.join(', ')}]`,
    { shape, dtype },
  )
}

function requirePlanes(where: string, image: unknown): asserts image is Tensor {
  if (!(image instanceof Tensor)) throw argumentError(where, 'image', 'a tensor [..., channels, height, width]', image)
  const { shape, dtype } = image
  if (/^b?float/.test(dtype) && shape.length >= 3 && shape.slice(-3).every((length) => length > 0)) return
  throw new ShapeError(
    `${where}: image: expected floating-point [..., channels, height, width], got ${dtype} [${shape.join(', ')}]`,
    { shape, dtype },
  )
}

export function newSize(where: string, size: ImageSize, height: number, width: number): [number, number] {
  if (typeof size === 'number') {
    requireWhole(where, 'size', size, 1)
    const [short, long] = height < width ? [height, width] : [width, height]
    const other = Math.trunc((size * long) / short)
    return height < width ? [size, other] : [other, size]
  }
  return bothSides(where, size)
}

function bothSides(where: string, size: unknown): [height: number, width: number] {
  if (!Array.isArray(size) || size.length !== 2) throw argumentError(where, 'size', 'a number or [height, width]', size)
  for (const side of size) requireWhole(where, 'size', side, 1)
  return [size[0], size[1]]
}

export function halfToEven(value: number): number {
  const down = Math.floor(value)
  const rest = value - down
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down
}
