"""Granite Speech's adapter for texts with audio, of PEFT, in the folder of audio_lm_encoders.py:
test/fixtures/models/audio-lm-granite-adapter.safetensors, and the adapter's files in the folder of that name.

As transformers' GraniteSpeechForConditionalGeneration.generate, the adapter is on with audio and off without.
"""

import json

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

from audio_encoders import exact
from audio_lm_encoders import AUDIO, FAMILIES, alone, batch, build
from common import FIXTURES, Fixture, main, randn

FAMILY = 'granite_speech'


def adapter():
    fixture = Fixture()
    model = build(FAMILY)
    config = LoraConfig(r=2, lora_alpha=6, target_modules=['q_proj', 'v_proj'], base_model_name_or_path='')
    inject_adapter_in_model(config, model)
    tensors = {}
    for name, parameter in model.named_parameters():
        if 'lora_' not in name:
            continue
        parameter.data = 0.3 * randn(f'adapter/{name}', *parameter.shape)
        # Names of the published files, which transformers 5 converts.
        old = name.replace('model.language_model.', 'language_model.model.').replace('.default.', '.')
        tensors[f'base_model.model.{old}'] = parameter.data.clone()
    folder = FIXTURES / 'models/audio-lm-granite-adapter'
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / 'adapter_model.safetensors', metadata={'format': 'pt'})
    settings = {key: sorted(value) if isinstance(value, set) else value for key, value in config.to_dict().items()}
    settings = {key: getattr(value, 'value', value) for key, value in settings.items()}
    (folder / 'adapter_config.json').write_text(json.dumps(settings, indent=2, default=str) + '\n')
    exact(model)
    alone(model, FAMILIES[FAMILY]['lengths'])
    layers = [one for one in model.modules() if isinstance(one, BaseTunerLayer)]
    ids, attention, _, features, _, given = batch(FAMILY)
    ids_left, attention_left, *_ = batch(FAMILY, left=True)
    # transformers embeds an audio token that is generated as token 0.
    greedy = dict(max_new_tokens=6, do_sample=False, eos_token_id=None, suppress_tokens=[AUDIO])
    audio = dict(input_features=features.double(), input_features_mask=given)
    text = ids[2:, :4]
    with torch.no_grad():
        heard = model(input_ids=ids, attention_mask=attention, **audio).logits
        tokens = model.generate(input_ids=ids_left, attention_mask=attention_left, **audio, **greedy)[:, ids.shape[1] :]
        for layer in layers:
            layer.enable_adapters(False)
        read = model(input_ids=text).logits
        plain = model.generate(input_ids=text, **greedy)[:, text.shape[1] :]
    fixture.case(
        dict(name='adapter', tokens=tokens.tolist(), plain=plain.tolist(), layers=len(layers)),
        out={'heard': torch.where(attention[..., None].bool(), heard, 0).float(), 'read': read.float()},
    )
    return fixture


if __name__ == '__main__':
    main({'models/audio-lm-granite-adapter': adapter})
