"""Times of tokens and words, and transcription that falls back on higher temperatures, by transformers with the tiny Whisper
of whisper_generation.py: test/fixtures/models/whisper-words.safetensors.

Where transformers and openai/whisper differ, voxtorch has openai/whisper's rule, and transformers is made to follow it: how
often a text repeats itself is seen by compressing its characters, not its ids; and what stands before a window that was
drawn at 0.5 or above is forgotten for good, not for the next window only.
"""

import json
import zlib

import numpy as np
import torch
from tokenizers import pre_tokenizers
from transformers import LogitsProcessorList, PreTrainedTokenizerFast, WhisperFeatureExtractor
from transformers.generation import (
    GenerationMixin,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)
from transformers.models.whisper.tokenization_whisper import _combine_tokens_into_words

from common import FIXTURES, Fixture, coarse, main, rand, randn
from generation import Draws
from whisper_generation import BEGIN_SUPPRESSED, END, FIRST, FRAMES, ID, MELS, SUPPRESSED, Stuck, build, waveform

UPPER = [[1, 0], [1, 1]]
CHOSEN = [[0, 1], [1, 0]]
# Those of whisper-generation.safetensors, in seconds.
SOUNDS = [(0, 1.3), (2, 1.9)]


class Words:
    """As much of WhisperTokenizer as cutting into words needs."""

    def __init__(self, path, end):
        self.fast = PreTrainedTokenizerFast(tokenizer_file=str(path))
        self.eos_token_id = end
        self.language = None

    def decode(self, tokens, **_):
        return self.fast.decode(tokens, clean_up_tokenization_spaces=False)

    def words(self, tokens, language='english'):
        texts, _, places = _combine_tokens_into_words(self, tokens, language)
        return texts, places


def probabilities(model, features, prompt, tokens):
    """Of each text token, among text tokens."""
    ids = torch.tensor([prompt + tokens])
    with torch.no_grad():
        logits = model(features, decoder_input_ids=ids).logits[0, len(prompt) - 1 : -1, :END]
    chances = logits.softmax(-1)
    return [round(chances[i, token].item(), 7) if token < END else 0 for i, token in enumerate(tokens)]


