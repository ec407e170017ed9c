"""Tiny Qwen3-ASR and its forced aligner in Qwen's own layout, computed by the package qwen-asr==0.0.6: test/fixtures/models/audio-lm-qwen3-original.safetensors,
and the folders that it saves, test/fixtures/models/audio-lm-folder-qwen3-original. In an environment of its own with transformers==4.57.6.
"""

import importlib.util
import sys
import types
from pathlib import Path

import torch

from common import FIXTURES, Fixture, main, randn

# Without the package's __init__, which imports the tools of languages.
package = types.ModuleType('qwen_asr')
package.__path__ = [str(Path(importlib.util.find_spec('qwen_asr').origin).parent)]
sys.modules['qwen_asr'] = package
from qwen_asr.core.transformers_backend import Qwen3ASRConfig, Qwen3ASRForConditionalGeneration  # noqa: E402

AUDIO, TIME, BINS = 26, 27, 11
# Of clips below 100 steps, the last ones differ from transformers: the convolutions see the end of the clip, and not padding to 100 steps.
LENGTHS, TOKENS, MELS = [157, 200], [21, 26], 5
TEXT = dict(
    vocab_size=29, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, head_dim=8,
    max_position_embeddings=128, rope_theta=1e6,
    rope_scaling=dict(mrope_interleaved=True, interleaved=True, mrope_section=[2, 1, 1], rope_type='default', type='default'),
)
# Without FlashAttention the package attends to a whole clip, so it is one window here.
ENCODER = dict(
    num_mel_bins=MELS, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=12, d_model=8, n_window=50, n_window_infer=200,
    downsample_hidden_size=4, output_dim=16,
)


def case(fixture, name, **more):
    thinker = dict(audio_config=ENCODER, text_config={**TEXT, 'tie_word_embeddings': name == 'tied'}, audio_token_id=AUDIO, **more)
    config = Qwen3ASRConfig(thinker_config=thinker, support_languages=['English'], timestamp_token_id=TIME, timestamp_segment_time=80)
    config.thinker_config.audio_config._attn_implementation = config.thinker_config.text_config._attn_implementation = 'eager'
    model = Qwen3ASRForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'qwen3-original/{key}', *parameter.shape, scale=0.3))
            if 'norm' in key and key.endswith('weight'):
                parameter.add_(1)
    if name == 'tied':
        model.thinker.lm_head.weight = model.thinker.model.embed_tokens.weight
    if '--check' not in sys.argv:
        model.save_pretrained(FIXTURES / f'models/audio-lm-folder-qwen3-original/{name}')
    rows = [[1, *[AUDIO] * count, 4, TIME, TIME] for count in TOKENS]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    attention = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).long()
    features = randn('qwen3-original/features', 2, MELS, max(LENGTHS)) * mask[:, None]
    with torch.no_grad():
        logits = model.thinker(input_ids=ids, attention_mask=attention, input_features=features, feature_attention_mask=mask).logits
    fixture.case(
        dict(name=name),
        **{'in': {'input_ids': ids, 'attention_mask': attention, 'input_features': features, 'features_mask': mask}},
        out={'logits': torch.where(attention[..., None].bool(), logits, 0)},
    )


def original():
    fixture = Fixture()
    case(fixture, 'asr')
    case(fixture, 'tied')
    case(fixture, 'aligner', model_type='qwen3_forced_aligner', classify_num=BINS)
    return fixture


if __name__ == '__main__':
    main({'models/audio-lm-qwen3-original': original})
