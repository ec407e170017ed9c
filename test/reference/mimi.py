"""Tiny Mimi codecs with random weights, computed by transformers: mimi in test/fixtures/models; and with `--keys`
mimi-keys.json there, the default configuration.

Networks are in float64, and everything is stored as float32. Names are those of the published checkpoint.
"""

import json
import sys

import torch
from transformers import MimiConfig, MimiModel

from common import FIXTURES, Fixture, main, randint, randn

# The reference's softmax is float32 whatever the scores are.
softmax = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda scores, dim, dtype=None: softmax(scores, dim)

SIZE = dict(
    hidden_size=12,
    num_filters=4,
    upsampling_ratios=[3, 2],
    kernel_size=5,
    compress=2,
    codebook_size=16,
    codebook_dim=6,
    vector_quantization_hidden_dimension=6,
    num_quantizers=4,
    upsample_groups=12,
    num_hidden_layers=2,
    intermediate_size=10,
    num_attention_heads=2,
    num_key_value_heads=2,
    head_dim=6,
    sliding_window=5,
    sampling_rate=1200,
)
RENAMED = [
    ('encoder.encoder_seanet.', 'encoder.'),
    ('encoder.encoder_transformer.', 'encoder_transformer.'),
    ('encoder.downsample.', 'downsample.'),
    ('decoder.decoder_seanet.', 'decoder.'),
    ('decoder.decoder_transformer.', 'decoder_transformer.'),
    ('decoder.upsample.', 'upsample.'),
]


def published(name):
    for theirs, ours in RENAMED:
        if name.startswith(theirs):
            return ours + name[len(theirs):]
    return name


def fill(model, name):
    """Named random weights, so that each of them counts."""
    with torch.no_grad():
        for key, value in model.state_dict().items():
            if key.endswith('initialized'):
                continue
            value.copy_(randn(f'{name}/{key}', *value.shape, scale=0.4))
            if 'norm' in key and key.endswith('.weight'):
                value.add_(1)
            if key.endswith('cluster_usage'):
                value.abs_().add_(0.1)
            if key.endswith('embed_sum'):
                value.mul_(2)
        for module in model.modules():
            if hasattr(module, '_embed'):
                module._embed = None


def state(model):
    return {published(key): value.float().clone() for key, value in model.state_dict().items()}


def case(fixture, name, time=140, batch=2, quantizers=None, **options):
    config = MimiConfig(**{**SIZE, **options})
    config._attn_implementation = 'eager'
    model = MimiModel(config)
    fill(model, name)
    before = state(model)
    model.double().eval()
    samples = randn(f'{name}/samples', batch, config.audio_channels, time)
    exact = samples.double()
    latents = model.encoder(exact, output_hidden_states=True)
    codes = model.quantizer.encode(latents.latents, quantizers).transpose(0, 1)
    assert torch.equal(codes, model.encode(exact, num_quantizers=quantizers).audio_codes)
    assert len(codes.unique()) > 5, codes
    other = randint(f'{name}/codes', 0, config.codebook_size, *codes.shape)
    decoded = model.decode(other, output_hidden_states=True)
    whole = model(exact, num_quantizers=quantizers)
    length = model.get_encoded_length(torch.tensor(time)).item()
    assert length == codes.shape[-1]
    cotangents = dict(
        latents=randn(f'{name}/latents', *latents.latents.shape), audio=randn(f'{name}/audio', *decoded.audio_values.shape)
    )
    ((latents.latents * cotangents['latents']).sum() + (decoded.audio_values * cotangents['audio']).sum()).backward()
    results = dict(
        latents=latents.latents,
        codes=codes,
        embeddings=model.quantizer.decode(other),
        audio=decoded.audio_values,
        whole=whole.audio_values,
        **{f'encoder_hidden.{i}': value for i, value in enumerate(latents.hidden_states)},
        **{f'decoder_hidden.{i}': value for i, value in enumerate(decoded.hidden_states)},
    )
    fixture.case(
        dict(name=name, config={**SIZE, **options}, quantizers=quantizers, frameSize=config.frame_size),
        **{'in': dict(samples=samples, codes=other)},
        cotangent=cotangents,
        param=before,
        out={key: value.float() if value.is_floating_point() else value for key, value in results.items()},
        grad={published(key): value.grad.float() for key, value in model.named_parameters() if value.grad is not None},
    )


def networks():
    fixture = Fixture()
    case(fixture, 'plain')
    case(fixture, 'whole-frames', time=144, batch=1, quantizers=1)
    case(
        fixture,
        'options',
        batch=1,
        time=131,
        quantizers=3,
        audio_channels=2,
        use_conv_shortcut=True,
        num_residual_layers=2,
        pad_mode='replicate',
        num_key_value_heads=1,
        attention_bias=True,
        num_semantic_quantizers=2,
        rope_theta=100.0,
        hidden_act='relu',
        upsample_groups=3,
        norm_eps=1e-3,
        sliding_window=200,
        residual_kernel_size=4,
    )
    case(fixture, 'no-projection', batch=1, codebook_dim=12, vector_quantization_hidden_dimension=12)
    return fixture


if __name__ == '__main__':
    if '--keys' in sys.argv:
        keys = MimiConfig().to_dict()
        (FIXTURES / 'models/mimi-keys.json').write_text(json.dumps(keys, indent=2, sort_keys=True) + '\n')
        sys.exit()
    main({'models/mimi': networks})
