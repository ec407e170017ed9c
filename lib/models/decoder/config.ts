import { argumentError, shown } from '../../base/check.js'
import { ConfigError } from '../../base/errors.js'
import { camelCase, toCamel, toSnake } from '../../base/words.js'
import { isConfiguration } from '../../nn/native-module.js'
import { type ConfigKeys, completedConfig } from '../config-keys.js'
import { configOf, type NetworkConfig } from '../network.js'
import {
  type Family,
  type FamilyNetwork,
  type FamilyScales,
  familyOf,
  MODEL_TYPES,
  type ModelType,
  positive,
} from './families.js'

export type { ModelType } from './families.js'

/** Parameters of RoPE scaling; `ropeType` decides which of the others apply. */
export interface RopeParameters {
  ropeType?: 'default' | 'linear' | 'dynamic' | 'llama3' | 'yarn' | 'longrope'
  ropeTheta?: number
  factor?: number
  originalMaxPositionEmbeddings?: number
  /** llama3 */
  lowFreqFactor?: number
  highFreqFactor?: number
  /** longrope: divisors of the frequency of each pair of dimensions, for texts up to `originalMaxPositionEmbeddings` and for longer ones. */
  shortFactor?: number[]
  longFactor?: number[]
  /** yarn and longrope: factor on cos and sin. Default: computed from the lengths. */
  attentionFactor?: number
  /** Phi-3: see `partialRotaryFactor` of the configuration. */
  partialRotaryFactor?: number
  /** yarn */
  betaFast?: number
  betaSlow?: number
  mscale?: number
  mscaleAllDim?: number
  truncate?: boolean
  /** Ministral 3: queries are multiplied by 1 + beta · log(1 + ⌊position / `originalMaxPositionEmbeddings`⌋). */
  llama4ScalingBeta?: number
}

/** Gemma 3: RoPE of the layers with full attention, and of those with a window. */
export interface LayerRopeParameters {
  fullAttention?: RopeParameters
  slidingAttention?: RopeParameters
}

