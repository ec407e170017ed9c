"""Has saveSafetensors write a file and reads it with Python's safetensors.

    python test/reference/tensor_safetensors_check.py [MODULE]     MODULE exports saveSafetensors; default dist/index.js

Prints (safetensors 0.8.0, torch 2.13.0):
    20 tensors, 2 texts: ok
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
DTYPES = (
    'float64 float32 float16 bfloat16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 '
    'float8_e4m3fn float8_e5m2'
).split()
WRITE = """
const { saveSafetensors, tensor, zeros } = await import(process.argv[1])
const values = [0, 1, 2, 3, 4, 6]
const tensors = Object.fromEntries(
  process.argv[3].split(' ').map((dtype) => [dtype, tensor(values).to(dtype).reshape(2, 3)]),
)
tensors.scalar = tensor(0.5)
tensors.empty = zeros([0, 3])
tensors.transposed = tensors.float32.t()
tensors['"größe"\\n😀'] = tensor([7])
await saveSafetensors(process.argv[2], tensors, { format: 'pt', 'größe': '"\\n😀' })
"""


def main():
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    values = torch.tensor([[0, 1, 2], [3, 4, 6]])
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'x.safetensors'
        subprocess.run(
            ['node', '--input-type=module', '-e', WRITE, '--', module.as_uri(), str(path), ' '.join(DTYPES)], check=True
        )
        with safe_open(path, 'pt') as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}
    assert metadata == {'format': 'pt', 'größe': '"\n😀'}, metadata
    for name in DTYPES:
        got = tensors.pop(name)
        wanted = values.float().to(getattr(torch, name)) if 'float8' in name else values.to(getattr(torch, name))
        assert got.dtype == wanted.dtype and got.shape == wanted.shape, (name, got)
        assert torch.equal(got.to(torch.complex128), wanted.to(torch.complex128)), (name, got)
    assert tensors.pop('scalar').item() == 0.5
    assert tensors.pop('empty').shape == (0, 3)
    assert torch.equal(tensors.pop('transposed'), values.float().T)
    assert tensors.pop('"größe"\n😀').tolist() == [7]
    assert not tensors, tensors
    print(f'{len(DTYPES) + 4} tensors, {len(metadata)} texts: ok')


if __name__ == '__main__':
    main()
