"""Tiny tokenizers that the repository can hold, and what the reference libraries make of text with them.

    python test/reference/text_models.py            # ids of the stored models; a model that is missing is trained first
    python test/reference/text_models.py --check

The trainers are not promised to give the same model twice, so the stored ones are what counts.
"""

import gzip
import io
import json
import tempfile
import unicodedata
from functools import cache
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers.tokenization_utils_sentencepiece import SentencePieceBackend

from text_common import FIXTURES, checksum, main, packed
from text_lines import lines

LINES = [line for line in lines() if len(line) < 400]
# A small alphabet, so that there is room for longer pieces.
TRAINING = [line for line in LINES if sum(letter > '\x7f' for letter in line) <= len(line) // 10]
SAMPLE = LINES[:20] + LINES[20::8]

def rules(fold):
    """A part of nmt_nfkc: the whole would take 140 KB of the repository."""
    made = {}
    for code in [*range(0xFF01, 0xFF5F), *range(0xFB00, 0xFB07), *range(0x2460, 0x2474), *range(0x2160, 0x2170), *range(0xB2, 0xBF), *range(0xFF76, 0xFF86), 0x2122, 0x212A, 0x3000, 0xA0, 0x2026, 0x1F130, 0x1D7D8]:
        plain = unicodedata.normalize('NFKC', chr(code))
        if plain != chr(code):
            made[chr(code)] = plain
    for letter in 'aeiouAEIOU':
        for mark in '\u0300\u0301\u0302\u0308\u0323':
            made[letter + mark] = unicodedata.normalize('NFC', letter + mark)
    for code in [9, 10, 13, 0x200B, 0x2028, 0xFEFF]:
        made[chr(code)] = ' '
    for code in [*range(1, 9), 0x7F]:
        made[chr(code)] = ''
    if fold:
        made.update({chr(code): chr(code + 32) for code in range(65, 91)})
    return made


def rule_lines(made):
    spelled = lambda text: ' '.join(f'{ord(letter):X}' for letter in text)
    return ''.join(f'{spelled(old)}\t{spelled(new)}\n' for old, new in made.items())


SENTENCEPIECE = {
    'bpe-bytes': dict(model_type='bpe', vocab_size=600, byte_fallback=True, normalization_rule_name='identity', remove_extra_whitespaces=False, user_defined_symbols=['[IMG]', 'ing the', '\u2581\u2581'], control_symbols=['[INST]'], character_coverage=0.98),
    'bpe-nfkc': dict(model_type='bpe', vocab_size=500, rules=rules(True), character_coverage=0.98),
    'unigram-nfkc': dict(model_type='unigram', vocab_size=500, rules=rules(False), character_coverage=0.98, user_defined_symbols=['<sep>', 'don']),
    'unigram-bytes': dict(model_type='unigram', vocab_size=600, byte_fallback=True, normalization_rule_name='identity', character_coverage=0.98, add_dummy_prefix=False, treat_whitespace_as_suffix=True, user_defined_symbols=['<x>']),
    'suffix': dict(model_type='unigram', vocab_size=400, normalization_rule_name='identity', treat_whitespace_as_suffix=True, character_coverage=0.98),
    'char': dict(model_type='char', vocab_size=150, normalization_rule_name='identity', user_defined_symbols=['the']),
    'word': dict(model_type='word', vocab_size=150, normalization_rule_name='identity'),
}


def train(name):
    made = io.BytesIO()
    options = dict(SENTENCEPIECE[name])
    with tempfile.NamedTemporaryFile('w', suffix='.tsv') as file:
        if 'rules' in options:
            file.write(rule_lines(options.pop('rules')))
            file.flush()
            options['normalization_rule_tsv'] = file.name
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TRAINING), model_writer=made, hard_vocab_limit=False, num_threads=1, minloglevel=2, **options
        )
    return made.getvalue()


def stored(name):
    path = FIXTURES / f'{name}.model.gz'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(train(name), 9, mtime=0))
    return gzip.decompress(path.read_bytes())


class Slow(SentencePieceBackend):
    """What LlamaTokenizer was before transformers 5: special tokens are cut out, the rest goes to sentencepiece."""


def slow_ids(model, legacy):
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / 'tokenizer.model'
        path.write_bytes(model)
        slow = Slow(vocab_file=str(path), legacy=legacy, unk_token='<unk>', bos_token='<s>', eos_token='</s>')
        return [slow.convert_tokens_to_ids(slow_tokens(slow, text, legacy)) for text in SPECIAL]


def slow_tokens(slow, text, legacy):
    if legacy or not text:
        return slow.tokenize(text)
    # LlamaTokenizer.tokenize of transformers 4
    tokens = slow.tokenize('\u2581' + text.replace('\u2581', ' '))
    if len(tokens) > 1 and tokens[0] == '\u2581' and tokens[1] in slow.all_special_tokens:
        tokens = tokens[1:]
    return tokens