/** The keys of a published config.json in camelCase. Defaults are those of transformers' configuration class. */
export interface DecoderLMConfig extends NetworkConfig {
  /** Default `'llama'`. */
  modelType?: ModelType
  vocabSize?: number
  hiddenSize?: number
  intermediateSize?: number
  numHiddenLayers?: number
  numAttentionHeads?: number
  /** Number of key and value heads. Default: the number of heads (8 for Mistral). */
  numKeyValueHeads?: number
  headDim?: number
  maxPositionEmbeddings?: number
  /** Phi-3: maximum length in pre-training; longer texts use `longFactor`, see `ropeScaling`. */
  originalMaxPositionEmbeddings?: number
  rmsNormEps?: number
  initializerRange?: number
  hiddenAct?: string
  attentionDropout?: number
  /** Biases of all four projections of the attention, in families that may have them. Qwen2 always has those of q, k and v. */
  attentionBias?: boolean
  /** SmolLM3: 1 for each layer with RoPE, 0 for each without. Default: every `noRopeLayerInterval`th layer has none. */
  noRopeLayers?: number[] | null
  noRopeLayerInterval?: number
  /** Granite: factors of the embeddings, of the outputs of attention and feed-forward blocks, and of the attention scores. */
  embeddingMultiplier?: number
  residualMultiplier?: number
  attentionMultiplier?: number
  /** Granite: divisor of the logits. */
  logitsScaling?: number
  /** Gemma: the activation, in place of `hiddenAct`. */
  hiddenActivation?: string
  /** Gemma: scores are divided by its square root, in place of that of `headDim`. */
  queryPreAttnScalar?: number
  /** Gemma 2: scores x become cap · tanh(x / cap); null: they do not. */
  attnLogitSoftcapping?: number | null
  /** Gemma: the same of logits. */
  finalLogitSoftcapping?: number | null
  /** Mixtral, Qwen3 MoE: number of experts that a token goes through. */
  numExpertsPerTok?: number
  /** Mixtral: number of experts of a layer. */
  numLocalExperts?: number
  /** Qwen3 MoE: the same; and the width of an expert. */
  numExperts?: number
  moeIntermediateSize?: number
  /** Qwen3 MoE: whether the weights of a token's experts are divided by their sum. */
  normTopkProb?: boolean
  /** Qwen3 MoE: every layer with a multiple of this number, from 1, has experts, except those in `mlpOnlyLayers`, from 0. */
  decoderSparseStep?: number
  mlpOnlyLayers?: number[] | null
  /** Mixtral, Qwen3 MoE: add the routers' load-balancing loss to the loss, multiplied by `routerAuxLossCoef`. Default false. */
  outputRouterLogits?: boolean
  routerAuxLossCoef?: number
  /** Biases of the feed-forward projections, in families that may have them. */
  mlpBias?: boolean
  /** InternLM2: biases of both projections of the attention. Default true; published checkpoints set false. */
  bias?: boolean
  tieWordEmbeddings?: boolean
  /** Row of the embeddings that gets no gradient. Default: none. */
  padTokenId?: number | null
  /** Number of tokens that a token attends to, itself included; null: all before it. Mistral, Ministral, Phi-3, Gemma, and Qwen2, Qwen3 and SmolLM3 with `useSlidingWindow`. */
  slidingWindow?: number | null
  /**
   * With a window, a token attends to itself and `slidingWindow` tokens before it, one more. This is flash attention in transformers before
   * 4.56 (https://github.com/huggingface/transformers/pull/40163), with which USDM was trained. Default false; true for files with USDM's
   * class.
   */
  windowInclusive?: boolean
  useSlidingWindow?: boolean
  /** Qwen2 and Qwen3: the first layer that has the window. */
  maxWindowLayers?: number
  /**
   * The attention of each layer, `'full_attention'` or `'sliding_attention'`. In Ministral, Qwen3, SmolLM3 and Gemma it decides which layers have the window; in other
   * families it must match the other keys.
   */
  layerTypes?: string[] | null
  ropeTheta?: number
  /** Phi-3 (Phi-4-mini: 0.75): the fraction of each head's dimensions, from the first, that RoPE rotates. Default 1. */
  partialRotaryFactor?: number
  /**
   * RoPE scaling in older files, in addition to `ropeTheta`. The angles of 'longrope' ('su') and 'dynamic' depend on the length of the text;
   * see `DecoderLM` for the consequences in generation.
   */
  ropeScaling?: (RopeParameters & { type?: string }) | null
  ropeParameters?: RopeParameters | LayerRopeParameters | null
  /** Gemma 3: RoPE base of the windowed layers, where `ropeParameters` has no part for them. */
  ropeLocalBaseFreq?: number
  /** Gemma 3: every layer has the window but each `slidingWindowPattern`th, unless `layerTypes` says otherwise. */
  slidingWindowPattern?: number
}

/** 'su' is an early name of 'longrope'. */
const ROPE_TYPES = ['default', 'linear', 'dynamic', 'llama3', 'yarn', 'longrope', 'su']

/** Known keys of a RoPE scaling. */
const ropeKeys: ConfigKeys = {
  defaults: {},
  only: { ropeType: ROPE_TYPES, type: ROPE_TYPES },
  unused: [
    ...['ropeTheta', 'factor', 'originalMaxPositionEmbeddings', 'lowFreqFactor', 'highFreqFactor'],
    ...['shortFactor', 'longFactor', 'attentionFactor', 'betaFast', 'betaSlow', 'mscale', 'mscaleAllDim', 'truncate'],
    'partialRotaryFactor',
    // Some LLaMA derivatives use it to state that the network was trained with the scaling.
    'finetuned',
  ],
}

/** The same with Ministral 3's. */
const scaledRopeKeys: ConfigKeys = {
  ...ropeKeys,
  unused: [...(ropeKeys.unused ?? []), 'llama4ScalingBeta', 'maxPositionEmbeddings'],
}

/** The same for each kind of layer. */
const layerRopeKeys: ConfigKeys = { defaults: {}, parts: { fullAttention: ropeKeys, slidingAttention: ropeKeys } }

