"""One tiny network of each decoder family, in which everything that distinguishes it counts, computed by transformers and
PEFT: test/fixtures/models/families/<model type>.safetensors, for the table of docs/dev/decoder-families.md.

In float64, stored as float32. In float32 with padding on the left, and in bfloat16. The weights of QLoRA are those that
bitsandbytes makes of their NF4 codes.
"""

import copy
import json
import tempfile
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from bitsandbytes import functional
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from transformers import Phi3Config, Phi3ForCausalLM

import decoder_lm
from common import Fixture, main, randint, randn
from decoder_lm import MULTIPLIERS, SIZE, TURNS, published
from peft_quantized import dequantize

decoder_lm.CLASSES['phi3'] = (Phi3Config, Phi3ForCausalLM)

COMMON = dict(num_key_value_heads=2, max_position_embeddings=128)
WINDOW = dict(sliding_window=5)
USED_WINDOW = dict(use_sliding_window=True, **WINDOW)
PAD = dict(pad_token_id=0)
LOCAL = dict(
    full_attention=dict(rope_type='linear', rope_theta=1000.0, factor=2.0),
    sliding_attention=dict(rope_type='default', rope_theta=20.0),
)
LLAMA3 = {**decoder_lm.LLAMA3, 'original_max_position_embeddings': 64}
FAMILIES = {
    'llama': dict(attention_bias=True, mlp_bias=True, rope_parameters=LLAMA3),
    'mistral': dict(**WINDOW),
    'ministral': dict(layer_types=TURNS, **WINDOW),
    'ministral3': dict(**PAD, rope_parameters=decoder_lm.SCALED, **WINDOW),
    'mixtral': dict(num_local_experts=3, num_experts_per_tok=2, **WINDOW),
    'qwen2': dict(max_window_layers=1, **USED_WINDOW),
    'qwen3': dict(attention_bias=True, layer_types=TURNS, **USED_WINDOW),
    'qwen3_moe': dict(attention_bias=True, num_experts=3, num_experts_per_tok=2, moe_intermediate_size=6, norm_topk_prob=True, mlp_only_layers=[0], **USED_WINDOW),
    'olmo2': dict(**PAD, attention_bias=True),
    'smollm3': dict(**PAD, no_rope_layers=[0, 1], layer_types=TURNS, attention_bias=True, mlp_bias=True, **USED_WINDOW),
    'granite': dict(**PAD, attention_bias=True, mlp_bias=True, tie_word_embeddings=False, **MULTIPLIERS),
    'gemma2': dict(**PAD, query_pre_attn_scalar=6, attn_logit_softcapping=0.7, final_logit_softcapping=1.5, **WINDOW),
    'gemma3_text': dict(**PAD, query_pre_attn_scalar=6, layer_types=TURNS, rope_parameters=LOCAL, **WINDOW),
    'phi3': dict(**PAD, partial_rotary_factor=0.5, **WINDOW),
}
EXPERTS = ['mixtral', 'qwen3_moe']
ATTENTION = ['q_proj', 'k_proj', 'v_proj', 'o_proj']
# Adapters of experts are in models/decoder-lm-lora: PEFT stores them for stacks.
TARGETS = {
    'phi3': ['qkv_proj', 'o_proj', 'gate_up_proj', 'down_proj'],
    **{type: ATTENTION for type in EXPERTS},
}
BATCH, TIME, NEW_TOKENS, PROMPTS = 2, 16, 64, 20
LENGTHS = [16, 7]


def build(name, type, **options):
    model = decoder_lm.build(name, type, **options)
    if type.startswith('gemma'):  # which multiplies by the weight + 1
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if 'norm' in key:
                    parameter.sub_(1)
    return model


def adapted(base, type, name, **options):
    targets = TARGETS.get(type, [*ATTENTION, 'gate_proj', 'up_proj', 'down_proj'])
    model = get_peft_model(base, LoraConfig(r=2, lora_alpha=6, target_modules=targets, task_type='CAUSAL_LM', **options))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if 'lora_' in key:
                parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
            elif 'magnitude' in key:
                parameter.mul_(1 + 0.3 * randn(f'{name}/{key}', *parameter.shape))
                parameter.copy_(parameter.float())
    return model


def saved(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config = json.loads((Path(folder) / 'adapter_config.json').read_text())
        tensors = load_file(Path(folder) / 'adapter_model.safetensors')
    config['target_modules'] = sorted(config['target_modules'])
    config['base_model_name_or_path'] = None
    config.pop('peft_version', None)
    return config, {key: value.float() for key, value in tensors.items()}


def unless_angles(x, method=torch.Tensor.float):
    """Angles are those of float32 here too."""
    is_frequencies = x.dim() == 3 and x.shape[-1] == 1 and not x.requires_grad
    return method(x) if is_frequencies or x.dtype != torch.float64 else x


def not_rounded(method):
    return lambda x, *args, **kwargs: x if x.dtype == torch.float64 and torch.float32 in (*args, *kwargs.values()) else method(x, *args, **kwargs)


@contextmanager
def exactly():
    """Without the way through float32 that norms, routers and softmax of transformers take, also in float64."""
    patches = [
        (torch.Tensor, 'to', not_rounded(torch.Tensor.to)),
        (torch.Tensor, 'float', unless_angles),
        (torch.nn.functional, 'softmax', lambda x, dim=None, dtype=None, **kwargs: torch.softmax(x, dim)),
    ]
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in patches]
    try:
        for owner, name, patch in patches:
            setattr(owner, name, patch)
        yield
    finally:
        for owner, name, original in originals:
            setattr(owner, name, original)


