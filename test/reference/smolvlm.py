"""Tiny SmolVLM and Idefics3 with random weights, computed by transformers in float64: test/fixtures/models/smolvlm.safetensors, pixel
values and prompts of their processors, numbers of parameters of published sizes, and a folder as transformers writes it.
"""

import json
import logging

import numpy
import torch
from peft import LoraConfig, get_peft_model
from PIL import Image
from transformers import Idefics3Config, Idefics3ForConditionalGeneration, SmolVLMConfig, SmolVLMForConditionalGeneration
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil
from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

from common import FIXTURES, Fixture, main, randn
from siglip import fill

logging.getLogger('transformers').setLevel(logging.ERROR)
IMAGE = 26
VISION = dict(hidden_size=12, intermediate_size=20, num_hidden_layers=2, num_attention_heads=3, image_size=12, patch_size=3)
TEXT = dict(
    model_type='llama', vocab_size=29, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
    max_position_embeddings=128, rms_norm_eps=1e-5, head_dim=8, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
CLASSES = dict(smolvlm=(SmolVLMConfig, SmolVLMForConditionalGeneration), idefics3=(Idefics3Config, Idefics3ForConditionalGeneration))
CASES = [
    dict(name='smolvlm'),
    dict(name='idefics3', kind='idefics3', tied=True, scale=4),
    # 19 patches in a row, where rounding moves a position.
    dict(name='rounded', vision=dict(image_size=19, patch_size=1, num_hidden_layers=1, num_channels=1, hidden_size=3), scale=19, grads=False),
]
SIZES = {
    'smolvlm-256m': dict(
        vision_config=dict(hidden_size=768, image_size=512, patch_size=16, num_attention_heads=12),
        text_config=dict(model_type='llama', hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3, vocab_size=49280, head_dim=64),
        scale_factor=4, tie_word_embeddings=False,
    ),
    'smolvlm-500m': dict(
        vision_config=dict(hidden_size=768, image_size=512, patch_size=16, num_attention_heads=12),
        text_config=dict(model_type='llama', hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15, num_key_value_heads=5, vocab_size=49280, head_dim=64),
        scale_factor=4, tie_word_embeddings=False,
    ),
    'smolvlm-2.2b': dict(
        vision_config=dict(hidden_size=1152, image_size=384, patch_size=14, num_attention_heads=16, intermediate_size=4304, num_hidden_layers=27),
        text_config=dict(model_type='llama', hidden_size=2048, intermediate_size=8192, num_hidden_layers=24, num_attention_heads=32, num_key_value_heads=32, vocab_size=49280),
        scale_factor=3, tie_word_embeddings=False,
    ),
}


def build(name, kind='smolvlm', vision=None, tied=False, scale=2):
    config, network = CLASSES[kind]
    settings = config(
        vision_config={**VISION, **(vision or {})}, text_config={**TEXT, 'tie_word_embeddings': tied}, image_token_id=IMAGE, scale_factor=scale,
        tie_word_embeddings=tied, pad_token_id=0,
    )
    settings._attn_implementation = 'eager'
    model = network(settings).eval()
    fill(model, name)
    return model


def named(name):
    """transformers' name -> voxtorch's."""
    if name == 'lm_head.weight':
        return 'language_model.lm_head.weight'
    return name.removeprefix('model.').replace('text_model.', 'language_model.model.')


def batch(model, name, left=False):
    """Rows with two images, one and none, padded on one side."""
    vision = model.config.vision_config
    tokens = (vision.image_size // vision.patch_size // model.config.scale_factor) ** 2
    picture = [27, *[IMAGE] * tokens, 28]
    rows = [[1, 3, *picture, 4, *picture, 5, 6], [1, *picture, 7, 8, 9], [1, 10, 11, 12]]
    longest = max(map(len, rows))
    pad = lambda row, value, before: [value] * (longest - len(row)) * before + row + [value] * (longest - len(row)) * (not before)
    ids = torch.tensor([pad(row, 0, left) for row in rows])
    mask = torch.tensor([pad([1] * len(row), 0, left) for row in rows])
    labels = ids.clone()
    labels[(ids == IMAGE) | (mask == 0)] = -100
    labels[:, 0] = -100
    side = vision.image_size
    return ids, mask, labels, randn(f'{name}/pixels', 3, vision.num_channels, side, side)


def padded(values):
    """[3, ...] as transformers takes them: two images of the first row, one of the second and none of the third."""
    nothing = torch.zeros_like(values[0])
    return torch.stack([torch.stack([values[0], values[1]]), torch.stack([values[2], nothing]), torch.stack([nothing, nothing])])


def one(fixture, name, grads=True, **options):
    model = build(name, **options).double()
    ids, mask, labels, values = batch(model, name)
    exact = values.double().requires_grad_()
    outputs = model(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=padded(exact))
    outputs.loss.backward()
    states = model.model.vision_model(exact.detach()).last_hidden_state
    features = model.model.connector(states)
    roles = {}
    tokens = None
    if grads:
        roles['grad'] = {named(k): p.grad.float() for k, p in model.named_parameters() if p.grad is not None}
        tokens = generated(model, name)
    fixture.case(
        dict(name=name, config=json.loads(model.config.to_json_string()), tokens=tokens),
        **{'in': {'input_ids': ids, 'attention_mask': mask, 'labels': labels, 'pixel_values': values}},
        param={named(k): v.detach().float() for k, v in model.named_parameters()},
        out={
            'logits': torch.where(mask[..., None].bool(), outputs.logits, 0).float(), 'loss': outputs.loss.float(), 'features': features.float(),
            'states': states.float(), 'pixels.grad': exact.grad.float(),
        },
        **roles,
    )
    return model


def generated(model, name):
    """Tokens of all rows, padded on the left."""
    ids, mask, _, values = batch(model, name, left=True)
    with torch.no_grad():
        # Images of a row without any are left out by transformers.
        again = model.generate(input_ids=ids, attention_mask=mask, pixel_values=padded(values.double()), max_new_tokens=6, do_sample=False, eos_token_id=None)
    return again[:, ids.shape[1] :].tolist()


def lora(fixture, name='lora'):
    model = build('smolvlm')
    peft = get_peft_model(model, LoraConfig(r=2, lora_alpha=8, lora_dropout=0.0, target_modules=r'.*(vision_model.*(q_proj|fc2)|connector.*proj|text_model.*(v_proj|down_proj))$'))
    trained = {key.removeprefix('base_model.model.').replace('.default', ''): p for key, p in peft.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for key, parameter in trained.items():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.2))
    peft.double()
    ids, mask, labels, values = batch(model, 'smolvlm')
    outputs = peft(input_ids=ids, attention_mask=mask, labels=labels, pixel_values=padded(values.double()))
    outputs.loss.backward()
    fixture.case(
        dict(name=name),
        param={named(k): p.detach().float() for k, p in trained.items()},
        out={'loss': outputs.loss.float()},
        grad={named(k): p.grad.float() for k, p in trained.items()},
    )


def pictures(fixture):
    """Splitting of images, by the processor with Pillow."""
    for name, (height, width), settings in [
        ('wide', (20, 33), {}),
        ('high', (45, 16), {}),
        ('small', (6, 5), dict(size={'longest_edge': 12})),
        ('whole', (20, 33), dict(do_image_splitting=False)),
        ('bicubic', (21, 22), dict(resample=3, image_mean=[0.1, 0.2, 0.3], image_std=[0.5, 0.6, 0.7])),
    ]:
        settings = {'size': {'longest_edge': 36}, 'max_image_size': {'longest_edge': 12}, **settings}
        pixels = (numpy.arange(height * width * 3).reshape(height, width, 3) * 7 // 4 % 256).astype('uint8')
        processor = SmolVLMImageProcessorPil(**settings)
        made = processor(Image.fromarray(pixels), return_tensors='pt', return_row_col_info=True)
        rows, columns = made['rows'][0][0], made['cols'][0][0]
        text = get_image_prompt_string(rows, columns, 2, '<fake_token_around_image>', '<image>', '<global-img>')
        written = {key: value for key, value in json.loads(processor.to_json_string()).items() if value is not None}
        fixture.case(
            dict(name=f'picture-{name}', settings=written, grid=[rows, columns], text=text),
            **{'in': {'pixels': torch.from_numpy(pixels)}},
            out={'pixels': made['pixel_values'][0]},
        )


def smolvlm():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    lora(fixture)
    pictures(fixture)
    for name, config in SIZES.items():
        with torch.device('meta'):
            model = SmolVLMForConditionalGeneration(SmolVLMConfig(**config))
        fixture.case(dict(name=f'size-{name}', parameters=sum(p.numel() for p in model.parameters())))
    return fixture


def pretrained():
    """The folder that transformers writes, and what it answers."""
    fixture = Fixture()
    name = 'smolvlm-transformers'
    model = build(name, vision=dict(num_hidden_layers=1))
    model.save_pretrained(FIXTURES / 'models' / name)
    ids, mask, _, values = batch(model, name)
    with torch.no_grad():
        logits = model.double()(input_ids=ids, attention_mask=mask, pixel_values=padded(values.double())).logits
    fixture.case(
        dict(name=name),
        **{'in': {'input_ids': ids, 'attention_mask': mask, 'pixel_values': values}},
        out={'logits': torch.where(mask[..., None].bool(), logits, 0).float()},
    )
    return fixture


if __name__ == '__main__':
    main({'models/smolvlm': smolvlm, 'models/smolvlm-pretrained': pretrained})
