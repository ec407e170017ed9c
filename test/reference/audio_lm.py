"""Tiny speech language models with random weights, computed by transformers in float64: test/fixtures/models/audio-lm-<family>.safetensors,
and numbers of parameters of published sizes.
"""

import json
import logging

import torch
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
)

from common import Fixture, main, randn
from siglip import fill

logging.getLogger('transformers').setLevel(logging.ERROR)
AUDIO = 26
STEPS, MELS = 24, 8
TOWER = dict(num_mel_bins=MELS, max_source_positions=STEPS // 2)
TEXT = dict(
    vocab_size=29, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
    rms_norm_eps=1e-5, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
)
HIDDEN = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, **TOWER)
MODEL = dict(d_model=12, encoder_layers=2, encoder_attention_heads=3, encoder_ffn_dim=20, **TOWER)
# Class, configuration, whether features have a mask, and its name.
FAMILIES = dict(
    qwen2_audio=dict(
        config=Qwen2AudioConfig, network=Qwen2AudioForConditionalGeneration, mask='feature_attention_mask',
        settings=dict(audio_config=MODEL, text_config=dict(model_type='qwen2', **TEXT), audio_token_index=AUDIO),
    ),
    voxtral=dict(
        config=VoxtralConfig, network=VoxtralForConditionalGeneration, mask=None,
        settings=dict(audio_config=dict(intermediate_size=48, **HIDDEN), text_config=dict(model_type='llama', **TEXT), audio_token_id=AUDIO),
    ),
    audioflamingo3=dict(
        config=AudioFlamingo3Config, network=AudioFlamingo3ForConditionalGeneration, mask='input_features_mask',
        settings=dict(audio_config=dict(intermediate_size=20, **HIDDEN), text_config=dict(model_type='qwen2', **TEXT), audio_token_id=AUDIO),
    ),
)
SIZES = {
    'qwen2-audio-7b': ('qwen2_audio', dict(text_config=dict(model_type='qwen2', vocab_size=156032, intermediate_size=11008))),
    'voxtral-mini-3b': ('voxtral', {}),
    'voxtral-small-24b': ('voxtral', dict(text_config=dict(model_type='llama', hidden_size=5120, intermediate_size=32768, num_hidden_layers=40))),
    'audio-flamingo-3': (
        'audioflamingo3',
        dict(
            text_config=dict(
                model_type='qwen2', vocab_size=151672, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                num_key_value_heads=4,
            )
        ),
    ),
}


def build(name, family):
    kind = FAMILIES[family]
    settings = kind['config'](**kind['settings'])
    settings._attn_implementation = 'eager'
    model = kind['network'](settings).eval()
    fill(model, name)
    return model


def named(name):
    """transformers' name -> voxtorch's."""
    short = name.removeprefix('model.')
    if short.startswith('lm_head'):
        return f'language_model.{short}'
    return short.replace('language_model.', 'language_model.model.')


def tokens_of(family, steps):
    return STEPS // 2 // 4 if family == 'voxtral' else (steps + 1) // 2 // 2


def batch(family, name, left=False):
    """Rows with clips in two turns, the second of two windows, with one clip and without, padded on one side."""
    lengths = [17, STEPS, 6, 9]
    audio = [[27, *[AUDIO] * tokens_of(family, steps), 28] for steps in lengths]
    long = [27, *[AUDIO] * (tokens_of(family, STEPS) + tokens_of(family, 6)), 28]
    rows = [[1, 3, *audio[0], 4, 5, *long, 5, 6], [1, *audio[3], 7, 8, 9], [1, 10, 11, 12]]
    longest = max(map(len, rows))
    pad = lambda row, value: [value] * (longest - len(row)) * left + row + [value] * (longest - len(row)) * (not left)
    ids = torch.tensor([pad(row, 0) for row in rows])
    attention = torch.tensor([pad([1] * len(row), 0) for row in rows])
    labels = ids.clone()
    labels[(ids == AUDIO) | (attention == 0)] = -100
    labels[:, 0] = -100
    mask = (torch.arange(STEPS) < torch.tensor(lengths)[:, None]).long()
    return ids, attention, labels, randn(f'{name}/features', len(lengths), MELS, STEPS), mask


def given(family, features, mask):
    key = FAMILIES[family]['mask']
    return {'input_features': features, **({key: mask} if key else {})}


def one(fixture, family):
    name = family
    model = build(name, family).double()
    ids, attention, labels, features, mask = batch(family, name)
    exact = features.double().requires_grad_()
    seen = {}
    model.model.audio_tower.register_forward_hook(lambda _, __, output: seen.update(states=output.last_hidden_state))
    model.model.multi_modal_projector.register_forward_hook(lambda _, __, output: seen.update(embeds=output))
    outputs = model(input_ids=ids, attention_mask=attention, labels=labels, **given(family, exact, mask))
    outputs.loss.backward()
    counts = [tokens_of(family, int(steps)) for steps in mask.sum(1)]
    embeds = seen['embeds'].reshape(len(counts), -1, seen['embeds'].shape[-1])
    states = seen['states'] if family == 'voxtral' else torch.cat([row[:count] for row, count in zip(seen['states'], counts)])
    greedy = dict(max_new_tokens=6, do_sample=False, eos_token_id=None)
    ids_left, attention_left, *_ = batch(family, name, left=True)
    with torch.no_grad():
        tokens = model.generate(input_ids=ids_left, attention_mask=attention_left, **given(family, features.double(), mask), **greedy)
    roles = {'in': {'input_ids': ids, 'attention_mask': attention, 'labels': labels, 'input_features': features}}
    if FAMILIES[family]['mask']:
        roles['in']['features_mask'] = mask
    fixture.case(
        dict(name=name, config=json.loads(model.config.to_json_string()), tokens=tokens[:, ids.shape[1] :].tolist()),
        **roles,
        param={named(k): v.detach().float() for k, v in model.named_parameters()},
        grad={named(k): p.grad.float() for k, p in model.named_parameters() if p.grad is not None},
        out={
            'logits': torch.where(attention[..., None].bool(), outputs.logits, 0).float(), 'loss': outputs.loss.float(), 'states': states.float(),
            'embeds': torch.cat([row[:count] for row, count in zip(embeds, counts)]).float(), 'features.grad': exact.grad.float(),
        },
    )


def family(name):
    fixture = Fixture()
    one(fixture, name)
    return fixture


def sizes():
    fixture = Fixture()
    for name, (family, settings) in SIZES.items():
        with torch.device('meta'):
            model = FAMILIES[family]['network'](FAMILIES[family]['config'](**settings))
        fixture.case(dict(name=name, parameters=sum(p.numel() for p in model.parameters())))
    return fixture


if __name__ == '__main__':
    main({'models/audio-lm-sizes': sizes, **{f'models/audio-lm-{name}': lambda name=name: family(name) for name in FAMILIES}})
