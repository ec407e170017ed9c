"""Writes 169 s of speech at 16 kHz, mono, in five formats by libsndfile: `write_audio.py FOLDER`. VOXTORCH_BENCH_SPEECH names a
recording to take them from, repeated as often as necessary; without it the samples are voiced and unvoiced sounds of a formula."""

import os
import sys

import numpy as np
import soundfile

RATE = 16000
FRAMES = 169 * RATE


def synthetic():
    """Syllables: harmonics of a moving pitch with three formants, then noise, and pauses."""
    draw = np.random.RandomState(0)
    time = np.arange(FRAMES) / RATE
    pitch = 130 + 30 * np.sin(2 * np.pi * 0.4 * time) + 12 * np.sin(2 * np.pi * 2.3 * time)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    voiced = np.zeros(FRAMES)
    for harmonic in range(1, 30):
        frequency = harmonic * pitch
        formants = sum(np.exp(-(((frequency - f) / 180) ** 2)) / (i + 1) for i, f in enumerate((550, 1500, 2500)))
        voiced += (0.02 + formants) / harmonic**0.5 * np.sin(harmonic * phase)
    hiss = np.diff(draw.standard_normal(FRAMES + 1))
    syllable = np.clip(np.sin(2 * np.pi * 3.1 * time), 0, 1)
    pause = np.clip(4 * np.sin(2 * np.pi * 0.23 * time) + 3, 0, 1)
    unvoiced = np.clip(-np.sin(2 * np.pi * 3.1 * time) - 0.6, 0, 1)
    return (0.12 * voiced * syllable + 0.1 * hiss * unvoiced) * pause + 0.0005 * draw.standard_normal(FRAMES)


def speech():
    path = os.environ.get("VOXTORCH_BENCH_SPEECH")
    if path is None:
        return synthetic()
    samples, rate = soundfile.read(path)
    if rate != RATE or samples.ndim != 1:
        raise SystemExit(f"{path}: expected one channel at {RATE} Hz, got {samples.ndim} dimensions at {rate} Hz")
    return np.resize(samples, FRAMES)


def write(path, samples, **options):
    # libsndfile encodes what it gets at once on its stack.
    with soundfile.SoundFile(path, "w", samplerate=RATE, channels=1, **options) as file:
        for begin in range(0, len(samples), 4096):
            file.write(samples[begin : begin + 4096])


samples = np.clip(speech(), -1, 1)
folder = sys.argv[1]
write(os.path.join(folder, "speech.wav"), samples, subtype="PCM_16")
write(os.path.join(folder, "speech.flac"), samples, subtype="PCM_16")
write(os.path.join(folder, "speech.mp3"), samples)
write(os.path.join(folder, "speech.ogg"), samples, format="OGG", subtype="VORBIS")
write(os.path.join(folder, "speech.opus"), samples, format="OGG", subtype="OPUS")
