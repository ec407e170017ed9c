"""Fixtures for lib/train: optimisers, gradient clipping, schedules and metrics against PyTorch, transformers and scikit-learn.

    python test/reference/train.py [--check] [train/optimizers train/clip train/schedules train/metrics]
"""

import warnings

import numpy as np
import torch
from common import Fixture, generator, main, randn
from sklearn import metrics
from transformers import optimization

STEPS = 100
SHOWN = (1, 2, 10, STEPS)


# Optimisers. `late` has a gradient from the third step on only, `never` has none.
SHAPES = {'weight': (3, 2), 'bias': (4,), 'scalar': (), 'late': (5,), 'never': (2,)}
VARIANTS = [
    ('adamw', 'AdamW', {}),
    ('adamw_options', 'AdamW', dict(lr=0.01, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)),
    ('adamw_amsgrad', 'AdamW', dict(lr=0.01, amsgrad=True)),
    ('adamw_maximize', 'AdamW', dict(lr=0.01, maximize=True)),
    ('adamw_schedule', 'AdamW', dict(lr=0.02)),
    ('adamw_groups', 'AdamW', dict(lr=0.01)),
    ('adamw_float64', 'AdamW', dict(lr=0.01)),
    ('adam', 'Adam', {}),
    ('adam_decay', 'Adam', dict(lr=0.01, weight_decay=0.1)),
    ('adam_amsgrad_maximize', 'Adam', dict(lr=0.01, amsgrad=True, maximize=True, weight_decay=0.01)),
    ('sgd', 'SGD', dict(lr=0.01)),
    ('sgd_decay', 'SGD', dict(lr=0.01, weight_decay=0.1)),
    ('sgd_momentum', 'SGD', dict(lr=0.01, momentum=0.9)),
    ('sgd_dampening', 'SGD', dict(lr=0.01, momentum=0.9, dampening=0.5)),
    ('sgd_nesterov', 'SGD', dict(lr=0.01, momentum=0.9, nesterov=True, weight_decay=0.05)),
    ('sgd_maximize', 'SGD', dict(lr=0.01, momentum=0.8, maximize=True, weight_decay=0.1)),
    ('sgd_groups', 'SGD', dict(lr=0.01, momentum=0.9)),
]


def given(name, shape):
    return randn(name, *(shape or (1,))).reshape(shape)


def group_options(name):
    """Options of the second group, which has the bias and the scalar."""
    return {'adamw_groups': dict(lr=0.1, weight_decay=0.0), 'sgd_groups': dict(momentum=0.0)}.get(name)


def optimizers():
    fixture = Fixture()
    initial = {key: given(f'optimizer param {key}', shape) for key, shape in SHAPES.items()}
    gradients = {key: given(f'optimizer grad {key}', (STEPS, *shape)) for key, shape in SHAPES.items() if key != 'never'}
    fixture.case({'name': 'given'}, param=initial, **{'in': gradients})
    for name, kind, options in VARIANTS:
        dtype = torch.float64 if name.endswith('float64') else torch.float32
        params = {key: torch.nn.Parameter(value.to(dtype, copy=True)) for key, value in initial.items()}
        second = group_options(name)
        groups = list(params.values())
        if second:
            apart = [params['bias'], params['scalar']]
            groups = [{'params': [p for p in groups if all(p is not q for q in apart)]}, {'params': apart, **second}]
        # The plain implementation, not the fused kernels that voxtorch calls.
        optimizer = getattr(torch.optim, kind)(groups, foreach=False, **options)
        schedule = None
        if name.endswith('schedule'):
            schedule = optimization.get_linear_schedule_with_warmup(optimizer, 10, STEPS)
        out = {}
        for step in range(STEPS):
            for key, values in gradients.items():
                params[key].grad = values[step].to(dtype) if key != 'late' or step >= 2 else None
            optimizer.step()
            if schedule:
                schedule.step()
            if step + 1 in SHOWN:
                out |= {f'{key}.{step + 1}': p.detach().clone() for key, p in params.items()}
        saved = optimizer.state_dict()
        state = {f'{i}.{key}': value for i, own in saved['state'].items() for key, value in own.items() if value is not None}
        description = {'name': name, 'kind': kind, 'options': options, 'dtype': str(dtype)[6:]}
        fixture.case(description | {'second': second, 'groups': saved['param_groups']}, out=out, state=state)
    return fixture


def clip():
    fixture = Fixture()
    shapes = {'a': (4, 3), 'b': (7,), 'c': ()}
    for name, scale, max_norm, norm_type in [
        ('scaled', 3, 1.0, 2.0),
        ('left', 0.01, 1.0, 2.0),
        ('one', 1, 0.5, 1.0),
        ('three', 1, 0.5, 3.0),
        ('max', 1, 0.5, float('inf')),
        ('zero', 1, 0.0, 2.0),
        ('tiny', 1e-20, 1.0, 2.0),
        ('infinite', float('inf'), 1.0, 2.0),
    ]:
        grads = {key: given(f'clip {key}', shape) for key, shape in shapes.items()}
        grads = {key: value * (scale if np.isfinite(scale) or key == 'c' else 1) for key, value in grads.items()}
        params = [torch.nn.Parameter(torch.zeros_like(value)) for value in grads.values()]
        for parameter, value in zip(params, grads.values()):
            parameter.grad = value.clone()
        norm = torch.nn.utils.clip_grad_norm_(params, max_norm, norm_type)
        out = {key: parameter.grad for key, parameter in zip(grads, params)} | {'norm': norm}
        for parameter, value in zip(params, grads.values()):
            parameter.grad = value.clone()
        torch.nn.utils.clip_grad_value_(params, 0.3)
        out |= {f'{key}.value': parameter.grad for key, parameter in zip(grads, params)}
        shown = 'inf' if norm_type == float('inf') else norm_type
        fixture.case({'name': name, 'maxNorm': max_norm, 'normType': shown}, out=out, **{'in': grads})
    return fixture


