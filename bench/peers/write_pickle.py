"""Writes a pickle shaped as the MOSI files of SPECTRA: a list of [16 kHz waveform, token ids, label]."""

import pickle
import sys

import numpy as np

random = np.random.default_rng(0)
samples = []
for _ in range(400):
    seconds, tokens = random.uniform(1, 10), int(random.integers(5, 60))
    wave = (random.standard_normal(int(seconds * 16000)) * 0.1).astype(np.float32)
    ids = [0, *random.integers(4, 50265, tokens).tolist(), 2]
    samples.append([wave, ids, float(random.uniform(-3, 3))])
with open(sys.argv[1], "wb") as file:
    pickle.dump(samples, file)
