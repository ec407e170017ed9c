"""Adapters that Python's peft wrote, and 20 steps of training them: test/fixtures/peft.

Each case is a directory as `save_pretrained` writes it (`test/fixtures/peft/<case>`, without its README.md), and in
`peft/small.safetensors` or `peft/roberta.safetensors` the network's weights (those of a file's first case are everyone's),
the batches, the outputs before training, the first gradients, the loss of every step and the adapter afterwards.
`--check` compares the directories too.
"""

import json
import shutil
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import RobertaConfig, RobertaModel

from common import FIXTURES, Fixture, main, randint, randn, relative_error

STEPS = 20
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 0.01


class Small(nn.Module):
    """Every kind of layer that takes an adapter; test/peft/networks.ts has the same in TypeScript."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(20, 12, padding_idx=0)
        self.conv = nn.Conv1d(12, 10, 3, stride=2, padding=1)
        self.hidden = nn.Linear(10, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, ids):
        x = torch.relu(self.conv(self.embed(ids).transpose(1, 2)))
        return self.head(torch.nn.functional.gelu(self.hidden(x.transpose(1, 2)))).mean(1)


ROBERTA = dict(
    vocab_size=20,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=10,
    type_vocab_size=1,
    pad_token_id=1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    attn_implementation='eager',
)


class Roberta(nn.Module):
    def __new__(cls):
        return RobertaModel(RobertaConfig(**ROBERTA))


LINEAR = ['hidden', 'head']
EVERY = ['embed', 'conv', 'hidden', 'head']
CASES = {
    'plain': dict(model=Small, r=4, lora_alpha=8, target_modules=LINEAR),
    'rslora': dict(model=Small, r=4, lora_alpha=8, target_modules=LINEAR, use_rslora=True),
    'dora': dict(model=Small, r=2, lora_alpha=4, target_modules=EVERY, use_dora=True),
    'embedding': dict(model=Small, r=3, lora_alpha=6, target_modules=['embed']),
    'conv': dict(model=Small, r=3, lora_alpha=6, target_modules='con.', bias='lora_only'),
    'whole': dict(
        model=Small,
        r=2,
        lora_alpha=2,
        target_modules=['embed', 'conv', 'hidden'],
        modules_to_save=['head'],
        bias='all',
        rank_pattern={'hidden': 5},
        alpha_pattern={'conv': 7},
    ),
    'roberta': dict(model=Roberta, r=4, lora_alpha=8, target_modules=['query', 'value']),
    'roberta-every': dict(
        model=Roberta,
        r=2,
        lora_alpha=4,
        target_modules=r'.*(query|key|value|dense|word_embeddings)',
        use_dora=True,
    ),
    'roberta-layer': dict(
        model=Roberta, r=2, lora_alpha=4, target_modules=['query', 'dense'], layers_to_transform=[1], use_rslora=True
    ),
}


def fill(model, name):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
            if 'LayerNorm.weight' in key:
                parameter.add_(1)


def loss_of(model, ids, target):
    output = model(ids)
    if not torch.is_tensor(output):
        output = output.pooler_output
    return output, torch.nn.functional.mse_loss(output, target)


def directory(name, model, check, problems):
    """What the case's directory holds, from the file itself."""
    path = FIXTURES / 'peft' / name
    with tempfile.TemporaryDirectory() as made:
        model.save_pretrained(made)
        if check:
            new, old = (load_file(Path(folder) / 'adapter_model.safetensors') for folder in (made, path))
            if new.keys() != old.keys() or any(relative_error(new[key], old[key]) > 1e-6 for key in new):
                problems.append(name)
            return
        path.mkdir(parents=True, exist_ok=True)
        config = json.loads((Path(made) / 'adapter_config.json').read_text())
        # A set in peft, so its order changes from run to run.
        if isinstance(config['target_modules'], list):
            config['target_modules'].sort()
        (path / 'adapter_config.json').write_text(json.dumps(config, indent=2, sort_keys=True) + '\n')
        shutil.copy(Path(made) / 'adapter_model.safetensors', path)


def one(fixture, name, check, problems, model, **config):
    base = model()
    fill(base, model.__name__)
    base.train()
    params = {key: value.clone() for key, value in base.state_dict().items() if value.is_floating_point()}
    adapted = get_peft_model(base, LoraConfig(**config))
    with torch.no_grad():
        for key, parameter in adapted.named_parameters():
            if 'magnitude' in key:
                parameter.mul_(1 + randn(f'{name}/{key}', *parameter.shape, scale=0.1))
            elif 'lora_' in key or 'modules_to_save' in key:
                parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
    directory(name, adapted, check, problems)
    ids = randint(f'{name}/ids', 2, 20, STEPS, 3, 7)
    width = 4 if model is Small else ROBERTA['hidden_size']
    targets = randn(f'{name}/targets', STEPS, 3, width)
    with torch.no_grad():
        first, _ = loss_of(adapted, ids[0], targets[0])
        with adapted.disable_adapter():
            plain, _ = loss_of(adapted, ids[0], targets[0])
    trained = [parameter for parameter in adapted.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        _, loss = loss_of(adapted, ids[step], targets[step])
        loss.backward()
        if step == 0:
            grads = {key: value.grad.clone() for key, value in adapted.named_parameters() if value.grad is not None}
        optimizer.step()
        losses.append(loss.detach())
    with tempfile.TemporaryDirectory() as made:
        adapted.save_pretrained(made)
        after = load_file(Path(made) / 'adapter_model.safetensors')
    merged = adapted.merge_and_unload()
    with torch.no_grad():
        last, _ = loss_of(merged, ids[0], targets[0])
    fixture.case(
        dict(name=name, lr=LEARNING_RATE, decay=WEIGHT_DECAY, config=ROBERTA if model is Roberta else {}),
        **{'in': {'ids': ids, 'targets': targets}},
        param={} if fixture.cases else params,
        out={'first': first, 'plain': plain, 'merged': last, 'losses': torch.stack(losses)},
        grad={key.removeprefix('base_model.model.'): value for key, value in grads.items()},
        after=after,
    )


def lora(model):
    check = '--check' in sys.argv
    problems = []
    fixture = Fixture()
    for name, case in CASES.items():
        if case['model'] is model:
            one(fixture, name, check, problems, **case)
    if problems:
        sys.exit(f'the directories of {", ".join(problems)} differ')
    return fixture


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    main({'peft/small': lambda: lora(Small), 'peft/roberta': lambda: lora(Roberta)})
