"""Fixtures of the heads of lib/systems/emotion, written anew with torch.nn: fusion, the context over a dialog,
the published heads. Weights are random, everything is computed in float64 and stored as float32.

    python test/reference/emotion_heads.py
"""

import json
import os

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(19)
D, T, H, HEADS, LABELS, FAR = 2, 4, 8, 2, 3, 2
SIZES = {"video": 8, "audio": 5, "text": 6}
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]).bool()
SPEAKERS = torch.tensor([[0, 1, 0, 2], [0, 0, 1, 0]])
PRESENT = {
    "video": torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]]).bool(),
    "audio": torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0]]).bool(),
    "text": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 0]]).bool(),
}


def layer(size, heads, wide):
    return nn.TransformerEncoderLayer(size, heads, wide, 0.0, "gelu", batch_first=True, norm_first=True)


class Head(nn.Module):
    def __init__(self, fusion, causal):
        super().__init__()
        self.kind, self.causal = fusion, causal
        own = nn.Module()
        if fusion != "concat":
            own.norms = nn.ModuleDict({name: nn.LayerNorm(size) for name, size in SIZES.items()})
        if fusion in ("gated", "cross-attention"):
            own.projections = nn.ModuleDict({name: nn.Linear(size, H) for name, size in SIZES.items()})
            own.kinds = nn.Parameter(torch.randn(3, H))
        if fusion == "gated":
            own.gate = nn.Linear(3 * H, 3)
        if fusion == "cross-attention":
            own.layer = layer(H, 8, 2 * H)
        self.fusion = own
        if fusion in ("concat", "concat-ln"):
            self.entry = nn.Linear(sum(SIZES.values()), H)
        context = nn.Module()
        context.layers = nn.ModuleList([layer(H, HEADS, 4 * H) for _ in range(2)])
        context.norm = nn.LayerNorm(H)
        context.distance = nn.Parameter(torch.randn(2 * FAR + 1, HEADS))
        context.speaker = nn.Parameter(torch.randn(2, HEADS))
        self.context = context
        self.linear = nn.Linear(H, LABELS)

    def fuse(self, vectors):
        columns = []
        for name in SIZES:
            x = vectors[name]
            if self.kind != "concat":
                x = self.fusion.norms[name](x)
            if self.kind in ("gated", "cross-attention"):
                x = self.fusion.projections[name](x)
            columns.append(x * PRESENT[name].unsqueeze(-1))
        shown = torch.stack([PRESENT[name] for name in SIZES], -1)  # [D, T, 3]
        if self.kind in ("concat", "concat-ln"):
            return self.entry(torch.cat(columns, -1))
        # Where nothing is there, all count alike.
        known = shown | ~shown.any(-1, keepdim=True)
        if self.kind == "gated":
            filled = [c + (~shown[..., i : i + 1]) * self.fusion.kinds[i] for i, c in enumerate(columns)]
            weights = self.fusion.gate(torch.cat(filled, -1)).masked_fill(~known, float("-inf")).softmax(-1)
            return (torch.stack(columns, 2) * weights.unsqueeze(-1)).sum(2)
        tokens = (torch.stack(columns, 2) + self.fusion.kinds).reshape(D * T, 3, H)
        states = self.fusion.layer(tokens, src_key_padding_mask=~known.reshape(D * T, 3)).reshape(D, T, 3, H)
        weights = shown / shown.sum(-1, keepdim=True).clamp(min=1)
        return (states * weights.unsqueeze(-1)).sum(2)

    def forward(self, vectors):
        x = self.fuse(vectors)
        bias = torch.zeros(D, HEADS, T, T, dtype=x.dtype)
        for d in range(D):
            for i in range(T):
                for j in range(T):
                    hidden = (not MASK[d, j] or (self.causal and j > i)) and i != j
                    if hidden:
                        bias[d, :, i, j] = float("-inf")
                        continue
                    same = int(SPEAKERS[d, i] == SPEAKERS[d, j])
                    near = max(-FAR, min(FAR, j - i)) + FAR
                    bias[d, :, i, j] = self.context.distance[near] + self.context.speaker[same]
        for one in self.context.layers:
            x = one(x, src_mask=bias.reshape(D * HEADS, T, T))
        return self.linear(self.context.norm(x))


