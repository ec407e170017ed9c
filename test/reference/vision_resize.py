"""Pictures at another size: bytes as Pillow makes them, floats as PyTorch does.

The pictures of `vision/pillow` are drawn from an integer hash that test/vision/pictures.ts has too, so that only a hash of
what Pillow made has to be kept: of 500 random sizes, and of sizes at which a pass is left out or a window is cut.

Pillow 13 goes down before it goes across where that is less work, and rounds in between; Pillow 12 went across first,
other than in pictures over 100 times as high as wide. Two calls that change one side each are Pillow 12's one.
"""

import hashlib

import numpy as np
import torch
import torch.nn.functional as F
from common import Fixture, generator, main, rand
from PIL import Image

FILTERS = ['nearest', 'box', 'bilinear', 'hamming', 'bicubic', 'lanczos']


def noise(seed, *shape):
    """uint8 [*shape]: every byte is an integer hash of its place (murmur3's finaliser)."""
    h = np.arange(np.prod(shape), dtype=np.uint32) + np.uint32((seed * 0x9E3779B9) & 0xFFFFFFFF)
    h ^= h >> np.uint32(16)
    h *= np.uint32(0x85EBCA6B)
    h ^= h >> np.uint32(13)
    h *= np.uint32(0xC2B2AE35)
    h ^= h >> np.uint32(16)
    return (h >> np.uint32(24)).astype(np.uint8).reshape(shape)


def resized(pixels, height, width, name):
    """What Pillow 12 and Pillow 13 make of it."""
    picture = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0])
    filter = getattr(Image.Resampling, name.upper())
    once = picture.resize((width, height), filter)
    if name == 'nearest':
        return once, once
    if picture.height > 100 * picture.width and height < picture.height:
        between = (picture.width, height)
    else:
        between = (width, picture.height)
    return picture.resize(between, filter).resize((width, height), filter), once


def digest(picture):
    return hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()[:16]


def pillow():
    fixture = Fixture()
    draw = generator('vision-sizes')
    sizes = []
    for index in range(500):
        # Sides spread evenly over their logarithm: most windows are small, some reach over the whole side.
        sides = [int(2 ** draw.uniform(0, 8.5)) for _ in range(4)]
        sizes.append((*sides, FILTERS[index % len(FILTERS)], 1 if index % 7 == 0 else 3))
    for name in FILTERS:
        sizes += [
            (1, 1, 1, 1, name, 3),
            (1, 1, 9, 7, name, 3),
            (40, 30, 40, 11, name, 3),
            (40, 30, 13, 30, name, 3),
            (40, 30, 40, 30, name, 3),
            (7, 2000, 5, 3, name, 3),
            (2000, 7, 3, 5, name, 3),
            (700, 7, 3, 5, name, 3),
            (701, 7, 3, 5, name, 3),
            (701, 7, 702, 5, name, 3),
            (3, 5, 300, 200, name, 3),
            (120, 160, 224, 298, name, 3),
            (360, 640, 448, 448, name, 3),
        ]
    for seed, (height, width, new_height, new_width, name, channels) in enumerate(sizes):
        pillow_12, pillow_13 = map(digest, resized(noise(seed, height, width, channels), new_height, new_width, name))
        fixture.case(
            {
                'name': f'{seed}',
                'seed': seed,
                'from': [height, width, channels],
                'to': [new_height, new_width],
                'filter': name,
                'pillow12': pillow_12,
                **({'pillow13': pillow_13} if pillow_13 != pillow_12 else {}),
            }
        )
    return fixture


def tensors():
    fixture = Fixture()
    picture = rand('vision-tensor', 2, 3, 15, 22)
    for mode in ['bilinear', 'bicubic']:
        for antialias in [False, True]:
            for height, width in [(7, 12), (21, 40), (15, 9), (23, 5)]:
                out = F.interpolate(picture.double(), (height, width), mode=mode, antialias=antialias, align_corners=False)
                fixture.case(
                    {'name': f'{mode}-{antialias}-{height}', 'filter': mode, 'antialias': antialias, 'to': [height, width]},
                    **({'in': {'picture': picture}} if not fixture.tensors else {}),
                    out={'picture': out.float()},
                )
    return fixture


if __name__ == '__main__':
    main({'vision/pillow': pillow, 'vision/tensors': tensors})
