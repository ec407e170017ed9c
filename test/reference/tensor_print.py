"""What PyTorch prints: test/fixtures/tensor/print.safetensors."""

import torch

from common import Fixture, main, randn

inf, nan = float('inf'), float('nan')
F16, BF16, F32, F64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]


def t(values, dtype=None):
    return torch.tensor(values, dtype=dtype)


def bits(value):
    """A tensor that safetensors and numpy can hold, of the same bytes."""
    if value.is_complex():
        return torch.view_as_real(value)
    return value.view(torch.int16) if value.dtype == torch.bfloat16 else value


def small(value):
    """Long tensors of small whole numbers, in two bytes each."""
    short = value.numel() > 100 and value.dtype != torch.bool and not value.is_complex() and value.to(torch.int16)
    return short if short is not False and (short == value).all() else bits(value)


def printed():
    yield 'scalar', t(3.5)
    yield 'scalar whole', t(3.0)
    yield 'scalar zero', t(0.0)
    yield 'scalar negative zero', t(-0.0)
    yield 'scalar int', t(7)
    yield 'scalar bool', t(True)
    yield 'scalar nan', t(nan)
    yield 'scalar inf', t(-inf)
    yield 'scalar small', t(1e-7)
    yield 'scalar large', t(1.5e9)
    yield 'scalar float64', t(0.1, F64)
    yield 'scalar complex', t(1 - 2j)
    yield 'scalar float16', t(0.1, F16)
    yield 'empty', t([])
    yield 'empty int64', t([], torch.int64)
    yield 'empty bool', t([], torch.bool)
    yield 'empty float64', t([], F64)
    yield 'empty 0x3', torch.zeros(0, 3)
    yield 'empty 2x0', torch.zeros(2, 0)
    yield 'empty 2x0x3 int32', torch.zeros(2, 0, 3, dtype=torch.int32)
    yield 'empty 0x2 int64', torch.zeros(0, 2, dtype=torch.int64)
    yield 'whole', t([1.0, 2.0, 3.0])
    yield 'whole, signs', t([-1.0, 20.0, 300.0])
    yield 'whole, wide', t([1.0, 99999999.0])
    yield 'whole, 1e8', t([1e8, 2e8])
    yield 'whole, above 1e8', t([1.5e8, 2e8])
    yield 'whole, ratio 1000', t([1.0, 1000.0])
    yield 'whole, ratio above 1000', t([1.0, 1001.0])
    yield 'zeros', t([0.0, 0.0])
    yield 'negative zeros', t([-0.0, 0.0, 1.5])
    yield 'negative zeros, whole', t([-0.0, 0.0, 10.0])
    yield 'negative zeros, scientific', t([-0.0, 1e-8, 1.0])
    yield 'fractions', t([0.1, 0.25, 10.5])
    yield 'ratio just below 1000', t([0.1, 100.0])
    yield 'ratio above 1000', t([0.01, 100.5])
    yield 'smallest 1e-4', t([0.0001, 0.0002])
    yield 'below 1e-4', t([0.00005, 0.00006])
    yield 'tiny', t([1e-38, 1e-44, 0.0])
    yield 'huge', t([3.4e38, -1.0])
    yield 'huge float64', t([1.7e308, 1e-308, 5e-324], F64)
    yield 'three-digit exponents', t([1e100, 1e-100, -2.5e200], F64)
    yield 'ties to even', t([0.03125, 0.09375, 0.15625, 0.21875, 1.03125, 2.03125])
    yield 'ties to even, negative', t([-0.03125, -0.09375, 7.00005], F64)
    yield 'ties to even, float64', t([0.00005, 0.00015, 0.00025, 0.5], F64)
    yield 'ties in exponents', t([1.00005, 100005.0, 100015.0, 3.00015], F64)
    yield 'ties in exponents, exact', t([1.0 + 2**-5, 65536.0 * (1 + 2**-5), 131072.0 + 0.5], F64)
    yield 'rounds up a digit', t([0.99996, 9.99995, 9.9999])
    yield 'rounds up an exponent', t([9.99996e9, 9.99994e-9, 9.99995e5], F64)
    yield 'nan among fractions', t([nan, 1.5, inf, -inf])
    yield 'nan among whole', t([nan, 1.0, inf, -inf])
    yield 'nan among wide', t([nan, 100000.0, -inf])
    yield 'nan only', t([nan, nan])
    yield 'inf and nan, matrix', t([[inf, nan], [-inf, 0.0]])
    yield 'nan in exponents', t([nan, 1e10, -inf, 0.0])
    yield 'matrix', randn('print matrix', 3, 4)
    yield 'matrix wide', randn('print wide', 2, 17)
    yield 'vector wraps', randn('print wraps', 30)
    yield 'vector wraps whole', torch.arange(60.0)
    yield 'vector wraps int', torch.arange(60)
    yield 'three dimensions', randn('print three', 2, 2, 3)
    yield 'four dimensions', randn('print four', 2, 1, 2, 2)
    yield 'five dimensions', torch.arange(8).reshape(2, 1, 2, 1, 2)
    yield 'ones in all dimensions', torch.ones(1, 1, 1)
    for dtype in INTEGERS:
        yield f'integers {dtype}', torch.arange(6).reshape(2, 3).to(dtype)
    yield 'integers of varied width', t([[1, -200], [30000, 4]])
    yield 'integers beyond 2^53', t([2**53 + 1, -(2**63), 2**63 - 1])
    yield 'integers int8 extremes', t([-128, 127, 0], torch.int8)
    yield 'integers uint16', t([0, 65535], torch.uint16)
    yield 'integers uint64', t([0, 2**64 - 1], torch.uint64)
    yield 'bool', t([[True, False], [False, False]])
    yield 'bool, true only', t([True, True])
    yield 'float16', t([0.1, 65504.0, -2.0], F16)
    yield 'float16 fractions', t([0.1, 0.2, 0.3333], F16)
    yield 'bfloat16', t([0.1, 1.0, 3.14159], BF16)
    yield 'bfloat16 whole', t([1.0, 256.0, -8.0], BF16)
    yield 'bfloat16 huge', t([1e38, 1.0], BF16)
    yield 'float64', t([0.1, 1.23456789], F64)
    yield 'float64 matrix', randn('print double', 2, 3).double()
    yield 'complex64', t([1 + 2j, -0.5 - 0.25j, 0j])
    yield 'complex64 whole', t([1 + 2j, -3 - 40j])
    yield 'complex64 mixed', t([1 + 0.5j, 2 + 0.25j])
    yield 'complex64 exponents', t([1e10 + 1j, 1e-10 + 2j])
    yield 'complex64 nan', t([complex(nan, 1), complex(inf, -inf), complex(0.5, nan)])
    yield 'complex64 negative zero', t([complex(-0.0, -0.0), complex(1, -0.0)])
    yield 'complex64 matrix', torch.view_as_complex(randn('print complex', 3, 4, 2))
    yield 'complex128', t([1 + 2j, 0.5 - 1e-5j], torch.complex128)
    yield 'summarised vector', randn('print long', 1001)
    yield 'not summarised at 1000', torch.arange(1000)
    yield 'summarised int', torch.arange(1001)
    yield 'summarised whole', torch.arange(2000.0)
    yield 'summarised matrix', randn('print large', 40, 40)
    yield 'summarised, one short dimension', torch.arange(1200).reshape(6, 200)
    yield 'summarised, narrow', torch.arange(1200).reshape(400, 3)
    yield 'summarised three dimensions', torch.arange(1280).reshape(8, 8, 20)
    yield 'summarised four dimensions', torch.arange(2048).to(torch.int16).reshape(2, 8, 2, 64)
    yield 'summarised, corners decide the format', torch.arange(1100) == 500
    huge = torch.ones(1100)
    huge[500] = 1e30
    yield 'summarised, hidden outlier', huge
    yield 'summarised complex', torch.view_as_complex(torch.arange(2200.0).reshape(1100, 2))
    yield 'summarised float16', torch.arange(1100).to(F16).reshape(11, 100)
    yield 'summarised, empty last', torch.zeros(1500, 0)
    yield 'requires_grad', t([1.0, 2.0]), True
    yield 'requires_grad scalar', t(0.5), True
    yield 'requires_grad float64', t([0.5], F64), True
    yield 'requires_grad wraps at 80', t([0.1234] * 7), True
    yield 'requires_grad empty', torch.zeros(0, 2), True
    yield 'suffix wraps, float64', t([0.1234] * 8, F64), True
    yield 'suffix at the edge', t([1] * 22, torch.int32)
    yield 'suffix past the edge', t([1] * 23, torch.int32)


def build_print():
    fixture = Fixture()
    for name, value, *requires_grad in printed():
        text = repr(value.clone().requires_grad_(bool(requires_grad)))
        description = {'name': name, 'dtype': str(value.dtype)[6:], 'text': text}
        if requires_grad:
            description['requiresGrad'] = True
        fixture.case(description, **{'in': {'x': small(value)}})
    return fixture


if __name__ == '__main__':
    main({'tensor/print': build_print})
