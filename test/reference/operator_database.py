"""PyTorch's own operator database: a few small samples of each operator, what they give and their gradients.

    python operator_database.py            # writes test/fixtures/tensor/operator-database.json.gz
    python operator_database.py --check    # computes again and compares within 1e-6

Needs `pip install expecttest` besides the packages of requirements.txt. Inputs are float32 numbers, computed with in
float64 where the operator does that, so that the results are the same on every processor; results are kept as float32.
"""

import base64
import gzip
import json
import math
import random
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_leaves

OUT = Path(__file__).resolve().parent.parent / 'fixtures' / 'tensor' / 'operator-database.json.gz'
SAMPLES = 4
LARGEST = 700  # numbers of the inputs of a sample, and of its results
WIDE = {torch.float64: torch.float32, torch.complex128: torch.complex64}


class Left(Exception):
    """A sample that JavaScript cannot be given."""


def name_of(dtype):
    return str(dtype).removeprefix('torch.')


def tensor(value, grad=False):
    if value.layout != torch.strided or value.is_quantized or value.device.type != 'cpu' or value.is_nested:
        raise Left
    kept = value.detach().resolve_conj().resolve_neg().to(WIDE.get(value.dtype, value.dtype)).contiguous()
    if kept.is_complex():
        kept = torch.view_as_real(kept)
    if kept.dtype in (torch.bfloat16, torch.float16):
        kept = kept.float()
    data = base64.b64encode(kept.numpy().tobytes()).decode()
    return {'t': [name_of(value.dtype), list(value.shape), data, *([True] if grad else [])]}


def encoded(value):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, torch.Tensor):
        return tensor(value, value.requires_grad)
    if isinstance(value, (int, np.integer)):
        if abs(value) > 2**53:
            raise Left
        return int(value)
    if isinstance(value, (float, np.floating)):
        return {'f': repr(float(value))}
    if isinstance(value, complex):
        return {'c': [value.real, value.imag]}
    if isinstance(value, torch.dtype):
        return {'dtype': name_of(value)}
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, torch.memory_format):
        return {'memory': name_of(value).removesuffix('_format')}
    if value is torch.strided:
        return 'strided'
    if value is Ellipsis:
        return {'ellipsis': True}
    if isinstance(value, slice):
        return {'slice': [value.start, value.stop, value.step]}
    if isinstance(value, (list, tuple)):
        return {'l': [encoded(item) for item in value]}
    if isinstance(value, dict):
        return {'o': {key: encoded(item) for key, item in value.items()}}
    raise Left


