"""Files in the form of SPECTRA's published fine-tuning data: every layout, numpy 1 and 2 names, protocols 2 to 5.

`spectra_pickles.py [--check]` writes test/fixtures/data/spectra-pickles.json.gz, the small files that the tests read, each
with what Python reads in it. `spectra_pickles.py --big FILE MEGABYTES` writes one large file of layout A, to measure with.
"""

import pickle
import sys

import numpy as np

from common import generator
from data_pickle import old_names
from data_values import described, main

TASKS = {'mosi': [-3.0, 0.4, 1.5, 0.0], 'iemocap': [0, 5, 2, 2], 'mintrec': [19, 0, 11, 10]}


def wave(name, count, dtype='f4'):
    """Few different numbers, which float16 holds too: the file is packed."""
    return (np.resize(generator(name).randint(-60, 60, 64), count) / 256).astype(dtype)


def ids(name, count):
    return [0, *generator(name).randint(4, 200, count).tolist(), 2]


def plain(task, dtype='f4'):
    """audio, ids, label"""
    return [[wave(f'clip {i}', 90 + 10 * i, dtype), ids(f'ids {i}', 3 + i), label] for i, label in enumerate(TASKS[task])]


def dialog(task, dtype='f4'):
    """What the layouts with history say, in one form: clip, own ids, label, previous clip or None, ids of history."""
    previous = [None, 0, 1, None]
    history = [[], ids('history 1', 4), ids('history 2', 6), []]
    return [(*sample, previous[i], history[i]) for i, sample in enumerate(plain(task, dtype))]


def joined(own, history):
    if not history:
        return own, [1] * len(own)
    return history + own[1:], [0] * len(history) + [1] * (len(own) - 1)


def layout_a(task, dtype='f4'):
    clips = [sample[0] for sample in plain(task, dtype)]
    rows = []
    for clip, own, label, previous, history in dialog(task, dtype):
        text, turns = joined(own, history)
        rows.append([clip, text, label, turns, [] if previous is None else clips[previous]])
    return rows


def readme(task, dtype='f4'):
    clips = [sample[0] for sample in plain(task, dtype)]
    return [
        [clip, own, label, [] if previous is None else clips[previous], history]
        for clip, own, label, previous, history in dialog(task, dtype)
    ]


def layout_b(task, dtype='f4'):
    clips = [sample[0] for sample in plain(task, dtype)]
    rows = [
        [i, own, label, -1 if previous is None else previous, history]
        for i, (_, own, label, previous, history) in enumerate(dialog(task, dtype))
    ]
    return clips, rows


def layout_b_turns(task, dtype='f4'):
    clips, rows = layout_b(task, dtype)
    made = []
    for index, own, label, previous, history in rows:
        text, turns = joined(own, history)
        made.append([index, text, label, turns, previous])
    return clips, made


LAYOUTS = {'A': layout_a, 'A-readme': readme, 'B': layout_b, 'B-turn-ids': layout_b_turns}


def values():
    for layout, build in LAYOUTS.items():
        yield f'{layout}', build('iemocap'), layout, 'iemocap'
    yield 'A of three fields', plain('mosi'), 'A', 'mosi'
    yield 'A of four fields', [row[:4] for row in layout_a('mintrec')], 'A', 'mintrec'
    yield 'tuples', [tuple(row) for row in layout_a('iemocap')], 'A', 'iemocap'
    for dtype in ['f2', 'f8', '>f4']:
        yield f'A of {dtype}', plain('mosi', dtype), 'A', 'mosi'
    yield 'long clips', [[wave(f'long {i}', 17_000, 'f4'), ids(f'ids {i}', 3), 0.5] for i in range(2)], 'A', 'mosi'
    lists = [[sample[0].astype('f8').tolist(), *sample[1:]] for sample in plain('mosi')]
    yield 'clips as lists', lists, 'A', 'mosi'
    scalars = [[clip, np.array(own), np.float32(label)] for clip, own, label in plain('mosi')]
    yield 'numpy ids and labels', scalars, 'A', 'mosi'
    boxed = [[clip[None], own, np.array([label])] for clip, own, label in plain('mosi')]
    yield 'clips of [1, samples], labels of [1]', boxed, 'A', 'mosi'
    even = np.stack([wave(f'even {i}', 50) for i in range(4)])
    yield 'B of one array of clips', [even, layout_b('iemocap')[1]], 'B', 'iemocap'
    nothing = [[clip, text, label, turns, np.zeros(0, 'f4')] for clip, text, label, turns, _ in layout_a('iemocap')]
    yield 'empty arrays of history', nothing, 'A', 'iemocap'


def cases():
    made = []
    for name, value, layout, task in values():
        for protocol in range(2, 6):
            data = pickle.dumps(value, protocol)
            # In one protocol, what is long or differs only in kind.
            if protocol not in (2, 5) and name not in LAYOUTS:
                continue
            facts = {'layout': layout, 'task': task}
            made.append({'name': f'{name}, protocol {protocol}', 'file': data, 'value': described(value), **facts})
            if b'numpy._core.multiarray' in data and len(data) < 10_000:
                older = {'name': f'{name}, protocol {protocol}, numpy 1', 'file': old_names(data), **facts}
                made.append({**older, 'value': described(value)})
    return made


def big(path, megabytes):
    """Clips of 10 s in float32, until the file has its size."""
    base = (generator('big').standard_normal(160_000) * 0.1).astype('f4')
    count = int(megabytes) * 2**20 // base.nbytes
    samples = [[np.roll(base, i), ids(f'big {i}', 40), 0.5] for i in range(count)]
    with open(path, 'wb') as file:
        pickle.dump(samples, file, 4)


def load(name, case, data):
    return pickle.loads(data)


if __name__ == '__main__':
    if sys.argv[1:2] == ['--big']:
        big(*sys.argv[2:4])
    else:
        main({'spectra-pickles': cases}, load)
