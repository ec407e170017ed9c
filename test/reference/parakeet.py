"""Tiny Parakeet networks with random weights, computed by transformers: parakeet-features, parakeet, parakeet-heads and
parakeet-timestamps in test/fixtures/models; and with `--nemo` parakeet-ctc.nemo and parakeet-tdt.nemo there, with weights of
parakeet-heads; and with `--keys` parakeet-keys.json, the default configurations.

Networks are in float64, stored as float32. transformers computes the RNN-T loss with torchaudio, which this script replaces
by the sum of Graves (2012) in plain operators; `--torchaudio` compares the two where torchaudio is installed.
"""

import collections
import contextlib
import io
import json
import re
import struct
import sys
import tarfile

import tokenizers
import torch
import yaml
from safetensors import safe_open
from transformers import (
    ParakeetCTCConfig,
    ParakeetEncoder,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetForRNNT,
    ParakeetForTDT,
    ParakeetProcessor,
    ParakeetRNNTConfig,
    ParakeetTDTConfig,
    ParakeetTokenizer,
)
from transformers.loss import loss_ctc, loss_rnnt, loss_tdt

from common import FIXTURES, Fixture, main, randn

# The reference's softmax is float32 whatever the scores are, and gives NaN for those that float32 does not have.
softmax = torch.nn.functional.softmax
torch.nn.functional.softmax = lambda scores, dim, dtype=None: softmax(scores, dim)

SIZE = dict(
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    conv_kernel_size=5,
    subsampling_conv_channels=4,
    num_mel_bins=16,
    layerdrop=0.0,
    dropout=0.0,
    activation_dropout=0.0,
    attention_dropout=0.0,
)
BARE = dict(attention_bias=False, convolution_bias=False, scale_input=False)
BATCH, TIME, SHORT = 2, 85, 61


def fill(model, name):
    """Named random weights and statistics, so that each of them counts."""
    with torch.no_grad():
        for key, value in [*model.named_parameters(), *model.named_buffers()]:
            if key.endswith(('inv_freq', 'num_batches_tracked')):
                continue
            value.copy_(randn(f'{name}/{key}', *value.shape, scale=0.3))
            if key.endswith('running_var'):
                value.abs_().add_(0.5)
            elif 'norm' in key and key.endswith('.weight'):
                value.add_(1)


def state(model):
    return {key: value.float().clone() if value.is_floating_point() else value.clone() for key, value in model.state_dict().items()}


def inputs_of(name, batch, padded, time=TIME):
    inputs = {'input_features': randn(f'{name}/input', batch, time, SIZE['num_mel_bins'])}
    if padded:
        mask = torch.ones(batch, time, dtype=torch.long)
        mask[-1, SHORT:] = 0
        inputs['attention_mask'] = mask
        inputs['input_features'][-1, SHORT:] = 0
    return inputs


@contextlib.contextmanager
def exact_features(extractor):
    """The feature extractor computes in float32."""
    to = torch.Tensor.to
    torch.Tensor.to = lambda self, *args, **kwargs: to(self, *(torch.float64 if one is torch.float32 else one for one in args), **kwargs)
    torch.set_default_dtype(torch.float64)
    extractor.mel_filters = extractor.mel_filters.double()
    yield
    torch.set_default_dtype(torch.float32)
    torch.Tensor.to = to


def features():
    """The feature extractor on batches of clips of different lengths."""
    fixture = Fixture()
    for name, options, lengths in [
        ('80', {}, [4001]),
        ('80-padded', {}, [4800, 3333]),
        ('128', dict(feature_size=128), [2560]),
        ('other', dict(feature_size=20, n_fft=256, win_length=200, hop_length=80, preemphasis=0.0, sampling_rate=8000), [1999]),
    ]:
        extractor = ParakeetFeatureExtractor(**options)
        clips = [randn(f'features/{name}/{i}', n, scale=0.1) for i, n in enumerate(lengths)]
        with exact_features(extractor):
            exact = [clip.double().numpy() for clip in clips]
            out = extractor(exact, sampling_rate=extractor.sampling_rate, return_tensors='pt')
        fixture.case(
            dict(name=name, options=options),
            **{'in': {str(i): clip for i, clip in enumerate(clips)}},
            out=dict(features=out.input_features.float(), mask=out.attention_mask),
        )
    return fixture


