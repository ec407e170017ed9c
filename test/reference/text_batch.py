"""Batches by transformers: padding, truncation and pairs, with tokenizers of tokenizers.json.gz (text_models.py)."""

import gzip
import json

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from text_common import FIXTURES, main

TEXTS = ['the of and', '', 'Größe 😀 a well-known state of the “first” new year', "don't say 1,000,000!", ' two  spaces ']
PAIRS = ['to', 'a much longer second text than the first one', 'x y', '', 'now then']
TOKENS = {
    'bert': dict(pad_token='[PAD]', cls_token='[CLS]', sep_token='[SEP]', unk_token='[UNK]', mask_token='[MASK]'),
    'gpt2 trimmed': dict(pad_token='<|end|>'),
    'llama always': dict(pad_token='</s>', unk_token='<unk>'),
    'unigram precompiled': dict(pad_token='</s>', unk_token='<unk>'),
}
OPTIONS = [
    {'padding': True},
    {'padding': 'longest', 'padding_side': 'left'},
    {'padding': 'max_length', 'max_length': 12, 'truncation': True},
    {'padding': True, 'pad_to_multiple_of': 8},
    {'truncation': True, 'max_length': 7},
    {'truncation': True, 'max_length': 6, 'truncation_side': 'left', 'padding': True},
    {'padding': True, 'add_special_tokens': False, 'truncation': True, 'max_length': 5},
    {'pairs': True, 'padding': True},
    {'pairs': True, 'padding': True, 'truncation': True, 'max_length': 9},
    {'pairs': True, 'padding': True, 'truncation': True, 'max_length': 10, 'truncation_side': 'left', 'padding_side': 'left'},
    {'pairs': True, 'padding': 'max_length', 'max_length': 40, 'truncation': 'only_second'},
    {'pairs': True, 'padding': 'max_length', 'max_length': 40, 'truncation': 'only_first', 'add_special_tokens': False},
]


def units(text, offset):
    return len(text[:offset].encode('utf-16-le')) // 2


def one(tokenizer, options):
    options = dict(options)
    tokenizer.truncation_side = options.pop('truncation_side', 'right')
    pairs = PAIRS if options.pop('pairs', False) else None
    made = tokenizer(TEXTS, pairs, return_offsets_mapping=True, return_special_tokens_mask=True, return_token_type_ids=True, return_attention_mask=True, **options)
    offsets = []
    for row, mapping in enumerate(made['offset_mapping']):
        sources = [{0: TEXTS[row], 1: (pairs or TEXTS)[row]}.get(s, '') for s in made.sequence_ids(row)]
        offsets.append([[units(source, start), units(source, end)] for source, (start, end) in zip(sources, mapping)])
    return {
        'inputIds': made['input_ids'],
        'attentionMask': made['attention_mask'],
        'tokenTypeIds': made['token_type_ids'],
        'specialTokensMask': made['special_tokens_mask'],
        'wordIds': [made.word_ids(row) for row in range(len(TEXTS))],
        'offsets': offsets,
    }


def batches():
    specs = {case['name']: case['spec'] for case in json.loads(gzip.decompress((FIXTURES / 'tokenizers.json.gz').read_bytes()))['cases']}
    cases = []
    for name, tokens in TOKENS.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(specs[name])), **tokens)
        for options in OPTIONS:
            try:
                made = one(tokenizer, options)
            except Exception as error:  # the bindings raise no narrower class
                made = {'error': str(error)}
            cases.append({'tokenizer': name, 'pad': tokens['pad_token'], 'options': options, **made})
    return gzip.compress(json.dumps({'texts': TEXTS, 'pairs': PAIRS, 'cases': cases}).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'batches.json.gz': batches})
