import { argumentError, requireWhole } from '../../base/check.js'
import { ConfigError, DataError } from '../../base/errors.js'
import { type ChangesOf, SIGNAL, settings, unchecked } from '../../base/settings.js'
import { cat, ops, scope, type Tensor } from '../../tensor/index.js'
import { type ImageInput, openImage } from '../../vision/image.js'
import { normalizeImage, type ResizeImageOptions, requireStatistics, resizeImage } from '../../vision/resize.js'
import {
  IMAGE_FILTERS,
  imageProcessorFailure,
  readImageProcessor,
  squareOf,
  statisticsOf,
} from '../clip/image-processor.js'
import type { ConfigKeys } from '../config-keys.js'

const SETTINGS = settings({
  /**
   * Folder of a model, whose preprocessor_config.json (or part of processor_config.json) of transformers' `SmolVLMImageProcessor` or
   * `Idefics3ImageProcessor` gives the defaults of the other options.
   */
  folder: { type: 'string' },
  /** Length of the longer side after the first resizing, in pixels, at most 4096. Default 1456. */
  size: { type: 'integer', min: 1, default: 1456 },
  /** Side of a tile in pixels. Default 364. */
  tileSize: { type: 'integer', min: 1, default: 364 },
  /** Whether to split an image into tiles, followed by the whole image as one tile. Default true. */
  splits: { type: 'boolean', default: true },
  /** Resampling filter. Default `'lanczos'`. */
  resample: { type: ['bicubic', 'bilinear', 'lanczos'], default: 'lanczos' },
  /** Mean of each channel. Default 0.5. */
  mean: { type: unchecked<readonly number[]>(), default: [0.5, 0.5, 0.5] },
  /** Standard deviation of each channel, not 0. Default 0.5. */
  std: { type: unchecked<readonly number[]>(), default: [0.5, 0.5, 0.5] },
  /** Version of Pillow whose resampling is used, as in `resizeImage`. Default 12. */
  pillow: { type: unchecked<12 | 13>(), default: 12 },
  /** Aborts reading. */
  signal: { type: SIGNAL },
})

/** Options of {@link smolVLMImages}. @interface */
export type SmolVLMImageOptions = ChangesOf<typeof SETTINGS.table>

/** Rows and columns of an image's tiles, without the whole image; 0 and 0 for an image of one tile. */
export type SmolVLMGrid = readonly [rows: number, columns: number]

export interface SmolVLMTiles {
  /** float32 [tiles, 3, tileSize, tileSize]: of each image its tiles row by row, and the whole image. */
  pixelValues: Tensor
  /** Grid of each image, for `prompt` of the model. */
  grids: SmolVLMGrid[]
}

/** Longest side after the first resizing, as in transformers. */
const LONGEST = 4096
/** Most tiles along a side; published models have 4 or 5. */
const MOST_TILES = 32

/**
 * Read images and convert them to tiles of SmolVLM or Idefics3: resize the longer side to `size`, both sides up to multiples of
 * `tileSize`, cut tiles, and append the whole image as one tile. An image of one tile is not split. The values are those of
 * transformers' `SmolVLMImageProcessorPil` and `Idefics3ImageProcessorPil`, without images of padding.
 *
 * ```ts
 * const { pixelValues, grids } = await smolVLMImages('a.jpg', { folder: './SmolVLM-256M-Instruct' })
 * ```
 * @throws DataError naming the file for an unreadable image; ConfigError for invalid options, and with file and key for
 *   preprocessing of a folder that this library does not support
 */
