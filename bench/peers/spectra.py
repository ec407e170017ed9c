"""The same network of transformers' RoBERTa and WavLM, eager, with one of RoBERTa's layers over both."""

import time

import torch
from serve import serve
from torch import nn
from transformers import RobertaConfig, RobertaModel, WavLMConfig, WavLMModel
from transformers.models.roberta.modeling_roberta import RobertaLayer
from weights import fill, ids, pattern

SAMPLES = 160_000


class Spectra(nn.Module):
    def __init__(self):
        super().__init__()
        text = RobertaConfig(
            vocab_size=50265,
            max_position_embeddings=514,
            type_vocab_size=2,
            layer_norm_eps=1e-5,
            hidden_dropout_prob=0,
            attention_probs_dropout_prob=0,
        )
        audio = WavLMConfig(
            apply_spec_augment=False,
            hidden_dropout=0,
            attention_dropout=0,
            activation_dropout=0,
            feat_proj_dropout=0,
            layerdrop=0,
        )
        self.text_encoder = RobertaModel._from_config(text, attn_implementation="eager", add_pooling_layer=False)
        self.audio_encoder = WavLMModel._from_config(audio, attn_implementation="eager")
        self.token_type_embeddings = nn.Embedding(2, 768)
        self.fused_encoder = RobertaLayer(self.text_encoder.config)
        self.head = nn.Sequential(nn.Linear(768, 768), nn.GELU(), nn.Linear(768, 6))

    def forward(self, input_ids, input_values, labels):
        text = self.text_encoder(input_ids).last_hidden_state + self.token_type_embeddings.weight[0]
        audio = self.audio_encoder(input_values).last_hidden_state + self.token_type_embeddings.weight[1]
        fused = self.fused_encoder(torch.cat([text, audio], 1))
        fused = fused[0] if isinstance(fused, tuple) else fused
        return nn.functional.cross_entropy(self.head(fused[:, 0]), labels)


class Built:
    def __init__(self):
        self.model = Spectra()
        fill(self.model)
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        values = torch.cat([pattern, pattern])[: 2 * SAMPLES].view(2, SAMPLES)
        self.inputs = {
            "input_ids": ids(2, 64, 50000) + 5,
            "input_values": values,
            "labels": torch.tensor([0, 1]),
        }
        self.optimizer = None

    @torch.no_grad()
    def forward(self):
        return self.model(**self.inputs).item()

    def step(self):
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-5, weight_decay=0.01)
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
        built = Built()
        return {}
    work = request["work"]
    built.model.train(work == "step")
    run = getattr(built, work)
    start = time.perf_counter()
    for _ in range(request["steps"]):
        loss = run()
    return {"milliseconds": (time.perf_counter() - start) * 1000 / request["steps"], "loss": loss}


serve(answer)
