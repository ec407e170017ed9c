"""Tiny networks of wav2vec 2.0 and its relatives with each head, computed by transformers in float64:
test/fixtures/models/speech-heads.safetensors.

Outputs and gradients stay float64, so that a network in float64 is compared with them far below float32's rounding.
"""

import torch
import transformers
from transformers.loss import loss_ctc

from common import Fixture, main, randint, randn
from wav2vec2 import NEAR, PREFIXES, SHAW, SHORT as SINES, STABLE, fill, saved, speech_inputs

SIZE = dict(
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=10,
    conv_dim=[4, 6],
    conv_kernel=[10, 3],
    conv_stride=[5, 2],
    num_conv_pos_embeddings=4,
    num_conv_pos_embedding_groups=2,
    vocab_size=7,
    classifier_proj_size=5,
    num_labels=3,
    tdnn_dim=[6, 5],
    tdnn_kernel=[3, 2],
    tdnn_dilation=[2, 1],
    xvector_output_dim=4,
    mask_time_prob=0.0,
)
BATCH, SAMPLES, SHORT = 2, 160, 120
ADAPTER = dict(add_adapter=True, num_adapter_layers=2, output_hidden_size=6)

# Class without its prefix, name, what differs.
CASES = [
    ('wav2vec2', 'ForCTC', 'sum', {}),
    ('wav2vec2', 'ForCTC', 'mean-padded', dict(padded=True, ctc_loss_reduction='mean', **STABLE)),
    ('wav2vec2', 'ForCTC', 'zero-infinity', dict(padded=True, ctc_zero_infinity=True, labels_length=12)),
    ('wav2vec2', 'ForCTC', 'adapter', dict(padded=True, labels_length=2, **ADAPTER)),
    ('wav2vec2', 'ForCTC', 'adapter-same-width', dict(labels_length=2, add_adapter=True, num_adapter_layers=1)),
    ('wav2vec2', 'ForCTC', 'attention-adapter', dict(adapter_attn_dim=3, **STABLE)),
    ('wavlm', 'ForCTC', 'mean', dict(pad_token_id=6)),
    ('wavlm', 'ForCTC', 'padded', dict(padded=True, **NEAR, **STABLE)),
    ('wavlm', 'ForCTC', 'adapter', dict(labels_length=2, **ADAPTER, **NEAR)),
    ('wav2vec2', 'ForSequenceClassification', 'last', dict(padded=True)),
    ('wav2vec2', 'ForSequenceClassification', 'weighted', dict(use_weighted_layer_sum=True)),
    ('wavlm', 'ForSequenceClassification', 'weighted-padded', dict(padded=True, use_weighted_layer_sum=True, **NEAR, **STABLE)),
    ('wav2vec2', 'ForAudioFrameClassification', 'last', dict(padded=True)),
    ('wavlm', 'ForAudioFrameClassification', 'weighted', dict(use_weighted_layer_sum=True, **NEAR)),
    ('wav2vec2', 'ForXVector', 'last', dict(padded=True)),
    ('wavlm', 'ForXVector', 'weighted', dict(use_weighted_layer_sum=True, **NEAR)),
    ('hubert', 'ForCTC', 'padded', dict(padded=True, **STABLE)),
    ('hubert', 'ForSequenceClassification', 'weighted-padded', dict(padded=True, use_weighted_layer_sum=True)),
    ('data2vec-audio', 'ForCTC', 'padded', dict(padded=True, labels_length=2, num_conv_pos_embeddings=2, conv_pos_kernel_size=3, **ADAPTER)),
    ('data2vec-audio', 'ForSequenceClassification', 'padded', dict(padded=True, num_conv_pos_embeddings=2, conv_pos_kernel_size=3)),
    ('wav2vec2-conformer', 'ForCTC', 'padded', dict(padded=True, **SINES)),
    ('wav2vec2-conformer', 'ForSequenceClassification', 'weighted', dict(use_weighted_layer_sum=True, position_embeddings_type='rotary')),
    ('wav2vec2-bert', 'ForCTC', 'padded', dict(padded=True, **SHAW)),
    ('wav2vec2-bert', 'ForCTC', 'adapter', dict(padded=True, labels_length=2, **ADAPTER, **SHAW)),
    ('wav2vec2-bert', 'ForSequenceClassification', 'weighted-padded', dict(padded=True, use_weighted_layer_sum=True, **SHAW)),
]
# What each kind has of the sizes.
SIZES = {
    'hubert': {key: value for key, value in SIZE.items() if not key.startswith(('tdnn', 'xvector'))},
    'wav2vec2-bert': {key: value for key, value in SIZE.items() if 'conv' not in key} | dict(feature_projection_input_dim=6),
}


def labels_of(task, name, frames, length):
    if task == 'ForCTC':
        labels = randint(f'{name}/labels', 1, 6, BATCH, length)
        labels[1, length // 2 + 1 :] = -100
        return labels
    if task == 'ForAudioFrameClassification':
        classes = randint(f'{name}/labels', 0, SIZE['num_labels'], BATCH, frames)
        return torch.nn.functional.one_hot(classes, SIZE['num_labels'])
    return randint(f'{name}/labels', 0, SIZE['num_labels'], BATCH)


def one(fixture, kind, task, case, padded=False, labels_length=4, **options):
    name = f'{kind}-{task}-{case}'
    prefix, size = PREFIXES[kind], SIZES.get(kind, SIZE)
    config = getattr(transformers, f'{prefix}Config')(**{**size, **options})
    config._attn_implementation = 'eager'
    model = getattr(transformers, f'{prefix}{task}')(config).eval()
    fill(model, name)
    model.double()
    mel = kind == 'wav2vec2-bert'
    inputs = speech_inputs(model, name, BATCH, 15 if mel else SAMPLES, padded, 11 if mel else SHORT)
    frames = model._get_feat_extract_output_lengths(15 if mel else SAMPLES)
    inputs['labels'] = labels_of(task, name, frames, labels_length)
    exact = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    outputs = model(**exact)
    out = {'loss': outputs.loss, 'logits': outputs.logits}
    if task == 'ForXVector':
        out['embeddings'] = outputs.embeddings
    cotangents = {key: randn(f'{name}/cotangent/{key}', *value.shape) for key, value in out.items()}
    sum((value * cotangents[key]).sum() for key, value in out.items()).backward()
    fixture.case(
        dict(name=name, network=f'{prefix}{task}', config={**size, **options}),
        **{'in': inputs},
        cotangent=cotangents,
        param=saved(model),
        out=out,
        grad={key: value.grad for key, value in model.named_parameters() if value.grad is not None},
    )


def heads():
    # transformers computes the loss in float32 whatever the logits are.
    original = loss_ctc.nn.functional.log_softmax
    loss_ctc.nn.functional.log_softmax = lambda logits, dim, dtype=None: original(logits, dim)
    fixture = Fixture()
    for kind, task, case, options in CASES:
        one(fixture, kind, task, case, **options)
    loss_ctc.nn.functional.log_softmax = original
    return fixture


if __name__ == '__main__':
    main({'models/speech-heads': heads})
