"""Steps of torch.optim.Muon and SparseAdam that test/train/muon.test.ts compares: python train_muon.py [--check].

Beside each result of Muon is `error`: how far the same steps with a Newton–Schulz iteration in float32 end from it.
"""

import torch
from common import Fixture, main, randint, randn
from torch.optim import _muon

STEPS = 20
SHAPES = {'wide': (4, 10), 'tall': (12, 5), 'square': (8, 8)}
VARIANTS = [
    ('default', {}),
    ('options', dict(lr=0.02, weight_decay=0.01, momentum=0.8, nesterov=False, ns_steps=3)),
    ('rms', dict(lr=0.01, adjust_lr_fn='match_rms_adamw', ns_coefficients=(2.0, -1.5, 0.5), eps=1e-5)),
    ('original', dict(lr=0.01, adjust_lr_fn='original', weight_decay=0.0)),
]


def steps(options):
    params = {key: torch.nn.Parameter(randn(f'muon {key}', *shape)) for key, shape in SHAPES.items()}
    optimizer = torch.optim.Muon(params.values(), **options)
    for step in range(STEPS):
        for key, param in params.items():
            param.grad = randn(f'muon grad {key}', STEPS, *SHAPES[key])[step]
        optimizer.step()
    return params, optimizer


def muon():
    fixture = Fixture()
    given = {'param': {key: randn(f'muon {key}', *shape) for key, shape in SHAPES.items()},
             'in': {key: randn(f'muon grad {key}', STEPS, *shape) for key, shape in SHAPES.items()}}  # fmt: skip
    fixture.case({'name': 'given'}, **given)
    half = _muon._zeropower_via_newtonschulz
    for name, options in VARIANTS:
        params, optimizer = steps(options)
        # The same in float32.
        _muon._zeropower_via_newtonschulz = lambda grad, *rest: half(Wide(grad), *rest)
        wide, _ = steps(options)
        _muon._zeropower_via_newtonschulz = half
        error = max(((wide[key] - params[key]).abs().max() / params[key].abs().max()).item() for key in params)
        groups = {key: value for key, value in optimizer.state_dict()['param_groups'][0].items() if key != 'params'}
        state = {f'{i}.{k}': v for i, values in optimizer.state_dict()['state'].items() for k, v in values.items()}
        fixture.case({'name': name, 'options': options, 'group': groups, 'error': error}, out=params, state=state)
    return fixture


class Wide:
    """A gradient whose bfloat16 form is float32."""

    def __init__(self, grad):
        self.grad, self.shape = grad, grad.shape

    def size(self, dim):
        return self.grad.size(dim)

    def bfloat16(self):
        return self.grad.clone()


def sparse_adam():
    fixture = Fixture()
    table, indices = randn('sparse table', 7, 3), randint('sparse ids', 0, 7, 12, 4)
    fixture.case({'name': 'given'}, param={'table': table}, **{'in': {'indices': indices}})
    for name, options in (('default', {}), ('options', dict(lr=0.05, betas=(0.8, 0.9), eps=1e-4, maximize=True))):
        layer = torch.nn.Embedding(7, 3, sparse=True)
        with torch.no_grad():
            layer.weight.copy_(table)
        optimizer = torch.optim.SparseAdam(layer.parameters(), **options)
        for ids in indices:
            optimizer.zero_grad()
            layer(ids).sin().sum().backward()
            optimizer.step()
        state = {f'0.{k}': v if torch.is_tensor(v) else torch.tensor(float(v)) for k, v in optimizer.state_dict()['state'][0].items()}
        fixture.case({'name': name, 'options': options}, out={'table': layer.weight.detach()}, state=state)
    return fixture


main({'train/muon': muon, 'train/sparse-adam': sparse_adam})
