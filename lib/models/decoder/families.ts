import { argumentError } from '../../base/check.js'
import type { DecoderLMConfig } from './config.js'

/**
 * The table of decoder families. An entry is all that the library knows about a family: defaults and accepted values of its config.json,
 * how its network differs from LLaMA's, and its names in llama.cpp's GGUF files.
 */
export interface Family {
  /** transformers' class of the causal language model. */
  architecture: string
  /** Keys and defaults that differ from the shared ones. */
  defaults: DecoderLMConfig
  /** Keys in files whose other values would be a different network. */
  only: Readonly<Record<string, readonly unknown[]>>
  /** Keys that must be numbers above 0. */
  required?: readonly string[]
  /** Keys in files that have no effect. */
  unused?: readonly string[]
  /** Other names of keys in files. */
  aliases?: Readonly<Record<string, string>>
  /** Differences from LLaMA's network. */
  network: FamilyNetwork
  /** Factors that follow from the configuration. */
  scales?: (config: DecoderLMConfig) => FamilyScales
  /** If true, `layerTypes` selects the layers with a sliding window. Otherwise it must match the other keys. */
  readsLayerTypes?: true
  /** If true, layers with a sliding window have a separate RoPE: `ropeLocalBaseFreq`, or the parts of `ropeParameters`. */
  hasLocalRope?: true
  gguf: FamilyGguf | null
}

/** Columns of the table for native code, which native/core/models/decoder_lm_config.h explains. A `…_key` names a key of config.json. */
export interface FamilyNetwork {
  names?: Readonly<Record<string, string>>
  norms?: Norms
  qk_norm?: 'head' | 'projection'
  qkv?: 'in_order' | 'by_group'
  fused_gate?: true
  activation_key?: string
  qkv_bias?: true
  qkv_bias_key?: string
  output_bias_key?: string
  mlp_bias_key?: string
  norm_offset?: number
  partial_rotary?: true
  has_window?: true
  has_window_key?: string
  first_window_layer_key?: string
  /** Every layer has the window but those whose number, from 1, is a multiple. */
  windowed_period?: number
  windowed_period_key?: string
  /** Every layer rotates but those whose number, from 1, is a multiple. */
  rotary_period_key?: string
  /** A list with 1 for each layer that rotates. */
  rotary_layers_key?: string
  /** The layers without RoPE are those with the window. */
  windows_skip_rotary?: true
  /** Queries have the scale of Llama 4, which grows with the position: `llama_4_scaling_beta` of `rope_parameters`. */
  has_position_scale?: true
  /** Number of experts of a layer with a mixture of experts. */
  experts_key?: string
  /** Width of an expert. Default: `intermediate_size`. */
  expert_size_key?: string
  /** The weights of a token's experts are divided by their sum. */
  norm_expert_weights?: true
  norm_expert_weights_key?: string
  /** Only layers whose number, from 1, is a multiple have experts. */
  expert_period_key?: string
  /** A list of layers, from 0, without experts. */
  dense_layers_key?: string
}

/** Factors for native code. */
export interface FamilyScales {
  /** Factor of the embeddings of token ids. */
  embedding_scale?: number
  /** Factor of all embeddings, `inputsEmbeds` too. */
  input_scale?: number
  /** Factor of the outputs of attention and feed-forward blocks. */
  residual_scale?: number
  /** Factor of queries, before the usual division of scores by √headDim. */
  query_scale?: number
  logit_scale?: number
  /** A value x becomes cap · tanh(x / cap). */
  attention_cap?: number
  logit_cap?: number
}

/** Names of the norms of a layer, before (`attention`, `mlp`) and after (`…_out`) its attention and feed-forward blocks. */
export interface Norms {
  attention?: string
  mlp?: string
  attention_out?: string
  mlp_out?: string
}

/** GGUF files of a family; `null` in the table: they are not supported. */
export interface FamilyGguf {
  /** Value of general.architecture, of files that are read and written. */
  architecture: string
  /** If true, rows of q and k are in llama.cpp's order, in which adjacent rows are a RoPE pair. */
  neighbors?: true
  /** If true, GGUF files of this family can be saved. */
  writes: boolean
  /** Values that llama.cpp has for every file: keys without a name in GGUF. Others cannot be written. */
  implies?: (config: DecoderLMConfig) => DecoderLMConfig
  /** Keys of the configuration by llama.cpp's keys, without the architecture, for numbers that LLaMA has not. */
  keys?: Readonly<Record<string, string>>
  /** llama.cpp's names of parts that LLaMA has not, or that have another name there. `*` stands for the number of an expert: llama.cpp stacks them. */
  parts?: Readonly<Record<string, string>>
}

