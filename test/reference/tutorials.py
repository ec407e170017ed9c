"""Five public tutorials of PyTorch on small sizes: the losses of their first 20 steps, and the weights after them.

The variational autoencoder, the actor-critic and the DCGAN of PyTorch's tutorials and examples, a character GPT in nanoGPT's shape,
and LoRA by hand, written anew after their descriptions, with other sizes, other data and an environment of its own.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from common import Fixture, main, rand, randint, randn
from torch.distributions import Categorical

STEPS = 20


def fill(model, name):
    """Weights by name, small enough that no unit saturates."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=0.3))


class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(16, 12)
        self.fc21 = nn.Linear(12, 3)
        self.fc22 = nn.Linear(12, 3)
        self.fc3 = nn.Linear(3, 12)
        self.fc4 = nn.Linear(12, 16)

    def forward(self, x):
        hidden = F.relu(self.fc1(x))
        mean, log_variance = self.fc21(hidden), self.fc22(hidden)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_variance)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mean, log_variance


def vae():
    model = VAE()
    fill(model, 'vae')
    data = rand('vae/data', 32, 16).round()
    start = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    torch.manual_seed(1)
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        reconstruction, mean, log_variance = model(data)
        divergence = -0.5 * torch.sum(1 + log_variance - mean.pow(2) - log_variance.exp())
        loss = F.binary_cross_entropy(reconstruction, data, reduction='sum') + divergence
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return start, data, losses


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(2, 16)
        self.action_head = nn.Linear(16, 2)
        self.value_head = nn.Linear(16, 1)

    def forward(self, x):
        hidden = F.relu(self.affine1(x))
        return F.softmax(self.action_head(hidden), dim=-1), self.value_head(hidden)


def run_episode(model):
    """A point that runs away from 0 unless it is pushed back; it is lost beyond 1."""
    position, speed = 0.25, 0.0
    steps = []
    while abs(position) < 1 and len(steps) < 25:
        probs, value = model(torch.tensor([position, speed]))
        policy = Categorical(probs)
        action = policy.sample()
        steps.append((policy.log_prob(action), value, 1 - abs(position)))
        speed += 0.125 * position + (0.0625 if action.item() == 1 else -0.0625)
        position += speed
    return steps


def actor_critic():
    model = Policy()
    fill(model, 'actor-critic')
    start = {key: value.clone() for key, value in model.state_dict().items()}
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-2)
    torch.manual_seed(2)
    losses, lengths = [], []
    for _ in range(STEPS):
        steps = run_episode(model)
        total, returns = 0.0, []
        for *_, reward in reversed(steps):
            total = reward + 0.99 * total
            returns.insert(0, total)
        returns = torch.tensor(returns)
        returns = (returns - returns.mean()) / (returns.std() + 1e-6)
        policy_losses, value_losses = [], []
        for (log_prob, value, _), expected in zip(steps, returns):
            policy_losses.append(-log_prob * (expected - value.item()))
            value_losses.append(F.smooth_l1_loss(value, expected.reshape(1)))
        loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        lengths.append(len(steps))
    return start, lengths, losses


def distributions():
    fixture = Fixture()
    start, data, losses = vae()
    fixture.case({'name': 'vae'}, param=start, **{'in': {'data': data}}, out={'losses': torch.tensor(losses)})
    start, lengths, losses = actor_critic()
    fixture.case({'name': 'actor-critic', 'lengths': lengths}, param=start, out={'losses': torch.tensor(losses)})
    return fixture


def drawn(model, name, scale):
    """Weights by name: matrices and kernels around 0, norms around 1, biases 0."""
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.copy_(randn(f'{name}/{key}', *parameter.shape, scale=scale))
            else:
                parameter.fill_(1.0 if 'norm' in key and key.endswith('weight') else 0.0)


def snapshot(model):
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


NOISE = 8


