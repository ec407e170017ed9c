"""Label smoothing of a causal language model as transformers' Trainer does it: test/fixtures/train/label-smoothing.safetensors.

One optimiser step's gradients over two batches, whose loss is the mean over the targets of both, computed in float64 and
stored as float32.
"""

import torch
from common import Fixture, main, randint, randn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.trainer_pt_utils import LabelSmoother

CONFIG = dict(
    vocab_size=23,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=2,
    max_position_embeddings=32,
    rms_norm_eps=1e-5,
)
# Tokens of each row of each batch, and how many of the first have no label.
BATCHES = [[(7, 0), (5, 2)], [(6, 0), (6, 0), (3, 1)]]
FACTOR = 0.15


def batch_of(index, rows):
    longest = max(length for length, _ in rows)
    ids = randint(f'label smoothing/ids {index}', 1, CONFIG['vocab_size'], len(rows), longest)
    mask = torch.zeros_like(ids)
    labels = torch.full_like(ids, -100)
    for row, (length, unlearnt) in enumerate(rows):
        mask[row, :length] = 1
        labels[row, unlearnt:length] = ids[row, unlearnt:length]
    return {'input_ids': ids, 'attention_mask': mask, 'labels': labels}


def label_smoothing():
    config = LlamaConfig(**CONFIG)
    config._attn_implementation = 'eager'
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'label smoothing/{key}', *parameter.shape, scale=0.3))
            if 'norm' in key:
                parameter.add_(1)
    parameters = {key: value.detach().clone() for key, value in model.named_parameters()}
    model.double()
    smoother = LabelSmoother(epsilon=FACTOR)
    batches = [batch_of(index, rows) for index, rows in enumerate(BATCHES)]
    # As the Trainer counts for a loss of the kind ForCausalLM.
    items = sum(int(batch['labels'][..., 1:].ne(-100).sum()) for batch in batches)
    fixture = Fixture()
    out = {}
    for index, batch in enumerate(batches):
        labels = batch['labels']
        outputs = model(input_ids=batch['input_ids'], attention_mask=batch['attention_mask'])
        out[f'loss {index}'] = smoother(outputs, labels, shift_labels=True).detach()
        out[f'unshifted {index}'] = smoother(outputs, labels).detach()
        smoother(outputs, labels, shift_labels=True, num_items_in_batch=items).backward()
    fixture.case(
        {'name': 'causal', 'config': {'model_type': 'llama', **CONFIG}, 'factor': FACTOR, 'batches': len(batches), 'items': items},
        param=parameters,
        **{'in': {f'{key} {index}': value for index, batch in enumerate(batches) for key, value in batch.items()}},
        out={key: value.float() for key, value in out.items()},
        grad={key: value.grad.float() for key, value in model.named_parameters()},
    )
    return fixture


if __name__ == '__main__':
    main({'train/label-smoothing': label_smoothing})
