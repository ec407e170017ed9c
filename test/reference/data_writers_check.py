"""Has saveSafetensorsSharded, saveNpy, saveNpz and save write files and reads them with Python.

    python test/reference/data_writers_check.py [MODULE]     MODULE is the root, beside files/; default dist/index.js

Compares values, dtypes and shapes; .npy files with what numpy itself writes, byte for byte; the shards' files and index
with what transformers writes for the same state (json.dumps with indent=2 and sort_keys=True of huggingface_hub's split).

Prints (numpy 2.4.6, safetensors 0.8.0, huggingface_hub 2.4.0, torch 2.13.0):
    npy: 18 files, equal to numpy's byte for byte
    npz: 18 arrays, zip sound
    shards: 3 files, index equal byte for byte
    torch: 11 dtypes and a nested checkpoint, with weights_only
"""

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import load_torch_model, split_torch_state_dict_into_shards
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[2]
DTYPES = 'float64 float32 float16 int64 int32 int16 int8 uint8 uint16 uint32 uint64 bool complex64 complex128'.split()
WRITE = """
const { arange, save, tensor, zeros } = await import(process.argv[1])
const { saveNpy, saveNpz, saveSafetensorsSharded } = await import(new URL('files/index.js', process.argv[1]))
const folder = process.argv[2]
const arrays = Object.fromEntries(
  process.argv[3].split(' ').map((dtype) => [dtype, tensor([0, 1, 2, 3, 4, 6]).to(dtype).reshape(2, 3)]),
)
arrays.scalar = tensor(0.5)
arrays.empty = zeros([0, 3])
arrays.transposed = arrays.float32.t()
arrays['größe 😀'] = tensor([7])
await saveNpz(`${folder}/x.npz`, arrays)
for (const [name, value] of Object.entries(arrays)) await saveNpy(`${folder}/${name}.npy`, value)
const state = { a: arange(6).to('float32'), 'b.ä\\x7f"': arange(4).to('float32'), big: arange(40).to('bfloat16') }
state['😀'] = arange(3)
state['\\uffee'] = tensor([1.5])
await saveSafetensorsSharded(`${folder}/shards`, state, { maxShardBytes: 40 })
const dtypes = process.argv[3].split(' ').filter((name) => !/uint(16|32|64)/.test(name))
await save({
  tensors: Object.fromEntries(dtypes.map((dtype) => [dtype, tensor([0, 1, 2, 3, 4, 6]).to(dtype).reshape(2, 3).t()])),
  half: tensor([1.5]).to('bfloat16'), wanted: zeros([2], { requiresGrad: true }), scalar: tensor(2.5), empty: zeros([0, 3]),
  plain: [null, true, 0.5, -0, 2 ** 53 - 1, -(2n ** 70n), 'größe 😀', new Uint8Array([0, 255]), new Set([1, 'a']), new Map([[1, 2]])],
}, `${folder}/x.pt`)
"""


def expected():
    values = np.array([[0, 1, 2], [3, 4, 6]])
    made = {name: values.astype(name) for name in DTYPES}
    made['scalar'] = np.float32(0.5)
    made['empty'] = np.zeros((0, 3), np.float32)
    made['transposed'] = np.ascontiguousarray(made['float32'].T)
    made['größe 😀'] = np.array([7])
    return made


def state():
    return {
        'a': torch.arange(6.0),
        'b.ä\x7f"': torch.arange(4.0),
        'big': torch.arange(40).bfloat16(),
        '😀': torch.arange(3),
        '\uffee': torch.tensor([1.5]),
    }


def check_npy(folder, arrays):
    for name, array in arrays.items():
        wanted = io.BytesIO()
        np.save(wanted, array)
        assert (folder / f'{name}.npy').read_bytes() == wanted.getvalue(), name
    print(f'npy: {len(arrays)} files, equal to numpy\'s byte for byte')


def check_npz(folder, arrays):
    with zipfile.ZipFile(folder / 'x.npz') as archive:
        assert archive.testzip() is None
    with np.load(folder / 'x.npz') as loaded:
        assert list(loaded) == list(arrays), list(loaded)
        for name, array in arrays.items():
            got = loaded[name]
            assert got.dtype == array.dtype and got.shape == array.shape and np.array_equal(got, array), name
    print(f'npz: {len(arrays)} arrays, zip sound')


def check_shards(folder):
    wanted = state()
    split = split_torch_state_dict_into_shards(wanted, filename_pattern='model{suffix}.safetensors', max_shard_size=40)
    index = {'metadata': split.metadata, 'weight_map': split.tensor_to_filename}
    content = json.dumps(index, indent=2, sort_keys=True) + '\n'
    assert (folder / 'model.safetensors.index.json').read_text() == content
    assert {path.name for path in folder.iterdir()} == {*split.filename_to_tensors, 'model.safetensors.index.json'}
    for file, names in split.filename_to_tensors.items():
        got = load_file(folder / file)
        assert sorted(got) == sorted(names), (file, list(got))
        for name in names:
            assert got[name].dtype == wanted[name].dtype and torch.equal(got[name], wanted[name]), name

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in wanted.items():
                if '.' not in name:
                    self.register_buffer(name, torch.zeros_like(value))

    model = Model()
    load_torch_model(model, folder, strict=False)
    assert torch.equal(model.big, wanted['big'])
    print(f'shards: {len(split.filename_to_tensors)} files, index equal byte for byte')


def check_torch(path):
    got = torch.load(path)  # with weights_only, the default
    dtypes = [name for name in DTYPES if name not in ('uint16', 'uint32', 'uint64')]
    assert list(got['tensors']) == dtypes
    for name in dtypes:
        wanted = torch.tensor([[0, 1, 2], [3, 4, 6]]).to(getattr(torch, name)).t()
        value = got['tensors'][name]
        assert value.dtype == wanted.dtype and torch.equal(value, wanted), name
    assert got['half'].dtype == torch.bfloat16 and got['half'].tolist() == [1.5]
    assert got['wanted'].requires_grad and got['scalar'].shape == () and got['empty'].shape == (0, 3)
    plain = [None, True, 0.5, -0.0, 2**53 - 1, -(2**70), 'größe 😀', b'\x00\xff', {1, 'a'}, {1: 2}]
    assert got['plain'] == plain and str(got['plain'][3]) == '-0.0'
    print(f'torch: {len(dtypes)} dtypes and a nested checkpoint, with weights_only')


def main():
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        (folder / 'shards').mkdir()
        command = ['node', '--input-type=module', '-e', WRITE, '--', module.as_uri(), directory, ' '.join(DTYPES)]
        subprocess.run(command, check=True)
        arrays = expected()
        check_npy(folder, arrays)
        check_npz(folder, arrays)
        check_shards(folder / 'shards')
        check_torch(folder / 'x.pt')


if __name__ == '__main__':
    main()
