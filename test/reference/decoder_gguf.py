"""Tiny decoders as llama.cpp's converter writes them, with the logits of transformers: test/fixtures/files/decoder-gguf.safetensors,
and of families whose projections are fused in transformers: decoder-gguf-fused.safetensors.

The order of q's and k's rows is that of `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py.
"""

import sys
import tempfile
import types
from pathlib import Path

# The wheel of torchvision on PyPI is for CUDA: without its operators it loads but for this table of shapes.
sys.modules['torchvision._meta_registrations'] = types.ModuleType('torchvision._meta_registrations')

import gguf
import numpy as np
import torch
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Ministral3Config,
    Ministral3ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from common import Fixture, main, randint, randn

SIZE = dict(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
)
LLAMA3 = dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
LONGROPE = dict(rope_type='longrope', rope_theta=10000.0, short_factor=[1.0, 1.1, 1.25, 1.5], long_factor=[1.0, 1.7, 3.0, 5.5])
SMALL = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1)
MULTIPLIERS = dict(embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=2.5)
LOCAL = dict(
    full_attention=dict(rope_type='linear', rope_theta=1000.0, factor=2.0),
    sliding_attention=dict(rope_type='default', rope_theta=10000.0),
)
YARN = dict(rope_type='yarn', rope_theta=1e4, factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0)
FEW = {**SMALL, 'num_hidden_layers': 2}
CASES = [
    dict(name='llama', tie_word_embeddings=True, rope_parameters=dict(rope_type='default', rope_theta=10000.0)),
    dict(name='llama with biases', attention_bias=True, head_dim=16, rope_parameters=dict(rope_type='default', rope_theta=500.0)),
    dict(name='llama3 scaling', hidden_size=64, num_attention_heads=2, rope_parameters=dict(**LLAMA3, rope_theta=100.0)),
    dict(name='linear scaling', rope_parameters=dict(rope_type='linear', factor=4.0, rope_theta=10000.0)),
    dict(name='qwen2', rope_parameters=dict(rope_type='default', rope_theta=1e6)),
    dict(name='qwen3', **FEW, head_dim=16, rope_parameters=dict(rope_type='default', rope_theta=1e6)),
    dict(name='olmo2', **FEW, rope_parameters=dict(rope_type='default', rope_theta=500000.0)),
    dict(name='smollm3', pad_token_id=0, **{**SMALL, 'num_hidden_layers': 4}, rope_parameters=dict(rope_type='default', rope_theta=2e6)),
    dict(name='granite', **FEW, **MULTIPLIERS, rope_parameters=dict(rope_type='default', rope_theta=1e7)),
    dict(name='gemma2', **FEW, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, tie_word_embeddings=True, rope_parameters=dict(rope_type='default', rope_theta=1e4)),
    dict(name='gemma3', **{**SMALL, 'num_hidden_layers': 6}, head_dim=8, query_pre_attn_scalar=8, sliding_window=16, tie_word_embeddings=True, rope_parameters=LOCAL),
    dict(name='mistral', **FEW, head_dim=8, sliding_window=16, rope_parameters=dict(rope_type='default', rope_theta=1e4)),
    dict(name='mistral3', pad_token_id=0, **FEW, head_dim=8, rope_parameters=dict(**YARN, mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.5)),
    dict(name='mistral3 of another magnitude', pad_token_id=0, **FEW, head_dim=8, rope_parameters=dict(**YARN, mscale=1.0, mscale_all_dim=0.5, llama_4_scaling_beta=0.1)),
    dict(name='mixtral', **FEW, num_local_experts=3, num_experts_per_tok=2, rope_parameters=dict(rope_type='default', rope_theta=1e6)),
    dict(name='qwen3moe', **FEW, head_dim=16, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=8, norm_topk_prob=True, rope_parameters=dict(rope_type='default', rope_theta=1e6)),
]
FUSED = [
    # The converter takes InternLM2's fused projection apart: its files hold a LLaMA under another name.
    dict(name='internlm2', rope_parameters=dict(rope_type='default', rope_theta=1e6)),
    dict(name='phi3', rope_parameters=dict(rope_type='default', rope_theta=10000.0)),
    dict(name='phi3 long factors', original_max_position_embeddings=16, rope_parameters=LONGROPE),
    dict(name='phi3 short factors', original_max_position_embeddings=48, rope_parameters=LONGROPE),
    dict(name='phi3 partial', rope_parameters=dict(rope_type='default', rope_theta=10000.0, partial_rotary_factor=0.5)),
]
NETWORKS = {
    'llama': (LlamaConfig, LlamaForCausalLM),
    'internlm2': (LlamaConfig, LlamaForCausalLM),
    'qwen2': (Qwen2Config, Qwen2ForCausalLM),
    'phi3': (Phi3Config, Phi3ForCausalLM),
    'qwen3': (Qwen3Config, Qwen3ForCausalLM),
    'olmo2': (Olmo2Config, Olmo2ForCausalLM),
    'smollm3': (SmolLM3Config, SmolLM3ForCausalLM),
    'granite': (GraniteConfig, GraniteForCausalLM),
    'gemma2': (Gemma2Config, Gemma2ForCausalLM),
    'gemma3': (Gemma3TextConfig, Gemma3ForCausalLM),
    'mistral': (MistralConfig, MistralForCausalLM),
    'mistral3': (Ministral3Config, Ministral3ForCausalLM),
    'mixtral': (MixtralConfig, MixtralForCausalLM),
    'qwen3moe': (Qwen3MoeConfig, Qwen3MoeForCausalLM),
}
PARTS = {
    'input_layernorm': 'attn_norm',
    'self_attn.qkv_proj': 'attn_qkv',
    'mlp.gate_up_proj': 'ffn_up',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.q_norm': 'attn_q_norm',
    'self_attn.k_norm': 'attn_k_norm',
    'self_attn.o_proj': 'attn_output',
    'post_attention_layernorm': 'ffn_norm',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
    'mlp.gate': 'ffn_gate_inp',
    'mlp.experts.gate_proj': 'ffn_gate_exps',
    'mlp.experts.up_proj': 'ffn_up_exps',
    'mlp.experts.down_proj': 'ffn_down_exps',
}


