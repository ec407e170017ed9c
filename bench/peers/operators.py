"""The operators of operators.json, with torch's default threads."""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from rates import rates
from serve import serve, timed_blocks
from torch.utils.flop_counter import FlopCounterMode

table = json.loads((Path(__file__).parent / "operators.json").read_text())


def make(given):
    if isinstance(given, list):
        return torch.randn(given)
    whole = torch.randint(0, given["below"], given["shape"])
    return whole.bool() if given.get("bool") else whole


def call_of(operator, i):
    tensors = [make(one) for one in table["sizes"][operator["size"]][i]]
    name = operator["name"]
    call = getattr(F, name, None) or getattr(torch, name)
    args, options = operator.get("args", []), operator.get("options", {})
    given = [tensors] if operator.get("list") else tensors
    if operator.get("last"):
        given = [tensors[0], [tensors[0].shape[-1]]]
    if "middle" in operator:
        given = [tensors[0], operator["middle"], tensors[1]]
    if name == "embedding":
        given = [tensors[1], tensors[0]]
    return (lambda: call(*given, *args, **options)), tensors


def cases():
    found = {}
    for index, operator in enumerate(table["operators"]):
        for i in range(3):
            made = []

            def get(made=made, operator=operator, i=i):
                if not made:
                    made.append(call_of(operator, i))
                return made[0]

            def forward(n, get=get):
                run, _ = get()
                with torch.no_grad():
                    for _ in range(n):
                        run()

            def backward(n, get=get):
                run, tensors = get()
                leaves = [one for one in tensors if one.dtype == torch.float32]
                for one in leaves:
                    one.requires_grad_(True)
                for _ in range(n):
                    output = run()
                    output.backward(torch.ones_like(output))
                    for one in leaves:
                        one.grad = None
                for one in leaves:
                    one.requires_grad_(False)

            found[f"{index}.{i}.forward"] = forward
            found[f"{index}.{i}.backward"] = backward
    return found


def work_of(request):
    """Operations of the products, and bytes of inputs and outputs read and written once."""
    index, i, _ = request["work"].split(".")
    run, tensors = call_of(table["operators"][int(index)], int(i))
    backward = request["work"].endswith("backward")
    leaves = [one for one in tensors if backward and one.dtype == torch.float32]
    for one in leaves:
        one.requires_grad_(True)
    with FlopCounterMode(display=False) as counter:
        output = run()
        if backward:
            output.backward(torch.ones_like(output))
    outputs = [output] if isinstance(output, torch.Tensor) else list(output)
    size = sum(one.nbytes for one in [*tensors, *outputs]) + sum(one.nbytes for one in leaves) + backward * outputs[0].nbytes
    return {"flops": counter.get_total_flops(), "bytes": size}


timed = timed_blocks({**cases(), **rates})
serve(lambda request: work_of(request) if "work" in request else timed(request))