def schedules():
    fixture = Fixture()
    steps = 1000
    for name, function, options in [
        ('constant', 'get_constant_schedule', {}),
        ('constant_warmup', 'get_constant_schedule_with_warmup', dict(num_warmup_steps=100)),
        ('linear', 'get_linear_schedule_with_warmup', dict(num_warmup_steps=100, num_training_steps=steps)),
        ('linear_no_warmup', 'get_linear_schedule_with_warmup', dict(num_warmup_steps=0, num_training_steps=900)),
        ('cosine', 'get_cosine_schedule_with_warmup', dict(num_warmup_steps=60, num_training_steps=steps)),
        (
            'cosine_waves',
            'get_cosine_schedule_with_warmup',
            dict(num_warmup_steps=60, num_training_steps=700, num_cycles=1.5),
        ),
    ]:
        params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.SGD([{'params': [params[0]]}, {'params': [params[1]], 'lr': 3e-3}], lr=0.1)
        schedule = getattr(optimization, function)(optimizer, **options)
        rates = []
        for _ in range(steps):
            rates.append([group['lr'] for group in optimizer.param_groups])
            optimizer.step()
            schedule.step()
        state = {key: value for key, value in schedule.state_dict().items() if key in ('last_epoch', '_step_count')}
        fixture.case(
            {'name': name, 'function': function, 'options': options, 'state': state},
            out={'lr': torch.tensor(rates, dtype=torch.float64)},
        )
    return fixture


def scores(truth, guess, labels, zero_division):
    out = {}
    for average in ('micro', 'macro', 'weighted', None):
        values = metrics.precision_recall_fscore_support(
            truth, guess, average=average, labels=labels, zero_division=zero_division
        )
        out |= {f'{average or "none"}.{key}': value for key, value in zip(('precision', 'recall', 'f1'), values)}
        if average is None:
            out['support'] = values[3]
    return out


def metric_cases():
    fixture = Fixture()
    for name, classes, samples, spare, labels in [
        ('binary', 2, 50, 0, None),
        ('four', 4, 200, 0, None),
        ('absent_from_truth', 5, 80, 2, None),
        ('skewed', 6, 120, 0, None),
        ('always_one', 3, 40, 0, None),
        ('subset', 5, 100, 0, [3, 1]),
        ('with_unused', 3, 60, 0, [0, 1, 2, 7]),
        ('perfect', 4, 30, 0, None),
        ('none_right', 3, 30, 0, None),
        ('one_class', 1, 10, 0, None),
        ('negative', 4, 60, 0, None),
        ('strings', 4, 90, 1, None),
    ]:
        random = generator(f'metrics {name}')
        truth = random.randint(0, classes - spare, samples)
        if name == 'skewed':
            truth = np.minimum(random.geometric(0.6, samples) - 1, classes - 1)
        right = random.random_sample(samples) < 0.6
        guess = np.where(right, truth, random.randint(0, classes, samples))
        if name == 'always_one':
            guess = np.ones_like(truth)
        if name == 'perfect':
            guess = truth
        if name == 'none_right':
            guess = (truth + 1) % classes
        if name == 'negative':
            truth, guess = truth * 3 - 4, guess * 3 - 4
        if name == 'strings':
            words = np.array(['sad', 'angry', 'neutral', 'Happy'])
            truth, guess = words[truth], words[guess]
        used = labels if labels is not None else np.unique(np.concatenate([truth, guess])).tolist()
        out = {
            'accuracy': metrics.accuracy_score(truth, guess),
            'uar': metrics.balanced_accuracy_score(truth, guess),
            'confusion': metrics.confusion_matrix(truth, guess, labels=labels),
        }
        for normalize in ('true', 'pred', 'all'):
            out[f'confusion.{normalize}'] = metrics.confusion_matrix(truth, guess, labels=labels, normalize=normalize)
        for zero_division in (0.0, 1.0, np.nan):
            out |= {f'{zero_division:g}.{k}': v for k, v in scores(truth, guess, labels, zero_division).items()}
        fixture.case(
            {'name': name, 'truth': truth.tolist(), 'guess': guess.tolist(), 'labels': labels, 'used': used},
            out={key: torch.tensor(np.asarray(value, dtype=np.float64)) for key, value in out.items()},
        )
    return fixture


if __name__ == '__main__':
    warnings.filterwarnings('ignore', category=UserWarning)
    main({
        'train/optimizers': optimizers,
        'train/clip': clip,
        'train/schedules': schedules,
        'train/metrics': metric_cases,
    })
