"""What numpy writes: test/fixtures/data/npy.npz (stored), npy-packed.npz (deflated), and single .npy files.

npy.json holds, for each array by name, its dtype and shape and its elements in row-major order: numbers as texts that
Python reads back exactly, complex numbers as pairs, texts as they are.
"""

import argparse
import io
import json
import sys
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parent.parent / 'fixtures' / 'data'
NUMBERS = 'i1 i2 i4 i8 u1 u2 u4 u8 f2 f4 f8 c8 c16'.split()


def values_of(code):
    kind = np.dtype(code).kind
    if kind in 'iu':
        limits = np.iinfo(code)
        return [limits.min, limits.max, 0, 1, 7, 100]
    limits = np.finfo(code)
    reals = [limits.max, limits.smallest_subnormal, -0.0, 1 / 3, np.inf, np.nan]
    return [complex(a, b) for a, b in zip(reals, reversed(reals))] if kind == 'c' else reals


def arrays():
    made = {}
    for code in NUMBERS:
        for order in '<>':
            made[f'{order}{code}'] = np.array(values_of(code), dtype=code).reshape(2, 3).astype(order + code)
    made['bool'] = np.array([[True, False, True]])
    made['fortran'] = np.asfortranarray(np.arange(24, dtype='<i4').reshape(2, 3, 4))
    made['fortran big'] = np.asfortranarray(np.arange(6, dtype='>f8').reshape(2, 3))
    made['scalar'] = np.float64(0.5)
    made['empty'] = np.zeros((0, 3), '<f4')
    made['one'] = np.arange(3, dtype='<i8')
    made['texts'] = np.array([['a', 'größe'], ['', '😀!']])
    made['texts big'] = made['texts'].astype('>U5')
    made['texts fortran'] = np.asfortranarray(np.array([['a', 'b', 'c'], ['d', 'e', 'f']]))
    made['bytes'] = np.array([b'ab', b'\xff\x00c', b''])
    made['text'] = np.array('alone')
    return made


REFUSED = {
    'objects': np.array([1, 'a', None], dtype=object),
    'record': np.array([(1, 2.0)], dtype=[('a', '<i4'), ('b', '<f8')]),
    'dates': np.array(['2024-01-01'], dtype='datetime64[D]'),
    'durations': np.array([3], dtype='timedelta64[s]'),
    'long double': np.zeros(1, dtype=np.longdouble),
    'raw': np.array([b'abcd'], dtype='V4'),
}


def npy(array, version=None):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asanyarray(array), version=version)
    return file.getvalue()


def npz(save, contents):
    file = io.BytesIO()
    save(file, **contents)
    return file.getvalue()


def described(array):
    array = np.asarray(array)
    flat = array.reshape(-1, order='C').tolist()
    if array.dtype.kind == 'c':
        flat = [[repr(value.real), repr(value.imag)] for value in flat]
    elif array.dtype.kind == 'S':
        flat = [value.decode('latin1') for value in flat]
    elif array.dtype.kind != 'U':
        flat = [repr(value) for value in flat]
    return {'dtype': array.dtype.name, 'shape': list(array.shape), 'values': flat}


def build():
    made = arrays()
    files = {
        'npy.npz': npz(np.savez, made),
        'npy-packed.npz': npz(np.savez_compressed, {key: made[key] for key in ('<f4', 'texts', 'fortran', '>c16')}),
        'npy.json': json.dumps({key: described(value) for key, value in made.items()}).encode() + b'\n',
        'version1.npy': npy(made['<f4'], (1, 0)),
        'version2.npy': npy(made['<f4'], (2, 0)),
        'version3.npy': npy(made['<f4'], (3, 0)),
    }
    for name, array in REFUSED.items():
        files[f'refused-{name.replace(" ", "-")}.npy'] = npy(array)
    return files


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='regenerate and compare, write nothing')
    check = parser.parse_args().check
    failed = False
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, content in build().items():
        path = FOLDER / name
        if check:
            same = path.exists() and path.read_bytes() == content
            failed |= not same
            print(f'{name}: {"ok" if same else "DIFFERS"}')
        else:
            path.write_bytes(content)
            print(f'{name}: {len(content):,} bytes')
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
