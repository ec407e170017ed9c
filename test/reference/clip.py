"""Tiny CLIPs with random weights: test/fixtures/models/clip.safetensors, computed by transformers and OpenCLIP in float64,
and folders as both of them write them. Their answers are in clip-pretrained.safetensors."""

import json
import sys
import types

# The wheel of torchvision on PyPI is for CUDA: without its operators it loads but for this table of shapes.
sys.modules['torchvision._meta_registrations'] = types.ModuleType('torchvision._meta_registrations')

import open_clip
import torch
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
)

from common import FIXTURES, Fixture, main, randint, randn



def exact_softmax(x, dim, dtype=None, softmax=torch.nn.functional.softmax):
    """transformers' attention comes down to float32 here, whatever it is given."""
    return softmax(x, dim=dim, dtype=dtype if x.dtype != torch.float64 else None)


torch.nn.functional.softmax = exact_softmax

LAYERS = dict(num_hidden_layers=2, num_attention_heads=3, projection_dim=8)
TEXT = dict(vocab_size=30, hidden_size=12, intermediate_size=20, max_position_embeddings=10, **LAYERS)
VISION = dict(hidden_size=12, intermediate_size=20, image_size=8, patch_size=4, **LAYERS)
END = 29

CASES = [
    dict(name='text-quick', part='text', config=dict(eos_token_id=END)),
    # Whose end is not the highest id.
    dict(name='text-end', part='text', config=dict(eos_token_id=7, hidden_act='gelu', layer_norm_eps=1e-4)),
    dict(name='vision-quick', part='vision', config={}),
    # Two pixels at the end are in no patch.
    dict(name='vision-gelu', part='vision', config=dict(hidden_act='gelu', num_channels=2, image_size=10)),
    dict(name='clip', part='clip', config=dict(hidden_act='gelu')),
]


def fill(model, name):
    """Named random weights: biases and norms too, so that each of them counts."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key == 'logit_scale':
                parameter.fill_(2.5)
                continue
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
            if 'norm' in key and key.endswith('weight') or 'layrnorm.weight' in key:
                parameter.add_(1)


def ids_of(name, end):
    """Three texts of 10, 6 and 2 tokens; what follows an end is the end again, as CLIP's tokenizer pads."""
    ids = randint(f'{name}/ids', 8, END, 3, 10)
    mask = torch.ones_like(ids)
    for row, length in enumerate([10, 6, 2]):
        ids[row, length - 1 :] = end
        mask[row, length:] = 0
    return ids, mask


def one(fixture, name, part, config):
    text = CLIPTextConfig(**{**TEXT, 'eos_token_id': END, **(config if part == 'text' else {})})
    vision = CLIPVisionConfig(**{**VISION, **(config if part == 'vision' else {})})
    if part == 'clip':
        for tower in (text, vision):
            tower.hidden_act = config.get('hidden_act', 'quick_gelu')
    ids, mask = ids_of(name, 7 if name == 'text-end' else END)
    side = vision.image_size
    pixels = randn(f'{name}/pixels', 2 if part != 'clip' else 3, vision.num_channels, side, side)
    whole = CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=8)
    made = {'text': lambda: CLIPTextModel(text), 'vision': lambda: CLIPVisionModel(vision), 'clip': lambda: CLIPModel(whole)}
    for each in (text, vision, whole, whole.text_config, whole.vision_config):
        each._attn_implementation = 'eager'
    model = made[part]().train()  # dropout is 0
    fill(model, name)
    values = {key: value.detach().clone() for key, value in model.named_parameters()}
    model.double()
    inputs = {}
    if part != 'vision':
        inputs |= {'input_ids': ids, 'attention_mask': mask}
    if part != 'text':
        inputs['pixel_values'] = pixels
    given = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    out, cotangents = {}, {}
    if part == 'clip':
        outputs = model(**given, return_loss=True)
        out |= {key: outputs[key] for key in ('loss', 'logits_per_image', 'text_embeds', 'image_embeds')}
        cotangents['logits'] = randn(f'{name}/cotangent', *outputs.logits_per_image.shape)
        loss = outputs.loss + (outputs.logits_per_image * cotangents['logits']).sum()
    else:
        outputs = model(**given, output_hidden_states=True, output_attentions=True)
        out |= {'last': outputs.last_hidden_state, 'pooled': outputs.pooler_output}
        out |= {f'hidden.{i}': hidden for i, hidden in enumerate(outputs.hidden_states)}
        out |= {f'attention.{i}': attention for i, attention in enumerate(outputs.attentions)}
        cotangents = {key: randn(f'{name}/cotangent/{key}', *out[key].shape) for key in ('last', 'pooled')}
        loss = sum((out[key] * cotangent).sum() for key, cotangent in cotangents.items())
    loss.backward()
    settings = {**(TEXT if part == 'text' else VISION), **config}
    if part == 'clip':
        settings = {
            'text_config': {**TEXT, 'eos_token_id': END, **config},
            'vision_config': {**VISION, **config},
            'projection_dim': 8,
        }
    fixture.case(
        dict(name=name, part=part, config=settings),
        **{'in': inputs},
        param=values,
        cotangent=cotangents,
        out={key: value.float() for key, value in out.items()},
        grad={key: value.grad.float() for key, value in model.named_parameters() if value.grad is not None},
    )


