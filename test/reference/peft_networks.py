"""Adapters of tiny LLaMAs, Whispers and RoBERTas, made, saved and run by PEFT: one file for each network in
test/fixtures/peft/networks. What a case's `file` holds is what PEFT saves. In float64, stored as float32.

    python test/reference/peft_networks.py [--check]
"""

import copy
import tempfile
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import Conv1d
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from safetensors.torch import load_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    WhisperConfig,
    WhisperForConditionalGeneration,
)
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from common import Fixture, main, randint, randn

# transformers takes these through float32, whatever the network's dtype.
LlamaRMSNorm.forward = lambda norm, x: norm.weight * x * torch.rsqrt(x.square().mean(-1, True) + norm.variance_epsilon)
# transformers' Whisper asks its convolutions for theirs.
Conv1d.stride = property(lambda layer: layer.get_base_layer().stride)


def with_bias(layer, x, active, *args, **kwargs):
    # peft leaves out the bias of an output layer whose rows train, which has it again once they are merged.
    out = forward_adapters(layer, x, active, *args, **kwargs)
    bias = getattr(layer.base_layer, 'bias', None)
    return out if bias is None or layer.disable_adapters or layer.merged or not active else out + bias


forward_adapters = TrainableTokensLayer.forward_adapters
TrainableTokensLayer.forward_adapters = with_bias

