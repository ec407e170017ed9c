"""Fixtures for lib/train: optimisers, gradient clipping, schedules and metrics against PyTorch, transformers and scikit-learn.

    python test/reference/train.py [--check] [train/optimizers train/clip train/schedules train/metrics]
"""

import warnings

import numpy as np
import torch
from common import Fixture, generator, main, randn
from sklearn import metrics
from transformers import optimization
from transformers.optimization import Adafactor as TransformersAdafactor

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
VARIANTS += [
    ('adagrad', 'Adagrad', {}),
    ('adagrad_decay', 'Adagrad', dict(lr=0.1, lr_decay=0.05, weight_decay=0.1, initial_accumulator_value=0.2)),
    ('adagrad_maximize', 'Adagrad', dict(lr=0.05, maximize=True, eps=1e-6)),
    ('lion', 'Lion', {}),
    ('lion_options', 'Lion', dict(lr=0.01, betas=(0.8, 0.95), weight_decay=0.1)),
    ('lion_maximize', 'Lion', dict(lr=0.01, maximize=True)),
    ('lion_groups', 'Lion', dict(lr=0.01)),
]


# In float64, with a weight of three dimensions.
MORE_SHAPES = SHAPES | {'weight': (2, 3, 2)}
MORE = [
    ('rmsprop', 'RMSprop', {}),
    ('rmsprop_centered', 'RMSprop', dict(lr=0.02, alpha=0.9, eps=1e-6, weight_decay=0.1, momentum=0.8, centered=True)),
    ('rmsprop_maximize', 'RMSprop', dict(maximize=True, momentum=0.5)),
    ('rmsprop_groups', 'RMSprop', dict(momentum=0.9)),
    ('radam', 'RAdam', {}),
    ('radam_decay', 'RAdam', dict(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, maximize=True)),
    ('radam_decoupled', 'RAdam', dict(lr=0.02, betas=(0.8, 0.7), weight_decay=0.1, decoupled_weight_decay=True)),
    ('nadam', 'NAdam', {}),
    ('nadam_decay', 'NAdam', dict(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, momentum_decay=0.02, maximize=True)),
    ('nadam_decoupled', 'NAdam', dict(weight_decay=0.1, decoupled_weight_decay=True)),
    ('nadam_groups', 'NAdam', dict(lr=0.01)),
    ('adamax', 'Adamax', {}),
    ('adamax_options', 'Adamax', dict(lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1, maximize=True)),
    ('adadelta', 'Adadelta', {}),
    ('adadelta_options', 'Adadelta', dict(lr=0.5, rho=0.8, eps=1e-4, weight_decay=0.1, maximize=True)),
    ('asgd', 'ASGD', {}),
    ('asgd_options', 'ASGD', dict(lr=0.05, lambd=0.01, alpha=0.6, t0=8, weight_decay=0.1, maximize=True)),
    ('asgd_schedule', 'ASGD', dict(lr=0.05, t0=5)),
    ('rprop', 'Rprop', {}),
    ('rprop_options', 'Rprop', dict(lr=0.02, etas=(0.4, 1.3), step_sizes=(1e-3, 0.2), maximize=True)),
    ('adafactor', 'Adafactor', {}),
    ('adafactor_options', 'Adafactor', dict(lr=0.5, beta2_decay=-0.6, eps=(1e-6, 0.01), d=2.0, weight_decay=0.1, maximize=True)),
    ('transformers_adafactor', 'TransformersAdafactor', {}),
    ('transformers_adafactor_trainer', 'TransformersAdafactor', dict(lr=0.01, scale_parameter=False, relative_step=False)),
    (
        'transformers_adafactor_options',
        'TransformersAdafactor',
        dict(eps=(1e-20, 0.01), clip_threshold=0.5, decay_rate=-0.6, beta1=0.8, weight_decay=0.1, warmup_init=True),
    ),
]


