"""Functions of torch.nn.functional, torch.fft, torch.linalg and torch.special that PyTorch's operator database does not call.

    python torch_functions.py            # writes test/fixtures/tensor/torch-functions.json.gz
    python torch_functions.py --check    # computes again and compares within 1e-6

The samples have the form of operator_database.py, and test/tensor/operator-database.test.ts runs them with its own. A random
function is called after `torch.manual_seed(42)`, as there.
"""

import gzip
import json
import sys
import warnings
from pathlib import Path

import torch
import torch.nn.functional as F
from common import randint, randn
from operator_database import encoded, gradients, narrowed, numbers, outputs
from torch.utils._pytree import tree_leaves

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'tensor' / 'torch-functions.json.gz'
MODULES = {'nn.functional': F, 'fft': torch.fft, 'linalg': torch.linalg, 'special': torch.special}


def sample(name, function, *args, **kwargs):
    call = narrowed([list(args), dict(kwargs)])
    leaves = [value for value in tree_leaves(call) if isinstance(value, torch.Tensor)]
    described = [encoded(part) for part in call]
    inputs = call
    if name.endswith('_'):  # in place: on a copy that is no leaf, which the test makes too
        inputs = [[call[0][0].clone(), *call[0][1:]], call[1]]
    torch.manual_seed(42)
    results = outputs(function(*inputs[0], **inputs[1]))
    entry = {'input': described[0]['l'][0], 'args': described[0]['l'][1:], 'kwargs': described[1]['o']}
    entry['out'] = [encoded(value.detach() if isinstance(value, torch.Tensor) else value) for value in results]
    wanted = [value for value in leaves if value.requires_grad]
    if wanted and any(isinstance(value, torch.Tensor) and value.requires_grad for value in results):
        entry['grads'] = gradients(results, wanted)
    return entry


def x(key, *shape):
    return randn(key, *shape).double().requires_grad_()


def positive(key, *shape):
    return (randn(key, *shape).double().abs() + 0.1).requires_grad_()


