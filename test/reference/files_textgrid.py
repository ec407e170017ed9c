"""TextGrids in both forms and three encodings, and what the reader of PyPI's textgrid makes of them:
test/fixtures/files/textgrid.safetensors, whose tensors hold the files.

That reader needs a line for each value, and leaves quotes in names of tiers doubled, so the files have none there.
"""

import tempfile

import torch
from textgrid import PointTier, TextGrid

from common import Fixture, main, rand

WORDS = ['', 'i', "don't", 'say "no"', 'naïve', 'über', 'in\ntwo lines', 'a!b', '1', '= 3']


def tiers(name, counts):
    """Interval tiers without gaps, a pause now and then."""
    for t, count in enumerate(counts):
        times = [0.0, *sorted(round(float(x) * 9.8 + 0.1, 3) for x in rand(f'{name}/{t}', count - 1)), 10.0]
        marks = [WORDS[int(x * len(WORDS))] for x in rand(f'{name}/{t}/marks', count)]
        yield ('words', 'phones', 'tones')[t], list(zip(times, times[1:], marks))


def quoted(text):
    return '"' + text.replace('"', '""') + '"'


def long_form(grid, points):
    yield 'File type = "ooTextFile"\nObject class = "TextGrid"\n\nxmin = 0 \nxmax = 10 \ntiers? <exists> \n'
    yield f'size = {len(grid) + bool(points)} \nitem []: \n'
    for t, (name, intervals) in enumerate(grid):
        yield f'    item [{t + 1}]:\n        class = "IntervalTier" \n        name = {quoted(name)} \n'
        yield f'        xmin = 0 \n        xmax = 10 \n        intervals: size = {len(intervals)} \n'
        for i, (start, end, mark) in enumerate(intervals):
            yield f'        intervals [{i + 1}]:\n            xmin = {start} \n            xmax = {end} \n'
            yield f'            text = {quoted(mark)} \n'
    if points:
        yield f'    item [{len(grid) + 1}]:\n        class = "TextTier" \n        name = "moments" \n'
        yield f'        xmin = 0 \n        xmax = 10 \n        points: size = {len(points)} \n'
        for i, (time, mark) in enumerate(points):
            yield f'        points [{i + 1}]:\n            number = {time} \n            mark = {quoted(mark)} \n'


def short_form(grid, points):
    yield f'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n10\n<exists>\n{len(grid)}\n'
    for name, intervals in grid:
        yield f'"IntervalTier"\n{quoted(name)}\n0\n10\n{len(intervals)}\n'
        for start, end, mark in intervals:
            yield f'{start}\n{end}\n{quoted(mark)}\n'


CASES = [
    dict(name='long', form=long_form, counts=[12, 30], points=[(0.5, 'tick'), (9.75, 'say "no"')]),
    dict(name='long-utf-16', form=long_form, counts=[8, 3, 5], encoding='utf-16'),
    dict(name='long-utf-16-be', form=long_form, counts=[4], encoding='utf-16-be', mark=b'\xfe\xff'),
    dict(name='long-utf-8-mark', form=long_form, counts=[4], encoding='utf-8-sig'),
    dict(name='short', form=short_form, counts=[12, 30]),
    dict(name='short-utf-16', form=short_form, counts=[5], encoding='utf-16'),
    dict(name='crlf', form=long_form, counts=[6], line='\r\n'),
    dict(name='one', form=long_form, counts=[1]),
]


def read(data):
    with tempfile.NamedTemporaryFile(suffix='.TextGrid') as file:
        file.write(data)
        file.flush()
        grid = TextGrid.fromFile(file.name)
    for tier in grid:
        if isinstance(tier, PointTier):
            yield dict(kind='point', name=tier.name, points=[[p.time, p.mark] for p in tier])
        else:
            yield dict(kind='interval', name=tier.name, intervals=[[i.minTime, i.maxTime, i.mark] for i in tier])


def textgrids():
    fixture = Fixture()
    for case in CASES:
        text = ''.join(case['form'](list(tiers(case['name'], case['counts'])), case.get('points', [])))
        if 'line' in case:
            text = text.replace('in\ntwo', 'in two').replace('\n', case['line'])
        data = case.get('mark', b'') + text.encode(case.get('encoding', 'utf-8'))
        fixture.case(
            dict(name=case['name'], tiers=list(read(data))),
            **{'in': dict(file=torch.tensor(list(data), dtype=torch.uint8))},
        )
    return fixture


if __name__ == '__main__':
    main({'files/textgrid': textgrids})
