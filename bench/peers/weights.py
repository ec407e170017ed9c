"""Weights and inputs that both sides make alike."""

import torch

pattern = (torch.arange(1009 * 1000) * 7919 % 1009).float() / 1009 - 0.5


@torch.no_grad()
def fill(model):
    for name, parameter in model.named_parameters():
        if parameter.dim() < 2:
            if name.endswith("bias"):
                parameter.zero_()
            continue
        flat = parameter.view(-1)
        for i in range(0, flat.numel(), pattern.numel()):
            n = min(pattern.numel(), flat.numel() - i)
            flat[i : i + n].copy_(pattern[:n] * 0.1)


def ids(rows, columns, words):
    return (torch.arange(rows * columns) * 31 % words).view(rows, columns)
