"""Added tokens under normalizers, as tokenizers spells them: id_to_token, encode, decode and DecodeStream."""

import gzip
import json

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.decoders import DecodeStream

from text_common import main

NORMALIZERS = {
    'lower case': normalizers.Lowercase(),
    'accents': normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]),
    'prepend': normalizers.Prepend('_'),
    'BERT': normalizers.BertNormalizer(),
    'replace': normalizers.Replace('Bar', 'Baz'),
    'none': None,
}
TEXT = 'hello FOOBAR foobar FooBar bazqux BazQux <s> <S> <T> Émile world'


def case(name, normalizer, decoder):
    made = Tokenizer(models.WordLevel({'<unk>': 0, 'hello': 1, 'world': 2, 'foo': 3}, '<unk>'))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if decoder is not None:
        made.decoder = decoder
    made.add_tokens([AddedToken('FooBar', normalized=True), AddedToken('BazQux', normalized=False), AddedToken(' Émile ', normalized=True)])
    made.add_special_tokens([AddedToken('<S>', normalized=True), AddedToken('<T>', normalized=False)])
    ids = list(range(made.get_vocab_size()))
    stream = DecodeStream(skip_special_tokens=False)
    return {
        'name': name,
        'spec': json.loads(made.to_str()),
        'tokens': [made.id_to_token(i) for i in ids],
        'ids': [made.token_to_id(token) for token in ['FooBar', 'foobar', '<S>', '<s>']],
        'encoded': made.encode(TEXT).ids,
        'decoded': made.decode(ids, skip_special_tokens=False),
        'skipped': made.decode(ids, skip_special_tokens=True),
        'each': [made.decode([i], skip_special_tokens=False) for i in ids],
        'stream': [stream.step(made, i) or '' for i in ids],
    }


def added():
    cases = [case(name, normalizer, None) for name, normalizer in NORMALIZERS.items()]
    cases.append(case('decoder', normalizers.Lowercase(), decoders.Sequence([decoders.Replace('o', '0'), decoders.Fuse()])))
    return gzip.compress(json.dumps({'text': TEXT, 'cases': cases}).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'added.json.gz': added})