def gan_networks():
    generator = nn.Sequential(
        nn.ConvTranspose2d(NOISE, 16, 4, 1, 0, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(True),
        nn.ConvTranspose2d(16, 8, 4, 2, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(True),
        nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False),
        nn.Tanh(),
    )
    discriminator = nn.Sequential(
        nn.Conv2d(1, 8, 4, 2, 1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(8, 16, 4, 2, 1, bias=False),
        nn.BatchNorm2d(16),
        nn.LeakyReLU(0.2, inplace=True),
        nn.Conv2d(16, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
    )
    return generator, discriminator


def gan_weights(module):
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.constant_(module.bias, 0)


def images():
    """Eight images [1, 16, 16] of waves in [-1, 1]."""
    row = torch.arange(16, dtype=torch.float64).reshape(1, 1, 16, 1)
    column = torch.arange(16, dtype=torch.float64).reshape(1, 1, 1, 16)
    frequency = (torch.arange(8, dtype=torch.float64).reshape(8, 1, 1, 1) + 1) / 8
    return ((row * frequency).sin() * (column * frequency).cos()).float()


def gan():
    torch.manual_seed(3)
    generator, discriminator = gan_networks()
    generator.apply(gan_weights)
    discriminator.apply(gan_weights)
    start = {'generator': snapshot(generator), 'discriminator': snapshot(discriminator)}
    criterion = nn.BCELoss()
    d_optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    g_optimizer = torch.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    real = images()
    d_losses, g_losses = [], []
    torch.manual_seed(4)
    for _ in range(STEPS):
        discriminator.zero_grad()
        label = torch.full((8,), 1.0)
        real_loss = criterion(discriminator(real).view(-1), label)
        real_loss.backward()
        fake = generator(torch.randn(8, NOISE, 1, 1))
        label.fill_(0.0)
        fake_loss = criterion(discriminator(fake.detach()).view(-1), label)
        fake_loss.backward()
        d_optimizer.step()

        generator.zero_grad()
        label.fill_(1.0)
        g_loss = criterion(discriminator(fake).view(-1), label)
        g_loss.backward()
        g_optimizer.step()
        d_losses.append((real_loss + fake_loss).item())
        g_losses.append(g_loss.item())
    fixture = Fixture()
    for name, network in (('generator', generator), ('discriminator', discriminator)):
        fixture.case({'name': name}, start=start[name], out=snapshot(network))
    fixture.case({'name': 'losses'}, out={'discriminator': torch.tensor(d_losses), 'generator': torch.tensor(g_losses)})
    return fixture


TEXT = 'the cat sat on the mat, and the rat sat on the hat of the cat; then the cat ate the rat. '
BLOCK, WIDTH, HEADS, LAYERS = 16, 16, 2, 2


class CausalSelfAttention(nn.Module):
    def __init__(self):
        super().__init__()
        # Without a bias: that of the keys has no gradient but rounding, which Adam scales up.
        self.c_attn = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.c_proj = nn.Linear(WIDTH, WIDTH)
        self.register_buffer('mask', torch.tril(torch.ones(BLOCK, BLOCK)).view(1, 1, BLOCK, BLOCK), persistent=False)

    def forward(self, x):
        batch, time, width = x.shape
        q, k, v = (part.view(batch, time, HEADS, -1).transpose(1, 2) for part in self.c_attn(x).split(width, dim=2))
        scores = q @ k.transpose(-2, -1) / math.sqrt(k.size(-1))
        scores = scores.masked_fill(self.mask[:, :, :time, :time] == 0, float('-inf'))
        mixed = F.softmax(scores, dim=-1) @ v
        return self.c_proj(mixed.transpose(1, 2).contiguous().view(batch, time, width))


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm_1 = nn.LayerNorm(WIDTH)
        self.attn = CausalSelfAttention()
        self.norm_2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x):
        x = x + self.attn(self.norm_1(x))
        return x + self.mlp(self.norm_2(x))


class GPT(nn.Module):
    def __init__(self, vocabulary):
        super().__init__()
        self.transformer = nn.ModuleDict(
            {
                'wte': nn.Embedding(vocabulary, WIDTH),
                'wpe': nn.Embedding(BLOCK, WIDTH),
                'h': nn.ModuleList([Block() for _ in range(LAYERS)]),
                'norm_f': nn.LayerNorm(WIDTH),
            }
        )
        self.lm_head = nn.Linear(WIDTH, vocabulary, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, tokens, targets=None):
        positions = torch.arange(tokens.size(1))
        x = self.transformer.wte(tokens) + self.transformer.wpe(positions)
        for block in self.transformer.h:
            x = block(x)
        logits = self.lm_head(self.transformer.norm_f(x))
        if targets is None:
            return logits, None
        return logits, F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1))

    @torch.no_grad()
    def generate(self, tokens, count, temperature, top_k):
        for _ in range(count):
            logits, _ = self(tokens[:, -BLOCK:])
            logits = logits[:, -1, :] / temperature
            values, _ = torch.topk(logits, top_k)
            logits[logits < values[:, [-1]]] = -float('inf')
            tokens = torch.cat([tokens, torch.multinomial(F.softmax(logits, dim=-1), 1)], dim=1)
        return tokens


