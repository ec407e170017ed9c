"""Tiny Moonshine networks with random weights, computed by transformers: moonshine in test/fixtures/models; and with `--keys`
moonshine-keys.json there, the default configuration.

Networks are in float64, and everything is stored as float32.
"""

import contextlib
import json
import sys

import torch
from transformers import MoonshineConfig, MoonshineForConditionalGeneration
from transformers.loss import loss_utils

from common import FIXTURES, Fixture, main, randint, randn

# The reference's softmax is float32 whatever the scores are.
softmax = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda scores, dim, dtype=None: softmax(scores, dim)

SIZE = dict(
    vocab_size=20,
    hidden_size=12,
    intermediate_size=10,
    encoder_num_hidden_layers=2,
    decoder_num_hidden_layers=2,
    encoder_num_attention_heads=2,
    decoder_num_attention_heads=2,
    max_position_embeddings=40,
    partial_rotary_factor=0.7,
    pad_token_id=3,
)
BATCH, TIME, SHORT, TOKENS = 2, 3203, 2099, 6


def fill(model, name):
    """Named random weights, so that each of them counts."""
    with torch.no_grad():
        for key, value in model.named_parameters():
            scale = 0.2 if 'conv' in key else 0.5
            value.copy_(randn(f'{name}/{key}', *value.shape, scale=scale))
            if 'norm' in key and key.endswith('.weight'):
                value.add_(1)


def state(model):
    return {key: value.float().clone() for key, value in model.state_dict().items()}


@contextlib.contextmanager
def exact_loss():
    """transformers computes the loss in float32 whatever the logits are."""
    inner = loss_utils.ForCausalLMLoss
    to_float = torch.Tensor.float

    def loss(*args, **kwargs):
        torch.Tensor.float = torch.Tensor.double
        try:
            return inner(*args, **kwargs)
        finally:
            torch.Tensor.float = to_float

    loss_utils.LOSS_MAPPING['ForCausalLM'] = loss
    for key, value in loss_utils.LOSS_MAPPING.items():
        if value is inner:
            loss_utils.LOSS_MAPPING[key] = loss
    yield
    for key, value in loss_utils.LOSS_MAPPING.items():
        if value is loss:
            loss_utils.LOSS_MAPPING[key] = inner


def case(fixture, name, padded=False, time=TIME, batch=BATCH, **options):
    config = MoonshineConfig(**{**SIZE, **options})
    config._attn_implementation = 'eager'
    model = MoonshineForConditionalGeneration(config)
    samples = randn(f'{name}/samples', batch, time)
    inputs = dict(input_values=samples)
    labels = randint(f'{name}/labels', 4, SIZE['vocab_size'], batch, TOKENS)
    if padded:
        mask = torch.ones(batch, time, dtype=torch.long)
        mask[-1, SHORT:] = 0
        samples[-1, SHORT:] = 0
        inputs['attention_mask'] = mask
        labels[-1, 4:] = -100
        # Masks of the decoder, with padding in front.
        inputs['decoder_attention_mask'] = torch.ones(batch, TOKENS, dtype=torch.long)
        inputs['decoder_attention_mask'][0, :2] = 0
        labels[0, :2] = -100
    exact = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    audio = {key: value for key, value in exact.items() if not key.startswith('decoder')}
    for attempt in range(200):
        model.float()
        fill(model, f'{name}/{attempt}')
        before = state(model)
        model.double().eval()
        greedy = model.generate(**audio, max_new_tokens=14, do_sample=False)
        if all(len(set(row)) > 5 for row in greedy.tolist()):
            break
    else:
        raise AssertionError(name)
    beams = model.generate(**audio, max_new_tokens=10, do_sample=False, num_beams=3)
    with exact_loss():
        out = model(**exact, labels=labels, output_hidden_states=True, output_attentions=True)
    out.loss.backward()
    results = dict(
        loss=out.loss, logits=out.logits, encoder=out.encoder_last_hidden_state, greedy=greedy, beams=beams
    )
    lists = dict(
        encoder_hidden=out.encoder_hidden_states,
        decoder_hidden=out.decoder_hidden_states,
        encoder_attention=out.encoder_attentions,
        decoder_attention=out.decoder_attentions,
        cross_attention=out.cross_attentions,
    )
    for key, values in lists.items():
        results.update({f'{key}.{i}': value for i, value in enumerate(values)})
    fixture.case(
        dict(name=name, config={**SIZE, **options}),
        **{'in': {**inputs, 'labels': labels}},
        param=before,
        out={key: value.float() if value.is_floating_point() else value for key, value in results.items()},
        grad={key: value.grad.float() for key, value in model.named_parameters() if value.grad is not None},
    )


def networks():
    fixture = Fixture()
    case(fixture, 'plain')
    case(fixture, 'padded', padded=True)
    case(
        fixture,
        'options',
        batch=1,
        time=895 + 384,
        attention_bias=True,
        tie_word_embeddings=False,
        encoder_hidden_act='relu',
        decoder_hidden_act='gelu',
        rope_theta=100.0,
        partial_rotary_factor=1.0,
        encoder_num_hidden_layers=1,
        decoder_start_token_id=5,
        pad_token_id=0,
    )
    return fixture


if __name__ == '__main__':
    if '--keys' in sys.argv:
        keys = MoonshineConfig().to_dict()
        (FIXTURES / 'models/moonshine-keys.json').write_text(json.dumps(keys, indent=2, sort_keys=True) + '\n')
        sys.exit()
    main({'models/moonshine': networks})
