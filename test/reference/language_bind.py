"""Tiny towers of LanguageBind with random weights, by the original's own modules (PyPI languagebind 0.1.0) in float64:
test/fixtures/models/languagebind.safetensors; and its audio front end: languagebind-audio.safetensors. Runs in an
environment of its own, requirements-languagebind.txt."""

import sys
import types
from unittest.mock import MagicMock

import numpy as np
import peft  # noqa: F401, before the stubs
import torch

# Its library on PyPI is for CUDA; what is used here is written in Python.
extension = types.ModuleType('torchaudio._extension')
extension.__getattr__ = lambda attribute: None if attribute.startswith('__') else lambda function=None, *_: function
sys.modules['torchaudio._extension'] = extension
for loop in ('_lfilter_core_loop', '_overdrive_core_loop'):
    torch.ops.torchaudio.__dict__[loop] = None
import torchaudio  # noqa: F401
from transformers import ProcessorMixin  # noqa: F401
from transformers.models.clip import modeling_clip  # noqa: F401

# The package imports what reads video and pictures, too.
for name in ['cv2', 'decord', 'torchvision', 'torchvision.transforms', 'torchvision.transforms._transforms_video',
             'pytorchvideo', 'pytorchvideo.data', 'pytorchvideo.data.encoded_video', 'pytorchvideo.transforms', 'PIL']:
    stub = types.ModuleType(name)
    stub.__file__ = name
    stub.__getattr__ = lambda attribute: MagicMock() if not attribute.startswith('__') else None
    sys.modules[name] = stub

import languagebind
from languagebind.audio.processing_audio import AudioTransform

from common import Fixture, main, randint, randn


def exact_softmax(x, dim, dtype=None, softmax=torch.nn.functional.softmax):
    """transformers' attention comes down to float32 here, whatever it is given."""
    return softmax(x, dim=dim, dtype=dtype if x.dtype != torch.float64 else None)


torch.nn.functional.softmax = exact_softmax


def causal_mask(shape, dtype, device):
    """The original's cannot hold the least float64."""
    return torch.full((shape[1], shape[1]), -1e30, dtype=dtype, device=device).triu(1).expand(shape[0], 1, -1, -1)


# The transformers of today measures pictures as squares; the video module has the embeddings of then.
modeling_clip.CLIPVisionEmbeddings.forward = sys.modules[
    'languagebind.video.modeling_video'
].CLIPVisionEmbeddings.forward

for modality in languagebind.model_dict:
    sys.modules[f'languagebind.{modality}.modeling_{modality}']._make_causal_mask = causal_mask

SIZE = dict(hidden_size=8, intermediate_size=12, num_attention_heads=2, hidden_act='gelu')
TEXT = dict(vocab_size=20, max_position_embeddings=6, num_hidden_layers=1, **SIZE)
VISION = dict(num_hidden_layers=2, image_size=8, patch_size=4, lora_r=0, **SIZE)
TIMES = dict(add_time_attn=True, num_frames=4)

CASES = [
    dict(name='video', vision=TIMES),
    dict(name='video-tube', modality='video', vision=dict(clip_type='vl_new', **TIMES)),
    dict(name='video-lora', modality='video', vision=dict(lora_r=2, lora_alpha=4, **TIMES)),
    dict(name='video-dropped', modality='video', vision=dict(force_patch_dropout=0.3, image_size=16, **TIMES), seed=5),
    dict(name='audio', vision=dict(num_mel_bins=8, target_length=24)),
    dict(name='audio-lora', modality='audio', vision=dict(num_mel_bins=9, target_length=24, lora_r=2, lora_alpha=2)),
    dict(name='image', vision=dict(num_hidden_layers=1)),
    dict(name='depth', vision=dict(num_hidden_layers=1)),
    dict(name='thermal', vision=dict(num_hidden_layers=1)),
    # Attention over time with a feed-forward of its own is declared everywhere but for video.
    dict(name='depth-time', modality='depth', vision=dict(num_hidden_layers=1, add_time_attn=True, num_frames=1)),
]