def clip():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


MODEL = dict(
    embed_dim=8,
    quick_gelu=True,
    vision_cfg=dict(image_size=8, layers=2, width=12, patch_size=4, head_width=4),
    text_cfg=dict(context_length=10, vocab_size=30, width=12, heads=3, layers=2, mlp_ratio=2.0),
)


def pretrained():
    """Folders as transformers and OpenCLIP write them, and what the networks answer in float64."""
    fixture = Fixture()
    name = 'transformers'
    config = CLIPConfig(
        text_config={**TEXT, 'eos_token_id': END, 'num_hidden_layers': 1},
        vision_config={**VISION, 'num_hidden_layers': 1},
        projection_dim=8,
    )
    model = CLIPModel(config).eval()
    fill(model, name)
    model.save_pretrained(FIXTURES / 'models/clip-transformers')
    answers(fixture, name, model.double())

    name = 'open-clip'
    settings = {**MODEL, 'vision_cfg': open_clip.CLIPVisionCfg(**MODEL['vision_cfg']), 'text_cfg': open_clip.CLIPTextCfg(**MODEL['text_cfg'])}
    model = open_clip.CLIP(**settings).eval()
    fill(model, name)
    folder = FIXTURES / 'models/clip-open-clip'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'open_clip_config.json').write_text(json.dumps({'model_cfg': MODEL, 'preprocess_cfg': {}}, indent=2) + '\n')
    torch.save(model.state_dict(), folder / 'open_clip_pytorch_model.bin')
    answers(fixture, name, model.double())
    return fixture


def answers(fixture, name, model):
    ids, _ = ids_of(name, END)
    pixels = randn(f'{name}/pixels', 3, 3, 8, 8)
    if name == 'transformers':
        outputs = model(input_ids=ids, pixel_values=pixels.double())
        texts, images, logits = outputs.text_embeds, outputs.image_embeds, outputs.logits_per_image
    else:
        images, texts, scale = model(pixels.double(), ids)
        logits = scale * images @ texts.T
    cotangent = randn(f'{name}/cotangent', *logits.shape)
    (logits * cotangent).sum().backward()
    grads = {key: value.grad.float() for key, value in model.named_parameters() if value.grad is not None}
    # Of OpenCLIP's layout a few that are elsewhere in transformers'.
    chosen = ['logit_scale', 'visual.proj', 'text_projection', 'visual.transformer.resblocks.1.attn.in_proj_weight', 'positional_embedding', 'transformer.resblocks.0.mlp.c_fc.bias']
    fixture.case(
        dict(name=name),
        **{'in': {'input_ids': ids, 'pixel_values': pixels}},
        cotangent={'logits': cotangent},
        out={'texts': texts.float(), 'images': images.float(), 'logits': logits.float()},
        grad={key: value for key, value in grads.items() if key in chosen},
    )


MERGES = """t h;th e</w>;a n;an d</w>;d o;do g</w>;r a;i n</w>;ra in</w>;c a;ca t</w>;b a;ba r;bar k;bark s</w>;o f</w>;' s</w>;i s</w>;
l o;lo u;lou d;e r</w>;Ã ©</w>"""
SENTENCES = [
    'The dog barks', 'the  DOG\tbarks and\nbarks.', "A cat's rain", 'louder, LOUDER!!! 123', '', ' ', 'café é É',
    '雨の音 🐕', 'the dog ' * 60, '<|endoftext|> in the text', 'x' * 300,
]


def tokens():
    """A tiny vocabulary of CLIP's kind, and what transformers' tokenizer makes of some sentences."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) for b in visible] + [chr(256 + n) for n in range(256 - len(visible))]
    merges = [tuple(merge.strip().split(' ')) for merge in MERGES.replace('\n', '').split(';')]
    entries = alphabet + [c + '</w>' for c in alphabet] + [''.join(merge) for merge in merges]
    vocab = {token: i for i, token in enumerate([*entries, '<|startoftext|>', '<|endoftext|>'])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)
    folder = FIXTURES / 'models/clip-tokenizer'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'vocab.json').write_text(json.dumps(vocab, ensure_ascii=False) + '\n')
    (folder / 'merges.txt').write_text('\n'.join(['#version: 0.2', *(' '.join(merge) for merge in merges)]) + '\n')
    settings = dict(tokenizer_class='CLIPTokenizer', model_max_length=77, pad_token='<|endoftext|>')
    (folder / 'tokenizer_config.json').write_text(json.dumps(settings, indent=2) + '\n')
    fixture = Fixture()
    for name, options in [
        ('whole', dict(padding='max_length', max_length=77)),
        ('short', dict(padding='max_length', max_length=6)),
    ]:
        encoded = tokenizer(SENTENCES, truncation=True, return_tensors='pt', **options)
        out = {'input_ids': encoded['input_ids'], 'attention_mask': encoded['attention_mask']}
        fixture.case(dict(name=name, sentences=SENTENCES), out=out)
    return fixture


if __name__ == '__main__':
    main({'models/clip': clip, 'models/clip-pretrained': pretrained, 'models/clip-tokens': tokens})