@contextlib.contextmanager
def band(encoder, before, after):
    """Local attention: the same mask for each layer, in which a frame sees its neighbors only."""
    hooks = []

    def near(module, args, kwargs):
        frames = kwargs['hidden_states'].shape[1]
        distance = torch.arange(frames)[:, None] - torch.arange(frames)[None, :]
        mask = ((distance <= before) & (distance >= -after))[None, None]
        given = kwargs['attention_mask']
        kwargs['attention_mask'] = mask if given is None else given & mask
        return args, kwargs

    for layer in encoder.layers:
        hooks.append(layer.self_attn.register_forward_pre_hook(near, with_kwargs=True))
    yield
    for hook in hooks:
        hook.remove()


def encoders():
    fixture = Fixture()
    for name, options in [
        ('plain', {}),
        ('padded', dict(padded=True)),
        ('bare', dict(padded=True, batch=1, num_hidden_layers=1, **BARE)),
        ('factor-4', dict(subsampling_factor=4, conv_kernel_size=3, num_hidden_layers=1, batch=1)),
        ('one-frame', dict(time=3, batch=1, num_hidden_layers=1)),
        ('local', dict(time=600, local=(9, 5), batch=1, num_hidden_layers=1)),
        ('local-padded', dict(padded=True, local=(2, 3), num_hidden_layers=1)),
        ('training', dict(padded=True, training=True, convolution_bias=False)),
    ]:
        encoder_case(fixture, name, **options)
    return fixture


def encoder_case(fixture, name, padded=False, training=False, local=None, batch=BATCH, time=TIME, **options):
    config = ParakeetEncoderConfig(**{**SIZE, **options})
    config._attn_implementation = 'eager'
    model = ParakeetEncoder(config)
    fill(model, f'encoder/{name}')
    before = state(model)
    model.double().train(training)
    inputs = inputs_of(f'encoder/{name}', batch, padded, time)
    exact = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    full = not training and not local and name in ('plain', 'padded')
    with band(model, *local) if local else contextlib.nullcontext():
        out = model(**exact, output_hidden_states=full, output_attentions=full)
    last = out.last_hidden_state
    cotangent = randn(f'encoder/{name}/cotangent', *last.shape)
    valid = out.attention_mask.bool() if padded else torch.ones(last.shape[:2], dtype=torch.bool)
    # What padding gives is undefined.
    cotangent = cotangent * valid[..., None]
    (last * cotangent).sum().backward()
    results = dict(last=last * valid[..., None], valid=valid)
    if full:
        results.update({f'hidden.{i}': value * valid[..., None] for i, value in enumerate(out.hidden_states)})
        results.update({f'attention.{i}': value for i, value in enumerate(out.attentions)})
    if training:
        results.update({key: value for key, value in model.state_dict().items() if 'running' in key or 'tracked' in key})
    if local:
        options = {**options, 'self_attention_model': 'rel_pos_local_attn', 'att_context_size': list(local)}
    fixture.case(
        dict(name=name, config={**SIZE, **options}, training=training),
        **{'in': inputs},
        cotangent=dict(last=cotangent),
        param=before,
        out=results,
        grad={key: value.grad for key, value in model.named_parameters() if value.grad is not None},
    )


def rnnt_rows(logits, targets, logit_lengths, target_lengths, blank):
    """-log of the sum over all alignments of each row, by the recursion over frames and targets."""
    rows = []
    for row, T, U in zip(range(len(logits)), logit_lengths.tolist(), target_lengths.tolist()):
        log_probs = logits[row].log_softmax(-1)
        alpha = [[None] * (U + 1) for _ in range(T)]
        for t in range(T):
            for u in range(U + 1):
                terms = []
                if t > 0:
                    terms.append(alpha[t - 1][u] + log_probs[t - 1, u, blank])
                if u > 0:
                    terms.append(alpha[t][u - 1] + log_probs[t, u - 1, targets[row, u - 1]])
                alpha[t][u] = torch.stack(terms).logsumexp(0) if terms else log_probs.new_zeros(())
        rows.append(-(alpha[T - 1][U] + log_probs[T - 1, U, blank]))
    return torch.stack(rows)


