"""Pictures, depths and videos as LanguageBind's own processors prepare them, and which frames are taken.

The processors are those of PyPI `languagebind` 0.1.0, video with `pytorchvideo` 0.1.5; torchvision is 0.28, whose resizing
antialiases tensors unless it is told not to, as the pinned 0.14 could not. Runs in the environment of
requirements-languagebind.txt, `vision/videos-smooth` in any with PyTorch. Results of 224 x 224 are kept at every 7th pixel.
"""

import importlib.util
import sys
import types
from types import SimpleNamespace

import numpy as np
import torch
from common import Fixture, main
from PIL import Image
from vision_resize import noise

# What the processors import and these tests do not call: decoders, and base classes of the tokenizing part.
for name in ['cv2', 'decord', 'pytorchvideo.data', 'pytorchvideo.data.encoded_video']:
    sys.modules.setdefault(name, types.ModuleType(name))
sys.modules['decord'].VideoReader = sys.modules['decord'].cpu = None
sys.modules['decord'].bridge = SimpleNamespace(set_bridge=lambda _: None)
sys.modules['pytorchvideo.data.encoded_video'].EncodedVideo = None


def short_side_scale():
    """pytorchvideo's function alone: its package imports what newer torchvisions have no more."""
    folder = importlib.util.find_spec('pytorchvideo').submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location('functional', f'{folder}/transforms/functional.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # It asks for float32, which rounds the places between pixels so coarsely that noise shows it.
    module.torch = SimpleNamespace(float32=torch.float64, nn=torch.nn)
    return module.short_side_scale


class ShortSideScale(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.size = size
        self.scale = short_side_scale()

    def forward(self, frames):
        return self.scale(frames, self.size)


transforms = types.ModuleType('pytorchvideo.transforms')
transforms.ShortSideScale = ShortSideScale
transforms.ApplyTransformToKey = transforms.UniformTemporalSubsample = None
sys.modules['pytorchvideo.transforms'] = transforms


def processor(modality):
    folder = importlib.util.find_spec('languagebind').submodule_search_locations[0]
    path = f'{folder}/{modality}/processing_{modality}.py'
    spec = importlib.util.spec_from_file_location(f'processing_{modality}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CONFIG = SimpleNamespace(vision_config=SimpleNamespace(max_depth=10, video_decode_backend='opencv', num_frames=8))
CLIP = [(0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)]
SIZES = [(40, 61), (300, 257), (224, 331), (500, 230), (225, 224)]


def kept(result):
    return result[..., ::7, ::7].contiguous()


def pictures():
    fixture = Fixture()
    for modality in ['image', 'thermal']:
        module = processor(modality)
        transform = getattr(module, f'get_{modality}_transform')(CONFIG)
        for antialias in [True, False]:
            transform.transforms[1].antialias = antialias
            for seed, (height, width) in enumerate(SIZES if modality == 'image' else SIZES[1:2]):
                out = transform(Image.fromarray(noise(seed, height, width, 3)))
                fixture.case(
                    {'name': f'{modality}-{height}-{antialias}', 'antialias': antialias, 'seed': seed, 'shape': [height, width, 3]},
                    out={'every7': kept(out)},
                )
    return fixture


def depths():
    fixture = Fixture()
    module = processor('depth')
    for max_depth in [10, 0, 30]:
        config = SimpleNamespace(vision_config=SimpleNamespace(max_depth=max_depth))
        transform = module.get_depth_transform(config)
        for antialias in [True, False]:
            transform.transforms[1].antialias = antialias
            for seed, (height, width) in enumerate(SIZES[:2]):
                # Two bytes to a distance, the second the lower; few are far.
                low, high = np.moveaxis(noise(seed, height, width, 2).astype(np.float32), -1, 0)
                out = transform(low + 256 * np.floor(high / 4))
                fixture.case(
                    {
                        'name': f'{max_depth}-{height}-{antialias}',
                        'maxDepth': max_depth,
                        'antialias': antialias,
                        'seed': seed,
                        'shape': [height, width, 2],
                    },
                    out={'every7': kept(out)},
                )
    return fixture


def videos():
    fixture = Fixture()
    module = processor('video')
    transform = module.get_video_transform(CONFIG)
    transform.transforms[-1].p = 0.0
    for seed, (height, width) in enumerate([(40, 61), (120, 160), (310, 240), (224, 230), (49, 1078)]):
        frames = torch.from_numpy(noise(seed, 2, height, width, 3)).permute(3, 0, 1, 2).double()
        fixture.case({'name': f'{height}-{width}', 'seed': seed, 'shape': [2, height, width, 3]}, out={'every7': kept(transform(frames)).float()})
    return fixture


def smooth_videos():
    """The same steps with an antialiased resize, which pytorchvideo does not offer: by PyTorch alone, so that this runs without the processors."""
    fixture = Fixture()
    mean, std = [torch.tensor(values, dtype=torch.float64).view(3, 1, 1, 1) for values in CLIP]
    for seed, (height, width) in enumerate([(310, 240), (500, 701), (120, 160)]):
        frames = torch.from_numpy(noise(seed, 2, height, width, 3)).permute(3, 0, 1, 2).double()
        short = min(height, width)
        size = [int(side / short * 224) for side in (height, width)]
        top, left = [int(round((side - 224) / 2.0)) for side in size]

        def resized(pixels):
            whole = torch.nn.functional.interpolate(pixels, size, mode='bilinear', align_corners=False, antialias=True)
            return kept(whole[..., top : top + 224, left : left + 224])

        out = resized((frames / 255 - mean) / std)
        # What PyTorch's own float32 is off by.
        single = resized(((frames.float() / 255 - mean.float()) / std.float()))
        own = ((single.double() - out).abs().max() / out.abs().max()).item()
        fixture.case({'name': f'{height}-{width}', 'seed': seed, 'shape': [2, height, width, 3], 'own': own}, out={'every7': out.float()})
    return fixture


def frames():
    fixture = Fixture()
    for count in [8, 1, 16]:
        rows = {'linspace': [], 'segments': []}
        for n in range(1, 401):
            rows['linspace'].append(np.linspace(0, n - 1, count, dtype=int))
            segment = float(n - 1) / count
            rows['segments'].append([int(segment / 2 + np.round(segment * i)) for i in range(count)])
        values = {key: torch.from_numpy(np.asarray(value, np.int16)) for key, value in rows.items()}
        fixture.case({'name': f'{count}', 'count': count}, out=values)
    return fixture


if __name__ == '__main__':
    main({'vision/pictures': pictures, 'vision/depth-towers': depths, 'vision/videos': videos, 'vision/videos-smooth': smooth_videos, 'vision/frames': frames})
