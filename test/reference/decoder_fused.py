"""Tiny decoders whose projections are fused, with random weights: test/fixtures/models/decoder-fused.safetensors, a folder as
transformers writes a Phi-3, and adapters that PEFT trained on them.

Phi-3 is transformers' own; InternLM2, which transformers has not, is restated below from its published description, and held
to transformers' Llama with the projections taken apart.
"""

import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, Phi3Config, Phi3ForCausalLM

import decoder_lm
from common import FIXTURES, Fixture, main, randint, randn
from decoder_lm import BATCH, SIZE, TIME, fill, one

decoder_lm.CLASSES['phi3'] = (Phi3Config, Phi3ForCausalLM)

GQA = dict(num_key_value_heads=2)
PLAIN = dict(type='phi3', pad_token_id=0)


def longrope(original, **more):
    return dict(
        hidden_size=16,  # transformers counts the factors of a head of hidden_size / heads dimensions
        num_attention_heads=2,
        head_dim=8,
        num_key_value_heads=1,
        original_max_position_embeddings=original,
        rope_parameters=dict(
            rope_type='longrope',
            rope_theta=50.0,
            short_factor=[1.0, 1.1, 1.25, 1.5],
            long_factor=[1.0, 2.0, 3.5, 6.0],
            original_max_position_embeddings=original,
            **more,
        ),
    )


FACTORS = dict(short_factor=[1.0, 1.1, 1.25], long_factor=[1.0, 2.0, 3.5])
PARTIAL = dict(rope_type='longrope', rope_theta=50.0, partial_rotary_factor=0.75, original_max_position_embeddings=6, **FACTORS)


def phi4(original):
    legacy = dict(rope_theta=50.0, partial_rotary_factor=0.75, rope_scaling=dict(type='longrope', **FACTORS))
    return {**{key: value for key, value in longrope(original).items() if key != 'rope_parameters'}, **legacy}


PHI3 = [
    dict(name='phi3', pads='right', **PLAIN, **GQA),
    dict(name='phi3-left', pads='left', embeds=True, sliding_window=4, **PLAIN),
    dict(name='phi3-short', brief=True, **PLAIN, **longrope(16)),
    dict(name='phi3-long', brief=True, **PLAIN, **longrope(6)),
    dict(name='phi3-long-left', brief=True, pads='left', **PLAIN, **longrope(6)),
    # Phi-4-mini's configuration, under the keys of its file, and as transformers 5 writes it.
    dict(name='phi4', **PLAIN, tie_word_embeddings=True, **phi4(6), sliding_window=4096),
    dict(name='phi4-left', brief=True, pads='left', **PLAIN, **phi4(16)),
    dict(name='phi4-parameters', brief=True, **PLAIN, **{**longrope(6), 'rope_parameters': PARTIAL}),
    dict(name='phi3-attention-factor', brief=True, **PLAIN, **longrope(6, attention_factor=1.25)),
]


def phi3_cases(fixture):
    for case in PHI3:
        one(fixture, **case)


def crossing(fixture):
    """One token at a time behind a prompt, over the length at which the factors change; and without a cache beside it."""
    name = 'phi3-crossing'
    options = {**SIZE, **longrope(6), 'pad_token_id': 0}
    model = decoder_lm.build(name, 'phi3', **options)
    ids = randint(f'{name}/ids', 1, SIZE['vocab_size'], 2, 9)
    with torch.no_grad():
        first = model(input_ids=ids[:, :4], use_cache=True)
        steps, past = [first.logits], first.past_key_values
        for i in range(4, 9):
            step = model(input_ids=ids[:, i : i + 1], past_key_values=past, use_cache=True)
            steps.append(step.logits)
            past = step.past_key_values
        whole = model(input_ids=ids).logits
    fixture.case(
        dict(name=name, config={'model_type': 'phi3', **options}),
        **{'in': {'input_ids': ids}},
        param={key: value.float() for key, value in model.named_parameters()},
        out={'cached': torch.cat(steps, 1).float(), 'whole': whole.float()},
    )


