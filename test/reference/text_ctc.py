"""transformers' Wav2Vec2CTCTokenizer: ctc.json.gz in test/fixtures/text. Vocabularies and settings, the ids of texts, and
the texts and offsets of frames."""

import gzip
import json
import tempfile
from pathlib import Path

from transformers import Wav2Vec2CTCTokenizer

from common import randint
from text_common import main

LETTERS = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"
ENGLISH = {token: i for i, token in enumerate(['<pad>', '<s>', '</s>', '<unk>', *LETTERS])}
PLAIN = {token: i for i, token in enumerate([*'abcdehlor', '|', '[UNK]', '[PAD]', 'ch', 'é', '日'])}
NESTED = {
    'eng': {'<pad>': 0, '|': 4, 'a': 5, 'b': 6, 'c': 7, '<unk>': 3, '<s>': 1, '</s>': 2},
    'deu': {'<pad>': 0, '|': 4, 'ä': 5, 'b': 6, 'sch': 7, 'ß': 8, '<unk>': 3, '<s>': 1, '</s>': 2},
}
CASES = [
    dict(name='english', vocab=ENGLISH, config={}),
    dict(name='lower', vocab=ENGLISH, config=dict(do_lower_case=True)),
    dict(name='own', vocab=PLAIN, config=dict(unk_token='[UNK]', pad_token='[PAD]', bos_token='<s>', eos_token='</s>')),
    dict(name='delimiter', vocab=PLAIN, config=dict(unk_token='[UNK]', pad_token='[PAD]', replace_word_delimiter_char='_')),
    dict(name='english-of-two', vocab=NESTED, config=dict(target_lang='eng')),
    dict(name='german-of-two', vocab=NESTED, config=dict(target_lang='deu')),
]
TEXTS = [
    'HELLO WORLD',
    'hello world',
    ' A  B ',
    '',
    "IT'S <unk> FINE</s>",
    'chocolate ch ch. rch',
    'schöß ab sch b',
    'a<pad>b <s>c',
    '日é😀',
]


def frames(name, size):
    """Runs of equal tokens, with blanks and ids that there are none of."""
    rows = []
    for row in range(12):
        ids = randint(f'{name}/{row}/ids', 0, size + 1, 14).tolist()
        runs = randint(f'{name}/{row}/runs', 0, 4, 14).tolist()
        rows.append([i for i, run in zip(ids, runs) for _ in range(run)])
    return rows + [[], [0] * 5]


def case(name, vocab, config):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'vocab.json'
        path.write_text(json.dumps(vocab))
        tokenizer = Wav2Vec2CTCTokenizer(str(path), **config)
        tokenizer.save_pretrained(directory)
        files = {f: (Path(directory) / f).read_text() for f in ('vocab.json', 'tokenizer_config.json')}
    decoded = []
    for ids in frames(name, len(tokenizer)):
        whole = tokenizer.decode(ids, output_char_offsets=True, output_word_offsets=True, clean_up_tokenization_spaces=False)
        plain = tokenizer.decode(ids, group_tokens=False, clean_up_tokenization_spaces=False)
        offsets = lambda key, part: [[o[part], int(o['start_offset']), int(o['end_offset'])] for o in whole[key]]
        decoded.append(dict(ids=ids, text=whole['text'], labels=plain, chars=offsets('char_offsets', 'char'), words=offsets('word_offsets', 'word')))
    encoded = []
    for text in TEXTS:
        encoded.append(dict(text=text, ids=tokenizer(text)['input_ids']))
    return dict(name=name, files=files, size=len(tokenizer), encoded=encoded, decoded=decoded)


def build():
    return gzip.compress(json.dumps([case(**one) for one in CASES]).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'ctc.json.gz': build})