def fill(model, name):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key == 'logit_scale':
                parameter.fill_(2.5)
                continue
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
            if 'norm' in key and key.endswith('weight') or 'layrnorm.weight' in key:
                parameter.add_(1)


def stored(name):
    """As the published checkpoints call it, which the peft of then wrote."""
    return name.replace('.base_layer.', '.')


def build(name, modality, vision):
    config = languagebind.config_dict[modality](
        text_config={**TEXT, 'projection_dim': 6}, vision_config={**VISION, **vision}, projection_dim=6
    )
    for each in (config, config.text_config, config.vision_config):
        each._attn_implementation = 'eager'
    model = languagebind.model_dict[modality](config)
    fill(model, name)
    return config, model


def pixels_of(name, modality, vision):
    settings = {**VISION, **vision}
    side = [settings['image_size']] * 2
    if settings.get('num_mel_bins'):
        side = [settings['num_mel_bins'], settings['target_length']]
    frames = [settings['num_frames']] if modality == 'video' else []
    return randn(f'{name}/pixels', 3, 3, *frames, *side)


def texts_of(name):
    ids = randint(f'{name}/ids', 1, 19, 3, 6)
    mask = torch.ones_like(ids)
    for row, length in enumerate([6, 4, 2]):
        ids[row, length - 1 :] = 19
        mask[row, length:] = 0
    return ids, mask


def one(fixture, name, vision, modality=None, seed=None):
    modality = modality or name
    config, model = build(name, modality, vision)
    state = {stored(key): value.detach().clone() for key, value in model.state_dict().items()}
    model.double().train(seed is not None)
    ids, mask = texts_of(name)
    pixels = pixels_of(name, modality, vision)
    if seed is not None:
        torch.manual_seed(seed)
    outputs = model(input_ids=ids, attention_mask=mask, pixel_values=pixels.double(), return_loss=True)
    pooled = outputs.vision_model_output.pooler_output
    cotangents = {'pooled': randn(f'{name}/cotangent', *pooled.shape)}
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.zero_grad()
    if seed is not None:
        torch.manual_seed(seed)
    outputs = model(input_ids=ids, attention_mask=mask, pixel_values=pixels.double(), return_loss=True)
    pooled = outputs.vision_model_output.pooler_output
    (outputs.loss + (pooled * cotangents['pooled']).sum()).backward()
    out = {
        'loss': outputs.loss,
        'logits': outputs.logits_per_image,
        'pooled': pooled,
        'last': outputs.vision_model_output.last_hidden_state,
        'text': outputs.text_embeds,
        modality: outputs.image_embeds,
    }
    grads = {stored(key): value.grad for key, value in model.named_parameters() if value.grad is not None}
    vision_config = {**VISION, **vision}
    fixture.case(
        dict(
            name=name,
            modality=modality,
            seed=seed,
            config={
                'model_type': config.model_type,
                'text_config': TEXT,
                'vision_config': vision_config,
                'projection_dim': 6,
                'logit_scale_init_value': 2.5,
            },
        ),
        **{'in': {'input_ids': ids, 'attention_mask': mask, 'pixel_values': pixels}},
        param=state,
        cotangent=cotangents,
        out={key: value.float() for key, value in out.items()},
        grad={key: value.float() for key, value in grads.items()},
    )
    return config, model.float().eval()


def towers():
    fixture = Fixture()
    made = {}
    for case in CASES:
        config, model = one(fixture, **case)
        if case['name'] == case.get('modality', case['name']):
            made[case['name']] = model
    resized(fixture)
    together(fixture, made)
    return fixture


