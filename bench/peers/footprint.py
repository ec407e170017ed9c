"""Loads a language model with transformers, and tells the peak of resident memory."""

import re
import time

import torch
from serve import serve
from transformers import LlamaForCausalLM


def kibibytes(field):
    with open("/proc/self/status") as status:
        return int(re.search(rf"^{field}:\s+(\d+)", status.read(), re.M)[1])


def answer(request):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = kibibytes("VmRSS")
    start = time.perf_counter()
    dtype = request["options"].get("dtype")
    model = LlamaForCausalLM.from_pretrained(request["path"], dtype=getattr(torch, dtype) if dtype else "auto")
    milliseconds = (time.perf_counter() - start) * 1000
    del model
    return {"milliseconds": milliseconds, "peak": (kibibytes("VmHWM") - before) * 1024}


serve(answer)
