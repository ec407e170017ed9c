import { misuse, requireNumber, requireOneOf, requireOptions, requireSignal, requireWhole } from '../base/check.js'
import { DataError } from '../base/errors.js'
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

export interface PreprocessOptions extends Partial<NormalizeImageOptions> {
  /** Of the result, a square. Default 224. */
  size?: number | undefined
  /**
   * Whether smaller pictures average over all that they leave out. Default true for pictures and depths, as torchvision does
   * from 0.17 on, and false for video. LanguageBind's published towers were trained without it.
   */
  antialias?: boolean | undefined
  /** Ends the reading. */
  signal?: AbortSignal | undefined
}

export interface PreprocessImageOptions extends PreprocessOptions {
  /**
   * Whose numbers these are. `'languagebind'` (default): the bytes become floats, which are resized; sharp edges leave [0, 1].
   * `'clip'`: the bytes are resized to bytes, as transformers' `CLIPImageProcessorPil` does, the slow `CLIPImageProcessor` before
   * transformers 5. The two differ by up to 0.3 behind the normalization, most on noise.
   */
  processor?: 'languagebind' | 'clip' | undefined
}

const OPTIONS: readonly (keyof PreprocessOptions)[] = ['size', 'antialias', 'mean', 'std', 'signal']

/**
 * Read pictures as a vision transformer takes them: float32 [3, size, size], or [count, 3, size, size] of a list. The shorter
 * side is resized to `size` bicubically, the middle is cut out, and each channel becomes (x / 255 - mean) / std, with CLIP's
 * numbers unless others are given.
 *
 * By default the numbers are those of LanguageBind's image and thermal towers (Zhu et al. 2023, https://arxiv.org/abs/2310.01852,
 * `processing_image.py`). `processor: 'clip'` gives those of transformers' `CLIPImageProcessorPil`, on Pillow's resampling before
 * version 13 (see {@link ResizeImageOptions}). transformers' `CLIPImageProcessor`, which resamples by torchvision, differs from
 * that by one step of a byte.
 *
 * ```ts
 * const pixelValues = await preprocessImage(['a.jpg', 'b.png']) // [2, 3, 224, 224]
 * ```
 *
 * @throws DataError naming the file for one that cannot be read, or is a strip too narrow to be cut to a square; ConfigError
 *   for options; ShapeError for tensors that are no pictures
 */
export async function preprocessImage(
  images: ImageInput | readonly ImageInput[],
  options: PreprocessImageOptions = {},
): Promise<Tensor> {
  const where = 'preprocessImage'
  const recipe = recipeOf(where, options, [...OPTIONS, 'processor'], true)
  const { processor = 'languagebind' } = options
  requireOneOf(where, 'processor', processor, ['languagebind', 'clip'])
  if (processor === 'clip' && !recipe.antialias) {
    throw misuse(where, 'antialias', "true with processor 'clip', which resizes as Pillow does", false)
  }
  return eachOf(where, 'images', images, async (image) => {
    const pixels = await openImage(where, image, {}, options.signal)
    requireBreadth(where, image, pixels.size(0), pixels.size(1), recipe.size)
    if (processor === 'clip') return clipPlanes(pixels, recipe)
    const planes: Tensor = await ops.async.div(pixels.permute([2, 0, 1]), 255)
    return finished(planes, recipe)
  })
}

/** pixels [height, width, 3] */
async function clipPlanes(pixels: Tensor, { size, statistics }: Recipe): Promise<Tensor> {
  const resized = await resizeImage(pixels, size)
  // Of an odd rest transformers leaves the smaller half above and on the left; torchvision rounds half to even.
  const [top, left] = [resized.size(0), resized.size(1)].map((side) => Math.floor((side - size) / 2)) as [
    number,
    number,
  ]
  const square = resized.narrow(0, top, size).narrow(1, left, size)
  return normalizeImage(await ops.async.div(square.permute([2, 0, 1]), 255), statistics)
}

