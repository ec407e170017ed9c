"""What transformers generates from folders whose generation_config.json, or config.json, says how:
test/fixtures/models/generation-files.json. The network is `llama` of generation.py.

    python test/reference/generation_files.py
    python test/reference/generation_files.py --saved [MODULE]     MODULE is the built library; default dist/index.js

With `--saved`, voxtorch loads and saves each folder, and transformers generates from what it saved. Prints
(transformers 5.24.0): 9 of 9 folders generate the same after DecoderLM.save
"""

import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import torch
from transformers import GenerationConfig, LlamaForCausalLM, logging

from common import FIXTURES
from generation import PAD, build, prompts

warnings.filterwarnings('ignore')
logging.set_verbosity_error()
PATH = FIXTURES / 'models/generation-files.json'
ENDS = dict(eos_token_id=[5, 17], pad_token_id=PAD)
CASES = [
    dict(name='ends', generation=dict(**ENDS, max_new_tokens=9)),
    dict(name='one end', generation=dict(eos_token_id=29, pad_token_id=PAD, max_length=14)),
    dict(name='beams', generation=dict(**ENDS, max_new_tokens=8, num_beams=3, num_return_sequences=2, length_penalty=0.6, early_stopping=True)),
    dict(name='penalties', generation=dict(**ENDS, max_new_tokens=12, repetition_penalty=1.7, no_repeat_ngram_size=2)),
    dict(name='forbidden', generation=dict(**ENDS, max_new_tokens=8, suppress_tokens=[3, 12, 20], begin_suppress_tokens=[8, 30], bad_words_ids=[[10, 11], [21]], min_new_tokens=5)),
    dict(name='bias', generation=dict(**ENDS, max_new_tokens=8, sequence_bias=[[[6], 1.5], [[6, 7], 4.0]], forced_eos_token_id=29, renormalize_logits=True)),
    dict(name='decay', generation=dict(**ENDS, max_new_tokens=14, exponential_decay_length_penalty=[3, 1.6], remove_invalid_values=True)),
    dict(name='no effect', generation=dict(**ENDS, max_new_tokens=6, use_cache=True, cache_implementation='dynamic', encoder_repetition_penalty=1.0, diversity_penalty=0.0)),
    dict(name='config.json', config=dict(**ENDS, num_beams=2, max_length=16, repetition_penalty=1.3)),
]


def folder_of(case, model, folder):
    model.save_pretrained(folder)
    (folder / 'generation_config.json').unlink(missing_ok=True)
    if 'generation' in case:
        GenerationConfig(**case['generation']).save_pretrained(folder)
    path = folder / 'config.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), **case.get('config', {})}))


def tokens_of(folder):
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    ids, mask = prompts()
    rows = []
    for row, real in zip(ids[:12], mask[:12].bool()):
        prompt = row[real][None]
        output = model.generate(input_ids=prompt, attention_mask=torch.ones_like(prompt))
        rows.append([one[prompt.shape[1] :].tolist() for one in output])
    return rows


RUN = """
const { DecoderLM } = await import(process.argv[1])
for (const folder of process.argv.slice(2)) await (await DecoderLM.fromPretrained(folder)).save(`${folder}/saved`)
"""


def saved(module):
    stored = json.loads(PATH.read_text())['cases']
    with tempfile.TemporaryDirectory() as directory:
        folders = [Path(directory) / str(i) for i in range(len(CASES))]
        for case, folder in zip(CASES, folders):
            folder_of(case, build('llama'), folder)
        subprocess.run(['node', '--input-type=module', '-e', RUN, str(module), *map(str, folders)], check=True)
        same = [tokens_of(folder / 'saved') == case['tokens'] for folder, case in zip(folders, stored)]
    print(f'{sum(same)} of {len(same)} folders generate the same after DecoderLM.save')
    for case, good in zip(CASES, same):
        if not good:
            print('differs:', case['name'])


def write():
    cases = []
    for case in CASES:
        with tempfile.TemporaryDirectory() as directory:
            folder = Path(directory)
            folder_of(case, build('llama'), folder)
            file = folder / 'generation_config.json'
            generation = json.loads(file.read_text()) if file.exists() else None
            cases.append(dict(name=case['name'], generation=generation, config=case.get('config'), tokens=tokens_of(folder)))
    return json.dumps(dict(cases=cases)) + '\n'


if '--saved' in sys.argv:
    saved(Path(sys.argv[-1] if sys.argv[-1] != '--saved' else 'dist/index.js').resolve())
elif '--check' in sys.argv:
    sys.exit(0 if PATH.read_text() == write() else f'{PATH} differs')
else:
    PATH.write_text(write())
