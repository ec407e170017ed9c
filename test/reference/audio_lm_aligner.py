"""A tiny forced aligner of Qwen3-ASR with random weights, computed by transformers: test/fixtures/models/audio-lm-aligner.safetensors, and the folder
that it saves, test/fixtures/models/audio-lm-folder-aligner.

`--saved DIRECTORY` loads `DIRECTORY/aligner`, which voxtorch saved, and compares its logits with the fixture's.
"""

import sys
from pathlib import Path

import numpy
import torch
from safetensors import safe_open
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3ASRConfig, Qwen3ASRFeatureExtractor, Qwen3ASRForTokenClassification, Qwen3ASRProcessor
from transformers.models.qwen3_asr.processing_qwen3_asr import _fix_timestamps

from audio_encoders import exact, fill
from audio_lm import samples
from common import FIXTURES, Fixture, generator, main

SPECIAL = ['<|endoftext|>', '<|im_end|>', '<|audio_start|>', '<|audio_pad|>', '<|audio_end|>', '<timestamp>']
PAD, END, AUDIO, TIME = 256, 257, 259, 261
BINS = 40
FOLDER = FIXTURES / 'models/audio-lm-folder-aligner'
TEMPLATE = (
    "{% for part in messages[0]['content'] %}{% if part['type'] == 'audio' %}<|audio_start|><|audio_pad|><|audio_end|>"
    "{% else %}{{ part['text'] }}<timestamp><timestamp>{% endif %}{% endfor %}"
)
TEXTS = [('Wer singt da? Ein Vögel-Paar, it\'s 3.', 'de', 20000), ('我的 iPhone 很好。再见', 'zh', 9000), ("Tout d'un coup", None, 31000)]


def processor():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bare = Tokenizer(models.BPE(vocab={one: i for i, one in enumerate(alphabet)}, merges=[]))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    bare.add_special_tokens(SPECIAL)
    names = dict(audio_token='<|audio_pad|>', audio_bos_token='<|audio_start|>', audio_eos_token='<|audio_end|>')
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, eos_token='<|im_end|>', pad_token='<|endoftext|>', padding_side='left', extra_special_tokens=names,
    )
    return Qwen3ASRProcessor(Qwen3ASRFeatureExtractor(feature_size=5), tokenizer, chat_template=TEMPLATE)


def build():
    config = Qwen3ASRConfig(
        audio_config=dict(
            num_mel_bins=5, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=12, d_model=8, n_window_infer=100, downsample_hidden_size=4,
            output_dim=16,
        ),
        text_config=dict(
            model_type='qwen3', vocab_size=262, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=1, max_position_embeddings=512, head_dim=8, bos_token_id=None, eos_token_id=END, pad_token_id=PAD,
        ),
        audio_token_id=AUDIO, timestamp_token_id=TIME, pad_token_id=PAD, eos_token_id=END, num_labels=BINS,
    )
    config._attn_implementation = 'eager'
    model = Qwen3ASRForTokenClassification(config).eval()
    fill(model, 'aligner')
    return model


def inputs_of(prepare, text, language, count):
    return prepare.prepare_forced_aligner_inputs([samples(count).numpy()], text, language=language, return_tensors='pt')


def aligner():
    fixture = Fixture()
    model, prepare = build(), processor()
    if '--check' not in sys.argv:
        model.save_pretrained(FOLDER)
        prepare.save_pretrained(FOLDER)
    exact(model)
    for i, (text, language, count) in enumerate(TEXTS):
        inputs, words = inputs_of(prepare, text, language, count)
        ids = inputs['input_ids']
        labels = torch.where(ids == TIME, torch.arange(ids.shape[1]) % BINS, -100)
        inputs['input_features'] = inputs['input_features'].double()
        model.zero_grad()
        outputs = model(**inputs, labels=labels)
        outputs.loss.backward()
        times = prepare.decode_forced_alignment(outputs.logits, ids, words, TIME)[0]
        fixture.case(
            dict(name=f'text-{i}', text=text, language=language, samples=count, words=times),
            out={
                'input_ids': ids, 'labels': labels, 'logits': outputs.logits.float(), 'loss': outputs.loss.float(),
                'score.grad': model.score.weight.grad.float(),
            },
        )
    random = generator('aligner/times')
    lists = [random.randint(0, high, count).tolist() for high in (4, 12, 60) for count in (1, 2, 3, 7, 24, 60)]
    lists += [[5, 4, 3, 2, 1], [1, 9, 9, 2, 3], [1, 2, 90, 80, 70, 60, 3], [7, 1, 2, 3], [1, 2, 3, 0, 0, 0]]
    fixture.case(dict(name='times', times=[[one, _fix_timestamps(numpy.array(one, numpy.float32) * 80)] for one in lists]))
    return fixture


def saved(directory):
    model, info = Qwen3ASRForTokenClassification.from_pretrained(
        Path(directory) / 'aligner', output_loading_info=True, attn_implementation='eager',
    )
    assert not any(info[key] for key in ('missing_keys', 'unexpected_keys', 'mismatched_keys')), info
    exact(model.eval())
    inputs, _ = inputs_of(processor(), *TEXTS[0])
    inputs['input_features'] = inputs['input_features'].double()
    with safe_open(FIXTURES / 'models/audio-lm-aligner.safetensors', 'pt') as file:
        expected = file.get_tensor('text-0/out/logits').double()
    with torch.no_grad():
        error = ((model(**inputs).logits - expected).abs().max() / expected.abs().max()).item()
    print(f'aligner: relative error of the logits {error:.1e}')
    assert error < 1e-6


if __name__ == '__main__':
    if '--saved' in sys.argv:
        saved(sys.argv[sys.argv.index('--saved') + 1])
    else:
        main({'models/audio-lm-aligner': aligner})
