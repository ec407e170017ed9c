"""Tiny BERT networks with random weights, computed by transformers: test/fixtures/models/bert.safetensors."""

import torch
from transformers import BertConfig, BertModel

from common import Fixture, main, randint, randn
from roberta import SIZE, fill

CASES = [
    dict(name='base'),
    dict(name='no-pooler', pooler=False, hidden_act='gelu_new', type_vocab_size=1),
]


def one(fixture, name, pooler=True, **options):
    config = BertConfig(**{**SIZE, 'pad_token_id': 0, 'type_vocab_size': 2, **options})
    config._attn_implementation = 'eager'
    model = BertModel(config, add_pooling_layer=pooler).train()  # dropout is 0
    fill(model, name)
    ids = randint(f'{name}/ids', 3, SIZE['vocab_size'], 3, 9)
    mask = torch.ones_like(ids)
    for row, length in enumerate([9, 6, 2]):
        ids[row, length:] = 0
        mask[row, length:] = 0
    inputs = {'input_ids': ids, 'attention_mask': mask}
    if config.type_vocab_size > 1:
        inputs['token_type_ids'] = randint(f'{name}/types', 0, 2, 3, 9)
    outputs = model(**inputs)
    states = outputs.last_hidden_state
    cotangent = randn(f'{name}/cotangent', *states.shape)
    (states * cotangent).sum().backward()
    weights = mask.unsqueeze(-1).float()
    out = {'states': states, 'mean': (states * weights).sum(1) / weights.sum(1)}
    if pooler:
        out['pooler'] = outputs.pooler_output
    parameters = dict(model.named_parameters())
    fixture.case(
        dict(name=name, config={**SIZE, 'pad_token_id': 0, 'type_vocab_size': 2, **options, 'add_pooling_layer': pooler}),
        **{'in': inputs},
        param=parameters,
        cotangent={'main': cotangent},
        out=out,
        grad={key: value.grad for key, value in parameters.items() if value.grad is not None},
    )


def bert():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


main({'models/bert': bert})
