"""Tiny emotion2vec networks with random weights, computed by FunASR (`pip install funasr`, 1.4.16): emotion2vec in
test/fixtures/models; and with `--folder` the folder emotion2vec-tiny there, laid out as published: config.yaml, model.pt
and tokens.txt.

Networks are in float64, stored as float32; FunASR computes the softmax in float32. Each clip of a batch is computed alone,
as FunASR does.
"""

import copy
import sys
import types

import torch
import yaml

# It reads audio files only, with packages that the network does not need.
sys.modules['funasr.utils.load_utils'] = types.SimpleNamespace(load_audio_text_image_video=None)
from funasr.models.emotion2vec.model import Emotion2vec  # noqa: E402

from common import FIXTURES, Fixture, main, randn  # noqa: E402

LABELS = ['生气/angry', 'unuse_0', '开心/happy', '<unk>']
MODEL = {
    'loss_beta': 0.0,
    'loss_scale': None,
    'depth': 2,
    'start_drop_path_rate': 0.0,
    'end_drop_path_rate': 0.0,
    'num_heads': 4,
    'norm_eps': 1e-05,
    'norm_affine': True,
    'encoder_dropout': 0.1,
    'post_mlp_drop': 0.1,
    'attention_dropout': 0.1,
    'activation_dropout': 0.0,
    'dropout_input': 0.0,
    'layerdrop': 0.05,
    'embed_dim': 16,
    'mlp_ratio': 2.0,
    'layer_norm_first': False,
    'average_top_k_layers': 2,
    'end_of_block_targets': False,
    'clone_batch': 8,
    'max_update': 100000,
    'extractor_mode': 'layer_norm',
    'supported_modality': 'AUDIO',
    'normalize': True,
    'modalities': {
        'audio': {
            'type': 'AUDIO',
            'prenet_depth': 1,
            'prenet_layerdrop': 0.05,
            'prenet_dropout': 0.1,
            'start_drop_path_rate': 0.0,
            'end_drop_path_rate': 0.0,
            'num_extra_tokens': 3,
            'init_extra_token_zero': True,
            'mask_prob': 0.5,
            'mask_length': 5,
            'local_grad_mult': 1.0,
            'use_alibi_encoder': True,
            'alibi_scale': 1.0,
            'learned_alibi': False,
            'alibi_max_pos': None,
            'learned_alibi_scale': True,
            'learned_alibi_scale_per_head': True,
            'learned_alibi_scale_per_layer': False,
            'num_alibi_heads': 4,
            'model_depth': 2,
            'decoder': None,
            'extractor_mode': 'layer_norm',
            'feature_encoder_spec': '[(8, 10, 5)] + [(8, 3, 2)] * 2',
            'conv_pos_width': 15,
            'conv_pos_groups': 4,
            'conv_pos_depth': 3,
            'conv_pos_pre_ln': False,
        }
    },
}


def conf(audio={}, **changes):
    model = copy.deepcopy(MODEL)
    model.update(changes)
    model['modalities']['audio'].update(audio)
    return model


CASES = {
    'plus': (conf(), len(LABELS), [300]),
    'batch': (conf(), len(LABELS), [300, 90, 211]),
    'features': (conf(), -1, [300]),
    # Six heads have slopes of two series, of which four are used; a scale for each layer.
    'layers': (
        conf(
            {'learned_alibi_scale_per_layer': True, 'num_alibi_heads': 6, 'conv_pos_width': 8, 'num_extra_tokens': 1},
            num_heads=6,
            embed_dim=12,
        ),
        len(LABELS),
        [300],
    ),
    'shared-scale': (
        conf({'learned_alibi_scale_per_head': False, 'prenet_depth': 2, 'num_alibi_heads': 3}),
        len(LABELS),
        [300],
    ),
}


def build(name, model_conf, labels):
    model = Emotion2vec(model_conf=model_conf, vocab_size=labels).double().eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            values = randn(f'emotion2vec/{name}/{key}', *parameter.shape)
            if key.endswith('alibi_scale'):
                values = 1 + values / 2
            elif 'norm' in key and key.endswith('weight'):
                values = 1 + values / 4
            else:
                values = values * (0.3 if parameter.ndim == 2 else 0.2)
            parameter.copy_(values.float().double())
    return model


def run(model, clip):
    states = []
    encoder = model.modality_encoders['AUDIO']
    extra = encoder.modality_cfg.num_extra_tokens
    blocks = [*encoder.context_encoder.blocks, *model.blocks]
    hooks = [blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0][:, extra:].clone()))]
    hooks += [block.register_forward_hook(lambda _, __, output: states.append(output[0][:, extra:])) for block in blocks]
    source = torch.nn.functional.layer_norm(clip, clip.shape).view(1, -1)
    states_out = model.extract_features(source)['x']
    for hook in hooks:
        hook.remove()
    pooled = states_out.mean(1)
    return states_out, pooled, states, model.proj(pooled) if model.proj is not None else None


def fixture():
    result = Fixture()
    for name, (model_conf, labels, lengths) in CASES.items():
        model = build('plus' if name == 'batch' else name, model_conf, labels)
        clips = [randn(f'emotion2vec/{name}/clip{i}', length, scale=0.1) + 0.02 for i, length in enumerate(lengths)]
        out, loss = {}, 0
        cotangents = {}
        for i, clip in enumerate(clips):
            last, pooled, states, logits = run(model, clip.double())
            values = {'last': last, 'pooled': pooled, **{f'state{j}': one for j, one in enumerate(states)}}
            if logits is not None:
                values['logits'] = logits
            for key, value in values.items():
                out[f'{key}/{i}'] = value.float()
            for key in ['last', 'pooled', 'logits']:
                if key in values:
                    cotangent = cotangents[f'{key}/{i}'] = randn(f'emotion2vec/{name}/{key}{i}', *values[key].shape)
                    loss = loss + (values[key] * cotangent).sum()
        parameters = dict(model.named_parameters())
        if labels > 0:
            loss.backward()
        result.case(
            {'name': name, 'config': model_conf, 'labels': max(labels, 0), 'lengths': lengths},
            **{'in': {str(i): clip for i, clip in enumerate(clips)}},
            # As in `plus`.
            param={} if name == 'batch' else {key: one.float() for key, one in parameters.items()},
            cotangent=cotangents,
            out=out,
            grad={key: one.grad.float() for key, one in parameters.items() if one.grad is not None},
        )
    return result


def write_folder():
    folder = FIXTURES / 'models' / 'emotion2vec-tiny'
    folder.mkdir(parents=True, exist_ok=True)
    model = build('plus', conf(), len(LABELS))
    state = {}
    for key, value in model.state_dict().items():
        # Published files have the encoder inside the network that was fine-tuned.
        state[key if key.startswith('proj.') else f'd2v_model.{key}'] = value.float()
    state['d2v_model.modality_encoders.AUDIO.decoder.proj.weight'] = torch.zeros(2, 2)
    torch.save({'model': state}, folder / 'model.pt')
    described = {
        'model': 'Emotion2vec',
        'model_conf': conf(),
        'tokenizer': 'CharTokenizer',
        'tokenizer_conf': {'unk_symbol': '<unk>', 'split_with_space': True},
        'scope_map': ['d2v_model.', 'none'],
    }
    (folder / 'config.yaml').write_text(yaml.safe_dump(described, sort_keys=False), encoding='utf8')
    (folder / 'tokens.txt').write_text('\n'.join(LABELS), encoding='utf8')


if __name__ == '__main__':
    if '--folder' in sys.argv:
        write_folder()
    else:
        main({'models/emotion2vec': fixture})
