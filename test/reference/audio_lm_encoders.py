"""Tiny Qwen3-ASR, GLM-ASR and Granite Speech with random weights, computed by transformers in float64:
test/fixtures/models/audio-lm-<family>.safetensors, and the folder that transformers saves.

`--saved DIRECTORY` loads folders `DIRECTORY/<family>` that voxtorch saved, and compares their logits with the fixture's.
"""

import json
import logging
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers import (
    GlmAsrConfig,
    GlmAsrForConditionalGeneration,
    GraniteSpeechConfig,
    GraniteSpeechForConditionalGeneration,
    Qwen3ASRConfig,
    Qwen3ASRForConditionalGeneration,
)
from transformers.modeling_outputs import BaseModelOutputWithPooling

from audio_encoders import exact, fill
from common import FIXTURES, Fixture, main, randn

logging.getLogger('transformers').setLevel(logging.ERROR)
AUDIO = 26
TEXT = dict(
    vocab_size=29, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
    rms_norm_eps=1e-5, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
GRANITE = {key: value for key, value in TEXT.items() if key != 'head_dim'}
# transformers 5 leaves out logits_scaling in Granite Speech, and not in Granite.
GRANITE.update(embedding_multiplier=3.0, logits_scaling=1.0, residual_multiplier=0.7, attention_multiplier=0.4)
ENCODER = dict(num_mel_bins=5, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=12, d_model=8)
CONFORMER = dict(input_dim=6, num_layers=2, hidden_dim=8, feedforward_mult=2, num_heads=2, output_dim=7, context_size=5, max_pos_emb=8)
FORMER = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, encoder_hidden_size=8)
# Class, configuration, lengths of the clips in steps, their numbers of tokens, and the shape of their features.
FAMILIES = dict(
    qwen3_asr=dict(
        config=Qwen3ASRConfig, network=Qwen3ASRForConditionalGeneration, lengths=[57, 200, 133, 80], tokens=[8, 26, 18, 10], shape=(5, 200),
        settings=dict(
            audio_config=dict(n_window_infer=100, downsample_hidden_size=4, output_dim=16, **ENCODER), text_config=dict(model_type='qwen3', **TEXT),
            audio_token_id=AUDIO, pad_token_id=0, eos_token_id=2, tie_word_embeddings=True,
        ),
    ),
    glmasr=dict(
        config=GlmAsrConfig, network=GlmAsrForConditionalGeneration, lengths=[32, 19, 32, 25], tokens=[4, 2, 4, 3], shape=(6, 32),
        settings=dict(
            audio_config=dict(model_type='glmasr_encoder', hidden_size=8, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_mel_bins=6),
            text_config=dict(model_type='llama', tie_word_embeddings=False, **TEXT), audio_token_id=AUDIO, tie_word_embeddings=False,
        ),
    ),
    granite_speech=dict(
        config=GraniteSpeechConfig, network=GraniteSpeechForConditionalGeneration, lengths=[13, 9, 11, 4], tokens=[9, 6, 6, 3], shape=(13, 6),
        settings=dict(
            encoder_config=dict(conv_kernel_size=5, **CONFORMER), projector_config=dict(model_type='blip_2_qformer', **FORMER),
            text_config=dict(model_type='granite', **GRANITE), audio_token_index=AUDIO, window_size=6, downsample_rate=2, has_lora_adapter=False,
            tie_word_embeddings=True,
        ),
    ),
)


def build(family):
    kind = FAMILIES[family]
    settings = kind['config'](**kind['settings'])
    settings._attn_implementation = 'eager'
    model = kind['network'](settings).eval()
    fill(model, family)
    return model


def named(name):
    """transformers' name -> voxtorch's."""
    short = name.removeprefix('model.')
    if short.startswith('lm_head'):
        return f'language_model.{short}'
    for theirs, ours in (('encoder.', 'audio_tower.'), ('projector.', 'multi_modal_projector.'), ('language_model.', 'language_model.model.')):
        if short.startswith(theirs):
            return ours + short.removeprefix(theirs)
    return short


def alone(model, lengths):
    """transformers' encoder of Granite Speech reads the padding of a batch; here each clip is encoded alone."""
    whole = model.model.get_audio_features

    def each(input_features, **kwargs):
        rows = [whole(row[None, :length], **kwargs).pooler_output[0] for row, length in zip(input_features, lengths)]
        return BaseModelOutputWithPooling(pooler_output=torch.nn.utils.rnn.pad_sequence(rows, batch_first=True))

    model.model.get_audio_features = each


