"""The ids that transformers makes of 1,000 real sentences (334 of IMDb, 334 of Yelp and 332 of Amazon, in npm's sentiment), and gradients of the published
MiniLM: test/fixtures/models/minilm-sentences.json. Reads the user's cache, as published.py does."""

import hashlib
import json
import os
from pathlib import Path

import torch
from common import FIXTURES

from transformers import AutoModel, AutoTokenizer

CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'voxtorch/weights'
ROOT = FIXTURES.parent.parent
texts = []
for name, count in (('imdb', 334), ('yelp', 334), ('amazon', 332)):
    file = ROOT / f'node_modules/sentiment/test/fixtures/{name}.json'
    texts += [one['text'] for one in json.loads(file.read_text())[:count]]
folder = CACHE / 'minilm'
tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).double().eval()
rows = tokenizer(texts).input_ids
ids = hashlib.sha256('\n'.join(','.join(map(str, row)) for row in rows).encode()).hexdigest()
inputs = tokenizer(texts[:3], padding=True, return_tensors='pt')
weights = inputs['attention_mask'].unsqueeze(-1).double()
vectors = (model(**inputs).last_hidden_state * weights).sum(1) / weights.sum(1)
vectors.pow(3).sum().backward()
names = ['encoder.layer.0.attention.self.query.weight', 'encoder.layer.5.output.dense.weight', 'embeddings.LayerNorm.weight']
parameters = dict(model.named_parameters())
gradients = {name: {'norm': parameters[name].grad.norm().item(), 'first': parameters[name].grad.flatten()[:8].tolist()} for name in names}
text = json.dumps({'count': len(rows), 'ids': ids, 'gradients': gradients})
(FIXTURES / 'models/minilm-sentences.json').write_text(text + '\n')
