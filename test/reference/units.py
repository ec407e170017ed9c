"""What a tiny XLS-R makes of clips at each of its layers, computed by transformers' whole model in float64, and the nearest of some
centroids: models/units.safetensors in test/fixtures. The same weights as fairseq's and fairseq2's checkpoints have them:
models/units-fairseq.pt and models/units-fairseq2.pt, and models/units-wide-fairseq2.pt of XLS-R 1B's width (written unless with --check).

What the whole model's gradients are of a loss on the states behind its second layer: models/units-gradients.safetensors.

A clip of odd length gets one sample of value 1 behind it, which attention does not see, and is normalised with it.
"""

import re
import sys

import torch
from torch.nn import functional as F
from transformers import Wav2Vec2Config, Wav2Vec2Model

from common import FIXTURES, Fixture, main, randn
from wav2vec2 import fill

CONFIG = dict(
    hidden_size=16,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=24,
    conv_dim=[6] * 7,
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
    feat_extract_norm='layer',
    do_stable_layer_norm=True,
    conv_bias=True,
    mask_time_prob=0.0,
)
WIDE = dict(
    hidden_size=1280,
    num_hidden_layers=1,
    num_attention_heads=16,
    intermediate_size=5120,
    conv_dim=[512] * 7,
    num_conv_pos_embeddings=128,
    num_conv_pos_embedding_groups=16,
)
# Frames come every 320 samples from 400 on: of 1359, the last frame is that of the sample which is added.
LENGTHS = [400, 720, 1359, 2400, 2401, 3333]

FAIRSEQ = [
    (r'^masked_spec_embed$', 'mask_emb'),
    (r'^feature_projection\.layer_norm\.', 'layer_norm.'),
    (r'^feature_projection\.projection\.', 'post_extract_proj.'),
    (r'^feature_extractor\.conv_layers\.(\d+)\.conv\.', r'feature_extractor.conv_layers.\1.0.'),
    (r'^feature_extractor\.conv_layers\.(\d+)\.layer_norm\.', r'feature_extractor.conv_layers.\1.2.1.'),
    (r'^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original0$', 'encoder.pos_conv.0.weight_g'),
    (r'^encoder\.pos_conv_embed\.conv\.parametrizations\.weight\.original1$', 'encoder.pos_conv.0.weight_v'),
    (r'^encoder\.pos_conv_embed\.conv\.', 'encoder.pos_conv.0.'),
    (r'^(encoder\.layers\.\d+)\.layer_norm\.', r'\1.self_attn_layer_norm.'),
    (r'^(encoder\.layers\.\d+)\.attention\.', r'\1.self_attn.'),
    (r'^(encoder\.layers\.\d+)\.feed_forward\.intermediate_dense\.', r'\1.fc1.'),
    (r'^(encoder\.layers\.\d+)\.feed_forward\.output_dense\.', r'\1.fc2.'),
]
FAIRSEQ2 = [
    (r'^mask_emb$', 'masker.temporal_mask_embed'),
    (r'^layer_norm\.', 'encoder_frontend.post_extract_layer_norm.'),
    (r'^post_extract_proj\.', 'encoder_frontend.model_dim_proj.'),
    (r'^feature_extractor\.conv_layers\.(\d+)\.0\.', r'encoder_frontend.feature_extractor.layers.\1.conv.'),
    (r'^feature_extractor\.conv_layers\.(\d+)\.2\.1\.', r'encoder_frontend.feature_extractor.layers.\1.layer_norm.'),
    (r'^encoder\.pos_conv\.0\.', 'encoder_frontend.pos_encoder.conv.'),
    (r'^(encoder\.layers\.\d+\.self_attn)\.out_proj\.', r'\1.output_proj.'),
    (r'^(encoder\.layers\.\d+)\.fc1\.', r'\1.ffn.inner_proj.'),
    (r'^(encoder\.layers\.\d+)\.fc2\.', r'\1.ffn.output_proj.'),
    (r'^(encoder\.layers\.\d+)\.final_layer_norm\.', r'\1.ffn_layer_norm.'),
]


