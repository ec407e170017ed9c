"""Fixture for packed weights: NF4 of bitsandbytes, with its scales in float32 or quantised themselves, int8 by rows, and a
linear layer with LoRA on the values.

    python test/reference/peft_quantized.py [--check]
"""

import torch
from bitsandbytes import functional
from common import Fixture, coarse, main, randn


PORTABLE = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)


def dequantize(codes, absmax, shape, dtype):
    """bitsandbytes' portable implementation: its CPU library takes other blocks' scales where a row is narrower than 64."""
    return torch.ops.bitsandbytes.dequantize_4bit.default.redispatch(PORTABLE, codes, absmax, 64, 'nf4', shape, dtype)


def doubly_quantized(weight):
    """functional.quantize_4bit with compress_statistics, whose state has the codes of scales, their absmax and offset.

    Its CPU library looks the codes of scales up in a table and so may miss the nearest; the portable implementation and
    the GPU kernels do not.
    """
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type='nf4', compress_statistics=True)
    _, single = functional.quantize_4bit(weight, blocksize=64, quant_type='nf4', compress_statistics=False)
    scales, absmax = torch.ops.bitsandbytes.quantize_blockwise.default.redispatch(
        PORTABLE, single.absmax - state.offset, state.state2.code, state.state2.blocksize
    )
    assert state.state2.blocksize == 256 and torch.equal(absmax, state.state2.absmax)
    # Its table is a code off at most, and not often.
    assert (scales.int() - state.absmax.int()).abs().max() <= 1 and (scales != state.absmax).float().mean() < 0.05
    values = functional.dequantize_blockwise(scales, state.state2) + state.offset
    return codes, {'absmax': scales, 'nested_absmax': absmax, 'nested_offset': state.offset.view(1), 'scales': values}


def double(fixture):
    """Weights are multiples of 2^-12 or 2^-17: sums of their scales are exact, in any order that a machine adds them."""
    # 14 blocks and 258; the latter are two blocks of scales. One block is zero, one large.
    for name, shape in [('double odd', (23, 37)), ('double large', (131, 126))]:
        weight = randn(f'nf4 {name}', *shape, scale=0.02)
        weight.view(-1)[64:128] = 0
        weight.view(-1)[192:256] *= 4
        if name == 'double large':
            levels = (weight * 1024).round().clamp(-127, 127).to(torch.int8)
            weight = levels.float() * torch.arange(64, 64 + shape[0])[:, None] / 2**17
        else:
            weight = coarse(weight)
        codes, out = doubly_quantized(weight)
        values = dequantize(codes, out['scales'], shape, torch.float32)
        x, cotangent = randn(f'nf4 x {name}', 2, shape[1]), randn(f'nf4 cotangent {name}', 2, shape[0])
        a, b = randn(f'nf4 a {name}', 4, shape[1], scale=0.3), randn(f'nf4 b {name}', shape[0], 4, scale=0.3)
        leaves = [t.clone().requires_grad_() for t in (x, a, b)]
        plain = torch.nn.functional.linear(x, values)
        y = torch.nn.functional.linear(leaves[0], values) + 2.0 * (leaves[0] @ leaves[1].T @ leaves[2].T)
        y.backward(cotangent)
        out |= {'plain': plain, 'y': y} | {f'grad_{key}': t.grad for key, t in zip(('x', 'a', 'b'), leaves)}
        given = {'x': x, 'a': a, 'b': b}
        # The large one is kept as whole numbers; its codes and values follow from its scales.
        if name == 'double large':
            given['levels'] = levels
        else:
            given['weight'] = weight
            out |= {'codes': codes, 'values': values}
        fixture.case({'name': name}, **{'in': given}, cotangent={'y': cotangent}, out=out)


def quantized():
    fixture = Fixture()
    code = functional.get_4bit_type('nf4', device='cpu')
    fixture.case({'name': 'book'}, out={'code': code})
    # 64 divides neither 23 * 37 nor a row of it; the count is odd. One block is zero.
    for name, shape in [('odd', (23, 37)), ('even', (6, 128)), ('narrow', (12, 32))]:
        weight = randn(f'nf4 {name}', *shape, scale=0.05)
        weight.view(-1)[64:128] = 0
        codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type='nf4', compress_statistics=False)
        values, half = (dequantize(codes, state.absmax, shape, dtype) for dtype in (torch.float32, torch.bfloat16))
        if shape[1] % 64 == 0:
            assert torch.equal(values, functional.dequantize_4bit(codes, state))
        x, cotangent = randn(f'nf4 x {name}', 2, 3, shape[1]), randn(f'nf4 cotangent {name}', 2, 3, shape[0])
        a, b = randn(f'nf4 a {name}', 4, shape[1], scale=0.3), randn(f'nf4 b {name}', shape[0], 4, scale=0.3)
        bias = randn(f'nf4 bias {name}', shape[0])
        out = {'codes': codes, 'absmax': state.absmax, 'values': values, 'bfloat16': half.float()}
        row_codes, row_scale, _ = functional.int8_vectorwise_quant(weight)
        rows = row_codes.float() * (row_scale / 127)[:, None]
        out |= {'int8.codes': row_codes, 'int8.absmax': row_scale, 'int8.values': rows}
        for scheme, base in [('nf4', values), ('int8', rows)]:
            leaves = [t.clone().requires_grad_() for t in (x, a, b)]
            y = torch.nn.functional.linear(leaves[0], base, bias) + 2.0 * (leaves[0] @ leaves[1].T @ leaves[2].T)
            y.backward(cotangent)
            out |= {f'{scheme}.y': y} | {f'{scheme}.grad_{k}': t.grad for k, t in zip(('x', 'a', 'b'), leaves)}
        given = {'weight': weight, 'x': x, 'a': a, 'b': b, 'bias': bias}
        fixture.case({'name': name}, **{'in': given}, cotangent={'y': cotangent}, out=out)
    double(fixture)
    return fixture


if __name__ == '__main__':
    main({'peft/quantized': quantized})
