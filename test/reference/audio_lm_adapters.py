"""Adapters of a tiny Qwen2-Audio, made, saved and run by PEFT in float64: test/fixtures/peft/audio-lm.safetensors. Weights and inputs are those
of audio_lm.py. What a case's `file` holds is what PEFT saves; `nf4` has the language model's weights rounded as bitsandbytes does.

    python test/reference/audio_lm_adapters.py [--check]
"""

import copy
import warnings

import torch
from bitsandbytes import functional
from peft import get_peft_model

from audio_lm import batch, build, given
from common import Fixture, main, randn
from peft_networks import config_of, randomise, saved
from peft_quantized import dequantize

NAME = 'qwen2_audio'
LINEAR = r'.*\.(q_proj|v_proj|out_proj|fc1|linear|up_proj|down_proj)'
CASES = {
    'encoder': dict(target_modules=r'model\.audio_tower\.' + LINEAR),
    'connector': dict(target_modules=['linear']),
    'decoder': dict(target_modules=r'.*language_model' + LINEAR),
    'all': dict(target_modules='all-linear'),
    'names': dict(target_modules=['q_proj', 'fc2', 'multi_modal_projector.linear'], exclude_modules=['layers.0.self_attn.q_proj']),
    'ranks': dict(target_modules=['q_proj', 'fc1'], rank_pattern={r'audio_tower\..*q_proj': 3, 'fc1': 1}, alpha_pattern={r'language_model\..*': 9}),
    'dora': dict(target_modules=['q_proj', 'fc1', 'linear', 'down_proj'], use_dora=True),
    'saved': dict(target_modules=['q_proj'], modules_to_save=['multi_modal_projector']),
    'saved-decoder': dict(target_modules=r'.*audio_tower.*\.(q_proj|v_proj)', modules_to_save=['language_model', 'lm_head']),
    'nf4': dict(target_modules=r'.*(language_model|audio_tower)' + LINEAR, nf4=True),
}


def rounded(model):
    """The linear layers of the language model with the values of their NF4 weights; the output layer as it is."""
    for module in model.model.language_model.modules():
        if isinstance(module, torch.nn.Linear):
            weight = module.weight.data
            codes, state = functional.quantize_4bit(weight, blocksize=64, quant_type='nf4', compress_statistics=False)
            module.weight.data = dequantize(codes, state.absmax, list(weight.shape), torch.float32)


def network(case):
    model = build(NAME, NAME)
    if case.get('nf4'):
        rounded(model)
    return model.double()


def inputs():
    ids, attention, labels, features, mask = batch(NAME, NAME)
    return dict(input_ids=ids, attention_mask=attention, labels=labels, **given(NAME, features.double(), mask))


def run(model):
    outputs = model(**inputs())
    return torch.where(inputs()['attention_mask'][..., None].bool(), outputs.logits, 0), outputs.loss


def adapters():
    fixture = Fixture()
    for name, case in CASES.items():
        # PEFT draws the first values of A.
        torch.manual_seed(0)
        model = get_peft_model(network(case), config_of({k: v for k, v in case.items() if k != 'nf4'}))
        randomise(model, f'audio-lm/{name}', 'default')
        logits, loss = run(model)
        loss.backward()
        grads = {k.removeprefix('base_model.model.'): p.grad for k, p in model.named_parameters() if p.grad is not None}
        with torch.no_grad():
            with model.disable_adapter():
                plain, _ = run(model)
            merged, _ = run(copy.deepcopy(model).merge_and_unload())
        assert (merged - logits).abs().max() < 1e-9 and (plain - logits).abs().max() > 1e-2
        fixture.case(
            dict(name=name, config={'r': 2, 'lora_alpha': 4, **{k: v for k, v in case.items() if k != 'nf4'}}),
            file=saved(model, 'default'),
            grad={k: v.float() for k, v in grads.items()},
            out={'logits': logits.float(), 'loss': loss.float()},
        )
    return fixture


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    main({'peft/audio-lm': adapters})
