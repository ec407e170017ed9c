"""Has SummaryWriter write an events file and reads it with TensorBoard's own reader.

    python test/reference/train_tensorboard_check.py [MODULE]     MODULE exports SummaryWriter; default dist/index.js

Prints (tensorboard 2.21.0):
    file version, 3 scalars, 1 text, 2 histograms: ok
"""

import math
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

from tensorboard.backend.event_processing import event_accumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

ROOT = Path(__file__).resolve().parents[2]
WRITE = """
const { SummaryWriter } = await import(process.argv[1])
const writer = new SummaryWriter(process.argv[2])
writer.addScalar('train/loss', 0.25, 0)
writer.addScalar('train/loss', -1e-7, 2 ** 40)
writer.addScalar('größe', NaN, 7)
writer.addText('note', 'line one\\n\\n**line zwei** ✓', 3)
const values = Array.from({ length: 1000 }, (_, i) => Math.sin(i) * 10 ** (i % 5 - 2))
writer.addHistogram('weights', values, 4)
writer.addHistogram('zeros', new Float32Array(10), 4)
writer.close()
"""


def float32(value):
    return struct.unpack('f', struct.pack('f', value))[0]


def main():
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run(['node', '--input-type=module', '-e', WRITE, '--', module.as_uri(), directory], check=True)
        (path,) = Path(directory).iterdir()
        first = next(EventFileLoader(str(path)).Load())
        assert first.file_version == 'brain.Event:2', first
        reader = event_accumulator.EventAccumulator(directory, size_guidance={'histograms': 0})
        reader.Reload()
    loss = [(point.step, point.value) for point in reader.Scalars('train/loss')]
    assert loss == [(0, 0.25), (2**40, float32(-1e-7))], loss
    (point,) = reader.Scalars('größe')
    assert point.step == 7 and math.isnan(point.value), point
    (text,) = reader.Tensors('note')
    assert text.tensor_proto.string_val[0].decode() == 'line one\n\n**line zwei** ✓', text
    assert reader.PluginTagToContent('text') == {'note': b''}
    (histogram,) = (event.histogram_value for event in reader.Histograms('weights'))
    values = [math.sin(i) * 10.0 ** (i % 5 - 2) for i in range(1000)]
    assert histogram.num == 1000 and histogram.min == min(values) and histogram.max == max(values)
    assert math.isclose(histogram.sum, sum(values), abs_tol=1e-9)
    assert math.isclose(histogram.sum_squares, sum(v * v for v in values), rel_tol=1e-12)
    lower = -math.inf
    for limit, count in zip(histogram.bucket_limit, histogram.bucket):
        assert limit > lower
        assert count == sum(lower <= v < limit for v in values), (lower, limit, count)
        lower = limit
    (zeros,) = (event.histogram_value for event in reader.Histograms('zeros'))
    assert sum(zeros.bucket) == 10
    print('file version, 3 scalars, 1 text, 2 histograms: ok')


if __name__ == '__main__':
    main()
