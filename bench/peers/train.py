"""The same steps with PyTorch, transformers (eager attention) and PEFT."""

import re
import time

import torch
from peft import LoraConfig, get_peft_model
from serve import serve
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaModel, WavLMConfig, WavLMModel
from weights import fill, ids, pattern


def kibibytes(field):
    with open("/proc/self/status") as status:
        return int(re.search(rf"^{field}:\s+(\d+)", status.read(), re.M)[1])


class SpectraShaped(nn.Module):
    def __init__(self):
        super().__init__()
        text = RobertaConfig(
            vocab_size=8000,
            num_hidden_layers=4,
            max_position_embeddings=514,
            type_vocab_size=2,
            hidden_dropout_prob=0,
            attention_probs_dropout_prob=0,
        )
        audio = WavLMConfig(
            num_hidden_layers=4,
            apply_spec_augment=False,
            hidden_dropout=0,
            attention_dropout=0,
            activation_dropout=0,
            feat_proj_dropout=0,
            layerdrop=0,
        )
        self.text = RobertaModel._from_config(text, attn_implementation="eager", add_pooling_layer=False)
        self.audio = WavLMModel._from_config(audio, attn_implementation="eager")
        self.fusion = nn.TransformerEncoderLayer(768, 12, 3072, dropout=0, activation="gelu", batch_first=True)
        self.head = nn.Linear(768, 6)

    def forward(self, input_ids, input_values, labels):
        text = self.text(input_ids).last_hidden_state
        fused = self.fusion(torch.cat([text, self.audio(input_values).last_hidden_state], 1))
        return nn.functional.cross_entropy(self.head(fused[:, 0]), labels)


def spectra():
    values = pattern[: 2 * 64_000].view(2, 64_000)
    return SpectraShaped(), {"input_ids": ids(2, 64, 7000) + 5, "input_values": values, "labels": torch.tensor([1, 4])}


class Llama(nn.Module):
    def __init__(self):
        super().__init__()
        config = LlamaConfig(
            vocab_size=32000, hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8
        )
        self.network = LlamaForCausalLM._from_config(config, attn_implementation="eager")

    def forward(self, input_ids):
        return self.network(input_ids=input_ids, labels=input_ids, use_cache=False).loss


def llama():
    return Llama(), {"input_ids": ids(4, 128, 32000)}


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "spectra": (spectra, None),
    "spectraLora": (spectra, ["query", "value", "q_proj", "v_proj"]),
    "llama": (llama, None),
    "llamaLora": (llama, ["q_proj", "v_proj"]),
    "llamaLoraAll": (llama, SEVEN),
}


class Built:
    def __init__(self, name):
        make, targets = CASES[name]
        model, self.inputs = make()
        if targets:
            model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
        fill(model)
        self.model = model.train()
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.01)
        with open("/proc/self/clear_refs", "w") as file:
            file.write("5")
        self.before = kibibytes("VmRSS")

    def step(self):
        loss = self.model(**self.inputs)
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.item()


built = None


def answer(request):
    global built
    if "build" in request:
        built = Built(request["build"])
        return {"parameters": len(built.parameters)}
    start = time.perf_counter()
    for _ in range(request["steps"]):
        loss = built.step()
    milliseconds = (time.perf_counter() - start) * 1000 / request["steps"]
    return {"milliseconds": milliseconds, "loss": loss, "peak": (kibibytes("VmHWM") - built.before) * 1024}


serve(answer)
