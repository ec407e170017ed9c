"""Tiny audio encoders of speech language models with random weights and their projectors, computed by transformers:
qwen3-asr-encoder, glmasr-encoder, granite-speech-encoder and speech-lm-features in test/fixtures/models.

In float64, stored as float32. torchaudio, which transformers needs for the features of Granite Speech, is replaced by its
formula; `--torchaudio` compares the two where torchaudio is installed.
"""

import contextlib
import sys
import types

import numpy as np
import torch
from transformers import (
    GlmAsrConfig,
    GlmAsrEncoderConfig,
    GraniteSpeechConfig,
    GraniteSpeechFeatureExtractor,
    Qwen3ASRConfig,
    Qwen3ASRFeatureExtractor,
)
from transformers.audio_utils import mel_filter_bank
from transformers.models.glmasr.modeling_glmasr import GlmAsrModel
from transformers.models.granite_speech import feature_extraction_granite_speech
from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechModel
from transformers.models.qwen3_asr.modeling_qwen3_asr import Qwen3ASRModel

from common import Fixture, main, randn

# The reference's softmax is float32 whatever the scores are.
softmax = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda scores, dim, dtype=None, **_: softmax(scores, dim)

TEXT = dict(hidden_size=6, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, vocab_size=11)


def fill(model, name):
    """Named random weights and statistics, so that each of them counts."""
    with torch.no_grad():
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if key.endswith(('inv_freq', 'num_batches_tracked', 'attention_dists', 'positional_embedding')):
                continue
            value.copy_(randn(f'{name}/{key}', *value.shape, scale=0.4))
            if key.endswith('running_var'):
                value.abs_().add_(0.5)
            elif ('norm' in key or key.endswith('ln_post.weight')) and key.endswith('.weight'):
                value.add_(1)


def exact(model):
    """In float64, with positions that were not rounded to float32."""
    model.double()
    for part in model.modules():
        if hasattr(part, 'compute_default_singular_positional_embedding'):
            half = part.channels // 2
            rates = torch.exp(-np.log(part.max_timescale) / (half - 1) * torch.arange(half, dtype=torch.float64))
            angles = torch.arange(part.length)[:, None] * rates
            part.positional_embedding = torch.cat([angles.sin(), angles.cos()], 1)
    return model


def own_names(model, encoder, projector):
    """The parameters of both parts, as `encoder.` and `projector.`."""
    for part, prefix in (('encoder', encoder), ('projector', projector)):
        for key, value in model.named_parameters():
            if key.startswith(f'{prefix}.'):
                yield f'{part}{key[len(prefix):]}', value


def states(model, encoder, projector):
    for part, prefix in (('encoder', encoder), ('projector', projector)):
        for key, value in model.state_dict().items():
            if key.startswith(f'{prefix}.'):
                yield f'{part}{key[len(prefix):]}', value


def case(fixture, name, model, names, inputs, described, training=False, attentions=False):
    fill(model, name)
    before = {key: value.clone() for key, value in states(model, *names)}
    exact(model).train(training)
    wide = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    out = model.get_audio_features(**wide, output_hidden_states=True, return_dict=True, **(dict(output_attentions=True) if attentions else {}))
    embeds = out.pooler_output
    cotangent = randn(f'{name}/cotangent', *embeds.shape)
    (embeds * cotangent).sum().backward()
    results = dict(last=out.last_hidden_state, embeds=embeds)
    if name == 'plain':
        results.update({f'hidden.{i}': value for i, value in enumerate(out.hidden_states)})
    if attentions:
        results.update({f'attention.{i}': value for i, value in enumerate(out.attentions)})
    if training:
        results.update({key: value for key, value in states(model, *names) if 'running' in key or 'tracked' in key})
    fixture.case(
        dict(name=name, training=training, **described),
        **{'in': inputs},
        cotangent=dict(embeds=cotangent),
        param=before,
        out={key: value.float() if value.is_floating_point() else value for key, value in results.items()},
        grad={key: value.grad.float() for key, value in own_names(model, *names) if value.grad is not None},
    )


def masked(name, lengths, steps, bands):
    """Features [batch, bands, steps], 0 after each row's length, and their mask."""
    features = randn(f'{name}/input', len(lengths), bands, steps)
    mask = (torch.arange(steps)[None] < torch.tensor(lengths)[:, None]).long()
    return dict(input_features=features * mask[:, None], input_features_mask=mask)


def qwen3_asr():
    fixture = Fixture()
    size = dict(num_mel_bins=5, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=12, d_model=8)
    size.update(n_window=50, n_window_infer=200, output_dim=6, downsample_hidden_size=4, max_position_embeddings=13)
    for name, lengths, steps, more in [
        ('plain', [300], 300, {}),
        ('padded', [400, 231, 57], 400, {}),
        ('short', [57], 100, {}),
        ('wide-window', [300, 101], 300, dict(n_window_infer=800, encoder_layers=1, activation_function='relu')),
    ]:
        config = Qwen3ASRConfig(audio_config={**size, **more}, text_config=dict(model_type='qwen3', **TEXT))
        config.audio_config._attn_implementation = 'eager'
        inputs = masked(name, lengths, steps, size['num_mel_bins'])
        case(fixture, name, Qwen3ASRModel(config), ('audio_tower', 'multi_modal_projector'), inputs, dict(config={**size, **more}))
    return fixture


