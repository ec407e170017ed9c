"""Tiny BEATs networks with random weights: test/fixtures/models/beats.safetensors and published files in both layouts.

transformers has no BEATs, so this restates its arithmetic (https://arxiv.org/abs/2212.09058) in plain PyTorch, with the
names of the published state dictionary. `--published FOLDER` also runs the published code of microsoft/unilm's beats/,
where it is at hand, with the same weights, and prints how far the two are apart.

In float64, stored as float32, but for the buckets, whose logarithm is float32's as published.
"""

import math
import sys

import torch
import torch.nn.functional as F

from common import FIXTURES, Fixture, main, randn

SIZE = dict(
    input_patch_size=4,
    embed_dim=6,
    conv_bias=False,
    encoder_layers=2,
    encoder_embed_dim=8,
    encoder_ffn_embed_dim=10,
    encoder_attention_heads=2,
    activation_fn='gelu',
    layer_norm_first=False,
    deep_norm=True,
    dropout=0.0,
    attention_dropout=0.0,
    activation_dropout=0.0,
    dropout_input=0.0,
    encoder_layerdrop=0.0,
    conv_pos=8,
    conv_pos_groups=4,
    relative_position_embedding=True,
    num_buckets=12,
    max_distance=9,
    gru_rel_pos=True,
    layer_wise_gradient_decay_ratio=1.0,
    finetuned_model=False,
    predictor_dropout=0.0,
    predictor_class=7,
)
BANDS, FRAMES = 8, 31
CASES = [
    dict(name='padded', padded=True),
    dict(name='wide', embed_dim=8, conv_bias=True, conv_pos=7, padded=True),
    dict(name='norm-first', layer_norm_first=True, deep_norm=False, padded=True),
    dict(name='ungated', gru_rel_pos=False, deep_norm=False),
    dict(name='no-positions', relative_position_embedding=False, gru_rel_pos=False, activation_fn='relu', padded=True),
    dict(name='decayed', layer_wise_gradient_decay_ratio=0.6),
    dict(name='classes', finetuned_model=True, padded=True),
    # Long enough that distances reach most of the published buckets.
    dict(name='published-buckets', num_buckets=320, max_distance=800, encoder_layers=1, frames=203, batch=1),
]


