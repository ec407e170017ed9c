"""PyTorch's public names by namespace, for the table of names in docs/guide/pytorch-names.md.

    python torch_names.py            # writes docs/pytorch-names.json
    python torch_names.py --check    # fails if the file is not what this torch says
"""

import inspect
import json
import sys
from pathlib import Path

import torch
import torch.distributions
import torch.func
import torch.nn.functional
import torch.optim
import torch.overrides

OUT = Path(__file__).resolve().parents[2] / 'docs' / 'pytorch-names.json'


def public(module):
    return [name for name in dir(module) if not name.startswith('_')]


def is_own(name, value):
    """Not an import for the module's own use, such as Callable, Tensor or has_torch_function."""
    origin = getattr(value, '__module__', None) or 'torch'
    return callable(value) and origin.startswith('torch') and value is not torch.Tensor and not hasattr(torch.overrides, name)


def functions(module):
    return [name for name in public(module) if is_own(name, getattr(module, name)) and not inspect.isclass(getattr(module, name))]


def classes(module):
    return [name for name in public(module) if inspect.isclass(getattr(module, name)) and is_own(name, getattr(module, name))]


NAMES = {
    'torch.nn.functional': functions(torch.nn.functional),
    'torch.nn': classes(torch.nn),
    'torch.nn.init': sorted(name for name in torch.nn.init.__all__ if name + '_' not in torch.nn.init.__all__),
    'torch.fft': functions(torch.fft),
    'torch.linalg': functions(torch.linalg),
    'torch.special': functions(torch.special),
    'torch.func': sorted(torch.func.__all__),
    'torch.distributions': sorted(torch.distributions.__all__),
    'torch.optim': [name for name in classes(torch.optim)],
    'torch.optim.lr_scheduler': [name for name in classes(torch.optim.lr_scheduler) if name != 'Optimizer'],
    'torch.Tensor': public(torch.Tensor),
}


def main():
    made = json.dumps({'torch': torch.__version__.split('+')[0], 'names': NAMES}, indent=0) + '\n'
    if '--check' in sys.argv:
        sys.exit(OUT.read_text() != made)
    OUT.write_text(made)
    print({key: len(names) for key, names in NAMES.items()})


if __name__ == '__main__':
    main()
