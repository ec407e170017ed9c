import { shown } from '../../base/arguments.js'
import { ConfigError } from '../../base/errors.js'
import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'
import { type PlainRopeConfig, plainRopeKeys, savedPlainRope, withPlainRope } from '../rope.js'

/** Configuration of {@link Mimi}: keys of transformers' MimiConfig, in camelCase, with its defaults, which are those of `kyutai/mimi`. */
export interface MimiConfig extends PlainRopeConfig {
  /** In Hz. Default 24000. */
  samplingRate?: number
  /** Frames of codes per second. Default: `samplingRate` divided by the samples of a frame, 12.5. */
  frameRate?: number | null
  /** 1 or 2. */
  audioChannels?: number
  /** Size of the latents and of the transformers. */
  hiddenSize?: number
  /** Channels of the first convolution; each downsampling doubles them. */
  numFilters?: number
  numResidualLayers?: number
  /** Strides of the decoder's convolutions; the encoder has them in reverse order. Default [8, 6, 5, 4]. */
  upsamplingRatios?: number[]
  kernelSize?: number
  lastKernelSize?: number
  residualKernelSize?: number
  dilationGrowthRate?: number
  /** `'constant'` (zeros) or `'replicate'`: what comes before the first sample. */
  padMode?: 'constant' | 'replicate'
  /** Factor by which residual blocks have fewer channels inside. */
  compress?: number
  useConvShortcut?: boolean
  /** Codes of each quantizer, a power of 2. Default 2048. */
  codebookSize?: number
  /** Must equal `vectorQuantizationHiddenDimension`. */
  codebookDim?: number
  vectorQuantizationHiddenDimension?: number
  /** Number of quantizers, 32; encoding and decoding may use the first ones only. */
  numQuantizers?: number
  /** Number of semantic quantizers, which come first. Default 1. */
  numSemanticQuantizers?: number
  upsampleGroups?: number
  numHiddenLayers?: number
  intermediateSize?: number
  numAttentionHeads?: number
  numKeyValueHeads?: number
  headDim?: number
  hiddenAct?: string
  /** Frames that a frame of the transformers attends to, its own included; there are `latentStride` of them per frame of codes. */
  slidingWindow?: number
  maxPositionEmbeddings?: number
  normEps?: number
  initializerRange?: number
  layerScaleInitialScale?: number
  attentionDropout?: number
  attentionBias?: boolean
}

const DEFAULTS: MimiConfig = {
  samplingRate: 24000,
  frameRate: null,
  audioChannels: 1,
  hiddenSize: 512,
  numFilters: 64,
  numResidualLayers: 1,
  upsamplingRatios: [8, 6, 5, 4],
  kernelSize: 7,
  lastKernelSize: 3,
  residualKernelSize: 3,
  dilationGrowthRate: 2,
  padMode: 'constant',
  compress: 2,
  useConvShortcut: false,
  codebookSize: 2048,
  codebookDim: 256,
  vectorQuantizationHiddenDimension: 256,
  numQuantizers: 32,
  numSemanticQuantizers: 1,
  upsampleGroups: 512,
  numHiddenLayers: 8,
  intermediateSize: 2048,
  numAttentionHeads: 8,
  numKeyValueHeads: 8,
  hiddenAct: 'gelu',
  slidingWindow: 250,
  maxPositionEmbeddings: 8000,
  ropeTheta: 10000,
  ropeParameters: null,
  normEps: 1e-5,
  initializerRange: 0.02,
  layerScaleInitialScale: 0.01,
  attentionDropout: 0,
  attentionBias: false,
}

export const mimiKeys: ConfigKeys = {
  defaults: ({ hiddenSize = DEFAULTS.hiddenSize, numAttentionHeads: heads = DEFAULTS.numAttentionHeads }) => ({
    ...DEFAULTS,
    // Sizes that do not match are refused when the network is built.
    headDim: typeof hiddenSize === 'number' && typeof heads === 'number' ? Math.floor(hiddenSize / heads) : null,
  }),
  nullable: ['frameRate', 'ropeParameters'],
  // A stream needs causal convolutions, and transposed ones that are trimmed on the right. It is opened by `encoderStream`.
  only: { useCausalConv: [true], trimRightRatio: [1], useStreaming: [false], ropeScaling: [null] },
  parts: { ropeParameters: plainRopeKeys },
  // Older files name a normalization that has been folded.
  unused: ['normalize', 'norm', 'encoderConfig', 'decoderConfig'],
}

/** Return the number of samples that the convolutions make one frame of. */
export const hopLength = ({ upsamplingRatios = [] }: MimiConfig): number =>
  upsamplingRatios.reduce((product, ratio) => product * ratio, 1)

/** Return the number of frames of the transformers per frame of codes. */
export function latentStride(config: MimiConfig): number {
  const { samplingRate = 24000, frameRate } = config
  const inner = Math.ceil(samplingRate / hopLength(config))
  return Math.trunc(inner / (frameRate ?? samplingRate / (2 * hopLength(config))))
}

/** Return the number of samples of a frame of codes. */
export const frameSize = (config: MimiConfig): number => hopLength(config) * latentStride(config)

/** Check what native code does not see, and move the values of `ropeParameters`. */
export function completedMimi(given: MimiConfig): MimiConfig {
  // transformers 5 saves a rate that is not the derived one as `_frame_rate`.
  const { FrameRate: saved, ...rest } = given
  const config: MimiConfig = { ...rest, frameRate: rest.frameRate ?? (saved as number | null | undefined) ?? null }
  const fail = (key: string, expected: string, value: unknown): never => {
    throw new ConfigError(`Mimi: ${key}: expected ${expected}, got ${shown(value)}. Correct the configuration.`, {
      key,
      value,
    })
  }
  const { samplingRate, frameRate, upsamplingRatios: ratios } = config
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) > 0
  if (!isCount(samplingRate)) fail('samplingRate', 'a positive integer', samplingRate)
  if (!Array.isArray(ratios) || ratios.length === 0 || !ratios.every(isCount))
    fail('upsamplingRatios', 'a list of positive integers', ratios)
  if (frameRate != null && !(typeof frameRate === 'number' && frameRate > 0))
    fail('frameRate', 'a positive number', frameRate)
  if (!(latentStride(config) >= 2))
    fail('frameRate', `at most half of ${Math.ceil((samplingRate as number) / hopLength(config))}`, frameRate)
  return withPlainRope(config)
}

export const nativeMimi = (config: MimiConfig): NetworkConfig => ({ ...config, latentStride: latentStride(config) })

export function savedMimi(config: MimiConfig): NetworkConfig {
  const { frameRate, ...rest } = savedPlainRope(config) as MimiConfig
  return { ...rest, ...(frameRate != null && { frameRate }) }
}

export const mimiSizes: Record<string, MimiConfig> = { mimi: {} }
