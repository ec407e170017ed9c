"""What safetensors writes: test/fixtures/data/safetensors/*, every dtype of the format, and a sharded checkpoint.

every-dtype.json holds each tensor's bytes in hex. The shards and their index are huggingface_hub's.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save

FOLDER = Path(__file__).resolve().parent.parent / 'fixtures' / 'data' / 'safetensors'
DTYPES = (
    'float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 '
    'float8_e4m3fn float8_e5m2'
).split()
WITHOUT_DTYPE = 'float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2'.split()


def tensor(dtype, shape):
    """Every kind of bits, NaNs with payloads among them."""
    dtype = getattr(torch, dtype)
    count = int(np.prod(shape)) * dtype.itemsize
    data = bytearray(i % 2 if dtype == torch.bool else (i * 37 + 5) % 256 for i in range(count))
    return torch.frombuffer(data, dtype=torch.uint8).view(dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)


def tensors():
    made = {name: tensor(name, [2, 3]) for name in DTYPES}
    made['scalar'] = tensor('float32', [])
    made['empty'] = tensor('int16', [0, 5])
    made['größe "\n😀'] = tensor('uint8', [3])
    made['__proto__'] = tensor('uint8', [1])
    made['7'] = tensor('uint8', [2])
    return made


def described(value):
    flat = value.reshape(-1).view(torch.uint8)
    return {'dtype': str(value.dtype)[6:], 'shape': list(value.shape), 'hex': flat.numpy().tobytes().hex()}


def shards():
    state = {f'layers.{i}.{part}': torch.arange(6, dtype=torch.float32) + i for i in range(4) for part in ('w', 'ä\x7f')}
    state['big'] = torch.arange(40, dtype=torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        save_torch_state_dict(state, folder, max_shard_size=60)
        return {f'sharded/{path.name}': path.read_bytes() for path in sorted(Path(folder).iterdir())}


def build():
    made = tensors()
    others = {name: tensor(name, [2, 2]) for name in WITHOUT_DTYPE}
    return {
        'every-dtype.safetensors': save(made, {'größe': '"\n😀'}),
        'every-dtype.json': json.dumps({key: described(value) for key, value in made.items()}).encode() + b'\n',
        'without-dtype.safetensors': save({'float32': made['float32'], **others}),
        **shards(),
    }


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='regenerate and compare, write nothing')
    check = parser.parse_args().check
    failed = False
    for name, data in build().items():
        path = FOLDER / name
        if check:
            same = path.exists() and path.read_bytes() == data
            failed |= not same
            print(f'{name}: {"ok" if same else "DIFFERS"}')
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f'{name}: {len(data):,} bytes')
    sys.exit(1 if failed else 0)


if __name__ == '__main__':
    main()
