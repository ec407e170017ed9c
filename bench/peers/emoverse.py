"""The same network in transformers, with PEFT's LoRA, and tiles by Pillow."""

import ctypes
import importlib.util
import sys
import types
from pathlib import Path

# The wheel of torchvision on PyPI is for CUDA: without its operators it loads but for this table of shapes.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from rates import rates
from serve import serve, timed_blocks
from transformers import DynamicCache, InternVLForConditionalGeneration

STEPS = 32
TARGETS = r".*(language_model|multi_modal_projector)(?!.*(lm_head|output|emb|wte|shared)).*(proj|linear_\d)$"
PHOTOGRAPHS = ["astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png", "rocket.jpg"]


def photographs():
    found = importlib.util.find_spec("skimage")
    if found is None:
        raise SystemExit("the photographs are scikit-image's: pip install scikit-image==0.26.0")
    return [str(Path(found.origin).parent / "data" / name) for name in PHOTOGRAPHS]


class Peer:
    def __init__(self, folder, files):
        self.photographs = [Image.open(file).convert("RGB") for file in files]
        self.begun = None
        self.values = load_file(folder / "values.safetensors")
        self.network = InternVLForConditionalGeneration.from_pretrained(folder).eval()
        self.folder, self.trained = folder, None

    def differences(self):
        v = self.values
        with torch.no_grad():
            logits = self.network(input_ids=v["short"], pixel_values=v["four"][:1]).logits
        with torch.no_grad():
            tokens = torch.tensor(self.decode())
        wrong = 0
        for i, photograph in enumerate(self.photographs):
            made = np.stack([np.asarray(tile) for tile in tiled(photograph, self.grid(i))])
            own = v[f"tiles.{i}"].numpy()
            wrong += own.size if made.shape != own.shape else int((made != own).sum())
        return {
            "difference": ((logits - v["logits"]).abs().max() / v["logits"].abs().max()).item(),
            "tokens": int((tokens != v["decoded"]).sum()),
            "tiles": wrong,
        }

    def grid(self, i):
        return [int(side) for side in self.values[f"grid.{i}"]]

    def vision(self):
        self.network.get_image_features(pixel_values=self.values["four"])

    def seen(self, ids):
        words = self.network.get_input_embeddings()(ids)
        place = (ids == self.network.config.image_token_id)[..., None]
        return words.masked_scatter(place, self.values["imageEmbeds"])

    def prefill(self):
        self.network(inputs_embeds=self.seen(self.values["long"]), logits_to_keep=1)

    def decode(self):
        """Steps from a cache that has read the prompt, and is then what it was."""
        ids = self.values["short"]
        if self.begun is None:
            cache = DynamicCache()
            first = self.network(input_ids=ids, pixel_values=self.values["four"][:1], past_key_values=cache, logits_to_keep=1)
            self.begun = cache, first.logits[:, -1:].argmax(-1)
        cache, token = self.begun
        tokens = []
        for _ in range(STEPS):
            output = self.network(input_ids=token, past_key_values=cache, logits_to_keep=1)
            token = output.logits[:, -1:].argmax(-1)
            tokens.append(token.item())
        cache.crop(-STEPS)
        return tokens

    def tiles(self):
        for k in range(int(self.values["count"][0])):
            i = k % len(self.photographs)
            tiled(self.photographs[i], self.grid(i))

    def labels(self):
        for label in self.values["answers"]:
            ids = torch.cat([self.values["long"], label[None]], 1)
            self.network(inputs_embeds=self.seen(ids), logits_to_keep=len(label) + 1)

    def adapted(self):
        """Made where a step is asked for: it is as large again."""
        if self.trained is None:
            trained = InternVLForConditionalGeneration.from_pretrained(self.folder)
            config = LoraConfig(r=8, lora_alpha=32, lora_dropout=0.05, target_modules=TARGETS)
            self.trained = get_peft_model(trained, config).train()
        return self.trained

    def step(self):
        v = self.values
        self.adapted()
        self.trained(input_ids=v["long"], labels=v["labels"], pixel_values=v["eight"]).loss.backward()
        self.trained.zero_grad()

    def cases(self):
        def often(work, records=False):
            def run(n):
                with torch.set_grad_enabled(records):
                    for _ in range(n):
                        work()

            return run

        return {
            **{name: often(getattr(self, name)) for name in ["vision", "prefill", "decode", "labels", "tiles"]},
            "step": often(self.step, records=True),
            **rates,
        }


def tiled(image, grid, size=448):
    columns, rows = grid
    whole = image.resize((size * columns, size * rows))
    boxes = [(i * size, j * size, (i + 1) * size, (j + 1) * size) for j in range(rows) for i in range(columns)]
    parts = [whole.crop(box) for box in boxes]
    return parts if len(parts) == 1 else [*parts, image.resize((size, size))]


def kibibytes(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{field}:")).split()[1])


def peak_of(case):
    """The most memory that a case takes above what was taken before it, in bytes."""
    case(1)
    # What is kept for the next one would count as taken before it.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = kibibytes("VmRSS")
    case(1)
    return {"peak": (kibibytes("VmHWM") - before) * 1024}


peer = blocks = None


def answer(request):
    global peer, blocks
    if "load" not in request and "photographs" in request:
        return {"photographs": photographs()}
    if "load" in request:
        peer = Peer(Path(request["load"]), request["photographs"])
        blocks = timed_blocks(peer.cases())
        return peer.differences()
    if "peak" in request:
        return peak_of(peer.cases()[request["peak"]])
    return blocks(request)


serve(answer)
