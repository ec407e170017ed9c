"""Tiny speech language models with random weights, computed by transformers in float64: test/fixtures/models/audio-lm-<family>.safetensors,
numbers of parameters of published sizes, and folders with model and processor as transformers writes them, with the inputs and logits of
conversations: audio-lm-folder-<family>.
"""

import json
import logging
import re

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AudioFlamingo3Config,
    AudioFlamingo3ForConditionalGeneration,
    AudioFlamingo3Processor,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Qwen2AudioProcessor,
    VoxtralConfig,
    VoxtralForConditionalGeneration,
    WhisperFeatureExtractor,
)

from common import FIXTURES, Fixture, main, randn
from siglip import fill

logging.getLogger('transformers').setLevel(logging.ERROR)
AUDIO = 26
STEPS, MELS = 24, 8
TOWER = dict(num_mel_bins=MELS, max_source_positions=STEPS // 2)
TEXT = dict(
    vocab_size=29, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
    rms_norm_eps=1e-5, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
)
HIDDEN = dict(hidden_size=12, num_hidden_layers=2, num_attention_heads=3, **TOWER)
MODEL = dict(d_model=12, encoder_layers=2, encoder_attention_heads=3, encoder_ffn_dim=20, **TOWER)
# Class, configuration, whether features have a mask, and its name.
FAMILIES = dict(
    qwen2_audio=dict(
        config=Qwen2AudioConfig, network=Qwen2AudioForConditionalGeneration, mask='feature_attention_mask',
        settings=dict(audio_config=MODEL, text_config=dict(model_type='qwen2', **TEXT), audio_token_index=AUDIO),
    ),
    voxtral=dict(
        config=VoxtralConfig, network=VoxtralForConditionalGeneration, mask=None,
        settings=dict(audio_config=dict(intermediate_size=48, **HIDDEN), text_config=dict(model_type='llama', **TEXT), audio_token_id=AUDIO),
    ),
    audioflamingo3=dict(
        config=AudioFlamingo3Config, network=AudioFlamingo3ForConditionalGeneration, mask='input_features_mask',
        settings=dict(audio_config=dict(intermediate_size=20, **HIDDEN), text_config=dict(model_type='qwen2', **TEXT), audio_token_id=AUDIO),
    ),
)
SIZES = {
    'qwen2-audio-7b': ('qwen2_audio', dict(text_config=dict(model_type='qwen2', vocab_size=156032, intermediate_size=11008))),
    'voxtral-mini-3b': ('voxtral', {}),
    'voxtral-small-24b': ('voxtral', dict(text_config=dict(model_type='llama', hidden_size=5120, intermediate_size=32768, num_hidden_layers=40))),
    'audio-flamingo-3': (
        'audioflamingo3',
        dict(
            text_config=dict(
                model_type='qwen2', vocab_size=151672, hidden_size=3584, intermediate_size=18944, num_hidden_layers=28, num_attention_heads=28,
                num_key_value_heads=4,
            )
        ),
    ),
}


# Those of the other families, by the names of their classes.
MORE_SIZES = {
    'qwen3-asr-1.7b': ('Qwen3ASR', dict(audio_config=dict(output_dim=2048))),
    'glm-asr-nano-2512': ('GlmAsr', {}),
    # Of the class, since published sizes state other numbers of layers.
    'granite_speech': ('GraniteSpeech', {}),
}


def shapes(model):
    """Names of parameters and statistics under voxtorch's names, with `*` for the numbers of layers: their shape and how many there are."""
    kept = set(model.state_dict())
    found = {}
    for key, value in [*model.named_parameters(), *(one for one in model.named_buffers() if one[0] in kept)]:
        name = named(key).replace('language_model.model.model.', 'language_model.model.')
        for theirs, ours in (('encoder.', 'audio_tower.'), ('projector.', 'multi_modal_projector.')):
            name = ours + name.removeprefix(theirs) if name.startswith(theirs) else name
        pattern = re.sub(r'\.\d+\.', '.*.', name)
        shape, count = found.get(pattern, (list(value.shape), 0))
        assert shape == list(value.shape), pattern
        found[pattern] = (shape, count + 1)
    return dict(sorted(found.items()))


def modules(model):
    """transformers' own names of modules with parameters, with `*` for the numbers of layers, as PEFT writes them."""
    return sorted({re.sub(r'\.\d+(?=\.|$)', '.*', key.rpartition('.')[0]) for key, _ in model.named_parameters()})


def build(name, family):
    kind = FAMILIES[family]
    settings = kind['config'](**kind['settings'])
    settings._attn_implementation = 'eager'
    model = kind['network'](settings).eval()
    fill(model, name)
    return model


def named(name):
    """transformers' name -> voxtorch's."""
    short = name.removeprefix('model.')
    if short.startswith('lm_head'):
        return f'language_model.{short}'
    return short.replace('language_model.', 'language_model.model.')


def tokens_of(family, steps):
    return STEPS // 2 // 4 if family == 'voxtral' else (steps + 1) // 2 // 2


def batch(family, name, left=False):
    """Rows with clips in two turns, the second of two windows, with one clip and without, padded on one side."""
    lengths = [17, STEPS, 6, 9]
    audio = [[27, *[AUDIO] * tokens_of(family, steps), 28] for steps in lengths]
    long = [27, *[AUDIO] * (tokens_of(family, STEPS) + tokens_of(family, 6)), 28]
    rows = [[1, 3, *audio[0], 4, 5, *long, 5, 6], [1, *audio[3], 7, 8, 9], [1, 10, 11, 12]]
    longest = max(map(len, rows))
    pad = lambda row, value: [value] * (longest - len(row)) * left + row + [value] * (longest - len(row)) * (not left)
    ids = torch.tensor([pad(row, 0) for row in rows])
    attention = torch.tensor([pad([1] * len(row), 0) for row in rows])
    labels = ids.clone()
    labels[(ids == AUDIO) | (attention == 0)] = -100
    labels[:, 0] = -100
    mask = (torch.arange(STEPS) < torch.tensor(lengths)[:, None]).long()
    return ids, attention, labels, randn(f'{name}/features', len(lengths), MELS, STEPS), mask


def given(family, features, mask):
    key = FAMILIES[family]['mask']
    return {'input_features': features, **({key: mask} if key else {})}


def one(fixture, family):
    name = family
    model = build(name, family).double()
    ids, attention, labels, features, mask = batch(family, name)
    exact = features.double().requires_grad_()
    seen = {}
    model.model.audio_tower.register_forward_hook(lambda _, __, output: seen.update(states=output.last_hidden_state))
    model.model.multi_modal_projector.register_forward_hook(lambda _, __, output: seen.update(embeds=output))
    outputs = model(input_ids=ids, attention_mask=attention, labels=labels, **given(family, exact, mask))
    outputs.loss.backward()
    counts = [tokens_of(family, int(steps)) for steps in mask.sum(1)]
    embeds = seen['embeds'].reshape(len(counts), -1, seen['embeds'].shape[-1])
    states = seen['states'] if family == 'voxtral' else torch.cat([row[:count] for row, count in zip(seen['states'], counts)])
    greedy = dict(max_new_tokens=6, do_sample=False, eos_token_id=None)
    ids_left, attention_left, *_ = batch(family, name, left=True)
    with torch.no_grad():
        tokens = model.generate(input_ids=ids_left, attention_mask=attention_left, **given(family, features.double(), mask), **greedy)
    roles = {'in': {'input_ids': ids, 'attention_mask': attention, 'labels': labels, 'input_features': features}}
    if FAMILIES[family]['mask']:
        roles['in']['features_mask'] = mask
    fixture.case(
        dict(name=name, config=json.loads(model.config.to_json_string()), tokens=tokens[:, ids.shape[1] :].tolist()),
        **roles,
        param={named(k): v.detach().float() for k, v in model.named_parameters()},
        grad={named(k): p.grad.float() for k, p in model.named_parameters() if p.grad is not None},
        out={
            'logits': torch.where(attention[..., None].bool(), outputs.logits, 0).float(), 'loss': outputs.loss.float(), 'states': states.float(),
            'embeds': torch.cat([row[:count] for row, count in zip(embeds, counts)]).float(), 'features.grad': exact.grad.float(),
        },
    )


def family(name):
    fixture = Fixture()
    one(fixture, name)
    return fixture


def sizes():
    fixture = Fixture()
    for name, (family, settings) in SIZES.items():
        with torch.device('meta'):
            model = FAMILIES[family]['network'](FAMILIES[family]['config'](**settings))
        fixture.case(dict(name=name, parameters=sum(p.numel() for p in model.parameters()), shapes=shapes(model), modules=modules(model)))
    for name, (kind, settings) in MORE_SIZES.items():
        with torch.device('meta'):
            model = getattr(transformers, f'{kind}ForConditionalGeneration')(getattr(transformers, f'{kind}Config')(**settings))
        fixture.case(dict(name=name, parameters=sum(p.numel() for p in model.parameters()), shapes=shapes(model), modules=modules(model)))
    for name, kind in FAMILIES.items():
        config = kind['config']().to_dict()
        fixture.case(dict(name=name, defaults={key: value for key, value in config.items() if key not in BASE and key != 'text_config'}))
    return fixture


# Keys of every configuration.
BASE = PretrainedConfig().to_dict().keys()
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', '<|audio_bos|>', '<|AUDIO|>', '<|audio_eos|>', '<sound>']
# That of a folder: the clips of a conversation stand before its text.
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'audio' %}<sound>{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
PROCESSORS = dict(qwen2_audio=Qwen2AudioProcessor, audioflamingo3=AudioFlamingo3Processor)


def samples(count):
    """Samples that are the same in every language."""
    i = torch.arange(count)
    return ((i * i * 37 + i * 11) % 2001 - 1000).float() / 4096


def processor(family):
    """Bytes as tokens, and a window of one second."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(SPECIAL)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bare, eos_token='<|im_end|>', pad_token='<|endoftext|>', padding_side='left')
    extractor = WhisperFeatureExtractor(feature_size=MELS, chunk_length=1)
    template = {} if family == 'qwen2_audio' else {'chat_template': TEMPLATE}
    return PROCESSORS[family](feature_extractor=extractor, tokenizer=tokenizer, **template)


def conversations(family):
    clip = lambda count: {'type': 'audio', 'audio': count}
    text = lambda words: {'type': 'text', 'text': words}
    if family == 'audioflamingo3':
        return [
            [{'role': 'user', 'content': [text('Écoute'), clip(19200)]}],
            [{'role': 'user', 'content': [clip(4960), text('Who?')]}, {'role': 'assistant', 'content': 'A bird.'}, {'role': 'user', 'content': 'Sure?'}],
        ]
    return [
        [
            {'role': 'system', 'content': 'Be brief.'},
            {'role': 'user', 'content': [clip(4960), text('Who?')]},
            {'role': 'assistant', 'content': 'A bird.'},
            {'role': 'user', 'content': [text('And'), clip(19200), clip(401)]},
        ],
        [{'role': 'user', 'content': [clip(8000), text('Écoute')]}],
    ]


def folder(family):
    name = f'audio-lm-folder-{family}'
    fixture = Fixture()
    kind = FAMILIES[family]
    prepare = processor(family)
    settings = json.loads(json.dumps(kind['settings']))
    settings['audio_config']['max_source_positions'] = 50
    settings['text_config'].update(vocab_size=len(prepare.tokenizer), bos_token_id=None, eos_token_id=258, pad_token_id=256, max_position_embeddings=512)
    key = 'audio_token_index' if 'audio_token_index' in settings else 'audio_token_id'
    settings[key] = prepare.audio_token_id
    model = kind['network'](kind['config'](**settings)).eval()
    fill(model, name)
    model.generation_config.pad_token_id = 256
    model.save_pretrained(FIXTURES / 'models' / name)
    prepare.save_pretrained(FIXTURES / 'models' / name)
    talks = conversations(family)
    clips = [part['audio'] for talk in talks for message in talk for part in message['content'] if not isinstance(part, str) and part['type'] == 'audio']
    texts = prepare.apply_chat_template(talks, tokenize=False, add_generation_prompt=True)
    made = prepare(text=texts, audio=[samples(count).numpy() for count in clips], sampling_rate=16000, return_tensors='pt', padding=True)
    model.double()
    made['input_features'] = made['input_features'].double()
    with torch.no_grad():
        logits = model(**made).logits[:, -1]
        tokens = model.generate(**made, max_new_tokens=6, do_sample=False, eos_token_id=None)
    mask = made[kind['mask']]
    fixture.case(
        dict(name=name, conversations=talks, texts=texts, tokens=tokens[:, made['input_ids'].shape[1] :].tolist()),
        out={
            'input_ids': made['input_ids'], 'attention_mask': made['attention_mask'], 'features': made['input_features'].float(), 'mask': mask.long(),
            'logits': logits.float(),
        },
    )
    return fixture


if __name__ == '__main__':
    main({
        'models/audio-lm-sizes': sizes,
        **{f'models/audio-lm-{name}': lambda name=name: family(name) for name in FAMILIES},
        **{f'models/audio-lm-folder-{name}': lambda name=name: folder(name) for name in PROCESSORS},
    })
