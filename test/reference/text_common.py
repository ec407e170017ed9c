"""Shared by the text fixture scripts: where the tokenizers are, and one compact file per tokenizer.

A file `<name>.ids.gz` holds, little-endian: the number of lines n; n counts of ids; all ids; n checksums. A checksum is
the CRC-32 of the text `start,end,word;` of every token of the line, with offsets in UTF-16 units and -1 for "no word";
0 where the reference has none. The four columns are stored byte by byte of significance, which gzip likes better.
"""

import gzip
import os
import sys
import zlib
from array import array
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / 'test/fixtures/text'
MODULES = ROOT / 'node_modules'
DATA = Path(os.environ.get('VOXTORCH_DATA', ROOT.parent / 'shared/data'))


def pack(numbers):
    raw = array('I', numbers).tobytes()
    if sys.byteorder != 'little':
        raise SystemExit('run this on a little-endian machine')
    return b''.join(raw[i::4] for i in range(4))


def packed(rows, checksums=None):
    """`rows`: the ids of each line."""
    counts = [len(row) for row in rows]
    body = pack([len(rows)]) + pack(counts) + pack([i for row in rows for i in row]) + pack(checksums or [0] * len(rows))
    return gzip.compress(body, 9, mtime=0)


def checksum(text, encoding):
    """Of a `tokenizers.Encoding`; Python's offsets are in code points."""
    units = [0]
    for letter in text:
        units.append(units[-1] + (2 if ord(letter) > 0xFFFF else 1))
    parts = []
    for (start, end), word in zip(encoding.offsets, encoding.word_ids):
        parts.append(f'{units[start]},{units[end]},{-1 if word is None else word};')
    return zlib.crc32(''.join(parts).encode())


def unpacked(data):
    """What identifies a file: gzip's bytes may differ between versions of zlib."""
    return gzip.decompress(data)


def main(builders):
    """`builders`: file name -> function that returns bytes, or None where its source is missing."""
    check = '--check' in sys.argv
    names = [name for name in sys.argv[1:] if not name.startswith('--')]
    failed = False
    for name, build in builders.items():
        if names and name not in names:
            continue
        path = FIXTURES / name
        data = build()
        if data is None:
            print(f'{name}: skipped, its tokenizer is not here')
        elif check:
            stored = path.read_bytes()
            same = unpacked(stored) == unpacked(data) if name.endswith('.gz') else stored == data
            failed |= not same
            print(f'{name}: {"ok" if same else "DIFFERS"}')
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(f'{name}: {len(data):,} bytes')
    sys.exit(1 if failed else 0)
