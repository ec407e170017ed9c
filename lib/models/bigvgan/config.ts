import { ConfigError } from '../../base/errors.js'
import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/**
 * A published config.json in camelCase; what is left out has the value in brackets, that of `bigvgan_22khz_80band`. What a
 * file says besides (`samplingRate`, `hopSize`, `fmax`, ...) is kept.
 */
export interface BigVGANConfig extends NetworkConfig {
  /** Bands of the mel spectrogram [80]. */
  numMels?: number
  /** How many samples each stage makes of one; their product is a frame's samples [4, 4, 2, 2, 2, 2]. */
  upsampleRates?: number[]
  /** [8, 8, 4, 4, 4, 4] */
  upsampleKernelSizes?: number[]
  /** Channels before the first stage; each stage halves them [1536]. */
  upsampleInitialChannel?: number
  /** Kind of the blocks: two convolutions for each dilation, or one ['1']. */
  resblock?: '1' | '2'
  /** [3, 7, 11] */
  resblockKernelSizes?: number[]
  /** For each kernel size its dilations [[1, 3, 5], [1, 3, 5], [1, 3, 5]]. */
  resblockDilationSizes?: number[][]
  /** Whether frequency and magnitude of the activations are one parameter or two ['snakebeta']. */
  activation?: 'snake' | 'snakebeta'
  /** Whether those parameters are logarithms [true]. */
  snakeLogscale?: boolean
  /** Whether samples are bounded by tanh, else they are cut at -1 and 1 [true; version 2: false]. */
  useTanhAtFinal?: boolean
  /** [true; version 2: false] */
  useBiasAtFinal?: boolean
  /** Whether weights are a magnitude and a direction, as in training, or folded into one [true]. */
  weightNorm?: boolean
  /** In Hz [22050]. */
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
 * The spectrograms that vocoders of 22.05 kHz and 80 bands read, and that Voiceboxes are trained on: what `melSpectrogram` is given
 * beside samples and rate. With n · 256 samples they have n frames.
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

/** By the names of NVIDIA's repositories. */
export const bigVGANSizes: Record<string, BigVGANConfig> = {
  bigvgan_22khz_80band: first,
  bigvgan_v2_22khz_80band_256x: { ...first, useTanhAtFinal: false, useBiasAtFinal: false },
}

export const bigVGANKeys: ConfigKeys = {
  defaults: { ...first, useTanhAtFinal: true, useBiasAtFinal: true, weightNorm: true },
  // Of the spectrogram that it reads, and of its training.
  unused: [
    ...['numFreq', 'nFft', 'hopSize', 'winSize', 'fmin', 'fmax', 'fmaxForLoss', 'normalizeVolume', 'segmentSize'],
    ...['numGpus', 'numWorkers', 'batchSize', 'learningRate', 'adamB1', 'adamB2', 'lrDecay', 'seed', 'distConfig'],
    ...['clipGradNorm', 'lambdaMelloss', 'useMultiscaleMelloss', 'useSpectralNorm', 'discriminatorChannelMult'],
    ...['resolutions', 'mpdReshapes', 'useMpd', 'useMrd', 'useCqtdInsteadOfMrd', 'cqtdFilters', 'cqtdMaxFilters'],
    ...['cqtdFiltersScale', 'cqtdDilations', 'cqtdHopLengths', 'cqtdNOctaves', 'cqtdBinsPerOctaves'],
    ...['cqtdNormalizeVolume'],
  ],
}

/** With what its shape follows from filled in. */
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
    throw new ConfigError(`BigVGAN: ${key} must be ${what}`, { key })
  }
  for (const [key, list] of Object.entries({ upsampleRates: rates, upsampleKernelSizes: rateKernels })) {
    if (!isList(list)) fail(key, 'a list of positive whole numbers')
  }
  if (resblock !== '1' && resblock !== '2' && resblock !== 1 && resblock !== 2) fail('resblock', "'1' or '2'")
  if (!isList(kernels) || kernels.length === 0) fail('resblockKernelSizes', 'a list of positive whole numbers')
  const lists = dilations as number[][]
  const fits = Array.isArray(lists) && lists.length === (kernels as number[]).length && lists.every(isList)
  if (!fits || lists.some((list) => list.length !== lists[0]?.length || list.length === 0)) {
    fail('resblockDilationSizes', 'a list of dilations for each of resblockKernelSizes, all of one length')
  }
  return {
    rates: rates as number[],
    rateKernels: rateKernels as number[],
    kernels: kernels as number[],
    dilations: lists,
    pairs: String(resblock) === '1',
  }
}

/** What native code reads: lists of numbers, not of lists. */
export function nativeConfig(config: BigVGANConfig): NetworkConfig {
  const { dilations } = shapeOf(config)
  const { resblock = '1', resblockDilationSizes: _, ...rest } = config
  return { ...rest, resblock: String(resblock), resblockDilations: dilations.flat() }
}

/** Samples that one frame of the mel spectrogram becomes. */
export const samplesPerFrame = (config: BigVGANConfig): number =>
  shapeOf(config).rates.reduce((product, rate) => product * rate, 1)

const EDGE = 3 // of the first and the last convolution, whose kernels are 7
const ACTIVATION = 5 // of the filters of an activation

/** How many frames before and behind it a frame's samples depend on. */
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
