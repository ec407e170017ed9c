"""What makes sound of spectrograms: tiny BigVGAN networks with random weights, by NVIDIA's own code (PyPI `bigvgan` 2.4.1), with
a published folder; Griffin-Lim by librosa, and mel bands undone by SciPy's non-negative least squares.

In float64, stored as float32. What bigvgan imports for pictures is not needed and left out.
"""

import json
import sys
import types

import librosa
import numpy as np
import scipy.optimize
import torch

for name in ['matplotlib', 'matplotlib.pylab']:
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules['matplotlib'].use = lambda backend: None

from bigvgan.alias_free_activation.torch.act import Activation1d  # noqa: E402
from bigvgan.activations import SnakeBeta  # noqa: E402
from bigvgan.bigvgan import BigVGAN  # noqa: E402
from bigvgan.env import AttrDict  # noqa: E402

from common import FIXTURES, Fixture, main, randn  # noqa: E402

SIZE = dict(
    num_mels=5,
    upsample_rates=[4, 2],
    upsample_kernel_sizes=[8, 4],
    upsample_initial_channel=8,
    resblock='1',
    resblock_kernel_sizes=[3, 7],
    resblock_dilation_sizes=[[1, 3], [1, 5]],
    activation='snakebeta',
    snake_logscale=True,
)
V2 = dict(use_tanh_at_final=False, use_bias_at_final=False)
CASES = [
    dict(name='v1'),
    dict(name='v2', **V2),
    dict(name='second-blocks', resblock='2', upsample_rates=[2, 3], upsample_kernel_sizes=[4, 5]),
    dict(name='snake', activation='snake', **V2),
    dict(name='linear-scale', activation='snakebeta', snake_logscale=False),
    dict(name='snake-linear-scale', activation='snake', snake_logscale=False, resblock='2', upsample_rates=[3]),
]


def network(config, name):
    made = BigVGAN(AttrDict({**config})).double()
    state = made.state_dict()
    given = {}
    for key, old in state.items():
        if key.endswith('.filter'):
            continue
        value = randn(f'{name}/{key}', *old.shape, scale=0.3)
        if key.endswith('weight_g'):
            value = value.abs() + 0.5
        if key.endswith(('.alpha', '.beta')) and not config['snake_logscale']:
            value = value.abs() + 0.7
        given[key] = value
        state[key] = value.double()
    made.load_state_dict(state)
    return made, given


def passed(made, mel, cotangent):
    made.zero_grad()
    mel = mel.double().requires_grad_()
    waveform = made(mel).squeeze(1)
    (waveform * cotangent.double()).sum().backward()
    return waveform, {key: value.grad.float() for key, value in made.named_parameters()} | {'mel': mel.grad.float()}


def bigvgan():
    fixture = Fixture()
    for case in CASES:
        case = dict(case)
        name = case.pop('name')
        config = {**SIZE, **case}
        kinds = len(config['upsample_rates'])
        config['upsample_kernel_sizes'] = config['upsample_kernel_sizes'][:kinds] if name != 'snake-linear-scale' else [7]
        made, given = network(config, name)
        mel = randn(f'{name}/mel', 2, config['num_mels'], 9)
        samples = made(mel.double()).shape[-1]
        cotangent = randn(f'{name}/cotangent', 2, samples)
        waveform, grads = passed(made, mel, cotangent)
        made.remove_weight_norm()
        folded = {key: value.detach().float().clone() for key, value in made.named_parameters() if key.endswith('.weight')}
        with torch.no_grad():
            for key, value in folded.items():
                made.get_parameter(key).copy_(value)  # as they are stored
        _, folded_grads = passed(made, mel, cotangent)
        fixture.case(
            dict(name=name, config=config),
            **{'in': {'mel': mel}},
            param=given,
            cotangent={'waveform': cotangent},
            out={'waveform': waveform.float()},
            folded=folded,
            grad=grads,
            folded_grad={key: folded_grads[key] for key in folded_grads},
        )
    torch.manual_seed(0)
    act = Activation1d(SnakeBeta(1))
    fixture.case(
        dict(name='filters'),
        out={'up': act.upsample.filter, 'down': act.downsample.lowpass.filter},
    )
    return fixture


