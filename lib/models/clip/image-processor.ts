import { requireString, shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { toCamel } from '../../base/words.js'
import { CLIP_STATISTICS } from '../../vision/index.js'
import type { PreprocessImageOptions } from '../../vision/preprocess.js'
import { type ConfigKeys, completedConfig, partedConfig } from '../config-keys.js'
import { settingsIn } from '../feature-extractor.js'
import type { NetworkConfig } from '../network.js'

const DEFAULT_SIZE = 224

/** Keys of transformers' CLIPImageProcessor, with the values that `preprocessImage` supports with `processor: 'clip'`. */
export const imageProcessorKeys: ConfigKeys = {
  defaults: {
    size: { shortest_edge: DEFAULT_SIZE },
    cropSize: { height: DEFAULT_SIZE, width: DEFAULT_SIZE },
    doNormalize: true,
    imageMean: CLIP_STATISTICS.mean,
    imageStd: CLIP_STATISTICS.std,
    rescaleFactor: 1 / 255,
  },
  only: {
    doResize: [true],
    doCenterCrop: [true],
    doRescale: [true],
    doConvertRgb: [true],
    doPad: [false],
    defaultToSquare: [false],
    useSquareSize: [false],
    // Pillow's code of bicubic resampling.
    resample: [3],
    dataFormat: ['channels_first'],
  },
  // Device, batching, format of inputs and outputs, and class names. padSize has an effect only with doPad.
  unused: [
    ...['device', 'disableGrouping', 'returnTensors', 'inputDataFormat', 'imageSeqLength', 'padSize'],
    ...['imageProcessorType', 'featureExtractorType', 'processorClass'],
  ],
}

/** Resampling filters by Pillow's codes. */
export const IMAGE_FILTERS: Readonly<Record<number, PreprocessImageOptions['resample']>> = {
  1: 'lanczos',
  2: 'bilinear',
  3: 'bicubic',
}

/** Return an error about a key of an image processor's file. */
export const imageProcessorFailure = (file: string, key: string, expected: string, value: unknown): ConfigError =>
  new ConfigError(`${file}: expected ${key} ${expected}, got ${shown(value)}. Other values are not supported.`, {
    key,
    value,
  })

/** Read the image processor of a folder, with all of the keys. */
export async function readImageProcessor(
  where: string,
  directory: string,
  keys: ConfigKeys,
): Promise<{ file: string; found: NetworkConfig }> {
  requireString(where, 'directory', directory)
  const written = await settingsIn(directory, 'image_processor')
  if (written === undefined) {
    throw new ConfigError(
      `${where}: expected a folder with preprocessor_config.json, got '${directory}'. Take the folder that transformers saved.`,
      { argument: 'directory', directory },
    )
  }
  const { file, settings } = written
  return { file, found: completedConfig(file, keys, partedConfig(file, keys, toCamel(settings)).known) }
}

/** Return the side that a key names: a number, or an object with only these names and equal values. */
export function squareOf(
  file: string,
  found: NetworkConfig,
  key: string,
  names: readonly string[],
  expected: string,
): number {
  const value = found[key]
  const parts = (typeof value === 'object' && value !== null ? value : { all: value }) as Record<string, unknown>
  const values = Object.values(parts)
  const isKnown = Object.keys(parts).every((name) => name === 'all' || names.includes(name))
  const [side] = values
  const isSide = typeof side === 'number' && Number.isInteger(side) && side > 0 && values.every((one) => one === side)
  if (!isKnown || !isSide) throw imageProcessorFailure(file, key, expected, value)
  return side
}

/** Return the normalization, after a division by 255. */
export function statisticsOf(file: string, found: NetworkConfig): Pick<PreprocessImageOptions, 'mean' | 'std'> {
  const { rescaleFactor, doNormalize, imageMean, imageStd } = found
  if (typeof rescaleFactor !== 'number' || Math.abs(rescaleFactor * 255 - 1) > 1e-6) {
    throw imageProcessorFailure(file, 'rescaleFactor', '1 / 255', rescaleFactor)
  }
  if (typeof doNormalize !== 'boolean') throw imageProcessorFailure(file, 'doNormalize', 'true or false', doNormalize)
  const statistics = doNormalize ? { mean: imageMean, std: imageStd } : { mean: [0, 0, 0], std: [1, 1, 1] }
  return statistics as Pick<PreprocessImageOptions, 'mean' | 'std'>
}

/**
 * Return a folder's image preprocessing as options of `preprocessImage`, from preprocessor_config.json of transformers'
 * `CLIPImageProcessor`, or its part of processor_config.json. Unknown keys are reported once by name.
 *
 * ```ts
 * const pixelValues = await preprocessImage('a.jpg', await clipImageOptions('./clip-vit-base-patch32'))
 * ```
 * @throws ConfigError with file and key for preprocessing that this library does not support, and for a folder without
 * either file; DataError for a file that is not JSON
 */
export async function clipImageOptions(directory: string): Promise<PreprocessImageOptions> {
  const { file, found } = await readImageProcessor('clipImageOptions', directory, imageProcessorKeys)
  const size = squareOf(file, found, 'size', ['shortest_edge'], 'a shortest edge')
  const crop = squareOf(file, found, 'cropSize', ['height', 'width'], 'a square')
  if (crop !== size) throw imageProcessorFailure(file, 'cropSize', `${size} as size`, crop)
  return { processor: 'clip', size, ...statisticsOf(file, found) }
}
