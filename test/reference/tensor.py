"""What PyTorch indexes, computes, promotes and differentiates: test/fixtures/tensor.

A case is a Python expression, and its name is the expression itself; the tests hold the same expression in TypeScript
under that name. Names hold no slash, which separates the parts of a tensor's key.
"""

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812, in expressions

from common import Fixture, coarse, main, rand, randint, randn
from tensor_expressions import AUTOCAST, GRADIENTS, OPERATORS, POSITIVE, READS, UNARY, WRITES

inf, nan = float('inf'), float('nan')


def t(values, dtype=None):
    return torch.tensor(values, dtype=dtype)


def real(value):
    """Results: what has no numpy dtype becomes one that has."""
    if value.is_complex():
        return torch.view_as_real(value.resolve_conj())
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


# --- expressions ----------------------------------------------------------------------------------------------------


def run(expression, inputs):
    """The value of an expression, or of `x` after a statement, on fresh copies of the inputs."""
    names = {'torch': torch, 'F': F, 'inf': inf, 'nan': nan, **{key: value.clone() for key, value in inputs.items()}}
    try:
        code = compile(expression, expression, 'eval')
    except SyntaxError:
        exec(expression, names)
        return names['x']
    return eval(code, names)


def flat(result):
    """Named results of whatever kind an expression gave."""
    if isinstance(result, torch.Tensor):
        return {'0': result}
    if isinstance(result, (tuple, list)):
        return {str(i): value for i, value in enumerate(result)}
    return {'0': torch.tensor(result)}


def expressions(inputs, texts):
    fixture = Fixture()
    fixture.case({'name': 'inputs'}, **{'in': inputs})
    assert len(set(texts)) == len(texts)
    for text in texts:
        assert '/' not in text, text
        results = flat(run(text, inputs))
        description = {
            'name': text,
            'dtypes': [str(value.dtype)[6:] for value in results.values()],
            'shapes': [list(value.shape) for value in results.values()],
        }
        fixture.case(description, out={key: real(value) for key, value in results.items()})
    return fixture


def lines(text):
    return [line for line in text.strip().splitlines() if line]


# --- indexing -------------------------------------------------------------------------------------------------------


def build_index():
    x = randn('index x', 2, 3, 4)
    mask = x.abs() > 0.8
    inputs = {
        'x': x,
        'row': randn('index row', 4),
        'flags': t([False, True]),
        'threes': t([True, False, True]),
        'fours': t([True, True, False, True]),
        'square': rand('index square', 3, 4) > 0.5,
        'mask': mask,
        'values': torch.arange(float(mask.sum())),
        'rows': t([0, 1, 1]),
        'columns': t([2, 0, 1]),
        'last': t([3, 0, -1, 2]),
        'last3': t([0, -1, 2]),
        'grid': t([[0, 1], [1, 0]]),
        'column': t([[0], [1]]),
        'zero': t(0),
        'one': t(1),
        'empty': t([], torch.int64),
        'bytes_': t([1, 2, 3, 4], torch.uint8),
        'scalar': t(2.5),
    }
    return expressions(inputs, lines(READS) + lines(WRITES))


# --- operators ------------------------------------------------------------------------------------------------------


def operator_texts():
    return [f'x.{name}()' for name in UNARY] + [f'p.{name}()' for name in POSITIVE] + lines(OPERATORS)


def operator_inputs():
    sq = randn('operator sq', 4, 4)
    return {
        'x': randn('operator x', 3, 4),
        'y': randn('operator y', 3, 4),
        'p': coarse(rand('operator p', 3, 4) + 0.5) + 0.5,
        'v': randn('operator v', 4),
        'm': randn('operator m', 4, 5),
        'i': randint('operator i', 0, 9, 3, 4),
        'j': randint('operator j', 1, 9, 3, 4),
        'mask': rand('operator mask', 3, 4) > 0.5,
        'cube': randn('operator cube', 2, 3, 4),
        'sq': sq,
        'spd': coarse(sq.double() @ sq.double().T + 4 * torch.eye(4).double()).float(),
        'bias5': randn('operator bias', 5),
        't3': t([2, 0, 1]),
        'index': randint('operator index', 0, 3, 3, 4),
        'sorted_': t([-1.0, -0.25, 0.0, 0.5, 1.5]),
        'sequence': randn('operator sequence', 2, 3, 10),
        'image': randn('operator image', 2, 3, 6, 6),
        'k1': randn('operator k1', 5, 3, 3),
        'k2': randn('operator k2', 4, 3, 3, 3),
    }


