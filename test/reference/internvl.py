"""Tiny InternVLs with random weights, computed by transformers: test/fixtures/models/internvl.safetensors, what else LLaMA and
Mistral do under the vision part (internvl-llama.safetensors, on the same LLaMA), and a folder as transformers writes one. Parameters stand under the names of the published checkpoints, of which `published` is the rule.
"""

import torch
from peft import LoraConfig, get_peft_model
from transformers import InternVLConfig, InternVLForConditionalGeneration

from common import FIXTURES, Fixture, main, randint, randn
from decoder_lm import fill

VISION = dict(
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    image_size=[16, 16],
    patch_size=[4, 4],
    attention_bias=True,
    layer_norm_eps=1e-6,
    hidden_act='gelu',
    num_channels=1,
)
TEXT = dict(
    vocab_size=29,
    hidden_size=16,
    intermediate_size=20,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    max_position_embeddings=128,
    rms_norm_eps=1e-6,
    tie_word_embeddings=False,
)
IMAGE = 26
LARGE = dict(norm_type='rms_norm', use_qk_norm=True, attention_bias=False)
CASES = [
    dict(name='qwen2', text=dict(model_type='qwen2')),
    dict(name='llama', text=dict(model_type='llama', head_dim=8), vision=LARGE, grads=False),
    dict(name='phi3', text=dict(model_type='phi3', pad_token_id=0), grads=False),
    # Pictures of another size than the table of positions.
    dict(name='resized', text=dict(model_type='qwen2'), pixels=24, grads=False),
]


def build(name, text, vision=None):
    config = InternVLConfig(
        vision_config={**VISION, **(vision or {})},
        text_config={**TEXT, **text},
        image_token_id=IMAGE,
        image_seq_length=4,
        tie_word_embeddings=False,
    )
    config._attn_implementation = 'eager'
    model = InternVLForConditionalGeneration(config).eval()
    fill(model, name)
    return model


def published(state):
    """Names of transformers' port -> those of the published checkpoints, in whose vision part q, k and v are one."""
    result = {}
    parts = {}
    for name, value in state.items():
        name = name.removeprefix('model.')
        if name == 'lm_head.weight':
            name = 'language_model.lm_head.weight'
        elif name.startswith('language_model.'):
            name = name.replace('language_model.', 'language_model.model.', 1)
        elif name.startswith('multi_modal_projector.'):
            for theirs, ours in dict(layer_norm='0', linear_1='1', linear_2='3').items():
                name = name.replace(f'multi_modal_projector.{theirs}', f'mlp1.{ours}')
        else:
            for theirs, ours in [
                ('vision_tower', 'vision_model'),
                ('encoder.layer.', 'encoder.layers.'),
                ('cls_token', 'class_embedding'),
                ('position_embeddings', 'position_embedding'),
                ('patch_embeddings.projection', 'patch_embedding'),
                ('lambda_', 'ls'),
                ('attention.', 'attn.'),
                ('projection_layer', 'proj'),
                ('layernorm_before', 'norm1'),
                ('layernorm_after', 'norm2'),
            ]:
                name = name.replace(theirs, ours)
            for i, part in enumerate(['q_proj', 'k_proj', 'v_proj']):
                if part in name:
                    parts.setdefault(name.replace(part, 'qkv'), {})[i] = value
                    name = None
                    break
        if name:
            result[name] = value
    for name, rows in parts.items():
        result[name] = torch.cat([rows[i] for i in range(3)])
    return result


