"""JSON, JSON lines, CSV and YAML as Python reads them: writes test/fixtures/data/text.json.

    python test/reference/text_files.py [--check]

A case holds the file's bytes and the value that Python's json and csv modules, or OmegaConf's YAML loader, make of it.
Numbers are written as {"int": "…"} and {"float": "…"}, objects as {"dict": [[key, value], …]}, for JSON would round and
reorder them. The digests of MELD's published tables are taken where VOXTORCH_DATA (default ../shared/data) has them.
"""

import argparse
import base64
import csv
import hashlib
import io
import json
import os
import sys
from pathlib import Path

import yaml
from omegaconf._utils import get_yaml_loader

ROOT = Path(__file__).resolve().parents[2]
PATH = ROOT / 'test/fixtures/data/text.json'
DATA = Path(os.environ.get('VOXTORCH_DATA', ROOT.parent / 'shared/data'))

JSON = {
    'kinds': '{"a": 1, "b": -2.5, "c": "x", "d": true, "e": false, "f": null, "g": [], "h": {}}',
    'numbers': '[0, -0.0, 1e5, 1E-7, 1.7976931348623157e308, 5e-324, 0.1, 123456789.123456789, 1e400, -1e400]',
    'big integers': '[9007199254740991, 9007199254740992, -9007199254740993, 123456789012345678901234567890, 1e20]',
    'NaN': '{"loss": NaN, "best": Infinity, "worst": -Infinity, "text": "NaN"}',
    'strings': r'["\u00e9\ud83d\ude00", "\"\\\/\b\f\n\r\t", "\u0000", "\ud800", "é😀\u2028", "__proto__"]',
    'twice': '{"a": 1, "b": 2, "a": 3}',
    '__proto__': '{"__proto__": {"x": 1}, "constructor": 2, "": 3, "big": 12345678901234567890}',
    'byte order mark': '\ufeff{"a": 1}',
    'blanks': ' \r\n\t[1 ,\n 2 ] \n',
    'scalar': '"alone"',
    'deep': '[' * 100 + ']' * 100,
}

BAD_JSON = [
    '{"a": 1,}', '[1,\n 2,\n]', '{"a" 1}', "{'a': 1}", '[1 2]', '{"a": 1}\n{"b": 2}', '[01]', '[1.]', '[.5]', '[+1]', '[-]',
    '["\\x"]', '["\\u12"]', '["a\tb"]', '"abc', '[', '{', '{"a"', '{"a":', 'nul', 'True', 'undefined', '// c\n1', '[1] x', '[1e]', '',
    '{"a": 1, b: 2}', '[12345678901234567890,]', '[NaN, nan]',
]

JSONL = {
    'plain': '{"a": 1}\n{"a": 2}\n',
    'no end': '1\n2',
    'windows': '\ufeff"a"\r\n"b"\r\n',
    'wide': '{"id": 1234567890123456789}\n{"p": 0.12345678901234567}\n[NaN]\n',
    'separators': '"a\u2028b"\n"c\u0085d"\n',
}

CSV = {
    'plain': ('a,b\n1,2\n3,4\n', {}),
    'no end': ('a,b\n1,2', {}),
    'windows': ('a,b\r\n1,2\r\n', {}),
    'old mac': ('a,b\r1,2\r', {}),
    'mixed endings': ('a,b\r\n1,2\n3,4\r\n', {}),
    'byte order mark': ('\ufeffa,b\n1,2\n', {}),
    'quoted': ('a,b\n"x, y","say ""hi"""\n"",""\n', {}),
    'line breaks': ('a,b\n"one\ntwo\r\nthree",x\n', {}),
    'blank lines': ('a,b\n\n1,2\n\n\n3,4\n\n', {}),
    'spaces': ('a , b\n 1, 2 \n', {}),
    'unicode': ('naïve,😀\n“q”,\u2028\n', {}),
    'names of objects': ('__proto__,constructor,\n1,2,3\n', {}),
    'tabs': ('a\tb\n1,5\t"2\t3"\n', {'delimiter': '\t'}),
    'semicolons': ('a;b\n1,5;2\n', {'delimiter': ';'}),
    'windows-1252': ('a,b\nthey’re,caf\u00e9 – 5 €\n', {'encoding': 'windows-1252'}),
    'UTF-16': ('\ufeffa,b\né😀,2\n', {'utf16': 'utf-16-le'}),
    'UTF-16 big': ('\ufeffa,b\né😀,2\n', {'utf16': 'utf-16-be'}),
    'quotes inside': ('a,b\n5" disk,the "best" one\n', {'relaxQuotes': True}),
}

