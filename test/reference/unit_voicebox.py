"""Tiny UnitVoicebox networks with random weights: test/fixtures/models/unit-voicebox.safetensors and a published folder.

The network of naver-ai/usdm's token-Voicebox restated in plain PyTorch, with the names of its published state dictionary: the
original sends the slopes of its attention to a GPU whatever the model is on. `--published FOLDER` also runs the original's
networks.py (src/decoder/voicebox of a clone) with the same weights, and prints how far the two are apart.

In float64, stored as float32.
"""

import json
import math
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from common import FIXTURES, Fixture, main, rand, randint, randn

SIZE = dict(
    n_feats=5,
    n_tokens=11,
    embedding_dim=6,
    hidden_size=16,
    intermediate_size=20,
    num_attention_heads=4,
    num_hidden_layers=4,
    convpos_width=5,
    convpos_groups=4,
    convpos_depth=2,
    attention_dropout=0.0,
    activation_dropout=0.0,
    hidden_dropout=0.0,
    solver='euler',
    sigma_min=0.0001,
)
CASES = [
    dict(name='padded', lengths=[13, 7]),
    dict(name='whole'),
    dict(name='six-heads', num_attention_heads=6, hidden_size=24, convpos_width=4),
    dict(name='no-layers', num_hidden_layers=0, convpos_depth=1, lengths=[13, 1]),
]


