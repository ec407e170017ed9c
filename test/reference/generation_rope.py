"""Tiny decoders whose RoPE angles depend on the length of the text, generating across the length at which they change:
test/fixtures/models/generation-rope.safetensors. And Phi-3 with `partial_rotary_factor`, as Phi-4-mini has it.

Phi-3 (longrope): transformers' `generate` computes the cache again at that length. The script asserts that texts without a
cache are the same. LLaMA (dynamic): `generate` keeps the keys of earlier tokens as they are, so that texts without a cache
differ; the script asserts that they do.

In float64, and no choice is nearer than GAP to another one.
"""

import warnings

import torch
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

import decoder_lm
from common import Fixture, main, randint
from decoder_lm import fill, one

warnings.filterwarnings('ignore')
decoder_lm.CLASSES['phi3'] = (Phi3Config, Phi3ForCausalLM)

VOCABULARY, PROMPTS, NEW, BORDER, GAP = 40, 10, 18, 12, 1e-3
SIZE = dict(
    vocab_size=VOCABULARY,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=8,
    rms_norm_eps=1e-5,
    pad_token_id=0,
    bos_token_id=None,
    eos_token_id=None,
)


def longrope(factors, partial=1.0):
    short, long = [1.0, 1.1, 1.25, 1.5][:factors], [1.0, 2.0, 3.5, 6.0][:factors]
    rope = dict(rope_type='longrope', rope_theta=50.0, short_factor=short, long_factor=long)
    return dict(
        max_position_embeddings=64,
        original_max_position_embeddings=BORDER,
        rope_parameters=dict(**rope, original_max_position_embeddings=BORDER, partial_rotary_factor=partial),
    )


MODELS = dict(
    longrope=('phi3', longrope(4)),
    partial=('phi3', longrope(3, 0.75)),
    dynamic=('llama', dict(max_position_embeddings=BORDER, rope_parameters=dict(rope_type='dynamic', rope_theta=50.0, factor=2.0))),
)
CLASSES = dict(phi3=(Phi3Config, Phi3ForCausalLM), llama=(LlamaConfig, LlamaForCausalLM))


def fresh(name):
    """A new one for each text: transformers' dynamic angles depend on the texts that a network has read before."""
    kind, options = MODELS[name]
    make, network = CLASSES[kind]
    config = make(**{**SIZE, **options})
    config._attn_implementation = 'eager'
    model = network(config).eval()
    fill(model, name)
    return model.double(), config


def generate(name, ids, **options):
    model, _ = fresh(name)
    mask = torch.ones_like(ids)
    settings = dict(attention_mask=mask, max_new_tokens=NEW, return_dict_in_generate=True, output_scores=True)
    with torch.no_grad():
        return model.generate(input_ids=ids, do_sample=False, **{**settings, **options})


def texts(fixture):
    for name, (kind, options) in MODELS.items():
        alone, beams, different, prompts = [], [], 0, []
        seed = 0
        while len(alone) < PROMPTS:
            # Some prompts end before the border, one at it and some behind it.
            length = [4, 7, 9, 11, 12, 13, 16][seed % 7]
            ids = randint(f'{name}/prompt/{seed}', 1, VOCABULARY, 1, length)
            seed += 1
            output = generate(name, ids)
            best = torch.stack(output.scores).topk(2).values
            if (best[..., 0] - best[..., 1]).min() < GAP:
                continue
            uncached = generate(name, ids, use_cache=False).sequences
            different += int(not uncached.equal(output.sequences))
            prompts.append(torch.nn.functional.pad(ids, (0, 16 - length), value=-1))
            alone.append(output.sequences[:, length:])
            beams.append(generate(name, ids, num_beams=3, output_scores=False).sequences[:, length:])
        assert different == 0 if kind == 'phi3' else different >= PROMPTS // 2, (name, different)
        model, config = fresh(name)
        fixture.case(
            dict(name=name, config={'model_type': kind, **SIZE, **options}),
            **{'in': {'prompts': torch.cat(prompts)}},
            param={key: value.float() for key, value in model.named_parameters()},
            out={'alone': torch.cat(alone), 'beams': torch.cat(beams)},
        )
    return fixture


PARTIAL = dict(type='phi3', hidden_size=16, num_attention_heads=2, head_dim=8, num_key_value_heads=1, pad_token_id=0)


def partial():
    fixture = Fixture()
    plain = dict(rope_type='default', rope_theta=50.0, partial_rotary_factor=0.5)
    one(fixture, name='phi3-partial', pads='right', rope_parameters=plain, **PARTIAL)
    for name, original in dict(short=16, long=6).items():
        options = longrope(3, 0.75)
        options['original_max_position_embeddings'] = original
        options['rope_parameters']['original_max_position_embeddings'] = original
        one(fixture, name=f'phi3-partial-{name}', brief=True, **PARTIAL, **options)
    return fixture


main({'models/generation-rope': lambda: texts(Fixture()), 'models/decoder-partial': partial})
