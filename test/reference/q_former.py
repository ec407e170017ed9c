"""Tiny Q-Formers with random weights, computed by transformers' Blip2QFormerModel over windows that F.unfold cut:
test/fixtures/models/q-former.safetensors, and a SALMONN checkpoint that holds one.

In float64, stored as float32. `eps` is 1e-12, which float32 norms of these sizes do not feel.
"""

import torch
import torch.nn.functional as F
from transformers import Blip2QFormerConfig, Blip2QFormerModel

from common import FIXTURES, Fixture, main, randn

SIZE = dict(
    hidden_size=12,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=20,
    encoder_width=10,
    cross_attention_freq=1,
    query_length=1,
    window=5,
    stride=5,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    layer_norm_eps=1e-12,
)
CASES = [
    dict(name='salmonn', published=True),
    dict(name='overlapping', published=True, query_length=3, window=7, stride=3),
    dict(name='gaps', published=True, window=3, stride=4, query_length=2),
    dict(name='lengths', lengths=[23, 11, 4], query_length=2),
    dict(name='overlapping-lengths', lengths=[23, 9, 1], window=7, stride=3, query_length=2),
    dict(name='every-second', published=True, num_hidden_layers=3, cross_attention_freq=2, hidden_act='relu'),
    dict(name='whole', lengths=[23, 14, 5], window=0, stride=0, query_length=4),
]


def build(c):
    model = Blip2QFormerModel(
        Blip2QFormerConfig(
            hidden_size=c['hidden_size'],
            num_hidden_layers=c['num_hidden_layers'],
            num_attention_heads=c['num_attention_heads'],
            intermediate_size=c['intermediate_size'],
            hidden_act=c.get('hidden_act', 'gelu'),
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
            layer_norm_eps=c['layer_norm_eps'],
            cross_attention_frequency=c['cross_attention_freq'],
            encoder_hidden_size=c['encoder_width'],
            attn_implementation='eager',
        )
    )
    return model.double()


def published_name(name):
    """transformers' name as checkpoints of BLIP-2's and SALMONN's own code have it; None for the parts for text."""
    if name.startswith('layernorm.'):
        return 'bert.embeddings.LayerNorm.' + name.removeprefix('layernorm.')
    if name.startswith('encoder.layer.') and name.split('.')[3] in ('intermediate', 'output'):
        return None
    return 'bert.' + name.replace('attention.attention.', 'attention.self.')


def windows_of(length, c):
    if c['window'] == 0 or length <= c['window']:
        return 1
    starts = range(0, length, c['stride'])
    # Until one reaches the end.
    return next((i + 1 for i, start in enumerate(starts) if start + c['window'] >= length), len(starts))


def one(fixture, name, published=False, lengths=None, batch=3, time=23, **changes):
    c = {**SIZE, **changes}
    model = build(c)
    given = {'query_tokens': randn(f'{name}/query_tokens', 1, c['query_length'], c['hidden_size'])}
    named = {}
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            value = randn(f'{name}/{key}', *parameter.shape, scale=0.3) + (1 if 'norm.weight' in key.lower() else 0)
            parameter.copy_(value)
            if published_name(key):
                given[f'Qformer.{published_name(key)}'] = value
                named[f'Qformer.{published_name(key)}'] = parameter
    tokens = given['query_tokens'].double().requires_grad_()
    named['query_tokens'] = tokens
    frames = randn(f'{name}/frames', batch, time, c['encoder_width'])
    leaf = frames.double().requires_grad_()

    if published:
        # [batch, width, 1, time] -> [batch, width * window, windows], as SALMONN unfolds it.
        cut = F.unfold(leaf.transpose(1, 2).unsqueeze(2), (1, c['window']), stride=(1, c['stride']))
        cut = cut.view(batch, c['encoder_width'], c['window'], -1).permute(0, 3, 2, 1)  # [batch, windows, window, width]
        count = cut.shape[1]
        flat = cut.reshape(-1, c['window'], c['encoder_width'])
        out = model(query_embeds=tokens.expand(flat.shape[0], -1, -1), encoder_hidden_states=flat).last_hidden_state
        out = out.view(batch, count * c['query_length'], -1)
    else:
        rows = []
        for row, length in zip(leaf, lengths):
            width, stride = c['window'] or time, c['stride'] or time
            parts = [row[i * stride : min(length, i * stride + width)] for i in range(windows_of(length, c))]
            outs = [model(query_embeds=tokens, encoder_hidden_states=part[None]).last_hidden_state[0] for part in parts]
            rows.append(torch.cat(outs))
        most = max(row.shape[0] for row in rows)
        out = torch.stack([F.pad(row, (0, 0, 0, most - row.shape[0])) for row in rows])
    cotangent = randn(f'{name}/cotangent', *out.shape)
    (out * cotangent).sum().backward()
    fixture.case(
        dict(name=name, config=c, lengths=lengths, published=published),
        **{'in': {'frames': frames}},
        param=given,
        cotangent={'last': cotangent},
        out={'last': out.float()},
        grad={key: value.grad.float() for key, value in named.items()} | {'frames': leaf.grad.float()},
    )
    return given


def q_former():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


def salmonn():
    """A checkpoint as SALMONN's runner writes it, tiny, with what else such a file holds."""
    fixture = Fixture()
    given = one(fixture, 'checkpoint', published=True, lengths=None, query_length=2)
    model = {f'speech_{key}': value for key, value in given.items()}
    model |= {
        'speech_Qformer.bert.embeddings.position_ids': torch.arange(512)[None],
        'speech_Qformer.bert.embeddings.word_embeddings.weight': torch.zeros(3, 12),
        'speech_Qformer.bert.encoder.layer.0.intermediate.dense.weight': torch.zeros(20, 12),
        'speech_Qformer.bert.encoder.layer.1.output.LayerNorm.bias': torch.zeros(12),
        'speech_llama_proj.weight': torch.zeros(4, 12),
        'ln_speech.weight': torch.ones(6),
        'llama_model.base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight': torch.zeros(2, 4),
    }
    torch.save({'model': model, 'config': {'run': {}}, 'scaler': None, 'epoch': 1}, FIXTURES / 'models/salmonn-tiny.pth')
    return fixture


if __name__ == '__main__':
    main({'models/q-former': q_former, 'models/q-former-checkpoint': salmonn})
