"""A tiny Whisper as CTranslate2's converter writes it, with the logits of transformers given the same weights:
test/fixtures/files/ctranslate2.safetensors."""

import copy
import tempfile
from pathlib import Path

import numpy as np
import torch
from ctranslate2.converters.transformers import WhisperLoader
from transformers import WhisperConfig, WhisperForConditionalGeneration

from common import Fixture, main, randint, randn

CONFIG = dict(
    vocab_size=30,
    num_mel_bins=8,
    d_model=16,
    encoder_layers=2,
    encoder_attention_heads=2,
    encoder_ffn_dim=24,
    decoder_layers=1,
    decoder_attention_heads=4,
    decoder_ffn_dim=20,
    max_source_positions=10,
    max_target_positions=12,
    pad_token_id=None,
    bos_token_id=1,
    eos_token_id=1,
    decoder_start_token_id=2,
)


def rounded(model, kind):
    """The same network with the weights that the file holds."""
    model = copy.deepcopy(model)
    if kind == 'float16':
        return model.half().float()
    if kind == 'int8':
        for module in model.modules():
            if isinstance(module, torch.nn.Linear | torch.nn.Conv1d) or module is model.model.decoder.embed_tokens:
                rows = module.weight.data.reshape(module.weight.shape[0], -1)
                scale = 127 / rows.abs().amax(1, keepdim=True)
                module.weight.data = ((rows * scale).round() / scale).reshape(module.weight.shape)
    return model


def build():
    fixture = Fixture()
    config = WhisperConfig(**CONFIG)
    config._attn_implementation = 'eager'
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'ctranslate2/{key}', *parameter.shape, scale=0.3))
            if 'layer_norm.weight' in key:
                parameter.add_(1)
    features = randn('ctranslate2/features', 2, 8, 20)
    ids = randint('ctranslate2/ids', 3, 30, 2, 7)
    for kind in ['float32', 'float16', 'int8']:
        spec = WhisperLoader().get_model_spec(copy.deepcopy(model))
        spec.register_vocabulary([f'<{i}>' for i in range(30)])
        spec.validate()
        spec.optimize(quantization=None if kind == 'float32' else kind)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'model.bin'
            spec._serialize(path)
            contents = torch.from_numpy(np.fromfile(path, np.uint8))
        with torch.no_grad():
            logits = rounded(model, kind)(input_features=features, decoder_input_ids=ids).logits
        inputs = {'file': contents, 'input_features': features, 'decoder_input_ids': ids}
        fixture.case({'name': kind}, **{'in': inputs, 'out': {'logits': logits}})
    return fixture


main({'files/ctranslate2': build})
