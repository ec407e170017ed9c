"""The layouts in which LanguageBind and classifiers on it are published, tiny: a tower's checkpoint and a classifier's, as torch.save
writes them, and the adapters of a classifier as peft writes them, with the weights that these become."""

import io
import json
import tempfile
from pathlib import Path

import torch
from common import Fixture, main, randn
from peft import LoraConfig, get_peft_model

SIZE, SPACE, FRAMES = 4, 3, 2
TEXT = {'vocab_size': 9, 'max_position_embeddings': 5, 'num_hidden_layers': 1, 'hidden_size': SIZE, 'intermediate_size': 6, 'num_attention_heads': 2, 'hidden_act': 'gelu'}
VISION = {'num_hidden_layers': 1, 'image_size': 4, 'patch_size': 2, 'hidden_size': SIZE, 'intermediate_size': 6, 'num_attention_heads': 2, 'hidden_act': 'gelu', 'add_time_attn': True, 'num_frames': FRAMES}
CONFIG = {'model_type': 'LanguageBindVideo', 'projection_dim': SPACE, 'text_config': TEXT, 'vision_config': VISION}


def linear(path, rows, columns, bias=True):
    return {f'{path}.weight': (rows, columns), **({f'{path}.bias': (rows,)} if bias else {})}


def norm(path):
    return {f'{path}.weight': (SIZE,), f'{path}.bias': (SIZE,)}


def layer(path, attentions):
    shapes = {}
    for attention in attentions:
        for name in ('q_proj', 'k_proj', 'v_proj', 'out_proj'):
            shapes |= linear(f'{path}.{attention}.{name}', SIZE, SIZE)
    return shapes | norm(f'{path}.layer_norm1') | norm(f'{path}.layer_norm2') | linear(f'{path}.mlp.fc1', 6, SIZE) | linear(f'{path}.mlp.fc2', SIZE, 6)


def text(path):
    table = f'{path}.embeddings'
    return {f'{table}.token_embedding.weight': (9, SIZE), f'{table}.position_embedding.weight': (5, SIZE)} | layer(f'{path}.encoder.layers.0', ['self_attn']) | norm(f'{path}.final_layer_norm')


def vision(path):
    table, first = f'{path}.embeddings', f'{path}.encoder.layers.0'
    embeddings = {f'{table}.class_embedding': (SIZE,), f'{table}.patch_embedding.weight': (SIZE, 3, 2, 2), f'{table}.position_embedding.weight': (5, SIZE)}
    time = {f'{first}.temporal_embedding': (1, FRAMES, SIZE)} | norm(f'{first}.temporal_layer_norm1')
    return embeddings | layer(first, ['self_attn', 'temporal_attn']) | time | norm(f'{path}.pre_layrnorm') | norm(f'{path}.post_layernorm')


def drawn(shapes, seed):
    return {name: randn(f'{seed} {name}', *shape, scale=0.3) for name, shape in shapes.items()}


def tower():
    shapes = text('text_model') | vision('vision_model') | linear('text_projection', SPACE, SIZE, False) | linear('visual_projection', SPACE, SIZE, False)
    state = drawn(shapes, 'tower') | {'logit_scale': torch.tensor(1.25)}
    # Buffers that older versions of transformers saved too.
    return state | {f'{side}_model.embeddings.position_ids': torch.arange(5)[None] for side in ('text', 'vision')}


def wrapper(seed='wrapper'):
    inside = 'model.modality_encoder'
    shapes = vision(f'{inside}.video') | text(f'{inside}.language')
    for name in ('video', 'language'):
        shapes |= linear(f'model.modality_proj.{name}', SPACE, SIZE, False)
    return drawn(shapes | linear('linear', 7, 2 * SPACE, False), seed)


def saved(state):
    file = io.BytesIO()
    torch.save(state, file)
    return {'bytes': torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)}


class Node(torch.nn.Module):
    """A module whose parameters have these names; projections are layers that peft knows."""

    def __init__(self, state):
        super().__init__()
        for part in dict.fromkeys(name.split('.')[0] for name in state if '.' in name):
            own = {name.removeprefix(f'{part}.'): value for name, value in state.items() if name.startswith(f'{part}.')}
            self.add_module(part, self.layer(own) if part.endswith('_proj') or part.startswith('fc') else Node(own))
        for name, value in state.items():
            if '.' not in name:
                self.register_parameter(name, torch.nn.Parameter(value.clone()))

    @staticmethod
    def layer(own):
        rows, columns = own['weight'].shape if 'weight' in own else (0, 0)
        if not rows:
            return Node(own)
        made = torch.nn.Linear(columns, rows, bias='bias' in own)
        made.load_state_dict(own)
        return made


def adapters():
    torch.manual_seed(5)
    base = tower()
    renamed = {}
    for name, value in base.items():
        for old, new in (('vision_model', 'model.modality_encoder.video'), ('text_model', 'model.modality_encoder.language'), ('visual_projection', 'model.modality_proj.video'), ('text_projection', 'model.modality_proj.language')):
            if name.startswith(f'{old}.') and not name.endswith('position_ids'):
                renamed[name.replace(old, new, 1)] = value
    targets = ['q_proj', 'k_proj', 'v_proj', 'out_proj']
    model = get_peft_model(Node(renamed | {'linear.weight': torch.zeros(7, 2 * SPACE)}), LoraConfig(r=2, lora_alpha=4, bias='all', target_modules=targets))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if 'lora_' in name or name.endswith('bias'):
                parameter.copy_(randn(f'adapter {name}', *parameter.shape, scale=0.3))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder, safe_serialization=False)
        data = (Path(folder) / 'adapter_model.bin').read_bytes()
        config = json.loads((Path(folder) / 'adapter_config.json').read_text())
    merged = {name: value for name, value in model.merge_and_unload().state_dict().items() if not name.startswith('linear')}
    return {'bytes': torch.frombuffer(bytearray(data), dtype=torch.uint8)}, {key: config[key] for key in ('peft_type', 'r', 'lora_alpha', 'bias')}, merged


def layouts():
    fixture = Fixture()
    state = tower()
    fixture.case({'name': 'tower', 'config': CONFIG}, file=saved(state), param=state)
    state = wrapper()
    fixture.case({'name': 'wrapper'}, file=saved(state), param=state)
    file, config, merged = adapters()
    fixture.case({'name': 'adapters', 'config': config}, file=file, out=merged)
    return fixture


if __name__ == '__main__':
    main({'emotion/layouts': layouts})
