"""State dictionaries as torch.save writes them, for lib/train to go on from: python train_torch_state.py [--check].

`test/fixtures/train/torch-state.pt` holds, for each optimiser, the parameters and the state after 5 steps and the
parameters after 10; and states of schedulers and of a GradScaler. With `--check` the stored file is compared by value.
"""

import argparse
import copy
import sys

import torch
from common import FIXTURES, randn

SHAPES = {'weight': (3, 2), 'bias': (4,), 'late': (5,)}
KINDS = {
    'adamw': ('AdamW', dict(lr=0.01, amsgrad=True)),
    'adam': ('Adam', dict(lr=0.02, betas=(0.8, 0.95), weight_decay=0.1)),
    'sgd': ('SGD', dict(lr=0.01)),
    'sgd momentum': ('SGD', dict(lr=0.01, momentum=0.9)),
    'adagrad': ('Adagrad', dict(lr=0.1, lr_decay=0.1)),
    'rmsprop': ('RMSprop', dict(momentum=0.9, centered=True)),
    'nadam': ('NAdam', dict(lr=0.01)),
    'radam': ('RAdam', dict(betas=(0.9, 0.8))),
    'adamax': ('Adamax', {}),
    'adadelta': ('Adadelta', {}),
    'asgd': ('ASGD', dict(t0=3)),
    'rprop': ('Rprop', {}),
    'adafactor': ('Adafactor', {}),
}
PATH = FIXTURES / 'train' / 'torch-state.pt'


def gradient(key, step):
    return randn(f'torch state grad {key} {step}', *SHAPES[key]).double()


def run(kind, options):
    params = {key: torch.nn.Parameter(randn(f'torch state {key}', *shape).double()) for key, shape in SHAPES.items()}
    groups = [{'params': [params['weight'], params['late']]}, {'params': [params['bias']], 'lr': 0.05}]
    optimizer = getattr(torch.optim, kind)(groups, **options)
    saved = {}
    for step in range(10):
        if step == 5:
            saved = {
                'params': {key: value.detach().clone() for key, value in params.items()},
                'optimizer': {
                    'state': {
                        number: {key: value.clone() for key, value in own.items() if value is not None}
                        for number, own in optimizer.state_dict()['state'].items()
                    },
                    'param_groups': optimizer.state_dict()['param_groups'],
                },
            }
        for key, value in params.items():
            # No gradient and so no state for this one before the state is saved.
            value.grad = gradient(key, step) if key != 'late' or step > 5 else None
        optimizer.step()
    return saved | {'kind': kind, 'after': {key: value.detach().clone() for key, value in params.items()}}


def curved(x):
    """Rosenbrock's function of many variables, with a term that joins two parameters."""
    joined = torch.cat([one.flatten() for one in x])
    return (100 * (joined[1:] - joined[:-1] ** 2) ** 2 + (1 - joined[:-1]) ** 2).sum()


LBFGS = {
    'plain': dict(lr=0.001, max_iter=5, history_size=4),
    'wolfe': dict(line_search_fn='strong_wolfe', max_iter=4, history_size=3),
    'wolfe far': dict(line_search_fn='strong_wolfe', lr=3.0, max_iter=6, max_eval=9, history_size=2),
    'wolfe done': dict(line_search_fn='strong_wolfe', max_iter=200, history_size=5, tolerance_grad=1e-5, tolerance_change=1e-12),
}


def run_lbfgs(options):
    params = [torch.nn.Parameter(randn(f'lbfgs {i}', *shape).double()) for i, shape in enumerate([(2, 2), (3,)])]
    start = [param.detach().clone() for param in params]
    optimizer = torch.optim.LBFGS(params, **options)

    def closure():
        optimizer.zero_grad()
        loss = curved(params)
        loss.backward()
        return loss

    losses, halfway = [], {}
    for step in range(12):
        if step == 6:
            halfway = {'params': [param.detach().clone() for param in params], 'optimizer': copy.deepcopy(optimizer.state_dict())}
        losses.append(optimizer.step(closure).item())
    return {'start': start, 'losses': losses, 'options': options, 'after': [param.detach().clone() for param in params], **halfway}


def build():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scaler = torch.amp.GradScaler('cpu', init_scale=512.0, growth_interval=50)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    milestones = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5], gamma=0.5)
    for _ in range(7):
        optimizer.step()
        scheduler.step()
    return {
        'gradients': {key: torch.stack([gradient(key, step) for step in range(10)]) for key in SHAPES},
        'optimizers': {name: run(*how) for name, how in KINDS.items()},
        'lbfgs': {name: run_lbfgs(options) for name, options in LBFGS.items()},
        'scaler': scaler.state_dict() | {'scale': 512.0},
        'scheduler': scheduler.state_dict(),
        'milestones': milestones.state_dict(),
        'last_lr': scheduler.get_last_lr(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.shape == b.shape and torch.allclose(a, b, rtol=1e-6, atol=1e-9)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='regenerate and compare, write nothing')
    built = build()
    if parser.parse_args().check:
        good = same(built, torch.load(PATH, weights_only=False))
        print(f'{PATH.name}: {"ok" if good else "DIFFERS"}')
        sys.exit(not good)
    torch.save(built, PATH)
    print(f'{PATH.name}: {PATH.stat().st_size:,} bytes')