def tokens_in_time(fixture, model):
    """One by one, and as a batch of texts of one length with clips of different lengths."""
    features = randn('whisper-words/features', 5, MELS, 2 * FRAMES)
    prompt = [ID['startoftranscript'], ID['en'], ID['transcribe']]
    frames = torch.tensor([40, 36, 21, 6, 8])
    processors = LogitsProcessorList(
        [
            SuppressTokensAtBeginLogitsProcessor(BEGIN_SUPPRESSED, len(prompt)),
            SuppressTokensLogitsProcessor(SUPPRESSED),
            WhisperTimeStampLogitsProcessor(model.generation_config, len(prompt)),
        ]
    )

    def write(clips, frames, heads, **options):
        output = GenerationMixin.generate(
            model,
            clips,
            decoder_input_ids=torch.tensor([prompt] * len(clips)),
            logits_processor=processors,
            suppress_tokens=None,
            begin_suppress_tokens=None,
            return_dict_in_generate=True,
            output_attentions=True,
            output_scores=True,
            do_sample=False,
            **options,
        )
        times = model._extract_token_timestamps(output, heads, num_frames=frames, num_input_ids=len(prompt))
        begin = len(prompt)
        return output.sequences[:, begin:].tolist(), [[round(t, 4) for t in row] for row in times[:, begin:].tolist()]

    for name, heads in (('upper', UPPER), ('chosen', CHOSEN)):
        for beams in (1, 3):
            rows, times = [], []
            for i in range(len(features)):
                one, when = write(features[i : i + 1], frames[i : i + 1], heads, num_beams=beams, max_new_tokens=20)
                rows += one
                times += when
                assert len(one[0]) == len(when[0]), (len(one[0]), len(when[0]))
            sure = [probabilities(model, features[i : i + 1], prompt, row) for i, row in enumerate(rows)]
            described = dict(name=f'tokens-{name}-{beams}', heads=heads, prompt=prompt, frames=(frames // 2).tolist(), rows=rows, times=times, sure=sure)
            fixture.case(described, **({'in': {'features': features}} if name == 'upper' and beams == 1 else {}))
        rows, times = write(features, frames, heads, max_new_tokens=14, min_new_tokens=14)
        sure = [probabilities(model, features[i : i + 1], prompt, row) for i, row in enumerate(rows)]
        fixture.case(dict(name=f'tokens-{name}-batch', heads=heads, prompt=prompt, frames=(frames // 2).tolist(), rows=rows, times=times, sure=sure))


def heard(wave):
    extractor = WhisperFeatureExtractor(feature_size=MELS, chunk_length=1)
    sound = wave.numpy().astype(np.float32) / 32768
    return extractor(sound, sampling_rate=16000, truncation=False, padding='longest', return_tensors='pt').input_features


def moving():
    """transformers never ends where a pair of timestamps is at a window's beginning."""
    before = [-1]

    def moves(progress):
        if int(progress[0, 0]) == before[0]:
            raise Stuck
        before[0] = int(progress[0, 0])

    return moves


def long_form(fixture, model):
    tokenizer = Words(FIXTURES / 'models/whisper-tiny/tokenizer.json', END)
    for sound, seconds in SOUNDS:
        wave = waveform(f'wave-{sound}', seconds)
        features = heard(wave)
        for heads in (UPPER, CHOSEN):
            for condition in (False, True):
                model.generation_config.alignment_heads = heads
                try:
                    output = model.generate(
                        features,
                        attention_mask=torch.ones(1, features.shape[2], dtype=torch.long),
                        return_timestamps=True,
                        return_token_timestamps=True,
                        condition_on_prev_tokens=condition,
                        language='en',
                        task='transcribe',
                        temperature=0.0,
                        logprob_threshold=-100.0,
                        return_segments=True,
                        monitor_progress=moving(),
                    )
                except Stuck:
                    print('stuck:', sound, heads, condition)
                    continue
                segments = []
                for one in output['segments'][0]:
                    tokens, times = one['tokens'].tolist(), one['token_timestamps'].tolist()
                    texts = [i for i, token in enumerate(tokens) if token < END]
                    whole = one['result']['token_timestamps'] + (times[0] - one['result']['token_timestamps'][one['idxs'][0]])
                    words, places = tokenizer.words([tokens[i] for i in texts])
                    first = one['idxs'][0]
                    timed = [
                        dict(
                            text=word,
                            start=round(whole[first + texts[at[0]] - 1].item(), 4),
                            end=round(whole[first + texts[at[-1]]].item(), 4),
                        )
                        for word, at in zip(words, places)
                    ]
                    segments.append(dict(tokens=tokens, words=timed))
                described = dict(name=f'words-{sound}-{heads[0][0]}-{condition}', sound=sound, heads=heads, condition=condition, segments=segments)
                fixture.case(described)
    del model.generation_config.alignment_heads


TEXTS = [
    ' “Hello,” he said - and (it\'s 5:30!) left... "Why?"',
    ' ¿Qué tal, señor? [x] {y} don\'t well-known',
    '你好，世界！ 日本語。',
    ' a 😀b \ud7ff end\ufffd x',
    ' … , . ( ',
]


def byte_tokenizer():
    """A vocabulary of single bytes, so that most characters have several tokens."""
    path = FIXTURES / 'models/whisper-bytes/tokenizer.json'
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        level = dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=True)
        vocabulary = {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
        model = {'type': 'BPE', 'vocab': vocabulary, 'merges': [], 'unk_token': None}
        written = {'version': '1.0', 'added_tokens': [], 'pre_tokenizer': level, 'decoder': level, 'model': model}
        path.write_text(json.dumps(written, ensure_ascii=False) + '\n')
    return Words(path, 256)


def cut(fixture):
    tokenizer = byte_tokenizer()
    for i, text in enumerate(TEXTS):
        ids = tokenizer.fast(text, add_special_tokens=False).input_ids
        for language in ('english', 'chinese'):
            for tokens in (ids, ids[:-1] if i == 2 else ids[1:]):
                words, places = tokenizer.words(tokens, language)
                fixture.case(dict(name=f'cut-{len(fixture.cases)}', tokens=tokens, language=language[:2].replace('ch', 'zh'), texts=words, places=places))


class Uniforms(Draws):
    """One number after the other, whichever call of generate asks."""

    def __init__(self, numbers):
        super().__init__(numbers[:, None])


class Near(Exception):
    pass


def text_ratio(tokenizer):
    def ratio(tokens, vocab_size):
        text = tokenizer.decode([token for token in tokens.tolist() if token < END]).encode()
        size = len(zlib.compress(text))
        # Other builds of zlib, such as Node's, give a few bytes more or less.
        sides = {len(text) / (size + more) > ratio.threshold for more in (-2, 0, 3)}
        if len(sides) > 1:
            raise Near(f'{len(text)} / {size} is too near to {ratio.threshold}')
        return len(text) / size

    return ratio


LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def fallback(fixture, model):
    tokenizer = Words(FIXTURES / 'models/whisper-tiny/tokenizer.json', END)
    numbers = coarse(rand('whisper-words/uniforms', 1500))
    fixture.case(dict(name='uniforms'), **{'in': {'uniforms': numbers}})
    log = []
    need, retrieve = model._need_fallback, model._retrieve_segment
    model._retrieve_compression_ratio = text_ratio(tokenizer)
    prepare, kept = model._prepare_decoder_input_ids, [0, 0]  # segments so far, and those that are forgotten

    def spied(*given):
        log.append(given[-1])
        return need(*given)

    def stamped(**given):
        segments, offset = retrieve(**given)
        for one in segments:
            one['temperature'] = log[-1]
        kept[0] += len(segments)
        if log[-1] >= 0.5:
            kept[1] = kept[0]
        return segments, offset

    def remembered(**given):
        given['current_segments'] = [given['current_segments'][0][kept[1] :]]
        return prepare(**given)

    model._need_fallback, model._retrieve_segment, model._prepare_decoder_input_ids = spied, stamped, remembered
    settings = [
        dict(name='unlikely', logprob=-0.9, ratio=100, silence=1.0),
        *(dict(name=f'repeats-{ratio}', logprob=-100.0, ratio=ratio, silence=1.0) for ratio in (1.3, 1.6, 2.0, 2.4)),
        *(dict(name=f'both-{ratio}', logprob=-1.02, ratio=ratio, silence=1.0) for ratio in (1.3, 1.6, 2.0, 2.4)),
        dict(name='silence', logprob=-0.95, ratio=100, silence=1e-9),
    ]
    for sound, seconds in SOUNDS:
        wave = waveform(f'wave-{sound}', seconds)
        features = heard(wave)
        for one in settings:
            for condition in (False, True):
                log.clear()
                kept[:] = [0, 0]
                model._retrieve_compression_ratio.threshold = one['ratio']
                torch_multinomial, torch.multinomial = torch.multinomial, Uniforms(numbers)
                try:
                    output = model.generate(
                        features,
                        return_timestamps=True,
                        condition_on_prev_tokens=condition,
                        language='en',
                        task='transcribe',
                        temperature=LADDER,
                        top_k=0,
                        logprob_threshold=one['logprob'],
                        compression_ratio_threshold=one['ratio'],
                        no_speech_threshold=one['silence'],
                        return_segments=True,
                        monitor_progress=moving(),
                    )
                except (Stuck, Near) as reason:
                    print('left out:', sound, one['name'], condition, repr(reason))
                    continue
                finally:
                    torch.multinomial = torch_multinomial
                segments = [dict(tokens=part['tokens'].tolist(), temperature=part['temperature']) for part in output['segments'][0]]
                name = f'fallback-{sound}-{one["name"]}-{condition}'
                fixture.case({**one, 'name': name, 'sound': sound, 'condition': condition, 'segments': segments, 'tried': list(log)})


def build_all():
    model = build()
    fixture = Fixture()
    tokens_in_time(fixture, model)
    long_form(fixture, model)
    cut(fixture)
    fallback(fixture, model)
    return fixture


if __name__ == '__main__':
    main({'models/whisper-words': build_all})
