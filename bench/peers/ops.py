"""Each case in the fastest of the usual ways to write it, with torch's default threads."""

import torch
from rates import rates
from serve import serve, timed_blocks
from training_step import make_training_step

one, other = torch.ones(1), torch.ones(1)
square, second = torch.randn(64, 64), torch.randn(64, 64)
rows, weight, bias = torch.randn(32, 768), torch.ones(768), torch.zeros(768)
step = make_training_step()


def add(n):
    a, b = one, other
    for _ in range(n):
        a + b


def matmul(n):
    a, b = square, second
    for _ in range(n):
        a @ b


def layer_norm(n):
    x, w, b, shape, normalise = rows, weight, bias, (768,), torch.layer_norm
    for _ in range(n):
        normalise(x, shape, w, b)


def slice_rows(n):
    x = square
    for _ in range(n):
        x[1:5]


def training_step(n):
    for _ in range(n):
        step()


serve(
    timed_blocks(
        {
            "addInScope": add,
            "addOutside": add,
            "matmul": matmul,
            "layerNorm": layer_norm,
            "slice": slice_rows,
            "trainingStep": training_step,
            **rates,
        }
    )
)