class Lion(torch.optim.Optimizer):
    """Algorithm 2 of https://arxiv.org/abs/2302.06675, line for line."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0, maximize=False, foreach=None):
        super().__init__(params, dict(lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize, foreach=foreach))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            beta1, beta2 = group['betas']
            for p in group['params']:
                if p.grad is None:
                    continue
                g = -p.grad if group['maximize'] else p.grad
                state = self.state[p]
                m = state.setdefault('exp_avg', torch.zeros_like(p))
                c = beta1 * m + (1 - beta1) * g
                p.copy_(p * (1 - group['lr'] * group['weight_decay']) - group['lr'] * torch.sign(c))
                m.copy_(beta2 * m + (1 - beta2) * g)


def given(name, shape):
    return randn(name, *(shape or (1,))).reshape(shape)


def group_options(name):
    """Options of the second group, which has the bias and the scalar."""
    return {'adamw_groups': dict(lr=0.1, weight_decay=0.0), 'sgd_groups': dict(momentum=0.0), 'lion_groups': dict(weight_decay=0.3), 'nadam_groups': dict(lr=0.1), 'rmsprop_groups': dict(momentum=0.0)}.get(name)


def optimizers(variants=VARIANTS, shapes=SHAPES, steps=STEPS, shown=SHOWN, double=False):
    fixture = Fixture()
    initial = {key: given(f'optimizer param {key}', shape) for key, shape in shapes.items()}
    gradients = {key: given(f'optimizer grad {key}', (steps, *shape)) for key, shape in shapes.items() if key != 'never'}
    fixture.case({'name': 'given'}, param=initial, **{'in': gradients})
    for name, kind, options in variants:
        dtype = torch.float64 if double or name.endswith('float64') else torch.float32
        params = {key: torch.nn.Parameter(value.to(dtype, copy=True)) for key, value in initial.items()}
        second = group_options(name)
        groups = list(params.values())
        if second:
            apart = [params['bias'], params['scalar']]
            groups = [{'params': [p for p in groups if all(p is not q for q in apart)]}, {'params': apart, **second}]
        # The plain implementation, not the fused kernels that voxtorch calls.
        if kind == 'TransformersAdafactor':
            optimizer = TransformersAdafactor(groups, **options)
        else:
            optimizer = (Lion if kind == 'Lion' else getattr(torch.optim, kind))(groups, foreach=False, **options)
        schedule = None
        if name.endswith('schedule'):
            schedule = optimization.get_linear_schedule_with_warmup(optimizer, 10, 100)
        out = {}
        for step in range(steps):
            for key, values in gradients.items():
                params[key].grad = values[step].to(dtype) if key != 'late' or step >= 2 else None
            optimizer.step()
            if schedule:
                schedule.step()
            if step + 1 in shown:
                out |= {f'{key}.{step + 1}': p.detach().clone() for key, p in params.items()}
        saved = optimizer.state_dict()
        state = {
            f'{i}.{key}': torch.as_tensor(value, dtype=None if torch.is_tensor(value) else torch.float32)
            for i, own in saved['state'].items()
            for key, value in own.items()
            if value is not None
        }
        description = {'name': name, 'kind': kind, 'options': options, 'dtype': str(dtype)[6:]}
        fixture.case(description | {'second': second, 'groups': saved['param_groups']}, out=out, state=state)
    return fixture


def scaler():
    """torch.amp.GradScaler over 120 steps, of which some have an infinite or NaN gradient; and the average of the weights."""
    fixture = Fixture()
    shapes = {'weight': (3, 2), 'bias': (4,)}
    initial = {key: given(f'scaler param {key}', shape) for key, shape in shapes.items()}
    gradients = {key: given(f'scaler grad {key}', (120, *shape)) for key, shape in shapes.items()}
    fixture.case({'name': 'given'}, param=initial, **{'in': gradients})
    bad = {3: float('inf'), 4: float('nan'), 31: float('-inf'), 80: float('inf')}
    for name, options, unscale in [
        ('default', {}, False),
        ('fast', dict(init_scale=1000.0, growth_interval=7), False),
        ('clipped', dict(init_scale=2.0**10, growth_factor=3.0, backoff_factor=0.3, growth_interval=5), True),
    ]:
        params = {key: torch.nn.Parameter(value.clone()) for key, value in initial.items()}
        optimizer = torch.optim.SGD(params.values(), lr=0.05, momentum=0.9, foreach=False)
        average = torch.optim.swa_utils.AveragedModel(
            torch.nn.ParameterList(params.values()), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.95)
        )
        scaler = torch.amp.GradScaler('cpu', **options)
        scales, out = [], {}
        for step in range(120):
            loss = sum((p * gradients[key][step]).sum() for key, p in params.items())
            scaler.scale(loss).backward()
            if step in bad:
                params['bias'].grad[1] = bad[step]
            if unscale:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            average.update_parameters(torch.nn.ParameterList(params.values()))
            scales.append(scaler.get_scale())
            if step in (0, 4, 59, 119):
                out |= {f'{key}.{step}': p.detach().clone() for key, p in params.items()}
                out |= {f'{key}.{step}.average': p.detach().clone() for key, p in zip(params, average.parameters())}
        out['scale'] = torch.tensor(scales, dtype=torch.float64)
        state = {key: value for key, value in scaler.state_dict().items()}
        fixture.case({'name': name, 'options': options, 'unscale': unscale, 'state': state, 'bad': list(bad)}, out=out)
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


# transformers.get_scheduler's names; options of the schedule itself apart.
SCHEDULERS = [
    ('restarts', 'cosine_with_restarts', dict(warmup=50, steps=900), dict(num_cycles=3)),
    ('polynomial', 'polynomial', dict(warmup=100, steps=800), {}),
    ('polynomial_square', 'polynomial', dict(warmup=0, steps=1000), dict(lr_end=1e-3, power=2.0)),
    ('inverse_sqrt', 'inverse_sqrt', dict(warmup=70), {}),
    ('inverse_sqrt_timescale', 'inverse_sqrt', dict(warmup=0), dict(timescale=400)),
    ('min_lr', 'cosine_with_min_lr', dict(warmup=90, steps=950), dict(min_lr=0.02)),
    ('warmup_min_lr', 'cosine_warmup_with_min_lr', dict(warmup=90, steps=950), dict(min_lr_rate=0.1)),
    ('stable', 'warmup_stable_decay', dict(warmup=100, steps=900), dict(num_decay_steps=300)),
    (
        'stable_ramps',
        'warmup_stable_decay',
        dict(warmup=100),
        dict(num_stable_steps=500, num_decay_steps=300, warmup_type='1-sqrt', decay_type='linear', min_lr_ratio=0.1),
    ),
    (
        'stable_sqrt',
        'warmup_stable_decay',
        dict(warmup=100, steps=950),
        dict(num_decay_steps=300, warmup_type='cosine', decay_type='1-sqrt'),
    ),
]


def scheduler():
    fixture = Fixture()
    for name, kind, steps, options in SCHEDULERS:
        params = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.SGD([{'params': [params[0]]}, {'params': [params[1]], 'lr': 3e-3}], lr=0.1)
        schedule = optimization.get_scheduler(
            kind, optimizer, steps['warmup'], steps.get('steps'), scheduler_specific_kwargs=options
        )
        rates, second = [], []
        for _ in range(1000):
            rates.append(optimizer.param_groups[0]['lr'])
            second.append(optimizer.param_groups[1]['lr'])
            optimizer.step()
            schedule.step()
        fixture.case(
            {'name': name, 'kind': kind, 'steps': steps, 'options': options, 'second': second[::97]},
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
            'train/optimizers-more': lambda: optimizers(MORE, MORE_SHAPES, 20, (1, 20), double=True),
        'train/clip': clip,
        'train/scaler': scaler,
        'train/schedules': schedules,
        'train/scheduler': scheduler,
        'train/metrics': metric_cases,
    })