def narrowed(value):
    """The same, with float32 numbers in float64."""
    if isinstance(value, torch.Tensor):
        if value.dtype not in WIDE or value.layout != torch.strided:
            return value
        return value.detach().to(WIDE[value.dtype]).to(value.dtype).contiguous().requires_grad_(value.requires_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(map(narrowed, value)) if type(value) in (list, tuple) else value
    if isinstance(value, dict):
        return {key: narrowed(item) for key, item in value.items()}
    return value


def outputs(result):
    return [value for value in tree_leaves(result) if value is not None]


def weights(count):
    return torch.cos(torch.arange(count, dtype=torch.float64))


def gradients(results, leaves):
    """Of the sum of all results, each times the cosine of its place."""
    total = None
    for value in results:
        if not (isinstance(value, torch.Tensor) and value.requires_grad):
            continue
        flat = (torch.view_as_real(value) if value.is_complex() else value).reshape(-1).double()
        term = (flat * weights(flat.numel())).sum()
        total = term if total is None else total + term
    if total is None:
        return None
    found = torch.autograd.grad(total, leaves, allow_unused=True)
    return [None if value is None else tensor(value) for value in found]


def sample_of(op, sample, largest):
    if op.name == '__getitem__' and not isinstance(sample.args[0], tuple):
        sample.args = ((sample.args[0],),)  # a list is one index, a tuple one for each dimension
    call = narrowed([sample.input, list(sample.args), dict(sample.kwargs)])
    leaves = [value for value in tree_leaves(call) if isinstance(value, torch.Tensor)]
    if sum(value.numel() for value in leaves) > largest:
        raise Left
    described = [encoded(part) for part in (call[0], call[1], call[2])]
    # What the database's own wrappers of random operators set.
    torch.manual_seed(42)
    results = outputs(op.op(call[0], *call[1], **call[2]))
    if sum(value.numel() for value in results if isinstance(value, torch.Tensor)) > largest:
        raise Left
    entry = {'input': described[0], 'args': described[1]['l'], 'kwargs': described[2]['o']}
    entry['out'] = [encoded(value.detach() if isinstance(value, torch.Tensor) else value) for value in results]
    wanted = [value for value in leaves if value.requires_grad]
    if wanted:
        try:
            entry['grads'] = gradients(results, wanted)
        except (RuntimeError, Left):
            pass  # no derivative for this sample
    return entry


def kind_of(sample):
    """What tells calls apart: the types of arguments, names of keywords, modes, how many dimensions there are."""

    def kind(value):
        if isinstance(value, torch.Tensor):
            return ('tensor', value.ndim, name_of(value.dtype))
        return value if isinstance(value, (str, bool)) else type(value).__name__

    given = sorted((key, kind(value)) for key, value in sample.kwargs.items())
    return repr((kind(sample.input), [kind(value) for value in sample.args], given))


def dtype_of(op):
    known = op.supported_dtypes('cpu')
    order = (torch.float64, torch.float32, torch.complex128, torch.int64, torch.bool, torch.int32, torch.uint8, torch.bfloat16)
    return next((dtype for dtype in order if dtype in known), None)


def samples_of(op, dtype, largest):
    torch.manual_seed(1)
    np.random.seed(1)
    random.seed(1)
    found, seen = [], set()
    differentiable = op.supports_autograd and (dtype.is_floating_point or dtype.is_complex)
    try:
        for sample in op.sample_inputs('cpu', dtype, requires_grad=differentiable):
            kind = kind_of(sample)
            if kind in seen:
                continue
            try:
                found.append(sample_of(op, sample, largest))
                seen.add(kind)
            except (Left, RuntimeError, TypeError, NotImplementedError, ValueError, IndexError):
                continue
            if len(found) == SAMPLES:
                break
    except Exception as error:  # noqa: BLE001, a generator of samples that needs what is not here
        print(op.name, type(error).__name__, error, file=sys.stderr)
    return found


def entries():
    for op in op_db:
        dtype = dtype_of(op)
        if dtype is None:
            yield {'name': op.name, 'variant': op.variant_test_name, 'samples': []}
            continue
        # Small ones, else the smallest that there are.
        found = samples_of(op, dtype, LARGEST) or samples_of(op, dtype, 6 * LARGEST)[:1]
        yield {'name': op.name, 'variant': op.variant_test_name, 'dtype': name_of(dtype), 'samples': found}


def numbers(value):
    """All tensors of an encoded value, as arrays."""
    if isinstance(value, dict):
        if 't' in value:
            dtype, shape, data = value['t'][:3]
            kinds = {'float64': 'f4', 'float32': 'f4', 'complex128': 'f4', 'complex64': 'f4', 'bfloat16': 'f4', 'bool': '?'}
            yield np.frombuffer(base64.b64decode(data), kinds.get(dtype, dtype)).astype('f8')
            return
        value = value.values()
    elif not isinstance(value, list):
        return
    for item in value:
        yield from numbers(item)


def main():
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    made = json.loads(json.dumps({'torch': torch.__version__, 'operators': list(entries())}))
    count = sum(len(entry['samples']) for entry in made['operators'])
    if '--check' in sys.argv:
        kept = json.loads(gzip.decompress(OUT.read_bytes()))
        old, new = list(numbers(kept['operators'])), list(numbers(made['operators']))
        assert len(old) == len(new), (len(old), len(new))
        worst = 0.0
        for a, b in zip(old, new, strict=True):
            finite = np.isfinite(b)
            assert (np.isfinite(a) == finite).all()
            scale = np.abs(b[finite]).max(initial=0)
            if scale > 0:
                worst = max(worst, float(np.abs(a - b)[finite].max() / scale))
        print(f'{len(old)} tensors, largest difference {worst:.1e}')
        sys.exit(math.isnan(worst) or worst > 1e-6)
    data = gzip.compress(json.dumps(made, separators=(',', ':')).encode(), 9, mtime=0)
    OUT.write_bytes(data)
    print(f'{len(made["operators"])} operators, {count} samples, {len(data):,} bytes')


if __name__ == '__main__':
    main()