def trained(model, ids):
    with exactly():
        outputs = model(input_ids=ids, labels=ids)
        outputs.loss.backward()
    names = ((key.removeprefix('base_model.model.'), p) for key, p in model.named_parameters())
    return {'logits': outputs.logits, 'loss': outputs.loss}, {key: p.grad for key, p in names if p.requires_grad}


def rounded(weight):
    codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type='nf4', compress_statistics=False)
    return dequantize(codes, state.absmax, weight.shape, torch.float32)


def in_nf4(model):
    """Replace the matrices of the layers, which are those that our `quantize` packs: of experts each one, and both halves."""
    with torch.no_grad():
        for key, parameter in model.model.layers.named_parameters():
            if parameter.dim() == 2:
                parameter.copy_(rounded(parameter.float()))
            for expert in parameter if parameter.dim() == 3 else []:
                for part in expert.chunk(2) if key.endswith('gate_up_proj') else [expert]:
                    part.copy_(rounded(part.float().contiguous()))
    return model


def greedy(model, name):
    """Prompts, and 64 tokens of each, where no choice is so close that a rounding to float32 decides it."""
    model.config.output_router_logits = False
    settings = dict(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    for attempt in range(40):
        ids = randint(f'{name}/prompts {attempt}', 1, SIZE['vocab_size'], PROMPTS, 8)
        found = model.generate(ids, attention_mask=torch.ones_like(ids), output_logits=True, return_dict_in_generate=True, **settings)
        logits = torch.stack(found.logits, 1)
        first, second = logits.topk(2).values.unbind(-1)
        if (first - second).min() > 5e-6 * logits.abs().max() and len(found.sequences[:, 8:].unique()) > 3:
            return ids, found.sequences[:, 8:]
    raise ValueError(f'{name}: choices are too close')


def outputs_of(type, name, options):
    ids = randint(f'{name}/ids', 1, SIZE['vocab_size'], BATCH, TIME)
    model = build(name, type, **options)
    out, grad = trained(model, ids)
    given = {'input_ids': ids}
    with torch.no_grad():
        given['prompts'], out['tokens'] = greedy(model, name)

        mask = torch.zeros(BATCH, TIME, dtype=torch.long)
        for row, length in enumerate(LENGTHS):
            mask[row, -length:] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        # float64's smallest number, which transformers masks with, is -inf to its softmax.
        left = copy.deepcopy(model).float()(input_ids=ids, attention_mask=mask, position_ids=positions).logits
        out['left'] = torch.where(mask.bool()[..., None], left, 0)
        given['attention_mask'] = mask

        half = copy.deepcopy(model).to(torch.bfloat16)
        out['bfloat16'] = half(input_ids=ids).logits.float()
        out['bfloat16_exact'] = half.double()(input_ids=ids).logits
    adapters, configs, gradients = {}, {}, {'plain': published(type, grad)}
    for kind in ['lora', 'dora', 'qlora']:
        base = build(name, type, **options)
        base = in_nf4(base) if kind == 'qlora' else base
        # QLoRA's adapter is that of LoRA.
        adapter = adapted(base, type, f'{name}/{kind[-4:]}', use_dora=kind == 'dora').double()
        if kind != 'qlora':
            configs[kind], adapters[kind] = saved(adapter)
        found, gradients[kind] = trained(adapter.eval(), ids)
        out |= {f'{kind}_{key}': value for key, value in found.items()}
    parameters = published(type, dict(model.named_parameters()))
    return given, parameters, out, adapters, gradients, configs


def family(type):
    fixture = Fixture()
    options = {**COMMON, **FAMILIES[type]}
    name = f'tiny {type}'
    given, parameters, out, adapters, gradients, configs = outputs_of(type, name, options)
    everything = [*out.values(), *(value for grad in gradients.values() for value in grad.values())]
    assert all(value.isfinite().all() for value in everything), type
    fixture.case(
        dict(name=type, config={'model_type': type, **SIZE, **options}, adapters=configs),
        **{'in': given},
        param={key: value.float() for key, value in parameters.items()},
        out={key: value.float() for key, value in out.items()},
        **{f'{kind}_file': tensors for kind, tensors in adapters.items()},
        **{f'{kind}_grad': {key: value.float() for key, value in grad.items()} for kind, grad in gradients.items()},
    )
    return fixture


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    main({f'models/families/{type}': (lambda type=type: family(type)) for type in FAMILIES})
