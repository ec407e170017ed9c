"""Loss and gradients of a language model's head in the plain way, with the peak of resident memory."""

import re
import time

import torch
from serve import serve


def kibibytes(field):
    with open("/proc/self/status") as status:
        return int(re.search(rf"^{field}:\s+(\d+)", status.read(), re.M)[1])


def values(rows, columns, step):
    return ((torch.arange(rows * columns) * step % 1009).float() / 1009 - 0.5).view(rows, columns)


def answer(request):
    tokens, classes, dim = request["tokens"], request["classes"], request["dim"]
    hidden = values(tokens, dim, 7919).requires_grad_()
    weight = values(classes, dim, 104729).requires_grad_()
    labels = torch.arange(tokens) * 31 % classes
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = kibibytes("VmRSS")
    start = time.perf_counter()
    loss = torch.nn.functional.cross_entropy(torch.nn.functional.linear(hidden, weight), labels)
    loss.backward()
    milliseconds = (time.perf_counter() - start) * 1000
    return {"milliseconds": milliseconds, "peak": (kibibytes("VmHWM") - before) * 1024, "loss": loss.item()}


serve(answer)
