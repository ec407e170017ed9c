"""The same networks in transformers, with eager attention, and compiled; and written for other engines."""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from rates import rates
from serve import serve, timed_blocks
from transformers import ParakeetEncoder, RobertaModel, WavLMModel

CLASSES = {"roberta": RobertaModel, "wavlm": WavLMModel, "parakeet": ParakeetEncoder, "parakeetLong": ParakeetEncoder}
STEPS = ("roberta", "wavlm")


class Encoders:
    def __init__(self, folder, names):
        self.folder = folder
        self.names = names
        self.values = load_file(folder / "values.safetensors")
        self.networks = {}
        for name in names:
            self.networks[name] = (self.load(name), self.values[f"{name}.in"])
            if name in STEPS:
                self.networks[f"{name}Half"] = (self.load(name).bfloat16(), half(self.values[f"{name}.in"]))
        # Compiled in the first call, which is outside of what is timed. It chooses its attention itself where it may.
        self.compiled = {name: torch.compile(network) for name, (network, _) in self.networks.items()}

    def load(self, name):
        if name == "parakeetLong" and "parakeet" in self.networks:
            return self.networks["parakeet"][0]
        folder = self.folder / name.removesuffix("Long")
        return CLASSES[name].from_pretrained(folder, attn_implementation="eager").eval()

    def differences(self):
        with torch.no_grad():
            return {name: self.difference(name) for name in self.names}

    def difference(self, name):
        network, inputs = self.networks[name]
        given, expected = network(inputs).last_hidden_state, self.values[f"{name}.out"]
        return ((given - expected).abs().max() / expected.abs().max()).item()

    def forward(self, name, compiled=False):
        network, inputs = self.networks[name]
        called = self.compiled[name] if compiled else network

        def run(n):
            with torch.no_grad():
                for _ in range(n):
                    called(inputs)

        return run

    def step(self, name):
        network, inputs = self.networks[name]

        def run(n):
            for _ in range(n):
                network(inputs).last_hidden_state.sum().backward()
                network.zero_grad()

        return run

    def cases(self):
        return {
            **{name: self.forward(name) for name in self.networks},
            **{f"{name}Compiled": self.forward(name, compiled=True) for name in self.networks},
            **{f"{name}Step": self.step(name) for name in STEPS if name in self.networks},
            **rates,
        }

    def export(self, name):
        class Encoder(torch.nn.Module):
            def __init__(self, network):
                super().__init__()
                self.network = network

            def forward(self, inputs):
                return self.network(inputs).last_hidden_state

        network, inputs = self.networks[name]
        encoder = Encoder(network).eval()
        names = dict(input_names=["inputs"], output_names=["states"])
        logging.disable(logging.WARNING)  # it tells of every operator that it leaves as it is
        with torch.no_grad():
            torch.onnx.export(encoder, (inputs,), str(self.folder / f"{name}.onnx"), dynamo=True, verbose=False, **names)


def half(inputs):
    return inputs.bfloat16() if inputs.is_floating_point() else inputs


encoders = blocks = None


def answer(request):
    global encoders, blocks
    if "load" in request:
        encoders = Encoders(Path(request["load"]), request["names"])
        blocks = timed_blocks(encoders.cases())
        return {"differences": encoders.differences()}
    if "onnx" in request:
        for name in request["onnx"]:
            encoders.export(name)
        return {}
    return blocks(request)


serve(answer)