tensors, cases = {}, []


def put(case, role, values):
    for name, value in values.items():
        tensors[f"{case}/{role}/{name}"] = value.detach().to(torch.float32 if value.is_floating_point() else value.dtype).contiguous().clone()


for fusion in ("concat", "concat-ln", "gated", "cross-attention"):
    name = f"head-{fusion}"
    head = Head(fusion, fusion == "gated").double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn_like(parameter).mul(0.3).float())
    vectors = {key: torch.randn(D, T, size).double().requires_grad_() for key, size in SIZES.items()}
    with torch.no_grad():
        for value in vectors.values():
            value.copy_(value.float())
    logits = head(vectors)
    weight = torch.randn(D, T, LABELS).float().double() * MASK.unsqueeze(-1)
    (logits * weight).sum().backward()
    put(name, "weights", dict(head.named_parameters()))
    put(name, "inputs", {**vectors, "weight": weight})
    put(name, "output", {"logits": logits * MASK.unsqueeze(-1)})
    put(name, "gradients", {key: parameter.grad for key, parameter in head.named_parameters()})
    cases.append({"name": name, "fusion": fusion, "causal": fusion == "gated"})

for compat in (None, "published"):
    name = f"frames-{compat}"
    video, text = torch.randn(3, 4, 10).float().double(), torch.randn(3, 5, 8).float().double()
    lengths = torch.tensor([5, 3, 4])
    mask = torch.arange(5) < lengths.unsqueeze(1)
    project, linear = nn.Linear(10, 8, bias=False).double(), nn.Linear(8, 7).double()
    attention = nn.MultiheadAttention(8, 4, batch_first=compat is None).double()
    with torch.no_grad():
        for module in (project, linear, attention):
            for parameter in module.parameters():
                parameter.copy_((torch.randn_like(parameter) * 0.4).float())
    if compat is None:
        states = torch.cat([project(video), text], 1)
        there = torch.cat([torch.ones(3, 4).bool(), mask], 1)
        out, _ = attention(states, states, states, key_padding_mask=~there)
        logits = linear((out * there.unsqueeze(-1)).sum(1) / there.sum(1, keepdim=True))
    else:
        out, _ = attention(text, text, text)
        logits = linear(out.mean(1))
    put(name, "weights", {"video.weight": project.weight, **{f"attention.{k}": v for k, v in attention.named_parameters()},
                          **{f"linear.{k}": v for k, v in linear.named_parameters()}})
    put(name, "inputs", {"video": video, "text": text, "mask": mask})
    put(name, "output", {"logits": logits})
    cases.append({"name": name, "compat": compat})

name, count, size = "pointer", 3, 12
special, position = nn.Embedding(3, size).double(), nn.Embedding(2 * 5 + 8, size).double()
norm, last = nn.LayerNorm(size, eps=1e-12).double(), nn.Linear(size, 1).double()
layers = nn.ModuleList([nn.TransformerEncoderLayer(size, 4, 4 * size, 0.0, "gelu", 1e-12, batch_first=True) for _ in range(2)]).double()
parts = nn.ModuleDict({"special": special, "position": position, "norm": norm, "layers": layers, "linear": last})
with torch.no_grad():
    for parameter in parts.parameters():
        parameter.copy_((torch.randn_like(parameter) * 0.3).float())
video, text = torch.randn(count, size).float().double(), torch.randn(count, size).float().double()
rows = []
for target, candidate in ((0, 1), (2, 2)):
    sequence = [special.weight[0]]
    for i in range(count):
        sequence += [video[i], text[i]]
    sequence += [special.weight[1], video[target], text[target], special.weight[1], video[candidate], text[candidate], special.weight[2]]
    rows.append(torch.stack(sequence))
x = norm(torch.stack(rows) + position.weight[: 2 * count + 8])
for one in layers:
    x = one(x)
put(name, "weights", dict(parts.named_parameters()))
put(name, "inputs", {"video": video, "text": text})
put(name, "output", {"logits": last(x).squeeze(-1)})
cases.append({"name": name, "pairs": [[0, 1], [2, 2]]})

path = os.path.join(HERE, "..", "fixtures", "emotion", "heads.safetensors")
save_file(tensors, path, metadata={"cases": json.dumps(cases)})
print(os.path.getsize(path))
