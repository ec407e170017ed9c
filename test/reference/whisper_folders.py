"""Folders of Whisper as fine-tuning leaves them, opened by transformers: test/fixtures/models/whisper-folders.json.

Each case is models/whisper-tiny with other files beside its weights, and what `generate` writes about three clips with the
folder's own settings. `keys` has every key of GenerationConfig, and those that WhisperGenerationMixin reads, with a value that
is not the default. `added` has two rows for tokens that fine-tuning adds behind the timestamps, and the decoded texts.

`timed` has the same rows, with timestamps. transformers 5.24 takes every id above the timestamps for a timestamp: behind an added
token no text may come. So its network has the rows in the places of two letters, which are text, and their ids are changed
afterwards; a network with the added tokens that never writes these letters (`letters`) has the same choices. `as_timestamps` is
what transformers writes with the added tokens above the timestamps.
"""

import argparse
import json
import re
import shutil
import tempfile
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from transformers import GenerationConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

from common import FIXTURES, randn
from whisper_generation import FIRST, FRAMES, ID, MELS, VOCABULARY, waveform

# Threads that wait for each other cost more than these sizes gain.
torch.set_num_threads(1)
transformers.utils.logging.disable_progress_bar()

TINY = FIXTURES / 'models/whisper-tiny'
FILE = FIXTURES / 'models/whisper-folders.json'

# Changes of generation_config.json (None: there is no such file) and of config.json.
CASES = {
    # Without a task transformers leaves its token out where it detects the language; ours is openai/whisper's prompt, which has it.
    'language detected': ({'task': 'transcribe'}, {}),
    'language by name': ({'language': 'german'}, {}),
    'language by token, and task': ({'language': '<|fr|>', 'task': 'translate'}, {}),
    'task alone': ({'task': 'translate'}, {}),
    'forced tokens': ({'forced_decoder_ids': [[1, ID['fr']], [2, ID['translate']]]}, {}),
    'forced task, language detected': ({'forced_decoder_ids': [[1, None], [2, ID['translate']]]}, {}),
    'forced tokens of config.json': ({}, {'forced_decoder_ids': [[1, ID['de']], [2, ID['transcribe']], [3, ID['notimestamps']]]}),
    'language goes before forced tokens': ({'language': 'en', 'forced_decoder_ids': [[1, ID['fr']], [2, ID['translate']]]}, {}),
    'max_length': ({'language': 'en', 'max_length': 7}, {}),
    'max_new_tokens': ({'language': 'en', 'max_new_tokens': 5}, {}),
    'beams': ({'language': 'en', 'num_beams': 3, 'length_penalty': 0.3}, {}),
    'penalties': ({'language': 'en', 'repetition_penalty': 1.7, 'no_repeat_ngram_size': 2}, {}),
    'suppressed': ({'language': 'en', 'suppress_tokens': [1, 2, 9, 25], 'begin_suppress_tokens': [4, 5]}, {}),
    'config.json alone': (None, {'suppress_tokens': [1, 2, 9, 25], 'begin_suppress_tokens': [4, 5], 'max_length': 30}),
}