def learning_rate(step, warmup=5, last=20, low=0.1):
    """A factor: linear warm-up, then a cosine down to `low`."""
    if step < warmup:
        return (step + 1) / (warmup + 1)
    ratio = (step - warmup) / (last - warmup)
    return low + 0.5 * (1 + math.cos(math.pi * ratio)) * (1 - low)


def gpt():
    characters = sorted(set(TEXT))
    data = torch.tensor([characters.index(character) for character in TEXT])
    model = GPT(len(characters))
    drawn(model, 'gpt', 0.2)
    start = snapshot(model)
    decay = [parameter for parameter in model.parameters() if parameter.dim() >= 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() < 2]
    groups = [{'params': decay, 'weight_decay': 0.1}, {'params': others, 'weight_decay': 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, learning_rate)
    torch.manual_seed(5)
    losses, norms, rates = [], [], []
    for _ in range(STEPS):
        offsets = torch.randint(len(data) - BLOCK, (4,))
        x = torch.stack([data[i : i + BLOCK] for i in offsets])
        y = torch.stack([data[i + 1 : i + 1 + BLOCK] for i in offsets])
        _, loss = model(x, y)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0).item())
        optimizer.step()
        rates.append(optimizer.param_groups[0]['lr'])
        scheduler.step()
        losses.append(loss.item())
    torch.manual_seed(6)
    text = model.generate(data[:4].unsqueeze(0), 24, 0.8, 5)
    fixture = Fixture()
    fixture.case(
        {'name': 'gpt', 'counts': [len(decay), len(others)], 'text': ''.join(characters[i] for i in text[0])},
        param=start,
        out=snapshot(model),
        series={'losses': torch.tensor(losses), 'norms': torch.tensor(norms), 'rates': torch.tensor(rates)},
    )
    return fixture


VOCABULARY, CLASSES, RANK, ALPHA = 12, 3, 2, 4


class LoRALinear(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base
        self.lora_A = nn.Parameter(torch.empty(RANK, base.in_features))
        self.lora_B = nn.Parameter(torch.zeros(base.out_features, RANK))
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))

    def forward(self, x):
        return self.base(x) + F.linear(F.linear(x, self.lora_A), self.lora_B) * (ALPHA / RANK)

    @torch.no_grad()
    def merge(self):
        self.base.weight += (ALPHA / RANK) * self.lora_B @ self.lora_A
        return self.base


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, WIDTH, padding_idx=0)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 32, dropout=0.0, activation='gelu', batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, nn.LayerNorm(WIDTH), enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, tokens):
        padding = tokens == 0
        x = self.encoder(self.embed(tokens), src_key_padding_mask=padding)
        kept = (~padding).unsqueeze(-1).float()
        return self.head((x * kept).sum(1) / kept.sum(1))


def lora():
    torch.backends.mha.set_fastpath_enabled(False)
    model = Classifier()
    drawn(model, 'lora', 0.3)
    with torch.no_grad():
        model.embed.weight[0] = 0
    start = snapshot(model)
    tokens = randint('lora/tokens', 1, VOCABULARY, 8, 6)
    for row in range(8):
        tokens[row, 6 - row % 3 :] = 0
    labels = randint('lora/labels', 0, CLASSES, 8)
    for parameter in model.parameters():
        parameter.requires_grad = False
    torch.manual_seed(7)
    for path in [name for name, module in model.named_modules() if isinstance(module, nn.Linear) and '.linear' in name]:
        model.set_submodule(path, LoRALinear(model.get_submodule(path)))
    adapters = {key: value for key, value in snapshot(model).items() if 'lora' in key}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-2)
    criterion = nn.CrossEntropyLoss()
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = criterion(model(tokens), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    model.eval()
    logits = model(tokens)
    final = {key: value for key, value in snapshot(model).items() if 'lora' in key}
    for path in [name for name, module in model.named_modules() if isinstance(module, LoRALinear)]:
        model.set_submodule(path, model.get_submodule(path).merge())
    assert torch.allclose(model(tokens), logits, atol=1e-5)
    merged = {key: value for key, value in snapshot(model).items() if '.linear' in key and key.endswith('weight')}
    fixture = Fixture()
    fixture.case(
        {'name': 'lora'},
        param=start,
        adapter=adapters,
        **{'in': {'tokens': tokens, 'labels': labels}},
        out=final,
        merged=merged,
        series={'losses': torch.tensor(losses), 'logits': logits},
    )
    return fixture


if __name__ == '__main__':
    main(
        {
            'tutorials/distributions': distributions,
            'tutorials/gan': gan,
            'tutorials/gpt': gpt,
            'tutorials/lora': lora,
        }
    )
