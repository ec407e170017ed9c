"""Shared by the fixture scripts: named random numbers, one file writer, and `--check`.

A fixture is one small safetensors file. Its metadata key `cases` is a JSON list that describes each case; its tensors
are called `<case>/<role>/<name>`. Roles whose tensors are made here from a seed (GIVEN) must regenerate byte for byte;
everything else is what the reference library computed and must regenerate within 1e-6.
"""

import argparse
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

FIXTURES = Path(__file__).resolve().parent.parent / 'fixtures'
GIVEN = {'in', 'param', 'cotangent'}
TOLERANCE = 1e-6


def generator(name):
    """numpy's MT19937 stream is frozen, so these numbers do not depend on the numpy or torch version."""
    return np.random.RandomState(zlib.crc32(name.encode()))


def randn(name, *shape, scale=1.0):
    return torch.from_numpy(np.asarray(generator(name).standard_normal(shape) * scale, np.float32))


def rand(name, *shape):
    return torch.from_numpy(np.asarray(generator(name).random_sample(shape), np.float32))


def randint(name, low, high, *shape):
    return torch.from_numpy(np.asarray(generator(name).randint(low, high, shape), np.int64))


def coarse(values):
    """To multiples of 2^-12, so that an input which exp or log made is the same on every machine."""
    return (values * 4096).round() / 4096


class Fixture:
    def __init__(self):
        self.cases = []
        self.tensors = {}

    def case(self, description, **roles):
        """`description` has a `name`; each role is a dict of tensors."""
        self.cases.append(description)
        for role, tensors in roles.items():
            for key, value in tensors.items():
                self.tensors[f'{description["name"]}/{role}/{key}'] = value.detach().clone().contiguous()

    def metadata(self):
        return {
            'cases': json.dumps(self.cases),
            'versions': json.dumps({'torch': torch.__version__, 'numpy': np.__version__}),
        }


def relative_error(actual, expected):
    a, b = actual.double(), expected.double()
    same = (a == b) | (a.isnan() & b.isnan())
    if same.all():
        return 0.0
    scale = b[b.isfinite()].abs().max().item() or 1.0
    return (torch.where(same, 0, a - b).abs().max() / scale).item()


def differences(path, fixture):
    """One line for each thing in which a regenerated fixture is not the file's."""
    with safe_open(path, 'pt') as file:
        stored = {key: file.get_tensor(key) for key in file.keys()}
        if json.loads(file.metadata()['cases']) != json.loads(json.dumps(fixture.cases)):
            yield 'the case descriptions differ'
    for key in sorted(stored.keys() ^ fixture.tensors.keys()):
        yield f'{key} is in one only'
    for key in stored.keys() & fixture.tensors.keys():
        a, b = fixture.tensors[key], stored[key]
        if a.dtype != b.dtype or a.shape != b.shape:
            yield f'{key}: {a.dtype} {tuple(a.shape)}, stored {b.dtype} {tuple(b.shape)}'
        elif key.split('/')[1] in GIVEN:
            if a.numpy().tobytes() != b.numpy().tobytes():
                yield f'{key}: bytes differ'
        elif (error := relative_error(a, b)) > TOLERANCE:
            yield f'{key}: relative error {error:.2e}'


def main(builders):
    """`builders` maps a file's name below test/fixtures, without extension, to a function that returns its Fixture."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='regenerate and compare, write nothing')
    parser.add_argument('names', nargs='*', help='only these fixtures')
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    failed = False
    for name, build in builders.items():
        if arguments.names and name not in arguments.names:
            continue
        path = FIXTURES / f'{name}.safetensors'
        fixture = build()
        if arguments.check:
            found = list(differences(path, fixture))
            failed |= bool(found)
            print(f'{name}: {"ok" if not found else "DIFFERS"} ({len(fixture.tensors)} tensors)')
            for line in found:
                print(f'  {line}')
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            save_file(fixture.tensors, path, fixture.metadata())
            print(f'{name}: {len(fixture.cases)} cases, {path.stat().st_size:,} bytes')
    sys.exit(1 if failed else 0)
