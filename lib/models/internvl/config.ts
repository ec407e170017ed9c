import { argumentError, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { isConfiguration } from '../../nn/native-module.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import { checkedLayers, type DecoderLMConfig, decoderKeys, sizes as languageSizes } from '../decoder/config.js'
import type { NetworkConfig } from '../network.js'

/** Keys of a published `vision_config`. Defaults are those of the 6B network, as in the published code. */
export interface InternViTConfig extends NetworkConfig {
  /** Width of the hidden states. Default 3200. */
  hiddenSize?: number
  /** Number of layers. Default 48. */
  numHiddenLayers?: number
  /** Number of attention heads. Default 25. */
  numAttentionHeads?: number
  /** Width of the MLP. Default 12800. */
  intermediateSize?: number
  /** Number of image channels. Default 3. */
  numChannels?: number
  /** Side length of a patch in pixels. Default 14. */
  patchSize?: number
  /** Side length of the images of the position table, in pixels. Default 224. */
  imageSize?: number
  /** Whether the projections of queries, keys and values have a bias. Default false. */
  qkvBias?: boolean
  /** Whether queries and keys have RMS norms. Default true. */
  qkNormalization?: boolean
  /** Kind of layer norms. Default `'rms_norm'`. */
  normType?: 'rms_norm' | 'layer_norm'
  /** Epsilon of the norms. Default 1e-6. */
  layerNormEps?: number
  /** Activation of the MLP. Default `'gelu'`. */
  hiddenAct?: string
  initializerRange?: number
  /** Initial value of the layer scales. Default 0.1. */
  initializerFactor?: number
  dropout?: number
  attentionDropout?: number
  /** Stochastic depth rate of the last layer in training; earlier layers have less. Default 0. */
  dropPathRate?: number
}

export const internViTKeys: ConfigKeys = {
  defaults: {
    hiddenSize: 3200,
    numHiddenLayers: 48,
    numAttentionHeads: 25,
    intermediateSize: 12800,
    numChannels: 3,
    patchSize: 14,
    imageSize: 224,
    qkvBias: false,
    qkNormalization: true,
    normType: 'rms_norm',
    layerNormEps: 1e-6,
    hiddenAct: 'gelu',
    initializerRange: 0.02,
    initializerFactor: 0.1,
    dropout: 0,
    attentionDropout: 0,
    dropPathRate: 0,
  },
  only: { useMoe: [false] },
  // Settings of experts, which the published files have although the network has none.
  unused: [
    ...[
      'useFlashAttn',
      'capacityFactor',
      'evalCapacityFactor',
      'lauxAllreduce',
      'moeCoeffRatio',
      'moeIntermediateSize',
    ],
    ...['moeOutputScale', 'noisyGatePolicy', 'numExperts', 'numRoutedExperts', 'numSharedExperts', 'useResidual'],
    ...['sharedExpertIntermediateSize', 'useRts', 'useWeightedResidual'],
  ],
}

/** Keys of a published config.json in camelCase. */
export interface InternVLConfig extends NetworkConfig {
  visionConfig?: InternViTConfig
  /** LLaMA, Mistral, Qwen2, InternLM2 or Phi-3, by `modelType` or otherwise `architectures`. */
  llmConfig?: DecoderLMConfig
  /** Ratio of tokens to patches along each side. Default 0.5. */
  downsampleRatio?: number
  /** Token order: `'v1'` is column by column, as in the first release. Default `'v2'`. */
  psVersion?: 'v1' | 'v2'
  /** Index of the vision encoder's hidden state to use: -1 is the last layer's, -2 the one before, as in Python. Default -1. */
  selectLayer?: number
  /** Id of `<IMG_CONTEXT>`, the placeholder of image tokens. Files have it in their tokenizer, or as `imageTokenId`. */
  imgContextTokenId?: number | null
  /** Name of the chat template: `'Hermes-2'`, `'internlm2-chat'`, `'internvl2_5'`, `'phi3-chat'`. */
  template?: string | null
  /** Side length of a tile in pixels. Default 448. */
  forceImageSize?: number
  minDynamicPatch?: number
  maxDynamicPatch?: number
  useThumbnail?: boolean
  /** Whether an image may have several tiles. Default true. */
  dynamicImageSize?: boolean
}

/** Configuration with all defaults filled in. */
export interface CompleteInternVLConfig extends InternVLConfig {
  visionConfig: InternViTConfig
  llmConfig: DecoderLMConfig
}

/** Model types by transformers' names of language models. */
const ARCHITECTURES: Readonly<Record<string, NonNullable<DecoderLMConfig['modelType']>>> = {
  LlamaForCausalLM: 'llama',
  MistralForCausalLM: 'mistral',
  Qwen2ForCausalLM: 'qwen2',
  InternLM2ForCausalLM: 'internlm2',
  Phi3ForCausalLM: 'phi3',
}

const KINDS = { visionConfig: 'InternViT', llmConfig: 'DecoderLM' } as const

export const internVLKeys: ConfigKeys = {
  defaults: {
    visionConfig: {},
    llmConfig: {},
    downsampleRatio: 0.5,
    psVersion: 'v2',
    selectLayer: -1,
    imgContextTokenId: null,
    template: null,
    forceImageSize: null,
    minDynamicPatch: 1,
    maxDynamicPatch: 12,
    useThumbnail: true,
    dynamicImageSize: true,
  },
  // Other values mean that the file contains adapters.
  only: { useBackboneLora: [0], useLlmLora: [0], pad2square: [false], imageFold: [null] },
  // Settings of the training data, or duplicates of the parts' configurations.
  unused: ['hiddenSize', 'systemMessage'],
  parts: {
    visionConfig: internViTKeys,
    llmConfig: (config) => {
      const keys = decoderKeys({ ...config, modelType: typeOf(config) })
      // InternVL3's files have it.
      return { ...keys, only: { ...keys.only, moeConfig: [null] } }
    },
  },
}

/** Return the configuration with those of its parts filled in. @throws ConfigError for a contradiction */
export function completedInternVL(given: InternVLConfig): CompleteInternVLConfig {
  const where = 'InternVL'
  for (const [key, kind] of Object.entries(KINDS)) {
    const value = given[key] ?? {}
    if (!isConfiguration(value)) throw argumentError(where, key, `a configuration of ${kind}`, value)
  }
  const config = completedConfig(where, internVLKeys, given) as CompleteInternVLConfig
  const { visionConfig, downsampleRatio, psVersion, selectLayer, imgContextTokenId } = config
  const factor = shuffleFactor(downsampleRatio as number)
  if (psVersion !== 'v1' && psVersion !== 'v2') throw argumentError(where, 'psVersion', "'v1' or 'v2'", psVersion)
  if (!Number.isSafeInteger(selectLayer)) throw argumentError(where, 'selectLayer', 'an integer', selectLayer)
  if (imgContextTokenId !== null) requireWhole(where, 'imgContextTokenId', imgContextTokenId, 0)
  const { imageSize, patchSize, numHiddenLayers: layers } = visionConfig
  const side = Math.floor(Number(imageSize) / Number(patchSize))
  if (side % factor !== 0) {
    throw new ConfigError(
      `InternVL.downsampleRatio: expected ${side} x ${side} patches to divide into squares of 1 / downsampleRatio, got squares of ${factor}.`,
      {
        imageSize,
        patchSize,
        downsampleRatio,
      },
    )
  }
  const layer = selectLayer as number
  if (layer > Number(layers) || layer < -Number(layers) - 1) {
    throw new ConfigError(
      `InternVL.selectLayer: expected a layer of the ${layers} of the vision encoder, got ${selectLayer}.`,
      {
        selectLayer,
      },
    )
  }
  const { moeConfig: _, ...llmConfig } = config.llmConfig
  return { ...config, llmConfig: checkedLayers(llmConfig) }
}

function typeOf({ modelType, architectures }: DecoderLMConfig): NonNullable<DecoderLMConfig['modelType']> {
  const [name] = Array.isArray(architectures) ? (architectures as unknown[]) : []
  if (typeof name !== 'string') return modelType ?? 'llama'
  const found = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined
  if (found === undefined) {
    const known = Object.keys(ARCHITECTURES).join(', ')
    throw new ConfigError(`InternVL: llmConfig.architectures: expected one of ${known}, got '${name}'.`, {
      architectures,
    })
  }
  if (modelType === undefined || modelType === found) return found
  throw new ConfigError(`InternVL: llmConfig.modelType: expected '${found}' for ${name}, got '${modelType}'.`, {
    modelType,
  })
}

/** Return the number of patches along a side of the square that becomes one token. */
export function shuffleFactor(ratio: number): number {
  const factor = typeof ratio === 'number' ? Math.round(1 / ratio) : Number.NaN
  if (factor >= 1 && factor <= 64 && Math.abs(factor * ratio - 1) < 1e-9) return factor
  throw argumentError('InternVL', 'downsampleRatio', 'one divided by an integer, such as 0.5', ratio)
}

const vit300m: InternViTConfig = {
  hiddenSize: 1024,
  numHiddenLayers: 24,
  numAttentionHeads: 16,
  intermediateSize: 4096,
  imageSize: 448,
  qkvBias: true,
  qkNormalization: false,
  normType: 'layer_norm',
  initializerFactor: 1,
}

const vit6b: InternViTConfig = { imageSize: 448, numHiddenLayers: 45 }

/** Published sizes of InternViT by name. */
export const internViTSizes: Record<string, InternViTConfig> = {
  'internvit-300m-448px': vit300m,
  'internvit-6b-448px': { imageSize: 448 },
  'internvit-6b-448px-v2.5': vit6b,
}

const internVL = (
  llmConfig: DecoderLMConfig,
  imgContextTokenId: number,
  template: string,
  visionConfig = vit300m,
): InternVLConfig => ({
  visionConfig,
  llmConfig,
  imgContextTokenId,
  template,
  selectLayer: -1,
  psVersion: 'v2',
  downsampleRatio: 0.5,
  forceImageSize: 448,
  minDynamicPatch: 1,
  maxDynamicPatch: 12,
  useThumbnail: true,
})
const sized = (name: string, more: DecoderLMConfig): DecoderLMConfig => ({ ...languageSizes[name], ...more })

/** InternLM2.5; its 1.8B and 7B networks are those of InternLM2. */
const internlm = (more: DecoderLMConfig): DecoderLMConfig => sized('internlm2-7b', { vocabSize: 92553, ...more })
const qwen25 = (
  hiddenSize: number,
  intermediateSize: number,
  numHiddenLayers: number,
  numAttentionHeads: number,
  numKeyValueHeads: number,
): DecoderLMConfig => ({
  ...{ modelType: 'qwen2', vocabSize: 151674, ropeTheta: 1e6, tieWordEmbeddings: false },
  ...{ hiddenSize, intermediateSize, numHiddenLayers, numAttentionHeads, numKeyValueHeads },
})
const QWEN25 = {
  '0.5b': qwen25(896, 4864, 24, 14, 2),
  '1.5b': qwen25(1536, 8960, 28, 12, 2),
  '3b': qwen25(2048, 11008, 36, 16, 2),
  '7b': qwen25(3584, 18944, 28, 28, 4),
  '14b': qwen25(5120, 13824, 48, 40, 8),
  '32b': qwen25(5120, 27648, 64, 40, 8),
  '72b': qwen25(8192, 29568, 80, 64, 8),
} as const
const ofQwen25 = (size: keyof typeof QWEN25, more: DecoderLMConfig = {}): InternVLConfig =>
  internVL({ ...QWEN25[size], ...more }, 151667, 'internvl2_5', size === '32b' || size === '72b' ? vit6b : vit300m)
const internVL3 = (size: keyof typeof QWEN25): InternVLConfig =>
  ofQwen25(size, { ropeScaling: { ropeType: 'dynamic', factor: 2 } })

/** Published sizes of InternVL by name. The RoPE factors of the 4B network are only in its checkpoint. */
export const internVLSizes: Record<string, InternVLConfig> = {
  'internvl2-1b': internVL(sized('qwen2-0.5b', { vocabSize: 151655, tieWordEmbeddings: false }), 151648, 'Hermes-2'),
  'internvl2-2b': internVL(sized('internlm2-1.8b', { vocabSize: 92553 }), 92546, 'internlm2-chat'),
  'internvl2-4b': internVL(
    sized('phi-3-mini-4k', { vocabSize: 32020, maxPositionEmbeddings: 131072, slidingWindow: 262144 }),
    32013,
    'phi3-chat',
  ),
  'internvl2-8b': internVL(sized('internlm2-7b', { vocabSize: 92553 }), 92546, 'internlm2-chat'),
  'internvl2.5-1b': ofQwen25('0.5b'),
  'internvl2.5-2b': internVL(sized('internlm2-1.8b', { vocabSize: 92553 }), 92546, 'internvl2_5'),
  'internvl2.5-4b': ofQwen25('3b'),
  'internvl2.5-8b': internVL(internlm({}), 92546, 'internvl2_5'),
  'internvl2.5-26b': internVL(
    internlm({ hiddenSize: 6144, intermediateSize: 16384, numHiddenLayers: 48, numAttentionHeads: 48 }),
    92546,
    'internvl2_5',
    vit6b,
  ),
  'internvl2.5-38b': ofQwen25('32b'),
  'internvl2.5-78b': ofQwen25('72b'),
  'internvl3-1b': internVL3('0.5b'),
  'internvl3-2b': internVL3('1.5b'),
  'internvl3-8b': internVL3('7b'),
  'internvl3-14b': internVL3('14b'),
  'internvl3-38b': internVL3('32b'),
  'internvl3-78b': internVL3('72b'),
}
