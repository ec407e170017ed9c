"""Parquet files that pyarrow wrote, with the rows as pyarrow reads them: test/fixtures/data/parquet.json.gz.

Values are JSON, and {"bigint"}, {"bytes": base64}, {"date": milliseconds} and {"float"} for the rest.
"""

import argparse
import base64
import datetime
import decimal
import gzip
import io
import json
import math
import random
import sys
import uuid
import wave
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FIXTURE = Path(__file__).resolve().parent.parent / 'fixtures' / 'data' / 'parquet.json.gz'

EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)
UTC = datetime.timezone.utc


def plain(value):
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2**53 else {'bigint': str(value)}
    if isinstance(value, float):
        return value if math.isfinite(value) else {'float': repr(value)}
    if isinstance(value, bytes):
        return {'bytes': base64.b64encode(value).decode()}
    if isinstance(value, decimal.Decimal):
        return format(value, 'f')
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, datetime.datetime):
        moment = value if value.tzinfo else value.replace(tzinfo=UTC)
        return {'date': (moment - EPOCH) // datetime.timedelta(milliseconds=1)}
    if isinstance(value, datetime.date):
        return {'date': (value - datetime.date(1970, 1, 1)).days * 86_400_000}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    raise TypeError(type(value))


def records(count, seed):
    """Rows with everything that a dataset of conversations has: nulls at each level, empty lists, shared and single strings."""
    rng = random.Random(seed)

    def some(value):
        return None if rng.random() < 0.2 else value

    def text():
        return ''.join(rng.choice('abc déß漢😀\n') for _ in range(rng.randint(0, 12)))

    def message():
        tags = some([some(text()) for _ in range(rng.randint(0, 3))])
        return {'role': rng.choice(['user', 'assistant']), 'content': some(text()), 'tags': tags}

    def audio():
        return {'bytes': some(rng.randbytes(rng.randint(0, 20))), 'path': some(text())}

    def numbers():
        return [rng.randint(0, 9) for _ in range(rng.randint(0, 3))]

    return [
        {
            'id': i,
            'speaker': some(rng.choice(['ann', 'bob', 'cid'])),
            'score': some(rng.uniform(-1, 1)),
            'good': some(rng.random() < 0.5),
            'audio': some(audio()),
            'messages': some([some(message()) for _ in range(rng.randint(0, 4))]),
            'tokens': some([some(numbers()) for _ in range(rng.randint(0, 3))]),
            'scores': some([('k%d' % j, some(j)) for j in range(rng.randint(0, 3))]),
        }
        for i in range(count)
    ]


MESSAGE = pa.struct(
    [pa.field('role', pa.string(), nullable=False), ('content', pa.string()), ('tags', pa.list_(pa.string()))]
)
SCHEMA = pa.schema(
    [
        pa.field('id', pa.int64(), nullable=False),
        ('speaker', pa.string()),
        ('score', pa.float64()),
        ('good', pa.bool_()),
        ('audio', pa.struct([('bytes', pa.binary()), ('path', pa.string())])),
        ('messages', pa.list_(MESSAGE)),
        ('tokens', pa.list_(pa.list_(pa.int32()))),
        ('scores', pa.map_(pa.string(), pa.int32())),
    ]
)


def case(name, table, **options):
    file = io.BytesIO()
    pq.write_table(table, file, **options)
    read = pq.ParquetFile(file)
    return {
        'name': name,
        'file': base64.b64encode(file.getvalue()).decode(),
        'groups': [read.metadata.row_group(i).num_rows for i in range(read.num_row_groups)],
        'rows': [plain(row) for row in read.read().to_pylist()],
    }


def wav(number):
    """A clip of 16 samples at 8 kHz, all of them `number`."""
    file = io.BytesIO()
    with wave.open(file, 'wb') as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(8000)
        out.writeframes(number.to_bytes(2, 'little', signed=True) * 16)
    return file.getvalue()


def shards():
    """A dataset of four files as Python's datasets writes them, with audio."""
    features = {'id': {'dtype': 'int64', '_type': 'Value'}, 'audio': {'sampling_rate': 8000, '_type': 'Audio'}}
    metadata = {'huggingface': json.dumps({'info': {'features': features}})}
    audio = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    schema = pa.schema([('id', pa.int64()), ('audio', audio)], metadata=metadata)
    for shard in range(4):
        rows = [
            {'id': i, 'audio': {'bytes': wav(i), 'path': f'{i}.wav'} if i % 7 else None}
            for i in range(25 * shard, 25 * shard + 25)
        ]
        table = pa.Table.from_pylist(rows, schema)
        yield case(f'train-{shard:05}-of-00004.parquet', table, row_group_size=10, compression='zstd')


def types():
    big = 2**62
    moments = [datetime.datetime(2024, 2, 29, 12, 30, 15, 123456), datetime.datetime(1901, 1, 1, 0, 0, 0, 999), None]
    days = [datetime.date(2024, 2, 29), datetime.date(1901, 12, 31), None]
    return pa.table(
        {
            'int8': pa.array([-128, 127, None], pa.int8()),
            'uint8': pa.array([0, 255, None], pa.uint8()),
            'uint32': pa.array([0, 2**32 - 1, None], pa.uint32()),
            'int64': pa.array([-big, 2**53 - 1, None], pa.int64()),
            'uint64': pa.array([2**64 - 1, 1, None], pa.uint64()),
            'half': pa.array([0.5, -65504, None], pa.float16()),
            'float': pa.array([0.1, math.inf, None], pa.float32()),
            'double': pa.array([math.nan, -0.25, None], pa.float64()),
            'text': pa.array(['\ufeffmark', 'a\0b', None], pa.string()),
            'large': pa.array(['x', '', None], pa.large_string()),
            'binary': pa.array([b'\0\xff', b'', None], pa.binary()),
            'fixed': pa.array([b'ab', b'cd', None], pa.binary(2)),
            'date': pa.array(days, pa.date32()),
            'ms': pa.array(moments, pa.timestamp('us')).cast(pa.timestamp('ms'), safe=False),
            'us': pa.array(moments, pa.timestamp('us', tz='UTC')),
            'ns': pa.array(moments, pa.timestamp('us')).cast(pa.timestamp('ns')),
            'decimal': pa.array([decimal.Decimal('-12.340'), decimal.Decimal('0.005'), None], pa.decimal128(12, 3)),
            'large_decimal': pa.array([decimal.Decimal('-1' + '0' * 30 + '.5'), decimal.Decimal('7'), None], pa.decimal128(38, 2)),
            'class': pa.array(['one', 'two', None]).dictionary_encode(),
            'nothing': pa.nulls(3),
            'list': pa.array([[1.5, None], [], None], pa.list_(pa.float32())),
            'pair': pa.array([[1, 2], [3, 4], None], pa.list_(pa.int16(), 2)),
        }
    )


def cases():
    table = pa.Table.from_pylist(records(60, 1), SCHEMA)
    small = dict(row_group_size=25, data_page_size=256, write_batch_size=8)
    for codec in ['none', 'snappy', 'gzip', 'zstd', 'brotli', 'lz4']:
        for version in ['1.0', '2.0']:
            yield case(f'{codec}, pages {version}', table, compression=codec, data_page_version=version, **small)
    yield case('plain', table, use_dictionary=False, **small)
    yield case('a dictionary that becomes too large', table, dictionary_pagesize_limit=64, **small)
    yield case('one row group, one page', table)
    yield case('types', types())
    yield case('types as Spark wrote them', pa.table({'moment': types()['us']}), use_deprecated_int96_timestamps=True)
    yield case('no rows', table.slice(0, 0))
    yield from shards()
    numbers = pa.table(
        {
            'delta': pa.array([(i * 7919) % 1000 - 500 if i % 5 else None for i in range(400)], pa.int32()),
            'delta64': pa.array([(i * 2**40) * (-1) ** i for i in range(400)], pa.int64()),
            'lengths': pa.array(['x' * (i % 7) for i in range(400)]),
            'prefixes': pa.array(['file-%05d.wav' % (i // 3) for i in range(400)]),
            'split': pa.array([i / 3 for i in range(400)], pa.float32()),
            'flags': pa.array([i % 3 == 0 for i in range(400)]),
        }
    )
    encodings = {
        'delta': 'DELTA_BINARY_PACKED',
        'delta64': 'DELTA_BINARY_PACKED',
        'lengths': 'DELTA_LENGTH_BYTE_ARRAY',
        'prefixes': 'DELTA_BYTE_ARRAY',
        'split': 'BYTE_STREAM_SPLIT',
        'flags': 'RLE',
    }
    for version in ['1.0', '2.0']:
        yield case(
            f'other encodings, pages {version}',
            numbers,
            use_dictionary=False,
            column_encoding=encodings,
            data_page_version=version,
            data_page_size=512,
            write_batch_size=50,
        )



def main():
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='regenerate and compare, write nothing')
    check = parser.parse_args().check
    text = '[\n' + ',\n'.join(json.dumps(one) for one in cases()) + '\n]\n'
    if check:
        same = gzip.decompress(FIXTURE.read_bytes()).decode() == text
        print(f'{FIXTURE.name}: {"ok" if same else "DIFFERS"}')
        sys.exit(0 if same else 1)
    FIXTURE.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    print(f'{FIXTURE.name}: {FIXTURE.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
