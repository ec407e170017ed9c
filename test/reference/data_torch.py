"""Files of torch.save, of both formats."""

import argparse
import collections
import io

import numpy as np
import torch

from data_values import described, main


def every_dtype():
    base = torch.tensor([0.0, 1, 2, 3, 100, 1.5])
    names = 'float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool complex64 complex128 float8_e4m3fn float8_e5m2'
    found = {name: base.to(getattr(torch, name)) for name in names.split()}
    for name in ['uint16', 'uint32', 'uint64']:
        found[name] = torch.tensor([0, 1, 65535], dtype=getattr(torch, name))
    found['complex32'] = torch.tensor([1.5, -2]).to(torch.complex32)
    return found


def state_dict():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2))
    model[2].tied = model[0].weight
    return model.state_dict()


def views():
    base = torch.arange(24, dtype=torch.float32)
    return {
        'base': base,
        'reshaped': base.view(4, 6),
        'transposed': base.view(4, 6).t(),
        'strided': base[3::5],
        'expanded': base[2:4, None].expand(2, 3),
        'middle': base[7:9],
        'none': base[5:5],
        'no dimension': base[11],
    }


def bits():
    """What torch saves as a view with a conjugation or a negation to come."""
    c = torch.tensor([1 + 2j, -3.5 + 0.25j, 4j])
    return {
        'base': c,
        'conjugate': c.conj(),
        'opposite': c.clone().conj().imag,
        'both': torch._neg_view(c.conj())[1:],
        'parameter': torch.nn.Parameter(c.conj()),
    }


def checkpoint():
    return {
        'epoch': 3,
        'lr': 1e-4,
        'name': 'tiny',
        'flags': [True, None, (1, 2)],
        'args': argparse.Namespace(lr=0.1, layers=[1, 2]),
        'model': state_dict(),
        'parameter': torch.nn.Parameter(torch.ones(2)),
        'frozen': torch.nn.Parameter(torch.ones(2), requires_grad=False),
        'grad': torch.zeros(2, requires_grad=True),
        'optimizer': {'state': {0: {'step': torch.tensor(5.0)}}, 'param_groups': [{'betas': (0.9, 0.999)}]},
        'numpy': np.arange(3.0),
        'random': torch.ByteTensor([1, 2, 3]),
        'size': torch.Size([2, 3]),
        'device': torch.device('cuda', 1),
        'dtype': torch.bfloat16,
        'ordered': collections.OrderedDict(b=1, a=2),
        'storage': torch.arange(3, dtype=torch.int16).untyped_storage(),
    }


def saved(value, old, **facts):
    out = io.BytesIO()
    torch.save(value, out, _use_new_zipfile_serialization=not old, **facts)
    return out.getvalue()


def plain(value):
    """A storage is read as a tensor of its bytes."""
    if torch.is_storage(value):
        return torch.tensor(list(value.untyped()), dtype=torch.uint8)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def load(name, case, data):
    return plain(torch.load(io.BytesIO(data), weights_only=False, map_location='cpu'))


def cases():
    values = {'dtypes': every_dtype(), 'state dict': state_dict(), 'views': views(), 'bits': bits(), 'checkpoint': checkpoint()}
    values['one tensor'] = torch.arange(3)
    for name, value in values.items():
        for old in (False, True):
            # torch itself cannot read these back from the old format.
            untyped = ('storage', 'uint16', 'uint32', 'uint64', 'complex32', 'float8_e4m3fn', 'float8_e5m2')
            if old and isinstance(value, dict):
                value = {key: item for key, item in value.items() if key not in untyped}
            data = saved(value, old)
            label = f'{name}, {"before 1.6" if old else "zip"}'
            yield {'name': label, 'file': data, 'value': described(load(label, {}, data))}
    for protocol in (3, 4, 5):
        data = saved(views(), False, pickle_protocol=protocol)
        yield {'name': f'views, zip, protocol {protocol}', 'file': data, 'value': described(load('', {}, data))}


def refused():
    """Sound files that hold more than data."""
    model = torch.nn.Linear(2, 2)
    yield 'module', saved(model, False)
    yield 'module, before 1.6', saved(model, True)
    yield 'sparse', saved({'s': torch.eye(3).to_sparse()}, False)
    yield 'sparse rows', saved({'s': torch.eye(3).to_sparse_csr()}, False)
    yield 'quantised', saved({'q': torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}, False)
    yield 'meta', saved({'m': torch.ones(2, device='meta')}, False)
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(model), script)
    yield 'script', script.getvalue()
    big = io.BytesIO()
    yield 'big-endian', big_endian(big)


def big_endian(out):
    import zipfile

    with zipfile.ZipFile(io.BytesIO(saved({'a': torch.ones(2)}, False))) as source, zipfile.ZipFile(out, 'w') as target:
        for name in source.namelist():
            data = source.read(name)
            target.writestr(zipfile.ZipInfo(name), b'big' if name.endswith('byteorder') else data)
    return out.getvalue()


if __name__ == '__main__':
    main(
        {
            'torch': lambda: list(cases()),
            'torch-refused': lambda: [{'name': name, 'file': data} for name, data in refused()],
        },
        load,
    )
