"""Every key of a GGUF header that Python's gguf knows: test/fixtures/files/gguf-keys.json."""

import json
import sys

from gguf.constants import Keys

from common import FIXTURES


def walk(scope):
    for name, value in vars(scope).items():
        if isinstance(value, str) and not name.startswith('_'):
            yield value
        elif isinstance(value, type):
            yield from walk(value)


path = FIXTURES / 'files/gguf-keys.json'
text = json.dumps(sorted(set(walk(Keys))), indent=1) + '\n'
if '--check' in sys.argv:
    sys.exit(0 if path.read_text() == text else f'{path} differs')
path.write_text(text)
