"""Groups of PEFT's LoRA+ optimizer that test/tuning/lora-plus.test.ts compares, by the parameters' names:
python peft_lora_plus.py [--check].
"""

import torch
from common import Fixture, main
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from transformers import Qwen2Config, Qwen2ForCausalLM, RobertaConfig, RobertaModel

SIZES = dict(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2)
CASES = [
    ('DoRA', 'qwen2', dict(target_modules=['q_proj', 'embed_tokens'], use_dora=True, modules_to_save=['lm_head', 'norm'])),
    ('biases', 'qwen2', dict(target_modules=['q_proj'], bias='all')),
    ('layer norms', 'roberta', dict(target_modules=['query'], modules_to_save=['attention.output.LayerNorm'])),
]
RATES = dict(lr=1e-3, loraplus_lr_ratio=16, loraplus_weight_decay=0.01, loraplus_lr_embedding=1e-5)


def network(kind):
    if kind == 'qwen2':
        return Qwen2ForCausalLM(Qwen2Config(**SIZES, num_key_value_heads=1, tie_word_embeddings=False))
    return RobertaModel(RobertaConfig(**SIZES), add_pooling_layer=False)


def plain(name):
    for part in 'base_model.model.', '.modules_to_save.default', '.base_layer':
        name = name.replace(part, '', 1)
    return name


def lora_plus():
    fixture = Fixture()
    for name, kind, lora in CASES:
        model = get_peft_model(network(kind), LoraConfig(r=2, **lora))
        names = {id(parameter): plain(key) for key, parameter in model.named_parameters()}
        optimizer = create_loraplus_optimizer(model, torch.optim.AdamW, **RATES)
        groups = [
            {'lr': group['lr'], 'weightDecay': group['weight_decay'], 'names': [names[id(one)] for one in group['params']]}
            for group in optimizer.param_groups
            if group['params']
        ]
        fixture.case({'name': name, 'kind': kind, 'lora': lora, 'groups': groups})
    return fixture


if __name__ == '__main__':
    main({'tuning/lora-plus': lora_plus})