# InternLM2 --------------------------------------------------------------------------------------------------------------


class Norm(nn.Module):
    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        return self.weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)


def turn(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


class InternLM2Layer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.heads, self.groups, self.dim = c['num_attention_heads'], c['num_key_value_heads'], c['head_dim']
        self.attention = nn.Module()
        width = (self.heads + 2 * self.groups) * self.dim
        self.attention.wqkv = nn.Linear(c['hidden_size'], width, bias=c['bias'])
        self.attention.wo = nn.Linear(self.heads * self.dim, c['hidden_size'], bias=c['bias'])
        self.feed_forward = nn.Module()
        for name, shape in dict(w1=(0, 1), w3=(0, 1), w2=(1, 0)).items():
            sizes = (c['hidden_size'], c['intermediate_size'])
            setattr(self.feed_forward, name, nn.Linear(sizes[shape[0]], sizes[shape[1]], bias=False))
        self.attention_norm = Norm(c['hidden_size'], c['rms_norm_eps'])
        self.ffn_norm = Norm(c['hidden_size'], c['rms_norm_eps'])

    def forward(self, x, cos, sin, mask, cache=None):
        """With a cache, keys keep the angles with which they were read."""
        batch, time, _ = x.shape
        each = self.heads // self.groups
        # For each group: its queries, its key, its value.
        slots = self.attention.wqkv(self.attention_norm(x)).view(batch, time, self.groups, each + 2, self.dim)
        q = slots[..., :each, :].reshape(batch, time, self.heads, self.dim).transpose(1, 2)
        k, v = (slots[..., each + i, :].transpose(1, 2).repeat_interleave(each, 1) for i in (0, 1))
        k = turn(k, cos, sin)
        if cache is not None:
            before = cache.get(self)
            cache[self] = (k, v) = (k, v) if before is None else tuple(torch.cat(two, 2) for two in zip(before, (k, v)))
        scores = turn(q, cos, sin) @ k.transpose(2, 3) / self.dim**0.5
        weights = scores.masked_fill(~mask, float('-inf')).softmax(-1)
        x = x + self.attention.wo((weights @ v).transpose(1, 2).reshape(batch, time, -1))
        f, y = self.feed_forward, self.ffn_norm(x)
        return x + f.w2(F.silu(f.w1(y)) * f.w3(y))


class InternLM2(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.model = nn.Module()
        self.model.tok_embeddings = nn.Embedding(c['vocab_size'], c['hidden_size'])
        self.model.layers = nn.ModuleList(InternLM2Layer(c) for _ in range(c['num_hidden_layers']))
        self.model.norm = Norm(c['hidden_size'], c['rms_norm_eps'])
        self.output = nn.Linear(c['hidden_size'], c['vocab_size'], bias=False)

    def angles(self, positions):
        c = self.c
        base, dim, most = c['rope_theta'], c['head_dim'], c['max_position_embeddings']
        length, scaling = int(positions.max()) + 1, c.get('rope_scaling')
        if scaling and length > most:
            base *= (scaling['factor'] * length / most - (scaling['factor'] - 1)) ** (dim / (dim - 2))
        inverse = 1 / base ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)
        angles = (positions.float()[..., None] * inverse).repeat(1, 1, 2)[:, None]
        return angles.cos().double(), angles.sin().double()

    def forward(self, ids, mask, cache=None):
        """`ids` are the last columns of `mask`; those before them stand in the cache."""
        real = mask.bool()
        time, new = mask.shape[1], ids.shape[1]
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -new:]
        seen = torch.ones(time, time, dtype=torch.bool).tril() & real[:, None, None, :]
        seen = (seen | torch.eye(time, dtype=torch.bool))[:, :, -new:]
        x = self.model.tok_embeddings(ids)
        cos, sin = self.angles(positions)
        for layer in self.model.layers:
            x = layer(x, cos, sin, seen, cache)
        return self.output(self.model.norm(x))


