"""What transformers makes of published weights that `voxtorch weights` fetches: test/fixtures/models/published.json.

Reads the user's cache, as voxtorch does: fetch smollm2-135m-instruct and minilm first.
"""

import gzip
import hashlib
import json
import os
from pathlib import Path

import torch
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer

from common import FIXTURES

CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'voxtorch/weights'
PROMPTS = ['Once upon a time', 'def fibonacci(n):', 'Der Hund läuft']
SENTENCES = ['It rains.', 'The weather is bad today.', 'He plays the violin.']
GGUF = 'SmolLM2-135M-Instruct.Q4_1.gguf'


def smollm2():
    folder = CACHE / 'smollm2-135m-instruct'
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=GGUF)
    model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=GGUF, dtype=torch.float32).eval()
    cases = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors='pt').input_ids
        tokens = model.generate(ids, max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=2)
        logits = model(ids).logits[0, -1, :8]
        cases.append({'prompt': prompt, 'ids': ids[0].tolist(), 'tokens': tokens[0, ids.shape[1] :].tolist(), 'logits': logits.tolist()})
    return cases


def tokens(tokenizer):
    """The SHA-256 of all ids of 1,000 lines."""
    lines = json.loads(gzip.decompress((FIXTURES / 'text/lines.json.gz').read_bytes()))
    rows = tokenizer(lines).input_ids
    assert len(rows) == 1000
    return hashlib.sha256('\n'.join(','.join(map(str, ids)) for ids in rows).encode()).hexdigest()


def minilm():
    folder = CACHE / 'minilm'
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    inputs = tokenizer(SENTENCES, padding=True, return_tensors='pt')
    weights = inputs['attention_mask'].unsqueeze(-1).float()
    vectors = (model(**inputs).last_hidden_state * weights).sum(1) / weights.sum(1)
    unit = torch.nn.functional.normalize(vectors, dim=1)
    return {'sentences': SENTENCES, 'vectors': unit.tolist(), 'tokens': tokens(tokenizer)}


with torch.no_grad():
    text = json.dumps({'smollm2': smollm2(), 'minilm': minilm()})
(FIXTURES / 'models/published.json').write_text(text + '\n')