def rnnt_loss(logits, targets, logit_lengths, target_lengths, blank_token_id, reduction='mean_volume'):
    losses = rnnt_rows(logits, targets, logit_lengths, target_lengths, blank_token_id)
    lengths = target_lengths.double()
    return {
        'none': losses,
        'sum': losses.sum(),
        'mean': (losses / lengths).mean(),
        'mean_batch': losses.mean(),
        'mean_volume': losses.sum() / lengths.sum(),
    }[reduction]


@contextlib.contextmanager
def exact_losses():
    """transformers computes losses in float32 whatever the logits are."""
    log_softmax, tdt, rnnt, to_float = loss_ctc.nn.functional.log_softmax, loss_tdt.tdt_loss, loss_rnnt.rnnt_loss, torch.Tensor.float

    def double_tdt(*args, **kwargs):
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double
        try:
            return tdt(*args, **kwargs)
        finally:
            torch.Tensor.float = to_float
            torch.set_default_dtype(torch.float32)

    loss_ctc.nn.functional.log_softmax = lambda logits, dim, dtype=None: log_softmax(logits, dim)
    loss_tdt.tdt_loss = double_tdt
    loss_rnnt.rnnt_loss = rnnt_loss
    yield
    loss_ctc.nn.functional.log_softmax, loss_tdt.tdt_loss, loss_rnnt.rnnt_loss = log_softmax, tdt, rnnt


KINDS = {
    'ctc': (ParakeetForCTC, ParakeetCTCConfig, dict(vocab_size=7, pad_token_id=6)),
    'rnnt': (ParakeetForRNNT, ParakeetRNNTConfig, dict(vocab_size=7, blank_token_id=6, pad_token_id=0, decoder_hidden_size=5)),
    'tdt': (
        ParakeetForTDT,
        ParakeetTDTConfig,
        dict(vocab_size=7, blank_token_id=6, pad_token_id=0, decoder_hidden_size=5, durations=[0, 1, 2, 3, 4]),
    ),
}
# Labels are padded with what transformers leaves out.
PADDING = {'ctc': -100, 'rnnt': 6, 'tdt': 0}


def heads():
    fixture = Fixture()
    with exact_losses():
        for kind, name, options in [
            ('ctc', 'mean', dict(padded=True)),
            ('ctc', 'sum', dict(ctc_loss_reduction='sum', ctc_zero_infinity=False)),
            ('rnnt', 'mean-volume', dict(padded=True)),
            ('rnnt', 'mean', dict(loss=dict(reduction='mean'), num_decoder_layers=1, hidden_act='tanh')),
            ('tdt', 'mean', dict(padded=True)),
            ('tdt', 'sigma', dict(loss=dict(reduction='sum', sigma=0.05), durations=[0, 1, 2], num_decoder_layers=1)),
            ('tdt', 'mean-batch', dict(padded=True, loss=dict(reduction='mean_batch'))),
        ]:
            head_case(fixture, kind, name, **options)
    return fixture


def decoded(kind, model, inputs):
    if kind == 'ctc':
        return dict(sequences=model.generate(**inputs))
    config = model.config
    # The logits of the durations are no tokens.
    others = list(range(config.vocab_size, config.vocab_size + len(config.durations))) if kind == 'tdt' else None
    most = 100 if kind == 'rnnt' else 50
    out = model.generate(**inputs, decoder_start_token_id=config.blank_token_id, suppress_tokens=others, max_new_tokens=most)
    return dict(sequences=out.sequences, durations=out.durations)


