"""Tiny Ultravox with random weights, computed in float64 by the code of its repository: test/fixtures/models/audio-lm-ultravox.safetensors, and
the folders that it saves, test/fixtures/models/audio-lm-folder-ultravox.

The code runs from a clone of https://github.com/fixie-ai/ultravox at REVISION, in ULTRAVOX or else a temporary folder. It needs packages of its
time, in an environment of its own: transformers==4.51.3, peft==0.15.2, accelerate==1.7.0.

`--saved DIRECTORY` loads the folders in it, which voxtorch saved, and compares their logits with the fixture's.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from common import FIXTURES, Fixture, main, randn

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()
REVISION = '648efe7f55510afff7adb45f076e904b3aba1d02'
SCRATCH = tempfile.TemporaryDirectory()
FOLDER = 'audio-lm-folder-ultravox'
STEPS, MELS, FACTOR = 48, 8, 8
# The first token after the vocabulary; the original has the end token in its places.
AUDIO, END = 263, 258
WHISPER = dict(
    d_model=12, encoder_layers=2, encoder_attention_heads=3, encoder_ffn_dim=20, num_mel_bins=MELS, max_source_positions=STEPS // 2, vocab_size=30,
    decoder_layers=1, decoder_attention_heads=3, decoder_ffn_dim=20, max_target_positions=8, pad_token_id=1, bos_token_id=1, eos_token_id=2,
    decoder_start_token_id=3, suppress_tokens=None, begin_suppress_tokens=None,
)
LLAMA = dict(
    vocab_size=AUDIO, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=512, rms_norm_eps=1e-5, head_dim=8, bos_token_id=None, eos_token_id=END, pad_token_id=256,
)
# Projector and adapters, and the part that is in the model's own folder. Embeddings and output layer are one, except in `gelu`.
CASES = dict(
    v05=(dict(projector_ln_mid=True), None),
    v04=(dict(projector_ln_mid=False), 'audio'),
    gelu=(dict(projector_ln_mid=True, projector_act='gelu'), 'text'),
    lora=(
        dict(
            projector_ln_mid=True, audio_model_lora_config=dict(r=2, lora_alpha=6, target_modules=['k_proj', 'fc1']),
            text_model_lora_config=dict(r=3, lora_alpha=2, target_modules=['q_proj', 'down_proj']),
        ),
        None,
    ),
)
LENGTHS = [33, STEPS, 12, 7]
SPECIAL = ['<|endoftext|>', '<|im_start|>', '<|im_end|>']
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def original():
    """The modules of the repository as a package; its __init__ needs all of its training."""
    clone = os.environ.get('ULTRAVOX')
    if clone is None:
        clone = f'{SCRATCH.name}/clone'
        subprocess.run(['git', 'clone', '--quiet', 'https://github.com/fixie-ai/ultravox', clone], check=True)
    package = Path(SCRATCH.name) / 'ultravox_original'
    package.mkdir()
    (package / '__init__.py').touch()
    for name in ('config', 'model', 'processing'):
        source = subprocess.run(
            ['git', '-C', clone, 'show', f'{REVISION}:ultravox/model/ultravox_{name}.py'], check=True, stdout=subprocess.PIPE,
        ).stdout
        (package / f'ultravox_{name}.py').write_bytes(source)
    sys.path.insert(0, SCRATCH.name)
    return [importlib.import_module(f'ultravox_original.ultravox_{name}') for name in ('config', 'model', 'processing')]


ultravox_config, ultravox_model, ultravox_processing = original()


def fill(model, name):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
            if ('norm' in key or '.ln_' in key or key.startswith('ln_')) and key.endswith('weight'):
                parameter.add_(1)


def tokenizer():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(SPECIAL)
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=bare, eos_token='<|im_end|>', pad_token='<|endoftext|>', padding_side='left')
    made.chat_template = TEMPLATE
    return made


def extractor():
    return transformers.WhisperFeatureExtractor(feature_size=MELS)


def parts(tied, root):
    """Folders of Whisper and of Llama."""
    whisper = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig(**WHISPER))
    llama = transformers.LlamaForCausalLM(transformers.LlamaConfig(**LLAMA, tie_word_embeddings=tied))
    for part, model in (('whisper', whisper), ('llama', llama)):
        fill(model, f'ultravox/{part}')
        if part == 'llama' and tied:
            model.tie_weights()
        model.save_pretrained(root / part)


def build(name, root):
    settings, _ = CASES[name]
    parts(name != 'gelu', root)
    config = ultravox_config.UltravoxConfig(
        audio_model_id=str(root / 'whisper'), text_model_id=str(root / 'llama'), hidden_size=14, stack_factor=FACTOR, norm_init=0.4,
        torch_dtype='float32', **json.loads(json.dumps(settings)),
    )
    model = ultravox_model.UltravoxModel(config).eval()
    model.language_model.config._attn_implementation = 'eager'
    fill(model.multi_modal_projector, f'ultravox/{name}/projector')
    for part in ('audio_tower', 'language_model'):
        fill_adapters(getattr(model, part), f'ultravox/{name}/{part}')
    return model


def fill_adapters(model, name):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if 'lora_' in key:
                parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))


def saved_folder(model, name, root):
    """The folder that the original saves, with the names of its parts in place of paths, and without its code."""
    folder = FIXTURES / f'models/{FOLDER}/{name}'
    inside = CASES[name][1]
    if inside is not None:
        # As `merge_and_unload` does.
        module = {'audio': 'audio_tower', 'text': 'language_model'}[inside]
        setattr(model.config, f'{inside}_model_id', None)
        model.keep_params.update(f'{module}.{key}' for key, _ in getattr(model, module).named_parameters())
    model.save_pretrained(folder)
    for code in folder.glob('*.py'):
        code.unlink()
    path = folder / 'config.json'
    path.write_text(path.read_text().replace(f'{root}/', ''))
    for part in ('whisper', 'llama'):
        if name == 'v05':
            target = FIXTURES / f'models/{FOLDER}/{part}'
            target.mkdir(exist_ok=True)
            for file in ('config.json', 'model.safetensors'):
                (target / file).write_bytes((root / part / file).read_bytes())
    if name == 'v05':
        tokenizer().save_pretrained(FIXTURES / f'models/{FOLDER}/v05')


def tokens_of(steps):
    return -(-steps // (2 * FACTOR))


def batch(left=False):
    """Rows with clips in two turns, the second of two windows, with one clip and without, padded on one side."""
    audio = [[97, *[AUDIO] * tokens_of(steps), 98] for steps in LENGTHS]
    long = [97, *[AUDIO] * (tokens_of(STEPS) + tokens_of(LENGTHS[2])), 98]
    rows = [[1, 3, *audio[0], 4, 5, *long, 5, 6], [1, *audio[3], 7, 8, 9], [1, 10, 11, 12]]
    longest = max(map(len, rows))
    pad = lambda row, value: [value] * (longest - len(row)) * left + row + [value] * (longest - len(row)) * (not left)
    ids = torch.tensor([pad(row, 256) for row in rows])
    attention = torch.tensor([pad([1] * len(row), 0) for row in rows])
    labels = ids.clone()
    labels[(ids == AUDIO) | (attention == 0)] = -100
    labels[:, 0] = -100
    mask = (torch.arange(STEPS) < torch.tensor(LENGTHS)[:, None]).long()
    return ids, attention, labels, randn('ultravox/features', len(LENGTHS), MELS, STEPS) * mask[:, None], mask


def given(ids, attention, features):
    """The batch in the original's form: the end token in the places of audio, with their starts and lengths."""
    counts, starts = [tokens_of(steps) for steps in LENGTHS], []
    for row in ids.tolist():
        taken = 0
        places = [i for i, one in enumerate(row) if one == AUDIO]
        while taken < len(places):
            starts.append(places[taken])
            taken += counts[len(starts) - 1]
    return dict(
        input_ids=ids.masked_fill(ids == AUDIO, END), attention_mask=attention, audio_values=features, audio_lens=torch.tensor(LENGTHS),
        audio_token_start_idx=torch.tensor(starts), audio_token_len=torch.tensor(counts), audio_batch_size=torch.tensor([3, 1, 0]),
    )


