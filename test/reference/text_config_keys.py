"""What transformers makes of the keys of tokenizer files: each case is a folder with one key more, and what its tokenizer does.

`keys` are those that the constructors of transformers' tokenizers read, of the classes that this project reads.
"""

import ast
import gzip
import json
import logging
import tempfile
from pathlib import Path

import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer

from text_common import main

logging.disable(logging.CRITICAL)

TEXT = 'Hello , world <x> new <image> é </s>'
NAMED = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>', 'pad_token': '<pad>'}
IMAGE = {'content': '<image>', 'special': True, 'lstrip': False, 'rstrip': False, 'normalized': False, 'single_word': False}


def spec(**more):
    made = Tokenizer(models.WordLevel({'<unk>': 0, 'hello': 1, 'world': 2, 'Hello': 3, ',': 4, 'é': 5, 'e': 6}, '<unk>'))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.add_special_tokens(['<s>', '</s>', '<pad>', '<x>'])
    made.add_tokens(['new'])
    made.post_processor = processors.TemplateProcessing(single='<s> $A', pair='<s> $A $B', special_tokens=[('<s>', 7)])
    return {**json.loads(made.to_str()), **more}


PADDING = {'strategy': {'Fixed': 8}, 'direction': 'Left', 'pad_to_multiple_of': None, 'pad_id': 9, 'pad_type_id': 0, 'pad_token': '<pad>'}
TRUNCATION = {'direction': 'Left', 'max_length': 3, 'strategy': 'LongestFirst', 'stride': 0}

# Of a folder with tokenizer.json: keys of tokenizer_config.json, further files, and parts of tokenizer.json.
CASES = [
    ('nothing', {}, {}, {}),
    ('image_token', {'image_token': '<image>'}, {}, {}),
    ('extra_special_tokens', {'extra_special_tokens': ['<image>']}, {}, {}),
    ('extra_special_tokens by name', {'extra_special_tokens': {'image_token': '<image>'}}, {}, {}),
    ('additional_special_tokens', {'additional_special_tokens': ['<image>']}, {}, {}),
    ('model_specific_special_tokens', {'model_specific_special_tokens': {'image_token': '<image>'}}, {}, {}),
    ('mask_token', {'mask_token': '<mask>'}, {}, {}),
    ('max_len', {'max_len': 5}, {}, {}),
    ('model_max_length', {'model_max_length': 5, 'max_len': 7}, {}, {}),
    ('clean_up_tokenization_spaces', {'clean_up_tokenization_spaces': True}, {}, {}),
    ('sides', {'padding_side': 'left', 'truncation_side': 'left'}, {}, {}),
    ('added_tokens_decoder', {'added_tokens_decoder': {'12': IMAGE}}, {}, {}),
    ('special_tokens_map', {}, {'special_tokens_map.json': {'mask_token': '<x>', 'additional_special_tokens': ['<image>']}}, {}),
    ('special_tokens_map is stronger', {}, {'special_tokens_map.json': {'eos_token': '<x>'}}, {}),
    ('special_tokens_map is obsolete', {'added_tokens_decoder': {}}, {'special_tokens_map.json': {'eos_token': '<x>'}, 'added_tokens.json': {'<image>': 12}}, {}),
    ('special_tokens_map with image_token', {}, {'special_tokens_map.json': {'image_token': '<image>'}}, {}),
    ('added_tokens', {}, {'added_tokens.json': {'<image>': 12}}, {}),
    ('padding', {}, {}, {'padding': PADDING}),
    ('padding and side', {'padding_side': 'right'}, {}, {'padding': PADDING}),
    ('truncation', {}, {}, {'truncation': TRUNCATION}),
    *[
        (key, {key: value}, {}, {})
        for key, value in {
            'do_lower_case': True, 'strip_accents': True, 'tokenize_chinese_chars': False, 'add_prefix_space': True, 'legacy': True, 'errors': 'ignore',
            'trim_offsets': False, 'spaces_between_special_tokens': False, 'pad_token_type_id': 3, 'pad_to_multiple_of': 8, 'language': 'en', 'task': 'translate',
            'sp_model_kwargs': {'enable_sampling': True}, 'verbose': False, 'chat_control_tokens': ['new'], 'name_or_path': 'x', 'padding': 'max_length',
            'truncation': True, 'max_length': 4, 'stride': 1, 'model_input_names': ['input_ids'], 'use_default_system_prompt': True, 'extra_ids': 3, 'backend': 'x',
        }.items()
    ],
]


def outcome(config, files, parts):
    with tempfile.TemporaryDirectory() as folder:
        contents = {'tokenizer.json': spec(**parts), 'tokenizer_config.json': {'tokenizer_class': 'PreTrainedTokenizerFast', **NAMED, **config}, **files}
        for name, content in contents.items():
            (Path(folder) / name).write_text(json.dumps(content))
        made = AutoTokenizer.from_pretrained(folder)
        ids = made(TEXT)['input_ids']
        return {
            'files': contents,
            'ids': ids,
            'decoded': made.decode(ids),
            'skipped': made.decode(ids, skip_special_tokens=True),
            'maxLength': made.model_max_length if made.model_max_length < 1e29 else None,
            'cut': made(TEXT, truncation=True, max_length=3)['input_ids'],
            'padded': made(['Hello', 'Hello world'], padding=True)['input_ids'],
            'special': [i for i in range(len(made)) if made.convert_ids_to_tokens(i) in made.all_special_tokens],
            'size': len(made),
        }


CLASSES = 'gpt2 codegen roberta llama qwen2 clip bert wav2vec2 whisper t5 gemma xlm_roberta'


def keys():
    """Keyword arguments of the constructors, and what they take out of the others."""
    root = Path(transformers.__file__).parent
    found = set()
    shared = ['tokenization_utils_base.py', 'tokenization_utils_tokenizers.py', 'tokenization_python.py', 'tokenization_utils_sentencepiece.py']
    for name in [*shared, *[f'models/{one}/tokenization_{one}.py' for one in CLASSES.split()]]:
        for one in ast.walk(ast.parse((root / name).read_text())):
            if not isinstance(one, ast.ClassDef) or one.name in ('BatchEncoding', 'AddedToken', 'Trie', 'ExtensionsTrie', 'SentencePieceExtractor'):
                continue
            for method in one.body:
                if isinstance(method, ast.FunctionDef) and method.name == '__init__':
                    found |= {arg.arg for arg in method.args.args + method.args.kwonlyargs if arg.arg != 'self'}
                    for call in ast.walk(method):
                        takes = isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in ('pop', 'get', 'setdefault')
                        if takes and call.args and isinstance(call.args[0], ast.Constant) and isinstance(call.args[0].value, str):
                            found.add(call.args[0].value)
    return sorted(found)


def config_keys():
    cases = [{'name': name, **outcome(config, files, parts)} for name, config, files, parts in CASES]
    return gzip.compress(json.dumps({'text': TEXT, 'keys': keys(), 'cases': cases}).encode(), 9, mtime=0)


if __name__ == '__main__':
    main({'config-keys.json.gz': config_keys})
