"""The same network in transformers' generate. Its float32 stands against our int8 and NF4 weights, too."""

import torch
from rates import rates
from serve import serve, timed_blocks
from transformers import LlamaConfig, LlamaForCausalLM


config = LlamaConfig(
    vocab_size=32000,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=1024,
    tie_word_embeddings=True,
)
plain = LlamaForCausalLM(config).eval()
half = LlamaForCausalLM(config).eval().bfloat16()

ids = torch.randint(0, 32000, (1, 32))
rows = torch.randint(0, 32000, (8, 32))
mask = torch.cat([torch.zeros(8, 8), torch.ones(8, 24)], 1).long()
greedy = dict(max_new_tokens=32, eos_token_id=None, pad_token_id=0, do_sample=False)


def generate(network, input_ids, attention_mask=None, **more):
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)

    def run(n):
        with torch.no_grad():
            for _ in range(n):
                network.generate(input_ids=input_ids, attention_mask=attention_mask, **{**greedy, **more})

    return run


serve(
    timed_blocks(
        {
            "single": generate(plain, ids),
            "half": generate(half, ids),
            "int8": generate(plain, ids),
            "nf4": generate(plain, ids),
            "batch": generate(plain, rows, mask),
            "beams": generate(plain, ids, num_beams=4),
            "banned": generate(plain, ids, suppress_tokens=list(range(10_000))),
            "sampled": generate(plain, ids, do_sample=True, top_k=50, top_p=0.9, repetition_penalty=1.1),
            **rates,
        }
    )
)
