"""Tiny RoBERTa and LLaMA networks with classifiers, computed by transformers in float64, which for
LLaMA's norms and softmax it leaves: test/fixtures/models/text-heads.safetensors."""

import torch
import transformers

import decoder_lm
import roberta
from common import Fixture, main, randint, randn

ROBERTA = dict(
    vocab_size=20,
    hidden_size=12,
    num_hidden_layers=1,
    num_attention_heads=3,
    intermediate_size=14,
    max_position_embeddings=14,
    type_vocab_size=1,
    pad_token_id=1,
    num_labels=3,
)
DECODER = dict(decoder_lm.SIZE, vocab_size=20, num_hidden_layers=1, num_labels=3, pad_token_id=1)
TIME = 7

# Network, name, kind of labels, side of the padding, what differs.
CASES = [
    ('RobertaForSequenceClassification', 'classes', 'class', 'right', {}),
    ('RobertaForSequenceClassification', 'several', 'several', 'right', {}),
    ('RobertaForSequenceClassification', 'quantity', 'quantity', 'right', dict(num_labels=1)),
    ('RobertaForSequenceClassification', 'quantities', 'several', 'right', dict(problem_type='regression')),
    ('RobertaForTokenClassification', 'tokens', 'token', 'right', {}),
    ('LlamaForSequenceClassification', 'right', 'class', 'right', {}),
    ('LlamaForSequenceClassification', 'left', 'several', 'left', {}),
    ('LlamaForSequenceClassification', 'no-padding', 'class', None, dict(pad_token_id=None)),
    ('MistralForSequenceClassification', 'right', 'quantity', 'right', dict(num_labels=1, sliding_window=4, num_key_value_heads=2)),
    ('Qwen2ForSequenceClassification', 'right', 'class', 'right', dict(tie_word_embeddings=True, num_key_value_heads=2)),
]
TYPES = {'Roberta': 'roberta', 'Llama': 'llama', 'Mistral': 'mistral', 'Qwen2': 'qwen2'}


def labels_of(kind, name, batch, count, mask):
    if kind == 'class':
        return randint(f'{name}/labels', 0, count, batch)
    if kind == 'several':
        return randint(f'{name}/labels', 0, 2, batch, count).float()
    if kind == 'quantity':
        return randn(f'{name}/labels', batch)
    labels = randint(f'{name}/labels', 0, count, batch, TIME)
    return torch.where(mask == 1, labels, -100)


def one(fixture, network, case, kind, side, options):
    name = f'{network}-{case}'
    prefix = network.split('For')[0]
    size = ROBERTA if prefix == 'Roberta' else DECODER
    config = getattr(transformers, f'{prefix}Config')(**{**size, **options})
    config._attn_implementation = 'eager'
    model = getattr(transformers, network)(config).eval()
    (roberta if prefix == 'Roberta' else decoder_lm).fill(model, name)
    # What transformers masks padding with in float64 is -inf to its softmax, which is float32's.
    exactly = torch.float32 if side == 'left' or 'sliding_window' in options else torch.float64
    model.to(exactly)
    batch = 3 if side else 1
    ids = randint(f'{name}/ids', 3, size['vocab_size'], batch, TIME)
    mask = torch.ones_like(ids)
    for row, length in enumerate([TIME, 5, 2][:batch]):
        pads = slice(0, TIME - length) if side == 'left' else slice(length, TIME)
        ids[row, pads], mask[row, pads] = 1, 0
    labels = labels_of(kind, name, batch, config.num_labels, mask)
    inputs = {'input_ids': ids, 'attention_mask': mask, 'labels': labels}
    exact = {key: value.to(exactly) if value.is_floating_point() else value for key, value in inputs.items()}
    outputs = model(**exact)
    out = {'loss': outputs.loss, 'logits': outputs.logits}
    cotangents = {key: randn(f'{name}/cotangent/{key}', *value.shape) for key, value in out.items()}
    sum((value * cotangents[key]).sum() for key, value in out.items()).backward()
    parameters = dict(model.named_parameters())
    fixture.case(
        dict(name=name, network=network, config={'model_type': TYPES[prefix], **size, **options}),
        **{'in': inputs},
        cotangent=cotangents,
        param={key: value.float() for key, value in parameters.items()},
        out=out,
        grad={key: value.grad for key, value in parameters.items() if value.grad is not None},
    )


def heads():
    fixture = Fixture()
    for case in CASES:
        one(fixture, *case)
    return fixture


if __name__ == '__main__':
    main({'models/text-heads': heads})