def is_varied(generated, blank, frames):
    """Whether greedy decoding of the valid frames finds blanks and tokens, and TDT is never stuck at a frame."""
    sequences = generated['sequences']
    if 'durations' not in generated:
        return len(sequences[sequences != blank].unique()) > 1
    durations = generated['durations']
    # Steps after the last frame of a row are left over from longer ones.
    places = durations.cumsum(-1) - durations
    inside = places < frames[:, None]
    inside[:, 0] = False
    tokens, spans = sequences[inside], durations[inside]
    most = max(torch.bincount(row[used]).max().item() for row, used in zip(places, inside))
    labels = tokens[tokens != blank].unique()
    # RNN-T leaves a frame after 10 tokens; TDT does so here, but not in transformers.
    is_stuck = durations.max() > 1 and most > 9
    return len(labels) > 1 and len(spans.unique()) > 1 and (tokens == blank).any() and not is_stuck


def head_case(fixture, kind, name, padded=False, loss=None, **options):
    network, config_class, own = KINDS[kind]
    own = {**own, **options}
    config = config_class(encoder_config=ParakeetEncoderConfig(**SIZE, **BARE), **own)
    config.encoder_config._attn_implementation = 'eager'
    model = network(config)
    seed = f'{kind}/{name}'
    inputs = inputs_of(seed, BATCH, padded)
    exact = {key: value.double() if value.is_floating_point() else value for key, value in inputs.items()}
    if not padded:
        # The reference takes lengths from the mask.
        exact['attention_mask'] = torch.ones(BATCH, TIME, dtype=torch.long)
    frames = model._get_subsampling_output_length(exact['attention_mask'].sum(-1))
    for attempt in range(400):
        model.float()
        fill(model, f'{seed}/{attempt}')
        if kind != 'ctc':
            for parameter in model.decoder.parameters():
                parameter.data.mul_(8)
            model.encoder_projector.weight.data.mul_(2)
            model.joint.head.weight.data.mul_(4)
            model.joint.head.bias.data[own['blank_token_id']] += 0.5 * (attempt % 8)
        before = state(model)
        model.double().eval()
        generated = decoded(kind, model, exact)
        if is_varied(generated, own['blank_token_id'] if kind != 'ctc' else own['pad_token_id'], frames):
            break
    else:
        raise AssertionError(seed)
    labels = torch.tensor([[1, 3, 3, 5], [2, 4, 4, 1]])
    labels[1, 2:] = PADDING[kind] if kind != 'ctc' or padded else labels[1, 2:]
    more = dict(loss or {})
    if kind != 'ctc':
        blank = own['blank_token_id']
        more['decoder_input_ids'] = torch.cat([torch.full((BATCH, 1), blank), labels.masked_fill(labels == PADDING[kind], blank)], 1)
    out = model(**exact, labels=labels, **more)
    out.loss.backward()
    with torch.no_grad():
        valid = model._get_output_attention_mask(exact['attention_mask'], out.logits.shape[1])
        results = dict(loss=out.loss, logits=out.logits * valid.reshape(*valid.shape, *[1] * (out.logits.ndim - 2)))
        results.update(generated)
    description = {**own, 'encoder_config': {**SIZE, **BARE}}
    fixture.case(
        dict(name=f'{kind}-{name}', network=network.__name__, config=description, loss=loss or {}),
        **{'in': {**inputs, 'labels': labels}},
        param=before,
        out=results,
        grad={key: value.grad for key, value in model.named_parameters() if value.grad is not None},
    )


PIECES = ['<unk>', '▁', 'h', 'e', 'l', 'o', '▁w', 'or', 'd', '.', ',', '▁?', "'", 'é', '▁a', '<0xC3>', '<0xA9>']


def tokenizer_of(kind):
    """Pieces as those of a SentencePiece model, with the special tokens that the published folders have."""
    pieces = {piece: i for i, piece in enumerate(PIECES)}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(pieces, [], unk_token='<unk>', fuse_unk=True, byte_fallback=True))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    decoders = tokenizers.decoders
    backend.decoder = decoders.Sequence([decoders.Replace('▁', ' '), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(' ', 1, 0)])
    special = {'pad_token': '<blank>' if kind == 'rnnt' else '<pad>', 'unk_token': '<unk>'}
    tokenizer = ParakeetTokenizer(tokenizer_object=backend, clean_up_tokenization_spaces=False, **special)
    if kind == 'tdt':
        tokenizer.add_tokens([tokenizers.AddedToken('<blank>', normalized=False, special=True)])
    return tokenizer


