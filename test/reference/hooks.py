"""What forward hooks of PyTorch see in every module of tiny transformers networks, and what becomes of the result when
one of them halves its module's output: hooks.safetensors in test/fixtures/models.

In float64, stored as float32.
"""

import re

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    RobertaConfig,
    RobertaModel,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperForConditionalGeneration,
)

from common import Fixture, main, randint, randn

TEXT = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=12, vocab_size=20)
ROOM = dict(max_position_embeddings=16)
SPEECH = dict(
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    conv_dim=[6, 6, 6],
    conv_kernel=[10, 3, 2],
    conv_stride=[5, 2, 2],
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    num_buckets=8,
    max_bucket_distance=8,
)
WHISPER = dict(
    vocab_size=20,
    num_mel_bins=6,
    d_model=8,
    encoder_layers=1,
    encoder_attention_heads=2,
    encoder_ffn_dim=12,
    decoder_layers=1,
    decoder_attention_heads=2,
    decoder_ffn_dim=12,
    max_source_positions=6,
    max_target_positions=16,
    pad_token_id=0,
    bos_token_id=1,
    eos_token_id=2,
    decoder_start_token_id=3,
    tie_word_embeddings=False,
)

# Modules of transformers without parameters, or that hold the others; of what voxtorch computes otherwise: WavLM's bias
# for each pair of positions, and its gates.
NO_BLOCK = re.compile(r'act_fn|activation|dropout|rotary_emb|padding|parametrizations|^model$|rel_attn_embed|gru_rel_pos'
                      r'|encoder\.embed_positions')


def ids(name, *shape):
    return randint(name, 2, 20, *shape)


CASES = [
    dict(name='roberta', build=lambda: RobertaModel(RobertaConfig(**TEXT, **ROOM)), config=dict(**TEXT, **ROOM),
         inputs=lambda: dict(input_ids=ids('hooks/roberta', 2, 5)), halved='encoder.layer.0.intermediate.dense'),
    dict(name='wavlm', build=lambda: WavLMModel(WavLMConfig(**SPEECH)), config=SPEECH,
         inputs=lambda: dict(input_values=randn('hooks/wavlm', 2, 100)), halved='encoder.layers.0.feed_forward'),
    dict(name='wavlm-norm-first', build=lambda: WavLMModel(
            WavLMConfig(**SPEECH, feat_extract_norm='layer', do_stable_layer_norm=True)),
         config=dict(**SPEECH, feat_extract_norm='layer', do_stable_layer_norm=True),
         inputs=lambda: dict(input_values=randn('hooks/wavlm2', 2, 100)), halved='feature_extractor.conv_layers.1.conv'),
    dict(name='llama', build=lambda: LlamaForCausalLM(LlamaConfig(**TEXT, num_key_value_heads=1)),
         config=dict(**TEXT, num_key_value_heads=1),
         inputs=lambda: dict(input_ids=ids('hooks/llama', 2, 5)), halved='model.layers.1.mlp'),
    dict(name='whisper', build=lambda: WhisperForConditionalGeneration(WhisperConfig(**WHISPER)), config=WHISPER,
         inputs=lambda: dict(input_features=randn('hooks/whisper', 2, 6, 12), decoder_input_ids=ids('hooks/w', 2, 4)),
         halved='model.decoder.layers.0.encoder_attn'),
]


def first_tensor(output):
    while isinstance(output, tuple):
        output = output[0]
    return output if isinstance(output, torch.Tensor) else getattr(output, 'last_hidden_state', None)


def result(model, inputs):
    output = model(**inputs)
    return output.logits if hasattr(output, 'logits') else output.last_hidden_state


def hooks():
    fixture = Fixture()
    for case in CASES:
        torch.manual_seed(0)
        model = case['build']().eval()
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(randn(f'hooks/{case["name"]}/{name}', *parameter.shape, scale=0.3))
        parameters = {name: tensor.clone() for name, tensor in model.named_parameters()}
        model.double()
        given = case['inputs']()
        inputs = {key: value.double() if value.is_floating_point() else value for key, value in given.items()}

        seen = {}
        handles = [
            module.register_forward_hook(
                lambda _, __, output, name=name: seen.__setitem__(name, first_tensor(output)))
            for name, module in model.named_modules() if name
        ]
        plain = result(model, inputs)
        for handle in handles:
            handle.remove()
        seen = {name: tensor.float() for name, tensor in seen.items() if tensor is not None and not NO_BLOCK.search(name)}

        model.get_submodule(case['halved']).register_forward_hook(
            lambda _, __, output: (output[0] / 2, *output[1:]) if isinstance(output, tuple) else output / 2)
        halved = result(model, inputs)
        halved.square().mean().backward()
        gradients = {name: parameter.grad.float() for name, parameter in model.named_parameters()
                     if name.startswith(case['halved'])}
        description = dict(name=case['name'], config=case['config'], halved=case['halved'])
        fixture.case(description, param=parameters, **{'in': given}, seen=seen,
                     result=dict(plain=plain.float(), halved=halved.float()), grad=gradients)
    return fixture


if __name__ == '__main__':
    main({'models/hooks': hooks})
