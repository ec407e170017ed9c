import type { PreprocessImageOptions } from '../../vision/preprocess.js'
import {
  IMAGE_FILTERS,
  imageProcessorFailure,
  readImageProcessor,
  squareOf,
  statisticsOf,
} from '../clip/image-processor.js'
import type { ConfigKeys } from '../config-keys.js'

const SIDE = 224

/** Keys of transformers' SiglipImageProcessor, with the values that `preprocessImage` supports with `processor: 'siglip'`. */
const siglipImageKeys: ConfigKeys = {
  defaults: {
    size: { height: SIDE, width: SIDE },
    doNormalize: true,
    imageMean: [0.5, 0.5, 0.5],
    imageStd: [0.5, 0.5, 0.5],
    rescaleFactor: 1 / 255,
    resample: 3,
  },
  only: {
    doResize: [true],
    doCenterCrop: [false],
    doRescale: [true],
    doConvertRgb: [true],
    doPad: [false],
    defaultToSquare: [false],
    dataFormat: ['channels_first'],
  },
  // Device, batching, format of inputs and outputs, and class names. cropSize and padSize have an effect only with their switches.
  unused: [
    ...['device', 'disableGrouping', 'returnTensors', 'inputDataFormat', 'imageSeqLength', 'cropSize', 'padSize'],
    ...['imageProcessorType', 'featureExtractorType', 'processorClass'],
  ],
}

/**
 * Return a folder's image preprocessing as options of `preprocessImage`, from preprocessor_config.json of transformers'
 * `SiglipImageProcessor`, or its part of processor_config.json. Unknown keys are reported once by name.
 *
 * ```ts
 * const pixelValues = await preprocessImage('a.jpg', await siglipImageOptions('./siglip-base-patch16-224'))
 * ```
 * @throws ConfigError with file and key for preprocessing that this library does not support, and for a folder without
 * either file; DataError for a file that is not JSON
 */
export async function siglipImageOptions(directory: string): Promise<PreprocessImageOptions> {
  const { file, found } = await readImageProcessor('siglipImageOptions', directory, siglipImageKeys)
  const { resample } = found
  const filter = typeof resample === 'number' ? IMAGE_FILTERS[resample] : undefined
  if (filter === undefined) {
    throw imageProcessorFailure(file, 'resample', '1 (Lanczos), 2 (bilinear) or 3 (bicubic)', resample)
  }
  const size = squareOf(file, found, 'size', ['height', 'width'], 'a square')
  return { processor: 'siglip', size, resample: filter, ...statisticsOf(file, found) }
}
