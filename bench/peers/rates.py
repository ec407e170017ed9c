"""How fast a big matrix product and a matrix-vector product are: the counterpart of rates.mjs."""

import torch

wide, tall = torch.randn(1024, 1024), torch.randn(1024, 1024)
matrix, vector = torch.randn(4096, 4096), torch.randn(4096)


def gemm(n):
    for _ in range(n):
        wide @ tall


def gemv(n):
    for _ in range(n):
        matrix @ vector


rates = {"gemm": gemm, "gemv": gemv}
