import { misuse, requireOneOf, requireOptions, requireWhole } from '../base/check.js'
import { ShapeError } from '../base/errors.js'
import { opAsync } from '../native/call.js'
import { ops, scope, Tensor, tensor } from '../tensor/index.js'

// Pictures are uint8 [..., height, width, 3], rows from the top, as files have them: RGB, and [..., height, width, 1] where
// they are grey. What networks read is floating-point [..., channels, height, width].

/** How the pixels of a picture are weighted, by Pillow's names. */
export type ImageFilter = 'nearest' | 'box' | 'bilinear' | 'hamming' | 'bicubic' | 'lanczos'

/** [height, width]; or the length of the shorter side, to which the longer one keeps its ratio, rounded down. */
export type ImageSize = number | readonly [height: number, width: number]

export interface ResizeImageOptions {
  /** Default `'bicubic'`, as Pillow's for RGB. */
  filter?: ImageFilter
  /**
   * The version of Pillow whose order of the two passes is taken, of which the first rounds. Before 13 it goes across and
   * then down, other than in pictures over 100 times as high as wide (default): what published models were trained and
   * measured with. 13 goes down first where the height loses over twice as many pixels as the width. Bytes differ by one.
   */
  pillow?: 12 | 13
}

const FILTERS: readonly ImageFilter[] = ['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos']
const resizeImageOp = opAsync('voxtorch::resize_image')

/**
 * A picture, or several of one size, at another: uint8 [..., height, width, 3 or 1] to uint8 with the new height and width.
 * To the byte what Pillow's `Image.resize(size, filter)` gives for RGB and grey pictures of 8 bits: smaller pictures
 * average over all that they leave out. Runs on the executor, on all of its threads.
 *
 * ```ts
 * const square = await resizeImage(picture, [448, 448])
 * ```
 *
 * @throws ConfigError for what is no tensor, size or filter; ShapeError and DeviceError for tensors that are no such pictures
 */
export async function resizeImage(image: Tensor, size: ImageSize, options: ResizeImageOptions = {}): Promise<Tensor> {
  const where = 'resizeImage'
  requireImage(where, image)
  requireOptions(where, options, ['filter', 'pillow'])
  const { filter = 'bicubic', pillow = 12 } = options
  requireOneOf(where, 'filter', filter, FILTERS)
  if (pillow !== 12 && pillow !== 13) throw misuse(where, 'pillow', '12 or 13', pillow)
  const { height, width } = sizeOfPictures(image)
  const [toHeight, toWidth] = newSize(where, size, height, width)
  return resizeImageOp(image, toHeight, toWidth, { filter, pillow })
}

export interface ResizeTensorOptions {
  /** Default `'bilinear'`. */
  filter?: 'bilinear' | 'bicubic'
  /**
   * Whether a smaller picture averages over all that it leaves out, as torchvision does from 0.17 on. Bicubic weights differ
   * too: with it a = -0.5, without -0.75. Default true.
   */
  antialias?: boolean
}

const kernels = {
  bilinear: { plain: opAsync('aten::upsample_bilinear2d'), smooth: opAsync('aten::_upsample_bilinear2d_aa') },
  bicubic: { plain: opAsync('aten::upsample_bicubic2d'), smooth: opAsync('aten::_upsample_bicubic2d_aa') },
}

/**
 * Floating-point [..., channels, height, width] with a new height and width, by libtorch's kernels (corners not aligned): as
 * torch.nn.functional.interpolate and torchvision's `resize` on tensors. The tensor itself where it has that size already.
 * Differentiable. Runs on the executor.
 * @throws ConfigError for options; ShapeError for tensors that are no such pictures
 */
export async function resizeTensor(image: Tensor, size: ImageSize, options: ResizeTensorOptions = {}): Promise<Tensor> {
  const where = 'resizeTensor'
  requirePlanes(where, image)
  requireOptions(where, options, ['filter', 'antialias'])
  const { filter = 'bilinear', antialias = true } = options
  requireOneOf(where, 'filter', filter, Object.keys(kernels))
  if (typeof antialias !== 'boolean') throw misuse(where, 'antialias', 'a boolean', antialias)
  const { shape } = image
  const [height, width] = shape.slice(-2) as [number, number]
  const to = newSize(where, size, height, width)
  if (to[0] === height && to[1] === width) return image
  const outer = shape.slice(0, -3)
  const count = outer.reduce((product, length) => product * length, 1)
  return scope(async () => {
    const pictures = image.reshape([count, ...shape.slice(-3)])
    const resized: Tensor = await kernels[filter][antialias ? 'smooth' : 'plain'](pictures, to, false, null, null)
    return resized.reshape([...outer, ...resized.shape.slice(1)])
  })
}

