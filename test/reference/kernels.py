"""Our kernels' operators as plain PyTorch compositions: python kernels.py [--check] [names].

bfloat16 and float16 inputs are stored as float32 numbers that those types hold exactly.
"""

import torch
from common import Fixture, main, randn


def rms_norm_residual(input, residual, weight, eps):
    hidden = input if residual is None else input + residual
    accurate = hidden.to(torch.float64 if hidden.dtype == torch.float64 else torch.float32)
    output = accurate * torch.rsqrt(accurate.pow(2).mean(-1, keepdim=True) + eps)
    if weight is not None:
        output = output * weight.to(output.dtype)
    return output.to(hidden.dtype), hidden


# name, shape, dtype, residual, weight, eps. 37 and 100 end in the middle of a vector; 129 rows are more than one block.
CASES = [
    ('full', (3, 5, 64), torch.float32, True, True, 1e-6),
    ('odd_dim', (4, 37), torch.float32, True, True, 1e-6),
    ('one_row', (100,), torch.float32, True, True, 1e-5),
    ('no_residual', (2, 3, 48), torch.float32, False, True, 1e-6),
    ('no_weight', (6, 33), torch.float32, True, False, 1e-6),
    ('input_only', (2, 16), torch.float32, False, False, 0.1),
    ('many_rows', (129, 16), torch.float32, True, True, 1e-6),
    ('bfloat16', (5, 72), torch.bfloat16, True, True, 1e-6),
    ('bfloat16_input_only', (3, 41), torch.bfloat16, False, False, 1e-6),
    ('float16', (5, 40), torch.float16, True, True, 1e-5),
]


def build():
    fixture = Fixture()
    for name, shape, dtype, has_residual, has_weight, eps in CASES:
        given = {'input': randn(f'{name}/input', *shape, scale=2.0)}
        if has_residual:
            given['residual'] = randn(f'{name}/residual', *shape)
        if has_weight:
            given['weight'] = 1 + randn(f'{name}/weight', shape[-1], scale=0.2)
        given = {key: value.to(dtype).float() for key, value in given.items()}
        leaves = {key: value.to(dtype).requires_grad_() for key, value in given.items()}
        output, residual_output = rms_norm_residual(
            leaves['input'], leaves.get('residual'), leaves.get('weight'), eps
        )
        cotangent = {
            key: randn(f'{name}/cotangent/{key}', *shape).to(dtype).float() for key in ('output', 'residualOutput')
        }
        torch.autograd.backward([output, residual_output], [value.to(dtype) for value in cotangent.values()])
        fixture.case(
            {'name': name, 'dtype': str(dtype).removeprefix('torch.'), 'eps': eps, 'inputs': list(given)},
            **{
                'in': given,
                'out': {'output': output.float(), 'residualOutput': residual_output.float()},
                'cotangent': cotangent,
                'grad': {key: value.grad.float() for key, value in leaves.items()},
            },
        )
    return fixture


if __name__ == '__main__':
    main({'kernels/rms-norm-residual': build})
