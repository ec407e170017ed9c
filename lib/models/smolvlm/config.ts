import { argumentError, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { isConfiguration } from '../../nn/native-module.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import { checkedLayers, type DecoderLMConfig, decoderKeys } from '../decoder/config.js'
import type { NetworkConfig } from '../network.js'
import type { SiglipVisionConfig } from '../siglip/siglip.js'

/** Keys of a published `vision_config`. Defaults are those of transformers' SmolVLMVisionConfig. */
export interface SmolVLMVisionConfig extends Omit<SiglipVisionConfig, 'visionUseHead'> {
  /** Standard deviation of initial weights. Default 0.02. */
  initializerRange?: number
}

/** Keys of a published config.json in camelCase. */
export interface SmolVLMConfig extends NetworkConfig {
  /** `'smolvlm'` (default) or `'idefics3'`, which differ in the names of files only. */
  modelType?: 'smolvlm' | 'idefics3'
  visionConfig?: SmolVLMVisionConfig
  /** Any language model of {@link DecoderLM}; default LLaMA. */
  textConfig?: DecoderLMConfig
  /** Id of `<image>`. Default 128257. */
  imageTokenId?: number
  /** Side of the square of patches that becomes one token. Default 2. */
  scaleFactor?: number
  /** Whether embeddings and output layer of the language model are one. Default false. */
  tieWordEmbeddings?: boolean
}

/** Configuration with all defaults filled in. */
export interface CompleteSmolVLMConfig extends SmolVLMConfig {
  modelType: 'smolvlm' | 'idefics3'
  visionConfig: SmolVLMVisionConfig
  textConfig: DecoderLMConfig
  imageTokenId: number
  scaleFactor: number
  tieWordEmbeddings: boolean
}

const visionKeys: ConfigKeys = {
  defaults: {
    hiddenSize: 1152,
    intermediateSize: 3072,
    numHiddenLayers: 12,
    numAttentionHeads: 16,
    numChannels: 3,
    imageSize: 224,
    patchSize: 32,
    hiddenAct: 'gelu_pytorch_tanh',
    layerNormEps: 1e-6,
    attentionDropout: 0,
    initializerRange: 0.02,
  },
  // Settings of the image processor, and of training.
  unused: ['maxImageSize', 'size', 'useBaseSiglip'],
}

/** Keys that the published files add to those of the language model, with the values for which they change nothing. */
const TEXT_EXTRAS: Readonly<Record<string, readonly unknown[]>> = {
  isLlamaConfig: [true],
  qkLayerNorms: [false],
  useResampler: [false],
  ropeInterleaved: [false],
  neftuneNoiseAlpha: [0],
}
const TEXT_UNUSED = ['perceiverConfig', 'pixelShuffleFactor']

export const smolVLMKeys: ConfigKeys = {
  defaults: {
    modelType: 'smolvlm',
    visionConfig: {},
    // transformers' default for a configuration without this part; a part without the key has LLaMA's.
    textConfig: { rmsNormEps: 1e-5 },
    imageTokenId: 128257,
    scaleFactor: 2,
    tieWordEmbeddings: false,
  },
  // It repeats a key of the language model.
  unused: ['vocabSize', 'transformers.jsConfig'],
  parts: {
    visionConfig: visionKeys,
    textConfig: (config) => {
      const keys = decoderKeys(config as DecoderLMConfig)
      return {
        ...keys,
        only: { ...keys.only, ...TEXT_EXTRAS },
        unused: [...(keys.unused ?? []), ...TEXT_UNUSED],
      }
    },
  },
}

/** Return the configuration with those of its parts filled in. @throws ConfigError for a contradiction */
export function completedSmolVLM(given: SmolVLMConfig): CompleteSmolVLMConfig {
  const where = 'SmolVLM'
  for (const key of ['visionConfig', 'textConfig']) {
    const value = given[key] ?? {}
    if (!isConfiguration(value)) throw argumentError(where, key, 'a configuration', value)
  }
  const config = completedConfig(where, smolVLMKeys, given) as CompleteSmolVLMConfig
  const { modelType, visionConfig, imageTokenId, scaleFactor, tieWordEmbeddings } = config
  if (modelType !== 'smolvlm' && modelType !== 'idefics3') {
    throw argumentError(where, 'modelType', "'smolvlm' or 'idefics3'", modelType)
  }
  requireWhole(where, 'imageTokenId', imageTokenId, 0)
  requireWhole(where, 'scaleFactor', scaleFactor, 1)
  if (typeof tieWordEmbeddings !== 'boolean') {
    throw argumentError(where, 'tieWordEmbeddings', 'true or false', tieWordEmbeddings)
  }
  const side = patchesPerSide(visionConfig)
  if (side % scaleFactor !== 0) {
    throw new ConfigError(
      `${where}.scaleFactor: expected a divisor of the ${side} patches along a side of an image, got ${scaleFactor}.`,
      { scaleFactor, side },
    )
  }
  const others = new Set([...Object.keys(TEXT_EXTRAS), ...TEXT_UNUSED])
  const text = Object.entries(config.textConfig).filter(([key]) => !others.has(key))
  return { ...config, textConfig: checkedLayers({ ...Object.fromEntries(text), tieWordEmbeddings }) }
}

export const patchesPerSide = ({ imageSize = 224, patchSize = 32 }: SmolVLMVisionConfig): number =>
  Math.floor(Number(imageSize) / Number(patchSize))

const llama = (
  hiddenSize: number,
  intermediateSize: number,
  numHiddenLayers: number,
  numAttentionHeads: number,
  numKeyValueHeads: number,
  more: DecoderLMConfig = {},
): DecoderLMConfig => ({
  ...{ hiddenSize, intermediateSize, numHiddenLayers, numAttentionHeads, numKeyValueHeads },
  ...{ vocabSize: 49280, maxPositionEmbeddings: 8192, rmsNormEps: 1e-5, ropeTheta: 100000, ...more },
})
const small: SmolVLMVisionConfig = { hiddenSize: 768, imageSize: 512, patchSize: 16, numAttentionHeads: 12 }
const so400m: SmolVLMVisionConfig = {
  ...{ imageSize: 384, patchSize: 14, intermediateSize: 4304, numHiddenLayers: 27 },
}
const IMAGE_TOKEN_ID = 49190

/** Published sizes by name. */
export const smolVLMSizes: Record<string, SmolVLMConfig> = {
  'smolvlm-256m': {
    ...{ visionConfig: small, textConfig: llama(576, 1536, 30, 9, 3), scaleFactor: 4, imageTokenId: IMAGE_TOKEN_ID },
  },
  'smolvlm-500m': {
    ...{ visionConfig: small, textConfig: llama(960, 2560, 32, 15, 5), scaleFactor: 4, imageTokenId: IMAGE_TOKEN_ID },
  },
  'smolvlm-2.2b': {
    visionConfig: so400m,
    textConfig: llama(2048, 8192, 24, 32, 32, { ropeTheta: 273768 }),
    scaleFactor: 3,
    imageTokenId: IMAGE_TOKEN_ID,
  },
}
