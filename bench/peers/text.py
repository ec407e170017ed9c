"""The Rust tokenizers through their Python package, with their own default of threads."""

import json
import os

from rates import rates
from serve import serve, timed_blocks
from tokenizers import Tokenizer

with open(os.environ["VOXTORCH_BENCH_TEXT"], encoding="utf-8") as file:
    request = json.load(file)
texts = request["texts"]
whole = "\n".join(texts)


cases = {**rates}


def add(name, tokenizer):
    def each(n):
        for _ in range(n):
            for text in texts:
                tokenizer.encode(text).ids

    def batch(n):
        for _ in range(n):
            [encoding.ids for encoding in tokenizer.encode_batch(texts)]

    def one(n):
        for _ in range(n):
            tokenizer.encode(whole).ids

    cases.update({f"{name}Each": each, f"{name}Batch": batch, f"{name}Whole": one})


for name, path in request["tokenizers"]:
    add(name, Tokenizer.from_file(path))

serve(timed_blocks(cases))