def renamed(state, rules, copy=True):
    def one(name):
        for pattern, to in rules:
            name = re.sub(pattern, to, name)
        return name

    return {one(name): value.clone() if copy else value for name, value in state.items()}


def write_checkpoints(model):
    state = {name: value.float() for name, value in model.state_dict().items()} | {'masked_spec_embed': randn('mask', 16)}
    fairseq = renamed(state, FAIRSEQ)
    heads = {'quantizer.vars': randn('vars', 1, 4, 2), 'project_q.weight': randn('q', 3, 3), 'final_proj.weight': randn('f', 3, 3)}
    cfg = {'model': {'encoder_layers': 3, 'encoder_attention_heads': 2, 'activation_fn': 'gelu'}}
    torch.save({'args': None, 'cfg': cfg, 'model': fairseq | heads}, FIXTURES / 'models/units-fairseq.pt')
    heads = {
        'quantizer.entries': randn('vars', 1, 4, 2),
        'final_target_proj.weight': randn('q', 3, 3),
        'final_proj.weight': randn('f', 3, 3),
    }
    torch.save({'model': renamed(fairseq, FAIRSEQ2) | heads}, FIXTURES / 'models/units-fairseq2.pt')
    # XLS-R 1B's width, a layer of it: each tensor is one number, seen from everywhere.
    with torch.device('meta'):
        wide = Wav2Vec2Model(Wav2Vec2Config(**(CONFIG | WIDE))).state_dict()
    same = {name: torch.zeros(1).expand(value.shape) for name, value in wide.items()}
    state = renamed(renamed(same, FAIRSEQ, copy=False), FAIRSEQ2, copy=False)
    torch.save({'model': state | {'final_target_proj.weight': torch.zeros(1).expand(3, 3)}}, FIXTURES / 'models/units-wide-fairseq2.pt')


def network():
    config = Wav2Vec2Config(**CONFIG)
    config._attn_implementation = 'eager'
    model = Wav2Vec2Model(config).eval()
    fill(model, 'units')
    return model.double()


def prepared(clip):
    """[1, samples], and which attention sees"""
    even = torch.cat([clip, torch.ones(1)]) if len(clip) % 2 else clip
    wave = F.layer_norm(even.double(), even.shape, eps=1e-5)[None]
    mask = None
    if len(clip) % 2:
        mask = torch.ones(wave.shape, dtype=torch.long)
        mask[:, -1] = 0
    return wave, mask


def units():
    fixture = Fixture()
    model = network()
    if '--check' not in sys.argv:
        write_checkpoints(model)
    centroids = randn('units/centroids', 40, 16, scale=3)
    clips = {f'{n}': randn(f'units/clip/{n}', n, scale=0.1) for n in LENGTHS}
    out = {}
    for name, clip in clips.items():
        wave, mask = prepared(clip)
        with torch.no_grad():
            states = model(wave, attention_mask=mask, output_hidden_states=True).hidden_states
        for layer in (1, 2):
            out[f'{name}.{layer}'] = states[layer][0].float()
            out[f'{name}.{layer}.units'] = torch.cdist(states[layer][0], centroids.double()).argmin(1)
    fixture.case(
        dict(name='units', config=CONFIG, lengths=LENGTHS),
        param=dict(model.float().state_dict()),
        out=out,
        **{'in': clips | {'centroids': centroids}},
    )
    return fixture


def gradients():
    fixture = Fixture()
    model = network()
    wave, mask = prepared(randn('units/clip/2401', 2401, scale=0.1))
    # As both sides read it.
    wave = wave.float().double().requires_grad_()
    states = model(wave, attention_mask=mask, output_hidden_states=True).hidden_states[2]
    cotangent = randn('units/cotangent', *states.shape)
    (states * cotangent.double()).sum().backward()
    grads = {name: p.grad.float() for name, p in model.named_parameters() if p.grad is not None}
    fixture.case(
        dict(name='units', layer=2),
        grad=grads,
        input_grad=dict(wave=wave.grad.float()),
        **{'in': dict(wave=wave.detach().float(), mask=mask)},
        cotangent=dict(states=cotangent),
    )
    return fixture


if __name__ == '__main__':
    main({'models/units': units, 'models/units-gradients': gradients})
