import { shown } from '../../base/arguments.js'
import { ConfigError } from '../../base/errors.js'
import { quoted } from '../../files/byte-source.js'
import type { GgufFile } from '../../files/gguf/gguf.js'
import type { GgufValue } from '../../files/gguf/types.js'
import type { GenerationConfig } from '../../generation/config.js'
import type { DecoderLMConfig } from './config.js'
import { familyOf, type ModelType, POSITION_SCALE } from './families.js'

/**
 * The keys of a GGUF header that do not become a configuration, as in llama.cpp
 * (https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py). Each of them has no effect on the numbers, or has a value
 * without effect, or is an error. A process warning names unknown keys.
 */

/** Keys of an architecture, without its name, that `configOf` reads, or that have no effect on the numbers. */
const READ: ReadonlySet<string> = new Set([
  'attention.head_count',
  'attention.head_count_kv',
  'attention.key_length',
  'attention.layer_norm_rms_epsilon',
  'attention.sliding_window',
  'attention.value_length',
  'block_count',
  'context_length',
  'embedding_length',
  'feed_forward_length',
  'rope.dimension_count',
  'rope.freq_base',
  'rope.scale_linear',
  'rope.scaling.attn_factor',
  'rope.scaling.factor',
  'rope.scaling.finetuned',
  'rope.scaling.original_context_length',
  'rope.scaling.type',
  'rope.scaling.yarn_attn_factor',
  'rope.scaling.yarn_beta_fast',
  'rope.scaling.yarn_beta_slow',
  'vocab_size',
])

type Neutral = readonly GgufValue[] | ((config: DecoderLMConfig) => readonly GgufValue[])

/** Values with which a key has no effect on these networks. */
const NEUTRAL: Readonly<Record<string, Neutral>> = {
  'attention.causal': [true],
  'attention.key_length_swa': ({ headDim }) => [0, headDim as number],
  'attention.layer_norm_epsilon': ({ rmsNormEps }) => [rmsNormEps as number, Math.fround(rmsNormEps as number)],
  'attention.output_scale': [0, 1],
  'attention.scale': ({ headDim }) => [0, (headDim as number) ** -0.5, Math.fround((headDim as number) ** -0.5)],
  'attention.value_length_swa': ({ headDim }) => [0, headDim as number],
  embedding_length_out: ({ hiddenSize }) => [0, hiddenSize as number],
  embedding_scale: [0, 1],
  // llama.cpp's number of softmax.
  expert_gating_func: [0, 1],
  expert_weights_scale: [0, 1],
  logit_scale: [0, 1],
  residual_scale: [0, 1],
  'rope.dimension_count_swa': ({ headDim }) => [0, headDim as number],
  'rope.freq_base_swa': ({ ropeTheta, ropeLocalBaseFreq: base = ropeTheta as number }) => [0, base, Math.fround(base)],
  'rope.scaling.alpha': [0, 1],
  'rope.scaling.yarn_ext_factor': [-1, 1],
  tensor_data_layout: ['reference', 'Meta AI original pth'],
}

/** Keys that mean another network, other layers or other operations unless they are 0 or false. */
const OTHER_NETWORKS: ReadonlySet<string> = new Set(
  `activation_sparsity_scale altup.active_idx altup.num_inputs attention.clamp_kqv attention.decay_lora_rank
  attention.gate_lora_rank attention.group_norm_epsilon attention.group_norm_groups attention.iclr_lora_rank
  attention.indexer.head_count attention.indexer.key_length attention.indexer.top_k attention.key_length_mla
  attention.kv_lora_rank attention.max_alibi_bias attention.q_lora_rank attention.relative_buckets_count
  attention.shared_kv_layers attention.sliding_window_pattern attention.temperature_length attention.temperature_scale
  attention.value_length_mla attention.value_residual_mix_lora_rank attn_logit_softcapping classifier.output_labels
  convnext.block_count convnext.embedding_length decoder_block_count decoder_start_token_id dense_2_feat_in
  dense_2_feat_out dense_3_feat_in dense_3_feat_out embedding_length_per_layer_input expert_chunk_feed_forward_length
  expert_count expert_feed_forward_length expert_group_count expert_group_scale
  expert_group_used_count expert_shared_count expert_shared_feed_forward_length expert_used_count expert_weights_norm
  experts_per_group features_length final_logit_softcapping full_attention_interval interleave_moe_layer_step
  kda.head_dim leading_dense_block_count moe_every_n_layers moe_latent_size n_deepstack_layers nextn_predict_layers
  pooling_type posnet.block_count posnet.embedding_length rescale_every_n_layers rope.dimension_sections
  rope.scaling.yarn_log_multiplier router_logit_softcapping shortconv.l_cache ssm.conv_kernel ssm.dt_b_c_rms
  ssm.group_count ssm.inner_size ssm.state_size ssm.time_step_rank swiglu_clamp_exp swiglu_clamp_shexp swin_norm
  time_decay_extra_dim time_mix_extra_dim token_shift_count use_parallel_residual wkv.head_size`.split(/\s+/),
)