/** Keys of Ministral 3's RoPE: `mscale_all_dim`, of which llama.cpp takes `mscale` as 1, and the growth of queries with their positions. */
export const POSITION_SCALE = ['rope.scaling.yarn_log_multiplier', 'attention.temperature_scale'] as const

const LLAMA_BIASES = { qkv_bias_key: 'attention_bias', output_bias_key: 'attention_bias' } as const
/** Norms after attention and feed-forward blocks, and none before them. */
const POST_NORMS = {
  norms: { attention_out: 'post_attention_layernorm', mlp_out: 'post_feedforward_layernorm' },
} as const

/** Defaults of the loss of routers. */
const ROUTER = { outputRouterLogits: false, routerAuxLossCoef: 0.001 }

const QK_NORM_PARTS = { attn_q_norm: 'self_attn.q_norm', attn_k_norm: 'self_attn.k_norm' }
const OUT_NORM_PARTS = { post_attention_norm: 'post_attention_layernorm', post_ffw_norm: 'post_feedforward_layernorm' }
/** Defaults of Gemma 2 and 3. */
const GEMMA = {
  hiddenSize: 2304,
  intermediateSize: 9216,
  numHiddenLayers: 26,
  numAttentionHeads: 8,
  numKeyValueHeads: 4,
  headDim: 256,
  hiddenActivation: 'gelu_pytorch_tanh',
  tieWordEmbeddings: true,
  attentionBias: false,
  queryPreAttnScalar: 256,
  slidingWindow: 4096,
}
const GEMMA_NETWORK = {
  ...LLAMA_BIASES,
  norms: {
    attention: 'input_layernorm',
    attention_out: 'post_attention_layernorm',
    mlp: 'pre_feedforward_layernorm',
    mlp_out: 'post_feedforward_layernorm',
  },
  norm_offset: 1,
  activation_key: 'hidden_activation',
  has_window: true,
} as const
const GEMMA_GGUF = { writes: true, parts: { ...OUT_NORM_PARTS, ffn_norm: 'pre_feedforward_layernorm' } } as const

const gemmaScales = (config: DecoderLMConfig): FamilyScales => ({
  embedding_scale: rootOf(config.hiddenSize),
  query_scale: rootOf(config.headDim) / Math.sqrt(positive(config, 'queryPreAttnScalar')),
  attention_cap: config.attnLogitSoftcapping == null ? 0 : positive(config, 'attnLogitSoftcapping'),
  logit_cap: config.finalLogitSoftcapping == null ? 0 : positive(config, 'finalLogitSoftcapping'),
})
const gemma3Scales = (config: DecoderLMConfig): FamilyScales => gemmaScales({ ...config, attnLogitSoftcapping: null })
/** Return the `queryPreAttnScalar` of llama.cpp; `layers`: those of the network that has another one. */
const gemmaScalar = (
  { hiddenSize = 0, numAttentionHeads = 1, numHiddenLayers, headDim }: DecoderLMConfig,
  layers: number,
) => (numHiddenLayers === layers ? hiddenSize / numAttentionHeads : headDim)