def build_operators():
    return expressions(operator_inputs(), operator_texts())


# --- dtypes ---------------------------------------------------------------------------------------------------------

DTYPES = 'bool uint8 int8 int16 int32 int64 float16 bfloat16 float32 float64 complex64 complex128'.split()
NUMBERS = {'true': True, '2': 2, '2.5': 2.5, '{re:1,im:1}': 1 + 1j}


def build_dtypes():
    fixture = Fixture()

    def sums(left, right):
        table = {}
        for a in DTYPES:
            table[a] = [str((left(getattr(torch, a)) + right(getattr(torch, b))).dtype)[6:] for b in DTYPES]
        return table

    def one(shape):
        return lambda dtype: torch.ones(shape, dtype=dtype)

    fixture.case({'name': 'promotion', 'dtypes': DTYPES, 'tensors': sums(one([1]), one([1])),
                  'dimensionless': sums(one([1]), one([])),
                  'numbers': {key: [str((torch.ones(1, dtype=getattr(torch, a)) * value).dtype)[6:] for a in DTYPES]
                              for key, value in NUMBERS.items()}})
    inputs = operator_inputs()
    for dtype in (torch.bfloat16, torch.float16):
        table = {}
        for text in lines(AUTOCAST):
            with torch.autocast('cpu', dtype=dtype):
                table[text] = str(run(text, inputs).dtype)[6:]
        fixture.case({'name': f'autocast {str(dtype)[6:]}', 'dtypes': table})
    return fixture


# --- gradients ------------------------------------------------------------------------------------------------------


def build_gradients():
    inputs = operator_inputs()
    fixture = Fixture()
    fixture.case({'name': 'inputs'}, **{'in': inputs})
    for text in lines(GRADIENTS):
        leaves = {key: value.clone().requires_grad_() for key, value in inputs.items() if value.is_floating_point()}
        names = {'torch': torch, 'F': F, **inputs, **leaves}
        loss = eval(text, names)
        loss.backward()
        grads = {key: leaf.grad for key, leaf in leaves.items() if leaf.grad is not None}
        fixture.case({'name': text, 'leaves': list(grads)}, out={'loss': loss}, grad=grads)
    return fixture


# --- files ----------------------------------------------------------------------------------------------------------


def build_safetensors():
    """A file as Python writes it: every dtype of the format, a scalar, empty shapes, names that JSON must escape."""
    fixture = Fixture()
    values = [-2, -1, 0, 1, 2, 3]
    for name in DTYPES + ['uint16', 'uint32', 'uint64', 'float8_e4m3fn', 'float8_e5m2']:
        dtype = getattr(torch, name)
        if name == 'complex128':
            continue
        small = [abs(value) for value in values] if name.startswith(('u', 'bool')) else values
        fixture.tensors[f'a/{name}/x'] = torch.tensor(small, dtype=torch.float32 if 'float8' in name else None).to(dtype).reshape(2, 3)
    fixture.tensors['a/out/scalar'] = t(0.5)
    fixture.tensors['a/out/empty'] = torch.zeros(0, 3)
    fixture.tensors['a/out/"größe"\n😀'] = torch.arange(3)
    fixture.tensors['a/out/__proto__'] = torch.arange(2)
    fixture.cases.append({'name': 'dtypes', 'values': values})
    return fixture


if __name__ == '__main__':
    np.seterr(all='ignore')
    main(
        {
            'tensor/index': build_index,
            'tensor/operators': build_operators,
            'tensor/dtypes': build_dtypes,
            'tensor/gradients': build_gradients,
            'tensor/python': build_safetensors,
        }
    )