def shapes(c):
    dim, hidden, heads = c['encoder_embed_dim'], c['encoder_ffn_embed_dim'], c['encoder_attention_heads']
    patch = c['input_patch_size']
    yield 'patch_embedding.weight', (c['embed_dim'], 1, patch, patch)
    if c['conv_bias']:
        yield 'patch_embedding.bias', (c['embed_dim'],)

    def affine(name, out, *rest):
        yield f'{name}.weight', (out, *rest)
        yield f'{name}.bias', (out,)

    yield from affine('layer_norm', c['embed_dim'])
    if c['embed_dim'] != dim:
        yield from affine('post_extract_proj', dim, c['embed_dim'])
    yield 'encoder.pos_conv.0.weight_g', (1, 1, c['conv_pos'])
    yield 'encoder.pos_conv.0.weight_v', (dim, dim // c['conv_pos_groups'], c['conv_pos'])
    yield 'encoder.pos_conv.0.bias', (dim,)
    yield from affine('encoder.layer_norm', dim)
    for i in range(c['encoder_layers']):
        at = f'encoder.layers.{i}.'
        for part in 'qkv':
            yield from affine(f'{at}self_attn.{part}_proj', dim, dim)
        yield from affine(f'{at}self_attn.out_proj', dim, dim)
        if c['gru_rel_pos']:
            yield from affine(f'{at}self_attn.grep_linear', 8, dim // heads)
            yield f'{at}self_attn.grep_a', (1, heads, 1, 1)
        if c['relative_position_embedding'] and i == 0:
            yield f'{at}self_attn.relative_attention_bias.weight', (c['num_buckets'], heads)
        yield from affine(f'{at}self_attn_layer_norm', dim)
        yield from affine(f'{at}final_layer_norm', dim)
        yield from affine(f'{at}fc1', hidden, dim)
        yield from affine(f'{at}fc2', dim, hidden)
    if c['finetuned_model']:
        yield from affine('predictor', c['predictor_class'], dim)


def weights(c, name):
    """Named random numbers; norms near 1, and tables and gates large enough to count."""
    made = {}
    for key, shape in shapes(c):
        value = randn(f'{name}/{key}', *shape, scale=0.3)
        if 'norm.weight' in key:
            value = value + 1
        if 'relative_attention_bias' in key or 'grep_a' in key:
            value = value * 4
        if 'weight_g' in key:
            value = value.abs() + 0.5
        made[key] = value
    return made


def bucket(distance, count, farthest):
    """Of one distance key - query, as the paper's code rounds it: the logarithm in float32, truncated."""
    half = count // 2
    exact = half // 2
    base = half if distance > 0 else 0
    size = abs(distance)
    if size < exact:
        return base + size
    ratio = torch.log(torch.tensor(float(size)) / exact) / math.log(farthest / exact) * (half - exact)
    return base + min(exact + int(ratio), half - 1)


def reduced(mask, groups):
    """Literally: a group is padding where every element of it is."""
    size = mask.shape[1] // groups
    return torch.tensor([[all(row[i * size : (i + 1) * size]) for i in range(groups)] for row in mask.tolist()])


class Network:
    def __init__(self, c, state):
        self.c, self.state = c, state

    def linear(self, name, x):
        return F.linear(x, self.state[f'{name}.weight'], self.state[f'{name}.bias'])

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.state[f'{name}.weight'], self.state[f'{name}.bias'], 1e-5)

    def positions(self, x):
        g, v, bias = (self.state[f'encoder.pos_conv.0.{part}'] for part in ('weight_g', 'weight_v', 'bias'))
        weight = torch.stack([g[0, 0, k] * v[:, :, k] / v[:, :, k].square().sum().sqrt() for k in range(v.shape[2])], 2)
        kernel = self.c['conv_pos']
        made = F.conv1d(x.transpose(1, 2), weight, bias, padding=kernel // 2, groups=self.c['conv_pos_groups'])
        return F.gelu(made[:, :, : x.shape[1]]).transpose(1, 2)

    def table(self, time):
        c = self.c
        rows = [[bucket(k - q, c['num_buckets'], c['max_distance']) for k in range(time)] for q in range(time)]
        return self.state['encoder.layers.0.self_attn.relative_attention_bias.weight'][torch.tensor(rows)].permute(2, 0, 1)

    def attention(self, at, x, padding, table):
        batch, time, dim = x.shape
        heads = self.c['encoder_attention_heads']
        q, k, v = (self.linear(f'{at}{part}_proj', x).view(batch, time, heads, -1).transpose(1, 2) for part in 'qkv')
        scores = q @ k.transpose(2, 3) / math.sqrt(dim // heads)
        if table is not None:
            bias = table[None]
            if self.c['gru_rel_pos']:
                gates = self.linear(f'{at}grep_linear', q).view(batch, heads, time, 2, 4).sum(-1).sigmoid()
                bias = (gates[..., :1] * (gates[..., 1:] * self.state[f'{at}grep_a'] - 1) + 2) * bias
            scores = scores + bias
        if padding is not None:
            scores = scores.masked_fill(padding[:, None, None], -math.inf)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, time, dim)
        return self.linear(f'{at}out_proj', mixed)

    def layer(self, i, x, padding, table):
        at = f'encoder.layers.{i}.'
        act = {'gelu': F.gelu, 'relu': F.relu}[self.c['activation_fn']]
        feed = lambda y: self.linear(f'{at}fc2', act(self.linear(f'{at}fc1', y)))
        if self.c['layer_norm_first']:
            x = x + self.attention(f'{at}self_attn.', self.norm(f'{at}self_attn_layer_norm', x), padding, table)
            return x + feed(self.norm(f'{at}final_layer_norm', x))
        alpha = (2 * self.c['encoder_layers']) ** 0.25 if self.c['deep_norm'] else 1.0
        x = self.norm(f'{at}self_attn_layer_norm', alpha * x + self.attention(f'{at}self_attn.', x, padding, table))
        return self.norm(f'{at}final_layer_norm', alpha * x + feed(x))

    def forward(self, fbank, padding):
        """padding: bool [batch, n] as published, or None. Returns the output, the patches' padding and all states."""
        c = self.c
        size = c['input_patch_size']
        x = F.conv2d(fbank[:, None], self.state['patch_embedding.weight'], self.state.get('patch_embedding.bias'), size)
        x = self.norm('layer_norm', x.flatten(2).transpose(1, 2))
        if padding is not None:
            padding = reduced(reduced(padding, fbank.shape[1]), x.shape[1])
        if 'post_extract_proj.weight' in self.state:
            x = self.linear('post_extract_proj', x)
        if padding is not None:
            x = x.masked_fill(padding[..., None], 0)
        x = x + self.positions(x)
        if not c['layer_norm_first']:
            x = self.norm('encoder.layer_norm', x)
        table = self.table(x.shape[1]) if c['relative_position_embedding'] else None
        states = [x]
        ratio = c['layer_wise_gradient_decay_ratio']
        for i in range(c['encoder_layers']):
            x = self.layer(i, x.detach() + ratio * (x - x.detach()), padding, table)
            states.append(x)
        if c['layer_norm_first']:
            x = self.norm('encoder.layer_norm', x)
        return x, padding, states

    def classify(self, x, padding):
        logits = self.linear('predictor', x)
        if padding is None:
            return logits.mean(1)
        return torch.stack([row[~pad].mean(0) for row, pad in zip(logits, padding)])


def one(fixture, name, padded=False, frames=FRAMES, batch=2, **changes):
    c = {**SIZE, **changes}
    given = weights(c, name)
    state = {key: value.double().requires_grad_() for key, value in given.items()}
    network = Network(c, state)
    fbank = randn(f'{name}/fbank', batch, frames, BANDS)
    # More samples than frames, in a number that neither divides nor is divided.
    samples, lengths = 37 * frames + 5, [37 * frames + 5, 37 * frames // 2][:batch]
    padding = None
    if padded:
        padding = torch.arange(samples)[None] >= torch.tensor(lengths)[:, None]
    x, patches, states = network.forward(fbank.double(), padding)
    cotangent = randn(f'{name}/cotangent', *x.shape)
    cotangents, out = {'last': cotangent}, {'last': x}
    loss = (x * cotangent).sum()
    if c['finetuned_model']:
        logits = network.classify(x, patches)
        cotangents['logits'] = randn(f'{name}/cotangent/logits', *logits.shape)
        out |= {'logits': logits, 'probabilities': logits.sigmoid()}
        loss = loss + (logits * cotangents['logits']).sum()
    if frames == FRAMES:
        out |= {f'hidden.{i}': hidden for i, hidden in enumerate(states)}
    if padded:
        out['padding'] = patches
    loss.backward()
    inputs = {'fbank': fbank} | ({'padding_mask': padding} if padded else {})
    fixture.case(
        dict(name=name, config=c),
        **{'in': inputs},
        param=given,
        cotangent=cotangents,
        out={key: value.float() if value.is_floating_point() else value for key, value in out.items()},
        grad={key: value.grad.float() for key, value in state.items()},
    )


def alone(fixture, name):
    """Clips by themselves: what rows of a padded batch must equal."""
    c = {**SIZE, 'finetuned_model': True}
    given = weights(c, name)
    network = Network(c, {key: value.double() for key, value in given.items()})
    lengths = [31, 17, 4]
    fbank = randn(f'{name}/fbank', 3, FRAMES, BANDS)
    out = {}
    for i, length in enumerate(lengths):
        x, _, _ = network.forward(fbank[i : i + 1, :length].double(), None)
        out[f'last.{i}'], out[f'logits.{i}'] = x.float(), network.classify(x, None).float()
    fixture.case(dict(name=name, config=c, lengths=lengths), **{'in': {'fbank': fbank}}, param=given, out=out)


def beats():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    alone(fixture, 'alone')
    sweep = [bucket(d, 320, 800) for d in range(-1500, 1501)]
    near = [bucket(d, 12, 9) for d in range(-40, 41)]
    fixture.case(dict(name='buckets'), out={'published': torch.tensor(sweep), 'near': torch.tensor(near)})
    for name, count, groups in [('halves', 29, 14), ('equal', 12, 12), ('frames', 1600, 9), ('blocks', 98, 48)]:
        lengths = [count, count // 2, count // 3, 1]
        mask = torch.arange(count)[None] >= torch.tensor(lengths)[:, None]
        fixture.case(dict(name=f'reduction-{name}', groups=groups), **{'in': {'mask': mask}}, out={'mask': reduced(mask, groups)})
    return fixture


def pretrained():
    """A published file in both layouts of torch.save; the fixture holds what the network answers."""
    name = 'pretrained'
    c = {**SIZE, 'finetuned_model': True, 'predictor_class': 4, 'encoder_layers': 3}
    given = weights(c, name)
    shared = 'encoder.layers.{}.self_attn.relative_attention_bias.weight'
    state = dict(given)
    for i in range(c['encoder_layers']):
        state[shared.format(i)] = given[shared.format(0)]
    labels = {i: label for i, label in enumerate(['/m/09x0r', '/m/0bt9lr', '/m/04rlf', '/m/06mb1'])}
    for layout, zipped in [('zip', True), ('legacy', False)]:
        path = FIXTURES / f'models/beats-{layout}.pt'
        torch.save({'cfg': c, 'model': state, 'label_dict': labels}, path, _use_new_zipfile_serialization=zipped)
    wave = {**c, 'input_patch_size': 16}  # for waveforms: 128 bands
    torch.save({'cfg': wave, 'model': weights(wave, 'wave'), 'label_dict': labels}, FIXTURES / 'models/beats-wave.pt')
    network = Network(c, {key: value.double() for key, value in given.items()})
    fbank = randn(f'{name}/fbank', 2, 20, BANDS)
    x, _, _ = network.forward(fbank.double(), None)
    fixture = Fixture()
    out = {'last': x.float(), 'probabilities': network.classify(x, None).sigmoid().float()}
    fixture.case(dict(name=name, config=c, labels=list(labels.values())), **{'in': {'fbank': fbank}}, out=out)
    return fixture


def compare_with_published(folder):
    """The restatement beside the published code, in float64; torchaudio's front end stays out of both."""
    import types

    sys.path.insert(0, folder)
    sys.modules.update({name: types.ModuleType(name) for name in ['torchaudio', 'torchaudio.compliance']})
    sys.modules['torchaudio.compliance.kaldi'] = sys.modules['torchaudio.compliance']
    sys.modules['torchaudio'].compliance = sys.modules['torchaudio.compliance']
    sys.modules['torchaudio.compliance'].kaldi = types.ModuleType('kaldi')
    from BEATs import BEATs, BEATsConfig

    shared = 'encoder.layers.{}.self_attn.relative_attention_bias.weight'
    for case in CASES:
        case = dict(case)
        name, padded, frames, batch = (case.pop(k, d) for k, d in [('name', 0), ('padded', 0), ('frames', 31), ('batch', 2)])
        c = {**SIZE, **case}
        state = {key: value.double().requires_grad_() for key, value in weights(c, name).items()}
        model = BEATs(BEATsConfig({**c, 'finetuned_model': False})).double()
        wanted = {key: value.detach() for key, value in state.items() if not key.startswith('predictor')}
        if c['relative_position_embedding']:
            wanted |= {shared.format(i): wanted[shared.format(0)] for i in range(c['encoder_layers'])}
        model.load_state_dict(wanted)
        fbank = randn(f'{name}/fbank', batch, frames, BANDS).double()
        samples = 37 * frames + 5
        padding = torch.arange(samples)[None] >= torch.tensor([samples, 37 * frames // 2])[:, None] if padded else None
        model.preprocess = lambda source, **_: fbank
        theirs, their_padding = model.extract_features(fbank, padding)
        ours, our_padding, _ = Network(c, state).forward(fbank, padding)
        cotangent = randn(f'{name}/cotangent', *ours.shape).double()
        (theirs * cotangent).sum().backward()
        (ours * cotangent).sum().backward()
        same = (padding is None) or bool((their_padding == our_padding).all())
        grads = dict(model.named_parameters())
        worst = max((grads[k].grad - state[k].grad).abs().max() / state[k].grad.abs().max().clamp_min(1e-3) for k in grads)
        error = (theirs - ours).abs().max() / theirs.abs().max()
        print(f'{name}: output {error.item():.1e}, gradients {worst.item():.1e}, padding {"equal" if same else "DIFFERS"}')


if __name__ == '__main__':
    if sys.argv[1:2] == ['--published']:
        compare_with_published(sys.argv[2])
    else:
        main({'models/beats': beats, 'models/beats-pretrained': pretrained})
