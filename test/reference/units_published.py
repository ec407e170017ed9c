"""What each layer of the published Whisper base makes of a clip, by transformers in float32: models/units-published.safetensors in
test/fixtures, of five frames.

    python units_published.py CLIP [--check]

CLIP is a LibriSpeech clip of test-other, which the fixture names. Fetch whisper-base first, as whisper_published.py says.
"""

import sys
from pathlib import Path

import soundfile
import torch
from transformers import WhisperFeatureExtractor

from common import Fixture, main
from whisper_published import CACHE, SIZES, network

FRAMES = [0, 30, 60, 90, 120]


@torch.no_grad()
def states(clip):
    model, _ = network(CACHE / 'whisper-base', *SIZES['whisper-base'])
    encoder = model.model.encoder
    samples, rate = soundfile.read(clip, dtype='float32')
    features = WhisperFeatureExtractor()(samples, sampling_rate=rate, return_tensors='pt').input_features
    raw = []
    for layer in encoder.layers:
        layer.register_forward_hook(lambda *given: raw.append(given[-1][0] if isinstance(given[-1], tuple) else given[-1]))
    listed = encoder(features, output_hidden_states=True).hidden_states
    # The list's last is behind the final norm; what a cut network gives is the sum before it.
    assert all(torch.equal(a, b) for a, b in zip(raw[:-1], listed[1:-1]))
    assert torch.equal(encoder.layer_norm(raw[-1]), listed[-1])
    fixture = Fixture()
    out = {f'{i}': one[0, FRAMES] for i, one in enumerate(raw, 1)}
    fixture.case(dict(name='whisper-base', clip=Path(clip).name, frames=FRAMES), out=out)
    return fixture


if __name__ == '__main__':
    clip = sys.argv.pop(1)
    main({'models/units-published': lambda: states(clip)})
