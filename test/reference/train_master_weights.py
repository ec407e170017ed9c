"""Fixture for `masterWeights` of lib/train's optimisers: PyTorch's optimisers on float32 copies of half-precision parameters.

    python test/reference/train_master_weights.py [--check]
"""

import torch
from common import Fixture, main, randn
from train import STEPS, Lion

SHAPES = {'weight': (3, 5), 'bias': (4,)}
SHOWN = (1, 10, STEPS)
VARIANTS = [
    ('adamw', 'AdamW', 'bfloat16', dict(lr=0.01, weight_decay=0.1)),
    ('adamw_half', 'AdamW', 'float16', dict(lr=0.01)),
    ('adamw_small_rate', 'AdamW', 'bfloat16', dict(lr=1e-5)),
    ('adam', 'Adam', 'bfloat16', dict(lr=0.01, weight_decay=0.1, amsgrad=True)),
    ('sgd', 'SGD', 'bfloat16', dict(lr=0.001, momentum=0.9, weight_decay=0.05)),
    ('sgd_plain', 'SGD', 'bfloat16', dict(lr=0.001)),
    ('lion', 'Lion', 'bfloat16', dict(lr=1e-4, weight_decay=0.1)),
    ('lion_maximize', 'Lion', 'float16', dict(lr=1e-4, maximize=True)),
    ('adagrad', 'Adagrad', 'bfloat16', dict(lr=0.01, lr_decay=0.05, initial_accumulator_value=0.2)),
]


def master_weights():
    fixture = Fixture()
    # Values that every half-precision type has, in float32 because numpy knows no bfloat16.
    initial = {key: randn(f'master param {key}', *shape).bfloat16().float() for key, shape in SHAPES.items()}
    gradients = {key: randn(f'master grad {key}', STEPS, *shape).bfloat16().float() for key, shape in SHAPES.items()}
    fixture.case({'name': 'given'}, param=initial, **{'in': gradients})
    for name, kind, dtype, options in VARIANTS:
        half = getattr(torch, dtype)
        params = {key: torch.nn.Parameter(value.to(half)) for key, value in initial.items()}
        masters = {key: torch.nn.Parameter(p.detach().float()) for key, p in params.items()}
        optimizer = (Lion if kind == 'Lion' else getattr(torch.optim, kind))(masters.values(), foreach=False, **options)
        out = {}
        for step in range(STEPS):
            for key, param in params.items():
                # The gradient depends on the rounded weight, as a model's does; a multiple of 1/4 leaves no doubt about
                # its own rounding.
                grad = (gradients[key][step] + (param.detach().float() * 4).round() / 4).to(half)
                masters[key].grad = grad.float()
            optimizer.step()
            with torch.no_grad():
                for key, param in params.items():
                    param.copy_(masters[key])
            if step + 1 in SHOWN:
                out |= {f'{key}.{step + 1}': p.detach().clone() for key, p in masters.items()}
        fixture.case({'name': name, 'kind': kind, 'dtype': dtype, 'options': options}, out=out)
    return fixture


if __name__ == '__main__':
    main({'train/master-weights': master_weights})
