"""What PEFT makes of several adapters (`add_weighted_adapter`), and the starts that take from the weight (PiSSA, OLoRA):
test/fixtures/peft/combined.safetensors. The network is Small of peft_lora.py. Only products BA are kept: the signs of
singular vectors are anybody's.

    python test/reference/peft_combined.py [--check]
"""

import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file

from common import Fixture, main, randint, randn
from peft_lora import Small, fill

# Without the convolution: PEFT's svd takes no Conv1d.
TARGETS = ['embed', 'hidden', 'head']
FIRST = dict(r=2, lora_alpha=4, target_modules=TARGETS[:2])
SECOND = dict(r=2, lora_alpha=6, target_modules=TARGETS[1:], use_rslora=True)
THIRD = dict(r=3, lora_alpha=3, target_modules=TARGETS)
COMBINED = [
    dict(combination_type='linear', of='ab', weights=[0.7, 0.3]),
    dict(combination_type='linear', of='ab', weights=[1.0, -0.5]),
    dict(combination_type='cat', of='abc', weights=[0.7, -0.3, 2.0]),
    dict(combination_type='svd', of='abc', weights=[0.7, 0.3, -1.0]),
    dict(combination_type='svd', of='ac', weights=[1.0, 1.0], svd_rank=2),
    dict(combination_type='ties', of='ab', weights=[0.7, 0.6], density=0.5),
    dict(combination_type='ties', of='ab', weights=[0.7, -0.6], density=0.7, majority_sign_method='frequency'),
    dict(combination_type='ties_svd', of='abc', weights=[0.7, 0.6, 0.5], density=0.4),
    dict(combination_type='magnitude_prune', of='ab', weights=[0.7, 0.6], density=0.5),
    dict(combination_type='magnitude_prune_svd', of='ac', weights=[0.7, 0.6], density=0.3),
    dict(combination_type='dare_linear', of='ab', weights=[0.7, 0.6], density=1.0),
    dict(combination_type='dare_ties', of='ab', weights=[0.7, 0.6], density=1.0),
    dict(combination_type='dare_linear_svd', of='ac', weights=[0.7, 0.6], density=1.0),
    dict(combination_type='dare_ties_svd', of='ac', weights=[0.7, 0.6], density=1.0),
]
STARTS = [
    dict(init_lora_weights='pissa', r=3, lora_alpha=6, target_modules=['hidden', 'head', 'embed']),
    dict(init_lora_weights='olora', r=2, lora_alpha=3, target_modules=['hidden', 'head'], use_rslora=True),
    dict(init_lora_weights='pissa', r=2, lora_alpha=2, target_modules=['hidden'], use_dora=True),
]


def saved(model, adapter):
    with tempfile.TemporaryDirectory() as made:
        model.save_pretrained(made, selected_adapters=[adapter])
        return load_file(Path(made) / adapter / 'adapter_model.safetensors')


def network():
    model = Small()
    fill(model, 'Small')
    return model.eval()


def combined(fixture):
    model = get_peft_model(network(), LoraConfig(**FIRST), adapter_name='a')
    model.add_adapter('b', LoraConfig(**SECOND))
    model.add_adapter('c', LoraConfig(**THIRD))
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if 'lora_' in key:
                parameter.copy_(randn(f'combined/{key}', *parameter.shape, scale=0.4))
    adapters = {name: dict(config=config, file=saved(model, name)) for name, config in zip('abc', (FIRST, SECOND, THIRD))}
    fixture.case(
        dict(name='base', configs={name: each['config'] for name, each in adapters.items()}),
        param={k: v for k, v in network().state_dict().items() if v.is_floating_point()},
        **{f'file-{name}': each['file'] for name, each in adapters.items()},
    )
    for i, options in enumerate(COMBINED):
        own = {key: value for key, value in options.items() if key not in ('of', 'weights')}
        name = f'made{i}'
        model.add_weighted_adapter(list(options['of']), options['weights'], name, **own)
        out = {}
        for path in TARGETS:
            layer = model.base_model.model.get_submodule(path)
            if name in layer.scaling:
                out[path] = layer.get_delta_weight(name).detach()
        fixture.case(dict(name=name, options=own, of=list(options['of']), weights=options['weights']), out=out)


def starts(fixture):
    ids = randint('combined/ids', 2, 20, 3, 7)
    for i, config in enumerate(STARTS):
        model = get_peft_model(network(), LoraConfig(**config), adapter_name='a')
        out = {}
        for path in config['target_modules']:
            layer = model.base_model.model.get_submodule(path)
            if path == 'embed':
                continue
            out[f'{path}.weight'] = layer.get_base_layer().weight.detach().clone()
            out[f'{path}.delta'] = layer.get_delta_weight('a').detach()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if 'lora_' in key:
                    parameter.mul_(1 + randn(f'starts{i}/{key}', *parameter.shape, scale=0.3))
            out['trained'] = model(ids)
        fixture.case(dict(name=f'start{i}', config=config), **{'in': {'ids': ids}}, out=out, file=saved(model, 'a'))


def build():
    fixture = Fixture()
    combined(fixture)
    starts(fixture)
    return fixture


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    main({'peft/combined': build})
