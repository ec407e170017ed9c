"""Requests for a transcript by transformers' processors, and what they read from answers:
test/fixtures/models/audio-lm-transcribe.safetensors.
"""

import logging

import numpy
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AudioFlamingo3Processor,
    GlmAsrProcessor,
    PreTrainedTokenizerFast,
    Qwen3ASRFeatureExtractor,
    Qwen3ASRProcessor,
    WhisperFeatureExtractor,
)

from audio_lm import SPECIAL
from common import Fixture, main

logging.getLogger('transformers').setLevel(logging.ERROR)
# Parts of a message in their order.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CLIP = numpy.zeros(16000, numpy.float32)
ANSWERS = dict(
    qwen3_asr=['language English<asr_text>A bird sings.', 'language None<asr_text>', ' plain ', 'language \n<asr_text>so', 'German\nx<asr_text> ja '],
    audioflamingo3=[
        'The spoken content of the audio is "a bird".', "The transcription of the audio is 'it sings.'", 'The content of the input audio is "".',
    ],
)


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(SPECIAL)
    names = dict(audio_token='<|AUDIO|>', audio_bos_token='<|audio_bos|>', audio_eos_token='<|audio_eos|>')
    return PreTrainedTokenizerFast(tokenizer_object=bare, eos_token='<|im_end|>', pad_token='<|endoftext|>', extra_special_tokens=names)


def processors():
    audio = dict(audio_token='<|AUDIO|>', chat_template=TEMPLATE)
    return dict(
        qwen3_asr=Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(), tokenizer(), chat_template=TEMPLATE),
        glmasr=GlmAsrProcessor(WhisperFeatureExtractor(feature_size=128), tokenizer(), **audio),
        audioflamingo3=AudioFlamingo3Processor(WhisperFeatureExtractor(feature_size=128), tokenizer(), **audio),
    )


def requests():
    fixture = Fixture()
    for family, processor in processors().items():
        languages = ['en', 'German'] if family == 'qwen3_asr' else []
        settings = [{}, dict(prompt='Bert and Ünal'), *[dict(language=one) for one in languages]]
        for i, options in enumerate(settings):
            (text,) = processor.apply_transcription_request([CLIP], tokenize=False, **options)
            fixture.case(dict(name=f'{family}-{i}', family=family, options=options, template=TEMPLATE, text=text))
    for i, answer in enumerate(ANSWERS['qwen3_asr']):
        parsed = processors()['qwen3_asr'].parse_output(answer)
        fixture.case(dict(name=f'qwen3-answer-{i}', family='qwen3_asr', answer=answer, parsed=dict(text=parsed['transcription'], language=parsed['language'])))
    for i, answer in enumerate(ANSWERS['audioflamingo3']):
        parsed = processors()['audioflamingo3']._strip_assistant_prefix_and_quotes(answer)
        fixture.case(dict(name=f'flamingo-answer-{i}', family='audioflamingo3', answer=answer, parsed=dict(text=parsed, language=None)))
    return fixture


if __name__ == '__main__':
    main({'models/audio-lm-transcribe': requests})
