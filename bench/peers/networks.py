"""Networks whose weights, inputs and outputs the other side has written into a folder, for usdm.py and languagebind.py."""

from pathlib import Path

import torch
from safetensors.torch import load_file
from serve import repeated, serve, timed_blocks


def serve_networks(makers):
    """
    makers: name -> function(folder, values) that gives {case: job}, of which the case of the same name gives what the other side has
    computed as values[name]; where a job takes minutes, the case 'check' gives that instead. Loads on request, says how far both are apart, and times the cases beside two plain products.
    """
    wide, tall = torch.randn(1024, 1024), torch.randn(1024, 1024)
    matrix, vector = torch.randn(4096, 4096), torch.randn(4096)
    rates = {"gemm": lambda: wide @ tall, "gemv": lambda: matrix @ vector}
    blocks = None

    def load(folder, names):
        nonlocal blocks
        values = load_file(folder / "values.safetensors")
        jobs = {}
        checks = {}
        for name in names:
            made = makers[name](folder / name, values)
            checks[name] = made.pop("check", made[name])
            jobs |= made
        blocks = timed_blocks({name: repeated(job) for name, job in {**jobs, **rates}.items()})
        with torch.no_grad():
            given = {name: checks[name]().float() for name in names}
        return {name: ((given[name] - values[name]).abs().max() / values[name].abs().max()).item() for name in names}

    def answer(request):
        if "load" in request:
            return {"differences": load(Path(request["load"]), request["names"])}
        return blocks(request)

    serve(answer)
