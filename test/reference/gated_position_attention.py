"""Attention with WavLM's gated relative position bias as a plain PyTorch composition:
python gated_position_attention.py [--check].

Computed in float64. bfloat16 and float16 inputs are stored as float32 numbers that those types hold exactly.
"""

import numpy as np
import torch
from common import Fixture, generator, main, randn


def philox(counter, key, rounds=7):
    """Philox4x32 of Salmon et al. 2011, over arrays: four counter words and two key words give four words."""
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    low, high = key
    mask = np.uint64(0xFFFFFFFF)
    for _ in range(rounds):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (
            (second >> np.uint64(32)) ^ b ^ np.uint64(low),
            second & mask,
            (first >> np.uint64(32)) ^ d ^ np.uint64(high),
            first & mask,
        )
        low, high = (low + 0x9E3779B9) % 2**32, (high + 0xBB67AE85) % 2**32
    return np.stack([a, b, c, d])


# The published answer to a counter and a key of zeros (Random123, kat_vectors).
assert [f'{word:08x}' for word in philox([0] * 4, (0, 0))] == ['5f6fb709', '0d893f64', '4f121f81', '4f730a48']


def dropout_factors(batch, heads, time, probability, seed):
    """What dropout multiplies each probability by, [batch, heads, time, time]."""
    head, query, key = np.ogrid[: batch * heads, :time, :time]
    counter = np.broadcast_arrays(key // 64 * 16 + key % 16, query, head, 0)
    words = philox(counter, (seed % 2**32, seed >> 32))
    word = np.take_along_axis(words, np.broadcast_to(key // 16 % 4, words.shape[1:])[None], 0)[0]
    kept = word >= round(probability * 2**32)
    return torch.from_numpy(kept.reshape(batch, heads, time, time) / (1 - probability))


def attention(query, key, value, gate, relative, key_mask, factors, scale):
    time = query.shape[2]
    steps = torch.arange(time)
    bias = relative[:, steps[None, :] - steps[:, None] + time - 1]
    scores = scale * query @ key.transpose(-1, -2) + gate.unsqueeze(-1) * bias
    if key_mask is not None:
        attended = key_mask[:, None, None, :]
        # softmax of a row without any key would be NaN, and its gradient too.
        scores = scores.masked_fill(~attended, -torch.inf).masked_fill(~attended.any(-1, keepdim=True), 0)
    probabilities = scores.softmax(-1)
    if key_mask is not None:
        probabilities = probabilities.masked_fill(~attended, 0)
    if factors is not None:
        probabilities = probabilities * factors
    return probabilities @ value


def holes(name, batch, time):
    return torch.from_numpy(generator(name).random_sample((batch, time)) > 0.4)


def lengths(time, *valid):
    return torch.arange(time) < torch.tensor(valid)[:, None]


# name, [batch, heads, time, dim], dtype, key mask, dropout, seed, scale. 270 frames are two blocks of rows on the CPU;
# 70 end in the second group of 64 keys.
CASES = [
    ('one_frame', (2, 2, 1, 8), torch.float32, None, 0, 0, None),
    ('dim_8', (1, 2, 17, 8), torch.float32, None, 0, 0, None),
    ('dim_64', (1, 1, 5, 64), torch.float32, None, 0, 0, None),
    ('dim_80', (1, 1, 4, 80), torch.float32, None, 0, 0, 0.2),
    ('two_blocks', (1, 1, 270, 2), torch.float32, None, 0, 0, None),
    ('holes', (2, 1, 21, 4), torch.float32, holes('holes/mask', 2, 21), 0, 0, None),
    ('padded', (3, 2, 11, 4), torch.float32, lengths(11, 11, 5, 0), 0, 0, 0.7),
    ('dropout', (2, 1, 70, 3), torch.float32, lengths(70, 70, 33), 0.25, (7 << 32) + 5, None),
    ('bfloat16', (1, 2, 12, 8), torch.bfloat16, lengths(12, 9), 0, 0, None),
    ('float16', (1, 2, 10, 8), torch.float16, None, 0.5, 3, None),
]
LEAVES = ('query', 'key', 'value', 'gate', 'relative')


def build():
    fixture = Fixture()
    for name, (batch, heads, time, dim), dtype, key_mask, dropout, seed, scale in CASES:
        given = {key: randn(f'{name}/{key}', batch, heads, time, dim, scale=1.5) for key in ('query', 'key', 'value')}
        given['gate'] = 1 + randn(f'{name}/gate', batch, heads, time, scale=0.5)
        given['relative'] = randn(f'{name}/relative', heads, 2 * time - 1, scale=2.0)
        given = {key: value.to(dtype).float() for key, value in given.items()}
        leaves = [given[key].double().requires_grad_() for key in LEAVES]
        factors = dropout_factors(batch, heads, time, dropout, seed) if dropout else None
        output = attention(*leaves, key_mask, factors, dim**-0.5 if scale is None else scale)
        cotangent = randn(f'{name}/cotangent/output', batch, heads, time, dim).to(dtype).float()
        output.backward(cotangent.double())
        fixture.case(
            {
                'name': name,
                'dtype': str(dtype).removeprefix('torch.'),
                'dropout': dropout,
                'seed': str(seed),
                'scale': scale,
            },
            **{
                'in': given if key_mask is None else {**given, 'keyMask': key_mask},
                'out': {'output': output.float()},
                'cotangent': {'output': cotangent},
                'grad': {key: leaf.grad.float() for key, leaf in zip(LEAVES, leaves, strict=True)},
            },
        )
    return fixture


if __name__ == '__main__':
    main({'kernels/gated-position-attention': build})
