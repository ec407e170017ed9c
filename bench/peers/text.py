"""The Rust tokenizers through their Python package, with their own default of threads."""

import json
import os

import torch
from serve import serve, timed_blocks
from tokenizers import Tokenizer

with open(os.environ["VOXTORCH_BENCH_TEXT"], encoding="utf-8") as file:
    request = json.load(file)
texts = request["texts"]
whole = "\n".join(texts)
wide, tall = torch.randn(1024, 1024), torch.randn(1024, 1024)
matrix, vector = torch.randn(4096, 4096), torch.randn(4096)


def gemm(n):
    for _ in range(n):
        wide @ tall


def gemv(n):
    for _ in range(n):
        matrix @ vector


cases = {"gemm": gemm, "gemv": gemv}


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
