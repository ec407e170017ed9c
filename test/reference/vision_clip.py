"""Pictures as transformers' CLIPImageProcessorPil prepares them: test/fixtures/vision/clip.safetensors.

Sizes are such that Pillow 13, which changed the order of its passes, has the order of earlier versions. The processor's `size` is
small, so that the fixture is.
"""

import numpy as np
import torch
from common import Fixture, main
from PIL import Image
from transformers import CLIPImageProcessorPil
from vision_resize import noise

SIZES = [(40, 61), (75, 64), (33, 33), (32, 32), (20, 31)]


def build():
    fixture = Fixture()
    processor = CLIPImageProcessorPil(size={'shortest_edge': 32}, crop_size={'height': 32, 'width': 32})
    for seed, (height, width) in enumerate(SIZES):
        pixels = noise(seed, height, width, 3)
        out = processor(Image.fromarray(pixels), return_tensors='np')['pixel_values'][0]
        fixture.case(
            {'name': f'{height} x {width}'},
            **{'in': {'pixels': torch.from_numpy(pixels)}, 'out': {'values': torch.from_numpy(np.asarray(out))}},
        )
    return fixture


main({'vision/clip': build})