def glmasr():
    fixture = Fixture()
    size = dict(hidden_size=8, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_mel_bins=6)
    rope = dict(rope_type='default', rope_theta=100.0, partial_rotary_factor=0.5)
    for name, lengths, steps, more in [
        ('plain', [32, 32], 32, {}),
        ('odd', [31], 31, dict(rope_parameters=rope, num_hidden_layers=1, num_attention_heads=1)),
        ('padded', [32, 19], 32, dict(rope_parameters={**rope, 'partial_rotary_factor': 1.0}, hidden_act='relu')),
    ]:
        config = GlmAsrConfig(audio_config=GlmAsrEncoderConfig(**{**size, **more}), text_config=dict(model_type='llama', **TEXT))
        config.audio_config._attn_implementation = 'eager'
        inputs = masked(name, lengths, steps, size['num_mel_bins'])
        model = GlmAsrModel(config)
        case(fixture, name, model, ('audio_tower', 'multi_modal_projector'), inputs, dict(config={**size, **more}), attentions=not more)
    return fixture


def granite_speech():
    fixture = Fixture()
    size = dict(input_dim=6, num_layers=2, hidden_dim=8, feedforward_mult=2, num_heads=2, output_dim=7)
    size.update(context_size=5, max_pos_emb=8, dropout=0.0, conv_kernel_size=5, conv_expansion_factor=2)
    former = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, encoder_hidden_size=8)
    former.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    for name, batch, frames, more, windows, options in [
        ('plain', 2, 13, {}, dict(window_size=6, downsample_rate=2), {}),
        ('blocks', 1, 10, dict(dim_head=3, num_layers=1), dict(window_size=5, downsample_rate=5), dict(num_hidden_layers=1)),
        ('short', 1, 3, dict(num_layers=1), dict(window_size=6, downsample_rate=3), dict(cross_attention_frequency=1, num_hidden_layers=1)),
        ('training', 2, 11, dict(num_layers=1), dict(window_size=6, downsample_rate=2), dict(num_hidden_layers=1)),
    ]:
        text = dict(model_type='granite', **TEXT)
        projector = {'model_type': 'blip_2_qformer', **former, **options}
        config = GraniteSpeechConfig(text_config=text, encoder_config={**size, **more}, projector_config=projector, **windows)
        config.projector_config._attn_implementation = 'eager'
        inputs = dict(input_features=randn(f'{name}/input', batch, frames, size['input_dim']))
        described = dict(config={**size, **more}, projector={**former, **options}, windows=windows)
        case(fixture, name, GraniteSpeechModel(config), ('encoder', 'projector'), inputs, described, training=name == 'training')
    return fixture


class MelSpectrogram:
    """torchaudio.transforms.MelSpectrogram, in float64."""

    def __init__(self, sample_rate, n_fft, win_length, hop_length, n_mels):
        bins = n_fft // 2 + 1
        self.filters = torch.from_numpy(mel_filter_bank(bins, n_mels, 0.0, sample_rate / 2, sample_rate, mel_scale='htk'))
        self.options = dict(n_fft=n_fft, win_length=win_length, hop_length=hop_length)

    def to(self, device):
        return self

    def __call__(self, audio):
        window = torch.hann_window(self.options['win_length'], dtype=torch.float64)
        power = torch.stft(audio.double(), window=window, return_complex=True, **self.options).abs() ** 2
        return self.filters.T.to(power) @ power


@contextlib.contextmanager
def exact_features():
    """The feature extractors compute in float32."""
    to, to_float, hann = torch.Tensor.to, torch.Tensor.float, torch.hann_window
    torch.Tensor.to = lambda self, *args, **kwargs: to(self, *(torch.float64 if one is torch.float32 else one for one in args), **kwargs)
    torch.Tensor.float = torch.Tensor.double
    torch.hann_window = lambda *args, **kwargs: hann(*args, **{'dtype': torch.float64, **kwargs})
    feature_extraction_granite_speech.torchaudio = types.SimpleNamespace(transforms=types.SimpleNamespace(MelSpectrogram=MelSpectrogram))
    feature_extraction_granite_speech.requires_backends = lambda *_: None
    yield
    torch.Tensor.to, torch.Tensor.float, torch.hann_window = to, to_float, hann


def features():
    fixture = Fixture()
    with exact_features():
        for name, size, samples in [('qwen3-asr', 9, 9001), ('qwen3-asr-short', 9, 3333), ('granite-speech', 12, 4801), ('granite-speech-odd', 12, 1600)]:
            clip = randn(f'features/{name}', samples, scale=0.1)
            if name.startswith('qwen3'):
                out = Qwen3ASRFeatureExtractor(feature_size=size)([clip.double().numpy()], sampling_rate=16000, padding=True, return_attention_mask=True)
                found = dict(features=out.input_features, length=out.attention_mask.sum(-1))
            else:
                out = GraniteSpeechFeatureExtractor(n_mels=size // 2, projector_window_size=15)([clip.double()])
                found = dict(features=out.input_features, tokens=torch.tensor(out.audio_embed_sizes))
            fixture.case(dict(name=name, size=size), **{'in': dict(samples=clip)}, out=found)
    for key, value in fixture.tensors.items():
        if value.is_floating_point():
            fixture.tensors[key] = value.float()
    return fixture


def compared():
    """The formula of MelSpectrogram with torchaudio's own."""
    import torchaudio

    options = dict(sample_rate=16000, n_fft=512, win_length=400, hop_length=160, n_mels=80)
    audio = randn('torchaudio', 2, 5000)
    theirs, ours = torchaudio.transforms.MelSpectrogram(**options)(audio), MelSpectrogram(**options)(audio)
    print(f'torchaudio {torchaudio.__version__}: relative difference {((theirs - ours).abs().max() / ours.max()).item():.1e}')


if __name__ == '__main__':
    if '--torchaudio' in sys.argv:
        compared()
    else:
        main(
            {
                'models/qwen3-asr-encoder': qwen3_asr,
                'models/glmasr-encoder': glmasr,
                'models/granite-speech-encoder': granite_speech,
                'models/speech-lm-features': features,
            }
        )