SPECIAL = ['Hello', ' Hello', '<s>Hello', '<s> Hello', 'a</s>b', 'a </s> b', '<s></s>', 'x<unk>y', '<s>[INST] the[/INST] and</s><s>[INST]x', '  <s>  the  </s>  of', 'the\n</s>\nof', '<s', '</s>the', '\u2581the<s>\u2581of']


def sentencepiece_cases():
    cases = {}
    for name in SENTENCEPIECE:
        model = sentencepiece.SentencePieceProcessor(model_proto=stored(name))
        ids = [model.encode(line) for line in SAMPLE]
        cuts = [row[1:] for row in ids[::7]] + [[i % model.get_piece_size()] * 2 for i in range(0, 600, 41)]
        cases[name] = {
            'ids': ids,
            'decoded': [model.decode(row) for row in ids],
            'cuts': cuts,
            'decodedCuts': [model.decode(row) for row in cuts],
        }
    for legacy in (True, False):
        cases['bpe-bytes'][f'legacy {str(legacy).lower()}'] = slow_ids(stored('bpe-bytes'), legacy)
    return gzip.compress(json.dumps({'lines': SAMPLE, 'special': SPECIAL, 'models': cases}).encode(), 9, mtime=0)


def bpe(prefix='', suffix='', unk=None, alphabet=(), size=340, **model):
    affixes = {**({'continuing_subword_prefix': prefix} if prefix else {}), **({'end_of_word_suffix': suffix} if suffix else {})}
    tokenizer = Tokenizer(models.BPE(**{'unk_token': unk} if unk else {}, **affixes, **model))
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[unk or '<|end|>'], initial_alphabet=list(alphabet), limit_alphabet=256 if alphabet else 90, show_progress=False, **affixes)
    return tokenizer, trainer


def trained(tokenizer, trainer):
    tokenizer.train_from_iterator(TRAINING, trainer)
    return tokenizer


def bert():
    tokenizer = Tokenizer(models.WordPiece(unk_token='[UNK]', max_input_chars_per_word=20))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trained(tokenizer, trainers.WordPieceTrainer(vocab_size=400, limit_alphabet=100, special_tokens=['[PAD]', '[UNK]', '[CLS]', '[SEP]', '[MASK]'], show_progress=False))
    tokenizer.post_processor = processors.TemplateProcessing(single='[CLS] $A [SEP]', pair='[CLS] $A [SEP] $B:1 [SEP]:1', special_tokens=[('[CLS]', 2), ('[SEP]', 3)])
    return tokenizer


def clip():
    tokenizer, trainer = bpe(suffix='</w>', unk='<|endoftext|>', alphabet=pre_tokenizers.ByteLevel.alphabet(), size=600, fuse_unk=False)
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r'\s+'), ' '), normalizers.Lowercase()])
    split = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), behavior='removed', invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trained(tokenizer, trainer)
    start = tokenizer.add_special_tokens(['<|startoftext|>']) and tokenizer.token_to_id('<|startoftext|>')
    tokenizer.post_processor = processors.RobertaProcessing(('<|endoftext|>', 0), ('<|startoftext|>', start), False, False)
    return tokenizer


@cache
def byte_level():
    tokenizer, trainer = bpe(alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return trained(tokenizer, trainer).to_str()


@cache
def metaspace():
    tokenizer, trainer = bpe(unk='<unk>', fuse_unk=True, byte_fallback=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    trainer.special_tokens = ['<unk>', '<s>', '</s>'] + [f'<0x{b:02X}>' for b in range(256)]
    trainer.vocab_size = 440
    return trained(tokenizer, trainer).to_str()


def gpt2(prefix_space, trim):
    tokenizer = Tokenizer.from_str(byte_level())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim, add_prefix_space=prefix_space)
    tokenizer.add_tokens([AddedToken('the of', single_word=True), AddedToken('<left>', lstrip=True), AddedToken('<right>', rstrip=True, special=True), AddedToken('NORM', normalized=True), 'ing'])
    return tokenizer


def llama(scheme):
    tokenizer = Tokenizer.from_str(metaspace())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace('\u2581', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)])
    return tokenizer


def unigram():
    proto = stored('unigram-nfkc')
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    pieces = [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]
    tokenizer = Tokenizer(models.Unigram(pieces, 0))
    from sentencepiece import sentencepiece_model_pb2
    parsed = sentencepiece_model_pb2.ModelProto()
    parsed.ParseFromString(proto)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(parsed.normalizer_spec.precompiled_charsmap), normalizers.Replace(Regex(' {2,}'), ' ')])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single='$A </s>', pair='$A </s> $B </s>', special_tokens=[('</s>', 2)])
    return tokenizer


def words(normalizer, pre_tokenizer, decoder=None):
    tokenizer = Tokenizer(models.WordLevel(unk_token='<unk>'))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    trained(tokenizer, trainers.WordLevelTrainer(vocab_size=60, special_tokens=['<unk>'], show_progress=False))
    if decoder:
        tokenizer.decoder = decoder
    return tokenizer


