"""
Every key of transformers' CLIPImageProcessor (of Pillow) with another value: test/fixtures/models/image-processor-keys.json, with the
pixel values that come of it, every 37th of them, or null where transformers refuses the value.
"""

import json
import sys
import typing

import numpy
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.processing_utils import ImagesKwargs

from common import FIXTURES

HEIGHT, WIDTH = 30, 20
pixels = (numpy.arange(HEIGHT * WIDTH * 3).reshape(HEIGHT, WIDTH, 3) * 7 // 4 % 256).astype('uint8')
OTHERS = {
    'do_convert_rgb': [False], 'do_resize': [False], 'size': [12, {'shortest_edge': 12}, {'height': 12, 'width': 12}], 'default_to_square': [True],
    'crop_size': [10, {'height': 10, 'width': 12}], 'resample': [0, 2], 'do_rescale': [False], 'rescale_factor': [1 / 127.5],
    'do_normalize': [False], 'image_mean': [[0.1, 0.2, 0.3]], 'image_std': [[0.5, 0.6, 0.7]], 'do_pad': [True],
    'pad_size': [{'height': 40, 'width': 40}], 'do_center_crop': [False], 'data_format': ['channels_last'], 'input_data_format': ['channels_last'],
    'device': ['cpu'], 'return_tensors': ['np'], 'disable_grouping': [True], 'image_seq_length': [7],
}
BASE = {'size': {'shortest_edge': 16}, 'crop_size': {'height': 16, 'width': 16}}


def made(config):
    try:
        values = CLIPImageProcessorPil(**config)(Image.fromarray(pixels))['pixel_values'][0]
    except Exception:
        return None
    values = numpy.asarray(values, dtype='float64')
    return {'shape': list(values.shape), 'values': [round(value, 6) for value in values.flatten()[::37].tolist()]}


keys = sorted(typing.get_type_hints(ImagesKwargs))
assert sorted(OTHERS) == keys, set(OTHERS) ^ set(keys)
cases = [{'key': key, 'value': value, 'made': made({**BASE, key: value})} for key in keys for value in OTHERS[key]]
# A size needs its crop.
cases.append({'key': 'size', 'value': 12, 'with': {'crop_size': 12}, 'made': made({'size': 12, 'crop_size': 12})})
cases.append({'key': 'size', 'value': {'shortest_edge': 12}, 'with': {'crop_size': {'height': 12, 'width': 12}},
              'made': made({'size': {'shortest_edge': 12}, 'crop_size': {'height': 12, 'width': 12}})})
path = FIXTURES / 'models/image-processor-keys.json'
text = json.dumps({'height': HEIGHT, 'width': WIDTH, 'base': BASE, 'made': made(BASE), 'cases': cases}) + '\n'
if '--check' in sys.argv:
    sys.exit(0 if path.read_text() == text else f'{path} differs')
path.write_text(text)
