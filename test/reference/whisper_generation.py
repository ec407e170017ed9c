"""A tiny Whisper that generates and transcribes, by transformers: test/fixtures/models/whisper-generation.safetensors, and the
directory models/whisper-tiny as save_pretrained writes it, with a tokenizer of Whisper's layout.

Its window is 20 frames, 0.4 seconds. `--check` compares the answers; the directory is written where it is missing.
"""

import json

import numpy as np
import torch
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)
from transformers.generation import (
    GenerationMixin,
    SuppressTokensAtBeginLogitsProcessor,
    SuppressTokensLogitsProcessor,
    WhisperTimeStampLogitsProcessor,
)

from common import FIXTURES, Fixture, generator, main, randn

LETTERS = 'Ġ a b c d e f g h i k l m n o p r s t u . , Ġt th'.split()
END = len(LETTERS)
NAMES = ['endoftext', 'startoftranscript', 'en', 'de', 'fr', 'translate', 'transcribe', 'startoflm', 'startofprev', 'nospeech', 'notimestamps']
ID = {name: END + i for i, name in enumerate(NAMES)}
FIRST = END + len(NAMES)
FRAMES, POSITIONS, MELS = 20, 48, 8
VOCABULARY = FIRST + FRAMES + 1
SUPPRESSED = [3, ID['startoftranscript'], *range(ID['translate'], FIRST - 1)]
BEGIN_SUPPRESSED = [0, ID['endoftext']]


def build():
    config = WhisperConfig(
        vocab_size=VOCABULARY,
        num_mel_bins=MELS,
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_layers=2,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        max_source_positions=FRAMES,
        max_target_positions=POSITIONS,
        pad_token_id=ID['endoftext'],
        bos_token_id=ID['endoftext'],
        eos_token_id=ID['endoftext'],
        decoder_start_token_id=ID['startoftranscript'],
        begin_suppress_tokens=None,
    )
    config._attn_implementation = 'eager'
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key == 'model.encoder.embed_positions.weight':
                continue
            parameter.copy_(randn(f'whisper-tiny/{key}', *parameter.shape, scale=0.6))
            if 'layer_norm' in key:
                parameter.add_(1)
    model.generation_config = GenerationConfig(
        max_length=POSITIONS,
        pad_token_id=ID['endoftext'],
        bos_token_id=ID['endoftext'],
        eos_token_id=ID['endoftext'],
        decoder_start_token_id=ID['startoftranscript'],
        suppress_tokens=SUPPRESSED,
        begin_suppress_tokens=BEGIN_SUPPRESSED,
        max_initial_timestamp_index=10,
        no_timestamps_token_id=ID['notimestamps'],
        prev_sot_token_id=ID['startofprev'],
        is_multilingual=True,
        lang_to_id={f'<|{code}|>': ID[code] for code in ('en', 'de', 'fr')},
        task_to_id={task: ID[task] for task in ('transcribe', 'translate')},
        return_timestamps=False,
    )
    return model


def tokenizer_json():
    added = [{'id': ID[name], 'content': f'<|{name}|>', 'special': True} for name in NAMES]
    added += [{'id': FIRST + i, 'content': f'<|{i * 0.02:.2f}|>', 'special': False} for i in range(FRAMES + 1)]
    plain = dict(single_word=False, lstrip=False, rstrip=False, normalized=False)
    level = dict(type='ByteLevel', add_prefix_space=False, trim_offsets=True, use_regex=True)
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)}
    return {
        'version': '1.0',
        'truncation': None,
        'padding': None,
        'added_tokens': [{**token, **plain} for token in added],
        'normalizer': None,
        'pre_tokenizer': level,
        'post_processor': None,
        'decoder': level,
        'model': {'type': 'BPE', 'vocab': vocabulary, 'merges': ['Ġ t', 't h'], 'unk_token': None},
    }


def write_directory(model):
    directory = FIXTURES / 'models/whisper-tiny'
    if (directory / 'model.safetensors').exists():
        return
    model.save_pretrained(directory)
    (directory / 'tokenizer.json').write_text(json.dumps(tokenizer_json(), ensure_ascii=False) + '\n')