def split(pattern, behavior, invert=False):
    return pre_tokenizers.Split(Regex(pattern), behavior, invert)


def suffixed():
    tokenizer, trainer = bpe(suffix='@@', unk='?', fuse_unk=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.decoder = decoders.BPEDecoder(suffix='@@')
    return trained(tokenizer, trainer)


def prefixed():
    tokenizer, trainer = bpe(prefix='##', unk='?', fuse_unk=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation('removed'), pre_tokenizers.Digits(individual_digits=True)])
    tokenizer.decoder = decoders.WordPiece(prefix='##', cleanup=False)
    return trained(tokenizer, trainer)


def byte_words():
    """Byte characters that no byte-pair model spells."""
    tokenizer = words(None, pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel())
    return tokenizer


TOKENIZERS = {
    'bert': bert,
    'clip': clip,
    'gpt2 trimmed': lambda: gpt2(False, True),
    'gpt2 prefix space': lambda: gpt2(True, True),
    'gpt2 untrimmed': lambda: gpt2(True, False),
    'llama always': lambda: llama('always'),
    'llama first': lambda: llama('first'),
    'llama never': lambda: llama('never'),
    'unigram precompiled': unigram,
    'bpe suffix': suffixed,
    'bpe prefix': prefixed,
    'words bytes': byte_words,
    'words nfkd strip accents': lambda: words(normalizers.Sequence([normalizers.NFKD(), normalizers.StripAccents(), normalizers.Lowercase()]), pre_tokenizers.Whitespace()),
    'words nfd': lambda: words(normalizers.NFD(), pre_tokenizers.FixedLength(2)),
    'words nfkc strip': lambda: words(normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()]), pre_tokenizers.CharDelimiterSplit('e')),
    'words nmt': lambda: words(normalizers.Sequence([normalizers.Nmt(), normalizers.Prepend('>>')]), pre_tokenizers.WhitespaceSplit()),
    'words previous': lambda: words(None, split(r'[aeiou]+', 'merged_with_previous')),
    'words next': lambda: words(None, split(r'[aeiou]', 'merged_with_next'), decoders.CTC('<unk>', 'e', True)),
    'words contiguous': lambda: words(None, split(r'\s|[[:punct:]]', 'contiguous')),
    'words removed': lambda: words(normalizers.Replace('e', 'EE'), split(r'(?i)the|\d', 'removed')),
    'words inverted': lambda: words(normalizers.Replace(Regex('[aeiou]+'), ''), split(r'\b\w', 'isolated', True)),
    'words digits': lambda: words(None, pre_tokenizers.Sequence([pre_tokenizers.Digits(), pre_tokenizers.Punctuation('contiguous')])),
}


def decoded(name, text):
    """transformers' CLIPTokenizer takes the ends of words out itself."""
    return text.replace('</w>', ' ').strip() if name == 'clip' else text


def tokenizer_cases():
    path = FIXTURES / 'tokenizers.json.gz'
    known = json.loads(gzip.decompress(path.read_bytes()))['cases'] if path.exists() else []
    specs = {case['name']: case['spec'] for case in known}
    cases = []
    for name, make in TOKENIZERS.items():
        # The trainers break ties as they like, so a stored tokenizer is not trained again.
        spec = specs[name] if name in specs else json.loads(make().to_str())
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        texts = SAMPLE[::4] + ADDED
        encodings = [tokenizer.encode(text) for text in texts]
        cases.append(
            {
                'name': name,
                'spec': spec,
                'ids': [e.ids for e in encodings],
                'sums': [checksum(text, e) for text, e in zip(texts, encodings)],
                'decoded': [decoded(name, tokenizer.decode(e.ids, skip_special_tokens=i % 2 == 0)) for i, e in enumerate(encodings)],
                'pair': pair_case(tokenizer),
            }
        )
    return gzip.compress(json.dumps({'lines': SAMPLE[::4] + ADDED, 'pair': PAIR, 'cases': cases}).encode(), 9, mtime=0)


ADDED = ['x <left> y', '  <left><left> ', 'a<right>  b', 'the of', 'xthe of', 'the ofx', 'the of the of', 'NORM norm', '<right> <left>', 'éthe of', 'the of\u0301', 'inging', '<left>']
PAIR = ['Hello the of', 'and what']


def pair_case(tokenizer):
    e = tokenizer.encode(*PAIR)
    return {'ids': e.ids, 'types': e.type_ids, 'mask': e.special_tokens_mask, 'words': e.word_ids, 'offsets': e.offsets}


if __name__ == '__main__':
    for name in SENTENCEPIECE:
        stored(name)
    main({'sentencepiece.json.gz': sentencepiece_cases, 'tokenizers.json.gz': tokenizer_cases})