def shapes(c):
    dim, hidden = c['hidden_size'], c['intermediate_size']

    def affine(name, out, *rest):
        yield f'estimator.{name}.weight', (out, *rest)
        yield f'estimator.{name}.bias', (out,)

    yield 'estimator.embed.weight', (c['n_tokens'] + 1, c['embedding_dim'])
    yield from affine('proj_in', dim, 2 * c['n_feats'] + c['embedding_dim'], 1)
    for i in range(c['convpos_depth']):
        at = f'estimator.pos_conv_embeds.{i}.conv.'
        yield f'{at}parametrizations.weight.original0', (1, 1, c['convpos_width'])
        yield f'{at}parametrizations.weight.original1', (dim, dim // c['convpos_groups'], c['convpos_width'])
        yield f'{at}bias', (dim,)
    yield from affine('layer_norm', dim)
    for i in range(c['num_hidden_layers']):
        for part in 'kvq':
            yield from affine(f'layers.{i}.attention.{part}_proj', dim, dim)
        yield from affine(f'layers.{i}.attention.out_proj', dim, dim)
        yield from affine(f'layers.{i}.layer_norm', dim)
        yield from affine(f'layers.{i}.feed_forward.intermediate_dense', hidden, dim)
        yield from affine(f'layers.{i}.feed_forward.output_dense', dim, hidden)
        yield from affine(f'layers.{i}.final_layer_norm', dim)
    for i in range(c['num_hidden_layers'] // 2):
        yield from affine(f'skip_connections_layers.{i}', dim, 2 * dim)
    yield from affine('proj_out', c['n_feats'], dim, 1)


def weights(c, name):
    made = {}
    for key, shape in shapes(c):
        value = randn(f'{name}/{key}', *shape, scale=0.3)
        if 'norm.weight' in key:
            value = value + 1
        if 'original0' in key:
            value = value.abs() + 0.5
        made[key] = value
    return made


def slopes(heads):
    power = 2 ** math.floor(math.log2(heads))
    first = [2 ** (-8 * (h + 1) / power) for h in range(power)]
    between = [2 ** (-8 * (h + 1) / (2 * power)) for h in range(2 * power)]
    return torch.tensor(first + between[::2][: heads - power], dtype=torch.float64)


class Network:
    def __init__(self, c, state):
        self.c, self.state = c, state

    def of(self, name):
        return self.state[f'estimator.{name}']

    def linear(self, name, x):
        weight = self.of(f'{name}.weight')
        return F.linear(x, weight.flatten(1), self.of(f'{name}.bias'))

    def norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.of(f'{name}.weight'), self.of(f'{name}.bias'), 1e-5)

    def positions(self, i, x):
        at = f'pos_conv_embeds.{i}.conv.'
        g, v = self.of(f'{at}parametrizations.weight.original0'), self.of(f'{at}parametrizations.weight.original1')
        weight = g * v / v.square().sum((0, 1), keepdim=True).sqrt()
        width = self.c['convpos_width']
        made = F.conv1d(x.transpose(1, 2), weight, self.of(f'{at}bias'), padding=width // 2, groups=self.c['convpos_groups'])
        return F.gelu(made[:, :, : x.shape[1]]).transpose(1, 2)

    def attention(self, at, x, valid):
        batch, time, dim = x.shape
        heads = self.c['num_attention_heads']
        q, k, v = (self.linear(f'{at}{part}_proj', x).view(batch, time, heads, -1).transpose(1, 2) for part in 'qkv')
        place = torch.arange(time)
        bias = -slopes(heads).to(x.dtype)[:, None, None] * (place[:, None] - place[None]).abs()
        bias[:, :, 0] = 0
        scores = q @ k.transpose(2, 3) / math.sqrt(dim // heads) + bias
        scores = scores.masked_fill(~valid[:, None, None], -math.inf)
        return self.linear(f'{at}out_proj', (scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, time, dim))

    def layer(self, i, x, valid):
        at, mask = f'layers.{i}.', valid[..., None]
        x = self.norm(f'{at}layer_norm', (x + self.attention(f'{at}attention.', x, valid)) * mask)
        feed = self.linear(f'{at}feed_forward.output_dense', F.gelu(self.linear(f'{at}feed_forward.intermediate_dense', x)))
        return self.norm(f'{at}final_layer_norm', (x + feed) * mask) * mask

    def forward(self, units, noisy, condition, time, lengths):
        c, half = self.c, self.c['hidden_size'] // 2
        e = self.of('embed.weight')[units] * math.sqrt(c['embedding_dim'])
        x = self.linear('proj_in', torch.cat([e, noisy.transpose(1, 2), condition.transpose(1, 2)], 2))
        angles = 1000 * time.double()[:, None] * 10000 ** (-torch.arange(half, dtype=torch.float64) / (half - 1))
        x = torch.cat([torch.cat([angles.sin(), angles.cos()], 1)[:, None].to(x.dtype), x], 1)
        valid = torch.arange(x.shape[1])[None] < lengths[:, None] + 1
        mask = valid[..., None]
        x = x * mask
        p = x
        for i in range(c['convpos_depth']):
            p = self.positions(i, p) * mask
        x = self.norm('layer_norm', x + p) * mask
        passed, middle = [x], c['num_hidden_layers'] // 2
        for i in range(c['num_hidden_layers']):
            if i >= middle:
                x = self.linear(f'skip_connections_layers.{i - middle}', torch.cat([x, passed.pop()], 2)) * mask
            x = self.layer(i, x, valid)
            if i < middle - 1:
                passed.append(x)
        return (self.linear('proj_out', x * mask) * mask)[:, 1:].transpose(1, 2)


def field(network, units, condition, lengths, guidance):
    """The velocity with classifier-free guidance: beside no units and nothing known."""

    def velocity(z, t):
        time = torch.full((len(z),), t, dtype=torch.float64)
        given = network.forward(units, z, condition, time, lengths)
        if guidance == 0:
            return given
        null = network.forward(torch.full_like(units, network.c['n_tokens']), z, 0 * condition, time, lengths)
        return given + guidance * (given - null)

    return velocity


def solve(network, units, noise, condition, lengths, prompts, solver, steps, guidance):
    """Times add up in float32; frames of the prompt are put on the path from their own noise to what is known."""
    sigma = network.c['sigma_min']
    velocity = field(network, units, condition, lengths, guidance)
    count = (steps + 1) // 2 if solver == 'heun' else steps
    grid = torch.linspace(0, 1, count + 1)
    inside = (torch.arange(units.shape[1])[None] < prompts[:, None])[:, None]

    def held(z, t):
        return torch.where(inside, (1 - (1 - sigma) * t) * noise + t * condition, z)

    z, t, dt = noise, grid[0], grid[1] - grid[0]
    for step in range(count):
        first = velocity(z, t.item())
        ahead = z + dt.item() * first
        t = t + dt
        ahead = held(ahead, t.item())
        if solver == 'heun' and step < count - 1:
            second = velocity(ahead, t.item())
            ahead = held(z + dt.item() * (first + second) / 2, t.item())
        z = ahead
        if step < count - 1:
            dt = grid[step + 2] - t
    return z


def one(fixture, name, lengths=None, **changes):
    c = {**SIZE, **changes}
    given = weights(c, name)
    state = {key: value.double().requires_grad_() for key, value in given.items()}
    network = Network(c, state)
    batch, frames = 2, 13
    units = randint(f'{name}/units', 0, c['n_tokens'] + 1, batch, frames)
    mel = randn(f'{name}/mel', batch, c['n_feats'], frames)
    noise = randn(f'{name}/noise', batch, c['n_feats'], frames)
    time = (rand(f'{name}/time', batch) * 1024).round() / 1024
    visible = torch.zeros(batch, frames, dtype=torch.bool)
    visible[0, 2:5] = True
    ends = torch.tensor(lengths or [frames] * batch)

    condition = mel.double() * visible[:, None]
    velocity = network.forward(units, noise.double(), condition, time.double(), ends)
    sigma, t = c['sigma_min'], time.double()[:, None, None]
    y = (1 - (1 - sigma) * t) * noise.double() + t * mel.double()
    target = mel.double() - (1 - sigma) * noise.double()
    asked = ((torch.arange(frames)[None] < ends[:, None]) & ~visible)[:, None]
    predicted = network.forward(units, y, condition, time.double(), ends)
    loss = ((predicted - target) * asked).square().sum() / (asked.sum() * c['n_feats'])
    loss.backward()
    out = dict(velocity=velocity, loss=loss)
    with torch.no_grad():
        if name in ('padded', 'six-heads'):
            prompts = torch.tensor([4, 2])
            condition = torch.where((torch.arange(frames)[None] < prompts[:, None])[:, None], mel, 0).double()
            nothing = torch.zeros(batch, dtype=torch.long)
            for solver, steps, guidance in [('euler', 3, 0.0), ('euler', 2, 1.0), ('heun', 6, 0.7), ('heun', 5, 0.0)]:
                key = f'{solver}-{steps}-{guidance}'
                z = noise.double()
                out[f'sample/{key}'] = solve(network, units, z, 0 * condition, ends, nothing, solver, steps, guidance)
                out[f'prompted/{key}'] = solve(network, units, z, condition, ends, prompts, solver, steps, guidance)
    fixture.case(
        dict(name=name, config=c, lengths=lengths),
        **{'in': dict(units=units, mel=mel, noise=noise, time=time, visible=visible)},
        param=given,
        out={key: value.float() for key, value in out.items()},
        grad={key: value.grad.float() for key, value in state.items()},
    )


def unit_voicebox():
    fixture = Fixture()
    for case in CASES:
        one(fixture, **case)
    return fixture


def published():
    """A folder as the published model's: config.json of the constructor's arguments, without a model type, and safetensors."""
    name = 'published'
    given = weights(SIZE, name)
    folder = FIXTURES / 'models/unit-voicebox-published'
    folder.mkdir(parents=True, exist_ok=True)
    save_file(given, folder / 'model.safetensors')
    (folder / 'config.json').write_text(json.dumps(SIZE, indent=2) + '\n')
    network = Network(SIZE, {key: value.double() for key, value in given.items()})
    units, noise = randint(f'{name}/units', 0, 11, 1, 9), randn(f'{name}/noise', 1, 5, 9)
    time = torch.tensor([0.25])
    made = network.forward(units, noise.double(), torch.zeros(1, 5, 9).double(), time.double(), torch.tensor([9]))
    fixture = Fixture()
    fixture.case(dict(name=name), **{'in': dict(units=units, noise=noise, time=time)}, out={'velocity': made.float()})
    return fixture


def compare_with_published(folder):
    sys.path.insert(0, folder)
    torch.Tensor.cuda = lambda self, *_, **__: self
    from model.networks import Transformer

    for case in CASES:
        if case.get('num_hidden_layers') == 0:
            continue  # the original needs some
        c = {**SIZE, **{key: value for key, value in case.items() if key not in ('name', 'lengths')}}
        name = case['name']
        state = {key: value.double() for key, value in weights(c, name).items()}
        model = Transformer(**{**{key: value for key, value in c.items() if key not in ('solver', 'sigma_min')}, 'n_tokens': c['n_tokens'] + 1}).double()
        model.load_state_dict({key.removeprefix('estimator.'): value for key, value in state.items()})
        units, noise, mel = randint(f'{name}/units', 0, 12, 2, 13), randn(f'{name}/noise', 2, 5, 13), randn(f'{name}/mel', 2, 5, 13)
        ends, time = torch.tensor(case.get('lengths') or [13, 13]), torch.tensor([0.25, 0.5])
        theirs = model.eval()(units, noise.double(), mel.double(), time.double()[:, None, None], ends)
        ours = Network(c, state).forward(units, noise.double(), mel.double(), time.double(), ends)
        print(f'{name}: {((ours - theirs).abs().max() / theirs.abs().max()).item():.2e}')


if __name__ == '__main__':
    if '--published' in sys.argv:
        compare_with_published(sys.argv[sys.argv.index('--published') + 1])
    else:
        main({'models/unit-voicebox': unit_voicebox, 'models/unit-voicebox-pretrained': published})