def some(logits, attention):
    """Those of every eighth token of the vocabulary, and 0 for padding."""
    return torch.where(attention[..., None].bool(), logits, 0)[..., ::8]


def greedy(model, inputs, **more):
    with torch.no_grad():
        tokens = model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None, **more)
    return tokens[:, inputs['input_ids'].shape[1] :].tolist()



def model_case(fixture, name):
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as folder:
        root = Path(folder)
        model = build(name, root)
        if '--check' not in sys.argv:
            saved_folder(model, name, root)
    config = json.loads(model.config.to_json_string())
    config.update(audio_config=WHISPER, text_config={'model_type': 'llama', **LLAMA, 'tie_word_embeddings': name != 'gelu'})
    weights = {key: value.detach().clone() for key, value in model.named_parameters()} if name == 'v05' else {}
    for key, parameter in model.named_parameters():
        parameter.requires_grad = 'embed_positions' not in key
    model.double()
    ids, attention, labels, features, mask = batch()
    exact = features.double().requires_grad_()
    seen = {}
    project = model.multi_modal_projector.forward

    def watched(states):
        seen.update(states=states, embeds=project(states))
        return seen['embeds']

    # The original calls `forward`, without hooks.
    model.multi_modal_projector.forward = watched
    outputs = model(**given(ids, attention, exact), labels=labels)
    outputs.loss.backward()
    embeds = torch.cat([row[: tokens_of(steps)] for row, steps in zip(seen['embeds'], LENGTHS)])
    states = torch.cat([row[: (steps + 1) // 2] for row, steps in zip(seen['states'], LENGTHS)])
    left, attention_left, *_ = batch(left=True)
    # In float64, states of padding on the left are not numbers: the mask is -inf in a softmax of float32.
    model.float()
    inputs = given(left, attention_left, features)
    fixture.case(
        dict(
            name=name, config={key: config[key] for key in KEYS if key in config}, tokens=greedy(model, inputs),
            penalized=greedy(model, inputs, repetition_penalty=1.8),
        ),
        **{'in': {'input_ids': ids, 'attention_mask': attention, 'labels': labels, 'input_features': features, 'features_mask': mask}},
        param=weights,
        grad={key: value.grad.float() for key, value in model.named_parameters() if value.grad is not None and (name == 'v05' or 'projector' in key)},
        out={
            'logits': some(outputs.logits, attention).float(), 'loss': outputs.loss.float(), 'states': states.float(),
            'embeds': embeds.float(), 'features.grad': exact.grad.float(),
        },
    )
    if name == 'v05':
        conversations(fixture, model.double())


# Keys of the configuration that describe the network.
KEYS = [
    'model_type', 'audio_config', 'text_config', 'hidden_size', 'stack_factor', 'norm_init', 'projector_act', 'projector_ln_mid', 'ignore_index',
    'audio_latency_block_size',
]


def samples(count):
    """Samples that are the same in every language."""
    i = torch.arange(count)
    return ((i * i * 37 + i * 11) % 2001 - 1000).float() / 4096


class AudioProcessor(transformers.WhisperProcessor):
    def __init__(self):
        self.feature_extractor = self.current_processor = extractor()

    def __call__(self, *args, **kwargs):
        return self.feature_extractor(*args, **kwargs)


def conversations(fixture, model):
    """Each alone: the original takes one text, and pads the clips of a text with silence."""
    processor = ultravox_processing.UltravoxProcessor.__new__(ultravox_processing.UltravoxProcessor)
    made = tokenizer()
    processor.__dict__.update(
        encoder_ds_factor=2, stack_factor=FACTOR, audio_context_size=model.audio_tower_context_length, audio_processor=AudioProcessor(),
        tokenizer=made, vocab=made.get_vocab(), audio_token_replacement=made.eos_token,
    )
    talks = {
        'chat-short': ([5000], [{'role': 'system', 'content': 'Be brief.'}, {'role': 'user', 'content': [{'type': 'audio', 'audio': 5000}, 'Écoute']}]),
        'chat-long': ([19300], [{'role': 'user', 'content': ['Who? ', {'type': 'audio', 'audio': 19300}]}]),
        'chat-text': (
            [], [{'role': 'user', 'content': 'Who?'}, {'role': 'assistant', 'content': 'A bird.'}, {'role': 'user', 'content': 'Sure?'}],
        ),
    }
    for name, (clips, messages) in talks.items():
        texts = [
            {**one, 'content': one['content'] if isinstance(one['content'], str) else ''.join(part if isinstance(part, str) else '<|audio|>' for part in one['content'])}
            for one in messages
        ]
        text = made.apply_chat_template(texts, tokenize=False, add_generation_prompt=True)
        inputs = processor(text=text, audios=[samples(count).numpy() for count in clips], sampling_rate=16000)
        told = dict(input_ids=inputs['input_ids'], attention_mask=inputs['attention_mask'])
        if clips:
            told.update(features=inputs['audio_values'], lengths=inputs['audio_lens'])
            inputs['audio_values'] = inputs['audio_values'].double()
        with torch.no_grad():
            logits = model(**inputs).logits[:, -1]
        fixture.case(dict(name=name, messages=messages, chat=greedy(model, inputs)), out={**told, 'last': logits.float()})


# Whisper large-v3-turbo, and the language models of Ultravox v0.5.
TURBO = dict(d_model=1280, encoder_layers=32, encoder_attention_heads=20, encoder_ffn_dim=5120, num_mel_bins=128)
SIZES = {
    'ultravox-v0.5-llama-3.2-1b': dict(
        hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32, head_dim=64, tie_word_embeddings=True,
    ),
    'ultravox-v0.5-llama-3.1-8b': dict(intermediate_size=14336),
}


def sizes(fixture):
    for name, text in SIZES.items():
        config = ultravox_config.UltravoxConfig(
            audio_config=dict(model_type='whisper', _name_or_path='openai/whisper-large-v3-turbo', **TURBO), projector_ln_mid=True,
            text_config=dict(model_type='llama', vocab_size=128256, num_key_value_heads=8, **text), torch_dtype='bfloat16',
        )
        model = ultravox_model.UltravoxModel(config)
        model.tie_weights()
        found = {}
        for key, value in model.named_parameters():
            pattern = re.sub(r'\.\d+\.', '.*.', key)
            found[pattern] = (list(value.shape), found.get(pattern, (None, 0))[1] + 1)
        fixture.case(dict(name=name, parameters=sum(one.numel() for one in model.parameters()), shapes=dict(sorted(found.items()))))


def all_cases():
    fixture = Fixture()
    for name in CASES:
        model_case(fixture, name)
    sizes(fixture)
    return fixture


def saved(directory):
    """Folders of voxtorch, read by the original."""
    for name in CASES:
        with safe_open(FIXTURES / 'models/audio-lm-ultravox.safetensors', 'pt') as file:
            expected = file.get_tensor(f'{name}/out/logits').double()
        model, info = ultravox_model.UltravoxModel.from_pretrained(Path(directory) / name, output_loading_info=True)
        assert not any(info[key] for key in ('unexpected_keys', 'mismatched_keys')), (name, info)
        model.double().eval()
        ids, attention, _, features, _ = batch()
        with torch.no_grad():
            logits = some(model(**given(ids, attention, features.double())).logits, attention)
        error = ((logits - expected).abs().max() / expected.abs().max()).item()
        print(f'{name}: relative error of the logits {error:.1e}')
        assert error < 1e-6, name


if __name__ == '__main__':
    if '--saved' in sys.argv:
        saved(sys.argv[sys.argv.index('--saved') + 1])
    else:
        main({'models/audio-lm-ultravox': all_cases})