const SHARED: DecoderLMConfig = {
  vocabSize: 32000,
  hiddenSize: 4096,
  intermediateSize: 11008,
  numHiddenLayers: 32,
  numAttentionHeads: 32,
  maxPositionEmbeddings: 2048,
  rmsNormEps: 1e-6,
  initializerRange: 0.02,
  hiddenAct: 'silu',
  attentionDropout: 0,
  tieWordEmbeddings: false,
  padTokenId: null,
  // Explicit nulls: otherwise transformers uses the defaults of its class.
  bosTokenId: null,
  eosTokenId: null,
  ropeScaling: null,
  ropeParameters: null,
}

/** Return the known keys of a decoder's configuration, by its model type. */
export const decoderKeys = (given: DecoderLMConfig): ConfigKeys => {
  const modelType = typeOf(given)
  const family = familyOf(modelType)
  const rope = family.network.has_position_scale ? scaledRopeKeys : ropeKeys
  return {
    defaults: (given) => {
      const config = given as DecoderLMConfig
      const defaults = { ...SHARED, ...family.defaults }
      const { hiddenSize = defaults.hiddenSize, numAttentionHeads: heads = defaults.numAttentionHeads } = config
      const scaling: unknown = config.ropeParameters ?? config.ropeScaling ?? defaults.ropeParameters
      const { ropeTheta = defaults.ropeTheta ?? 10000 } = isConfiguration(scaling)
        ? (toCamel(scaling) as RopeParameters)
        : {}
      for (const [alias, key] of Object.entries(family.aliases ?? {})) defaults[key] = config[alias] ?? defaults[key]
      // A scaling under the older key takes the place of the default one.
      if (config.ropeScaling) defaults.ropeParameters = null
      // Two keys for the activation would leave open which one counts.
      if ('hiddenActivation' in defaults) delete defaults.hiddenAct
      return {
        ...defaults,
        modelType,
        numKeyValueHeads: defaults.numKeyValueHeads ?? heads,
        // Sizes that do not match are refused when the network is built.
        headDim:
          defaults.headDim ??
          (typeof hiddenSize === 'number' && typeof heads === 'number' && hiddenSize % heads === 0
            ? hiddenSize / heads
            : null),
        ropeTheta,
        ...('slidingWindow' in defaults && { windowInclusive: isUsdm(config) }),
      }
    },
    nullable: ['slidingWindow', 'attnLogitSoftcapping', 'finalLogitSoftcapping'],
    only: family.only,
    parts: { ropeScaling: rope, ropeParameters: family.hasLocalRope ? layerRopeKeys : rope },
    unused: [
      ...['numLabels', 'layerTypes', 'originalMaxPositionEmbeddings', 'partialRotaryFactor', 'pretrainingTp'],
      // transformers' classes without a window also ignore these.
      ...['useFlashAttn', 'slidingWindow', 'maxWindowLayers'],
      ...(family.unused ?? []),
      ...Object.keys(family.aliases ?? {}),
    ],
  }
}

/** USDM's class: Mistral with an inclusive window. */
const USDM_CLASS = 'CustomMistralForCausalLM'

const isUsdm = ({ architectures }: NetworkConfig): boolean =>
  Array.isArray(architectures) && architectures.includes(USDM_CLASS)

/** Return whether attention is limited to a window in some layer. */
export function hasWindow(config: DecoderLMConfig): boolean {
  const { has_window, has_window_key: key } = familyOf(typeOf(config)).network
  return (
    typeof config.slidingWindow === 'number' && (has_window ?? (key !== undefined && config[camelCase(key)] === true))
  )
}

/** Return transformers' class name of a model type. */
export const architectureOf = (config: DecoderLMConfig): string => familyOf(typeOf(config)).architecture

/** Return the configuration with the defaults of its model type, and the keys of its RoPE scaling in camelCase. */
export function completed(config: DecoderLMConfig): DecoderLMConfig {
  if (!isConfiguration(config)) {
    throw argumentError('DecoderLM', 'config', 'an object (a size by its name goes to DecoderLM.fromConfig)', config)
  }
  return checkedLayers(completedConfig('DecoderLM', decoderKeys(config), config))
}

/** Convert keys to snake_case, also those of the configurations in it. */
const inSnake = (config: object): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(toSnake(config)).map(([key, value]) => [
      key === 'llama4_scaling_beta' ? 'llama_4_scaling_beta' : key,
      isConfiguration(value) ? inSnake(value) : value,
    ]),
  )