def together(fixture, made):
    """The wrapper over towers of the cases before, the text being the last one's."""
    for chosen in (['video', 'audio'], ['audio', 'image', 'depth', 'thermal']):
        name = 'joint-' + '-'.join(chosen)
        fake = types.SimpleNamespace()
        for modality, model in made.items():
            languagebind.model_dict[modality] = types.SimpleNamespace(from_pretrained=lambda *_, model=model, **__: model)
        joint = languagebind.LanguageBind({modality: modality for modality in chosen}).double().eval()
        inputs = {modality: pixels_of(name, modality, dict(CASES_BY_NAME[modality])) for modality in chosen}
        ids, mask = texts_of(name)
        given = {modality: {'pixel_values': value.double()} for modality, value in inputs.items()}
        given['language'] = {'input_ids': ids, 'attention_mask': mask}
        out = {}
        for use_temp in (True, False):
            joint.use_temp = use_temp
            with torch.no_grad():
                for modality, value in joint(given).items():
                    out[f'{"scaled" if use_temp else "unit"}.{modality}'] = value.float()
        fixture.case(dict(name=name, modalities=chosen), **{'in': {'input_ids': ids, 'attention_mask': mask, **inputs}}, out=out)


CASES_BY_NAME = {case['name']: case['vision'] for case in CASES}


def resized(fixture):
    """The original's own resizing of a table of positions."""
    name = 'resized'
    _, model = build(name, 'image', dict(image_size=16, num_hidden_layers=1))
    table = model.vision_model.embeddings.position_embedding.weight.detach().clone()
    embeddings = model.vision_model.embeddings
    settings = types.SimpleNamespace(num_mel_bins=8, target_length=28)
    model.resize_pos(embeddings, settings)
    fixture.case(
        dict(name=name, grid=[2, 7]),
        **{'in': {'table': table}},
        out={'table': embeddings.position_embedding.weight},
    )


MELS = [(112, 1036), (126, 1036)]


def audio():
    """A second of sound into bands, and the places of the crops of longer ones."""
    fixture = Fixture()
    seconds = np.arange(16000 * 2) / 16000
    sweep = 0.3 * np.sin(2 * np.pi * (100 + 1500 * seconds) * seconds)
    noise = randn('languagebind/noise', 2, len(seconds), scale=0.05).numpy()
    stereo = np.round((np.stack([sweep, 0.5 * sweep]) + noise + 0.1) * 32768).clip(-32768, 32767).astype(np.int16)
    sound = torch.from_numpy(stereo)
    for mels, length in MELS:
        transform = transform_of(mels, length)
        mel = transform.get_mel(sound.float() / 32768)
        whole = transform((sound.float() / 32768, 16000))
        fixture.case(
            dict(name=f'mels-{mels}', mels=mels),
            **{'in': {'samples': sound[:1, ::1]} if mels == 112 else {}},
            out={'mel': mel[::13].float(), 'whole': whole[:, ::7, ::41].float()},
        )
    transform = transform_of(112, 1036)
    transform_44 = transform((sound[:, :12000].float() / 32768, 22050))
    fixture.case(dict(name='resampled', rate=22050, samples=12000), out={'whole': transform_44[:, ::7, ::41].float()})
    for frames in (300, 1036, 1037, 1500):
        rows = torch.arange(frames, dtype=torch.float32)[:, None].expand(frames, 2)
        transform.get_mel = lambda _, rows=rows: rows
        np.random.choice = lambda part: part[0]
        transform.audio_mean, transform.audio_std = 0, 0.5
        places = transform.waveform2melspec(None)[:, 0].to(torch.int32)
        fixture.case(dict(name=f'frames-{frames}', frames=frames), out={'places': places})
    return fixture


def transform_of(mels, length):
    settings = types.SimpleNamespace(
        audio_sample_rate=16000, num_mel_bins=mels, target_length=length, audio_mean=-4.2677393, audio_std=4.5689974
    )
    return AudioTransform(settings)


if __name__ == '__main__':
    main({'models/languagebind': towers, 'models/languagebind-audio': audio})
