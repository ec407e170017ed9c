"""SPECTRA's arithmetic in plain PyTorch, on transformers' RoBERTa and WavLM: forward.safetensors,
pretraining.safetensors and pretrained.safetensors in test/fixtures/spectra, the last with two folders in the published
layout.

By default every text and every clip is computed alone, without any padding, and so is each pair of a text and its speech:
what a batch gives must equal that. With `published` whole batches are computed as the authors' code does, from padding to
`max_length` to its masks. In float64, stored as float32.
"""

import json

import torch
import torch.nn.functional as F
from torch import nn
from transformers import RobertaConfig, RobertaModel, WavLMConfig, WavLMModel
from transformers.models.roberta.modeling_roberta import RobertaLayer

from common import FIXTURES, Fixture, main, rand, randint, randn

TEXT = dict(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=12,
    max_position_embeddings=20,
    type_vocab_size=2,
    layer_norm_eps=1e-5,
    pad_token_id=1,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
AUDIO = dict(
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=12,
    conv_dim=[6, 8, 6],
    conv_kernel=[10, 3, 2],
    conv_stride=[5, 2, 2],
    num_conv_pos_embeddings=8,
    num_conv_pos_embedding_groups=4,
    num_buckets=12,
    max_bucket_distance=9,
    hidden_dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    feat_proj_dropout=0.0,
    layerdrop=0.0,
)
SEVEN = dict(conv_dim=[6] * 7, conv_kernel=[10, 3, 3, 3, 3, 2, 2], conv_stride=[5, 2, 2, 2, 2, 2, 2])
EIGHT = dict(conv_dim=[6] * 8, conv_kernel=[10, 3, 3, 3, 3, 2, 2, 5], conv_stride=[5, 2, 2, 2, 2, 2, 2, 5])
SAMPLES = 260

FORWARD = [
    dict(name='single', lengths=[260, 131, 0, 25]),
    dict(name='single-behind-cls', lengths=[0, 160], has_audio_cls=True, fused=2),
    dict(name='single-types', lengths=[200, 77], multi_turn=True),
    dict(name='pair', lengths=[260, 111, 0, 200, 95, 0], clips=2),
    dict(name='pair-plain', lengths=[70, 260], clips=2, multi_turn=False),
    dict(name='pair-seven', lengths=[900, 1500, 0, 1100], clips=2, samples=1500, audio=SEVEN),
    dict(name='single-eight', lengths=[4000, 1700], samples=4000, audio=EIGHT),
    dict(name='single-published', lengths=[240, 131, 0, 25], published=300),
    dict(name='single-cut-published', lengths=[260, 131], published=200),
    dict(name='single-cls-published', lengths=[260, 131], published=260, has_audio_cls=True),
    dict(name='single-rows-published', lengths=[260, 131, 90], published=260, has_audio_cls=True, rows=True),
    dict(name='pair-published', lengths=[260, 111, 0, 200], clips=2, published=260),
    dict(name='pair-eight-published', lengths=[4000, 1700, 0, 2500], clips=2, samples=4000, published=4000, audio=EIGHT),
    dict(name='classes', lengths=[200, 131, 90], labels=3),
    dict(name='quantity', lengths=[200, 131, 90, 111], clips=2, labels=1),
]
PRETRAINING = [
    dict(name='pretraining', examples=2),
    dict(name='pretraining-one', examples=1, mam_target_gradients=True),
    dict(name='pretraining-three', examples=3),
    dict(name='pretraining-published', examples=2, published=260),
    dict(name='pretraining-legacy', examples=2, published=260, legacy=True, mam_target_gradients=False),
    dict(name='pretraining-legacy-one', examples=1, published=260, legacy=True),
]


class AudioEncoder(WavLMModel):
    def __init__(self, config):
        super().__init__(config)
        self.audio_cls = nn.Parameter(torch.zeros(config.hidden_size))
        self.audio_sep = nn.Parameter(torch.zeros(config.hidden_size))


class PredictionHead(nn.Module):
    def __init__(self, dim, out):
        super().__init__()
        self.dense = nn.Linear(dim, dim)
        self.layer_norm = nn.LayerNorm(dim, eps=1e-5)
        self.decoder = nn.Linear(dim, out)

    def forward(self, x):
        return self.decoder(self.layer_norm(F.gelu(self.dense(x))))


class Network(nn.Module):
    def __init__(self, audio, fused, labels, pretraining):
        super().__init__()
        text_config = RobertaConfig(**TEXT)
        audio_config = WavLMConfig(**audio, mask_time_prob=0.0, mask_feature_prob=0.0)
        text_config._attn_implementation = audio_config._attn_implementation = 'eager'
        dim = text_config.hidden_size
        self.audio_encoder = AudioEncoder(audio_config)
        self.text_encoder = RobertaModel(text_config)
        self.token_type_embeddings = nn.Embedding(2, dim)
        self.fused_encoder = nn.ModuleList([RobertaLayer(text_config) for _ in range(fused)])
        if pretraining:
            self.mlm_head = PredictionHead(dim, text_config.vocab_size)
            self.mam_head = PredictionHead(dim, audio['conv_dim'][-1])
            self.selection_head = nn.Linear(dim, 4)
            self.start_prediction_head = nn.Sequential(nn.Linear(dim, 1))
            self.end_prediction_head = nn.Sequential(nn.Linear(dim, 1))
        elif labels:
            self.head = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, labels))

    def whole_frames(self, samples):
        for kernel, stride in zip(self.audio_encoder.config.conv_kernel, self.audio_encoder.config.conv_stride):
            samples = max(0, (samples - kernel) // stride + 1)
        return samples

    def published_frames(self, samples, most):
        for kernel, stride in zip(self.audio_encoder.config.conv_kernel, self.audio_encoder.config.conv_stride):
            samples = int((samples - kernel) / stride) + 1
        return min(samples + 1, most)

    def read(self, ids, types, mask=None):
        return self.text_encoder(input_ids=ids, token_type_ids=types, attention_mask=mask).last_hidden_state

    def features(self, values):
        return self.audio_encoder.feature_extractor(values).transpose(1, 2)

    def project(self, features):
        return self.audio_encoder.feature_projection(features)[0]

    def types(self, ids):
        return self.text_encoder.embeddings.token_type_embeddings(ids)

    def transform(self, x, mask=None):
        return self.audio_encoder.encoder(x, attention_mask=mask).last_hidden_state

    def fuse(self, text, audio, mask=None):
        kinds = torch.tensor([0] * text.shape[1] + [1] * audio.shape[1])
        x = torch.cat([text, audio], 1) + self.token_type_embeddings(kinds)
        if mask is not None:
            mask = (1 - mask[:, None, None].to(x.dtype)) * torch.finfo(x.dtype).min
        for layer in self.fused_encoder:
            x = layer(x, mask)
            x = x[0] if isinstance(x, tuple) else x
        return x

    def cls(self):
        return self.audio_encoder.audio_cls[None]

    def sep(self):
        return self.audio_encoder.audio_sep[None]


class Alone:
    """Nothing is padded: lists of single rows."""

    def __init__(self, net, inputs):
        self.net = net
        lengths = inputs['attention_mask'].sum(1).tolist()
        types = inputs.get('token_type_ids', torch.zeros_like(inputs['input_ids']))
        self.text = [net.read(i[None, :n], t[None, :n])[0] for i, t, n in zip(inputs['input_ids'], types, lengths)]
        self.features = []
        for clip, samples in zip(inputs['input_values'].double(), inputs['audio_lengths'].tolist()):
            count = net.whole_frames(samples)
            channels = net.audio_encoder.config.conv_dim[-1]
            self.features.append(net.features(clip[None, :samples])[0] if count else clip.new_zeros(0, channels))
        self.counts = [len(features) for features in self.features]

    def sequence(self, parts, types, with_types):
        x = torch.cat(parts)
        if with_types:
            x = x + self.net.types(types)
        return self.net.transform(x[None])[0] if len(x) else x

    def single(self, clip, with_types, cls):
        frames = self.net.project(self.features[clip])
        parts = [self.net.cls(), frames] if cls else [frames]
        return self.sequence(parts, torch.ones(sum(map(len, parts)), dtype=torch.long), with_types)

    def pair(self, previous, current, with_types):
        a, b = (self.net.project(self.features[clip]) for clip in (previous, current))
        types = torch.tensor([0] * (1 + len(a)) + [1] * (1 + len(b)))
        return self.sequence([self.net.cls(), a, self.net.sep(), b], types, with_types)

    def fuse(self, pairs):
        """Of (text, audio): the states, and where speech begins."""
        return [(self.net.fuse(text[None], audio[None])[0], len(text)) for text, audio in pairs]


class Batch:
    """As the authors' code: padded, masked."""

    def __init__(self, net, inputs, most, cut_rows=False):
        self.net, self.cut_rows = net, cut_rows
        self.text_mask = inputs['attention_mask'].long()
        self.text = net.read(inputs['input_ids'], inputs.get('token_type_ids'), self.text_mask)
        values = inputs['input_values'].double()[:, :most]
        values = F.pad(values, (0, most - values.shape[1]))
        self.features = net.features(values)
        self.most = self.features.shape[1]
        lengths = inputs['audio_lengths'].clamp(max=most).tolist()
        self.counts = [net.published_frames(n, self.most) for n in lengths]

    def singles(self, with_types, cls):
        x = self.net.project(self.features)
        mask = torch.arange(self.most)[None] < torch.tensor(self.counts)[:, None]
        if cls:
            x = torch.cat([self.net.cls()[None].expand(len(x), -1, -1), x], 1)
            mask = torch.cat([torch.zeros(len(x), 1, dtype=torch.bool), mask], 1)
        if with_types:
            x = x + self.net.types(torch.ones(x.shape[:2], dtype=torch.long))
        if self.cut_rows:  # an int64 mask inverted: an index of the last two rows
            x = x.clone()
            x[~mask.long()] = 0
        return self.net.transform(x, mask), mask

    def pairs(self, turns, with_types):
        frames = self.net.project(self.features)
        width = 2 * self.most + 2
        x, mask, types = [], [], []
        for previous, current in turns:
            n, m = self.counts[previous], self.counts[current]
            used = torch.cat([self.net.cls(), frames[previous, :n], self.net.sep(), frames[current, :m]])
            x.append(F.pad(used, (0, 0, 0, width - len(used))))
            mask.append(torch.arange(width) < len(used))
            types.append((torch.arange(width) > n).long())
        x, mask, types = map(torch.stack, (x, mask, types))
        if with_types:
            x = x + self.net.types(types)
        return self.net.transform(x, mask), mask


def fill(model, name):
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))
            if 'orm.weight' in key or key.endswith(('original0', 'gru_rel_pos_const')):
                parameter.add_(1)


