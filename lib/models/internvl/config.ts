import { misuse, requireWhole } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { isConfiguration } from '../../nn/native-module.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import { checkedLayers, type DecoderLMConfig, decoderKeys, sizes as languageSizes } from '../decoder/config.js'
import type { NetworkConfig } from '../network.js'

/** The keys of a published `vision_config`; what is left out has the value of the 6B network, as there. */
export interface InternViTConfig extends NetworkConfig {
  /** Default 3200. */
  hiddenSize?: number
  /** Default 48. */
  numHiddenLayers?: number
  /** Default 25. */
  numAttentionHeads?: number
  /** Default 12800. */
  intermediateSize?: number
  /** Default 3. */
  numChannels?: number
  /** Side of a patch in pixels. Default 14. */
  patchSize?: number
  /** Side of the pictures that the table of positions is for, in pixels. Default 224. */
  imageSize?: number
  /** Default false. */
  qkvBias?: boolean
  /** RMS norms of queries and keys. Default true. */
  qkNormalization?: boolean
  /** Default `'rms_norm'`. */
  normType?: 'rms_norm' | 'layer_norm'
  /** Default 1e-6. */
  layerNormEps?: number
  /** Default `'gelu'`. */
  hiddenAct?: string
  initializerRange?: number
  /** Of the layer scales. Default 0.1. */
  initializerFactor?: number
  dropout?: number
  attentionDropout?: number
  /** Of the last layer, while training; those before it have less. Default 0. */
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
  unused: ['useFlashAttn'],
}

/** The keys of a published config.json in camelCase. */
export interface InternVLConfig extends NetworkConfig {
  visionConfig?: InternViTConfig
  /** A LLaMA, Mistral, Qwen2, InternLM2 or Phi-3; `architectures` says which where `modelType` does not. */
  llmConfig?: DecoderLMConfig
  /** Tokens of a picture beside its patches, along each side. Default 0.5. */
  downsampleRatio?: number
  /** `'v1'` has the tokens of a picture column by column, as the first release. Default `'v2'`. */
  psVersion?: 'v1' | 'v2'
  /** Which state of the vision part is read: -1 the last layer's, -2 the one before, as in Python. Default -1. */
  selectLayer?: number
  /** Id of `<IMG_CONTEXT>`, at whose places pictures stand. Files have it in their tokenizer, or as `imageTokenId`. */
  imgContextTokenId?: number | null
  /** Name of the chat template: `'Hermes-2'`, `'internlm2-chat'`, `'phi3-chat'`. */
  template?: string | null
  /** Side of a tile in pixels. Default 448. */
  forceImageSize?: number
  minDynamicPatch?: number
  maxDynamicPatch?: number
  useThumbnail?: boolean
}

/** The same with what follows from it. */
export interface CompleteInternVLConfig extends InternVLConfig {
  visionConfig: InternViTConfig
  llmConfig: DecoderLMConfig
}

/** transformers' names of language models -> model types. */
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
  },
  // Adapters that were trained beside the weights would stand in the file.
  only: { useBackboneLora: [0], useLlmLora: [0], pad2square: [false] },
  // Of the data that it was trained on, and of its parts' own configurations.
  unused: ['dynamicImageSize', 'hiddenSize', 'systemMessage'],
  parts: {
    visionConfig: internViTKeys,
    llmConfig: (config) => decoderKeys({ ...config, modelType: typeOf(config) }),
  },
}

/** The configuration with those of its parts. @throws ConfigError where it contradicts itself */
export function completedInternVL(given: InternVLConfig): CompleteInternVLConfig {
  const where = 'InternVL'
  for (const [key, kind] of Object.entries(KINDS)) {
    const value = given[key] ?? {}
    if (!isConfiguration(value)) throw misuse(where, key, `a configuration of ${kind}`, value)
  }
  const config = completedConfig(where, internVLKeys, given) as CompleteInternVLConfig
  const { visionConfig, downsampleRatio, psVersion, selectLayer, imgContextTokenId } = config
  const factor = shuffleFactor(downsampleRatio as number)
  if (psVersion !== 'v1' && psVersion !== 'v2') throw misuse(where, 'psVersion', "'v1' or 'v2'", psVersion)
  if (!Number.isSafeInteger(selectLayer)) throw misuse(where, 'selectLayer', 'a whole number', selectLayer)
  if (imgContextTokenId !== null) requireWhole(where, 'imgContextTokenId', imgContextTokenId, 0)
  const { imageSize, patchSize, numHiddenLayers: layers } = visionConfig
  const side = Math.floor(Number(imageSize) / Number(patchSize))
  if (side % factor !== 0) {
    throw new ConfigError(`InternVL: ${side} x ${side} patches have no squares of ${factor} (downsampleRatio)`, {
      imageSize,
      patchSize,
      downsampleRatio,
    })
  }
  const layer = selectLayer as number
  if (layer > Number(layers) || layer < -Number(layers) - 1) {
    throw new ConfigError(`InternVL: selectLayer is ${selectLayer}, and the vision part has ${layers} layers`, {
      selectLayer,
    })
  }
  return { ...config, llmConfig: checkedLayers(config.llmConfig) }
}

function typeOf({ modelType, architectures }: DecoderLMConfig): NonNullable<DecoderLMConfig['modelType']> {
  const [name] = Array.isArray(architectures) ? (architectures as unknown[]) : []
  if (typeof name !== 'string') return modelType ?? 'llama'
  const found = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined
  if (found === undefined) {
    const known = Object.keys(ARCHITECTURES).join(', ')
    throw new ConfigError(`InternVL has no language model '${name}'; it has ${known}`, { architectures })
  }
  if (modelType === undefined || modelType === found) return found
  throw new ConfigError(`InternVL: llmConfig is a ${name}, but its modelType is '${modelType}'`, { modelType })
}

/** Patches along a side of the square that becomes one token. */
export function shuffleFactor(ratio: number): number {
  const factor = typeof ratio === 'number' ? Math.round(1 / ratio) : Number.NaN
  if (factor >= 1 && factor <= 64 && Math.abs(factor * ratio - 1) < 1e-9) return factor
  throw misuse('InternVL', 'downsampleRatio', 'one over a whole number, such as 0.5', ratio)
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

/** Published sizes by name. */
export const internViTSizes: Record<string, InternViTConfig> = {
  'internvit-300m-448px': vit300m,
  'internvit-6b-448px': { imageSize: 448 },
}

const internVL = (llmConfig: DecoderLMConfig, imgContextTokenId: number, template: string): InternVLConfig => ({
  visionConfig: vit300m,
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

/** Published sizes by name. The 4B network's lists of RoPE factors are those of its checkpoint; by name it has none. */
export const internVLSizes: Record<string, InternVLConfig> = {
  'internvl2-1b': internVL(sized('qwen2-0.5b', { vocabSize: 151655, tieWordEmbeddings: false }), 151648, 'Hermes-2'),
  'internvl2-2b': internVL(sized('internlm2-1.8b', { vocabSize: 92553 }), 92546, 'internlm2-chat'),
  'internvl2-4b': internVL(
    sized('phi-3-mini-4k', { vocabSize: 32020, maxPositionEmbeddings: 131072, slidingWindow: 262144 }),
    32013,
    'phi3-chat',
  ),
  'internvl2-8b': internVL(sized('internlm2-7b', { vocabSize: 92553 }), 92546, 'internlm2-chat'),
}