def timestamps():
    """Times of tokens by transformers' processor."""
    fixture = Fixture()
    for kind, blank in [('rnnt', 17), ('tdt', 18)]:
        tokenizer = tokenizer_of(kind)
        processor = ParakeetProcessor(ParakeetFeatureExtractor(), tokenizer, decoder_type=kind)
        assert processor.blank_token_id == blank, processor.blank_token_id
        tokens = [blank, 1, 2, 3, blank, 4, 4, 5, 10, blank, 6, 7, 4, 8, 9, 14, 15, 16, 12, 13, 11, blank]
        if kind == 'tdt':
            spans = [0, 1, 0, 2, 1, 1, 0, 1, 0, 4, 2, 1, 1, 3, 0, 1, 0, 2, 1, 0, 2, 1]
        else:
            spans = [int(token == blank) for token in tokens]
            spans[0] = 0
        text, times = processor.decode(torch.tensor([tokens]), durations=torch.tensor([spans]), skip_special_tokens=True)
        fixture.case(
            dict(name=kind, blank=blank, text=text[0], times=times[0], tokenizer=json.loads(tokenizer.backend_tokenizer.to_str())),
            **{'in': dict(tokens=torch.tensor(tokens), durations=torch.tensor(spans))},
        )
    return fixture


NEMO_NAMES = [
    (r'^encoder\.subsampling\.layers\.', 'encoder.pre_encode.conv.'),
    (r'^encoder\.subsampling\.linear\.', 'encoder.pre_encode.out.'),
    (r'\.conv\.norm\.', '.conv.batch_norm.'),
    (r'\.([qkv])_proj\.', r'.linear_\1.'),
    (r'\.o_proj\.', '.linear_out.'),
    (r'\.relative_k_proj\.', '.linear_pos.'),
    (r'\.bias_([uv])$', r'.pos_bias_\1'),
    (r'^decoder\.embedding\.', 'decoder.prediction.embed.'),
    (r'^decoder\.lstm\.', 'decoder.prediction.dec_rnn.lstm.'),
    (r'^encoder_projector\.', 'joint.enc.'),
    (r'^decoder\.decoder_projector\.', 'joint.pred.'),
    (r'^joint\.head\.', 'joint.joint_net.2.'),
    (r'^ctc_head\.', 'decoder.decoder_layers.0.'),
]


def sentencepiece(pieces):
    """The protobuf of a BPE model without merges."""
    field = lambda number, data: bytes([number << 3 | 2, len(data)]) + data
    message = b''
    for i, piece in enumerate(pieces):
        message += field(1, field(1, piece.encode()) + b'\x15' + struct.pack('<f', -i) + bytes([0x18, 2 if i == 0 else 1]))
    return message + field(2, bytes([0x18, 2])) + field(3, bytes([0x18, 1, 0x28, 1]))