/** Return the RoPE of layers with full attention, and of windowed ones where the family has another one for them. */
export function ropeOf(config: DecoderLMConfig): { full: RopeParameters & { type?: string }; local?: RopeParameters } {
  const { ropeTheta, ropeParameters, ropeScaling, ropeLocalBaseFreq } = config
  if (!familyOf(typeOf(config)).hasLocalRope) {
    return {
      full: {
        ...(ropeTheta === undefined ? {} : { ropeTheta }),
        ...((ropeParameters ?? ropeScaling) as RopeParameters),
      },
    }
  }
  const { fullAttention, slidingAttention } = (ropeParameters ?? {}) as LayerRopeParameters
  return {
    full: { ropeTheta, ...fullAttention, ...ropeScaling },
    local: { ropeTheta: ropeLocalBaseFreq, ...slidingAttention },
  }
}

/** Return the configuration with the keys of its RoPE scaling as in files. */
export function published(config: DecoderLMConfig): NetworkConfig {
  const { windowInclusive, ...result }: NetworkConfig = config
  // Not a key of transformers, so it is only written if it is set.
  if (windowInclusive === true) result.windowInclusive = true
  for (const key of ROPE) {
    const value = config[key]
    if (isConfiguration(value)) result[key] = inSnake(value)
  }
  return result
}

/** Return the configuration for native code, with its row of the table of families. Lists of numbers in it are objects by index. */
export function native(config: DecoderLMConfig): NetworkConfig {
  const result = published(config)
  const { network, scales, readsLayerTypes }: Family = familyOf(typeOf(config))
  const family: FamilyNetwork & FamilyScales & { windowed_layers?: number[]; local_rope?: object } = {
    ...network,
    ...scales?.(config),
  }
  if (readsLayerTypes && Array.isArray(config.layerTypes)) {
    family.windowed_layers = config.layerTypes.map((type) => (type === SLIDING ? 1 : 0))
    delete family.first_window_layer_key
  }
  result.family = family
  const { full, local } = ropeOf(config)
  if (local) {
    family.local_rope = { rope_parameters: inSnake(local) }
    Object.assign(result, { ropeParameters: inSnake(full), ropeScaling: null })
  }
  for (const key of ROPE) {
    const scaling = result[key] as Record<string, unknown> | null | undefined
    if (typeof scaling !== 'object' || scaling === null) continue
    const lists = ['short_factor', 'long_factor'].flatMap((name) => {
      const list = scaling[name]
      return Array.isArray(list) ? [[name, { ...list }] as const] : []
    })
    result[key] = { ...scaling, ...Object.fromEntries(lists) }
  }
  return result
}

const ROPE = ['ropeParameters', 'ropeScaling'] as const

function typeOf(config: DecoderLMConfig): ModelType {
  const { modelType = 'llama' } = configOf('DecoderLM', config, {})
  if ((MODEL_TYPES as unknown[]).includes(modelType)) return modelType
  throw new ConfigError(`DecoderLM: modelType: expected ${MODEL_TYPES.join(', ')}, got '${String(modelType)}'`, {
    modelType,
  })
}

const SLIDING = 'sliding_attention'
const FULL = 'full_attention'

/** Return the configuration without other names of its keys. */
function withoutAliases(config: DecoderLMConfig): DecoderLMConfig {
  const whole = { ...config }
  for (const [alias, key] of Object.entries(familyOf(typeOf(config)).aliases ?? {})) {
    const value = whole[alias]
    if (value !== undefined && value !== null && value !== whole[key]) {
      const message = `DecoderLM: ${alias}: expected the value of ${key}, ${shown(whole[key])}, got ${shown(value)}`
      throw new ConfigError(message, { [alias]: value })
    }
    delete whole[alias]
  }
  return whole
}

/**
 * Return the configuration with one name for each key. Check `layerTypes` of newer files: the attention of each layer, which in some
 * families must match the other keys.
 */
