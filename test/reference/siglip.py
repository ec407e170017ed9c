"""Tiny vision encoders of SigLIP with random weights, computed by transformers in float64: test/fixtures/models/siglip.safetensors;
a folder of a whole SigLIP as transformers writes it; pixel values of its image processor; and numbers of parameters of published sizes."""

import json

import numpy
import torch
from PIL import Image
from transformers import SiglipConfig, SiglipModel, SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from common import FIXTURES, Fixture, main, randn


def exact_softmax(x, dim, dtype=None, softmax=torch.nn.functional.softmax):
    """transformers' attention comes down to float32 here, whatever it is given."""
    return softmax(x, dim=dim, dtype=dtype if x.dtype != torch.float64 else None)


torch.nn.functional.softmax = exact_softmax

VISION = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3, image_size=8, patch_size=4)
TEXT = dict(vocab_size=11, hidden_size=12, intermediate_size=20, num_hidden_layers=1, num_attention_heads=3, max_position_embeddings=4)
CASES = [
    dict(name='head', config={}),
    # Two pixels at the end are in no patch.
    dict(name='bare', config=dict(vision_use_head=False, hidden_act='gelu', num_channels=2, image_size=10, layer_norm_eps=1e-4)),
    dict(name='resized', config={}, size=(12, 8)),
]
WIDTHS = {
    'base-patch16-224': dict(image_size=224),
    'base-patch32-256': dict(image_size=256, patch_size=32),
    'large-patch16-384': dict(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=384),
    'so400m-patch14-384': dict(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384, patch_size=14),
    'giant-opt-patch16-256': dict(hidden_size=1536, intermediate_size=6144, num_hidden_layers=40, num_attention_heads=16, image_size=256),
}


def fill(model, name):
    """Named random weights: biases and norms too, so that each of them counts."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
            if 'norm' in key and key.endswith('weight'):
                parameter.add_(1)


def one(fixture, name, config, size=None):
    settings = {**VISION, **config}
    vision = SiglipVisionConfig(**settings)
    vision._attn_implementation = 'eager'
    model = SiglipVisionModel(vision).train()
    fill(model, name)
    values = {key: value.detach().clone() for key, value in model.named_parameters()}
    model.double()
    height, width = size or (vision.image_size, vision.image_size)
    pixels = randn(f'{name}/pixels', 2, vision.num_channels, height, width)
    exact = pixels.double().requires_grad_()
    outputs = model(exact, interpolate_pos_encoding=size is not None, output_hidden_states=True, output_attentions=True)
    out = {'last': outputs.last_hidden_state}
    if outputs.pooler_output is not None:
        out['pooled'] = outputs.pooler_output
    cotangents = {key: randn(f'{name}/cotangent/{key}', *value.shape) for key, value in out.items()}
    sum((out[key] * cotangent).sum() for key, cotangent in cotangents.items()).backward()
    if name == 'head':
        out |= {f'hidden.{i}': hidden for i, hidden in enumerate(outputs.hidden_states)}
        out |= {f'attention.{i}': attention for i, attention in enumerate(outputs.attentions)}
    out['pixels.grad'] = exact.grad
    fixture.case(
        dict(name=name, config=settings, resized=size is not None),
        **{'in': {'pixel_values': pixels}},
        param=values,
        cotangent=cotangents,
        out={key: value.float() for key, value in out.items()},
        grad={key: value.grad.float() for key, value in model.named_parameters() if value.grad is not None},
    )


def pictures(fixture):
    pixels = (numpy.arange(20 * 30 * 3).reshape(20, 30, 3) * 7 // 4 % 256).astype('uint8')
    for name, settings in [('bicubic', {}), ('bilinear', dict(resample=2)), ('plain', dict(resample=1, do_normalize=False))]:
        settings = {'size': {'height': 16, 'width': 16}, **settings}
        processor = SiglipImageProcessorPil(**settings)
        values = processor(Image.fromarray(pixels), return_tensors='pt')['pixel_values']
        written = {key: value for key, value in json.loads(processor.to_json_string()).items() if value is not None}
        fixture.case(dict(name=f'picture-{name}', config=written), **{'in': {'pixels': torch.from_numpy(pixels)}}, out={'pixels': values[0]})


def siglip():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    pictures(fixture)
    for name, config in WIDTHS.items():
        with torch.device('meta'):
            model = SiglipVisionModel(SiglipVisionConfig(**config))
        fixture.case(dict(name=f'size-{name}', parameters=sum(p.numel() for p in model.parameters())))
    return fixture


def pretrained():
    """The folder of a whole SigLIP, and what its vision encoder answers in float64."""
    fixture = Fixture()
    name = 'siglip-transformers'
    config = SiglipConfig(text_config=TEXT, vision_config={**VISION, 'num_hidden_layers': 1})
    model = SiglipModel(config).eval()
    fill(model, name)
    model.save_pretrained(FIXTURES / 'models' / name)
    pixels = randn(f'{name}/pixels', 2, 3, 8, 8)
    with torch.no_grad():
        outputs = model.double().vision_model(pixels.double())
    fixture.case(
        dict(name=name),
        **{'in': {'pixel_values': pixels}},
        out={'last': outputs.last_hidden_state.float(), 'pooled': outputs.pooler_output.float()},
    )
    return fixture


if __name__ == '__main__':
    main({'models/siglip': siglip, 'models/siglip-pretrained': pretrained})
