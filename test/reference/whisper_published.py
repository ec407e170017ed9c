"""What transformers writes about real speech with the published Whisper weights that `voxtorch weights` fetches, greedily in
float32: test/fixtures/models/whisper-published.json.

    python whisper_published.py FOLDER

FOLDER holds the LibriSpeech clips (100 of test-other, `*/*.flac`). Fetch whisper-base and whisper-tiny.en first: they are read
from the user's cache, out of CTranslate2's format, and given transformers' names here.
"""

import json
import os
import re
import struct
import sys
from pathlib import Path

import numpy as np
import soundfile
import torch
from transformers import PreTrainedTokenizerFast, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from common import FIXTURES

CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'voxtorch/weights'
SIZES = {'whisper-base': (512, 6, 8), 'whisper-tiny.en': (384, 4, 6)}
DTYPES = {0: np.float32, 4: np.float16}
PARTS = {
    'encoder': {'self_attention/linear_0': 'self_attn q k v', 'self_attention/linear_1': 'self_attn out'},
    'decoder': {
        'self_attention/linear_0': 'self_attn q k v',
        'self_attention/linear_1': 'self_attn out',
        'attention/linear_0': 'encoder_attn q',
        'attention/linear_1': 'encoder_attn k v',
        'attention/linear_2': 'encoder_attn out',
    },
}
NORMS = {'self_attention': 'self_attn_layer_norm', 'attention': 'encoder_attn_layer_norm', 'ffn': 'final_layer_norm'}


def variables(path):
    """Of a model.bin of binary version 6; a variable of another type than these two is a number of the converter."""
    data, at = path.read_bytes(), 0

    def read(form):
        nonlocal at
        found = struct.unpack_from(f'<{form}', data, at)
        at += struct.calcsize(f'<{form}')
        return found

    def name():
        nonlocal at
        (length,) = read('H')
        at += length
        return data[at - length : at - 1].decode()

    version, spec = read('I')[0], name()
    assert (version, spec) == (6, 'WhisperSpec')
    _, count = read('II')
    found = {}
    for _ in range(count):
        key, (rank,) = name(), read('B')
        shape = read(f'{rank}I')
        dtype, size = read('BI')
        if dtype in DTYPES:
            found[key] = np.frombuffer(data, DTYPES[dtype], size // np.dtype(DTYPES[dtype]).itemsize, at).reshape(shape)
        at += size
    return found


def state(path):
    result = {}
    for key, value in variables(path).items():
        if value.ndim == 0:
            continue
        value = torch.from_numpy(value.astype(np.float32))
        side, *place, kind = key.split('/')
        end = {'gamma': 'weight', 'beta': 'bias', 'encodings': 'weight'}.get(kind, kind)
        if place == ['embeddings']:
            result['model.decoder.embed_tokens.weight'] = value
        elif place == ['position_encodings']:
            result[f'model.{side}.embed_positions.weight'] = value
        elif place[0].startswith('layer_') and place[0] != 'layer_norm':
            layer, (block, part) = place[0][6:], place[1:]
            top = f'model.{side}.layers.{layer}'
            if part == 'layer_norm':
                result[f'{top}.{NORMS[block]}.{end}'] = value
            elif block == 'ffn':
                result[f'{top}.fc{int(part[-1]) + 1}.{end}'] = value
            else:
                attention, *names = PARTS[side][f'{block}/{part}'].split()
                for one, rows in zip(names, value.chunk(len(names))):
                    if (one, end) != ('k', 'bias'):
                        result[f'{top}.{attention}.{one}_proj.{end}'] = rows
        else:
            result[f'model.{side}.{place[0]}.{end}'] = value
    result['proj_out.weight'] = result['model.decoder.embed_tokens.weight']
    return result


def network(folder, dim, layers, heads):
    settings = json.loads((folder / 'config.json').read_text())
    english = folder.name.endswith('.en')
    end = 50256 if english else 50257
    config = WhisperConfig(
        vocab_size=51864 if english else 51865,
        d_model=dim,
        **{f'{side}_{key}': value for side in ['encoder', 'decoder'] for key, value in
           {'layers': layers, 'attention_heads': heads, 'ffn_dim': 4 * dim}.items()},
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=end + 1,
    )
    model = WhisperForConditionalGeneration(config).eval()
    model.load_state_dict(state(folder / 'model.bin'))
    said = model.generation_config
    said.suppress_tokens = [token for token in settings['suppress_ids'] if token >= 0]
    said.begin_suppress_tokens = settings['suppress_ids_begin']
    said.is_multilingual = not english
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / 'tokenizer.json'))
    said.no_timestamps_token_id = tokenizer.convert_tokens_to_ids('<|notimestamps|>')
    said.max_length = 448
    if not english:
        codes = [token for token in tokenizer.get_added_vocab() if re.fullmatch(r'<\|[a-z]{2,3}\|>', token)]
        said.lang_to_id = {code: tokenizer.convert_tokens_to_ids(code) for code in codes}
        said.task_to_id = {task: tokenizer.convert_tokens_to_ids(f'<|{task}|>') for task in ['transcribe', 'translate']}
    return model, tokenizer


@torch.no_grad()
def texts(name, clips):
    model, tokenizer = network(CACHE / name, *SIZES[name])
    extractor = WhisperFeatureExtractor()
    language = {'language': 'en', 'task': 'transcribe'} if model.generation_config.is_multilingual else {}
    written = {}
    for clip in clips:
        samples, rate = soundfile.read(clip, dtype='float32')
        features = extractor(samples, sampling_rate=rate, return_tensors='pt').input_features
        tokens = model.generate(features, do_sample=False, num_beams=1, **language)
        written[clip.name] = tokenizer.decode(tokens[0], skip_special_tokens=True).strip()
        print(name, clip.name, written[clip.name], flush=True)
    return written


if __name__ == '__main__':
    clips = sorted(Path(sys.argv[1]).glob('*/*.flac'))
    text = json.dumps({name: texts(name, clips) for name in SIZES}, ensure_ascii=False, indent=1)
    (FIXTURES / 'models/whisper-published.json').write_text(text + '\n')