def published():
    """A folder as NVIDIA's hub repositories are, with what its own code makes of it."""
    name = 'published'
    config = {**SIZE, 'resblock_kernel_sizes': [3], 'resblock_dilation_sizes': [[1, 3]], 'upsample_initial_channel': 4}
    extra = dict(sampling_rate=22050, hop_size=8, fmax=8000, learning_rate=0.0001, dist_config=dict(world_size=1))
    made, _ = network(config, name)
    made = made.float()
    folder = FIXTURES / 'models/bigvgan-published'
    folder.mkdir(parents=True, exist_ok=True)
    torch.save({'generator': made.state_dict()}, folder / 'bigvgan_generator.pt')
    (folder / 'config.json').write_text(json.dumps({**config, **extra}, indent=4) + '\n')
    mel = randn(f'{name}/mel', 1, 5, 6)
    fixture = Fixture()
    waveform = made.double()(mel.double()).squeeze(1).float()
    fixture.case(dict(name=name, config=config), **{'in': {'mel': mel}}, out={'waveform': waveform})
    return fixture


def snake():
    """The activation alone: lengths below the filters', and arguments of the sine that are large."""
    fixture = Fixture()
    for name, time, scale in [('one', 1, 1.0), ('short', 4, 1.0), ('tile', 37, 1.0), ('long', 1100, 1.0), ('large', 40, 300.0)]:
        channels = 3 if time < 100 else 2
        x = randn(f'snake/{name}/x', 2 if time < 100 else 1, channels, time, scale=scale)
        alpha, beta = randn(f'snake/{name}/alpha', channels, scale=0.5), randn(f'snake/{name}/beta', channels, scale=0.5)
        act = Activation1d(SnakeBeta(channels, alpha_logscale=True)).double()
        with torch.no_grad():
            act.act.alpha.copy_(alpha)
            act.act.beta.copy_(beta)
        given = x.double().requires_grad_()
        out = act(given)
        cotangent = randn(f'snake/{name}/cotangent', *out.shape)
        (out * cotangent.double()).sum().backward()
        fixture.case(
            dict(name=name),
            **{'in': {'x': x, 'alpha': alpha, 'beta': beta}},
            cotangent={'output': cotangent},
            out={'output': out.float(), 'filter': act.upsample.filter.float()},
            grad={'x': given.grad.float(), 'alpha': act.act.alpha.grad.float(), 'beta': act.act.beta.grad.float()},
        )
    return fixture


def griffin_lim():
    fixture = Fixture()
    cases = [
        dict(name='plain', n_fft=32, hop=8, iterations=6, momentum=0.99),
        dict(name='slow', n_fft=32, hop=8, iterations=6, momentum=0.0),
        dict(name='window', n_fft=40, hop=6, win=24, iterations=3, momentum=0.5, pad='constant'),
        dict(name='none', n_fft=16, hop=4, iterations=0, momentum=0.99),
    ]
    for case in cases:
        magnitudes = randn(f'griffin-lim/{case["name"]}', case['n_fft'] // 2 + 1, 14).abs()
        samples = librosa.griffinlim(
            magnitudes.double().numpy(),
            n_iter=case['iterations'],
            hop_length=case['hop'],
            win_length=case.get('win', case['n_fft']),
            n_fft=case['n_fft'],
            momentum=case['momentum'],
            init=None,
            pad_mode=case.get('pad', 'reflect'),
            dtype=np.float64,
        )
        fixture.case(case, **{'in': {'magnitudes': magnitudes}}, out={'samples': torch.from_numpy(samples).float()})
    filters = librosa.filters.mel(sr=8000, n_fft=64, n_mels=12, dtype=np.float64)
    mel = randn('griffin-lim/mel', 12, 5).abs()
    left = [scipy.optimize.nnls(filters, column)[1] for column in mel.double().numpy().T]
    fixture.case(dict(name='mel'), **{'in': {'mel': mel}}, out={'left': torch.tensor(left).float()})
    return fixture


if __name__ == '__main__':
    main({'models/bigvgan': bigvgan, 'models/bigvgan-pretrained': published, 'kernels/anti-aliased-snake': snake, 'audio/griffin-lim': griffin_lim})
