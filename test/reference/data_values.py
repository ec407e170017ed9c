"""Python values as JSON that another language can compare with, and a writer of fixtures made of them.

None, bool, str and lists (also tuples and arrays of text or objects) stand for themselves; everything else is an object
with one key:

    {"i": "-5"}  {"f": "1.5"}  {"c": ["1.5", "-0.0"]}  {"b": base64}  {"set": [...]}  {"d": [[key, value], ...]}
    {"t": {"dtype", "shape", "strides", "bytes": base64 of the elements row by row, "grad": true}}
"""

import argparse
import base64
import gzip
import json
import math
import sys
from pathlib import Path

import numpy as np
import torch

FIXTURES = Path(__file__).resolve().parent.parent / 'fixtures' / 'data'


def text64(data):
    return base64.b64encode(bytes(data)).decode()


def described(value, open_ids=()):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return {'i': str(int(value))}
    if isinstance(value, (float, np.floating)):
        return {'f': repr(float(value))}
    if isinstance(value, (complex, np.complexfloating)):
        value = complex(value)
        return {'c': [repr(value.real), repr(value.imag)]}
    if isinstance(value, (bytes, bytearray)):
        return {'b': text64(value)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in 'OUS':
            return described(value.tolist())
        plain = value.astype(value.dtype.newbyteorder('<'))
        strides = element_strides(value)
        return tensor(str(plain.dtype), value.shape, strides, plain.tobytes())
    if isinstance(value, torch.Tensor):
        name = str(value.dtype).removeprefix('torch.')
        flat = value.detach().resolve_conj().resolve_neg().contiguous().reshape(-1)
        raw = flat.view(torch.uint8) if flat.dtype != torch.bool else flat.to(torch.uint8)
        found = tensor(name, value.shape, value.stride(), raw.numpy().tobytes())
        if value.requires_grad:
            found['t']['grad'] = True
        return found
    if isinstance(value, (torch.dtype, torch.device)):
        return str(value).removeprefix('torch.')
    if isinstance(value, (list, tuple)):
        return [described(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return {'set': sorted((described(item) for item in value), key=json.dumps)}
    if isinstance(value, dict):
        return {'d': [[described(key), described(item)] for key, item in value.items()]}
    if hasattr(value, '__dict__'):
        return described(vars(value))
    raise TypeError(type(value))


def element_strides(array):
    """numpy is free in what it says for dimensions of 0 and 1."""
    steps = []
    for i in range(array.ndim) if array.flags.f_contiguous and not array.flags.c_contiguous else range(array.ndim)[::-1]:
        steps.append((i, math.prod(max(array.shape[j], 1) for j, _ in steps)))
    if array.flags.c_contiguous or array.flags.f_contiguous:
        return [step for _, step in sorted(steps)]
    return [step // array.itemsize for step in array.strides]


def tensor(dtype, shape, strides, data):
    return {'t': {'dtype': dtype, 'shape': list(shape), 'strides': list(strides), 'bytes': text64(data)}}


def main(builders, load):
    """
    `builders` maps a file's name below test/fixtures/data to a function that returns its cases: dicts with `name`,
    `file` (bytes) and `value` (a description), or `hostile: True` where there is no value. `--check` has Python read the
    stored files with `load(name, case, bytes)` and compares with the stored values, and regenerates the values.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='read the stored files and compare, write nothing')
    arguments = parser.parse_args()
    failed = False
    for name, build in builders.items():
        path = FIXTURES / f'{name}.json.gz'
        cases = build()
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [json.dumps({**case, 'file': text64(case['file'])}) for case in cases]
            text = '[\n' + ',\n'.join(rows) + '\n]\n'
            path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
            print(f'{name}: {len(cases)} cases, {path.stat().st_size:,} bytes')
            continue
        stored = json.loads(gzip.decompress(path.read_bytes()))
        wrong = [] if [case['name'] for case in stored] == [case['name'] for case in cases] else ['the names differ']
        for case, old in zip(cases, stored):
            if old.get('value') != json.loads(json.dumps(case.get('value'))):
                wrong.append(f'{case["name"]}: another value')
            elif 'value' in old and described(load(name, old, base64.b64decode(old['file']))) != old['value']:
                wrong.append(f'{case["name"]}: Python reads another value')
        failed |= bool(wrong)
        print(f'{name}: {"ok" if not wrong else "DIFFERS"} ({len(cases)} cases)')
        for line in wrong:
            print(f'  {line}')
    sys.exit(1 if failed else 0)