def nemo():
    """Archives as NeMo's save_to writes them, with the weights of cases of parakeet-heads."""
    with safe_open(FIXTURES / 'models/parakeet-heads.safetensors', 'pt') as file:
        states = {case: {key.split('/', 2)[2]: file.get_tensor(key) for key in file.keys() if key.startswith(f'{case}/param/')} for case in ('ctc-mean', 'tdt-mean')}
    labels = ['<pad>', 'b', 'c', 'd', 'e', 'f']
    encoder = dict(
        _target_='nemo.collections.asr.modules.ConformerEncoder', feat_in=16, feat_out=-1, n_layers=2, d_model=8, use_bias=False,
        subsampling='dw_striding', subsampling_factor=8, subsampling_conv_channels=4, causal_downsampling=False, reduction=None,
        ff_expansion_factor=1.5, self_attention_model='rel_pos', n_heads=2, att_context_size=[-1, -1], att_context_style='regular',
        xscaling=False, untie_biases=True, pos_emb_max_len=5000, conv_kernel_size=5, conv_norm_type='batch_norm', conv_context_size=None,
        dropout=0.1, dropout_pre_encoder=0.1, dropout_emb=0.0, dropout_att=0.1, stochastic_depth_drop_prob=0.0,
    )
    preprocessor = dict(
        _target_='nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor', sample_rate=16000, normalize='per_feature',
        window_size=0.025, window_stride=0.01, window='hann', features=16, n_fft=512, log=True, frame_splicing=1, dither=1e-5, pad_to=0,
    )
    shared = dict(sample_rate=16000, preprocessor=preprocessor, encoder=encoder, tokenizer=dict(dir='/data', type='bpe', model_path='nemo:abc_tokenizer.model'))
    heads = {
        'ctc': dict(decoder=dict(_target_='nemo.collections.asr.modules.ConvASRDecoder', feat_in=8, num_classes=6, vocabulary=labels)),
        'tdt': dict(
            labels=labels,
            decoder=dict(_target_='nemo.collections.asr.modules.RNNTDecoder', normalization_mode=None, blank_as_pad=True, prednet=dict(pred_hidden=5, pred_rnn_layers=2)),
            joint=dict(num_classes=6, vocabulary=labels, num_extra_outputs=5, jointnet=dict(joint_hidden=5, activation='relu')),
            decoding=dict(strategy='greedy_batch', durations=[0, 1, 2, 3, 4], greedy=dict(max_symbols=10)),
            loss=dict(loss_name='tdt', tdt_kwargs=dict(durations=[0, 1, 2, 3, 4], sigma=0.02, omega=0.1)),
        ),
    }
    model = sentencepiece(['<unk>', '▁', 'h', 'e', 'l', 'o'])
    for kind, mode in (('ctc', 'w:gz'), ('tdt', 'w')):
        weights = {'preprocessor.featurizer.window': torch.ones(4), 'preprocessor.featurizer.fb': torch.ones(1, 2, 3)}
        for key, value in states[f'{kind}-mean'].items():
            for pattern, name in NEMO_NAMES:
                key = re.sub(pattern, name, key)
            weights[key] = value
        buffer = io.BytesIO()
        torch.save(collections.OrderedDict(weights), buffer)
        entries = {
            './model_config.yaml': yaml.safe_dump({**shared, **heads[kind]}).encode(),
            './model_weights.ckpt': buffer.getvalue(),
            './abc_tokenizer.model': model,
            './abc_vocab.txt': b'a\n',
        }
        with tarfile.open(FIXTURES / f'models/parakeet-{kind}.nemo', mode) as tar:
            for name, data in entries.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def keys():
    """The default configurations of transformers' classes."""
    classes = {'ParakeetEncoder': ParakeetEncoderConfig, **{network.__name__: config for network, config, _ in KINDS.values()}}
    defaults = {name: config().to_dict() for name, config in classes.items()}
    (FIXTURES / 'models/parakeet-keys.json').write_text(json.dumps(defaults, indent=1) + '\n')


def compare_with_torchaudio():
    import torchaudio

    for _ in range(20):
        logits = torch.randn(3, 9, 5, 6)
        targets = torch.randint(0, 5, (3, 4), dtype=torch.int32)
        frames, labels = torch.tensor([9, 7, 4], dtype=torch.int32), torch.tensor([4, 2, 3], dtype=torch.int32)
        theirs = torchaudio.functional.rnnt_loss(logits, targets, frames, labels, blank=5, reduction='none')
        ours = rnnt_rows(logits, targets, frames, labels, 5)
        print(f'{(ours - theirs).abs().max():.1e}')


if __name__ == '__main__':
    if sys.argv[1:] == ['--torchaudio']:
        compare_with_torchaudio()
    elif sys.argv[1:] == ['--nemo']:
        nemo()
    elif sys.argv[1:] == ['--keys']:
        keys()
    else:
        main(
            {
                'models/parakeet-features': features,
                'models/parakeet': encoders,
                'models/parakeet-heads': heads,
                'models/parakeet-timestamps': timestamps,
            }
        )