export const FAMILIES = {
  llama: {
    architecture: 'LlamaForCausalLM',
    defaults: { attentionBias: false, mlpBias: false },
    only: { useSlidingWindow: [false] },
    network: { ...LLAMA_BIASES, mlp_bias_key: 'mlp_bias' },
    gguf: { architecture: 'llama', neighbors: true, writes: true },
  },
  mistral: {
    architecture: 'MistralForCausalLM',
    defaults: { intermediateSize: 14336, numKeyValueHeads: 8, maxPositionEmbeddings: 131072, slidingWindow: 4096 },
    only: { attentionBias: [false], mlpBias: [false] },
    network: { has_window: true },
    gguf: { architecture: 'llama', neighbors: true, writes: true },
  },
  ministral: {
    architecture: 'MinistralForCausalLM',
    defaults: { intermediateSize: 14336, numKeyValueHeads: 8, maxPositionEmbeddings: 131072, slidingWindow: 4096 },
    only: { attentionBias: [false], mlpBias: [false] },
    network: { has_window: true },
    readsLayerTypes: true,
    // Its files are LLaMA's there, which have a window in all layers or in none.
    gguf: null,
  },
  ministral3: {
    architecture: 'Ministral3ForCausalLM',
    defaults: {
      vocabSize: 131072,
      intermediateSize: 14336,
      numHiddenLayers: 34,
      numKeyValueHeads: 8,
      headDim: 128,
      maxPositionEmbeddings: 262144,
      rmsNormEps: 1e-5,
      slidingWindow: null,
      ropeParameters: {
        ropeType: 'yarn',
        ropeTheta: 1000000,
        factor: 16,
        originalMaxPositionEmbeddings: 16384,
        betaFast: 32,
        betaSlow: 1,
        mscale: 1,
        mscaleAllDim: 1,
        llama4ScalingBeta: 0.1,
      },
    },
    only: { attentionBias: [false], mlpBias: [false] },
    network: { has_window: true, has_position_scale: true },
    gguf: { architecture: 'mistral3', neighbors: true, writes: true },
  },
  mixtral: {
    architecture: 'MixtralForCausalLM',
    defaults: {
      intermediateSize: 14336,
      numKeyValueHeads: 8,
      maxPositionEmbeddings: 131072,
      rmsNormEps: 1e-5,
      ropeTheta: 1000000,
      slidingWindow: null,
      numExpertsPerTok: 2,
      numLocalExperts: 8,
      ...ROUTER,
    },
    only: { attentionBias: [false], mlpBias: [false], routerJitterNoise: [0] },
    network: {
      names: { mlp: 'block_sparse_moe', gate: 'w1', up: 'w3', down: 'w2' },
      has_window: true,
      experts_key: 'num_local_experts',
      norm_expert_weights: true,
    },
    gguf: {
      architecture: 'llama',
      neighbors: true,
      writes: true,
      keys: { expert_count: 'numLocalExperts', expert_used_count: 'numExpertsPerTok' },
      parts: {
        ffn_gate_inp: 'block_sparse_moe.gate',
        ffn_gate_exps: 'block_sparse_moe.experts.*.w1',
        ffn_up_exps: 'block_sparse_moe.experts.*.w3',
        ffn_down_exps: 'block_sparse_moe.experts.*.w2',
      },
    },
  },
  qwen2: {
    architecture: 'Qwen2ForCausalLM',
    defaults: {
      vocabSize: 151936,
      intermediateSize: 22016,
      maxPositionEmbeddings: 32768,
      useSlidingWindow: false,
      slidingWindow: null,
      maxWindowLayers: 28,
    },
    only: { attentionBias: [true], mlpBias: [false], useMrope: [false] },
    network: { qkv_bias: true, has_window_key: 'use_sliding_window', first_window_layer_key: 'max_window_layers' },
    gguf: { architecture: 'qwen2', writes: true },
  },
  qwen3: {
    architecture: 'Qwen3ForCausalLM',
    defaults: {
      vocabSize: 151936,
      intermediateSize: 22016,
      headDim: 128,
      maxPositionEmbeddings: 32768,
      attentionBias: false,
      useSlidingWindow: false,
      slidingWindow: 4096,
      maxWindowLayers: 28,
    },
    only: { mlpBias: [false] },
    network: {
      ...LLAMA_BIASES,
      qk_norm: 'head',
      has_window_key: 'use_sliding_window',
      first_window_layer_key: 'max_window_layers',
    },
    readsLayerTypes: true,
    gguf: {
      architecture: 'qwen3',
      writes: true,
      parts: QK_NORM_PARTS,
    },
  },
  qwen3_moe: {
    architecture: 'Qwen3MoeForCausalLM',
    defaults: {
      vocabSize: 151936,
      hiddenSize: 2048,
      intermediateSize: 6144,
      numHiddenLayers: 24,
      numKeyValueHeads: 4,
      maxPositionEmbeddings: 32768,
      attentionBias: false,
      useSlidingWindow: false,
      slidingWindow: 4096,
      decoderSparseStep: 1,
      moeIntermediateSize: 768,
      numExpertsPerTok: 8,
      numExperts: 128,
      normTopkProb: false,
      mlpOnlyLayers: [],
      ...ROUTER,
    },
    only: { mlpBias: [false] },
    // transformers 5 writes this name.
    aliases: { numLocalExperts: 'numExperts' },
    network: {
      ...LLAMA_BIASES,
      qk_norm: 'head',
      has_window_key: 'use_sliding_window',
      experts_key: 'num_experts',
      expert_size_key: 'moe_intermediate_size',
      norm_expert_weights_key: 'norm_topk_prob',
      expert_period_key: 'decoder_sparse_step',
      dense_layers_key: 'mlp_only_layers',
    },
    gguf: {
      architecture: 'qwen3moe',
      writes: true,
      keys: {
        expert_count: 'numExperts',
        expert_used_count: 'numExpertsPerTok',
        expert_feed_forward_length: 'moeIntermediateSize',
      },
      parts: {
        ...QK_NORM_PARTS,
        ffn_gate_inp: 'mlp.gate',
        ffn_gate_exps: 'mlp.experts.*.gate_proj',
        ffn_up_exps: 'mlp.experts.*.up_proj',
        ffn_down_exps: 'mlp.experts.*.down_proj',
      },
      implies: () => ({ normTopkProb: true, decoderSparseStep: 1, mlpOnlyLayers: [] }),
    },
  },
  olmo2: {
    architecture: 'Olmo2ForCausalLM',
    defaults: { vocabSize: 50304, rmsNormEps: 1e-5, attentionBias: false },
    only: { mlpBias: [false] },
    network: { ...LLAMA_BIASES, ...POST_NORMS, qk_norm: 'projection' },
    gguf: { architecture: 'olmo2', writes: true, parts: { ...QK_NORM_PARTS, ...OUT_NORM_PARTS } },
  },
  smollm3: {
    architecture: 'SmolLM3ForCausalLM',
    defaults: {
      vocabSize: 128256,
      hiddenSize: 2048,
      numHiddenLayers: 36,
      numAttentionHeads: 16,
      numKeyValueHeads: 4,
      maxPositionEmbeddings: 32768,
      ropeTheta: 2000000,
      attentionBias: false,
      mlpBias: false,
      noRopeLayers: null,
      noRopeLayerInterval: 4,
      useSlidingWindow: false,
      slidingWindow: null,
      tieWordEmbeddings: true,
    },
    only: {},
    network: {
      ...LLAMA_BIASES,
      mlp_bias_key: 'mlp_bias',
      rotary_layers_key: 'no_rope_layers',
      rotary_period_key: 'no_rope_layer_interval',
      has_window_key: 'use_sliding_window',
      windows_skip_rotary: true,
    },
    readsLayerTypes: true,
    gguf: { architecture: 'smollm3', neighbors: true, writes: true, implies: () => ({ noRopeLayerInterval: 4 }) },
  },
  granite: {
    architecture: 'GraniteForCausalLM',
    defaults: {
      attentionBias: false,
      mlpBias: false,
      embeddingMultiplier: 1,
      residualMultiplier: 1,
      attentionMultiplier: 1,
      logitsScaling: 1,
    },
    only: {},
    network: { ...LLAMA_BIASES, mlp_bias_key: 'mlp_bias' },
    scales: (config) => ({
      input_scale: positive(config, 'embeddingMultiplier'),
      residual_scale: positive(config, 'residualMultiplier'),
      query_scale: positive(config, 'attentionMultiplier') * rootOf(config.headDim),
      logit_scale: 1 / positive(config, 'logitsScaling'),
    }),
    gguf: {
      architecture: 'granite',
      neighbors: true,
      writes: true,
      keys: {
        embedding_scale: 'embeddingMultiplier',
        residual_scale: 'residualMultiplier',
        'attention.scale': 'attentionMultiplier',
        logit_scale: 'logitsScaling',
      },
    },
  },
  gemma2: {
    architecture: 'Gemma2ForCausalLM',
    defaults: {
      ...GEMMA,
      vocabSize: 256000,
      maxPositionEmbeddings: 8192,
      attnLogitSoftcapping: 50,
      finalLogitSoftcapping: 30,
    },
    only: { useBidirectionalAttention: [false] },
    required: ['slidingWindow'],
    unused: ['hiddenAct', 'cacheImplementation'],
    network: { ...GEMMA_NETWORK, windowed_period: 2 },
    scales: gemmaScales,
    readsLayerTypes: true,
    gguf: {
      ...GEMMA_GGUF,
      architecture: 'gemma2',
      keys: {
        'attention.sliding_window': 'slidingWindow',
        attn_logit_softcapping: 'attnLogitSoftcapping',
        final_logit_softcapping: 'finalLogitSoftcapping',
      },
      // llama.cpp takes another scale for the network of 27 billion parameters, which it finds by its layers.
      implies: (config) => ({ queryPreAttnScalar: gemmaScalar(config, 46), tieWordEmbeddings: true }),
    },
  },
  gemma3_text: {
    architecture: 'Gemma3ForCausalLM',
    defaults: {
      ...GEMMA,
      vocabSize: 262208,
      maxPositionEmbeddings: 131072,
      ropeTheta: 1000000,
      ropeLocalBaseFreq: 10000,
      slidingWindowPattern: 6,
      finalLogitSoftcapping: null,
    },
    only: { useBidirectionalAttention: [false] },
    required: ['slidingWindow'],
    // transformers' class computes no cap of scores either, whatever this key says.
    unused: ['hiddenAct', 'cacheImplementation', 'attnLogitSoftcapping'],
    network: { ...GEMMA_NETWORK, qk_norm: 'head', windowed_period_key: 'sliding_window_pattern' },
    scales: gemma3Scales,
    readsLayerTypes: true,
    hasLocalRope: true,
    gguf: {
      ...GEMMA_GGUF,
      architecture: 'gemma3',
      parts: { ...GEMMA_GGUF.parts, ...QK_NORM_PARTS },
      keys: { 'attention.sliding_window': 'slidingWindow' },
      implies: (config) => ({
        queryPreAttnScalar: gemmaScalar(config, 62),
        slidingWindowPattern: 6,
        ropeLocalBaseFreq: 10000,
        finalLogitSoftcapping: null,
      }),
    },
  },
  phi3: {
    architecture: 'Phi3ForCausalLM',
    defaults: {
      vocabSize: 32064,
      hiddenSize: 3072,
      intermediateSize: 8192,
      maxPositionEmbeddings: 4096,
      originalMaxPositionEmbeddings: 4096,
      rmsNormEps: 1e-5,
      slidingWindow: null,
    },
    only: { attentionBias: [false], mlpBias: [false], lmHeadBias: [false], residPdrop: [0], embdPdrop: [0] },
    // Of Phi-4's own code.
    unused: ['fullAttnMod', 'interpolateFactor'],
    network: { qkv: 'in_order', fused_gate: true, partial_rotary: true, has_window: true },
    gguf: {
      architecture: 'phi3',
      writes: false,
      // The gate is fused with it; llama.cpp uses the name of the second half.
      parts: { attn_qkv: 'self_attn.qkv_proj', ffn_up: 'mlp.gate_up_proj' },
    },
  },
  internlm2: {
    architecture: 'InternLM2ForCausalLM',
    defaults: { vocabSize: 103168, bias: true },
    only: { useSlidingWindow: [false] },
    network: {
      names: {
        head: 'output',
        embeddings: 'tok_embeddings',
        attention: 'attention',
        output: 'wo',
        mlp: 'feed_forward',
        gate: 'w1',
        up: 'w3',
        down: 'w2',
      },
      norms: { attention: 'attention_norm', mlp: 'ffn_norm' },
      qkv: 'by_group',
      qkv_bias_key: 'bias',
      output_bias_key: 'bias',
    },
    // Its fused projection is split in GGUF files, which makes it a LLaMA there.
    gguf: null,
  },
} satisfies Record<string, Family>

/** Model types of `DecoderLM`, as in config.json. */
export type ModelType = keyof typeof FAMILIES
export const MODEL_TYPES = Object.keys(FAMILIES) as ModelType[]

export const familyOf = (modelType: ModelType): Family => FAMILIES[modelType]

/** Return whether attention may be limited to a window in some layer. */
export function mayHaveWindow(modelType: ModelType): boolean {
  const { network } = familyOf(modelType)
  return network.has_window === true || network.has_window_key !== undefined
}

/** Return a number of the configuration, for a factor. @throws ConfigError for 0, a negative number and another value */
export function positive(config: DecoderLMConfig, key: string): number {
  const value = config[key]
  if (typeof value === 'number' && value > 0 && value < Number.POSITIVE_INFINITY) return value
  throw argumentError('DecoderLM', key, 'a finite number above 0', value)
}

/** Return the square root of a size, and 1 for another value, which native code refuses by name. */
const rootOf = (size: unknown): number => (typeof size === 'number' && size > 0 ? Math.sqrt(size) : 1)
