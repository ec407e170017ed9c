import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, it, vi } from 'vitest'
import { DecoderLM, type DecoderLMConfig, InternVL, type InternVLConfig, randint, randn } from '../../lib/index.js'
import { expectClose } from '../helpers.js'
import { get } from './decoder.js'

// Configurations as the published folders spell them, with all that transformers wrote into them, and few sizes.

const directory = mkdtempSync(join(tmpdir(), 'voxtorch-internvl-published-'))
afterAll(() => rmSync(directory, { recursive: true, force: true }))

/** What transformers 4.37 writes of every configuration within another. */
const GENERATION = {
  ...{ add_cross_attention: false, bad_words_ids: null, begin_suppress_tokens: null, chunk_size_feed_forward: 0 },
  ...{ cross_attention_hidden_size: null, decoder_start_token_id: null, diversity_penalty: 0.0, do_sample: false },
  ...{ early_stopping: false, encoder_no_repeat_ngram_size: 0, exponential_decay_length_penalty: null },
  ...{ finetuning_task: null, forced_bos_token_id: null, forced_eos_token_id: null, is_decoder: false },
  ...{ id2label: { '0': 'LABEL_0', '1': 'LABEL_1' }, label2id: { LABEL_0: 0, LABEL_1: 1 }, length_penalty: 1.0 },
  ...{ max_length: 20, min_length: 0, no_repeat_ngram_size: 0, num_beam_groups: 1, num_beams: 1 },
  ...{ num_return_sequences: 1, output_attentions: false, output_hidden_states: false, output_scores: false },
  ...{ prefix: null, problem_type: null, pruned_heads: {}, remove_invalid_values: false, repetition_penalty: 1.0 },
  ...{ return_dict: true, return_dict_in_generate: false, sep_token_id: null, suppress_tokens: null },
  ...{ task_specific_params: null, temperature: 1.0, tf_legacy_loss: false, tie_encoder_decoder: false },
  ...{ tie_word_embeddings: false, tokenizer_class: null, top_k: 50, top_p: 1.0, torch_dtype: 'bfloat16' },
  ...{ torchscript: false, transformers_version: '4.37.2', typical_p: 1.0, use_bfloat16: true },
}
const VISION = {
  ...GENERATION,
  ...{ architectures: ['InternVisionModel'], attention_dropout: 0.0, drop_path_rate: 0.1, dropout: 0.0 },
  ...{ hidden_act: 'gelu', hidden_size: 16, image_size: 28, initializer_factor: 1.0, initializer_range: 0.02 },
  ...{ intermediate_size: 32, layer_norm_eps: 1e-6, model_type: 'intern_vit_6b', norm_type: 'layer_norm' },
  ...{ num_attention_heads: 2, num_channels: 3, num_hidden_layers: 2, patch_size: 7 },
  ...{ qk_normalization: false, qkv_bias: true, use_flash_attn: true },
}
const WHOLE = {
  ...{ _commit_hash: null, architectures: ['InternVLChatModel'] },
  auto_map: {
    AutoConfig: 'configuration_internvl_chat.InternVLChatConfig',
    AutoModel: 'modeling_internvl_chat.InternVLChatModel',
    AutoModelForCausalLM: 'modeling_internvl_chat.InternVLChatModel',
  },
  ...{ downsample_ratio: 0.5, dynamic_image_size: true, force_image_size: 28, max_dynamic_patch: 12 },
  ...{ min_dynamic_patch: 1, model_type: 'internvl_chat', pad2square: false, ps_version: 'v2', select_layer: -1 },
  ...{ torch_dtype: 'bfloat16', transformers_version: null, use_backbone_lora: 0, use_llm_lora: 0 },
  ...{ use_thumbnail: true, vision_config: VISION },
}
const SIZES = {
  ...{ hidden_size: 32, intermediate_size: 40, num_attention_heads: 4, num_hidden_layers: 2, vocab_size: 61 },
  ...{ hidden_act: 'silu', initializer_range: 0.02, use_cache: true, attention_dropout: 0.0 },
}
const FACTORS = { long_factor: [1.05, 2, 3.5, 6.25], short_factor: [1, 1.1, 1.25, 1.5] }
const CONFIGS = {
  '1B': {
    ...{ ...WHOLE, template: 'Hermes-2' },
    llm_config: {
      ...{ ...GENERATION, ...SIZES, _name_or_path: 'Qwen/Qwen2-0.5B-Instruct', architectures: ['Qwen2ForCausalLM'] },
      ...{ model_type: 'qwen2', num_key_value_heads: 2, max_position_embeddings: 32768, max_window_layers: 24 },
      ...{ rms_norm_eps: 1e-6, rope_theta: 1000000.0, sliding_window: 32768, use_sliding_window: false },
      ...{ bos_token_id: 1, eos_token_id: 2, pad_token_id: null, attn_implementation: 'flash_attention_2' },
    },
  },
  '2B': {
    ...{ ...WHOLE, template: 'internlm2-chat' },
    llm_config: {
      ...{ ...GENERATION, ...SIZES, _name_or_path: 'internlm/internlm2-chat-1_8b' },
      ...{ architectures: ['InternLM2ForCausalLM'], attn_implementation: 'flash_attention_2' },
      auto_map: {
        AutoConfig: 'configuration_internlm2.InternLM2Config',
        AutoModel: 'modeling_internlm2.InternLM2ForCausalLM',
      },
      ...{ bias: false, bos_token_id: 1, eos_token_id: 2, pad_token_id: 2, max_position_embeddings: 32768 },
      ...{ model_type: 'internlm2', num_key_value_heads: 2, rms_norm_eps: 1e-5, rope_theta: 1000000 },
      rope_scaling: { factor: 2.0, type: 'dynamic' },
    },
  },
  '4B': {
    ...{ ...WHOLE, template: 'phi3-chat' },
    llm_config: {
      ...{ ...GENERATION, ...SIZES, _name_or_path: 'microsoft/Phi-3-mini-128k-instruct' },
      ...{ architectures: ['Phi3ForCausalLM'], attn_implementation: 'flash_attention_2', embd_pdrop: 0.0 },
      auto_map: {
        AutoConfig: 'configuration_phi3.Phi3Config',
        AutoModelForCausalLM: 'modeling_phi3.Phi3ForCausalLM',
      },
      ...{ bos_token_id: 1, eos_token_id: 32000, pad_token_id: 0, max_position_embeddings: 131072 },
      ...{ model_type: 'phi3', num_key_value_heads: 4, original_max_position_embeddings: 4096 },
      ...{ resid_pdrop: 0.0, rms_norm_eps: 1e-5, rope_theta: 10000.0, sliding_window: 262144 },
      rope_scaling: { ...FACTORS, type: 'su' },
    },
  },
  '40B': {
    ...{ ...WHOLE, template: 'Hermes-2' },
    llm_config: {
      ...{ ...GENERATION, ...SIZES, _name_or_path: 'NousResearch/Nous-Hermes-2-Yi-34B' },
      ...{ architectures: ['LlamaForCausalLM'], attention_bias: false, bos_token_id: 1, eos_token_id: 7 },
      ...{ model_type: 'llama', num_key_value_heads: 2, max_position_embeddings: 4096, pad_token_id: 0 },
      ...{ pretraining_tp: 1, rms_norm_eps: 1e-5, rope_scaling: null, rope_theta: 5000000.0 },
    },
  },
  // InternVL3-1B, whose vision part lists settings of experts that it does not have.
  '3-1B': {
    ...{ ...WHOLE, template: 'internvl2_5', system_message: null, image_fold: null, hidden_size: 32 },
    vision_config: {
      ...{
        ...VISION,
        initializer_factor: 0.1,
        initializer_range: 1e-10,
        capacity_factor: 1.2,
        eval_capacity_factor: 1.4,
      },
      ...{ laux_allreduce: 'all_nodes', moe_coeff_ratio: 0.5, moe_intermediate_size: 768, moe_output_scale: 4.0 },
      ...{ noisy_gate_policy: 'RSample_before', num_experts: 8, num_routed_experts: 4, num_shared_experts: 4 },
      ...{ shared_expert_intermediate_size: 3072, use_moe: false, use_residual: true, use_rts: false },
      ...{ use_weighted_residual: false },
    },
    llm_config: {
      ...{ ...SIZES, _name_or_path: './pretrained/Qwen2.5-32B-Instruct', architectures: ['Qwen2ForCausalLM'] },
      ...{ model_type: 'qwen2', num_key_value_heads: 2, max_position_embeddings: 32768, max_window_layers: 70 },
      ...{ rms_norm_eps: 1e-6, rope_theta: 1000000.0, sliding_window: null, use_sliding_window: false },
      ...{ bos_token_id: 151643, eos_token_id: 151643, moe_config: null, torch_dtype: 'bfloat16', use_bfloat16: true },
      layer_types: ['full_attention', 'full_attention'],
      rope_scaling: { factor: 2.0, rope_type: 'dynamic', type: 'dynamic' },
    },
  },
}
const KINDS = {
  '1B': { modelType: 'qwen2', ropeTheta: 1e6, rmsNormEps: 1e-6 },
  '2B': { modelType: 'internlm2', ropeTheta: 1e6, rmsNormEps: 1e-5, bias: false, ropeScaling: { type: 'dynamic', factor: 2 } },
  '4B': { modelType: 'phi3', ropeTheta: 1e4, rmsNormEps: 1e-5, originalMaxPositionEmbeddings: 4096, maxPositionEmbeddings: 131072, ropeScaling: { type: 'su', longFactor: FACTORS.long_factor, shortFactor: FACTORS.short_factor } },
  '40B': { modelType: 'llama', ropeTheta: 5e6, rmsNormEps: 1e-5 },
  '3-1B': { modelType: 'qwen2', ropeTheta: 1e6, rmsNormEps: 1e-6, ropeScaling: { ropeType: 'dynamic', factor: 2 } },
} as const // biome-ignore format: long lines

