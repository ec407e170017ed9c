"""
The same networks: transformers' text encoder, and LanguageBind's vision encoders in PyTorch's own layers, as its modules compute them. Pictures by
Pillow, clips by PyAV.
"""

import json
import sys
import types

# Of the wheel of torchvision for CUDA, where that is beside torch for the CPU: transformers asks for it, and nothing here does.
sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")

import numpy as np
import torch
from networks import serve_networks
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextModel


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):
            setattr(self, name, nn.Linear(dim, dim))

    def forward(self, x):
        split = lambda y: y.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        attended = F.scaled_dot_product_attention(split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x)))
        return self.out_proj(attended.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, dim, inner):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, inner), nn.Linear(inner, dim)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Layer(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim, heads = config["hidden_size"], config["num_attention_heads"]
        self.frames = config.get("num_frames", 1) if config.get("add_time_attn") else 0
        self.self_attn, self.mlp = Attention(dim, heads), Mlp(dim, config["intermediate_size"])
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        if self.frames:
            self.temporal_embedding = nn.Parameter(torch.zeros(1, self.frames, dim))
            self.temporal_attn, self.temporal_layer_norm1 = Attention(dim, heads), nn.LayerNorm(dim)

    def forward(self, x):
        if self.frames:
            places = x.shape[1]
            over_time = lambda y: y.unflatten(0, (-1, self.frames)).transpose(1, 2).flatten(0, 1)
            back = lambda y: y.unflatten(0, (-1, places)).transpose(1, 2).flatten(0, 1)
            x = back(over_time(x) + self.temporal_embedding)
            x = x + back(self.temporal_attn(self.temporal_layer_norm1(over_time(x))))
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class Vision(nn.Module):
    def __init__(self, config):
        super().__init__()
        dim, patch = config["hidden_size"], config["patch_size"]
        size = config.get("image_size", 224)
        height, width = (size, size) if isinstance(size, int) else size
        self.embeddings = nn.Module()
        self.embeddings.class_embedding = nn.Parameter(torch.zeros(dim))
        self.embeddings.patch_embedding = nn.Conv2d(3, dim, patch, patch, bias=False)
        self.embeddings.position_embedding = nn.Embedding((height // patch) * (width // patch) + 1, dim)
        self.pre_layrnorm, self.post_layernorm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList([Layer(config) for _ in range(config["num_hidden_layers"])])

    def forward(self, pixels):
        frames = pixels.shape[2] if pixels.dim() == 5 else 1
        if pixels.dim() == 5:
            pixels = pixels.transpose(1, 2).flatten(0, 1)
        parts = self.embeddings
        x = parts.patch_embedding(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([parts.class_embedding.expand(x.shape[0], 1, -1), x], 1) + parts.position_embedding.weight
        x = self.pre_layrnorm(x)
        for layer in self.encoder.layers:
            x = layer(x)
        return self.post_layernorm(x[:, 0]).unflatten(0, (-1, frames)).mean(1)


def text(folder, values):
    network = CLIPTextModel.from_pretrained(folder).eval()
    ids, mask = values["text.inputIds"], values["text.attentionMask"]
    return {"text": lambda: network(input_ids=ids, attention_mask=mask).pooler_output}


def vision(folder, pixels, dtype=torch.float32):
    network = Vision(json.loads((folder / "config.json").read_text()))
    state = {key: value for file in folder.glob("*.safetensors") for key, value in load_file(file).items()}
    network.load_state_dict(state)
    return network.eval().requires_grad_(False).to(dtype), pixels.to(dtype)


def maker(name):
    def make(folder, values):
        dtype = torch.bfloat16 if name == "videoHalf" else torch.float32
        network, pixels = vision(folder, values[f"{name}.pixelValues"], dtype)
        if name != "lora":
            return {name: lambda: network(pixels)}
        config = LoraConfig(r=16, lora_alpha=16, target_modules=r".*temporal_attn\.(q|k|v|out)_proj")
        adapted = get_peft_model(network, config)
        optimizer = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=1e-4)

        def step():
            with torch.enable_grad():
                pooled = adapted(pixels)
                pooled.square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()
            return pooled

        return {name: step}

    return make


def resize(folder, values):
    from PIL import Image

    names = [f"resize.{i}" for i in range(len(values)) if f"resize.{i}" in values]
    photographs = [Image.fromarray(values[name].numpy()) for name in names]

    def one(picture):
        width, height = picture.size
        size = (int(224 * width / height), 224) if width >= height else (224, int(224 * height / width))
        return picture.resize(size, Image.Resampling.BICUBIC)

    def job():
        made = [one(photographs[i % len(photographs)]) for i in range(100)]
        return torch.cat([torch.from_numpy(np.asarray(picture).copy()).flatten() for picture in made[: len(photographs)]])

    return {"resize": job}


MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1, 1)


class Clips(torch.utils.data.Dataset):
    """As LanguageBind's processor: 8 frames, divided, normalised, resized without antialiasing, cut to their middle."""

    def __init__(self, films):
        self.films = films

    def __len__(self):
        return 100

    def __getitem__(self, i):
        import av

        with av.open(str(self.films / f"{i % 10}.mp4")) as film:
            stream = film.streams.video[0]
            # Two processes for two cores.
            stream.codec_context.thread_count = 1
            places = np.linspace(0, stream.frames - 1, 8).astype(int)
            frames = []
            for place, frame in enumerate(film.decode(stream)):
                frames += [frame.to_ndarray(format="rgb24")] * int((places == place).sum())
                if len(frames) == 8:
                    break
        pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)
        pixels = (pixels / 255.0 - MEAN) / STD
        height, width = pixels.shape[2:]
        pixels = F.interpolate(pixels, (224, int(width / height * 224)), mode="bilinear", align_corners=False)
        left = round((pixels.shape[3] - 224) / 2)
        return pixels[..., left : left + 224].contiguous()


def clips(folder, values):
    data = Clips(folder)
    loader = torch.utils.data.DataLoader(data, batch_size=4, num_workers=2, persistent_workers=True)

    def job():
        for i, batch in enumerate(loader):
            if i == 0:
                first = batch[0]
        return first

    return {"clips": job}


serve_networks({"text": text, "resize": resize, "clips": clips, **{name: maker(name) for name in ("audio", "video", "videoHalf", "lora")}})
