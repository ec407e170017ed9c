import { argumentError, requireWhole } from '../base/check.js'
import { DataError } from '../base/errors.js'
import { type ChangesOf, SIGNAL, settings, unchecked, type ValuesOf } from '../base/settings.js'
import { opAsync } from '../native/call.js'
import { ops, scope, type Tensor } from '../tensor/index.js'
import { type ImageInput, openImage } from './image.js'
import {
  CLIP_STATISTICS,
  centerCrop,
  halfToEven,
  type NormalizeImageOptions,
  normalizeImage,
  requireImage,
  requireStatistics,
  resizeImage,
  resizeTensor,
} from './resize.js'

const PREPROCESS = settings({
  /** Mean of each channel. Default: CLIP's. */
  mean: { type: unchecked<readonly number[]>(), default: CLIP_STATISTICS.mean },
  /** Standard deviation of each channel, not 0. Default: CLIP's. */
  std: { type: unchecked<readonly number[]>(), default: CLIP_STATISTICS.std },
  /** Side of the resulting square, in pixels. Default 224. */
  size: { type: 'integer', min: 1, default: 224 },
  /**
   * Whether downsizing uses antialiasing. Default true for images and depth, as in torchvision since 0.17, and false for video.
   * LanguageBind's published encoders were trained without it.
   */
  antialias: { type: 'boolean', default: true },
  /** Aborts reading. */
  signal: { type: SIGNAL },
})

const IMAGE = PREPROCESS.extend({
  /**
   * Image processor to follow. `'languagebind'` (default) converts bytes to floats and resizes these; values may overshoot
   * [0, 1] at sharp edges. `'clip'` resizes bytes to bytes, as transformers' `CLIPImageProcessorPil` does (before transformers
   * 5: the slow `CLIPImageProcessor`). After normalization the two differ by up to 0.3, most on noise. `'siglip'` resizes bytes to
   * a square without a crop, which changes the aspect ratio, as transformers' `SiglipImageProcessorPil` does.
   */
  processor: { type: ['languagebind', 'clip', 'siglip'], default: 'languagebind' },
  /** Resampling filter of `processor: 'siglip'`; the others are bicubic. Default `'bicubic'`. */
  resample: { type: ['bicubic', 'bilinear', 'lanczos'], default: 'bicubic' },
})

/** Options of `preprocessImage`. @interface */
export type PreprocessImageOptions = ChangesOf<typeof IMAGE.table>

/**
 * Read images and convert them to pixel values of a vision transformer: float32 [3, size, size], or [count, 3, size, size] for a
 * list. The shorter side is resized to `size` with bicubic interpolation, the center is cropped, and each channel becomes
 * (x / 255 - mean) / std, by default with CLIP's statistics.
 *
 * By default the values are those of LanguageBind's image and thermal encoders (Zhu et al. 2023, https://arxiv.org/abs/2310.01852,
 * `processing_image.py`). `processor: 'clip'` gives those of transformers' `CLIPImageProcessorPil` with Pillow before version 13
 * (see {@link ResizeImageOptions}), and `processor: 'siglip'` those of `SiglipImageProcessorPil`. transformers' processors without
 * `Pil`, which resize with torchvision, differ from that by one step of a byte.
 *
 * ```ts
 * const pixelValues = await preprocessImage(['a.jpg', 'b.png']) // [2, 3, 224, 224]
 * ```
 *
 * @throws DataError naming the file for an unreadable image, or one that is too narrow; ConfigError for invalid options;
 *   ShapeError for tensors of another shape or dtype
 */
export async function preprocessImage(
  images: ImageInput | readonly ImageInput[],
  options: PreprocessImageOptions = {},
): Promise<Tensor> {
  const where = 'preprocessImage'
  const { processor, resample, ...values } = IMAGE.read(where, options)
  const recipe = recipeOf(where, values)
  if (processor !== 'languagebind' && !recipe.antialias) {
    throw argumentError(where, 'antialias', `true with processor '${processor}', which resizes as Pillow does`, false)
  }
  if (processor !== 'siglip' && resample !== 'bicubic') {
    throw argumentError(where, 'resample', `'bicubic' with processor '${processor}'`, resample)
  }
  return eachOf(where, 'images', images, async (image) => {
    const pixels = await openImage(where, image, {}, recipe.signal)
    if (processor === 'siglip') {
      const square = await resizeImage(pixels, [recipe.size, recipe.size], { filter: resample })
      return normalizeImage(await ops.async.div(square.permute([2, 0, 1]), 255), recipe.statistics)
    }
    requireBreadth(where, image, pixels.size(0), pixels.size(1), recipe.size)
    if (processor === 'clip') return clipPlanes(pixels, recipe)
    const planes: Tensor = await ops.async.div(pixels.permute([2, 0, 1]), 255)
    return finished(planes, recipe)
  })
}