it.each(['1B', '2B', '4B', '40B', '3-1B'] as const)(
  'a configuration as that of %s is read, key by key',
  async (size) => {
    const wanted = KINDS[size]
    const sizes = { hiddenSize: 32, intermediateSize: 40, numAttentionHeads: 4, numHiddenLayers: 2, vocabSize: 61 }
    const keyValues = { numKeyValueHeads: size === '4B' ? 4 : 2, tieWordEmbeddings: false }
    const own: InternVLConfig = {
      visionConfig: {
        ...{ hiddenSize: 16, imageSize: 28, intermediateSize: 32, numAttentionHeads: 2, numHiddenLayers: 2 },
        ...{ patchSize: 7, qkNormalization: false, qkvBias: true, normType: 'layer_norm', initializerFactor: 1 },
      },
      llmConfig: { ...sizes, ...keyValues, ...wanted } as DecoderLMConfig,
      forceImageSize: 28,
    }
    const model = InternVL.fromConfig(own, { seed: 5 }).eval()
    const folder = join(directory, size)
    await model.save(folder)
    writeFileSync(join(folder, 'config.json'), JSON.stringify(CONFIGS[size], null, 2))

    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const again = await InternVL.fromPretrained(folder, { dtype: 'float32' })
    expect(warn.mock.calls).toEqual([])
    warn.mockRestore()
    const { llm_config: _, ...whole } = CONFIGS[size]
    expect(again.config).toMatchObject({
      ...{ template: whole.template, downsampleRatio: 0.5, psVersion: 'v2', selectLayer: -1, forceImageSize: 28 },
      ...{ minDynamicPatch: 1, maxDynamicPatch: 12, useThumbnail: true },
      visionConfig: { normType: 'layer_norm', qkNormalization: false, qkvBias: true, dropPathRate: 0.1, patchSize: 7 },
    })
    const { ropeScaling, ...rest } = wanted as DecoderLMConfig
    expect(again.language_model.config).toMatchObject({ ...sizes, ...keyValues, ...rest })
    if (ropeScaling) expect(again.language_model.config.ropeScaling).toMatchObject(ropeScaling)
    // It computes what the network computes whose configuration was given by hand; drop path is for training.
    const inputIds = randint(1, 61, [2, 9])
    const pixels = randn([2, 3, 28, 28])
    const logits = async (one: InternVL) => get((await one.language_model.forward({ inputIds })).logits)
    expectClose(await logits(again), await logits(model), 1e-6)
    expectClose(await again.encodeImages(pixels), await model.encodeImages(pixels), 1e-6)
    // And is what it was when it is written anew.
    await again.save(join(directory, `${size}-again`))
    const third = await InternVL.fromPretrained(join(directory, `${size}-again`), { dtype: 'float32' })
    expect(third.config).toMatchObject({ template: whole.template, forceImageSize: 28, maxDynamicPatch: 12 })
    expectClose(await logits(third), await logits(model), 1e-6)
    await expect(DecoderLM.fromPretrained(folder)).rejects.toThrow(/InternVL/)
  },
)
