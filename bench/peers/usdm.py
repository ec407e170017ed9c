"""The same networks: transformers' Wav2Vec2, the Voicebox restated in PyTorch, and NVIDIA's BigVGAN (PyPI bigvgan 2.4.1)."""

import json
import sys
import types
from pathlib import Path

import torch
from networks import serve_networks
from safetensors.torch import load_file
from transformers import Wav2Vec2Model

# What bigvgan imports for pictures is not needed.
for module in ["matplotlib", "matplotlib.pylab"]:
    sys.modules.setdefault(module, types.ModuleType(module))
sys.modules["matplotlib"].use = lambda backend: None
sys.path.append(str(Path(__file__).parents[2] / "test/reference"))

STEPS = 2
# Evaluations of a published reply, and those whose result is compared.
WHOLE, CHECK = 50, 4


def weights(folder):
    return {key: value for file in sorted(folder.glob("*.safetensors")) for key, value in load_file(file).items()}


def xlsr(folder, values):
    network = Wav2Vec2Model.from_pretrained(folder, attn_implementation="eager").eval()
    cut = network.encoder.layers
    # The rest of the 48: what they hold changes no time.
    whole = torch.nn.ModuleList([*cut, *cut[: 48 - len(cut)]])
    wave = values["xlsr.inputValues"]

    def run(layers):
        network.encoder.layers = layers
        return network(wave).last_hidden_state

    return {"xlsr": lambda: run(cut), "xlsrWhole": lambda: run(whole)}


def voicebox(folder, values):
    from unit_voicebox import Network, solve

    config = json.loads((folder / "config.json").read_text())
    network = Network(config, weights(folder))
    units, noise = values["voicebox.units"], values["voicebox.noise"]
    lengths, none = torch.tensor([units.shape[1]]), torch.zeros(1, dtype=torch.long)
    return {"voicebox": lambda: solve(network, units, noise, 0 * noise, lengths, none, "euler", STEPS, 1.0)}


def voicebox_whole(folder, values):
    from unit_voicebox import Network, solve

    config = json.loads((folder / "config.json").read_text())
    network = Network(config, weights(folder))
    units, noise = values["voiceboxWhole.units"], values["voiceboxWhole.noise"]
    lengths, none = torch.tensor([units.shape[1]]), torch.zeros(1, dtype=torch.long)

    def run(steps):
        return lambda: solve(network, units, noise, 0 * noise, lengths, none, "heun", steps, 1.0)

    return {"voiceboxWhole": run(WHOLE), "check": run(CHECK)}


def bigvgan(folder, values):
    from bigvgan.bigvgan import BigVGAN
    from bigvgan.env import AttrDict

    network = BigVGAN(AttrDict(json.loads((folder / "config.json").read_text())))
    network.remove_weight_norm()
    missing, unexpected = network.load_state_dict(weights(folder), strict=False)
    assert not unexpected and all(key.endswith(".filter") for key in missing), (missing, unexpected)
    mel = values["bigvgan.mel"]
    return {"bigvgan": lambda: network.eval()(mel).squeeze(1)}


serve_networks({"xlsr": xlsr, "voicebox": voicebox, "voiceboxWhole": voicebox_whole, "bigvgan": bigvgan})
