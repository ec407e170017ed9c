"""The training step of training-step.mjs, written as a Python user would, with the fused optimiser."""

import torch
from torch import nn
from torch.nn import functional as F


def make_training_step():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    inputs, targets = torch.randn(64, 64), torch.randint(0, 10, (64,))

    def step():
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step
