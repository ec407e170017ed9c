"""Result dtypes of PyTorch's functions that lib composes of others, for inputs of each dtype and of two together.

    python test/reference/tensor_dtypes.py [--check]

Writes test/fixtures/tensor/result-dtypes.json: function -> dtypes of the inputs -> dtype of the result, null where PyTorch refuses.
"""

import json
import sys

import torch
import torch.nn.functional as F
from common import FIXTURES

DTYPES = ['bool', 'uint8', 'int8', 'int16', 'int32', 'int64', 'float16', 'bfloat16', 'float32', 'float64']
PAIRS = [(a, b) for a in ('int32', 'int64', 'float16', 'bfloat16', 'float32', 'float64') for b in ('int32', 'float16', 'bfloat16', 'float32', 'float64')]  # fmt: skip


def first(value):
    return value[0] if isinstance(value, (tuple, list)) else value


ONE = {
    'softmin': lambda x: F.softmin(x, -1),
    'softsign': F.softsign,
    'tanhshrink': F.tanhshrink,
    'normalize': lambda x: F.normalize(x),
    'localResponseNorm': lambda x: F.local_response_norm(x[:, None], 3),
    'norm fro': lambda x: torch.norm(x, 'fro'),
    'norm fro of dim': lambda x: torch.norm(x, 'fro', dim=0),
    'norm nuc': lambda x: torch.norm(x, 'nuc'),
    'nonzero asTuple': lambda x: torch.nonzero(x, as_tuple=True),
    'unravelIndex': lambda x: torch.unravel_index(x, (2, 2)),
    'unique': lambda x: torch.unique(x),
    'unique of dim': lambda x: torch.unique(x, dim=0),
    'oneHot': lambda x: F.one_hot(x, 2),
    'layerNorm': lambda x: F.layer_norm(x, (2,)),
    'rmsNorm': lambda x: F.rms_norm(x, (2,)),
    'pad constant': lambda x: F.pad(x, (1, 1)),
    'pad reflect': lambda x: F.pad(x, (1, 1), 'reflect'),
    'pad circular': lambda x: F.pad(x, (1, 1), 'circular'),
    'fullLike': lambda x: torch.full_like(x, 1),
    'embeddingBag': lambda x: F.embedding_bag(torch.tensor([[0, 1]]), x, mode='mean'),
    'interpolate nearest': lambda x: F.interpolate(x[None], scale_factor=2, mode='nearest'),
    'interpolate linear': lambda x: F.interpolate(x[None], scale_factor=2, mode='linear'),
}
TWO = {
    'mseLoss': F.mse_loss,
    'l1Loss': F.l1_loss,
    'smoothL1Loss': F.smooth_l1_loss,
    'smoothL1Loss of beta 0': lambda x, y: F.smooth_l1_loss(x, y, beta=0.0),
    'huberLoss': F.huber_loss,
    'binaryCrossEntropy': F.binary_cross_entropy,
    'binaryCrossEntropyWithLogits': F.binary_cross_entropy_with_logits,
    'multilabelSoftMarginLoss': F.multilabel_soft_margin_loss,
    'klDiv': F.kl_div,
    'klDiv batchmean': lambda x, y: F.kl_div(x, y, reduction='batchmean'),
    'klDiv of logarithms': lambda x, y: F.kl_div(x, y, reduction='batchmean', log_target=True),
    'cosineEmbeddingLoss': lambda x, y: F.cosine_embedding_loss(x, y, torch.tensor([1, -1])),
    'tripletMarginLoss': lambda x, y: F.triplet_margin_loss(x, y, x),
    'cosineSimilarity': lambda x, y: F.cosine_similarity(x, y),
    'cdist': lambda x, y: torch.cdist(x, y, compute_mode='donot_use_mm_for_euclid_dist'),
    'tensordot': lambda x, y: torch.tensordot(x, y, 1),
    'tensordot of none': lambda x, y: torch.tensordot(x, y, 0),
    'where': lambda x, y: torch.where(torch.tensor([True, False]), x, y),
}  # fmt: skip


def result(function, *dtypes):
    inputs = [torch.tensor([[1, 0], [0, 1]], dtype=getattr(torch, dtype)) for dtype in dtypes]
    try:
        return str(first(function(*inputs)).dtype)[6:]
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError):
        return None


def main():
    found = {name: {dtype: result(function, dtype) for dtype in DTYPES} for name, function in ONE.items()}
    found |= {name: {f'{a} {b}': result(function, a, b) for a, b in PAIRS} for name, function in TWO.items()}
    text = json.dumps(found, indent=1) + '\n'
    path = FIXTURES / 'tensor' / 'result-dtypes.json'
    if '--check' in sys.argv:
        sys.exit(0 if path.read_text() == text else f'{path} differs')
    path.write_text(text)
    print(f'{path.name}: {len(found)} functions, {len(text):,} bytes')


if __name__ == '__main__':
    main()
