"""Tiny RoBERTa networks with random weights, computed by transformers: test/fixtures/models/roberta.safetensors."""

import torch
from transformers import RobertaConfig, RobertaForMaskedLM, RobertaModel

from common import FIXTURES, Fixture, main, randint, randn

SIZE = dict(
    vocab_size=50,
    hidden_size=24,
    num_hidden_layers=2,
    num_attention_heads=3,
    intermediate_size=40,
    max_position_embeddings=34,
    pad_token_id=1,
    bos_token_id=0,
    eos_token_id=2,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)

CASES = [
    dict(name='base', type_vocab_size=1, layer_norm_eps=1e-5),
    dict(name='types', type_vocab_size=2, layer_norm_eps=1e-12, types=True),
    dict(name='no-pooler', type_vocab_size=1, pooler=False, hidden_act='gelu_new'),
    dict(name='embeds', type_vocab_size=3, embeds=True, hidden_act='relu'),
    dict(name='masked-lm', type_vocab_size=2, masked_lm=True),
]


def fill(model, name):
    """Named random weights: biases and norms too, so that each of them counts."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
            if 'LayerNorm.weight' in key or 'layer_norm.weight' in key:
                parameter.add_(1)


def one(fixture, name, types=False, pooler=True, embeds=False, masked_lm=False, **options):
    config = RobertaConfig(**SIZE, **options)
    config._attn_implementation = 'eager'
    model = RobertaForMaskedLM(config) if masked_lm else RobertaModel(config, add_pooling_layer=pooler)
    model.train()  # dropout is 0
    fill(model, name)
    ids = randint(f'{name}/ids', 3, SIZE['vocab_size'], 3, 9)
    mask = torch.ones_like(ids)
    for row, length in enumerate([9, 6, 2]):
        ids[row, length:] = 1
        mask[row, length:] = 0
    inputs = {'input_ids': ids, 'attention_mask': mask}
    if types:
        inputs['token_type_ids'] = randint(f'{name}/types', 0, 2, 3, 9)
    if embeds:
        del inputs['input_ids']
        inputs['inputs_embeds'] = randn(f'{name}/embeds', 3, 9, SIZE['hidden_size'])
    outputs = model(**inputs, output_hidden_states=True, output_attentions=True)
    main_output = outputs.logits if masked_lm else outputs.last_hidden_state
    cotangent = randn(f'{name}/cotangent', *main_output.shape)
    loss = (main_output * cotangent).sum()
    out = {'main': main_output}
    cotangents = {'main': cotangent}
    if not masked_lm and pooler:
        cotangents['pooler'] = randn(f'{name}/cotangent/pooler', *outputs.pooler_output.shape)
        loss = loss + (outputs.pooler_output * cotangents['pooler']).sum()
        out['pooler'] = outputs.pooler_output
    loss.backward()
    out |= {f'hidden.{i}': hidden for i, hidden in enumerate(outputs.hidden_states)}
    out |= {f'attention.{i}': attention for i, attention in enumerate(outputs.attentions)}
    parameters = dict(model.named_parameters())
    fixture.case(
        dict(name=name, masked_lm=masked_lm, config={**SIZE, **options, 'add_pooling_layer': pooler}),
        **{'in': inputs},
        param=parameters,
        cotangent=cotangents,
        out=out,
        grad={key: value.grad for key, value in parameters.items() if value.grad is not None},
    )


def roberta():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


def pretrained():
    """A folder as save_pretrained writes it, and one with pytorch_model.bin; the fixture holds what the network answers."""
    name = 'pretrained'
    config = RobertaConfig(**{**SIZE, 'vocab_size': 20, 'hidden_size': 8, 'num_attention_heads': 2, 'num_hidden_layers': 1})
    model = RobertaForMaskedLM(config).eval()
    fill(model, name)
    model.save_pretrained(FIXTURES / 'models/roberta-safetensors')
    folder = FIXTURES / 'models/roberta-bin'
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / 'pytorch_model.bin')
    ids = randint(f'{name}/ids', 3, 20, 2, 5)
    with torch.no_grad():
        outputs = model(input_ids=ids, output_hidden_states=True)
    fixture = Fixture()
    out = {'logits': outputs.logits, 'hidden': outputs.hidden_states[-1]}
    fixture.case(dict(name=name), **{'in': {'input_ids': ids}}, out=out)
    return fixture


if __name__ == '__main__':
    main({'models/roberta': roberta, 'models/roberta-pretrained': pretrained})
