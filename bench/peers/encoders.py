"""The same networks in transformers, with eager attention; compiled; and written for onnxruntime."""

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file
from rates import rates
from serve import serve, timed_blocks
from transformers import RobertaModel, WavLMModel

CLASSES = {"roberta": RobertaModel, "wavlm": WavLMModel}


class Encoders:
    def __init__(self, folder):
        self.folder = folder
        self.values = load_file(folder / "values.safetensors")
        ids, wave = self.values["ids"], self.values["wave"]
        self.networks = {
            "roberta": (self.load("roberta"), ids),
            "wavlm": (self.load("wavlm"), wave),
            "robertaHalf": (self.load("roberta").bfloat16(), ids),
            "wavlmHalf": (self.load("wavlm").bfloat16(), wave.bfloat16()),
        }
        # Compiled in the first call, which is outside of what is timed. It chooses its attention itself where it may.
        self.compiled = {name: torch.compile(network) for name, (network, _) in self.networks.items()}

    def load(self, name):
        return CLASSES[name].from_pretrained(self.folder / name, attn_implementation="eager").eval()

    def differences(self):
        with torch.no_grad():
            given = {name: self.networks[name][0](self.networks[name][1]).last_hidden_state for name in CLASSES}
        return {name: self.difference(name, value) for name, value in given.items()}

    def difference(self, name, given):
        expected = self.values[name]
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
            "robertaStep": self.step("roberta"),
            "wavlmStep": self.step("wavlm"),
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
        inputs.numpy().tofile(self.folder / f"{name}.in")
        self.values[name].contiguous().numpy().tofile(self.folder / f"{name}.out")


encoders = blocks = None


def answer(request):
    global encoders, blocks
    if "load" in request:
        encoders = Encoders(Path(request["load"]))
        blocks = timed_blocks(encoders.cases())
        return {"differences": encoders.differences()}
    if "onnx" in request:
        for name in request["onnx"]:
            encoders.export(name)
        return {"files": str(encoders.folder)}
    return blocks(request)


serve(answer)