export interface PreprocessDepthOptions extends PreprocessOptions {
  /** Metres that become 1. 0 takes each picture's own farthest point. Default 10. */
  maxDepth?: number | undefined
  /** Metres below which nothing is taken for nearer. Default 0.01. */
  minDepth?: number | undefined
  /** Steps of the file in a metre. Default 1000. */
  scale?: number | undefined
}

/**
 * A picture of distances, usually a 16-bit PNG of millimetres, as LanguageBind's depth tower reads it: float32
 * [3, size, size], or [count, 3, size, size] of a list. Steps become metres, bounded and divided by `maxDepth`; the three
 * channels are equal until they are normalised. Tensors are [height, width], in steps.
 *
 * Source: LanguageBind, `processing_depth.py`.
 * @throws DataError naming the file for one that cannot be read, or has colours; ConfigError for options
 */
export async function preprocessDepth(
  depths: ImageInput | readonly ImageInput[],
  options: PreprocessDepthOptions = {},
): Promise<Tensor> {
  const where = 'preprocessDepth'
  const recipe = recipeOf(where, options, [...OPTIONS, 'maxDepth', 'minDepth', 'scale'], true)
  const { maxDepth = 10, minDepth = 0.01, scale = 1000 } = options
  requireNumber(where, 'maxDepth', maxDepth, { least: 0, below: Number.POSITIVE_INFINITY })
  requireNumber(where, 'minDepth', minDepth, { least: 0, below: Number.POSITIVE_INFINITY })
  requireNumber(where, 'scale', scale, { least: Number.MIN_VALUE, below: Number.POSITIVE_INFINITY })
  return eachOf(where, 'depths', depths, async (depth) => {
    const steps = await openImage(where, depth, { mode: 'depth' }, options.signal)
    requireBreadth(where, depth, steps.size(0), steps.size(1), recipe.size)
    const metres: Tensor = (await ops.async.div(steps.float(), scale)).clampMin(minDepth)
    // Of a picture of nothing but zeros with minDepth 0 the farthest point is 0 too.
    const shares = maxDepth > 0 ? metres.clampMax(maxDepth).div(maxDepth) : metres.div(metres.max().clampMin(1e-30))
    const [height, width] = shares.shape as [number, number]
    return finished(shares.unsqueeze(0).expand([3, height, width]), recipe)
  })
}

export interface PreprocessVideoOptions extends PreprocessOptions {
  /**
   * Mirrors the clip. The original does so to every second clip, drawn anew each time, when it is asked for an answer too.
   * Default false.
   */
  flip?: boolean | undefined
}

const framesToPlanes = opAsync('voxtorch::frames_to_planes')

/**
 * Frames of a clip, uint8 [count, height, width, 3], as LanguageBind's video tower reads them: float32
 * [3, count, size, size]. RGB / 255, then (x - mean) / std, then the shorter side resized to `size` bilinearly without
 * antialiasing, then the middle cut out. Which frames: {@link sampleFrames}.
 *
 * Source: LanguageBind, `processing_video.py`, with pytorchvideo's ShortSideScale.
 * @throws ConfigError for options; ShapeError for what are no frames
 */