/** @param pixels uint8 [height, width, 3] */
async function clipPlanes(pixels: Tensor, { size, statistics }: Recipe): Promise<Tensor> {
  const resized = await resizeImage(pixels, size)
  // transformers rounds the crop offset down; torchvision rounds half to even.
  const [top, left] = [resized.size(0), resized.size(1)].map((side) => Math.floor((side - size) / 2)) as [
    number,
    number,
  ]
  const square = resized.narrow(0, top, size).narrow(1, left, size)
  return normalizeImage(await ops.async.div(square.permute([2, 0, 1]), 255), statistics)
}

const DEPTH = PREPROCESS.extend({
  /** Distance in meters that is mapped to 1. 0 uses the largest distance of each image. Default 10. */
  maxDepth: { type: 'number', default: 10 },
  /** Lower bound on distances, in meters. Default 0.01. */
  minDepth: { type: 'number', default: 0.01 },
  /** Units of the file per meter. Default 1000. */
  scale: { type: 'number', min: Number.MIN_VALUE, default: 1000 },
})

/** Options of {@link preprocessDepth}. @interface */
export type PreprocessDepthOptions = ChangesOf<typeof DEPTH.table>

/**
 * Read depth images, usually 16-bit PNG in millimeters, and convert them to pixel values of LanguageBind's depth encoder: float32
 * [3, size, size], or [count, 3, size, size] for a list. Values are converted to meters, clamped and divided by `maxDepth`. The
 * three channels are equal before normalization. Tensors are [height, width], in units of the file.
 *
 * Source: LanguageBind, `processing_depth.py`.
 * @throws DataError naming the file for an unreadable image, or one with colors; ConfigError for invalid options
 */
export async function preprocessDepth(
  depths: ImageInput | readonly ImageInput[],
  options: PreprocessDepthOptions = {},
): Promise<Tensor> {
  const where = 'preprocessDepth'
  const { maxDepth, minDepth, scale, ...values } = DEPTH.read(where, options)
  const recipe = recipeOf(where, values)
  return eachOf(where, 'depths', depths, async (depth) => {
    const steps = await openImage(where, depth, { mode: 'depth' }, recipe.signal)
    requireBreadth(where, depth, steps.size(0), steps.size(1), recipe.size)
    const meters: Tensor = (await ops.async.div(steps.float(), scale)).clampMin(minDepth)
    // The maximum is 0 for an image of zeros with minDepth 0.
    const relative = maxDepth > 0 ? meters.clampMax(maxDepth).div(maxDepth) : meters.div(meters.max().clampMin(1e-30))
    const [height, width] = relative.shape as [number, number]
    return finished(relative.unsqueeze(0).expand([3, height, width]), recipe)
  })
}

const VIDEO = PREPROCESS.extend({
  antialias: { type: 'boolean', default: false },
  /**
   * Whether to mirror the frames horizontally. The original does so with probability 0.5, also at inference. Default false.
   */
  flip: { type: 'boolean', default: false },
})

/** Options of {@link preprocessVideo}. @interface */
export type PreprocessVideoOptions = ChangesOf<typeof VIDEO.table>

const framesToPlanes = opAsync('voxtorch::frames_to_planes')

/**
 * Convert video frames, uint8 [count, height, width, 3], to pixel values of LanguageBind's video encoder: float32
 * [3, count, size, size]. Steps: RGB / 255, (x - mean) / std, resize of the shorter side to `size` (bilinear, no antialiasing),
 * center crop. {@link sampleFrames} selects the frames.
 *
 * Source: LanguageBind, `processing_video.py`, with pytorchvideo's ShortSideScale.
 * @throws ConfigError for invalid options; ShapeError for tensors of another shape or dtype
 */
