"""Tiny decoders of the LLaMA family with random weights, computed by transformers: test/fixtures/models/decoder-lm.safetensors,
and directories as save_pretrained writes them.

In float64, stored as float32, though transformers takes norms, angles and softmax through float32. With padding on the
left in float32: float64's smallest number, which transformers masks with, is -inf to its softmax.
"""

import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import save_file
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    GraniteForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    Ministral3Config,
    Ministral3ForCausalLM,
    MinistralConfig,
    MinistralForCausalLM,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from common import FIXTURES, Fixture, main, randint, randn

CLASSES = {
    'llama': (LlamaConfig, LlamaForCausalLM),
    'mistral': (MistralConfig, MistralForCausalLM),
    'ministral': (MinistralConfig, MinistralForCausalLM),
    'ministral3': (Ministral3Config, Ministral3ForCausalLM),
    'mixtral': (MixtralConfig, MixtralForCausalLM),
    'qwen2': (Qwen2Config, Qwen2ForCausalLM),
    'qwen3': (Qwen3Config, Qwen3ForCausalLM),
    'qwen3_moe': (Qwen3MoeConfig, Qwen3MoeForCausalLM),
    'olmo2': (Olmo2Config, Olmo2ForCausalLM),
    'smollm3': (SmolLM3Config, SmolLM3ForCausalLM),
    'granite': (GraniteConfig, GraniteForCausalLM),
    'gemma2': (Gemma2Config, Gemma2ForCausalLM),
    'gemma3_text': (Gemma3TextConfig, Gemma3ForCausalLM),
}
SIZE = dict(
    vocab_size=23,
    hidden_size=8,
    intermediate_size=12,
    num_hidden_layers=2,
    num_attention_heads=4,
    head_dim=4,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
)
GQA = dict(num_key_value_heads=2)
LLAMA3 = dict(
    rope_type='llama3',
    rope_theta=10.0,  # so that the four frequencies of a head reach all three kinds of wavelength
    factor=4.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
PUBLISHED = dict(rope_type='llama3', low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
WIDE = dict(num_attention_heads=2, num_key_value_heads=1, head_dim=128, max_position_embeddings=131072)
YARN = dict(rope_type='yarn', rope_theta=100.0, factor=4.0, original_max_position_embeddings=16)
# The positions of three tokens have one scale of the queries.
SCALED = dict(rope_type='yarn', rope_theta=100.0, factor=4.0, original_max_position_embeddings=3, beta_fast=32.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=0.5, llama_4_scaling_beta=0.8)
WINDOW = dict(sliding_window=4)
MULTIPLIERS = dict(embedding_multiplier=3.0, residual_multiplier=0.4, attention_multiplier=0.3, logits_scaling=2.5)
LOCAL = dict(
    full_attention=dict(rope_type='linear', rope_theta=1000.0, factor=2.0),
    sliding_attention=dict(rope_type='default', rope_theta=20.0),
)
ROUTER = dict(output_router_logits=True, router_aux_loss_coef=0.5)
TURNS = ['sliding_attention', 'full_attention']
# Of which the greedy tokens are stored as well.
GREEDY = ['qwen3', 'olmo2', 'smollm3', 'granite', 'gemma2', 'gemma3_text', 'mixtral', 'qwen3_moe', 'ministral', 'ministral3']
NEW_TOKENS = 12
# Of these, of more prompts.
PROMPTS = 20
PROMPTED = ['mixtral', 'qwen3_moe', 'ministral', 'ministral3']

CASES = [
    dict(name='llama', type='llama'),
    dict(name='llama-left', type='llama', pads='left', embeds=True),
    dict(name='llama-biases', type='llama', attention_bias=True, mlp_bias=True, head_dim=6, pad_token_id=0, **GQA),
    dict(name='llama-gqa', type='llama', pads='right', hidden_act='gelu', **GQA),
    dict(name='llama3', type='llama', brief=True, head_dim=8, rope_parameters=LLAMA3, **GQA),
    # LLaMA 3.1's and 3.2's configurations, under the keys of their files, where long wavelengths count.
    dict(name='llama3.1', type='llama', brief=True, offset=60000, rope_theta=500000.0, rope_scaling={**PUBLISHED, 'factor': 8.0}, **WIDE),
    dict(name='llama3.2', type='llama', brief=True, offset=9000, rope_theta=500000.0, rope_scaling={**PUBLISHED, 'factor': 32.0}, tie_word_embeddings=True, **{**WIDE, 'head_dim': 64}),
    dict(name='linear', type='llama', brief=True, rope_parameters=dict(rope_type='linear', rope_theta=50.0, factor=2.0)),
    dict(name='dynamic', type='llama', brief=True, rope_parameters=dict(rope_type='dynamic', rope_theta=50.0, factor=2.0), max_position_embeddings=6),
    dict(name='yarn', type='llama', brief=True, head_dim=8, rope_parameters=YARN, **GQA),
    dict(name='mistral', type='mistral', **WINDOW, **GQA),
    dict(name='mistral-left', type='mistral', pads='left', **WINDOW, **GQA),
    dict(name='mistral-full', type='mistral', sliding_window=None, num_key_value_heads=1),
    dict(name='qwen2', type='qwen2', num_key_value_heads=2, pads='right'),
    dict(name='qwen2-tied', type='qwen2', num_key_value_heads=4, tie_word_embeddings=True),
    dict(name='qwen2-window', type='qwen2', use_sliding_window=True, max_window_layers=1, pads='left', **WINDOW, **GQA),
    dict(name='qwen3', type='qwen3', **GQA),
    dict(name='qwen3-left', type='qwen3', pads='left', attention_bias=True, use_sliding_window=True, layer_types=TURNS, **WINDOW, **GQA),
    dict(name='olmo2', type='olmo2', pad_token_id=0, **GQA),
    dict(name='olmo2-left', type='olmo2', pads='left', brief=True, pad_token_id=0, attention_bias=True, tie_word_embeddings=True),
    dict(name='smollm3', type='smollm3', pad_token_id=0, no_rope_layer_interval=2, mlp_bias=True, **GQA),
    dict(name='smollm3-left', type='smollm3', pads='left', brief=True, pad_token_id=0, no_rope_layers=[0, 1], use_sliding_window=True, layer_types=TURNS, attention_bias=True, tie_word_embeddings=False, **WINDOW, **GQA),
    dict(name='granite', type='granite', pad_token_id=0, mlp_bias=True, **MULTIPLIERS, **GQA),
    dict(name='granite-left', type='granite', pads='left', brief=True, pad_token_id=0, embeds=True, attention_bias=True, tie_word_embeddings=True, **MULTIPLIERS),
    dict(name='gemma2', type='gemma2', pad_token_id=0, query_pre_attn_scalar=6, attn_logit_softcapping=0.7, final_logit_softcapping=1.5, **WINDOW, **GQA),
    dict(name='gemma2-left', type='gemma2', pads='left', brief=True, pad_token_id=0, embeds=True, attention_bias=True, tie_word_embeddings=False, layer_types=TURNS[::-1], final_logit_softcapping=None, **WINDOW, **GQA),
    dict(name='gemma3_text', type='gemma3_text', pad_token_id=0, query_pre_attn_scalar=6, layer_types=TURNS, rope_parameters=LOCAL, **WINDOW, **GQA),
    dict(name='gemma3_text-left', type='gemma3_text', pads='left', brief=True, pad_token_id=0, embeds=True, attention_bias=True, tie_word_embeddings=False, final_logit_softcapping=1.5, layer_types=TURNS[::-1], rope_parameters=LOCAL, **WINDOW, **GQA),
    dict(name='mixtral', type='mixtral', num_local_experts=4, **ROUTER, **GQA),
    dict(name='mixtral-left', type='mixtral', pads='left', embeds=True, num_local_experts=5, num_experts_per_tok=3, tie_word_embeddings=True, **ROUTER, **WINDOW, **GQA),
    dict(name='qwen3_moe', type='qwen3_moe', num_experts=5, num_experts_per_tok=2, moe_intermediate_size=6, norm_topk_prob=True, mlp_only_layers=[0], **ROUTER, **GQA),
    dict(name='qwen3_moe-left', type='qwen3_moe', pads='left', num_experts=6, num_experts_per_tok=3, moe_intermediate_size=6, attention_bias=True, use_sliding_window=True, **ROUTER, **WINDOW, **GQA),
    dict(name='qwen3_moe-step', type='qwen3_moe', pads='left', brief=True, num_experts=9, num_experts_per_tok=1, moe_intermediate_size=4, decoder_sparse_step=2, **GQA),
    dict(name='ministral', type='ministral', brief=True, **WINDOW, **GQA),
    dict(name='ministral-left', type='ministral', pads='left', brief=True, layer_types=TURNS, tie_word_embeddings=True, **WINDOW, **GQA),
    dict(name='ministral3', type='ministral3', pad_token_id=0, rope_parameters=SCALED, **GQA),
    dict(name='ministral3-left', type='ministral3', pads='left', brief=True, pad_token_id=0, rope_parameters=SCALED, tie_word_embeddings=True, **WINDOW, **GQA),
]
BATCH, TIME = 3, 8
LENGTHS = [8, 6, 3]


def fill(model, name):
    """Named random weights: biases and norms too, so that each of them counts."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
            if 'norm' in key:
                parameter.add_(1)


def build(name, type, **options):
    config_class, model_class = CLASSES[type]
    config = config_class(**{**SIZE, **options})
    config._attn_implementation = 'eager'
    config._experts_implementation = 'eager'
    model = model_class(config).eval()
    fill(model, name)
    return model.double()


# Names of published checkpoints for those of transformers 5, which stacks experts.
EXPERTS = {
    'mixtral': ('block_sparse_moe', ['w1', 'w3'], 'w2'),
    'qwen3_moe': ('mlp', ['gate_proj', 'up_proj'], 'down_proj'),
}


def published(type, tensors):
    """Without the gradients of experts that no token went through, which are 0 in a stack."""
    if type not in EXPERTS:
        return tensors
    mlp, halves, down = EXPERTS[type]
    result = {}
    for key, value in tensors.items():
        key = key.replace('.mlp.', f'.{mlp}.')
        name, _, kind = key.rpartition('.')
        if not name.endswith('.experts'):
            result[key] = value
            continue
        for expert, one in enumerate(value):
            if not one.any():
                continue
            parts = zip(halves, one.chunk(2)) if kind == 'gate_up_proj' else [(down, one)]
            result |= {f'{name}.{expert}.{part}.weight': part_value for part, part_value in parts}
    return result


def masked(pads):
    if pads is None:
        return None
    mask = torch.zeros(BATCH, TIME, dtype=torch.long)
    for row, length in enumerate(LENGTHS):
        mask[row, slice(-length, None) if pads == 'left' else slice(length)] = 1
    return mask


def one(fixture, name, type, pads=None, embeds=False, brief=False, offset=None, **options):
    model = build(name, type, **options)
    exact_type = torch.float32 if pads == 'left' else torch.float64
    model.to(exact_type)
    mask = masked(pads)
    ids = randint(f'{name}/ids', 1, SIZE['vocab_size'], BATCH, TIME)
    labels = ids.clone()
    labels[:, :2] = -100
    given = {'input_ids': ids}
    if mask is not None:
        given['attention_mask'] = mask
        labels[mask == 0] = -100
        labels[:, 1:][mask[:, :-1] == 0] = -100  # what follows padding would be told from it
    if embeds:
        given = {**given, 'inputs_embeds': randn(f'{name}/embeds', BATCH, TIME, SIZE['hidden_size'])}
        del given['input_ids']
    given['labels'] = labels
    if offset is not None:
        given['position_ids'] = torch.arange(offset, offset + TIME).unsqueeze(0)
    exact = {key: value.to(exact_type) if value.is_floating_point() else value for key, value in given.items()}
    if embeds:
        exact['inputs_embeds'].requires_grad_()
    if mask is not None:
        exact['position_ids'] = (mask.cumsum(1) - 1).clamp(min=0)
    outputs = model(**exact, output_hidden_states=True, output_attentions=True)
    real = torch.ones(BATCH, TIME) if mask is None else mask.float()
    cotangent = randn(f'{name}/cotangent', *outputs.logits.shape) * real[..., None] * 0.02
    (outputs.loss + (outputs.logits * cotangent).sum()).backward()
    parameters = dict(model.named_parameters())
    out = {'logits': outputs.logits, 'loss': outputs.loss}
    router = {f'router.{i}': logits for i, logits in enumerate(getattr(outputs, 'router_logits', None) or ())}
    if router:
        router['aux_loss'] = outputs.aux_loss
    if not brief:
        out |= {f'hidden.{i}': hidden for i, hidden in enumerate(outputs.hidden_states)}
        out |= {f'attention.{i}': attention for i, attention in enumerate(outputs.attentions)}
    # What stands at padding means nothing.
    keep = real.bool()
    for key, value in out.items():
        if key.startswith('attention'):
            out[key] = torch.where(keep[:, None, :, None], value, 0)
        elif key != 'loss':
            out[key] = torch.where(keep[..., None], value, 0)
    grad = {key: value.grad for key, value in parameters.items() if value.grad is not None}
    if brief:  # the scaled angles take no part in the gradient's form
        grad = {key: value for key, value in grad.items() if 'layers.0.self_attn.k_proj' in key}
    if embeds:
        out['inputs_embeds.grad'] = exact['inputs_embeds'].grad
    given['real'] = real
    assert all(value.isfinite().all() for value in [*out.values(), *grad.values()]), name
    if type in GREEDY and not embeds:
        settings = dict(max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
        # transformers multiplies the last tokens' probabilities with the mask of all.
        model.config.output_router_logits = False
        with torch.no_grad():
            tokens = model.generate(ids, attention_mask=torch.ones_like(ids) if mask is None else mask, **settings)
        out['tokens'] = tokens[:, TIME:].float()
        if type in PROMPTED:
            given['prompts'] = randint(f'{name}/prompts', 1, SIZE['vocab_size'], PROMPTS, TIME)
            with torch.no_grad():
                tokens = model.generate(given['prompts'], attention_mask=torch.ones(PROMPTS, TIME).long(), **settings)
            out['prompted'] = tokens[:, TIME:].float()
    fixture.case(
        dict(name=name, config={'model_type': type, **SIZE, **options}),
        **{'in': given},
        cotangent={'logits': cotangent},
        param={key: value.float() for key, value in published(type, parameters).items()},
        out={key: value.float() for key, value in [*out.items(), *router.items()]},
        grad={key: value.float() for key, value in published(type, grad).items()},
    )


def decoder_lm():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


def pretrained():
    """Directories: one file, shards of safetensors, shards of .bin, a larger network's; the fixture holds what they answer."""
    fixture = Fixture()
    small = dict(vocab_size=20, num_attention_heads=2)
    llama3 = {**LLAMA3, 'rope_theta': 50.0}
    for name, type, options in [
        ('llama-sharded', 'llama', dict(rope_parameters=llama3)),
        ('mistral-bin', 'mistral', dict(num_key_value_heads=1, **WINDOW)),
        ('qwen2-safetensors', 'qwen2', dict(num_key_value_heads=1, tie_word_embeddings=True)),
    ]:
        model = build(name, type, **{**small, **options}).float()
        folder = FIXTURES / f'models/{name}'
        if name == 'mistral-bin':
            bin_shards(model, folder)
        else:
            model.save_pretrained(folder, max_shard_size='2KB' if 'sharded' in name else '5GB')
        ids = randint(f'{name}/ids', 1, 20, 2, 7)
        with torch.no_grad():
            logits = model.double()(input_ids=ids).logits
        fixture.case(dict(name=name, type=type), **{'in': {'input_ids': ids}}, out={'logits': logits.float()})
    text = dict(model_type='ministral3', rope_parameters={**SCALED, 'llama_4_scaling_beta': 0.1}, **GQA)
    vision = dict(hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, head_dim=4, image_size=4, patch_size=2)
    for name, tied in [('mistral3-safetensors', False), ('mistral3-tied', True)]:
        config = Mistral3Config(
            text_config={**SIZE, **text},
            vision_config={**vision, 'model_type': 'pixtral'},
            tie_word_embeddings=tied,
        )
        model = Mistral3ForConditionalGeneration(config).eval()
        fill(model, name)
        model.save_pretrained(FIXTURES / f'models/{name}')
        ids = randint(f'{name}/ids', 11, SIZE['vocab_size'], 2, 7)
        with torch.no_grad():
            logits = model.double()(input_ids=ids).logits
        fixture.case(dict(name=name, type='ministral3'), **{'in': {'input_ids': ids}}, out={'logits': logits.float()})
    return fixture


def lora():
    """PEFT's adapter as SALMONN trains it, on the network of the case `llama-gqa`, and adapters of experts."""
    fixture = Fixture()
    options = next(case for case in CASES if case['name'] == 'llama-gqa')
    options = {key: value for key, value in options.items() if key not in ('name', 'type', 'pads')}
    config = dict(r=8, lora_alpha=32, lora_dropout=0.0, target_modules=['q_proj', 'v_proj'])
    model = get_peft_model(build('llama-gqa', 'llama', **options), LoraConfig(**config, task_type='CAUSAL_LM'))
    parameters = {name.removeprefix('base_model.model.'): p for name, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for key, parameter in parameters.items():
            parameter.copy_(randn(f'lora/{key}', *parameter.shape, scale=0.2))
    model.double()
    ids = randint('lora/ids', 1, SIZE['vocab_size'], BATCH, TIME)
    outputs = model(input_ids=ids, labels=ids)
    outputs.loss.backward()
    fixture.case(
        dict(name='lora', network='llama-gqa', config=config),
        **{'in': {'input_ids': ids}},
        param={key: value.float() for key, value in parameters.items()},
        out={'logits': outputs.logits.float(), 'loss': outputs.loss.float()},
        grad={key: value.grad.float() for key, value in parameters.items()},
    )
    # PEFT leaves out the dense layers of the case `qwen3_moe`.
    for network in ['mixtral', 'qwen3_moe-left']:
        lora_of_experts(fixture, network)
    return fixture


def lora_of_experts(fixture, network):
    """In the layout of PEFT before transformers 5 stacked experts, which PEFT converts to adapters of the stacks."""
    options = next(case for case in CASES if case['name'] == network)
    name = options['type']
    options = {key: value for key, value in options.items() if key not in ('name', 'type', 'pads')}
    base = build(network, name, **options)
    _, halves, down = EXPERTS[name]
    rank, projections = 2, ['q_proj', 'o_proj', 'gate', *halves, down]
    config = dict(r=rank, lora_alpha=6, lora_dropout=0.0, target_modules=projections)
    shapes = {key: value.shape for key, value in published(name, dict(base.named_parameters())).items()}
    given = {}
    for key, shape in shapes.items():
        path = key.removesuffix('.weight')
        if not any(path.endswith(f'.{one}') for one in projections):
            continue
        for part, size in [('lora_A', (rank, shape[1])), ('lora_B', (shape[0], rank))]:
            given[f'{path}.{part}.default.weight'] = randn(f'lora {name}/{path}/{part}', *size, scale=0.3)
    with tempfile.TemporaryDirectory() as folder:
        LoraConfig(**config, task_type='CAUSAL_LM').save_pretrained(folder)
        tensors = {f'base_model.model.{key.replace(".default", "")}': value for key, value in given.items()}
        save_file(tensors, Path(folder) / 'adapter_model.safetensors')
        model = PeftModel.from_pretrained(base, folder, is_trainable=True).eval().double()
    ids = randint(f'lora {name}/ids', 1, SIZE['vocab_size'], BATCH, TIME)
    outputs = model(input_ids=ids, labels=ids)
    outputs.loss.backward()
    trained = {key.removeprefix('base_model.model.'): p.grad for key, p in model.named_parameters() if p.requires_grad}
    count = options.get('num_local_experts') or options['num_experts']
    fixture.case(
        dict(name=f'lora {name}', network=network, config=config),
        **{'in': {'input_ids': ids}},
        param=given,
        out={'logits': outputs.logits.float(), 'loss': outputs.loss.float()},
        grad={key: value.float() for key, value in apart(name, trained, count, rank).items()},
    )


def apart(type, grads, count, rank):
    """Gradients of the adapters of single experts from those of stacks, whose B is diagonal in blocks."""
    mlp, halves, down = EXPERTS[type]
    result = {}
    for key, value in grads.items():
        key = key.replace('.mlp.', f'.{mlp}.')
        path, _, part = key.partition('.lora_')
        if not path.removesuffix('.base_layer').endswith('.experts'):
            result[key.replace('.gate.base_layer.', '.gate.')] = value
            continue
        stack, names = path.removesuffix('.base_layer'), halves if path.endswith('.base_layer') else [down]
        ranks = rank * len(names)
        # A [experts * ranks, in], B [out, ranks * experts].
        each = value.view(count, ranks, -1) if part[0] == 'A' else value.T.view(ranks, count, -1).permute(1, 2, 0)
        for expert in range(count):
            for i, name in enumerate(names):
                own = slice(i * rank, (i + 1) * rank)
                rows = each.shape[1] // len(names)
                one = each[expert][own] if part[0] == 'A' else each[expert][i * rows : (i + 1) * rows, own]
                if one.any():
                    result[f'{stack}.{expert}.{name}.lora_{part}'] = one
    return result


def bin_shards(model, folder):
    """As transformers before version 5 wrote them, with the buffers that LLaMA 1's shards have."""
    import json

    folder.mkdir(parents=True, exist_ok=True)
    model.config.save_pretrained(folder)
    state = dict(model.state_dict())
    state['model.layers.0.self_attn.rotary_emb.inv_freq'] = torch.ones(2)
    names = sorted(state)
    half = len(names) // 2
    weight_map = {}
    for i, part in enumerate([names[:half], names[half:]], 1):
        file = f'pytorch_model-0000{i}-of-00002.bin'
        torch.save({name: state[name] for name in part}, folder / file)
        weight_map |= {name: file for name in part}
    index = {'metadata': {'total_size': sum(v.nbytes for v in state.values())}, 'weight_map': weight_map}
    (folder / 'pytorch_model.bin.index.json').write_text(json.dumps(index, indent=2) + '\n')


if __name__ == '__main__':
    main({'models/decoder-lm': decoder_lm, 'models/decoder-lm-pretrained': pretrained, 'models/decoder-lm-lora': lora})