# After these, too, there are norms.
OUT_NORMS = {'post_attention_layernorm': 'post_attention_norm', 'post_feedforward_layernorm': 'post_ffw_norm'}
# Those whose rows of q and k `LlamaModel.permute` reorders.
NEIGHBORS = ['llama', 'mistral', 'mistral3', 'mixtral', 'internlm2', 'smollm3', 'granite']
OUT_NORMED = ['olmo2', 'gemma2', 'gemma3']
# Their norms multiply by weight + 1.
OFFSET = ['gemma2', 'gemma3']


def name_of(name, architecture):
    if name.startswith('model.layers.'):
        _, _, layer, *part, kind = name.split('.')
        parts = {**PARTS, **OUT_NORMS} if architecture in OUT_NORMED else PARTS
        parts = {**parts, 'pre_feedforward_layernorm': 'ffn_norm'}
        return f'blk.{layer}.{parts[".".join(part)]}.{kind}'
    return {'model.embed_tokens.weight': 'token_embd.weight', 'model.norm.weight': 'output_norm.weight'}.get(name, 'output.weight')


def permute(weights, heads):
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def write(path, model, config, architecture):
    writer = gguf.GGUFWriter(path, 'llama' if architecture in ('mistral', 'mixtral') else architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rope = config.rope_parameters
    rope = rope.get('full_attention', rope)
    writer.add_rope_freq_base(rope['rope_theta'])
    if getattr(config, 'head_dim', None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if architecture == 'granite':
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if architecture == 'gemma2':
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)
    if architecture in [*OFFSET, 'mistral']:
        writer.add_sliding_window(config.sliding_window)
    if architecture in ('mixtral', 'qwen3moe'):
        writer.add_expert_count(config.num_local_experts if architecture == 'mixtral' else config.num_experts)
        writer.add_expert_used_count(config.num_experts_per_tok)
    if architecture == 'qwen3moe':
        writer.add_expert_feed_forward_length(config.moe_intermediate_size)
    if architecture == 'mistral3':
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(rope['factor'])
        writer.add_rope_scaling_orig_ctx_len(rope['original_max_position_embeddings'])
        writer.add_rope_scaling_yarn_beta_fast(rope['beta_fast'])
        writer.add_rope_scaling_yarn_beta_slow(rope['beta_slow'])
        writer.add_rope_scaling_yarn_log_mul(rope['mscale_all_dim'])
        writer.add_attn_temperature_scale(rope['llama_4_scaling_beta'])
    if rope['rope_type'] == 'linear':
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope['factor'])
    if architecture == 'phi3':
        part = rope.get('partial_rotary_factor', 1.0)
        writer.add_rope_dimension_count(int(part * config.hidden_size) // config.num_attention_heads)
        writer.add_rope_scaling_orig_ctx_len(config.original_max_position_embeddings)
        writer.add_sliding_window(config.sliding_window or 0)
    if rope['rope_type'] == 'longrope':
        scale = config.max_position_embeddings / config.original_max_position_embeddings
        attention = (1 + np.log(scale) / np.log(config.original_max_position_embeddings)) ** 0.5
        writer.add_rope_scaling_attn_factors(float(attention))
        for length in ('long', 'short'):
            factors = np.array(rope[f'{length}_factor'], dtype=np.float32)
            writer.add_tensor(f'rope_factors_{length}.weight', factors)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    state = {}
    for name, value in model.state_dict().items():
        # The converter stacks the experts of published checkpoints, and transformers 5 halves of them together.
        stack, _, kind = name.rpartition('.')
        if kind == 'gate_up_proj' and stack.endswith('.experts'):
            state[f'{stack}.gate_proj.weight'], state[f'{stack}.up_proj.weight'] = value.chunk(2, 1)
        else:
            state[f'{name}.weight' if stack.endswith('.experts') else name] = value
    for name, value in state.items():
        if name == 'lm_head.weight' and config.tie_word_embeddings:
            continue
        values = value.numpy()
        if architecture in NEIGHBORS and '.q_proj.' in name:
            values = permute(values, config.num_attention_heads)
        if architecture in NEIGHBORS and '.k_proj.' in name:
            values = permute(values, config.num_key_value_heads)
        if architecture in OFFSET and name.endswith('norm.weight'):
            values = values + 1
        kind = gguf.GGMLQuantizationType.F32
        writer.add_tensor(name_of(name, architecture), np.ascontiguousarray(values), raw_dtype=kind)
    if rope['rope_type'] == 'llama3':
        dim = config.hidden_size // config.num_attention_heads
        plain = rope['rope_theta'] ** -(np.arange(0, dim, 2) / dim)
        factors = plain / model.model.rotary_emb.inv_freq.numpy()
        writer.add_tensor('rope_freqs.weight', factors.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def one(fixture, name, **options):
    architecture = next((known for known in NETWORKS if name.split()[0] == known), 'llama')
    make, network = NETWORKS[architecture]
    more = dict(pad_token_id=0) if architecture == 'phi3' else {}
    config = make(**{**SIZE, 'tie_word_embeddings': False, **more, **options})
    config._attn_implementation = 'eager'
    model = network(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
            if 'norm' in key:
                parameter.add_(1)
        ids = randint(f'{name}/ids', 3, SIZE['vocab_size'], 2, 40)
        logits = model(ids).logits
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'model.gguf'
        write(path, model, config, architecture)
        contents = torch.from_numpy(np.fromfile(path, np.uint8))
    fixture.case({'name': name}, **{'in': {'input_ids': ids, 'file': contents}, 'out': {'logits': logits}})


def build():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


def build_fused():
    fixture = Fixture()
    for case in FUSED:
        one(fixture, **SMALL, **case)
    return fixture


main({'files/decoder-gguf': build, 'files/decoder-gguf-fused': build_fused})