export async function preprocessVideo(frames: Tensor, options: PreprocessVideoOptions = {}): Promise<Tensor> {
  const where = 'preprocessVideo'
  const { size, antialias, statistics } = recipeOf(where, options, [...OPTIONS, 'flip'], false)
  const { flip = false } = options
  if (typeof flip !== 'boolean') throw misuse(where, 'flip', 'a boolean', flip)
  requireImage(where, frames)
  if (frames.ndim !== 4 || frames.size(3) !== 3)
    throw misuse(where, 'frames', 'uint8 [count, height, width, 3]', frames)
  options.signal?.throwIfAborted()
  const [height, width] = [frames.size(1), frames.size(2)]
  // pytorchvideo's way to the longer side, which may round otherwise than torchvision's.
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

export interface SampleFramesOptions {
  /** Default 8. */
  count?: number | undefined
  /**
   * `'linspace'` (default): from the first frame to the last, as LanguageBind. `'segments'`: the middles of equal parts, as
   * InternVL.
   */
  method?: 'linspace' | 'segments' | undefined
}

/** More than a network looks at in any clip, and few enough for a list. */
const MOST_FRAMES = 1 << 20

/**
 * Which frames of a clip a network looks at, in order: places of `frames` frames, from 0. Of a short clip some come twice.
 * @throws ConfigError for a clip without frames, and for options
 */
export function sampleFrames(frames: number, options: SampleFramesOptions = {}): number[] {
  const where = 'sampleFrames'
  requireWhole(where, 'frames', frames, 1)
  requireOptions(where, options, ['count', 'method'])
  const { count = 8, method = 'linspace' } = options
  requireWhole(where, 'count', count, 1)
  if (count > MOST_FRAMES) throw misuse(where, 'count', `at most ${MOST_FRAMES}`, count)
  if (method !== 'linspace' && method !== 'segments') throw misuse(where, 'method', "'linspace' or 'segments'", method)
  const last = frames - 1
  if (method === 'segments') {
    const segment = last / count
    return Array.from({ length: count }, (_, i) => Math.trunc(segment / 2 + halfToEven(segment * i)))
  }
  // numpy's linspace: the last place is the end itself, whatever the steps add up to.
  const step = last / Math.max(1, count - 1)
  return Array.from({ length: count }, (_, i) => (i > 0 && i === count - 1 ? last : Math.trunc(i * step)))
}

interface Recipe {
  size: number
  antialias: boolean
  statistics: NormalizeImageOptions
}

function recipeOf(where: string, options: PreprocessOptions, known: readonly string[], antialiased: boolean): Recipe {
  requireOptions(where, options, known)
  const { size = 224, antialias = antialiased, mean = CLIP_STATISTICS.mean, std = CLIP_STATISTICS.std } = options
  requireWhole(where, 'size', size, 1)
  if (typeof antialias !== 'boolean') throw misuse(where, 'antialias', 'a boolean', antialias)
  requireSignal(where, options.signal)
  requireStatistics(where, { mean, std }, 3)
  return { size, antialias, statistics: { mean, std } }
}

/** Pixels that a picture may have between being resized and being cut to its middle: 400 MB of floats. */
const MOST_BETWEEN = 1 << 25

/** A picture 30,000 pixels wide and one high would become 224 times as large in both directions. */
function requireBreadth(where: string, input: ImageInput, height: number, width: number, size: number): void {
  const long = Math.floor((Math.max(height, width) / Math.min(height, width)) * size)
  if (long * size <= MOST_BETWEEN) return
  const file = typeof input === 'string' ? input : `${where}: the picture`
  const what = `it is ${width} × ${height} pixels, so narrow that its longer side would become ${long} with the shorter at ${size}`
  throw new DataError(`${file}: ${what}`, { ...(typeof input === 'string' && { file }), width, height })
}

/** planes [3, height, width] */
async function finished(planes: Tensor, { size, antialias, statistics }: Recipe): Promise<Tensor> {
  const resized = await resizeTensor(planes, size, { filter: 'bicubic', antialias })
  return normalizeImage(centerCrop(resized, size), statistics)
}

/** One, or several as a batch; one at a time, so that only one is there in full size. */
async function eachOf(
  where: string,
  argument: string,
  inputs: ImageInput | readonly ImageInput[],
  make: (input: ImageInput) => Promise<Tensor>,
): Promise<Tensor> {
  const isList = (value: unknown): value is readonly ImageInput[] => Array.isArray(value)
  if (!isList(inputs)) return scope(async () => (await make(inputs)).contiguous())
  if (inputs.length === 0) throw misuse(where, argument, 'a picture, or several', inputs)
  return scope(async () => {
    const made: Tensor[] = []
    for (const input of inputs) made.push(await scope(() => make(input)))
    return ops.async.stack(made)
  })
}