VALUES = {
    'max_length': 30, 'max_new_tokens': 9, 'min_length': 3, 'min_new_tokens': 2, 'early_stopping': True, 'max_time': 3.5,
    'stop_strings': ['a'], 'do_sample': True, 'num_beams': 2, 'use_mtp': True, 'use_cache': False, 'cache_implementation': 'static',
    'cache_config': {'nbits': 4}, 'max_cache_len': 12, 'temperature': 0.7, 'top_k': 7, 'top_p': 0.5, 'min_p': 0.1, 'top_h': 0.3,
    'typical_p': 0.8, 'epsilon_cutoff': 0.01, 'eta_cutoff': 0.01, 'repetition_penalty': 1.3, 'encoder_repetition_penalty': 1.4,
    'length_penalty': 0.5, 'no_repeat_ngram_size': 2, 'bad_words_ids': [[3]], 'renormalize_logits': True,
    'forced_bos_token_id': 4, 'forced_eos_token_id': 24, 'remove_invalid_values': True,
    'exponential_decay_length_penalty': [3, 1.2], 'suppress_tokens': [4], 'begin_suppress_tokens': [5],
    'sequence_bias': [[[3], 0.5]], 'token_healing': True, 'guidance_scale': 1.5, 'watermarking_config': {'bias': 2.0},
    'num_return_sequences': 2, 'output_attentions': True, 'output_hidden_states': True, 'output_scores': True,
    'output_logits': True, 'return_dict_in_generate': True, 'pad_token_id': 24, 'bos_token_id': 24, 'eos_token_id': 24,
    'encoder_no_repeat_ngram_size': 2, 'decoder_start_token_id': 25, 'is_assistant': True, 'num_assistant_tokens': 3,
    'num_assistant_tokens_schedule': 'constant', 'assistant_confidence_threshold': 0.2, 'prompt_lookup_num_tokens': 3,
    'max_matching_ngram_size': 2, 'assistant_early_exit': 1, 'assistant_lookbehind': 3, 'target_lookbehind': 3,
    'assistant_ensemble_weight': 0.5, 'speculation_type': 'dflash', 'compile_config': {'mode': 'default'},
    'disable_compile': True, 'continuous_batching_config': {'block_size': 8}, 'low_memory': True, 'penalty_alpha': 0.6,
    'dola_layers': 'high', 'diversity_penalty': 0.5, 'num_beam_groups': 2, 'constraints': [1], 'force_words_ids': [[3]],
    'prefill_chunk_size': 8,
    # Whisper's own.
    'alignment_heads': [[1, 0]], 'is_multilingual': False, 'lang_to_id': {'<|en|>': 26}, 'task_to_id': {'transcribe': 30, 'translate': 29},
    'language': 'de', 'task': 'translate', 'forced_decoder_ids': [[1, 27], [2, 30]], 'no_timestamps_token_id': 34,
    'prev_sot_token_id': 32, 'return_timestamps': True, 'max_initial_timestamp_index': 5, 'logprob_threshold': -0.5,
    'no_speech_threshold': 0.3, 'compression_ratio_threshold': 1.35, 'condition_on_prev_tokens': False,
    'prompt_condition_type': 'all-segments', 'return_token_timestamps': True, 'force_unique_generate_call': True,
    'num_frames': 10, 'my_own_key': 1,
}
METADATA = {'_from_model_config': True, 'transformers_version': '5.0.0', '_commit_hash': 'abc', '_original_object_hash': 1}


def keys():
    code = (Path(transformers.__file__).parent / 'models/whisper/generation_whisper.py').read_text()
    read = set(re.findall(r'generation_config, ["\'](\w+)["\']', code)) | set(re.findall(r'generation_config\.(\w+)\b(?!\()', code))
    known = set(GenerationConfig().to_dict()) | {key for key in vars(GenerationConfig()) if not key.startswith('_')} | read
    lacking = sorted(known - set(VALUES) - set(METADATA) - {'_mask_length', 'update', 'to_dict', 'from_dict', 'return_legacy_cache', 'json'})
    assert not lacking, lacking
    return {**VALUES, **METADATA}


def opened(generation, network, rows=None):
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory) / 'model'
        shutil.copytree(TINY, folder)
        config = json.loads((folder / 'config.json').read_text())
        # What save_pretrained of this transformers writes and older files lack.
        config = {key: value for key, value in config.items() if key not in ('suppress_tokens', 'begin_suppress_tokens') or value is not None}
        (folder / 'config.json').write_text(json.dumps({**config, **network}))
        file = folder / 'generation_config.json'
        if generation is None:
            file.unlink()
        else:
            file.write_text(json.dumps({**json.loads(file.read_text()), **generation}))
        model = WhisperForConditionalGeneration.from_pretrained(folder, attn_implementation='eager').eval()
    if rows is not None:
        grown = torch.cat([model.model.decoder.embed_tokens.weight, rows])
        model.model.decoder.embed_tokens = torch.nn.Embedding.from_pretrained(grown, freeze=True)
        model.proj_out = torch.nn.Linear(*reversed(grown.shape), bias=False)
        model.proj_out.weight = model.model.decoder.embed_tokens.weight
        model.config.vocab_size = len(grown)
    return model


