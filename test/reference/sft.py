"""Supervised fine-tuning that test/tuning/sft.test.ts compares: the masked loss and gradients of a batch that TRL's collator made, texts
normalized by transformers' BasicTextNormalizer, and a Parquet file of conversations: PYTHONPATH=<folder of trl 1.16.0 and pyarrow>
python sft.py [--check].
"""

import io
import sys
import wave

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import FIXTURES, Fixture, main, randint, randn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.whisper.english_normalizer import BasicTextNormalizer
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

# Tokens of each record, and the ranges that contribute to the loss.
RECORDS = [(7, [(3, 7)]), (12, [(2, 5), (8, 12)]), (5, [(1, 4)]), (9, [(6, 9)])]

CONFIG = {'vocab_size': 32, 'hidden_size': 16, 'intermediate_size': 24, 'num_hidden_layers': 2, 'num_attention_heads': 4,
          'num_key_value_heads': 2, 'max_position_embeddings': 64, 'tie_word_embeddings': False}  # fmt: skip

TEXTS = [
    'Hello, WORLD!  Nice   to "see" you.',
    '<noise> well [laughs] I (quietly) said: it\u2019s 5\u00a0% of \u20ac3.50',
    'Stra\u00dfe caf\u00e9 na\u00efve \ufb01ne \u4f60\u597d\u3002',
    '() (( a) b) [x> <y] ] [open (open',
    '\u0130stanbul e\u0301te\u0301 tab\there\nline',
    '',
]


def examples():
    made = []
    for i, (length, ranges) in enumerate(RECORDS):
        ids = randint(f'sft ids {i}', 3, 32, length)
        labels = torch.full_like(ids, -100)
        for start, end in ranges:
            labels[start:end] = ids[start:end]
        made.append({'input_ids': ids.tolist(), 'labels': labels.tolist()})
    return made


def sft():
    fixture = Fixture()
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).eval()
    for name, parameter in model.named_parameters():
        scale = 1.0 if parameter.ndim == 1 else 0.3
        parameter.data = randn(f'sft {name}', *parameter.shape, scale=scale)
    batch = DataCollatorForLanguageModeling(pad_token_id=0)(examples())
    loss = model(**batch).loss
    loss.backward()
    fixture.case({'name': 'loss', 'config': CONFIG, 'examples': examples()},
                 param=dict(model.named_parameters()), out={'loss': loss},
                 grad={name: one.grad for name, one in model.named_parameters()})  # fmt: skip
    normalize = BasicTextNormalizer()
    fixture.case({'name': 'texts', 'texts': TEXTS, 'normalized': [normalize(text).strip() for text in TEXTS]})
    return fixture


def clip(samples):
    file = io.BytesIO()
    with wave.open(file, 'wb') as wav:
        wav.setnchannels(1)
        wav.setsampwidth(2)
        wav.setframerate(16000)
        wav.writeframes((np.sin(np.arange(samples) / 7) * 8000).astype('<i2').tobytes())
    return {'bytes': file.getvalue(), 'path': None}


def parquet(path):
    """Conversations as datasets writes them: every part has all fields, and those of other kinds are null."""
    text = lambda value: {'type': 'text', 'text': value, 'audio': None}  # noqa: E731
    audio = lambda samples: {'type': 'audio', 'text': None, 'audio': clip(samples)}  # noqa: E731
    rows = [
        [{'role': 'user', 'content': [audio(3200), text('what?')]}, {'role': 'assistant', 'content': [text('a tone')]}],
        [{'role': 'user', 'content': [text('who?')]}, {'role': 'assistant', 'content': [text('nobody')]}],
        [{'role': 'user', 'content': [text('empty?')]}, {'role': 'assistant', 'content': None}],
    ]
    struct = pa.struct([('bytes', pa.binary()), ('path', pa.string())])
    part = pa.struct([('type', pa.string()), ('text', pa.string()), ('audio', struct)])
    message = pa.struct([('role', pa.string()), ('content', pa.list_(part))])
    pq.write_table(pa.table({'messages': pa.array(rows, pa.list_(message))}), path)


if __name__ == '__main__':
    if '--check' not in sys.argv:
        parquet(FIXTURES / 'tuning' / 'messages.parquet')
    main({'tuning/sft': sft})