def batch(family, left=False):
    """A row with two clips in two turns, one with two clips in one turn and one without, padded on one side."""
    kind = FAMILIES[family]
    audio = [[27, *[AUDIO] * count, 28] for count in kind['tokens']]
    rows = [[1, 3, *audio[0], 4, 5, *audio[1], 5, 6], [1, *audio[2], *audio[3], 7, 8, 9], [1, 10, 11, 12]]
    longest = max(map(len, rows))
    pad = lambda row, value: [value] * (longest - len(row)) * left + row + [value] * (longest - len(row)) * (not left)
    ids = torch.tensor([pad(row, 0) for row in rows])
    attention = torch.tensor([pad([1] * len(row), 0) for row in rows])
    labels = ids.clone()
    labels[(ids == AUDIO) | (attention == 0)] = -100
    labels[:, 0] = -100
    lengths = torch.tensor(kind['lengths'])[:, None]
    features = randn(f'{family}/features', len(lengths), *kind['shape'])
    if family == 'granite_speech':
        counts = torch.tensor(kind['tokens'])[:, None]
        return ids, attention, labels, features, (torch.arange(features.shape[1]) < lengths).long(), torch.arange(int(counts.max())) < counts
    mask = (torch.arange(features.shape[2]) < lengths).long()
    return ids, attention, labels, features, mask, mask


def outputs_of(model, family, features, given):
    ids, attention, labels, *_ = batch(family)
    return model(input_ids=ids, attention_mask=attention, labels=labels, input_features=features, input_features_mask=given)


def one(family):
    fixture = Fixture()
    model = build(family)
    folder = FIXTURES / f'models/audio-lm-folder-{family}'
    if '--check' not in sys.argv:
        model.save_pretrained(folder)
    before = {named(key): value.clone() for key, value in model.state_dict().items()}
    kept = {named(key) for key, _ in [*model.named_parameters(), *model.named_buffers()]}
    exact(model)
    if family == 'granite_speech':
        alone(model, FAMILIES[family]['lengths'])
    ids, attention, labels, features, mask, given = batch(family)
    wide = features.double().requires_grad_()
    outputs = outputs_of(model, family, wide, given)
    outputs.loss.backward()
    embeds = outputs.audio_hidden_states
    if embeds.ndim == 3:
        embeds = embeds[given.bool()]
    ids_left, attention_left, *_ = batch(family, left=True)
    with torch.no_grad():
        tokens = model.generate(
            input_ids=ids_left, attention_mask=attention_left, input_features=features.double(), input_features_mask=given, max_new_tokens=6,
            do_sample=False, eos_token_id=None,
        )
    fixture.case(
        dict(name=family, config=json.loads(model.config.to_json_string()), tokens=tokens[:, ids.shape[1] :].tolist()),
        **{'in': {'input_ids': ids, 'attention_mask': attention, 'labels': labels, 'input_features': features, 'features_mask': mask}},
        param={key: value for key, value in before.items() if key in kept},
        grad={named(key): value.grad.float() for key, value in model.named_parameters() if value.grad is not None},
        out={
            'logits': torch.where(attention[..., None].bool(), outputs.logits, 0).float(), 'loss': outputs.loss.float(), 'embeds': embeds.float(),
            'features.grad': wide.grad.float(),
        },
    )
    return fixture


def saved(directory):
    """Folders of voxtorch, read by transformers."""
    for family in FAMILIES:
        with safe_open(FIXTURES / f'models/audio-lm-{family}.safetensors', 'pt') as file:
            expected = file.get_tensor(f'{family}/out/logits').double()
        model, info = FAMILIES[family]['network'].from_pretrained(Path(directory) / family, output_loading_info=True, attn_implementation='eager')
        assert not any(info[key] for key in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), (family, info)
        exact(model.eval())
        if family == 'granite_speech':
            alone(model, FAMILIES[family]['lengths'])
        ids, attention, labels, features, _, given = batch(family)
        logits = torch.where(attention[..., None].bool(), outputs_of(model, family, features.double(), given).logits, 0)
        error = ((logits - expected).abs().max() / expected.abs().max()).item()
        print(f'{family}: relative error of the logits {error:.1e}')
        assert error < 1e-6, family


if __name__ == '__main__':
    if '--saved' in sys.argv:
        saved(sys.argv[sys.argv.index('--saved') + 1])
    else:
        main({f'models/audio-lm-{name}': lambda name=name: one(name) for name in FAMILIES})