/** Prefixes of keys without effect on a network: origin of the file, and keys for other readers. */
const NO_EFFECT = ['general.', 'imatrix.', 'quantize.', 'split.', 'tokenizer.', 'training.']
const SAMPLING = 'general.sampling.'
/** Maximum number of unknown keys in a warning. */
const MAX_NAMED = 8

/** @throws ConfigError naming a key for an operation that these networks do not have */
export function checkKeys({ path, metadata, architecture }: GgufFile, config: DecoderLMConfig): void {
  const fail = (key: string, expected: string, value: GgufValue, advice: string): never => {
    throw new ConfigError(`${path}: ${key}: expected ${expected}, got ${shown(value)}. ${advice}`, {
      file: path,
      field: key,
    })
  }
  const unknown: string[] = []
  const ownKeys = familyOf(config.modelType as ModelType).gguf?.keys ?? {}
  const { has_position_scale: isScaled } = familyOf(config.modelType as ModelType).network
  const isOptional = familyOf(config.modelType as ModelType).network.has_window_key !== undefined
  for (const [key, value] of Object.entries(metadata)) {
    if (key === 'general.type' && value !== 'model') {
      fail(key, "'model'", value, 'Load the file of the network that it belongs to.')
    }
    if (key === 'general.quantization_version' && value !== 2) {
      fail(key, '2', value, 'Quantize the network again: other versions have another block layout.')
    }
    if (key.startsWith(SAMPLING)) {
      if (!isSampling(key.slice(SAMPLING.length), metadata)) unknown.push(key)
    } else if (key.startsWith(`${architecture}.`)) {
      const name = key.slice((architecture as string).length + 1)
      // llama.cpp's Qwen2 and Qwen3 have no window, and the file does not say which layers would have it.
      if (name === 'attention.sliding_window' && isOptional && value !== 0) unknown.push(key)
      if (READ.has(name) || Object.hasOwn(ownKeys, name)) continue
      if (isScaled && (POSITION_SCALE as readonly string[]).includes(name)) continue
      const neutral = Object.hasOwn(NEUTRAL, name) ? NEUTRAL[name] : OTHER_NETWORKS.has(name) ? [0, false] : undefined
      if (neutral === undefined) {
        unknown.push(key)
        continue
      }
      const values = typeof neutral === 'function' ? neutral(config) : neutral
      if (isOneOf(value, values)) continue
      fail(key, values.map(shown).join(' or '), value, 'DecoderLM does not support other values.')
    } else if (!NO_EFFECT.some((prefix) => key.startsWith(prefix))) {
      unknown.push(key)
    }
  }
  if (unknown.length === 0) return
  const more = unknown.length > MAX_NAMED ? ` and ${unknown.length - MAX_NAMED} more` : ''
  process.emitWarning(`${path}: ignored keys: ${unknown.slice(0, MAX_NAMED).map(quoted).join(', ')}${more}`, {
    type: 'GgufWarning',
  })
}

/** Return whether a value, or each element of a list (one number per layer), is one of the values. */
function isOneOf(value: GgufValue, values: readonly GgufValue[]): boolean {
  if (typeof value !== 'object') return values.includes(value)
  return Array.from(value as ArrayLike<GgufValue>).every((one) => values.includes(one))
}

/**
 * Return the sampling settings that the header recommends, under the names of a generation configuration. They apply when sampling is on;
 * the header does not turn it on.
 */
export function samplingOf({ metadata }: GgufFile): GenerationConfig {
  const result: Record<string, number> = {}
  for (const [theirs, [ours]] of Object.entries(SAMPLING_KEYS)) {
    const value = metadata[SAMPLING + theirs]
    if (isSampling(theirs, metadata) && value !== undefined) result[ours] = value as number
  }
  return result as GenerationConfig
}

const isProbability = (value: number): boolean => value >= 0 && value <= 1
const SAMPLING_KEYS: Readonly<Record<string, [key: keyof GenerationConfig, test: (value: number) => boolean]>> = {
  temp: ['temperature', (value) => value > 0],
  top_k: ['topK', (value) => Number.isSafeInteger(value) && value >= 0],
  top_p: ['topP', isProbability],
  min_p: ['minP', isProbability],
  penalty_repeat: ['repetitionPenalty', (value) => value > 0],
}
/** Values of other sampling keys that have no effect. */
const NO_SAMPLING: Readonly<Record<string, readonly GgufValue[]>> = { xtc_probability: [0], mirostat: [0] }

/** Return whether a sampling key has a supported value. */
function isSampling(name: string, metadata: Readonly<Record<string, GgufValue>>): boolean {
  const value = metadata[SAMPLING + name] as GgufValue
  if (Object.hasOwn(NO_SAMPLING, name)) return (NO_SAMPLING[name] as readonly GgufValue[]).includes(value)
  // The repetition penalty always applies to the whole text, not to its last tokens.
  if (name === 'penalty_last_n') return value === -1
  if (name === 'penalty_repeat' && (metadata[`${SAMPLING}penalty_last_n`] ?? -1) !== -1) return value === 1
  const [, test] = Object.hasOwn(SAMPLING_KEYS, name) ? (SAMPLING_KEYS[name] as (typeof SAMPLING_KEYS)[string]) : []
  return typeof value === 'number' && test?.(value) === true
}
