"""Tiny networks of wav2vec 2.0 and its relatives with random weights, computed by transformers: one file for each kind in
test/fixtures/models.

In float64, stored as float32: the gradient of a bias before a norm, which is 0, would be float32's noise.
"""

import functools

import torch
import transformers
from transformers.models.wavlm import modeling_wavlm

from common import Fixture, main, rand, randn

PREFIXES = {
    'wav2vec2': 'Wav2Vec2',
    'wavlm': 'WavLM',
    'hubert': 'Hubert',
    'data2vec-audio': 'Data2VecAudio',
    'wav2vec2-conformer': 'Wav2Vec2Conformer',
    'wav2vec2-bert': 'Wav2Vec2Bert',
}

SIZE = dict(
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=20,
    conv_dim=[6, 8, 10],
    conv_kernel=[10, 3, 2],
    conv_stride=[5, 2, 2],
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
)
STABLE = dict(feat_extract_norm='layer', do_stable_layer_norm=True)
# The stack of the published SPECTRA audio encoder, and fields of its file that a network does not read.
EIGHT = dict(
    conv_dim=[6] * 8,
    conv_kernel=[10, 3, 3, 3, 3, 2, 2, 5],
    conv_stride=[5, 2, 2, 2, 2, 2, 2, 5],
    num_feat_extract_layers=8,
    max_length=160000,
)
NEAR = dict(num_buckets=12, max_bucket_distance=9)  # so that 15 frames reach the last bucket
FAR = dict(  # 819 frames reach the last bucket of the published configuration
    hidden_size=4,
    intermediate_size=4,
    num_conv_pos_embedding_groups=2,
    conv_dim=[4],
    conv_kernel=[2],
    conv_stride=[1],
)

# What w2v-BERT 2.0, which reads spectra, has of these.
MEL_SIZE = {key: value for key, value in SIZE.items() if 'conv' not in key} | dict(feature_projection_input_dim=6)
CONFORMER = dict(conv_depthwise_kernel_size=5)
SHORT = dict(**CONFORMER, max_source_positions=4)  # sines beyond the table are computed too
SHAW = dict(**CONFORMER, left_max_position_embeddings=3, right_max_position_embeddings=2)
BRIDGE = dict(add_adapter=True, num_adapter_layers=2)

CASES = {
    'wav2vec2': [
        dict(name='base'),
        dict(name='base-padded', padded=True),
        dict(name='stable', padded=True, conv_bias=True, **STABLE),
        dict(name='layer-norm', feat_extract_norm='layer', feat_extract_activation='relu', hidden_act='gelu_new'),
        dict(name='odd-positions', num_conv_pos_embeddings=7, num_conv_pos_embedding_groups=2, mask_time_prob=0.0),
        dict(name='time-mask', padded=True, time_mask=True),
        dict(name='eight', samples=5000, batch=1, conv_bias=True, **EIGHT),
    ],
    'wavlm': [
        dict(name='base'),
        dict(name='base-padded', padded=True, **NEAR),
        dict(name='stable', padded=True, **NEAR, **STABLE),
        dict(name='layer-norm', feat_extract_norm='layer', conv_bias=True, mask_time_prob=0.0, **NEAR),
        dict(name='time-mask', padded=True, time_mask=True),
        dict(name='eight', samples=5000, batch=1, **EIGHT),
        dict(name='far', samples=820, batch=1, brief=True, **FAR),
    ],
    'hubert': [
        dict(name='base-padded', padded=True, samples=333),
        dict(name='stable', padded=True, conv_bias=True, **STABLE),
        dict(name='batch-norm', padded=True, conv_pos_batch_norm=True, feat_proj_layer_norm=False, time_mask=True),
        dict(name='odd-positions', num_conv_pos_embeddings=7, num_conv_pos_embedding_groups=2, mask_time_prob=0.0),
    ],
    'data2vec-audio': [
        dict(name='base-padded', padded=True, num_conv_pos_embeddings=2, conv_pos_kernel_size=5, samples=333),
        dict(name='even', conv_bias=True, time_mask=True, num_conv_pos_embeddings=3, conv_pos_kernel_size=4),
        dict(name='adapter', padded=True, num_conv_pos_embeddings=1, conv_pos_kernel_size=3, output_hidden_size=8, **BRIDGE),
    ],
    'wav2vec2-conformer': [
        dict(name='relative-padded', padded=True, samples=333, **SHORT),
        dict(name='rotary-padded', padded=True, position_embeddings_type='rotary', rotary_embedding_base=100, **CONFORMER),
        dict(name='none', position_embeddings_type=None, hidden_act='relu', feat_extract_norm='layer', **CONFORMER),
        dict(name='adapter', padded=True, time_mask=True, output_hidden_size=8, **BRIDGE, **SHORT),
    ],
    'wav2vec2-bert': [
        dict(name='shaw', samples=15, **SHAW),
        dict(name='shaw-padded', padded=True, samples=15, **SHAW),
        dict(name='relative-padded', padded=True, position_embeddings_type='relative', samples=14, **SHORT),
        dict(name='rotary-padded', padded=True, position_embeddings_type='rotary', time_mask=True, samples=15, **CONFORMER),
        dict(name='none', position_embeddings_type=None, hidden_act='gelu', samples=9, **CONFORMER),
        dict(name='adapter', padded=True, samples=15, output_hidden_size=8, use_intermediate_ffn_before_adapter=True, **BRIDGE, **SHAW),
        dict(name='adapter-same-width', samples=15, adapter_act='gelu', add_adapter=True, **SHAW),
    ],
}


