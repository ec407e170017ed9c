"""Two public tutorials of PyTorch on small sizes: the losses of their first 20 steps.

The variational autoencoder and the actor-critic of pytorch/examples (vae/main.py, reinforcement_learning/actor_critic.py), written
anew after their descriptions, with other sizes, other data and an environment of its own. Weights and data come from numpy.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F
from common import Fixture, main, rand, randn
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


def build():
    fixture = Fixture()
    start, data, losses = vae()
    fixture.case({'name': 'vae'}, param=start, **{'in': {'data': data}}, out={'losses': torch.tensor(losses)})
    start, lengths, losses = actor_critic()
    fixture.case({'name': 'actor-critic', 'lengths': lengths}, param=start, out={'losses': torch.tensor(losses)})
    return fixture


if __name__ == '__main__':
    main({'distributions/tutorials': build})
