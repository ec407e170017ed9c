"""Tiny decoders as llama.cpp's converter writes them, with the logits of transformers: test/fixtures/files/decoder-gguf.safetensors.

The order of q's and k's rows is that of `LlamaModel.permute` in llama.cpp's convert_hf_to_gguf.py.
"""

import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

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
CASES = [
    dict(name='llama', tie_word_embeddings=True, rope_parameters=dict(rope_type='default', rope_theta=10000.0)),
    dict(name='llama with biases', attention_bias=True, head_dim=16, rope_parameters=dict(rope_type='default', rope_theta=500.0)),
    dict(name='llama3 scaling', hidden_size=64, num_attention_heads=2, rope_parameters=dict(**LLAMA3, rope_theta=100.0)),
    dict(name='linear scaling', rope_parameters=dict(rope_type='linear', factor=4.0, rope_theta=10000.0)),
    dict(name='qwen2', rope_parameters=dict(rope_type='default', rope_theta=1e6)),
]
PARTS = {
    'input_layernorm': 'attn_norm',
    'self_attn.q_proj': 'attn_q',
    'self_attn.k_proj': 'attn_k',
    'self_attn.v_proj': 'attn_v',
    'self_attn.o_proj': 'attn_output',
    'post_attention_layernorm': 'ffn_norm',
    'mlp.gate_proj': 'ffn_gate',
    'mlp.up_proj': 'ffn_up',
    'mlp.down_proj': 'ffn_down',
}


def name_of(name):
    if name.startswith('model.layers.'):
        _, _, layer, *part, kind = name.split('.')
        return f'blk.{layer}.{PARTS[".".join(part)]}.{kind}'
    return {'model.embed_tokens.weight': 'token_embd.weight', 'model.norm.weight': 'output_norm.weight'}.get(name, 'output.weight')


def permute(weights, heads):
    return weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:]).swapaxes(1, 2).reshape(weights.shape)


def write(path, model, config, architecture):
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope['rope_theta'])
    if getattr(config, 'head_dim', None):
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    if rope['rope_type'] == 'linear':
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope['factor'])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    for name, value in model.state_dict().items():
        if name == 'lm_head.weight' and config.tie_word_embeddings:
            continue
        values = value.numpy()
        if architecture == 'llama' and '.q_proj.' in name:
            values = permute(values, config.num_attention_heads)
        if architecture == 'llama' and '.k_proj.' in name:
            values = permute(values, config.num_key_value_heads)
        kind = gguf.GGMLQuantizationType.F32
        writer.add_tensor(name_of(name), np.ascontiguousarray(values), raw_dtype=kind)
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
    is_qwen = name.startswith('qwen2')
    config = (Qwen2Config if is_qwen else LlamaConfig)(**{**SIZE, 'tie_word_embeddings': False, **options})
    config._attn_implementation = 'eager'
    model = (Qwen2ForCausalLM if is_qwen else LlamaForCausalLM)(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
            if 'norm' in key:
                parameter.add_(1)
        ids = randint(f'{name}/ids', 3, SIZE['vocab_size'], 2, 40)
        logits = model(ids).logits
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'model.gguf'
        write(path, model, config, 'qwen2' if is_qwen else 'llama')
        contents = torch.from_numpy(np.fromfile(path, np.uint8))
    fixture.case({'name': name}, **{'in': {'input_ids': ids, 'file': contents}, 'out': {'logits': logits}})


def build():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


main({'files/decoder-gguf': build})
