"""Tiny Whispers with random weights, computed by transformers: test/fixtures/models/whisper.safetensors.

In float64, stored as float32, as decoder_lm.py has it; with padding on the left in float32.
"""

import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from common import Fixture, main, randint, randn

SIZE = dict(
    vocab_size=29,
    num_mel_bins=6,
    d_model=8,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=12,
    decoder_layers=2,
    decoder_attention_heads=4,
    decoder_ffn_dim=12,
    max_source_positions=7,
    max_target_positions=12,
    pad_token_id=3,
    bos_token_id=3,
    eos_token_id=3,
    decoder_start_token_id=4,
    suppress_tokens=None,
    begin_suppress_tokens=None,
)
CASES = [
    dict(name='plain'),
    dict(name='right', pads='right'),
    dict(name='left', pads='left'),
    dict(name='distil', brief=True, decoder_layers=1, num_mel_bins=9, encoder_attention_heads=1, activation_function='relu'),
    # The bands and layers of large-v3-turbo, and of distil-large-v3.
    dict(name='turbo', brief=True, num_mel_bins=128, decoder_layers=4),
    dict(name='distil-v3', brief=True, num_mel_bins=128, decoder_layers=2),
    dict(name='untied', brief=True, tie_word_embeddings=False),
]
BATCH, TIME = 3, 6
LENGTHS = [6, 4, 2]


def fill(model, name):
    """Named random weights: biases and norms too, so that each of them counts. Positions of the encoder stay sinusoids."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key == 'model.encoder.embed_positions.weight':
                continue
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.4))
            if 'layer_norm' in key:
                parameter.add_(1)


def build(name, **options):
    config = WhisperConfig(**{**SIZE, **options})
    config._attn_implementation = 'eager'
    model = WhisperForConditionalGeneration(config).eval()
    fill(model, name)
    return model


def masked(pads):
    mask = torch.zeros(BATCH, TIME, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(-length, None) if pads == 'left' else slice(length)] = 1
    return mask


def one(fixture, name, pads=None, brief=False, **options):
    model = build(name, **options)
    exact_type = torch.float32 if pads == 'left' else torch.float64
    model.to(exact_type)
    config = model.config
    features = randn(f'{name}/features', BATCH, config.num_mel_bins, 2 * config.max_source_positions)
    labels = randint(f'{name}/labels', 5, config.vocab_size, BATCH, TIME)
    labels[0, 3] = -100
    given = {'input_features': features, 'labels': labels}
    exact = {'input_features': features.to(exact_type).requires_grad_(), 'labels': labels}
    real = torch.ones(BATCH, TIME)
    if pads is not None:
        real = masked(pads).float()
        labels[real == 0] = -100
        given['decoder_attention_mask'] = exact['decoder_attention_mask'] = masked(pads)
        # What transformers' generate gives.
        exact['decoder_position_ids'] = (masked(pads).cumsum(1) - 1).clamp(min=0)
    if pads == 'left':
        ids = randint(f'{name}/ids', 5, config.vocab_size, BATCH, TIME)
        given['decoder_input_ids'] = exact['decoder_input_ids'] = ids
    outputs = model(**exact, output_hidden_states=True, output_attentions=True, use_cache=False)
    cotangent = randn(f'{name}/cotangent', *outputs.logits.shape) * real[..., None] * 0.02
    (outputs.loss + (outputs.logits * cotangent).sum()).backward()
    out = {
        'loss': outputs.loss,
        'logits': outputs.logits,
        'encoder': outputs.encoder_last_hidden_state,
        'input_features.grad': exact['input_features'].grad,
    }
    parts = dict(
        decoder_hidden=outputs.decoder_hidden_states,
        decoder_attention=outputs.decoder_attentions,
        cross_attention=outputs.cross_attentions,
        encoder_hidden=outputs.encoder_hidden_states,
        encoder_attention=outputs.encoder_attentions,
    )
    if brief:
        parts = dict(cross_attention=outputs.cross_attentions)
    out |= {f'{key}.{i}': value for key, values in parts.items() for i, value in enumerate(values)}
    keep = real.bool()
    for key, value in out.items():
        if key == 'logits' or key.startswith('decoder_hidden'):
            out[key] = torch.where(keep[..., None], value, 0)
        elif key.startswith(('decoder_attention', 'cross_attention')):
            out[key] = torch.where(keep[:, None, :, None], value, 0)
    parameters = dict(model.named_parameters())
    grad = {key: value.grad for key, value in parameters.items() if value.grad is not None}
    given['real'] = real
    assert all(value.isfinite().all() for value in [*out.values(), *grad.values()]), name
    fixture.case(
        {'name': name, 'config': {**SIZE, **options}},
        **{'in': given},
        param=parameters,
        cotangent={'logits': cotangent},
        out=out,
        grad=grad,
    )
    # float64 was for the arithmetic alone.
    for key, value in fixture.tensors.items():
        if value.dtype == torch.float64:
            fixture.tensors[key] = value.float()


def build_all():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


if __name__ == '__main__':
    main({'models/whisper': build_all})