export async function preprocessVideo(frames: Tensor, options: PreprocessVideoOptions = {}): Promise<Tensor> {
  const where = 'preprocessVideo'
  const { flip, ...values } = VIDEO.read(where, options)
  const { size, antialias, statistics, signal } = recipeOf(where, values)
  requireImage(where, frames)
  if (frames.ndim !== 4 || frames.size(3) !== 3)
    throw argumentError(where, 'frames', 'uint8 [count, height, width, 3]', frames)
  signal?.throwIfAborted()
  const [height, width] = [frames.size(1), frames.size(2)]
  // pytorchvideo computes the longer side this way; torchvision may round differently.
  const long = (a: number, b: number) => Math.floor((a / b) * size)
  const to = width < height ? ([long(height, width), size] as const) : ([size, long(width, height)] as const)
  return scope(async () => {
    let planes: Tensor
    if (antialias) {
      requireBreadth(where, frames, height, width, size)
      const all = await ops.async.div(frames.permute([0, 3, 1, 2]), 255)
      const resized = await resizeTensor(await normalizeImage(all, statistics), to, { filter: 'bilinear' })
      planes = centerCrop(resized, size).transpose(0, 1).contiguous()
    } else {
      planes = await framesToPlanes(frames, to[0], to[1], {
        top: halfToEven((to[0] - size) / 2),
        left: halfToEven((to[1] - size) / 2),
        cropHeight: size,
        cropWidth: size,
        ...statistics,
      })
    }
    return flip ? planes.flip([-1]) : planes
  })
}

const SAMPLE = settings({
  /** Number of frames. Default 8. */
  count: { type: 'integer', min: 1, default: 8 },
  /**
   * `'linspace'` (default): evenly spaced from the first to the last frame, as in LanguageBind. `'segments'`: the centers of
   * equal segments, as in InternVL.
   */
  method: { type: ['linspace', 'segments'], default: 'linspace' },
})

/** Options of {@link sampleFrames}. @interface */
export type SampleFramesOptions = ChangesOf<typeof SAMPLE.table>

/** Upper bound on `count`: far more than models use, and small enough for an array. */
const MOST_FRAMES = 1 << 20

/**
 * Return the indices of the frames that a model uses of a video with `frames` frames, in ascending order. Indices repeat if the
 * video has fewer than `count` frames.
 * @throws ConfigError for a video without frames, and for invalid options
 */
export function sampleFrames(frames: number, options: SampleFramesOptions = {}): number[] {
  const where = 'sampleFrames'
  requireWhole(where, 'frames', frames, 1)
  const { count, method } = SAMPLE.read(where, options)
  if (count > MOST_FRAMES) throw argumentError(where, 'count', `at most ${MOST_FRAMES}`, count)
  const last = frames - 1
  if (method === 'segments') {
    const segment = last / count
    return Array.from({ length: count }, (_, i) => Math.trunc(segment / 2 + halfToEven(segment * i)))
  }
  // As in numpy's linspace, the last value is the end itself, without rounding errors.
  const step = last / Math.max(1, count - 1)
  return Array.from({ length: count }, (_, i) => (i > 0 && i === count - 1 ? last : Math.trunc(i * step)))
}

type Recipe = ReturnType<typeof recipeOf>

function recipeOf(where: string, { mean, std, ...rest }: ValuesOf<typeof PREPROCESS.table>) {
  const statistics: NormalizeImageOptions = { mean, std }
  requireStatistics(where, statistics, 3)
  return { ...rest, statistics }
}

/** Most pixels of an image after resizing and before cropping: 400 MB of floats. */
const MOST_BETWEEN = 1 << 25

/** Refuse images that are too narrow: one of 30,000 × 1 pixels would be enlarged 224 times in both directions. */
function requireBreadth(where: string, input: ImageInput, height: number, width: number, size: number): void {
  const long = Math.floor((Math.max(height, width) / Math.min(height, width)) * size)
  if (long * size <= MOST_BETWEEN) return
  const file = typeof input === 'string' ? input : `${where}: the image`
  const what = `expected an image that has at most ${MOST_BETWEEN} pixels when its shorter side is resized to ${size}, got ${width} × ${height} pixels, so narrow that its longer side would become ${long}`
  throw new DataError(`${file}: ${what}`, { ...(typeof input === 'string' && { file }), width, height })
}

/** Resize, crop and normalize. @param planes [3, height, width] */
async function finished(planes: Tensor, { size, antialias, statistics }: Recipe): Promise<Tensor> {
  const resized = await resizeTensor(planes, size, { filter: 'bicubic', antialias })
  return normalizeImage(centerCrop(resized, size), statistics)
}

/** Process one input, or stack those of a list. Inputs are read one at a time, to have only one at full size in memory. */
async function eachOf(
  where: string,
  argument: string,
  inputs: ImageInput | readonly ImageInput[],
  make: (input: ImageInput) => Promise<Tensor>,
): Promise<Tensor> {
  const isList = (value: unknown): value is readonly ImageInput[] => Array.isArray(value)
  if (!isList(inputs)) return scope(async () => (await make(inputs)).contiguous())
  if (inputs.length === 0) throw argumentError(where, argument, 'an image, or several', inputs)
  return scope(async () => {
    const tensors: Tensor[] = []
    for (const input of inputs) tensors.push(await scope(() => make(input)))
    return ops.async.stack(tensors)
  })
}
