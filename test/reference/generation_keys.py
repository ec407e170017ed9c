"""Every key of transformers' GenerationConfig: test/fixtures/models/generation-keys.json."""

import json
import sys

from transformers import GenerationConfig

from common import FIXTURES

path = FIXTURES / 'models/generation-keys.json'
keys = sorted(key for key in vars(GenerationConfig()) if not key.startswith('_original'))
text = json.dumps(keys, indent=1) + '\n'
if '--check' in sys.argv:
    sys.exit(0 if path.read_text() == text else f'{path} differs')
path.write_text(text)
