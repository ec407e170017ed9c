"""Silero VAD: test/fixtures/models/silero-vad.safetensors has a small network of its kind with random weights, frame by frame in
PyTorch. With a folder of LibriSpeech clips (`python silero.py clips FOLDER`), test/fixtures/models/silero-vad-published.json
has the same of the published safetensors, with the segments that the package silero-vad makes of the probabilities. (That
file of silero-vad 6.2.3 holds other values than its .jit and .onnx files: what those say is up to 0.5 off.)
"""

import json
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

from common import FIXTURES, Fixture, main, randn

FRAME, CONTEXT, N_FFT, CHANNELS, HIDDEN = 32, 4, 16, [6, 5, 4, 7], 8
SHAPES = {
    'stft_conv.weight': (N_FFT + 2, 1, N_FFT),
    'conv1.weight': (CHANNELS[0], N_FFT // 2 + 1, 3),
    'conv1.bias': (CHANNELS[0],),
    'conv2.weight': (CHANNELS[1], CHANNELS[0], 3),
    'conv2.bias': (CHANNELS[1],),
    'conv3.weight': (CHANNELS[2], CHANNELS[1], 3),
    'conv3.bias': (CHANNELS[2],),
    'conv4.weight': (CHANNELS[3], CHANNELS[2], 3),
    'conv4.bias': (CHANNELS[3],),
    'lstm_cell.weight_ih': (4 * HIDDEN, CHANNELS[3]),
    'lstm_cell.weight_hh': (4 * HIDDEN, HIDDEN),
    'lstm_cell.bias_ih': (4 * HIDDEN,),
    'lstm_cell.bias_hh': (4 * HIDDEN,),
    'final_conv.weight': (1, HIDDEN, 1),
    'final_conv.bias': (1,),
}


def probabilities(weights, samples, frame=FRAME, context=CONTEXT, n_fft=N_FFT):
    """One frame after the other in float64, as a stream would bring them."""
    w = {name: value.double() for name, value in weights.items()}
    cell = torch.nn.LSTMCell(w['lstm_cell.weight_ih'].shape[1], w['lstm_cell.weight_hh'].shape[1], dtype=torch.float64)
    cell.load_state_dict({name[10:]: value for name, value in w.items() if name.startswith('lstm_cell.')})
    count = -(-len(samples) // frame)
    sound = F.pad(samples.double(), (context, count * frame - len(samples)))
    state, found = None, []
    for i in range(count):
        seen = sound[i * frame : i * frame + frame + context][None, None]
        waves = F.conv1d(F.pad(seen, (0, context), 'reflect'), w['stft_conv.weight'], stride=n_fft // 2)
        real, imaginary = waves.chunk(2, 1)
        x = torch.hypot(real, imaginary)
        for layer, stride in [('conv1', 1), ('conv2', 2), ('conv3', 2), ('conv4', 1)]:
            x = F.relu(F.conv1d(x, w[f'{layer}.weight'], w[f'{layer}.bias'], stride, 1))
        state = cell(x.squeeze(-1), state)
        out = F.conv1d(F.relu(state[0]).unsqueeze(-1), w['final_conv.weight'], w['final_conv.bias'])
        found.append(torch.sigmoid(out).item())
    return torch.tensor(found, dtype=torch.float64)


def build():
    fixture = Fixture()
    weights = {name: randn(f'silero/{name}', *shape, scale=0.4) for name, shape in SHAPES.items()}
    samples = randn('silero/samples', 11 * FRAME - 5)
    with torch.no_grad():
        expected = probabilities(weights, samples)
    config = {'frame': FRAME, 'context': CONTEXT, 'nFft': N_FFT, 'channels': CHANNELS, 'hiddenSize': HIDDEN}
    roles = {'param': weights, 'in': {'samples': samples}, 'out': {'probabilities': expected.float()}}
    fixture.case({'name': 'small', 'config': config}, **roles)
    return fixture


def published(folder):
    import silero_vad
    import soundfile
    from safetensors.torch import load_file

    file = Path(silero_vad.__file__).parent / 'data/silero_vad_16k.safetensors'
    weights, cases = load_file(file), []
    for name in ['1688/1688-142285-0000.flac', '367/367-130732-0003.flac']:
        samples = torch.from_numpy(soundfile.read(Path(folder) / name, dtype='float32')[0])
        likely = probabilities(weights, samples, 512, 64, 256).tolist()
        for settings in [{}, {'threshold': 0.8, 'min_silence_duration_ms': 300, 'speech_pad_ms': 200}]:
            found = silero_vad.utils_vad.get_speech_timestamps_from_probs(
                likely, audio_length_samples=len(samples), **settings
            )
            segments = [[one['start'] / 16000, one['end'] / 16000] for one in found]
            cases.append({'clip': name, 'settings': settings, 'segments': segments, 'probabilities': likely})
    (FIXTURES / 'models/silero-vad-published.json').write_text(json.dumps(cases) + '\n')


if sys.argv[1:2] == ['clips']:
    with torch.no_grad():
        published(sys.argv[2])
else:
    main({'models/silero-vad': build})