/**
 * The middle of pictures: uint8 [..., height, width, 3 or 1], or floating-point [..., channels, height, width]. A view. The
 * corner is at (side - size) / 2, rounded half to even, as torchvision's.
 * @throws ShapeError where a picture is smaller than that
 */
export function centerCrop(image: Tensor, size: ImageSize): Tensor {
  const where = 'centerCrop'
  if (!(image instanceof Tensor)) throw misuse(where, 'image', 'a tensor', image)
  const pixels = image.dtype === 'uint8'
  if (pixels) requireImage(where, image)
  else requirePlanes(where, image)
  const [height, width] = typeof size === 'number' ? bothSides(where, [size, size]) : bothSides(where, size)
  const first = image.ndim - (pixels ? 3 : 2)
  const from = [image.size(first), image.size(first + 1)] as const
  if (height > from[0] || width > from[1]) {
    throw new ShapeError(`${where}: a picture of ${from.join(' × ')} has no ${height} × ${width} to be cut out`, {
      size: [height, width],
      shape: image.shape,
    })
  }
  return scope(() =>
    image
      .narrow(first, halfToEven((from[0] - height) / 2), height)
      .narrow(first + 1, halfToEven((from[1] - width) / 2), width),
  )
}

export interface NormalizeImageOptions {
  /** Of each channel. */
  mean: readonly number[]
  /** Of each channel, none of them 0. */
  std: readonly number[]
}

/** Of the pictures that CLIP was trained on; LanguageBind's towers have them too. */
export const CLIP_STATISTICS: NormalizeImageOptions = {
  mean: [0.48145466, 0.4578275, 0.40821073],
  std: [0.26862954, 0.26130258, 0.27577711],
}

/** Of ImageNet; InternVL and most vision transformers have them. */
export const IMAGENET_STATISTICS: NormalizeImageOptions = {
  mean: [0.485, 0.456, 0.406],
  std: [0.229, 0.224, 0.225],
}

/**
 * (x - mean) / std for each channel of floating-point [..., channels, height, width].
 * @throws ConfigError for other numbers of channels in `mean` or `std`; ShapeError for integers: divide them by 255 first
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
    const centred = await ops.async.sub(image, list('mean'))
    return ops.async.div(centred, list('std'))
  })
}

export function requireStatistics(where: string, options: NormalizeImageOptions, channels: number): void {
  for (const name of ['mean', 'std'] as const) {
    const values = options[name]
    const good = (value: unknown) => Number.isFinite(value) && (name === 'mean' || value !== 0)
    if (Array.isArray(values) && values.length === channels && values.every(good)) continue
    throw misuse(
      where,
      name,
      `${channels} finite numbers, one for each channel${name === 'std' ? ', not 0' : ''}`,
      values,
    )
  }
}

/** Checks that something is pictures of 8 bits. */
export function requireImage(where: string, image: unknown): asserts image is Tensor {
  if (!(image instanceof Tensor)) throw misuse(where, 'image', 'a uint8 tensor [..., height, width, 3]', image)
  const { shape, dtype } = image
  const channels = shape.at(-1)
  if (dtype === 'uint8' && shape.length >= 3 && (channels === 3 || channels === 1) && shape.at(-2)! * shape.at(-3)! > 0)
    return
  throw new ShapeError(
    `${where}: a picture is uint8 [..., height, width, 3], or 1 for grey, not ${dtype} [${shape.join(', ')}]`,
    { shape, dtype },
  )
}

function requirePlanes(where: string, image: unknown): asserts image is Tensor {
  if (!(image instanceof Tensor)) throw misuse(where, 'image', 'a tensor [..., channels, height, width]', image)
  const { shape, dtype } = image
  if (/^b?float/.test(dtype) && shape.length >= 3 && shape.slice(-3).every((length) => length > 0)) return
  throw new ShapeError(
    `${where}: expected floating-point [..., channels, height, width], not ${dtype} [${shape.join(', ')}]`,
    { shape, dtype },
  )
}

/** Height and width of uint8 [..., height, width, channels]. */
export function sizeOfPictures(image: Tensor): { height: number; width: number } {
  return { height: image.size(-3), width: image.size(-2) }
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
  if (!Array.isArray(size) || size.length !== 2) throw misuse(where, 'size', 'a number or [height, width]', size)
  for (const side of size) requireWhole(where, 'size', side, 1)
  return [size[0], size[1]]
}

export function halfToEven(value: number): number {
  const down = Math.floor(value)
  const rest = value - down
  return rest > 0.5 || (rest === 0.5 && down % 2 === 1) ? down + 1 : down
}