def generated(fixture, model):
    features = randn('whisper-tiny/features', 6, MELS, 2 * FRAMES)
    start = torch.tensor([[ID['startoftranscript'], ID['en'], ID['transcribe']]]).repeat(6, 1)
    longer = torch.cat([torch.tensor([[ID['startofprev'], 5, 6, FIRST + 3, 7]]).repeat(6, 1), start], 1)
    for name, ids in (('start', start), ('longer', longer)):
        for beams in (1, 4):
            begin = ids.shape[1]
            processors = LogitsProcessorList(
                [
                    SuppressTokensAtBeginLogitsProcessor(BEGIN_SUPPRESSED, begin),
                    SuppressTokensLogitsProcessor(SUPPRESSED),
                    WhisperTimeStampLogitsProcessor(model.generation_config, begin),
                ]
            )
            rows = [
                GenerationMixin.generate(
                    model,
                    one[None],
                    decoder_input_ids=prompt[None],
                    logits_processor=processors,
                    suppress_tokens=None,
                    begin_suppress_tokens=None,
                    num_beams=beams,
                    do_sample=False,
                    max_length=POSITIONS,
                )[0, begin:].tolist()
                for one, prompt in zip(features, ids)
            ]
            described = {'name': f'{name}-{beams}', 'beams': beams, 'prompt': ids[0].tolist(), 'rows': rows}
            fixture.case(described, **{'in': {'features': features}})


def waveform(name, seconds):
    time = np.arange(int(seconds * 16000)) / 16000
    random = generator(f'whisper-tiny/{name}')
    loud = np.interp(time, np.arange(0, seconds + 0.2, 0.1), random.random_sample(len(np.arange(0, seconds + 0.2, 0.1))))
    pitch = 200 + 600 * np.interp(time, np.arange(0, seconds + 0.2, 0.15), random.random_sample(len(np.arange(0, seconds + 0.2, 0.15))))
    wave = loud * np.sin(2 * np.pi * np.cumsum(pitch) / 16000) + 0.05 * random.standard_normal(len(time))
    return torch.from_numpy((wave * 0.5 * 32768).clip(-32768, 32767).astype(np.int16))


class Stuck(Exception):
    pass


def transcribed(fixture, model):
    extractor = WhisperFeatureExtractor(feature_size=MELS, chunk_length=1)
    for sound, seconds in enumerate([1.3, 0.87, 1.9]):
        wave = waveform(f'wave-{sound}', seconds)
        features = extractor(wave.numpy().astype(np.float32) / 32768, sampling_rate=16000, truncation=False, padding='longest', return_tensors='pt').input_features
        for condition in (False, True):
            for beams, language, task in ((1, None, 'transcribe'), (4, 'de', 'translate'), (1, 'french', 'transcribe')):
                before = [-1]

                def moves(progress):
                    if int(progress[0, 0]) == before[0]:
                        raise Stuck
                    before[0] = int(progress[0, 0])

                try:
                    output = model.generate(
                        features,
                        return_timestamps=True,
                        condition_on_prev_tokens=condition,
                        num_beams=beams,
                        language=language,
                        task=task,
                        temperature=0.0,
                        logprob_threshold=-100.0,
                        return_segments=True,
                        monitor_progress=moves,
                    )
                except Stuck:  # transformers never ends where a pair of timestamps is at a window's beginning
                    print('stuck:', sound, condition, beams)
                    continue
                segments = []
                for one in output['segments'][0]:
                    result = one['result']
                    if beams > 1:
                        sure = result['sequences_scores'].item()
                    else:
                        scores = result['scores']
                        written = result['sequences'][-len(scores) :] if len(scores) else result['sequences']
                        ended = (written == ID['endoftext']).nonzero()
                        if len(ended):
                            written = written[: int(ended[0]) + 1]
                        sure = model._retrieve_avg_logprobs(scores, written, 0.0).item()
                    tokens = one['tokens'].tolist()
                    segments.append(dict(start=round(float(one['start']), 6), end=round(float(one['end']), 6), tokens=tokens, sure=round(sure, 5)))
                detected = model.detect_language(features, num_segment_frames=2 * FRAMES).item()
                start = torch.tensor([[ID['startoftranscript']]])
                with torch.no_grad():
                    logits = model(features[:, :, : 2 * FRAMES], decoder_input_ids=start).logits
                described = dict(
                    name=f'wave-{sound}-{beams}-{language}-{condition}',
                    condition=condition,
                    beams=beams,
                    language=language,
                    task=task,
                    detected=NAMES[detected - END],
                    no_speech=round(logits[0, -1].softmax(-1)[ID['nospeech']].item(), 7),
                    segments=segments,
                )
                fixture.case(described, **({'in': {'wave': wave}} if beams == 1 and language is None and not condition else {}))


def build_all():
    model = build()
    write_directory(model)
    fixture = Fixture()
    generated(fixture, model)
    transcribed(fixture, model)
    return fixture


if __name__ == '__main__':
    main({'models/whisper-generation': build_all})