YAML = {
    'salmonn': 'model:\n  llama_path: "vicuna-13b"\n  lora: True\n  ckpt: ""\nrun:\n  init_lr: 3e-5\n  min_lr: 1e-5\n  weight_decay: 0.05\n'
    '  betas: [0.9, 0.999]\n  amp: yes\n  epoch_based: False\n  output_dir: output/\n',
    'booleans': 'a: yes\nb: No\nc: ON\nd: off\ne: true\nf: FALSE\ng: y\nh: n\ni: "yes"\nj: yEs\nk: [on, "on", Off]',
    'numbers': 'a: 1e-4\nb: 1E5\nc: 1.5e3\nd: 1.\ne: .5\nf: 12e03\ng: -1.5\nh: +3\ni: 0\nj: -0\nk: 1e+5\nl: 6.02E+23\nm: -3e-5\nn: 0.0',
    'other bases': 'a: 010\nb: 0x1F\nc: 0b101\nd: 08\ne: 1_000\nf: -0x10\ng: 0777\nh: 1_0.5_0\ni: 0_7\nj: 09.5',
    'sixties': 'a: 1:30\nb: 12:30:45\nc: 1:30.5\nd: 190:20:30.15\ne: 1:60\nf: -1:30',
    'infinite': 'a: .inf\nb: -.inf\nc: .NaN\nd: +.Inf\ne: inf\nf: nan',
    'big integers': 'a: 9007199254740992\nb: -123456789012345678901234567890\nc: 0xFFFFFFFFFFFFFFFF',
    'nothing': 'a: ~\nb:\nc: null\nd: Null\ne: NULL\nf: "null"\ng: nULL\nh: [~, , ]'.replace(', , ]', ', null]'),
    'texts': 'a: 2024-01-01\nb: 2024-01-01 10:00:00\nc: 1.2.3\nd: 1e\ne: e5\nf: 1__\ng: "1"\nh: \'it\'\'s\'\ni: a b\nj: "\\u00e9\\n"\nk: 12:\nl: -\n'.replace('k: 12:\n', '').replace('l: -\n', 'l: "-"\n'),
    'blocks': 'a: |\n  one\n   two\n\n  three\nb: >\n  folded\n  line\n\n  next\nc: |-\n  strip\nd: >+\n  keep\n\ne: plain\n  goes on\n',
    'anchors': 'base: &base {x: 1, y: [1, 2]}\nsame: *base\nlist: [&n 5, *n]\n',
    'merge': 'base: &base {x: 1, y: 2}\nmore: &more {y: 3, z: 4}\none: {<<: *base, y: 9}\ntwo: {w: 0, <<: [*base, *more]}\n',
    'nested': '- a: 1\n  b:\n  - 2\n  - - 3\n    - 4\n-\n  c: {d: [e, {f: g}]}\n',
    'tags': 'a: !!str 5\nb: !!int "7"\nc: !!float 3\nd: !!str yes\n',
    'keys': '__proto__: 1\nconstructor: {prototype: 2}\n"quoted key": 3\na b: 4\n',
    'comments': '# head\na: 1 # end\nb: "x # y"\n---\n'.replace('---\n', ''),
    'start': '%YAML 1.1\n---\na: 1\n...\n',
    'empty': '',
    'only a comment': '# nothing\n',
    'scalar': 'alone',
    'json': '{"a": [1, 2.5, "x", null, true]}',
    'byte order mark': '\ufeffa: 1\n',
    'windows': 'a: 1\r\nb: |\r\n  x\r\n  y\r\n',
}


def tagged(value):
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return {'int': str(value)}
    if isinstance(value, float):
        return {'float': repr(value)}
    if isinstance(value, list):
        return [tagged(item) for item in value]
    assert all(isinstance(key, str) for key in value), value
    return {'dict': [[key, tagged(item)] for key, item in value.items()]}


def case(kind, name, data, value, **more):
    return {'kind': kind, 'name': name, 'bytes': base64.b64encode(data).decode(), 'value': tagged(value), **more}


def cases():
    for name, text in JSON.items():
        data = text.encode()
        yield case('json', name, data, json.loads(data.decode('utf-8-sig')))
    for text in BAD_JSON:
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            yield {'kind': 'bad json', 'name': text, 'line': error.lineno, 'column': error.colno}
        else:
            raise AssertionError(text)
    for name, text in JSONL.items():
        data = text.encode()
        rows = [json.loads(line) for line in data.decode('utf-8-sig').split('\n') if line]
        yield case('jsonl', name, data, rows)
    for name, (text, options) in CSV.items():
        options = dict(options)
        encoding = options.pop('utf16', {'windows-1252': 'cp1252'}.get(options.get('encoding'), 'utf-8'))
        data = text.encode(encoding)
        source = io.StringIO(data.decode(encoding).removeprefix('\ufeff'), newline='')
        rows = list(csv.DictReader(source, delimiter=options.get('delimiter', ',')))
        yield case('csv', name, data, rows, options=options)
    for name, text in YAML.items():
        data = text.encode()
        yield case('yaml', name, data, yaml.load(text.removeprefix('\ufeff'), Loader=get_yaml_loader()))


def meld():
    for split in ('train', 'dev', 'test'):
        with open(DATA / f'meld/{split}_sent_emo.csv', encoding='utf-8-sig', newline='') as file:
            rows = list(csv.reader(file))
        text = json.dumps(rows, ensure_ascii=False, separators=(',', ':'))
        yield {'split': split, 'rows': len(rows) - 1, 'sha256': hashlib.sha256(text.encode()).hexdigest()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='regenerate and compare, write nothing')
    check = parser.parse_args().check
    stored = json.loads(PATH.read_text()) if PATH.exists() else {}
    present = (DATA / 'meld').is_dir()
    made = {'cases': list(cases()), 'meld': list(meld()) if present else stored['meld']}
    if not present:
        print(f'{DATA} has no MELD: its digests stay as they are')
    if check:
        same = made == stored
        print(f'data/text: {"ok" if same else "DIFFERS"} ({len(made["cases"])} cases)')
        sys.exit(0 if same else 1)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(made, indent=1) + '\n')
    print(f'data/text: {len(made["cases"])} cases, {PATH.stat().st_size:,} bytes')


main()
