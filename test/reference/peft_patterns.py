"""
What peft's get_pattern_key makes of keys of rank_pattern and alpha_pattern: test/fixtures/peft/patterns.json, for each key the
modules that it matches, or null where Python refuses the key.
"""

import json
import re
import sys

from peft.utils.other import get_pattern_key

from common import FIXTURES

PATHS = [
    'q_proj', 'model.layers.0.self_attn.q_proj', 'model.layers.1.self_attn.v_proj', 'model.layers.10.mlp.up_proj',
    'xlayers.0.q_proj', 'xx', 'model.xx', 'y', 'xy', 'xxy', 'ab', 'm.]b', 'aab', 'aaac', 'model.layers.3.x', 'x{a}', 'lq_proj', 'ä',
    'up_proj', '',
]
KEYS = [
    'q_proj', '.*q_proj', 'layers.0.q_proj', r'model\.layers\.(0|1)\.self_attn\.(q|v)_proj', r'layers\.\d+\.mlp',
    'layers.[0-9]{1,2}.mlp.up_proj', '^model.*up_proj', '^up_proj', '(?:q|k)_proj$', 'a|up_proj', '(.*up)_proj',
    r'.*\.(?!mlp)\w+\.q_proj', '(?i)Q_PROJ', 'x{2}', 'x{,2}y', '[^.]+_proj', '[]a]b', r'[a\]]b', r'\bq_proj', r'\Bq_proj', r'l.*s\.1.*',
    r'layers\.(?P<n>\d)\.x', 'x{a}', 'a{2,1}', '*a', '(a', 'a)', 'a**', 'a*?b', '[b-a]', '[a-c]+', r'\q', r'x\Z', '(?=model).*q_proj', '(?:)',
    '', 'q_proj\n?', 'Ä', r'[\w.]+\.x+', r'\x78{2}', '(x|xx)(y|)', '((a*)*)b', '[^',
]


def matched(key):
    try:
        return [path for path in PATHS if get_pattern_key([key], path) == key and re.match(rf'(.*\.)?({key})$', path)]
    except re.error:
        return None


path = FIXTURES / 'peft/patterns.json'
text = json.dumps({'paths': PATHS, 'keys': {key: matched(key) for key in KEYS}}, indent=1) + '\n'
if '--check' in sys.argv:
    sys.exit(0 if path.read_text() == text else f'{path} differs')
path.write_text(text)
