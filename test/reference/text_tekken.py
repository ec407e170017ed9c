"""Ids by mistral_common of a small tekken.json, whose vocabulary is made here: test/fixtures/text/tekken.json.gz; and of the published
vocabulary, for those who have it: tekken.ids.gz. In an environment of its own with `mistral_common` and its dependencies.
"""

import base64
import gzip
import json
import tempfile
from collections import Counter
from importlib.util import find_spec
from pathlib import Path

import regex
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

from text_common import main, packed
from text_lines import lines

LINES = lines()
PATTERN = (
    r'[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+'
    r'|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*'
    r'|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+'
)
MERGES, SPECIAL = 600, 30
# Equal tokens of other parts, of which the leftmost merge first, and one that no merge makes.
MORE = [b'ab', b'ba', b'aba', b'ababa', b'zqzqzq']
TEXTS = ['', 'ababa', 'ababab', 'aabababaab', 'zqzqzq', ' zqzqzq', 'Hello, world! Grüße \U0001f600\n\n', 'a' * 60 + 'ab' * 60, '\x00\x1f \u2028']


def vocabulary():
    """The most frequent pair again and again, as byte-pair encoding is trained."""
    words = Counter(word for line in LINES for word in regex.findall(PATTERN, line))
    spelled = [([bytes([byte]) for byte in word.encode('utf-8', 'replace')], count) for word, count in words.items()]
    tokens = [bytes([byte]) for byte in range(256)] + MORE
    while len(tokens) < 256 + MERGES:
        pairs = Counter()
        for symbols, count in spelled:
            for pair in zip(symbols, symbols[1:]):
                pairs[pair] += count
        [(left, right), _] = min(pairs.items(), key=lambda item: (-item[1], item[0]))
        for symbols, _ in spelled:
            i = 0
            while i + 1 < len(symbols):
                if symbols[i] == left and symbols[i + 1] == right:
                    symbols[i : i + 2] = [left + right]
                i += 1
        if left + right not in tokens:
            tokens.append(left + right)
    return tokens


def text_of(token):
    try:
        return token.decode()
    except UnicodeDecodeError:
        return None


def small(**more):
    vocab = [
        {'rank': rank, 'token_bytes': base64.b64encode(token).decode(), 'token_str': text_of(token)}
        for rank, token in enumerate(vocabulary())
    ]
    config = dict(
        pattern=PATTERN,
        num_vocab_tokens=len(vocab),
        default_vocab_size=len(vocab) + SPECIAL - 20,
        default_num_special_tokens=SPECIAL,
        version='v3',
    )
    return {'config': config, 'vocab': vocab, **more}


def listed():
    """As newer files have them."""
    names = ['<unk>', '<s>', '</s>', '[INST]', '[/INST]', '[AUDIO]', '<pad>', '[TRANSCRIBE]']
    content = small(special_tokens=[{'rank': i, 'token_str': name, 'is_control': True} for i, name in enumerate(names)], type='Tekken', version=1)
    content['config']['version'] = 'v11'
    return content


def made():
    cases = []
    for name, content in [('earlier', small()), ('listed', listed())]:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'tekken.json'
            path.write_text(json.dumps(content))
            tokenizer = Tekkenizer.from_file(path)
        texts = [*TEXTS, *LINES[::8]]
        ids = [tokenizer.encode(text, bos=False, eos=False) for text in texts]
        special = [tokenizer.id_to_piece(i) for i in range(tokenizer.num_special_tokens)]
        decoded = [tokenizer.decode(row) for row in ids]
        named = dict(bos=tokenizer.bos_id, eos=tokenizer.eos_id, pad=tokenizer.pad_id, unk=tokenizer.unk_id)
        case = dict(name=name, size=tokenizer.n_words, special=special, named=named, texts=texts, ids=ids, decoded=decoded)
        cases.append(case if name == 'listed' else {**case, 'file': content})
        if name == 'listed':
            case['changes'] = {key: value for key, value in content.items() if key != 'vocab'}
    return gzip.compress(json.dumps(cases).encode(), 9, mtime=0)


def published():
    path = Path(find_spec('mistral_common').origin).parent / 'data/tekken_240911.json'
    tokenizer = Tekkenizer.from_file(path)
    return packed([tokenizer.encode(line, bos=False, eos=False) for line in LINES])


main({'tekken.json.gz': made, 'tekken.ids.gz': published})
