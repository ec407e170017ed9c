"""The same networks in transformers, with eager attention."""

import torch
from serve import serve, timed_blocks
from transformers import RobertaConfig, RobertaModel, WavLMConfig, WavLMModel

ids = torch.randint(5, 50265, (8, 128))
wave = torch.randn(1, 160_000)
wide, tall = torch.randn(1024, 1024), torch.randn(1024, 1024)
matrix, vector = torch.randn(4096, 4096), torch.randn(4096)


def made(network, config):
    # Of the checkpoint: the default configuration is BERT's size, which has fewer words and positions.
    return network._from_config(config, attn_implementation="eager").eval()


roberta_config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5)
roberta = made(RobertaModel, roberta_config)
wavlm = made(WavLMModel, WavLMConfig())
networks = {
    "roberta": (roberta, ids),
    "wavlm": (wavlm, wave),
    "robertaHalf": (made(RobertaModel, roberta_config).bfloat16(), ids),
    "wavlmHalf": (made(WavLMModel, WavLMConfig()).bfloat16(), wave.bfloat16()),
}


def forward(name):
    network, inputs = networks[name]

    def run(n):
        with torch.no_grad():
            for _ in range(n):
                network(inputs)

    return run


def step(name):
    network, inputs = networks[name]

    def run(n):
        for _ in range(n):
            network(inputs).last_hidden_state.sum().backward()
            network.zero_grad()

    return run


def repeated(job):
    def run(n):
        for _ in range(n):
            job()

    return run


serve(
    timed_blocks(
        {
            **{name: forward(name) for name in networks},
            "robertaStep": step("roberta"),
            "wavlmStep": step("wavlm"),
            "gemm": repeated(lambda: wide @ tall),
            "gemv": repeated(lambda: matrix @ vector),
        }
    )
)
