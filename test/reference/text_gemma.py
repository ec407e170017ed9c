"""Ids of a tokenizer with the settings of Gemma's, by transformers and by sentencepiece: test/fixtures/text/gemma.json.gz.

Gemma's own vocabulary has terms of use; this one is trained here: BPE without a dummy prefix, with bytes for unknown characters,
digits apart, and runs of white space and tags as symbols of their own.
"""

import base64
import gzip
import io
import json
import tempfile
from pathlib import Path

import sentencepiece
from transformers import GemmaTokenizer

from text_common import main
from text_lines import lines

LINES = lines()
RUNS = ['\n' * n for n in range(1, 5)] + ['\t' * n for n in range(1, 4)] + ['\u2581' * n for n in range(2, 6)]
SYMBOLS = ['<mask>', '<start_of_turn>', '<end_of_turn>', '<unused0>', *RUNS, '<table>', '</td>']
TEXTS = [
    *['', ' ', '   ', 'a', ' a', 'a ', '  two  spaces', '\n\n\nthree\n', '\t\ttabs\t', '2024 and 12', '<table>x</td>'],
    *['<start_of_turn>user\nHi<end_of_turn>\n', 'a<mask>b', '\u2581x', '\u00e9\u4e2d\U0001f600\u0000', '<0x41>', '<bos>x<eos>'],
]


def model():
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(line for line in LINES if len(line.encode()) < 4000),
        model_writer=made,
        model_type='bpe',
        vocab_size=1400,
        character_coverage=0.985,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        pad_piece='<pad>',
        eos_piece='<eos>',
        bos_piece='<bos>',
        byte_fallback=True,
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        normalization_rule_name='identity',
        split_digits=True,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=SYMBOLS,
        num_threads=1,
        minloglevel=2,
    )
    return made.getvalue()


def gemma():
    data = model()
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / 'tokenizer.model').write_bytes(data)
        config = dict(tokenizer_class='GemmaTokenizer', bos_token='<bos>', eos_token='<eos>', pad_token='<pad>', unk_token='<unk>', add_bos_token=True, add_eos_token=False)
        (place / 'tokenizer_config.json').write_text(json.dumps(config))
        tokenizer = GemmaTokenizer.from_pretrained(folder)
        tokenizer.save_pretrained(place / 'saved')
        saved = {name: json.loads((place / 'saved' / name).read_text()) for name in ('tokenizer.json', 'tokenizer_config.json')}
    texts = [*TEXTS, *LINES[::6]]
    ids = [tokenizer(text)['input_ids'] for text in texts]
    whole = {
        'model': base64.b64encode(data).decode(),
        'config': config,
        'saved': saved,
        'texts': texts,
        'ids': ids,
        'pieces': [processor.encode(text) for text in texts],
        'decoded': [tokenizer.decode(row, skip_special_tokens=True) for row in ids],
    }
    apart = sum(row[1:] != pieces for row, pieces in zip(whole['ids'], whole['pieces']))
    print(f'{len(texts)} texts, of which transformers and sentencepiece differ in {apart}')
    return gzip.compress(json.dumps(whole).encode(), 9, mtime=0)


main({'gemma.json.gz': gemma})
