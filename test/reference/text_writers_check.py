"""Has writeJson and writeJsonl write files and reads them with Python's json.

    python test/reference/text_writers_check.py [MODULE]     MODULE exports writeJson, writeJsonl; default dist/index.js

Prints (Python 3.11):
    writeJson, 4 indents: ok
    writeJsonl, 1000 lines: ok
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WRITE = """
const { writeJson, writeJsonl } = await import(process.argv[1])
const value = {
  text: 'é😀\\u2028"\\\\\\n\\u0000', lone: '\\ud800', big: -(2n ** 70n), safe: 2 ** 53 - 1, small: 5e-324, large: 1e308, half: 0.5, zero: -0,
  list: [true, false, null, [], {}], '': 1,
}
for (const indent of [0, 1, 2, 4]) await writeJson(`${process.argv[2]}/${indent}.json`, value, { indent })
await writeJsonl(`${process.argv[2]}/rows.jsonl`, Array.from({ length: 1000 }, (_, i) => ({ i, ...value })))
"""
VALUE = {
    'text': 'é😀\u2028"\\\n\0', 'lone': '\ud800', 'big': -(2**70), 'safe': 2**53 - 1, 'small': 5e-324, 'large': 1e308, 'half': 0.5,
    'zero': -0.0, 'list': [True, False, None, [], {}], '': 1,
}


def main():
    module = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT / 'dist/index.js'
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(['node', '--input-type=module', '-e', WRITE, '--', module.as_uri(), folder], check=True)
        for indent in (0, 1, 2, 4):
            text = (Path(folder) / f'{indent}.json').read_text('utf-8')
            # repr tells -0.0 from 0 and 1 from 1.0.
            assert repr(json.loads(text)) == repr(VALUE), text
        print('writeJson, 4 indents: ok')
        lines = (Path(folder) / 'rows.jsonl').read_text('utf-8').split('\n')
        assert lines.pop() == ''
        assert [repr(json.loads(line)) for line in lines] == [repr({'i': i, **VALUE}) for i in range(1000)]
        print('writeJsonl, 1000 lines: ok')


main()