def calls():
    """Name, positional and keyword arguments."""
    for name in ('relu_', 'selu_', 'tanh', 'sigmoid'):
        yield name, [x(name, 3, 4)], {}
    for name in ('celu_', 'elu_', 'leaky_relu_'):
        yield name, [x(name, 3, 4)], {}
        yield name, [x(name, 3, 4), 0.3], {}
    yield 'hardtanh_', [x('hardtanh_', 3, 4), -0.5, 0.25], {}
    yield 'threshold_', [x('threshold_', 3, 4), 0.1, -2.0], {}
    yield 'rrelu_', [x('rrelu_', 3, 4)], {}
    yield 'rrelu_', [x('rrelu_', 3, 4), 0.1, 0.2], {'training': True}
    for name in ('relu', 'elu', 'selu', 'celu', 'leaky_relu', 'relu6', 'hardswish', 'hardsigmoid', 'silu', 'mish', 'hardtanh'):
        yield name, [randn(name, 3, 4).double()], {'inplace': True}
    yield 'threshold', [randn('threshold', 3, 4).double(), 0.1, -2.0, True], {}
    for name in ('softmax', 'log_softmax'):
        yield name, [x(name, 3, 4), 0], {}
        yield name, [randn(name, 3, 4)], {'dim': -1, 'dtype': torch.float64}
    yield 'gumbel_softmax', [randn('gumbel', 3, 4).requires_grad_(), 0.7], {}
    yield 'gumbel_softmax', [randn('gumbel', 3, 4).requires_grad_()], {'tau': 2.0, 'hard': True, 'dim': 0}
    for name in ('dropout', 'dropout1d', 'dropout2d', 'dropout3d', 'alpha_dropout', 'feature_alpha_dropout'):
        shape = (2, 3, 2, 2, 2) if name == 'dropout3d' else (2, 3, 2, 2) if name == 'dropout2d' else (2, 3, 4)
        yield name, [x(name, *shape), 0.4, True], {}
        yield name, [x(name, *shape)], {'p': 0.3}
        yield name, [randn(name, *shape), 0.4, True, True], {}

    for dims, shape in ((1, (2, 3, 8)), (2, (1, 2, 6, 5)), (3, (1, 2, 4, 4, 5))):
        image = x(f'pool {dims}', *shape)
        yield f'max_pool{dims}d_with_indices', [image, 2], {}
        yield f'max_pool{dims}d_with_indices', [image, 3, 2, 1, 1, True], {}
        yield f'max_pool{dims}d', [image, 2, None, 0, 1, False, True], {}
        yield f'max_pool{dims}d', [image], {'kernel_size': 3, 'stride': 1, 'return_indices': True}
        yield f'adaptive_max_pool{dims}d_with_indices', [image, 3], {}
        yield f'adaptive_max_pool{dims}d', [image, 2, True], {}
        yield f'lp_pool{dims}d', [image, 2.0, 2], {}
        yield f'lp_pool{dims}d', [positive(f'lp {dims}', *shape), 3, 3, 2, True], {}
        yield f'lp_pool{dims}d', [image, float('inf'), 2], {}
        if dims > 1:
            samples = torch.rand(1, 2, dims, generator=torch.Generator().manual_seed(1)).double()
            yield f'fractional_max_pool{dims}d_with_indices', [image, 2], {'output_size': 2, '_random_samples': samples}
            yield f'fractional_max_pool{dims}d', [image, 2, None, (0.6,) * dims, True, samples], {}
    yield 'conv_tbc', [x('tbc x', 5, 2, 3), x('tbc w', 3, 3, 4), x('tbc b', 4), 1], {}
    yield 'upsample', [x('upsample', 1, 2, 3, 3), (5, 4), None, 'bilinear', True], {}
    yield 'upsample', [x('upsample', 1, 2, 3, 3)], {'scale_factor': 2}
    yield 'affine_grid', [x('theta', 1, 2, 3), [1, 1, 3, 4]], {}
    yield 'affine_grid', [x('theta 3', 1, 3, 4), [1, 1, 2, 3, 2], True], {}
    yield 'fold', [x('fold', 1, 8, 4), (3, 3), 2], {}
    yield 'fold', [x('fold 2', 1, 8, 6), 6, (2, 2), 2, 1, (2, 3)], {}
    yield 'unfold', [x('unfold', 1, 2, 4, 5), (2, 3), 1, (1, 0), 2], {}

    logits = torch.log_softmax(randn('ctc', 6, 2, 4).double(), -1).detach().requires_grad_()
    targets = randint('ctc targets', 1, 4, 2, 3)
    yield 'ctc_loss', [logits, targets, [6, 5], [3, 2]], {}
    yield 'ctc_loss', [logits, targets, torch.tensor([6, 5]), torch.tensor([3, 2]), 0, 'sum', True], {}
    triple = [x(f'triplet {key}', 4, 3) for key in 'apn']
    yield 'triplet_margin_with_distance_loss', triple, {}
    yield 'triplet_margin_with_distance_loss', triple, {'margin': 2.0, 'swap': True, 'reduction': 'none'}
    pair = [x('pair a', 4, 3), x('pair b', 4, 3)]
    weight = positive('pair w', 4, 3)
    for name in ('mse_loss', 'l1_loss', 'huber_loss'):
        for reduction in ('none', 'mean', 'sum'):
            yield name, pair, {'reduction': reduction, 'weight': weight}
    yield 'huber_loss', [*pair, 'sum', 0.3], {}
    yield 'gaussian_nll_loss', [*pair, 0.3, True, 1e-4, 'sum'], {}
    embed = 4
    attention = [x('mha q', 3, 2, embed), x('mha k', 5, 2, embed), x('mha v', 5, 2, embed), embed, 2]
    weights = [x('mha in', 3 * embed, embed), x('mha bias', 3 * embed), x('mha bk', 1, 1, embed), x('mha bv', 1, 1, embed)]
    out = [x('mha out', embed, embed), x('mha out b', embed)]
    mask = randn('mha mask', 3, 5).double()
    padding = torch.tensor([[False, False, True, False, False], [False, False, False, False, True]])
    yield 'multi_head_attention_forward', [*attention, *weights, True, 0.0, *out], {'attn_mask': mask, 'key_padding_mask': padding.double()}
    plain = [*attention, *weights[:2], None, None, False, 0.0, *out]
    yield 'multi_head_attention_forward', [*plain, False, padding, True, None], {'average_attn_weights': False}
    static = {'static_k': x('static k', 4, 3, 2), 'static_v': x('static v', 4, 3, 2)}
    yield 'multi_head_attention_forward', plain, {'need_weights': False, **static}
    separate = {f'{key}_proj_weight': x(f'separate {key}', embed, embed) for key in 'qkv'}
    single = [value[:, 0].detach().requires_grad_() for value in attention[:3]]
    yield 'multi_head_attention_forward', [*single, embed, 2, None, *plain[6:]], {'use_separate_proj_weight': True, **separate}

    yield 'fft.fftfreq', [7], {'d': 0.5}
    yield 'fft.rfftfreq', [8, 2.0], {}
    yield 'linalg.matmul', [x('matmul a', 2, 3), x('matmul b', 3, 4)], {}
    yield 'linalg.matrix_exp', [x('matrix exp', 3, 3)], {}
    for name in ('digamma', 'erf', 'erfc', 'exp2', 'expit', 'expm1', 'gammaln', 'i0', 'psi', 'sinc', 'round'):
        yield f'special.{name}', [x(name, 3, 4)], {}
    yield 'special.round', [x('round 2', 3, 4)], {'decimals': 1}
    yield 'special.erfinv', [torch.tanh(x('erfinv', 3, 4)).detach().requires_grad_()], {}
    yield 'special.log1p', [positive('log1p', 3, 4)], {}
    yield 'special.logit', [torch.sigmoid(x('logit', 3, 4)).detach().requires_grad_()], {}
    yield 'special.logit', [x('logit eps', 3, 4), 0.1], {}
    yield 'special.gammainc', [positive('gammainc a', 3).detach(), positive('gammainc x', 2, 3)], {}
    yield 'special.gammaincc', [positive('gammainc a', 3).detach(), positive('gammainc x', 2, 3)], {}
    yield 'special.multigammaln', [(positive('multigammaln', 3) + 2).detach().requires_grad_(), 3], {}
    yield 'special.logsumexp', [x('logsumexp', 3, 4), 1, True], {}
    yield 'special.softmax', [x('special softmax', 3, 4), 0], {}
    yield 'special.log_softmax', [x('special log softmax', 3, 4), 1], {}
    yield 'special.xlogy', [x('xlogy', 3, 4), positive('xlogy y', 4)], {}


def entries():
    found = {}
    for name, args, kwargs in calls():
        module, _, short = ('nn.functional.' + name if '.' not in name else name).rpartition('.')
        function = getattr(MODULES[module], short)
        found.setdefault(f'{module}.{short}', []).append(sample(short, function, *args, **kwargs))
    return [{'name': name, 'variant': '', 'samples': samples} for name, samples in found.items()]


def main():
    warnings.simplefilter('ignore')  # of deprecated names
    torch.set_num_threads(1)
    made = json.loads(json.dumps({'torch': torch.__version__, 'operators': entries()}))
    if '--check' in sys.argv:
        kept = json.loads(gzip.decompress(OUT.read_bytes()))
        pairs = zip(numbers(kept['operators']), numbers(made['operators']), strict=True)
        worst = max(abs(a - b).max(initial=0) / max(abs(b).max(initial=0), 1e-8) for a, b in pairs)
        print(f'largest difference {worst:.1e}')
        sys.exit(not worst <= 1e-6)
    data = gzip.compress(json.dumps(made, separators=(',', ':')).encode(), 9, mtime=0)
    OUT.write_bytes(data)
    print(f'{len(made["operators"])} functions, {len(data):,} bytes')


if __name__ == '__main__':
    main()