def inputs_of(name, texts, lengths, samples):
    time = 9
    ids = randint(f'{name}/ids', 3, TEXT['vocab_size'], texts, time)
    mask = torch.ones(texts, time, dtype=torch.bool)
    types = randint(f'{name}/types', 0, 2, texts, time)
    for row in range(1, texts):
        mask[row, time - 2 * row :] = False
    ids[~mask] = 0
    values = randn(f'{name}/values', len(lengths), samples)
    for row, length in enumerate(lengths):
        values[row, length:] = 0
    return {
        'input_ids': ids,
        'attention_mask': mask,
        'token_type_ids': types,
        'input_values': values,
        'audio_lengths': torch.tensor(lengths),
    }


def config_of(audio, fused, published, **options):
    """What both networks are configured by, in the composition's own keys."""
    own = dict(num_fused_layers=fused, **{key: value for key, value in options.items() if value is not None})
    if published:
        own |= dict(compat='published', max_audio_length=published)
    return dict(text_config=TEXT, audio_config=audio, **own)


def store(fixture, description, net, inputs, cotangents, out):
    parameters = dict(net.named_parameters())
    rounded = {
        'param': parameters,
        'out': out,
        'grad': {key: value.grad for key, value in parameters.items() if value.grad is not None},
    }
    floats = {
        role: {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
        for role, tensors in rounded.items()
    }
    fixture.case(description, **{'in': inputs}, cotangent=cotangents, **floats)


def padded(rows, text_time, audio_time):
    """Rows of states with their text's length, as one batch with a mask."""
    states, mask = [], []
    for x, n in rows:
        text, audio = x[:n], x[n:]
        parts = [F.pad(part, (0, 0, 0, size - len(part))) for part, size in ((text, text_time), (audio, audio_time))]
        states.append(torch.cat(parts))
        mask.append(torch.cat([torch.arange(text_time) < n, torch.arange(audio_time) < len(audio)]))
    return torch.stack(states), torch.stack(mask)


def network(name, audio, fused=1, labels=0, pretraining=False):
    net = Network({**AUDIO, **(audio or {})}, fused, labels, pretraining).eval()
    fill(net, name)
    return net.double()


def forward_case(
    fixture, name, lengths, clips=1, samples=SAMPLES, published=0, fused=1, labels=0, audio=None, rows=None, **options
):
    net = network(name, audio, fused, labels)
    texts = len(lengths) // clips
    inputs = inputs_of(name, texts, lengths, samples)
    with_types = options.get('multi_turn', clips == 2)
    cls = options.get('has_audio_cls', False)
    time = inputs['input_ids'].shape[1]
    if published:
        batch = Batch(net, inputs, published, rows)
        turns = [(2 * i, 2 * i + 1) for i in range(texts)]
        heard, audio_mask = batch.singles(with_types, cls) if clips == 1 else batch.pairs(turns, with_types)
        mask = torch.cat([inputs['attention_mask'], audio_mask], 1)
        states = net.fuse(batch.text, heard, mask) * mask[..., None]
    else:
        alone = Alone(net, inputs)
        heard = [
            alone.single(i, with_types, cls) if clips == 1 else alone.pair(2 * i, 2 * i + 1, with_types)
            for i in range(texts)
        ]
        states, mask = padded(alone.fuse(list(zip(alone.text, heard))), time, max(1, *map(len, heard)))
    out, cotangents = {'states': states, 'mask': mask}, {}
    if labels:
        logits = net.head(states[:, 0])
        if labels == 1:
            inputs['labels'] = randn(f'{name}/labels', texts)
            loss = F.l1_loss(logits.squeeze(1), inputs['labels'].double())
        else:
            inputs['labels'] = randint(f'{name}/labels', 0, labels, texts)
            loss = F.cross_entropy(logits, inputs['labels'])
        out |= {'logits': logits, 'loss': loss}
    else:
        cotangents['states'] = randn(f'{name}/cotangent', *states.shape) * mask[..., None]
        loss = (states * cotangents['states']).sum()
    loss.backward()
    counts = batch.counts if published else alone.counts
    config = config_of(
        {**AUDIO, **(audio or {})}, fused, published, num_labels=labels or None, legacy_audio_cls_rows=rows, **options
    )
    description = dict(name=name, clips=clips, config=config, counts=counts)
    store(fixture, description, net, inputs, cotangents, out)


def corrupted(features, mask, source):
    """Rows of frames with some zeroed or taken from others."""
    result = []
    for row, frames in enumerate(features):
        new = []
        for f in range(len(frames)):
            action = int(mask[row, f]) if f < mask.shape[1] else 0
            new.append(frames[f] * 0 if action == 1 else frames[int(source[row, f])] if action == 2 else frames[f])
        result.append(torch.stack(new) if new else frames)
    return result


def targets_of(name, examples, inputs, counts):
    words = inputs['attention_mask'][::2]
    labels = torch.where((rand(f'{name}/masked', *words.shape) < 0.4) & words, inputs['input_ids'][::2], -100)
    frames = max(counts)
    mask = torch.zeros(3 * examples, frames, dtype=torch.int8)
    source = torch.zeros(3 * examples, frames, dtype=torch.long)
    actions = randint(f'{name}/actions', 0, 4, 3 * examples, frames)
    picks = rand(f'{name}/picks', 3 * examples, frames)
    for row, count in enumerate(counts):
        mask[row, :count] = actions[row, :count].to(torch.int8)
        source[row, :count] = (picks[row, :count] * count).long()
    starts = (rand(f'{name}/starts', *words.shape) < 0.5) & words
    ends = (rand(f'{name}/ends', *words.shape) < 0.4) & words
    return {
        'mlm_labels': labels,
        'mam_mask': mask,
        'mam_source': source,
        'start_mask': starts,
        'end_mask': ends,
        'starts': rand(f'{name}/start-times', int(starts.sum())),
        'ends': rand(f'{name}/end-times', int(ends.sum())),
    }


def pretraining_case(fixture, name, examples, published=0, legacy=False, mam_target_gradients=None):
    net = network(name, None, pretraining=True)
    lengths = [260, 131, 200, 0, 180, 70, 111, 260, 95][: 3 * examples]
    texts = 2 * examples
    inputs = inputs_of(name, texts, lengths, SAMPLES)
    inputs['attention_mask'] = torch.arange(9)[None] < torch.tensor([9, 7, 6, 8, 4, 5])[:texts, None]
    run = Batch(net, inputs, published) if published else Alone(net, inputs)
    targets = targets_of(name, examples, inputs, run.counts)
    through = bool(published) if mam_target_gradients is None else mam_target_gradients
    clean = [frames if through else frames.detach() for frames in run.features]
    run.features = corrupted(run.features, targets['mam_mask'], targets['mam_source'])
    turns = [(3 * i, 3 * i + 1 + negative) for i in range(examples) for negative in (0, 1)]
    pairings = [(2 * i + text, 2 * i + audio) for i in range(examples) for text in (0, 1) for audio in (0, 1)]
    if published:
        run.features = torch.stack(run.features)
        heard, audio_mask = run.pairs(turns, True)
        text_rows, audio_rows = (torch.tensor(rows) for rows in zip(*pairings))
        if legacy:
            mask = torch.cat([run.text_mask.repeat(2, 1), audio_mask.long().repeat(2, 1)], 1)
        else:
            mask = torch.cat([run.text_mask[text_rows], audio_mask[audio_rows].long()], 1)
        fused = [(x, 9) for x in net.fuse(run.text[text_rows], heard[audio_rows], mask)]
    else:
        heard = [run.pair(previous, current, True) for previous, current in turns]
        fused = run.fuse([(run.text[text], heard[audio]) for text, audio in pairings])
    words, frames, wanted, starts, ends = [], [], [], [], []
    for i in range(examples):
        x, begin = fused[4 * i]
        words += [x[t] for t in range(9) if targets['mlm_labels'][i, t] != -100]
        starts += [x[t] for t in range(9) if targets['start_mask'][i, t]]
        ends += [x[t] for t in range(9) if targets['end_mask'][i, t]]
        for turn, offset in ((0, 1), (1, run.counts[3 * i] + 2)):
            for f in range(run.counts[3 * i + turn]):
                if targets['mam_mask'][3 * i + turn, f]:
                    frames.append(x[begin + offset + f])
                    wanted.append(clean[3 * i + turn][f])
    labels = targets['mlm_labels']
    mlm = F.cross_entropy(net.mlm_head(torch.stack(words)), labels[labels != -100])
    mam = F.l1_loss(net.mam_head(torch.stack(frames)), torch.stack(wanted))
    logits = net.selection_head(torch.stack([x[0] for x, _ in fused]))
    crs = F.cross_entropy(logits, torch.arange(4).repeat(examples))
    predicted_starts = net.start_prediction_head(torch.stack(starts)).squeeze(-1)
    predicted_ends = net.end_prediction_head(torch.stack(ends)).squeeze(-1)
    times = torch.cat([targets['starts'], targets['ends']]).double()
    tpp = F.mse_loss(torch.cat([predicted_starts, predicted_ends]), times)
    loss = mlm + mam + crs + tpp
    loss.backward()
    out = dict(loss=loss, mlm=mlm, mam=mam, crs=crs, tpp=tpp, logits=logits)
    out |= dict(starts=predicted_starts, ends=predicted_ends)
    config = config_of(AUDIO, 1, published, legacy_fusion_mask=legacy, mam_target_gradients=mam_target_gradients)
    store(fixture, dict(name=name, config=config, counts=run.counts), net, {**inputs, **targets}, {}, out)


def own_state(net):
    """A head's bias stands under two names in the authors' files."""
    state = dict(net.state_dict())
    return state | {f'{head}.bias': state[f'{head}.decoder.bias'] for head in ('mlm_head', 'mam_head')}


def folder(name, state, audio, text_extra, audio_extra, legacy):
    """As the authors' trainer leaves it: weights of torch and two configurations."""
    path = FIXTURES / 'spectra' / name
    path.mkdir(parents=True, exist_ok=True)
    torch.save(state, path / 'pytorch_model.bin', _use_new_zipfile_serialization=not legacy)
    (path / 'text_config.json').write_text(json.dumps({**TEXT, **text_extra, 'model_type': 'roberta'}, indent=1))
    (path / 'audio_config.json').write_text(json.dumps({**AUDIO, **audio, **audio_extra, 'model_type': 'wavlm'}, indent=1))


def pretrained():
    """Two layouts of a checkpoint, and what the network in them answers."""
    fixture = Fixture()
    for name, audio, samples in [('published', EIGHT, 4000), ('older', SEVEN, 900)]:
        net = Network({**AUDIO, **audio}, 1, 0, True).eval()
        fill(net, name)
        # The file is float32, so the answers must be of these values; fill made them so.
        state = own_state(net)
        if name == 'published':
            # As transformers saves its trainer's model, today.
            state = {(key if '_head' in key else f'model.{key}'): value for key, value in state.items()}
            folder(name, state, audio, dict(max_length=512, num_fused_layers=1), dict(max_length=4000), False)
        else:
            with torch.no_grad():
                types = net.text_encoder.embeddings.token_type_embeddings.weight
                types[1] = types[0]
            old = {'.parametrizations.weight.original0': '.weight_g', '.parametrizations.weight.original1': '.weight_v'}
            state = {}
            for key, value in own_state(net).items():
                for new_name, old_name in old.items():
                    key = key.replace(new_name, old_name)
                state[key.replace('fused_encoder.0.', 'fused_encoder.')] = value
            state['text_encoder.embeddings.token_type_embeddings.weight'] = types[:1].clone()
            state['text_encoder.embeddings.position_ids'] = torch.arange(20)[None]
            state['audio_encoder.masked_spec_embed'] = torch.zeros(8)
            folder(name, state, audio, dict(type_vocab_size=1, max_length=20), {}, True)
        net.double()
        inputs = inputs_of(name, 1, [samples, samples - 200], samples)
        with torch.no_grad():
            alone = Alone(net, inputs)
            [(states, _)] = alone.fuse([(alone.text[0], alone.pair(0, 1, True))])
            out = {'states': states, 'pairing': net.selection_head(states[:1])}
            out |= {'starts': net.start_prediction_head(states[:9]), 'ends': net.end_prediction_head(states[:9])}
        fixture.case(dict(name=name), **{'in': inputs}, out={key: value.float() for key, value in out.items()})
    return fixture


def forward():
    fixture = Fixture()
    for case in FORWARD:
        forward_case(fixture, **case)
    return fixture


def pretraining():
    fixture = Fixture()
    for case in PRETRAINING:
        pretraining_case(fixture, **case)
    return fixture


if __name__ == '__main__':
    main({'spectra/forward': forward, 'spectra/pretraining': pretraining, 'spectra/pretrained': pretrained})
