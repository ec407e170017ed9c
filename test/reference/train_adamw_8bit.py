"""Fixture for AdamW8bit: code books, quantisation and 50 steps of bitsandbytes' optimiser.

    python test/reference/train_adamw_8bit.py [--check]

bitsandbytes' CPU library looks numbers up in a table of 65,536 and so may miss the nearest code; its GPU kernels and its
portable implementation do not. This takes the portable one, for the steps too.
"""

import bitsandbytes
import torch
from bitsandbytes import functional
from bitsandbytes.backends.cpu import ops
from common import Fixture, main, randn

STEPS = 50
BLOCK = 256
PORTABLE = torch._C.DispatchKeySet(torch._C.DispatchKey.CompositeExplicitAutograd)


def quantize(values, code):
    return torch.ops.bitsandbytes.quantize_blockwise.default.redispatch(PORTABLE, values, code, BLOCK)


def quantize_into(values, code, absmax, codes, blocksize):
    for target, source in zip((codes, absmax), quantize(values, code)):
        target.copy_(source)


def adamw_8bit():
    fixture = Fixture()
    ops._quant_blockwise_fp32_direct = quantize_into
    books = {'signed': functional.create_dynamic_map(True), 'unsigned': functional.create_dynamic_map(False)}
    fixture.case({'name': 'books'}, out=books)
    for name, code in books.items():
        values = randn(f'8bit {name}', 2, 400)
        # Many magnitudes, all signs, a block of zeros; and every code itself.
        values = (values * 10.0 ** randn(f'8bit decades {name}', 2, 400).round()).float()
        values[0, :BLOCK] = 0
        values[1, 100:228] = code[:128]
        values = values if name == 'signed' else values.abs()
        codes, absmax = quantize(values, code)
        out = {'codes': codes, 'absmax': absmax}
        out['values'] = functional.dequantize_blockwise(codes, absmax=absmax, code=code, blocksize=BLOCK)
        fixture.case({'name': name}, **{'in': {'values': values}}, out=out)
    # The last block of `large` has four elements; `small` keeps float32 state.
    initial = {'large': randn('8bit large', 41, 100), 'small': randn('8bit small', 40)}
    # Of step s, shifted by s: other numbers at each step, all in one file.
    gradients = {key: randn(f'8bit grad {key}', *value.shape) for key, value in initial.items()}
    options = dict(lr=0.01, betas=(0.9, 0.99), eps=1e-7, weight_decay=0.1)
    params = {key: torch.nn.Parameter(value.clone()) for key, value in initial.items()}
    optimizer = bitsandbytes.optim.AdamW8bit(params.values(), **options)
    out = {}
    for step in range(STEPS):
        for key, param in params.items():
            param.grad = gradients[key].flatten().roll(7 * step).view_as(param)
        optimizer.step()
        if step + 1 in (1, STEPS):
            out |= {f'{key}.{step + 1}': value.detach().clone() for key, value in params.items()}
    state = {
        f'{index}.{key}': optimizer.state[param][key]
        for index, param in enumerate(params.values())
        for key in ('state1', 'state2', 'absmax1', 'absmax2')
        if key in optimizer.state[param]
    }
    fixture.case({'name': 'steps', 'options': options}, out=out, state=state, param=initial, **{'in': gradients})
    return fixture


if __name__ == '__main__':
    main({'train/adamw-8bit': adamw_8bit})
