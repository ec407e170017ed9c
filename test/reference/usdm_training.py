"""Six steps of supervised fine-tuning as USDM's programs come to them: test/fixtures/models/usdm-training.safetensors.

torch's AdamW in one group (betas 0.9 and 0.95, decay 0.01 of all weights, norms too), no clipping, transformers' cosine
schedule with 3 % of warm-up, each step over all four examples. `published`: the mean of the examples' own means, as
accumulation over batches of one example is under DeepSpeed; `tokens`: the mean over all tokens that are learnt.
"""

import math

import torch
from transformers import LlamaConfig, LlamaForCausalLM, get_cosine_schedule_with_warmup

from common import Fixture, main, randint, randn

STEPS = 6
CONFIG = dict(
    vocab_size=264,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=1,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
)
LENGTHS = [(5, 2), (12, 3), (9, 7), (7, 1)]  # of each example, and how many of its last tokens but one are learnt


def example(i, length, learnt):
    ids = randint(f'usdm-training {i}', 0, CONFIG['vocab_size'], length)
    labels = torch.full_like(ids, -100)
    labels[length - 1 - learnt : length - 1] = ids[length - 1 - learnt : length - 1]
    return ids, labels


def network(weights):
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).double()
    model.load_state_dict({key: value.double() for key, value in weights.items()})
    return model.train()


def train(mode, weights, examples):
    model = network(weights)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, math.ceil(0.03 * STEPS), STEPS)
    losses, rates = [], []
    for _ in range(STEPS):
        sums = []
        for ids, labels in examples:
            logits = model(input_ids=ids[None]).logits[0, :-1].double()
            sums.append(torch.nn.functional.cross_entropy(logits, labels[1:], reduction='sum'))
        counts = [int((labels[1:] != -100).sum()) for _, labels in examples]
        if mode == 'published':
            loss = sum(part / count for part, count in zip(sums, counts)) / len(sums)
        else:
            loss = sum(sums) / sum(counts)
        rates.append(schedule.get_last_lr()[0])
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, rates, {key: value.detach().float() for key, value in model.state_dict().items()}


def training():
    fixture = Fixture()
    weights = {
        key: (randn(f'usdm-training {key}', *value.shape, scale=0.1) + (1 if 'norm' in key else 0))
        for key, value in LlamaForCausalLM(LlamaConfig(**CONFIG)).state_dict().items()
    }
    examples = [example(i, *lengths) for i, lengths in enumerate(LENGTHS)]
    given = {f'ids.{i}': ids for i, (ids, _) in enumerate(examples)}
    given |= {f'labels.{i}': labels for i, (_, labels) in enumerate(examples)}
    fixture.case(dict(name='start', config=CONFIG, steps=STEPS), param=weights, **{'in': given})
    for mode in ('published', 'tokens'):
        losses, rates, after = train(mode, weights, examples)
        out = dict(losses=torch.tensor(losses, dtype=torch.float64), rates=torch.tensor(rates, dtype=torch.float64))
        fixture.case(dict(name=mode), out=out, after=after)
    return fixture


if __name__ == '__main__':
    main({'models/usdm-training': training})
