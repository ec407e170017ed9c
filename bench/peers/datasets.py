"""Write 100,000 conversations without audio: FOLDER/groups.parquet in row groups of 1,000, FOLDER/one.parquet in a single one."""

import random
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 100_000
words = [''.join(random.Random(i).choices('abcdefghijklmnopqrstuvwxyz', k=3 + i % 7)) for i in range(5000)]
rng = random.Random(0)


def text(length):
    return ' '.join(rng.choices(words, k=length))


message = pa.struct([('role', pa.string()), ('content', pa.string())])
table = pa.table(
    {
        'id': pa.array(range(ROWS), pa.int64()),
        'score': pa.array((rng.random() for _ in range(ROWS)), pa.float64()),
        'text': pa.array((text(40) for _ in range(ROWS)), pa.string()),
        'messages': pa.array(
            (
                [{'role': 'user', 'content': text(20)}, {'role': 'assistant', 'content': text(25)}]
                for _ in range(ROWS)
            ),
            pa.list_(message),
        ),
    }
)
folder = Path(sys.argv[1])
pq.write_table(table, folder / 'groups.parquet', row_group_size=1000)
pq.write_table(table, folder / 'one.parquet', row_group_size=ROWS)