export async function smolVLMImages(
  images: ImageInput | readonly ImageInput[],
  options: SmolVLMImageOptions = {},
): Promise<SmolVLMTiles> {
  const where = 'smolVLMImages'
  const { folder } = SETTINGS.read(where, options)
  const defaults = folder === undefined ? {} : await smolVLMImageOptions(folder)
  const all = SETTINGS.read(where, { ...defaults, ...options })
  const { size, tileSize, splits, resample: filter, pillow, mean, std, signal } = all
  requireStatistics(where, { mean, std }, 3)
  if (Math.min(size, LONGEST) > MOST_TILES * tileSize) {
    throw argumentError(where, 'size', `at most ${MOST_TILES} times tileSize`, size)
  }
  const isList = (value: unknown): value is readonly ImageInput[] => Array.isArray(value)
  const list = isList(images) ? images : [images]
  if (list.length === 0) throw argumentError(where, 'images', 'an image, or several', images)
  const grids: SmolVLMGrid[] = []
  const pixelValues = await scope(async () => {
    const parts: Tensor[] = []
    for (const image of list) {
      const { tiles, grid } = await scope(async () => {
        const pixels = await openImage(where, image, {}, signal)
        return tilesOf(pixels, { size, tileSize, splits, resizing: { filter, pillow } })
      })
      grids.push(grid)
      const planes: Tensor = await ops.async.div(tiles.permute([0, 3, 1, 2]), 255)
      parts.push(await normalizeImage(planes, { mean, std }))
    }
    return cat(parts, 0)
  })
  return { pixelValues, grids }
}

interface Splitting {
  size: number
  tileSize: number
  splits: boolean
  resizing: ResizeImageOptions
}

/** @returns tiles uint8 [count, tileSize, tileSize, 3] */
async function tilesOf(pixels: Tensor, { size, tileSize, splits, resizing }: Splitting) {
  const first = await resizeImage(pixels, longerSide(pixels.size(0), pixels.size(1), size), resizing)
  const square = [tileSize, tileSize] as const
  if (!splits) return { tiles: (await resizeImage(first, square, resizing)).unsqueeze(0), grid: [0, 0] as const }
  const multiples = roundedUp(first.size(0), first.size(1), tileSize)
  const whole = await resizeImage(first, multiples, resizing)
  const [rows, columns] = [multiples[0] / tileSize, multiples[1] / tileSize]
  if (rows === 1 && columns === 1) return { tiles: whole.unsqueeze(0), grid: [0, 0] as const }
  const cut = whole
    .reshape([rows, tileSize, columns, tileSize, 3])
    .permute([0, 2, 1, 3, 4])
    .reshape([rows * columns, tileSize, tileSize, 3])
  const last = (await resizeImage(whole, square, resizing)).unsqueeze(0)
  return { tiles: cat([cut, last], 0), grid: [rows, columns] as const }
}

type Sides = readonly [height: number, width: number]

/** Return the sides after the longer one became `size`; transformers makes the other one even, and both at most 4096. */
function longerSide(height: number, width: number, size: number): Sides {
  const even = (length: number) => Math.max(1, length + (length % 2))
  const ratio = width / height
  const [down, across] =
    width >= height ? [even(Math.trunc(size / ratio)), size] : [size, even(Math.trunc(size * ratio))]
  if (across >= down && across > LONGEST) return [Math.max(1, Math.trunc(LONGEST / (across / down))), LONGEST]
  if (down > across && down > LONGEST) return [LONGEST, Math.max(1, Math.trunc(LONGEST * (across / down)))]
  return [down, across]
}

/** Return the sides as multiples of a tile's: the longer one first, then the other in proportion. */
function roundedUp(height: number, width: number, tile: number): Sides {
  const up = (length: number) => Math.ceil(length / tile) * tile
  const ratio = width / height
  if (width >= height) return [up(Math.trunc(up(width) / ratio)), up(width)]
  return [up(height), up(Math.trunc(up(height) * ratio))]
}

