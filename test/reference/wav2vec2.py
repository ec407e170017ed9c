"""Tiny wav2vec 2.0 and WavLM networks with random weights, computed by transformers: wav2vec2.safetensors and
wavlm.safetensors in test/fixtures/models.

In float64, stored as float32: the gradient of a bias before a norm, which is 0, would be float32's noise.
"""

import functools

import torch
from transformers import Wav2Vec2Config, Wav2Vec2Model, WavLMConfig, WavLMModel
from transformers.models.wavlm import modeling_wavlm

from common import Fixture, main, randn

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
}


def fill(model, name):
    """Named random weights: biases, norms and gates too, so that each of them counts."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
            if 'layer_norm.weight' in key or key.endswith(('original0', 'gru_rel_pos_const')):
                parameter.add_(1)


def one(fixture, kind, name, padded=False, time_mask=False, brief=False, batch=2, samples=320, **options):
    config = (WavLMConfig if kind == 'wavlm' else Wav2Vec2Config)(**{**SIZE, **options})
    config._attn_implementation = 'eager'
    model = (WavLMModel if kind == 'wavlm' else Wav2Vec2Model)(config).eval()
    seed = f'{kind}/{name}'
    fill(model, seed)
    model.double()
    inputs = {'input_values': randn(f'{seed}/input', batch, samples)}
    if padded:
        inputs['attention_mask'] = torch.ones(batch, samples, dtype=torch.long)
        inputs['attention_mask'][1, 190:] = 0
        inputs['input_values'][1, 190:] = 0
    if time_mask:
        frames = model._get_feat_extract_output_lengths(samples)
        inputs['mask_time_indices'] = randn(f'{seed}/mask', batch, frames) > 0.5
    exact = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    outputs = model(**exact, output_hidden_states=True, output_attentions=True)
    out = {'last': outputs.last_hidden_state, 'features': outputs.extract_features}
    cotangents = {key: randn(f'{seed}/cotangent/{key}', *value.shape) for key, value in out.items()}
    sum((value * cotangents[key]).sum() for key, value in out.items()).backward()
    if not brief:
        out |= {f'hidden.{i}': hidden for i, hidden in enumerate(outputs.hidden_states)}
        # WavLM's are [batch, heads, heads, time, time] with the patch below, the same for each of the first heads.
        out |= {f'attention.{i}': a[:, 0] if kind == 'wavlm' else a for i, a in enumerate(outputs.attentions)}
    parameters = dict(model.named_parameters())
    rounded = {
        'param': parameters,
        'out': out,
        'grad': {key: value.grad for key, value in parameters.items() if value.grad is not None},
    }
    fixture.case(
        dict(name=name, config={**SIZE, **options}),
        **{'in': inputs},
        cotangent=cotangents,
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