def clips():
    # The first window of each clip.
    extractor = WhisperFeatureExtractor(feature_size=MELS, chunk_length=1)
    waves = [waveform(f'wave-{i}', seconds)[: FRAMES * 320].numpy() / 32768 for i, seconds in enumerate([1.3, 0.87, 1.9])]
    return [
        extractor(wave.astype('float32'), sampling_rate=16000, truncation=False, padding='longest', return_tensors='pt').input_features[:, :, : 2 * FRAMES]
        for wave in waves
    ]


def written(model, features):
    """The prompt, and what comes behind it in one window."""
    # Once: without timestamps in view these weights write pairs of them at the window's beginning, and the seek loop never ends.
    output = model.generate(features, force_unique_generate_call=True)[0].tolist()
    begin = output.index(ID['notimestamps']) + 1 if ID['notimestamps'] in output[:4] else 1
    tokens = output[begin:]
    end = ID['endoftext']
    return {'prompt': output[:begin], 'tokens': tokens[: tokens.index(end)] if end in tokens else tokens}


def added():
    # Rows like those of common tokens, so that they come.
    rows = opened({}, {}).model.decoder.embed_tokens.weight[[6, 9]].detach() * 1.3 + 0.05 * randn('whisper-folders/added', 2, 16)
    model = opened({'language': 'de'}, {}, rows)
    tokenizer = Tokenizer.from_file(str(TINY / 'tokenizer.json'))
    tokenizer.add_tokens(['zork', '<laugh>'])
    assert tokenizer.token_to_id('zork') == VOCABULARY == FIRST + FRAMES + 1
    found = []
    for features in clips():
        tokens = written(model, features)['tokens']
        text = [token for token in tokens if not FIRST <= token < VOCABULARY]
        found.append({'tokens': tokens, 'text': tokenizer.decode(text, skip_special_tokens=True)})
    assert any(token >= VOCABULARY for one in found for token in one['tokens'])
    return {'rows': [[round(x, 6) for x in row] for row in rows.tolist()], 'clips': found}


def timed():
    rows = added()['rows']
    letters = [11, 16]
    model = opened({'language': 'de', 'return_timestamps': True}, {})
    with torch.no_grad():
        model.model.decoder.embed_tokens.weight[letters] = torch.tensor(rows)
    moved = dict(zip(letters, (VOCABULARY, VOCABULARY + 1)))
    found = []
    for features in clips():
        output = model.generate(features, force_unique_generate_call=True)[0].tolist()
        assert output[:3] == [ID['startoftranscript'], ID['de'], ID['transcribe']], output
        found.append([moved.get(token, token) for token in output[3:] if token != ID['endoftext']])
    # Text behind an added token, which the rule of transformers forbids for tokens above the timestamps.
    assert any(a >= VOCABULARY and b < ID['endoftext'] for one in found for a, b in zip(one, one[1:])), found
    suppressed = json.loads((TINY / 'generation_config.json').read_text())['suppress_tokens']
    settings = {'language': 'de', 'return_timestamps': True, 'suppress_tokens': [*suppressed, *letters]}
    grown = opened(settings, {}, torch.tensor(rows))
    taken = [grown.generate(features, force_unique_generate_call=True)[0].tolist()[3:] for features in clips()]
    taken = [[token for token in one if token != ID['endoftext']] for one in taken]
    assert taken != found
    return {'letters': letters, 'clips': found, 'as_timestamps': taken}


def build():
    cases = []
    for name, (generation, network) in CASES.items():
        model = opened(generation, network)
        cases.append({'name': name, 'generation': generation, 'network': network, 'clips': [written(model, features) for features in clips()]})
    return {'cases': cases, 'keys': keys(), 'added': added(), 'timed': timed()}


if __name__ == '__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--check', action='store_true', help='compare, write nothing')
    text = json.dumps(build(), indent=1) + '\n'
    if parser.parse_args().check:
        assert json.loads(FILE.read_text()) == json.loads(text), 'differs'
        print('equal')
    else:
        FILE.write_text(text)
        print(FILE, len(text))