def fill(model, name):
    """Named random weights: biases, norms and gates too, so that each of them counts."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
            if 'layer_norm.weight' in key or key.endswith(('original0', 'gru_rel_pos_const')):
                parameter.add_(1)
        for key, buffer in model.named_buffers():
            if key.endswith('running_mean'):
                buffer.copy_(randn(f'{name}/{key}', *buffer.shape, scale=0.3))
            if key.endswith('running_var'):
                buffer.copy_(rand(f'{name}/{key}', *buffer.shape) + 0.5)


def saved(model):
    """What a file has: parameters, and the statistics of batch norms."""
    return {key: value.float() if value.is_floating_point() else value for key, value in model.state_dict().items()}


def speech_inputs(model, seed, batch, length, padded, kept):
    """Waveforms, or spectra, of which the second has `kept` steps."""
    name = model.main_input_name
    width = [model.config.feature_projection_input_dim] if name == 'input_features' else []
    inputs = {name: randn(f'{seed}/input', batch, length, *width)}
    if padded:
        inputs['attention_mask'] = torch.ones(batch, length, dtype=torch.long)
        inputs['attention_mask'][1, kept:] = 0
        inputs[name][1, kept:] = 0
    return inputs


def one(fixture, kind, name, padded=False, time_mask=False, brief=False, batch=2, samples=320, **options):
    size = MEL_SIZE if kind == 'wav2vec2-bert' else SIZE
    config = getattr(transformers, f'{PREFIXES[kind]}Config')(**{**size, **options})
    config._attn_implementation = 'eager'
    model = getattr(transformers, f'{PREFIXES[kind]}Model')(config).eval()
    seed = f'{kind}/{name}'
    fill(model, seed)
    model.double()
    inputs = speech_inputs(model, seed, batch, samples, padded, 9 if samples < 20 else 190)
    if time_mask:
        frames = samples
        for kernel, stride in zip(getattr(config, 'conv_kernel', []), getattr(config, 'conv_stride', [])):
            frames = (frames - kernel) // stride + 1
        inputs['mask_time_indices'] = randn(f'{seed}/mask', batch, frames) > 0.5
    exact = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    outputs = model(**exact, output_hidden_states=True, output_attentions=True)
    out = {'last': outputs.last_hidden_state}
    if 'extract_features' in outputs:
        out['features'] = outputs.extract_features
    cotangents = {key: randn(f'{seed}/cotangent/{key}', *value.shape) for key, value in out.items()}
    sum((value * cotangents[key]).sum() for key, value in out.items()).backward()
    if not brief:
        out |= {f'hidden.{i}': hidden for i, hidden in enumerate(outputs.hidden_states)}
        # WavLM's are [batch, heads, heads, time, time] with the patch below, the same for each of the first heads.
        out |= {f'attention.{i}': a[:, 0] if kind == 'wavlm' else a for i, a in enumerate(outputs.attentions)}
    rounded = {
        'out': out,
        'grad': {key: value.grad for key, value in model.named_parameters() if value.grad is not None},
    }
    fixture.case(
        dict(name=name, config={**size, **options}),
        **{'in': inputs},
        cotangent=cotangents,
        param=saved(model),
        **{role: {key: value.float() for key, value in tensors.items()} for role, tensors in rounded.items()},
    )


def networks(kind):
    # transformers has the mean over the heads in place of each head's own weights.
    original = modeling_wavlm.F.multi_head_attention_forward
    modeling_wavlm.F.multi_head_attention_forward = functools.partial(original, average_attn_weights=False)
    fixture = Fixture()
    for case in CASES[kind]:
        one(fixture, kind, **case)
    modeling_wavlm.F.multi_head_attention_forward = original
    return fixture


if __name__ == '__main__':
    main({f'models/{kind}': functools.partial(networks, kind) for kind in CASES})
