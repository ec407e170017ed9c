import { requireObject, shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { toCamel, toSnake } from '../../base/words.js'
import type { ConfigKeys } from '../config-keys.js'
import type { NetworkConfig } from '../network.js'

/** Keys of a published text_config, in camelCase. Defaults are those of transformers' CLIPTextConfig. */
export interface ClipTextConfig extends NetworkConfig {
  vocabSize?: number
  hiddenSize?: number
  intermediateSize?: number
  projectionDim?: number
  numHiddenLayers?: number
  numAttentionHeads?: number
  /** Maximum number of tokens of a text, including start and end. Default 77. */
  maxPositionEmbeddings?: number
  /** 'quick_gelu' (default), 'gelu', … */
  hiddenAct?: string
  layerNormEps?: number
  attentionDropout?: number
  initializerFactor?: number
  /** Token whose first occurrence gives the text's state; with 2, as in older files, the token with the highest id. */
  eosTokenId?: number
}

/** Keys of a published vision_config, in camelCase. Defaults are those of transformers' CLIPVisionConfig. */
export interface ClipVisionConfig extends NetworkConfig {
  hiddenSize?: number
  intermediateSize?: number
  projectionDim?: number
  numHiddenLayers?: number
  numAttentionHeads?: number
  numChannels?: number
  /** Size in pixels of both sides, or height and width. Default 224. */
  imageSize?: number | [height: number, width: number]
  patchSize?: number
  hiddenAct?: string
  layerNormEps?: number
  attentionDropout?: number
  initializerFactor?: number
  initializerRange?: number
  /** Fraction of the patches that training drops, from 0 (default) to 1. */
  forcePatchDropout?: number
  /** Whether each layer has temporal attention, over the same patch of all frames, before spatial attention. Default false. */
  addTimeAttn?: boolean
  /** Number of frames for `addTimeAttn`. Default 1. */
  numFrames?: number
  /** With `addTimeAttn`: 'vl_new' has 3D patches and a class token per frame; 'vl' (default) has neither. */
  clipType?: string
  /** Frames per 3D patch: 1. */
  tubeSize?: number
  /** With `addTimeAttn`: a second feed-forward layer, after the temporal attention. Default false. */
  temporalMlp?: boolean
  /** Bands and frames of a spectrogram: if both are set, they replace `imageSize` as height and width. */
  numMelBins?: number
  targetLength?: number
}

/** Configuration of both encoders. */
export interface ClipConfig extends NetworkConfig {
  textConfig?: ClipTextConfig
  visionConfig?: ClipVisionConfig
  /** Size of the shared embedding space. Default 512. */
  projectionDim?: number
  /** Logarithm of the initial temperature. Default ln(1 / 0.07). */
  logitScaleInitValue?: number
}

/** Keys of published files that CLIP does not use. */
const only = { dropout: [0] }

export const clipTextKeys: ConfigKeys = {
  defaults: {
    vocabSize: 49408,
    hiddenSize: 512,
    intermediateSize: 2048,
    projectionDim: 512,
    numHiddenLayers: 12,
    numAttentionHeads: 8,
    maxPositionEmbeddings: 77,
    hiddenAct: 'quick_gelu',
    layerNormEps: 1e-5,
    attentionDropout: 0,
    initializerFactor: 1,
    padTokenId: 1,
    bosTokenId: 49406,
    eosTokenId: 49407,
  },
  only,
  // As in transformers, only the factor sets the scale of initial values.
  unused: ['initializerRange'],
}

export const clipVisionKeys: ConfigKeys = {
  defaults: {
    hiddenSize: 768,
    intermediateSize: 3072,
    projectionDim: 512,
    numHiddenLayers: 12,
    numAttentionHeads: 12,
    numChannels: 3,
    imageSize: 224,
    patchSize: 32,
    hiddenAct: 'quick_gelu',
    layerNormEps: 1e-5,
    attentionDropout: 0,
    initializerFactor: 1,
    initializerRange: 0.02,
    forcePatchDropout: 0,
    addTimeAttn: false,
    numFrames: 1,
    clipType: 'vl',
    tubeSize: 1,
    temporalMlp: false,
    numMelBins: 0,
    targetLength: 0,
  },
  only,
  // Keys of LanguageBind's files about adapters and preprocessing.
  unused: [
    ...['loraR', 'loraAlpha', 'loraDropout', 'audioSampleRate', 'audioMean', 'audioStd', 'maxDepth'],
    ...['videoDecodeBackend'],
  ],
}

export const clipKeys: ConfigKeys = {
  defaults: { textConfig: {}, visionConfig: {}, projectionDim: 512, logitScaleInitValue: 2.6592 },
  parts: { textConfig: clipTextKeys, visionConfig: clipVisionKeys },
  // The encoders' own factors set the scale of initial projections.
  only: { initializerFactor: [1] },
  unused: ['textConfigDict', 'visionConfigDict'],
}

const large = { hiddenSize: 1024, intermediateSize: 4096, numHiddenLayers: 24, numAttentionHeads: 16, patchSize: 14 }
const textLarge = { hiddenSize: 768, intermediateSize: 3072, numAttentionHeads: 12 }
const sized = (textConfig: ClipTextConfig, visionConfig: ClipVisionConfig, projectionDim: number): ClipConfig => ({
  textConfig,
  visionConfig,
  projectionDim,
})

/** Published sizes by name, with OpenAI's activation. */
export const clipSizes: Record<string, ClipConfig> = {
  'vit-base-patch32': sized({}, { patchSize: 32 }, 512),
  'vit-base-patch16': sized({}, { patchSize: 16 }, 512),
  'vit-large-patch14': sized(textLarge, large, 768),
  'vit-large-patch14-336': sized(textLarge, { ...large, imageSize: 336 }, 768),
}
const parts = <K extends 'textConfig' | 'visionConfig'>(part: K) =>
  Object.fromEntries(Object.entries(clipSizes).map(([name, config]) => [name, { ...config[part] }])) as Record<
    string,
    NonNullable<ClipConfig[K]>
  >
export const clipTextSizes = parts('textConfig')
export const clipVisionSizes = parts('visionConfig')

const PARTS = ['textConfig', 'visionConfig'] as const
type Part = (typeof PARTS)[number]

/** Return an encoder's keys of a configuration; in a whole CLIP they are one level deeper, and in some files twice. */
export function partOf(config: NetworkConfig, part: Part): NetworkConfig {
  const isWhole = PARTS.some((one) => config[one] !== undefined || config[`${one}Dict`] !== undefined)
  if (!isWhole) return { ...config }
  const twice = config[`${part}Dict`]
  const known: NetworkConfig = {}
  for (const value of [config[part], twice]) {
    if (value === undefined || value === null) continue
    if (typeof value !== 'object' || Array.isArray(value)) {
      throw new ConfigError(`Clip: ${part}: expected an object, got ${shown(value)}. Correct the configuration.`, {
        key: part,
      })
    }
    Object.assign(known, toCamel(value))
  }
  return known
}

/** Return a configuration of both encoders, with camelCase at all levels. */
export function bothOf(config: NetworkConfig): ClipConfig {
  const { textConfigDict: _, visionConfigDict: __, ...rest } = config
  return { ...rest, textConfig: partOf(config, 'textConfig'), visionConfig: partOf(config, 'visionConfig') }
}

/** Return height and width of the vision encoder's input. */
export function imageSizeOf({ imageSize = 224, numMelBins, targetLength }: ClipVisionConfig): [number, number] {
  if (numMelBins && targetLength) return [numMelBins, targetLength]
  return typeof imageSize === 'number' ? [imageSize, imageSize] : (imageSize as [number, number])
}

/** Return the configuration for native code, with the image size as two numbers. */
export const nativeVision = (config: ClipVisionConfig): NetworkConfig => ({ ...config, imageSize: imageSizeOf(config) })

export function nativeClip(config: ClipConfig): NetworkConfig {
  const { textConfig = {}, visionConfig = {} } = config
  requireObject('Clip', 'textConfig', textConfig)
  requireObject('Clip', 'visionConfig', visionConfig)
  return { ...config, textConfig: toSnake(textConfig), visionConfig: toSnake(nativeVision(visionConfig)) }
}

export const savedClip = (config: ClipConfig): NetworkConfig => ({
  ...config,
  textConfig: { ...toSnake(config.textConfig ?? {}), model_type: 'clip_text_model' },
  visionConfig: { ...toSnake(config.visionConfig ?? {}), model_type: 'clip_vision_model' },
})
