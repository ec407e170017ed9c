"""Blocks of every type that voxtorch reads, with the values that Python's gguf makes of them, and a file that it wrote:
test/fixtures/files/gguf.safetensors. A model that Python's gguf split, and one in big-endian numbers:
test/fixtures/files/gguf-split.safetensors."""

import tempfile
from pathlib import Path

import gguf
import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFValueType

from common import Fixture, generator, main, randn

READ = ['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0', 'Q4_K', 'Q5_K', 'Q6_K', 'Q2_K', 'Q3_K', 'IQ4_NL', 'IQ4_XS', 'MXFP4']
WRITTEN = ['Q8_0', 'Q4_0', 'BF16', 'F16']
# Where the float16 scales of a block begin.
SCALES = {
    **{'Q4_0': [0], 'Q4_1': [0, 2], 'Q5_0': [0], 'Q5_1': [0, 2], 'Q8_0': [0], 'Q4_K': [0, 2], 'Q5_K': [0, 2], 'Q6_K': [208]},
    **{'Q2_K': [80, 82], 'Q3_K': [108], 'IQ4_NL': [0], 'IQ4_XS': [0], 'MXFP4': []},
}
SHAPE = (2, 512)


def blocks(name):
    """Random bytes under scales from denormal to large."""
    kind = GGMLQuantizationType[name]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = SHAPE[0] * SHAPE[1] // block
    numbers = generator(name)
    data = numbers.randint(0, 256, (count, size)).astype(np.uint8)
    for at in SCALES[name]:
        scales = (numbers.standard_normal(count) * 10.0 ** numbers.randint(-7, 3, count)).astype(np.float16)
        data[:, at : at + 2] = scales.reshape(-1, 1).view(np.uint8)
    if name == 'MXFP4':  # exponents of finite values, from the two denormal ones on
        data[:, 0] = np.arange(count) * 251 // (count - 1)
        data[1, 0] = 1
    return data.reshape(SHAPE[0], -1)


def sample(path):
    writer = gguf.GGUFWriter(path, 'llama')
    writer.add_name('a sample ü')
    for kind, value in [('UINT8', 200), ('INT8', -100), ('UINT16', 60000), ('INT16', -30000), ('UINT32', 2**32 - 1)]:
        writer.add_key_value(f'test.{kind.lower()}', value, GGUFValueType[kind])
    for kind, value in [('INT32', -(2**31)), ('FLOAT32', 0.1), ('BOOL', True), ('UINT64', 2**63), ('INT64', -(2**40))]:
        writer.add_key_value(f'test.{kind.lower()}', value, GGUFValueType[kind])
    writer.add_key_value('test.float64', 0.1, GGUFValueType.FLOAT64)
    writer.add_array('test.texts', ['one', '', 'drei ß'])
    writer.add_array('test.wholes', [1, -2, 3])
    writer.add_array('test.reals', [0.5, -1.5])
    writer.add_array('test.flags', [True, False])
    writer.add_chat_template('{{ messages[0].content }}')
    values = randn('sample', 4, 64).numpy()
    for name in ['F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q5_1']:
        kind = GGMLQuantizationType[name]
        writer.add_tensor(f'as.{name}', gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def build():
    fixture = Fixture()
    for name in READ:
        data = blocks(name)
        values = gguf.dequantize(data, GGMLQuantizationType[name])
        assert np.isfinite(values).all()
        fixture.case(
            {'name': name, 'code': int(GGMLQuantizationType[name]), 'shape': list(SHAPE)},
            **{'in': {'blocks': torch.from_numpy(data)}, 'out': {'values': torch.from_numpy(values)}},
        )
    for name in WRITTEN:
        # Halves of a step too, whose rounding differs from one rule to the other, and a block of zeros.
        values = randn(f'{name} written', 4, 128)
        values[1, :32] = torch.arange(32) - 15.5
        values[2, 32:64] = 0
        data = gguf.quantize(values.numpy(), GGMLQuantizationType[name])
        fixture.case(
            {'name': f'{name} written', 'type': name, 'code': int(GGMLQuantizationType[name])},
            **{'in': {'values': values}, 'out': {'blocks': torch.from_numpy(data.reshape(-1).view(np.uint8).copy())}},
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'sample.gguf'
        sample(path)
        read = gguf.GGUFReader(path)
        values = {
            tensor.name: torch.from_numpy(
                gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(4, 64).copy()
            )
            for tensor in read.tensors
        }
        contents = torch.from_numpy(np.fromfile(path, np.uint8))
        places = {tensor.name: [int(tensor.data_offset), int(tensor.n_bytes)] for tensor in read.tensors}
    fixture.case({'name': 'file', 'places': places}, **{'in': {'file': contents}, 'out': values})
    return fixture


def model(path, **options):
    writer = gguf.GGUFWriter(path, 'llama', **options)
    writer.add_name('a split sample')
    writer.add_array('test.texts', ['one', 'two'])
    values = {f'blk.{i}.weight': randn(f'split {i}', 2, 32).numpy() for i in range(5)}
    for name, value in values.items():
        kind = GGMLQuantizationType.Q8_0 if name == 'blk.3.weight' else GGMLQuantizationType.F32
        data = value if kind == GGMLQuantizationType.F32 else gguf.quantize(value, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def split():
    fixture = Fixture()
    for name, options in [('two each', {}), ('metadata alone first', {'small_first_shard': True})]:
        with tempfile.TemporaryDirectory() as folder:
            model(Path(folder) / 'model.gguf', split_max_tensors=2, **options)
            files = sorted(Path(folder).iterdir())
            values = {
                tensor.name: torch.from_numpy(
                    gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32).reshape(2, 32).copy()
                )
                for file in files
                for tensor in gguf.GGUFReader(file).tensors
            }
            contents = {file.name: torch.from_numpy(np.fromfile(file, np.uint8)) for file in files}
        fixture.case({'name': name}, **{'in': contents, 'out': values})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'big.gguf'
        model(path, endianess=gguf.GGUFEndian.BIG)
        contents = torch.from_numpy(np.fromfile(path, np.uint8))
    fixture.case({'name': 'big-endian'}, **{'in': {'file': contents}})
    return fixture


main({'files/gguf': build, 'files/gguf-split': split})