LLAMA = dict(
    vocab_size=11,
    hidden_size=8,
    intermediate_size=6,
    num_hidden_layers=2,
    num_attention_heads=2,
    max_position_embeddings=16,
    attention_bias=True,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
)
WHISPER = dict(
    vocab_size=11,
    num_mel_bins=4,
    d_model=8,
    encoder_layers=1,
    encoder_attention_heads=2,
    encoder_ffn_dim=6,
    decoder_layers=2,
    decoder_attention_heads=2,
    decoder_ffn_dim=6,
    max_source_positions=5,
    max_target_positions=8,
    pad_token_id=3,
    bos_token_id=3,
    eos_token_id=3,
    decoder_start_token_id=4,
    suppress_tokens=None,
    begin_suppress_tokens=None,
)
ROBERTA = dict(
    vocab_size=11,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=6,
    max_position_embeddings=12,
    type_vocab_size=1,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
NETWORKS = {
    'llama': (LlamaConfig, LlamaForCausalLM, dict(**LLAMA, tie_word_embeddings=False)),
    'llama-tied': (LlamaConfig, LlamaForCausalLM, dict(**LLAMA, tie_word_embeddings=True)),
    'whisper': (WhisperConfig, WhisperForConditionalGeneration, WHISPER),
    'roberta': (RobertaConfig, RobertaForMaskedLM, ROBERTA),
}
# What a case has beside its configuration: `second`, the configuration of another adapter; `joined`, a layer that PEFT
# merges into two places, though only one has the adapter.
LLAMAS = {
    'ends': dict(target_modules=['q_proj', 'v_proj']),
    'path': dict(target_modules=['model.layers.0.mlp.up_proj', 'o_proj']),
    'pattern': dict(target_modules=r'.*layers\.1\..*(q|o)_proj'),
    'python': dict(target_modules=r'model\.(?P<stack>layers)\.\d+\.self_attn\.(?:k_proj|q_proj)\Z'),
    'all-linear': dict(target_modules='all-linear'),
    'exclude': dict(target_modules='all-linear', exclude_modules=['down_proj', 'model.layers.0.self_attn.q_proj']),
    'exclude-pattern': dict(target_modules=['q_proj', 'up_proj'], exclude_modules=r'.*\.0\..*'),
    'layers': dict(target_modules=['q_proj', 'up_proj'], layers_to_transform=[1]),
    'layers-pattern': dict(target_modules=['q_proj', 'up_proj'], layers_to_transform=0, layers_pattern='lay.rs'),
    'rank-pattern': dict(
        target_modules=['q_proj', 'v_proj', 'up_proj'],
        rank_pattern={'q_proj': 3, r'layers\.1\.mlp\..*': 1, 'proj': 7},
        alpha_pattern={r'^model\.layers\.0.*': 5, 'up_proj': 9},
    ),
    'rslora': dict(target_modules=['v_proj', 'down_proj'], use_rslora=True),
    'dora': dict(target_modules='all-linear', use_dora=True),
    'bias': dict(target_modules=['q_proj'], bias='lora_only'),
    'bias-all': dict(target_modules=['q_proj'], bias='all'),
    'embedding': dict(target_modules=['embed_tokens', 'q_proj'], joined=True),
    'head': dict(target_modules=['lm_head', 'q_proj'], joined=True),
    'embedding-head': dict(target_modules=['embed_tokens', 'lm_head'], joined=True),
    'embedding-head-dora': dict(target_modules=r'.*(embed_tokens|lm_head|v_proj)', use_dora=True, joined=True),
    'save-embedding': dict(target_modules=['q_proj'], modules_to_save=['embed_tokens']),
    'save-head': dict(target_modules=['q_proj'], modules_to_save=['lm_head']),
    'save-both': dict(target_modules=['q_proj'], modules_to_save=['embed_tokens', 'lm_head']),
    'save-ends': dict(target_modules=['q_proj'], modules_to_save=['norm']),
    'save-head-of-embedding': dict(target_modules=['embed_tokens'], modules_to_save=['lm_head'], joined=True),
    'tokens': dict(target_modules=['q_proj', 'v_proj'], trainable_token_indices=[9, 4, 1]),
    'tokens-named': dict(target_modules='all-linear', trainable_token_indices={'embed_tokens': [0, 7, 5]}),
    'tokens-head': dict(target_modules=['q_proj'], trainable_token_indices={'embed_tokens': [3, 5], 'lm_head': [6]}, joined=True),
    'tokens-same': dict(target_modules=['q_proj'], trainable_token_indices={'embed_tokens': [3, 5], 'lm_head': [3, 5]}),
    'tokens-of-head': dict(target_modules=['q_proj'], trainable_token_indices={'lm_head': [8, 2]}, joined=True),
    'tokens-two': dict(
        target_modules=['q_proj'],
        trainable_token_indices=[5, 3],
        second=dict(target_modules=['v_proj'], trainable_token_indices=[10, 5, 1]),
    ),
    'two': dict(target_modules=['q_proj', 'v_proj'], second=dict(target_modules='all-linear', r=3, use_rslora=True)),
    'two-saved': dict(
        target_modules=['q_proj'],
        modules_to_save=['lm_head'],
        second=dict(target_modules=['v_proj'], modules_to_save=['lm_head', 'embed_tokens']),
    ),
}
CASES = {
    'llama': LLAMAS,
    'llama-tied': {k: v for k, v in LLAMAS.items() if k in ('all-linear', 'two', 'two-saved') or 'head' in k or 'emb' in k or 'both' in k or 'tokens' in k},
    'whisper': {
        'ends': dict(target_modules=['q_proj', 'v_proj']),
        'pattern': dict(target_modules=r'model\.encoder\..*(fc\d|out_proj)'),
        'all-linear': dict(target_modules='all-linear'),
        'exclude': dict(target_modules=['fc1', 'k_proj'], exclude_modules='.*decoder.*'),
        'conv': dict(target_modules=['conv1', 'conv2', 'fc2'], use_dora=True),
        'layers': dict(target_modules=['q_proj', 'fc1'], layers_to_transform=[1], layers_pattern=['decoder.layers']),
        'rank-pattern': dict(target_modules=['q_proj', 'fc1'], rank_pattern={'encoder_attn.q_proj': 4}, alpha_pattern={'fc1': 1}),
        'dora-rslora': dict(target_modules=['v_proj', 'fc2'], use_dora=True, use_rslora=True),
        'embedding': dict(target_modules=['embed_tokens', 'q_proj'], joined=True),
        'head': dict(target_modules=['proj_out', 'q_proj'], joined=True),
        'embedding-head': dict(target_modules=['embed_tokens', 'proj_out'], joined=True),
        'positions': dict(target_modules=['q_proj'], modules_to_save=['decoder.embed_positions', 'layer_norm']),
        'save-embedding': dict(target_modules=['q_proj'], modules_to_save=['embed_tokens']),
        'save-head': dict(target_modules=['q_proj'], modules_to_save=['proj_out']),
        'save-both': dict(target_modules=['q_proj'], modules_to_save=['embed_tokens', 'proj_out']),
        'tokens': dict(target_modules=['q_proj'], trainable_token_indices=[7, 10, 6]),
        'two': dict(target_modules=['q_proj'], second=dict(target_modules=['q_proj', 'fc1'], r=3, lora_alpha=5)),
    },
    'roberta': {
        'ends': dict(target_modules=['query', 'value']),
        'pattern': dict(target_modules=r'.*attention\.(self\.(query|key)|output\.dense)'),
        'all-linear': dict(target_modules='all-linear'),
        'exclude': dict(target_modules=['dense', 'query'], exclude_modules=['output.dense', 'lm_head.dense']),
        'layers': dict(target_modules=['query', 'dense'], layers_to_transform=[0], layers_pattern='layer'),
        'rank-pattern': dict(target_modules=['query', 'dense'], rank_pattern={'attention.output.dense': 4}, alpha_pattern={r'.*\.1\..*': 3}),
        'dora': dict(target_modules=r'.*(query|dense|word_embeddings)', use_dora=True, joined=True),
        'rslora': dict(target_modules=['key'], use_rslora=True),
        'bias': dict(target_modules=['query', 'dense'], bias='lora_only'),
        'bias-all': dict(target_modules=['query'], bias='all'),
        'embedding': dict(target_modules=['word_embeddings', 'position_embeddings'], joined=True),
        'head': dict(target_modules=['decoder', 'query'], joined=True),
        'save-embedding': dict(target_modules=['query'], modules_to_save=['word_embeddings']),
        'save-head': dict(target_modules=['query'], modules_to_save=['lm_head']),
        'save-decoder': dict(target_modules=['query'], modules_to_save=['decoder']),
        'save-both': dict(target_modules=['query'], modules_to_save=['lm_head', 'word_embeddings']),
        'save-ends': dict(target_modules=['query'], modules_to_save=['Norm', 'embeddings.position_embeddings']),
        'tokens': dict(target_modules=['query'], trainable_token_indices=[8, 4, 0]),
        'tokens-named': dict(
            target_modules=['query'], trainable_token_indices={'word_embeddings': [6, 9], 'position_embeddings': [3, 2]}
        ),
        'two': dict(target_modules=['query', 'key'], second=dict(target_modules=['key', 'dense'], r=3)),
    },
}


def network(name):
    config_class, model_class, options = NETWORKS[name]
    config = config_class(**options)
    config._attn_implementation = 'sdpa'
    model = model_class(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key == 'model.encoder.embed_positions.weight':
                continue
            parameter.copy_(randn(f'peft/{name}/{key}', *parameter.shape, scale=0.4))
            if 'norm' in key.lower():
                parameter.add_(1)
    return model.double()


def inputs_of(name):
    if name == 'whisper':
        return {
            'input_features': randn('peft/whisper/features', 2, 4, 10),
            'decoder_input_ids': randint('peft/whisper/ids', 5, 11, 2, 4),
        }
    return {'input_ids': randint(f'peft/{name}/ids', 3, 11, 2, 5)}


def run(model, inputs):
    return model(**{k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}).logits


def config_of(case):
    options = {'r': 2, 'lora_alpha': 4, **{k: v for k, v in case.items() if k not in ('second', 'joined')}}
    return LoraConfig(**options)


def randomise(model, name, adapter):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if f'.{adapter}' not in key and not (adapter == 'default' and parameter.requires_grad):
                continue
            value = randn(f'peft/{name}/{key}', *parameter.shape, scale=0.3).double()
            # Magnitudes and norms stay near their values.
            parameter.copy_(parameter * (1 + 0.3 * value) if 'magnitude' in key else parameter + value)
            parameter.copy_(parameter.float().double())


def saved(model, adapter):
    with tempfile.TemporaryDirectory() as made:
        model.save_pretrained(made, selected_adapters=[adapter])
        folder = Path(made) if adapter == 'default' else Path(made) / adapter
        return {key: value.float() for key, value in load_file(folder / 'adapter_model.safetensors').items()}


def one(fixture, net, name, case, inputs):
    label = f'{net}/{name}'
    model = get_peft_model(network(net), config_of(case))
    randomise(model, label, 'default')
    roles = {'file': saved(model, 'default')}
    logits = run(model, inputs)
    (logits * randn(f'peft/{net}/cotangent', *logits.shape)).sum().backward()
    roles['grad'] = {k.removeprefix('base_model.model.'): p.grad.clone() for k, p in model.named_parameters() if p.grad is not None}
    out = {'first': logits}
    with torch.no_grad():
        with model.disable_adapter():
            out['plain'] = run(model, inputs)
        if 'second' in case:
            model.add_adapter('second', config_of(case['second']))
            model.set_adapter('second')
            randomise(model, label, 'second')
            roles['file2'] = saved(model, 'second')
            out['second'] = run(model, inputs)
            model.set_adapter('default')
            out['again'] = run(model, inputs)
            if 'modules_to_save' not in case and 'trainable_token_indices' not in case['second']:
                model.base_model.set_adapter(['default', 'second'])
                out['together'] = run(model, inputs)
        elif not case.get('joined'):
            out['merged'] = run(copy.deepcopy(model).merge_and_unload(), inputs)
    config = {k: v for k, v in case.items() if k not in ('second', 'joined')}
    description = dict(name=name, config={'r': 2, 'lora_alpha': 4, **config})
    if 'second' in case:
        description['second'] = {'r': 2, 'lora_alpha': 4, **case['second']}
    floats = {role: {k: v.float() for k, v in tensors.items()} for role, tensors in {**roles, 'out': out}.items()}
    fixture.case(description, **floats)


def build(net):
    fixture = Fixture()
    inputs = inputs_of(net)
    model = network(net)
    shape = run(model, inputs).shape
    options = {k: v for k, v in NETWORKS[net][2].items() if v is not None}
    fixture.case(
        dict(name='base', config=options),
        **{'in': inputs},
        cotangent={'logits': randn(f'peft/{net}/cotangent', *shape)},
        param={k: v.float() for k, v in model.named_parameters()},
    )
    for name, case in CASES[net].items():
        one(fixture, net, name, case, inputs)
    return fixture


if __name__ == '__main__':
    warnings.filterwarnings('ignore')
    main({f'peft/networks/{net}': (lambda net=net: build(net)) for net in NETWORKS})
