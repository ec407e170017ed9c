"""torch.optim.lr_scheduler over 40 steps, with a state after 17: python train_schedulers.py [--check]."""

import warnings

import torch
from common import Fixture, main
from torch.optim import lr_scheduler as schedulers

STEPS, SAVED = 40, 17
METRICS = [1.0, 0.8, 0.81, 0.82, 0.7, 0.7, 0.7, 0.7, 0.69, 0.69, 0.9, 0.9, 0.5, 0.5, 0.51, 0.52, 0.53, 0.54, 0.55, 0.4] * 2

# Name, class, options; 'adam' has betas in place of a momentum.
CASES = [
    ('step', 'StepLR', dict(step_size=7, gamma=0.5)),
    ('step default', 'StepLR', dict(step_size=10)),
    ('multi step', 'MultiStepLR', dict(milestones=[3, 11, 11, 30], gamma=0.3)),
    ('constant', 'ConstantLR', dict(factor=0.25, total_iters=9)),
    ('constant default', 'ConstantLR', {}),
    ('linear', 'LinearLR', dict(start_factor=0.2, end_factor=0.8, total_iters=20)),
    ('linear default', 'LinearLR', {}),
    ('exponential', 'ExponentialLR', dict(gamma=0.93)),
    ('polynomial', 'PolynomialLR', dict(total_iters=25, power=2.0)),
    ('polynomial default', 'PolynomialLR', {}),
    ('cosine', 'CosineAnnealingLR', dict(T_max=12, eta_min=1e-3)),
    ('cosine once', 'CosineAnnealingLR', dict(T_max=40)),
    ('restarts', 'CosineAnnealingWarmRestarts', dict(T_0=5, T_mult=2, eta_min=1e-4)),
    ('restarts even', 'CosineAnnealingWarmRestarts', dict(T_0=6)),
    ('cyclic', 'CyclicLR', dict(base_lr=0.01, max_lr=[0.2, 0.1], step_size_up=5, step_size_down=8)),
    ('cyclic halved', 'CyclicLR', dict(base_lr=0.01, max_lr=0.2, step_size_up=4, mode='triangular2')),
    ('cyclic falling adam', 'CyclicLR', dict(base_lr=0.01, max_lr=0.2, step_size_up=6, mode='exp_range', gamma=0.97)),
    ('cyclic no momentum', 'CyclicLR', dict(base_lr=0.01, max_lr=0.2, step_size_up=6, cycle_momentum=False)),
    ('one cycle', 'OneCycleLR', dict(max_lr=0.3, total_steps=45)),
    ('one cycle adam', 'OneCycleLR', dict(max_lr=[0.3, 0.1], epochs=5, steps_per_epoch=9, anneal_strategy='linear')),
    (
        'one cycle three phases',
        'OneCycleLR',
        dict(max_lr=0.3, total_steps=42, pct_start=0.4, three_phase=True, div_factor=10.0, final_div_factor=100.0,
             base_momentum=0.7, max_momentum=0.99),
    ),
    ('plateau', 'ReduceLROnPlateau', dict(factor=0.5, patience=2)),
    ('plateau max', 'ReduceLROnPlateau', dict(mode='max', factor=0.3, patience=1, threshold=0.05, threshold_mode='abs', cooldown=3, min_lr=[0.01, 1e-3])),
]  # fmt: skip


def run(name, make):
    params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
    groups = [{'params': [params[0]]}, {'params': [params[1]], 'lr': 0.03}]
    adam = name.endswith('adam')
    optimizer = torch.optim.Adam(groups, lr=0.1) if adam else torch.optim.SGD(groups, lr=0.1, momentum=0.5)
    scheduler = make(optimizer)
    rates, momenta, state = [], [], None
    for step in range(STEPS):
        rates.append([group['lr'] for group in optimizer.param_groups])
        momenta.append([group['betas'][0] if adam else group['momentum'] for group in optimizer.param_groups])
        if step == SAVED:
            state = plain(scheduler.state_dict())
        optimizer.step()
        if isinstance(scheduler, schedulers.ReduceLROnPlateau):
            scheduler.step(METRICS[step])
        else:
            scheduler.step()
    out = {'lr': torch.tensor(rates, dtype=torch.float64), 'momentum': torch.tensor(momenta, dtype=torch.float64)}
    return state, out


def plain(value):
    """As JSON has it: no infinities, no functions."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if item not in (float('inf'), float('-inf'))}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def build():
    warnings.simplefilter('ignore')
    fixture = Fixture()
    for name, kind, options in CASES:
        state, out = run(name, lambda optimizer: getattr(schedulers, kind)(optimizer, **options))
        fixture.case({'name': name, 'kind': kind, 'options': options, 'state': state}, out=out)
    state, out = run('lambda', lambda optimizer: schedulers.LambdaLR(optimizer, lambda step: 0.95**step))
    fixture.case({'name': 'lambda', 'kind': 'LambdaLR', 'factor': 0.95, 'state': state}, out=out)
    state, out = run('multiplicative', lambda optimizer: schedulers.MultiplicativeLR(optimizer, lambda step: 0.9))
    fixture.case({'name': 'multiplicative', 'kind': 'MultiplicativeLR', 'factor': 0.9, 'state': state}, out=out)
    parts = [
        ('ConstantLR', dict(factor=0.5, total_iters=6)),
        ('StepLR', dict(step_size=9, gamma=0.5)),
        ('ExponentialLR', dict(gamma=0.98)),
    ]
    described = [{'kind': kind, 'options': options} for kind, options in parts]

    def chained(optimizer):
        return schedulers.ChainedScheduler([getattr(schedulers, kind)(optimizer, **options) for kind, options in parts])

    state, out = run('chained', chained)
    fixture.case({'name': 'chained', 'kind': 'ChainedScheduler', 'parts': described, 'state': state}, out=out)
    for name, milestones, parts in (
        ('sequential', [8, 20], [('LinearLR', dict(total_iters=8)), ('CosineAnnealingLR', dict(T_max=12)), ('StepLR', dict(step_size=4))]),
        (
            'sequential more',
            [5, 13, 22, 30],
            [
                ('ConstantLR', dict(factor=0.1, total_iters=50)),
                ('MultiStepLR', dict(milestones=[2, 5], gamma=0.7)),
                ('PolynomialLR', dict(total_iters=10)),
                ('ExponentialLR', dict(gamma=0.8)),
                ('CosineAnnealingWarmRestarts', dict(T_0=4)),
            ],
        ),
    ):  # fmt: skip
        described = [{'kind': kind, 'options': options} for kind, options in parts]

        def sequential(optimizer):
            made = [getattr(schedulers, kind)(optimizer, **options) for kind, options in parts]
            return schedulers.SequentialLR(optimizer, made, milestones)

        state, out = run(name, sequential)
        fixture.case(
            {'name': name, 'kind': 'SequentialLR', 'parts': described, 'milestones': milestones, 'state': state}, out=out
        )
    return fixture


if __name__ == '__main__':
    main({'train/torch-schedulers': build})