def apart(model):
    """The same network as transformers' Llama."""
    c = model.c
    config = LlamaConfig(
        **{k: c[k] for k in [*SIZE, 'num_key_value_heads']},
        rope_parameters=dict(rope_type='default', rope_theta=c['rope_theta']),
        attention_bias=c['bias'],
    )
    config._attn_implementation = 'eager'
    llama = LlamaForCausalLM(config).eval().double()
    state = {
        'model.embed_tokens.weight': model.model.tok_embeddings.weight,
        'model.norm.weight': model.model.norm.weight,
        'lm_head.weight': model.output.weight,
    }
    heads, groups, dim = c['num_attention_heads'], c['num_key_value_heads'], c['head_dim']
    for i, layer in enumerate(model.model.layers):
        to = f'model.layers.{i}.'
        for kind in ['weight', 'bias'] if c['bias'] else ['weight']:
            slots = getattr(layer.attention.wqkv, kind).reshape(groups, heads // groups + 2, dim, -1)
            parts = dict(q=slots[:, :-2], k=slots[:, -2], v=slots[:, -1])
            for name, rows in parts.items():
                rows = rows.reshape(-1, slots.shape[-1])
                state[f'{to}self_attn.{name}_proj.{kind}'] = rows if kind == 'weight' else rows[:, 0]
            state[f'{to}self_attn.o_proj.{kind}'] = getattr(layer.attention.wo, kind)
        for ours, theirs in dict(w1='gate', w3='up', w2='down').items():
            state[f'{to}mlp.{theirs}_proj.weight'] = getattr(layer.feed_forward, ours).weight
        state[f'{to}input_layernorm.weight'] = layer.attention_norm.weight
        state[f'{to}post_attention_layernorm.weight'] = layer.ffn_norm.weight
    llama.load_state_dict(state)
    return llama


def internlm2_model(name, **options):
    config = dict(**SIZE, num_key_value_heads=2, bias=False, rope_theta=50.0)
    model = InternLM2({**config, **options})
    fill(model, name)
    return model.double()


INTERNLM2 = [
    dict(name='internlm2', pads='right'),
    dict(name='internlm2-left', pads='left', bias=True, num_key_value_heads=1),
    dict(name='internlm2-each', num_key_value_heads=4),
    dict(name='internlm2-dynamic', rope_scaling=dict(type='dynamic', factor=2.0), max_position_embeddings=6),
]


def internlm2_cases(fixture):
    for case in INTERNLM2:
        name, pads = case['name'], case.get('pads')
        model = internlm2_model(name, **{k: v for k, v in case.items() if k not in ('name', 'pads')})
        mask = decoder_lm.masked(pads)
        real = torch.ones(BATCH, TIME) if mask is None else mask.float()
        ids = randint(f'{name}/ids', 1, SIZE['vocab_size'], BATCH, TIME)
        labels = ids.clone()
        labels[:, :2] = -100
        labels[real == 0] = -100
        labels[:, 1:][real[:, :-1] == 0] = -100
        logits = model(ids, real.long())
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        cotangent = randn(f'{name}/cotangent', *logits.shape) * real[..., None] * 0.02
        (loss + (logits * cotangent).sum()).backward()
        if 'rope_scaling' not in case and pads != 'left':
            with torch.no_grad():
                theirs = apart(model)(input_ids=ids, attention_mask=mask).logits
            keep = real.bool()
            error = (theirs - logits)[keep].abs().max() / logits[keep].abs().max()
            assert error < 1e-6, (name, error)
        given = {'input_ids': ids, 'labels': labels, 'real': real}
        if mask is not None:
            given['attention_mask'] = mask
        fixture.case(
            dict(name=name, config={'model_type': 'internlm2', **model.c}),
            **{'in': given},
            cotangent={'logits': cotangent},
            param={key: value.float() for key, value in model.named_parameters()},
            out={'logits': torch.where(real.bool()[..., None], logits, 0).float(), 'loss': loss.float()},
            grad={key: value.grad.float() for key, value in model.named_parameters()},
        )


def internlm2_crossing():
    """As `crossing`, on the weights of `internlm2-dynamic`: the base grows with the text at each step."""
    fixture = Fixture()
    case = next(case for case in INTERNLM2 if case['name'] == 'internlm2-dynamic')
    model = internlm2_model(case['name'], **{k: v for k, v in case.items() if k != 'name'})
    ids = randint('internlm2-crossing/ids', 1, SIZE['vocab_size'], 2, 9)
    with torch.no_grad():
        cache = {}
        steps = [model(ids[:, :4], torch.ones(2, 4, dtype=torch.int64), cache)]
        for i in range(4, 9):
            steps.append(model(ids[:, i : i + 1], torch.ones(2, i + 1, dtype=torch.int64), cache))
        whole = model(ids, torch.ones_like(ids))
    fixture.case(
        dict(name='internlm2-crossing'),
        **{'in': {'input_ids': ids}},
        out={'cached': torch.cat(steps, 1).float(), 'whole': whole.float()},
    )
    return fixture


def decoder_fused():
    fixture = Fixture()
    phi3_cases(fixture)
    crossing(fixture)
    internlm2_cases(fixture)
    return fixture


def pretrained():
    fixture = Fixture()
    options = dict(vocab_size=20, **longrope(6), pad_token_id=0)
    model = decoder_lm.build('phi3-safetensors', 'phi3', **options).float()
    model.save_pretrained(FIXTURES / 'models/phi3-safetensors')
    ids = randint('phi3-safetensors/ids', 1, 20, 2, 7)
    with torch.no_grad():
        logits = model.double()(input_ids=ids).logits
    fixture.case(dict(name='phi3-safetensors'), **{'in': {'input_ids': ids}}, out={'logits': logits.float()})
    return fixture


def lora():
    """PEFT's adapters on fused projections, written as PEFT writes them, and what the networks answer with them."""
    fixture = Fixture()
    targets = {
        'phi3': ['qkv_proj', 'o_proj', 'gate_up_proj', 'down_proj'],
        'internlm2': ['wqkv', 'wo', 'w1', 'w2', 'w3'],
    }
    for name, modules in targets.items():
        if name == 'phi3':
            options = {k: v for k, v in PHI3[0].items() if k not in ('name', 'type', 'pads')}
            model = decoder_lm.build('phi3', 'phi3', **options)
        else:
            model = internlm2_model('internlm2')
        config = LoraConfig(r=2, lora_alpha=8, lora_dropout=0.0, target_modules=modules)
        peft = get_peft_model(model, config)
        trained = {key: p for key, p in peft.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for key, parameter in trained.items():
                parameter.copy_(randn(f'fused-lora/{name}/{key}', *parameter.shape, scale=0.2))
        peft.float().save_pretrained(FIXTURES / f'models/{name}-adapter')
        (FIXTURES / f'models/{name}-adapter/README.md').unlink()
        peft.double()
        ids = randint(f'fused-lora/{name}/ids', 1, SIZE['vocab_size'], BATCH, TIME)
        logits = peft(input_ids=ids).logits if name == 'phi3' else peft(ids, torch.ones_like(ids))
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        loss.backward()
        strip = lambda key: key.removeprefix('base_model.model.')
        fixture.case(
            dict(name=name, targets=modules),
            **{'in': {'input_ids': ids}},
            out={'logits': logits.float(), 'loss': loss.float()},
            grad={strip(key): p.grad.float() for key, p in trained.items()},
        )
    return fixture


if __name__ == '__main__':
    main(
        {
            'models/decoder-fused': decoder_fused,
            'models/decoder-fused-crossing': internlm2_crossing,
            'models/decoder-fused-pretrained': pretrained,
            'models/decoder-fused-lora': lora,
        }
    )