const imageKeys: ConfigKeys = {
  defaults: {
    size: { longest_edge: 1456 },
    maxImageSize: { longest_edge: 364 },
    doImageSplitting: true,
    doNormalize: true,
    imageMean: [0.5, 0.5, 0.5],
    imageStd: [0.5, 0.5, 0.5],
    rescaleFactor: 1 / 255,
    resample: 1,
  },
  only: {
    doResize: [true],
    doRescale: [true],
    doConvertRgb: [true],
    doCenterCrop: [false],
    dataFormat: ['channels_first'],
  },
  // Padding with empty images, batching, class names, and settings of videos.
  unused: [
    ...[
      'doPad',
      'padSize',
      'cropSize',
      'device',
      'disableGrouping',
      'returnTensors',
      'returnRowColInfo',
      'defaultToSquare',
    ],
    ...['inputDataFormat', 'imageSeqLength', 'imageProcessorType', 'featureExtractorType', 'processorClass'],
    'videoSampling',
  ],
}

/** Return a folder's image preprocessing as options of {@link smolVLMImages}. Unknown keys are reported once by name. */
export async function smolVLMImageOptions(directory: string): Promise<SmolVLMImageOptions> {
  const { file, found } = await readImageProcessor('smolVLMImageOptions', directory, imageKeys)
  const { resample, doImageSplitting } = found
  const filter = typeof resample === 'number' ? IMAGE_FILTERS[resample] : undefined
  if (filter === undefined) {
    throw imageProcessorFailure(file, 'resample', '1 (Lanczos), 2 (bilinear) or 3 (bicubic)', resample)
  }
  if (typeof doImageSplitting !== 'boolean') {
    throw imageProcessorFailure(file, 'doImageSplitting', 'true or false', doImageSplitting)
  }
  const side = (key: string) => squareOf(file, found, key, ['longest_edge'], 'a longest edge')
  const [size, tileSize] = [side('size'), side('maxImageSize')]
  return { size, tileSize, splits: doImageSplitting, resample: filter, ...statisticsOf(file, found) }
}

const [IMAGE, EDGE, WHOLE] = ['<image>', '<fake_token_around_image>', '<global-img>']
/** Most image tokens of a text: far above the number of positions of these networks. */
const MOST_TOKENS = 1 << 20

/** Return a text with each `<image>` expanded to the tokens of its tiles. */
export function smolVLMPrompt(text: string, grids: readonly SmolVLMGrid[], tileTokens: number): string {
  const where = 'SmolVLM.prompt'
  if (typeof text !== 'string') throw argumentError(where, 'text', 'a string', text)
  if (!Array.isArray(grids)) throw argumentError(where, 'grids', 'a list of [rows, columns]', grids)
  let tokens = 0
  for (const grid of grids as unknown[]) {
    if (!Array.isArray(grid) || grid.length !== 2)
      throw argumentError(where, 'grids', 'a list of [rows, columns]', grid)
    for (const count of grid) requireWhole(where, 'grids', count, 0)
    const [rows, columns] = grid as [number, number]
    if ((rows === 0) !== (columns === 0)) throw argumentError(where, 'grids', 'both above 0, or both 0', grid)
    tokens += (rows * columns + 1) * (tileTokens + 2)
  }
  if (tokens > MOST_TOKENS) {
    throw new ConfigError(`${where}: expected at most ${MOST_TOKENS} image tokens, got ${tokens}. Use fewer tiles.`, {
      tokens,
    })
  }
  const parts = text.split(IMAGE)
  if (parts.length - 1 !== grids.length) {
    throw new DataError(
      `${where}: expected ${parts.length - 1} grids for ${parts.length - 1} times ${IMAGE} in the text, got ${grids.length}.`,
      { markers: parts.length - 1, grids: grids.length },
    )
  }
  return parts.map((part, i) => (i === 0 ? part : imageText(grids[i - 1] as SmolVLMGrid, tileTokens) + part)).join('')
}

function imageText([rows, columns]: SmolVLMGrid, tileTokens: number): string {
  const tile = IMAGE.repeat(tileTokens)
  const whole = `${EDGE}${WHOLE}${tile}${EDGE}`
  if (rows === 0) return whole
  const lines = Array.from(
    { length: rows },
    (_, row) =>
      `${Array.from({ length: columns }, (_, column) => `${EDGE}<row_${row + 1}_col_${column + 1}>${tile}`).join('')}\n`,
  )
  return `${lines.join('')}\n${whole}`
}