def batch(name, pixels):
    """Rows with two pictures, one and none, padded on the right."""
    tokens = (pixels // 8) ** 2
    picture = [27, *[IMAGE] * tokens, 28]
    rows = [[1, 3, *picture, 4, *picture, 5, 6], [1, *picture, 7, 8, 9], [1, 10, 11, 12]]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels = ids.clone()
    labels[(ids == IMAGE) | (mask == 0)] = -100
    labels[:, 0] = -100
    return ids, mask, labels, randn(f'{name}/pixels', 3, 1, pixels, pixels)


def one(fixture, name, text, vision=None, pixels=16, grads=True):
    model = build(name, text, vision).double()
    ids, mask, labels, values = batch(name, pixels)
    exact = values.double().requires_grad_()
    outputs = model(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=exact)
    outputs.loss.backward()
    features = model.get_image_features(pixel_values=exact, vision_feature_layer=-1, vision_feature_select_strategy='default')
    tower = model.model.vision_tower(exact, output_hidden_states=True)
    roles = {}
    if grads:
        roles['grad'] = {k: v.float() for k, v in published({k: p.grad for k, p in model.named_parameters()}).items()}
        tokens = answered(model, ids, mask, exact)
    fixture.case(
        dict(name=name, text=model.config.text_config.to_dict(), vision=model.config.vision_config.to_dict(), tokens=tokens if grads else None),
        **{'in': {'input_ids': ids, 'attention_mask': mask, 'labels': labels, 'pixel_values': values}},
        param={k: v.detach() for k, v in published({k: p.float() for k, p in model.named_parameters()}).items()},
        out={
            'logits': torch.where(mask[..., None].bool(), outputs.logits, 0).float(),
            'loss': outputs.loss.float(),
            'features': features.pooler_output.float(),
            'states': tower.last_hidden_state.float(),
            'pixels.grad': exact.grad.float(),
        },
        **roles,
    )
    return model


def internvl():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    lora(fixture)
    return fixture


def lora(fixture, case=CASES[0], name='lora'):
    """Adapters of language model and projector, as EmoVerse trains them."""
    model = build(case['name'], case['text'], case.get('vision'))
    expression = r'^model\.(language_model|multi_modal_projector)(?!.*(lm_head|output|emb|wte|shared)).*(proj|linear_\d)$'
    peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=8, lora_dropout=0.0, target_modules=expression))
    trained = {key.removeprefix('base_model.model.'): p for key, p in peft.named_parameters() if p.requires_grad}
    strip = lambda key: key.replace('.default', '')
    named = lambda values: {name: value for name, value in published({strip(k): v for k, v in values.items()}).items()}
    with torch.no_grad():
        for key, parameter in trained.items():
            parameter.copy_(randn(f'internvl-{name}/{key}', *parameter.shape, scale=0.2))
    peft.double()
    ids, mask, labels, values = batch(case['name'], 16)
    outputs = peft(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=values.double())
    outputs.loss.backward()
    fixture.case(
        dict(name=name),
        param=named({k: p.detach().float() for k, p in trained.items()}),
        out={'logits': torch.where(mask[..., None].bool(), outputs.logits, 0).float(), 'loss': outputs.loss.float()},
        grad=named({k: p.grad.float() for k, p in trained.items()}),
    )


def answered(model, ids, mask, pixels):
    """Tokens of the first row, which has two pictures."""
    with torch.no_grad():
        again = model.generate(
            input_ids=ids[:1], pixel_values=pixels[:2], attention_mask=mask[:1], max_new_tokens=6, do_sample=False, eos_token_id=None
        )
    return again[0, ids.shape[1] :].tolist()


def llama():
    """Gradients and cached decoding of the LLaMA whose weights internvl.safetensors has, its adapters, and a Mistral with a window."""
    fixture = Fixture()
    case = next(case for case in CASES if case['name'] == 'llama')
    model = build('llama', case['text'], case['vision']).double()
    ids, mask, labels, values = batch('llama', 16)
    exact = values.double()
    model(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=exact).loss.backward()
    fixture.case(
        dict(name='llama', tokens=answered(model, ids, mask, exact)),
        grad={k: v.float() for k, v in published({k: p.grad for k, p in model.named_parameters()}).items()},
    )
    lora(fixture, case, 'llama-lora')
    mistral = dict(name='mistral', text=dict(model_type='mistral', head_dim=8, sliding_window=5))
    network = one(fixture, **mistral, grads=False)
    ids, mask, _, values = batch('mistral', 16)
    fixture.cases[-1]['tokens'] = answered(network, ids, mask, values.double())
    return fixture


def pretrained():
    """The folder that transformers writes, and what it answers."""
    fixture = Fixture()
    model = build('internvl-port', dict(model_type='llama', head_dim=8))
    model.save_pretrained(FIXTURES / 'models/internvl-port')
    ids, mask, _, values = batch('internvl-port', 16)
    with torch.no_grad():
        logits = model.double()(input_ids=ids, attention_mask=mask, pixel_values=values.double()).logits
    fixture.case(
        dict(name='internvl-port'),
        **{'in': {'input_ids': ids, 'attention_mask': mask, 'pixel_values': values}},
        out={'logits': torch.where(mask[..., None].bool(), logits, 0).float()},
    )
    return fixture


if __name__ == '__main__':
    main({'models/internvl': internvl, 'models/internvl-llama': llama, 'models/internvl-pretrained': pretrained})
