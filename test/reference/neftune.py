"""Embeddings with transformers' NEFTune noise that test/train/trainer/neftune.test.ts compares: python neftune.py [--check]."""

import torch
from common import Fixture, main, randint, randn
from transformers.integrations.neftune import neftune_post_forward_hook

ALPHA, SEED = 5.0, 3


def neftune():
    fixture = Fixture()
    weight, ids = randn('neftune weight', 7, 4), randint('neftune ids', 0, 7, 2, 3)
    embedding = torch.nn.Embedding.from_pretrained(weight)
    embedding.neftune_noise_alpha = ALPHA
    embedding.register_forward_hook(neftune_post_forward_hook)
    torch.manual_seed(SEED)
    fixture.case({'name': 'noise', 'alpha': ALPHA, 'seed': SEED},
                 **{'in': {'ids': ids}}, param={'weight': weight}, out={'embeddings': embedding.train()(ids)})  # fmt: skip
    return fixture


if __name__ == '__main__':
    main({'train/neftune': neftune})