export function checkedLayers(given: DecoderLMConfig): DecoderLMConfig {
  const config = withoutAliases(given)
  const { layerTypes, maxWindowLayers = 28, numHiddenLayers } = config
  for (const key of familyOf(typeOf(config)).required ?? []) positive(config, key)
  if (layerTypes === undefined || layerTypes === null) return config
  const { network, readsLayerTypes } = familyOf(typeOf(config))
  const fail = (where: string, expected: string, value: unknown): never => {
    throw new ConfigError(`DecoderLM: ${where}: expected ${expected}, got ${shown(value)}`, { layerTypes })
  }
  if (!Array.isArray(layerTypes)) return fail('layerTypes', 'a list', layerTypes)
  if (readsLayerTypes && layerTypes.length !== numHiddenLayers) {
    fail('layerTypes', `${shown(numHiddenLayers)} elements, one for each layer`, layerTypes.length)
  }
  const first = network.first_window_layer_key === undefined ? 0 : maxWindowLayers
  const has = hasWindow(config)
  layerTypes.forEach((type: unknown, layer) => {
    const where = `layerTypes[${layer}]`
    if (!readsLayerTypes) {
      const expected = has && layer >= first ? SLIDING : FULL
      const why = 'which follows from slidingWindow, useSlidingWindow and maxWindowLayers'
      if (type !== expected) fail(where, `'${expected}', ${why}`, type)
    } else if (type === SLIDING && !has) {
      fail(where, `'${FULL}' without a slidingWindow that is used`, type)
    } else if (type !== SLIDING && type !== FULL) {
      fail(where, `'${FULL}' or '${SLIDING}'`, type)
    }
  })
  return config
}

const llama13b: DecoderLMConfig = {
  hiddenSize: 5120,
  intermediateSize: 13824,
  numHiddenLayers: 40,
  numAttentionHeads: 40,
}
const llama2: DecoderLMConfig = { maxPositionEmbeddings: 4096, rmsNormEps: 1e-5 }
const llama3: DecoderLMConfig = {
  vocabSize: 128256,
  intermediateSize: 14336,
  numKeyValueHeads: 8,
  maxPositionEmbeddings: 8192,
  rmsNormEps: 1e-5,
  ropeTheta: 500000,
}

const internlm2: DecoderLMConfig = {
  modelType: 'internlm2',
  vocabSize: 92544,
  numKeyValueHeads: 8,
  maxPositionEmbeddings: 32768,
  rmsNormEps: 1e-5,
  bias: false,
  ropeTheta: 1e6,
  ropeScaling: { ropeType: 'dynamic', factor: 2 },
}

/** Published sizes by name. */
export const sizes: Record<string, DecoderLMConfig> = {
  'llama-7b': {},
  'llama-13b': llama13b,
  'llama2-7b': llama2,
  'llama2-13b': { ...llama13b, ...llama2 },
  'llama3-8b': llama3,
  'llama3.1-8b': {
    ...llama3,
    maxPositionEmbeddings: 131072,
    ropeScaling: {
      ropeType: 'llama3',
      factor: 8,
      lowFreqFactor: 1,
      highFreqFactor: 4,
      originalMaxPositionEmbeddings: 8192,
    },
  },
  'vicuna-7b-v1.1': {},
  'vicuna-13b-v1.1': llama13b,
  'vicuna-7b-v1.5': llama2,
  'vicuna-13b-v1.5': { ...llama13b, ...llama2 },
  'mistral-7b-v0.1': { modelType: 'mistral', maxPositionEmbeddings: 32768, rmsNormEps: 1e-5 },
  'qwen2-7b': {
    modelType: 'qwen2',
    vocabSize: 152064,
    hiddenSize: 3584,
    intermediateSize: 18944,
    numHiddenLayers: 28,
    numAttentionHeads: 28,
    numKeyValueHeads: 4,
    ropeTheta: 1e6,
  },
  'qwen2-0.5b': {
    modelType: 'qwen2',
    hiddenSize: 896,
    intermediateSize: 4864,
    numHiddenLayers: 24,
    numAttentionHeads: 14,
    numKeyValueHeads: 2,
    ropeTheta: 1e6,
    tieWordEmbeddings: true,
  },
  'phi-3-mini-4k': { modelType: 'phi3', slidingWindow: 2047 },
  'internlm2-1.8b': {
    ...internlm2,
    hiddenSize: 2048,
    intermediateSize: 8192,
    numHiddenLayers: 24,
    numAttentionHeads: 16,
  },
  'internlm2-7b': { ...internlm2, intermediateSize: 14336 },
}
