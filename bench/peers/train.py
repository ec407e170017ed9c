"""The same steps with PyTorch, transformers (eager attention) and PEFT; compiled where asked."""

import re
import time

import torch
from peft import LoraConfig, get_peft_model
from serve import serve
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    RobertaConfig,
    RobertaModel,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
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


class Whisper(nn.Module):
    def __init__(self):
        super().__init__()
        config = WhisperConfig(
            d_model=512,
            encoder_layers=6,
            decoder_layers=6,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            encoder_ffn_dim=2048,
            decoder_ffn_dim=2048,
        )
        self.network = WhisperForConditionalGeneration._from_config(config, attn_implementation="eager")

    def forward(self, input_features, labels):
        return self.network(input_features=input_features, labels=labels, use_cache=False).loss


def whisper():
    features = pattern[: 2 * 80 * 3000].view(2, 80, 3000)
    return Whisper(), {"input_features": features, "labels": ids(2, 64, 50000)}


class Qwen2Audio(nn.Module):
    def __init__(self):
        super().__init__()
        config = Qwen2AudioConfig(
            audio_token_index=AUDIO_TOKEN,
            audio_config={
                "d_model": 640,
                "encoder_layers": 6,
                "encoder_attention_heads": 10,
                "encoder_ffn_dim": 2560,
                "num_mel_bins": 128,
            },
            text_config={
                "model_type": "qwen2",
                "vocab_size": 32000,
                "hidden_size": 1024,
                "intermediate_size": 2752,
                "num_hidden_layers": 6,
                "num_attention_heads": 8,
                "num_key_value_heads": 8,
            },
        )
        self.network = Qwen2AudioForConditionalGeneration._from_config(config, attn_implementation="eager")

    def forward(self, **inputs):
        return self.network(**inputs, use_cache=False).loss


AUDIO_TOKEN = 31999


def qwen2_audio():
    text = ids(2, 64, 31000)
    audio = torch.full((2, 250), AUDIO_TOKEN)
    input_ids = torch.cat([text[:, :16], audio, text[:, 16:]], 1)
    mask = (torch.arange(3000) < 1000).long().expand(2, 3000)
    features = pattern[: 2 * 128 * 3000].view(2, 128, 3000)
    labels = input_ids.masked_fill(input_ids == AUDIO_TOKEN, -100)
    ones = torch.ones_like(input_ids)
    inputs = {"input_ids": input_ids, "attention_mask": ones, "input_features": features, "labels": labels}
    return Qwen2Audio(), {**inputs, "feature_attention_mask": mask}


class Block(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm_1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x):
        batch, time, width = x.shape
        parts = self.attention(self.norm_1(x)).split(width, 2)
        q, k, v = (part.view(batch, time, self.heads, -1).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.projection(mixed.transpose(1, 2).reshape(batch, time, width))
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    """A character GPT, written by hand."""

    def __init__(self, tokens=65, time=256, width=384, heads=6, layers=6):
        super().__init__()
        self.tokens = nn.Embedding(tokens, width)
        self.positions = nn.Embedding(time, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, tokens, bias=False)

    def forward(self, input_ids):
        x = self.tokens(input_ids) + self.positions(torch.arange(input_ids.shape[1]))
        for block in self.blocks:
            x = block(x)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), input_ids.view(-1))


def gpt():
    return GPT(), {"input_ids": ids(8, 256, 65)}


SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CASES = {
    "spectra": (spectra, None),
    "spectraLora": (spectra, ["query", "value", "q_proj", "v_proj"]),
    "llama": (llama, None),
    "llamaLora": (llama, ["q_proj", "v_proj"]),
    "llamaLoraAll": (llama, SEVEN),
    "whisper": (whisper, None),
    "whisperLora": (whisper, ["q_proj", "v_proj"]),
    "qwen2AudioLora": (qwen2_audio, ["q_proj", "v_proj"]),
    "gpt": (gpt, None),
}


class Built:
    def __init__(self, name, half, compiled):
        make, targets = CASES[name]
        model, self.inputs = make()
        if half:
            model = model.bfloat16()
            self.inputs = {name: one.bfloat16() if one.is_floating_point() else one for name, one in self.inputs.items()}
        if targets:
            model = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=targets))
        fill(model)
        self.model = model.train()
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.01)
        if compiled:
            self.model = torch.compile(self.model)
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

    def flops(self):
        """Operations of one step's products, convolutions and attention."""
        with FlopCounterMode(display=False) as counter:
            self.model(**self.inputs).backward()
        self.optimizer.zero_grad()
        return counter.get_total_flops()


built = None


def answer(request):
    global built
    if "build" in request:
        built = Built(request["build"], request.get("half", False), request.get("compiled", False))
        return {"parameters": len(built.parameters)}
    if "flops" in request:
        return {"flops": built.flops()}
    start = time.perf_counter()
    for _ in range(request["steps"]):
        loss = built.step()
    milliseconds = (time.perf_counter() - start) * 1000 / request["steps"]
    return {"milliseconds": milliseconds, "loss": loss, "peak": (kibibytes("VmHWM") - built.before) * 1024}


serve(answer)
