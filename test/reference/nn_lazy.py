"""Lazy layers and other modules that test/nn/lazy.test.ts compares, initialized from a seed: python nn_lazy.py [--check]."""

import warnings

import torch
from common import Fixture, main, randn
from torch import nn

warnings.simplefilter('ignore')

LAZY = [
    ('LazyLinear', [5], {}, [3, 4]),
    ('LazyLinear', [5], {'bias': False}, [2, 3, 4]),
    ('LazyConv1d', [4, 3], {'padding': 1, 'groups': 2}, [2, 6, 8]),
    ('LazyConv2d', [4, [2, 3]], {'stride': 2}, [2, 3, 6, 7]),
    ('LazyConv2d', [4, 3], {'bias': False}, [3, 6, 7]),
    ('LazyConv3d', [2, 2], {}, [1, 3, 4, 4, 4]),
    ('LazyConvTranspose1d', [4, 3], {'stride': 2, 'groups': 2}, [2, 6, 5]),
    ('LazyConvTranspose2d', [3, 2], {}, [2, 3, 4, 5]),
    ('LazyConvTranspose3d', [2, 2], {'bias': False}, [1, 3, 3, 3, 3]),
    ('LazyBatchNorm1d', [], {}, [4, 3]),
    ('LazyBatchNorm2d', [], {'affine': False}, [2, 3, 4, 5]),
    ('LazyBatchNorm3d', [], {'track_running_stats': False}, [2, 3, 2, 2, 2]),
    ('LazyInstanceNorm1d', [], {}, [2, 3, 5]),
    ('LazyInstanceNorm2d', [], {'affine': False, 'track_running_stats': False}, [2, 3, 4, 5]),
    ('LazyInstanceNorm3d', [], {'momentum': 0.5}, [2, 3, 2, 2, 2]),
]


def lazy():
    fixture = Fixture()
    for i, (kind, args, options, shape) in enumerate(LAZY):
        torch.manual_seed(3)
        layer = getattr(nn, kind)(*[tuple(a) if isinstance(a, list) else a for a in args], **options)
        before = repr(layer)
        x = randn(f'lazy {i}', *shape).requires_grad_()
        out = layer(x)
        out.sin().sum().backward()
        description = {'name': f'{kind} {i}', 'kind': kind, 'args': args, 'options': options, 'before': before,
                       'after': repr(layer), 'state': list(layer.state_dict())}  # fmt: skip
        gradients = {'x': x.grad} | {name: p.grad for name, p in layer.named_parameters()}
        fixture.case(description, out={'out': out}, state=layer.state_dict(), grad=gradients, **{'in': {'x': x}})

    torch.manual_seed(5)
    layer = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [4, 10], div_value=2.0, head_bias=True)
    x, target = randn('adaptive x', 6, 8).requires_grad_(), torch.tensor([0, 19, 4, 9, 3, 12])
    output, loss = layer(x, target)
    loss.backward()
    one = layer(x[0], target[0])
    fixture.case({'name': 'adaptive', 'state': list(layer.state_dict())}, **{'in': {'x': x, 'target': target}},
                 out={'output': output, 'loss': loss, 'logs': layer.log_prob(x), 'predict': layer.predict(x * 4), 'one': one[0]},
                 grad={'x': x.grad} | {name: p.grad for name, p in layer.named_parameters()})  # fmt: skip

    a, b, c = (randn(f'triplet {k}', 5, 4).requires_grad_() for k in 'abc')
    out = {}
    for name, options in (('plain', {}), ('swap', {'swap': True, 'margin': 2.0, 'reduction': 'sum'}),
                          ('cosine', {'distance_function': lambda p, q: 1 - nn.functional.cosine_similarity(p, q), 'reduction': 'none'})):  # fmt: skip
        out[name] = nn.TripletMarginWithDistanceLoss(**options)(a, b, c)
    (out['plain'] + out['swap'] + out['cosine'].sum()).backward()
    fixture.case({'name': 'triplet'}, **{'in': {'a': a, 'b': b, 'c': c}}, out=out, grad={'a': a.grad, 'b': b.grad, 'c': c.grad})
    return fixture


main({'nn/lazy': lazy})
