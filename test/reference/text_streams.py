"""Texts token by token, as tokenizers' DecodeStream gives them, of random tokens of byte-level and byte-fallback models.

Many tokens are parts of characters, bytes that are no UTF-8, and U+FFFD itself. Where DecodeStream raises (a decoder took
back what had been said), a sequence ends.
"""

import gzip
import json
import random

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from text_common import main

WORDS = ['a', ' b', 'é', '€', '日本', '🦄', '\ufffd', '👩‍🚀', ' ', '\n', 'word', 'Ω≈']


def byte_characters():
    """GPT-2's character of each byte."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in keep]
    table = {byte: chr(byte) for byte in keep}
    table.update({byte: chr(256 + i) for i, byte in enumerate(others)})
    return table


def specs():
    table = byte_characters()
    spelled = lambda data: ''.join(table[byte] for byte in data)
    pieces = {spelled(bytes([byte])): byte for byte in range(256)}
    for word in WORDS:
        data = word.encode()
        # Whole, and cut at every place: tokens that end and begin inside of characters.
        for part in [data, *(data[:i] for i in range(1, len(data))), *(data[i:] for i in range(1, len(data)))]:
            pieces.setdefault(spelled(part), len(pieces))
    pieces.setdefault('<|end|>', len(pieces))
    byte_level = {
        'version': '1.0',
        'added_tokens': [{'id': pieces['<|end|>'], 'content': '<|end|>', 'special': True, 'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False}],
        'normalizer': None,
        'pre_tokenizer': {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True, 'use_regex': True},
        'post_processor': None,
        'decoder': {'type': 'ByteLevel', 'add_prefix_space': True, 'trim_offsets': True, 'use_regex': True},
        'model': {'type': 'BPE', 'vocab': pieces, 'merges': []},
    }
    fallback = {'<unk>': 0, **{f'<0x{byte:02X}>': byte + 1 for byte in range(256)}}
    for word in WORDS:
        for piece in (word.replace(' ', '▁'), '▁' + word.replace(' ', '▁')):
            fallback.setdefault(piece, len(fallback))
    byte_fallback = {
        'version': '1.0',
        'added_tokens': [{'id': 0, 'content': '<unk>', 'special': True, 'single_word': False, 'lstrip': False, 'rstrip': False, 'normalized': False}],
        'normalizer': None,
        'pre_tokenizer': None,
        'post_processor': None,
        'decoder': {
            'type': 'Sequence',
            'decoders': [
                {'type': 'Replace', 'pattern': {'String': '▁'}, 'content': ' '},
                {'type': 'ByteFallback'},
                {'type': 'Fuse'},
                {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0},
            ],
        },
        'model': {'type': 'BPE', 'unk_token': '<unk>', 'byte_fallback': True, 'fuse_unk': True, 'vocab': fallback, 'merges': []},
    }
    return {'byte-level': byte_level, 'byte-fallback': byte_fallback}


def sequences(name, spec, rng):
    vocab = spec['model']['vocab']
    ids = list(vocab.values())
    table = byte_characters()
    for _ in range(300):
        row = []
        length = rng.randrange(1, 40)
        while len(row) < length:
            kind = rng.randrange(4)
            if kind == 0:
                row.append(rng.choice(ids))
            elif kind == 1:
                # The bytes of a character, one by one.
                for byte in rng.choice(WORDS).encode():
                    row.append(vocab[table[byte]] if name == 'byte-level' else byte + 1)
            else:
                row.append(rng.choice(ids[257:]))
        yield row[:length]


def streamed(tokenizer, row, skip):
    stream = DecodeStream(skip_special_tokens=skip)
    texts = []
    for token in row:
        try:
            texts.append(stream.step(tokenizer, token) or '')
        except Exception:
            break
    return texts


def build():
    rng = random.Random(14)
    made = []
    for name, spec in specs().items():
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        cases = []
        for i, row in enumerate(sequences(name, spec, rng)):
            texts = streamed(tokenizer, row, i % 2 == 0)
            cases.append({'ids': row[: len(texts)], 'texts': texts, 'skip': i % 2 == 0})
        made.append({'name': name, 'spec': spec, 'cases': cases})
    return gzip.compress(json.dumps(made, ensure_ascii=False).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'streams.json.gz': build})
