import { shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/**
 * A published config.json in camelCase. Defaults are those of `bigvgan_22khz_80band`. Further keys of a file (`samplingRate`, `hopSize`,
 * `fmax`, ...) are kept.
 */
export interface BigVGANConfig extends NetworkConfig {
  /** Bands of the mel spectrogram. Default 80. */
  numMels?: number
  /** Upsampling factor of each stage; their product is the samples per frame. Default [4, 4, 2, 2, 2, 2]. */
  upsampleRates?: number[]
  /** Default [8, 8, 4, 4, 4, 4]. */
  upsampleKernelSizes?: number[]
  /** Channels before the first stage; each stage halves them. Default 1536. */
  upsampleInitialChannel?: number
  /** Kind of the blocks: two convolutions for each dilation, or one. Default '1'. */
  resblock?: '1' | '2'
  /** Default [3, 7, 11]. */
  resblockKernelSizes?: number[]
  /** Dilations for each kernel size. Default [[1, 3, 5], [1, 3, 5], [1, 3, 5]]. */
  resblockDilationSizes?: number[][]
  /** Activation with one parameter for frequency and magnitude ('snake'), or two. Default 'snakebeta'. */
  activation?: 'snake' | 'snakebeta'
  /** Whether those parameters are logarithms. Default true. */
  snakeLogscale?: boolean
  /** Whether tanh bounds the samples; otherwise they are clamped to -1 … 1. Default true; version 2: false. */
  useTanhAtFinal?: boolean
  /** Default true; version 2: false. */
  useBiasAtFinal?: boolean
  /** Whether weights are stored as magnitude and direction, as in training, or folded. Default true. */
  weightNorm?: boolean
  /** In Hz. Default 22050. */
  samplingRate?: number
}

const first: BigVGANConfig = {
  numMels: 80,
  upsampleRates: [4, 4, 2, 2, 2, 2],
  upsampleKernelSizes: [8, 8, 4, 4, 4, 4],
  upsampleInitialChannel: 1536,
  resblock: '1',
  resblockKernelSizes: [3, 7, 11],
  resblockDilationSizes: [
    [1, 3, 5],
    [1, 3, 5],
    [1, 3, 5],
  ],
  activation: 'snakebeta',
  snakeLogscale: true,
  samplingRate: 22050,
}

/**
 * Options of `melSpectrogram` for the spectrograms of vocoders and Voiceboxes at 22.05 kHz with 80 bands. n · 256 samples give n frames.
 */
export const BIGVGAN_MEL = {
  sampleRate: 22_050,
  nFft: 1024,
  hopLength: 256,
  padding: 384,
  power: false,
  magnitudeEpsilon: 1e-9,
  fMax: 8000,
  log: 'ln',
  floor: 1e-5,
} as const

/** Published sizes, by the names of NVIDIA's repositories. */
export const bigVGANSizes: Record<string, BigVGANConfig> = {
  bigvgan_22khz_80band: first,
  bigvgan_v2_22khz_80band_256x: { ...first, useTanhAtFinal: false, useBiasAtFinal: false },
}

export const bigVGANKeys: ConfigKeys = {
  defaults: { ...first, useTanhAtFinal: true, useBiasAtFinal: true, weightNorm: true },
  // Settings of the spectrogram, and of training.
  unused: [
    ...['numFreq', 'nFft', 'hopSize', 'winSize', 'fmin', 'fmax', 'fmaxForLoss', 'normalizeVolume', 'segmentSize'],
    ...['numGpus', 'numWorkers', 'batchSize', 'learningRate', 'adamB1', 'adamB2', 'lrDecay', 'seed', 'distConfig'],
    ...['clipGradNorm', 'lambdaMelloss', 'useMultiscaleMelloss', 'useSpectralNorm', 'discriminatorChannelMult'],
    ...['resolutions', 'mpdReshapes', 'useMpd', 'useMrd', 'useCqtdInsteadOfMrd', 'cqtdFilters', 'cqtdMaxFilters'],
    ...['cqtdFiltersScale', 'cqtdDilations', 'cqtdHopLengths', 'cqtdNOctaves', 'cqtdBinsPerOctaves'],
    ...['cqtdNormalizeVolume'],
  ],
}

/** Derived sizes of a network. */
export interface Shape {
  rates: number[]
  rateKernels: number[]
  kernels: number[]
  dilations: number[][]
  pairs: boolean
}

const isList = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((one) => Number.isSafeInteger(one) && (one as number) > 0)

/** @throws ConfigError naming the key */
export function shapeOf(config: BigVGANConfig): Shape {
  const {
    upsampleRates: rates = first.upsampleRates,
    upsampleKernelSizes: rateKernels = first.upsampleKernelSizes,
    resblockKernelSizes: kernels = first.resblockKernelSizes,
    resblockDilationSizes: dilations = first.resblockDilationSizes,
  } = config
  const { resblock = '1' } = config as NetworkConfig // some files have a number
  const fail = (key: string, what: string): never => {
    throw new ConfigError(`BigVGAN.${key}: expected ${what}, got ${shown(config[key])}`, { key })
  }
  for (const [key, list] of Object.entries({ upsampleRates: rates, upsampleKernelSizes: rateKernels })) {
    if (!isList(list)) fail(key, 'a list of positive integers')
  }
  if (resblock !== '1' && resblock !== '2' && resblock !== 1 && resblock !== 2) fail('resblock', "'1' or '2'")
  if (!isList(kernels) || kernels.length === 0) fail('resblockKernelSizes', 'a list of positive integers')
  const lists = dilations as number[][]
  const fits = Array.isArray(lists) && lists.length === (kernels as number[]).length && lists.every(isList)
  if (!fits || lists.some((list) => list.length !== lists[0]?.length || list.length === 0)) {
    fail('resblockDilationSizes', 'a list of dilations for each of resblockKernelSizes, all of the same length')
  }
  return {
    rates: rates as number[],
    rateKernels: rateKernels as number[],
    kernels: kernels as number[],
    dilations: lists,
    pairs: String(resblock) === '1',
  }
}

/** Return the configuration for native code, with flat lists of numbers. */
export function nativeConfig(config: BigVGANConfig): NetworkConfig {
  const { dilations } = shapeOf(config)
  const { resblock = '1', resblockDilationSizes: _, ...rest } = config
  return { ...rest, resblock: String(resblock), resblockDilations: dilations.flat() }
}

/** Return the samples per frame of the mel spectrogram. */
export const samplesPerFrame = (config: BigVGANConfig): number =>
  shapeOf(config).rates.reduce((product, rate) => product * rate, 1)

const EDGE = 3 // half-width of the first and the last convolution, with kernel size 7
const ACTIVATION = 5 // half-width of the filters of an activation

/** Return the number of frames before and after a frame that its samples depend on. */
export function receptiveFrames(config: BigVGANConfig): number {
  const { rates, rateKernels, kernels, dilations, pairs } = shapeOf(config)
  const reach = kernels.map((kernel, i) => {
    const half = (kernel - 1) / 2
    const each = (dilation: number) => ACTIVATION + half * dilation + (pairs ? ACTIVATION + half : 0)
    return (dilations[i] as number[]).reduce((sum, dilation) => sum + each(dilation), 0)
  })
  let margin = EDGE + ACTIVATION
  for (let i = rates.length - 1; i >= 0; i -= 1) {
    const [rate, kernel] = [rates[i] as number, rateKernels[i] as number]
    margin = Math.ceil((margin + Math.max(...reach) + kernel) / rate)
  }
  return margin + EDGE
}
