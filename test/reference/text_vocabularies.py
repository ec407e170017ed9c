"""Tokenizers in the files of before tokenizer.json (vocab.json with merges.txt, vocab.txt), loaded by transformers.

The vocabularies are those of tokenizers.json.gz (text_models.py), with the special tokens of each class put behind.
"""

import gzip
import json
import tempfile
from pathlib import Path

from tokenizers import AddedToken
from transformers import BertTokenizer, CLIPTokenizer, GPT2Tokenizer, Qwen2Tokenizer, RobertaTokenizer

from text_common import FIXTURES, checksum, main
from text_models import SAMPLE

SPECS = {case['name']: case['spec'] for case in json.loads(gzip.decompress((FIXTURES / 'tokenizers.json.gz').read_bytes()))['cases']}
CASES = [
    (GPT2Tokenizer, 'gpt2 untrimmed', ['<|endoftext|>'], {}),
    (GPT2Tokenizer, 'gpt2 untrimmed', ['<|endoftext|>'], {'add_prefix_space': True}),
    (RobertaTokenizer, 'gpt2 untrimmed', ['<s>', '<pad>', '</s>', '<unk>', '<mask>'], {}),
    (Qwen2Tokenizer, 'gpt2 untrimmed', ['<|endoftext|>', '<|im_start|>'], {'additional_special_tokens': ['<|im_start|>']}),
    (CLIPTokenizer, 'clip', [], {}),
    (BertTokenizer, 'bert', [], {}),
    (BertTokenizer, 'bert', [], {'do_lower_case': False}),
]
LINES = SAMPLE[::4] + ['a <mask> b', '<s>x</s>', '<|im_start|>user', '[MASK] the']


def files(name, extra, config):
    model = SPECS[name]['model']
    vocab = dict(model['vocab'])
    for token in [added['content'] for added in SPECS[name]['added_tokens'] if name == 'clip'] + extra:
        vocab.setdefault(token, len(vocab))
    if model['type'] == 'WordPiece':
        made = {'vocab.txt': '\n'.join(sorted(vocab, key=vocab.get)) + '\n'}
    else:
        merges = [m if isinstance(m, str) else ' '.join(m) for m in model['merges']]
        made = {'vocab.json': json.dumps(vocab), 'merges.txt': '#version: 0.2\n' + '\n'.join(merges) + '\n'}
    return {**made, 'tokenizer_config.json': json.dumps(config)}


def vocabularies():
    cases = []
    for cls, name, extra, options in CASES:
        config = {'tokenizer_class': cls.__name__, **options}
        with tempfile.TemporaryDirectory() as directory:
            for file, content in files(name, extra, config).items():
                (Path(directory) / file).write_text(content, encoding='utf-8')
            # transformers 5 has dropped what versions 2 to 4, and the published tokenizer.json, say of RoBERTa's mask.
            mask = {'mask_token': AddedToken('<mask>', lstrip=True)} if cls is RobertaTokenizer else {}
            tokenizer = cls.from_pretrained(directory, **mask)
        encodings = [tokenizer.backend_tokenizer.encode(line) for line in LINES]
        cases.append(
            {
                'spec': name,
                'extra': extra,
                'config': config,
                'ids': [e.ids for e in encodings],
                'sums': [checksum(line, e) for line, e in zip(LINES, encodings)],
                'decoded': [tokenizer.decode(e.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) for e in encodings],
            }
        )
    return gzip.compress(json.dumps({'lines': LINES, 'cases': cases}).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'vocabularies.json.gz': vocabularies})
