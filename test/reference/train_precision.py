"""Every optimizer, schedule and loss of lib in float64, float32, bfloat16 and float16, over 50 steps of PyTorch's default path.

    python test/reference/train_precision.py [--check] [train/precision-optimizers train/precision-schedules train/precision-losses]

All dtypes start from the same numbers, which bfloat16 and float16 hold exactly, so that the float64 run is what the others round.
Vectors are longer than any vector register: kernels have one loop for whole registers and another for the rest.
"""

import warnings

import numpy as np
import torch
import torch.nn.functional as F
from common import Fixture, generator, main, rand, randint, randn
from torch.optim import lr_scheduler
from train import MORE, SCHEDULERS, VARIANTS, Lion
from train_schedulers import CASES, METRICS
from transformers import optimization
from transformers.optimization import Adafactor as TransformersAdafactor

STEPS = 50
DTYPES = ('float64', 'float32', 'bfloat16', 'float16')
SHAPES = {'weight': (7, 9), 'bias': (37,), 'scalar': ()}


def coarse(values):
    """What every dtype holds: bfloat16 has the fewest digits."""
    return values.bfloat16().float()


def sized(name, *shape):
    """Numbers of either sign whose size is in [1/4, 2): Adam's eps of 1e-8 is 0 in float16, and so is the square of less than 2e-4."""
    random = generator(name)
    size = 0.25 + 1.75 * random.random_sample(shape or (1,))
    values = size * random.choice([-1.0, 1.0], size.shape)
    return coarse(torch.from_numpy(np.asarray(values, np.float32))).reshape(shape)


def flat(params):
    return torch.cat([param.detach().flatten() for param in params])


def rolled(values, step):
    """Other gradients in each step, all from one tensor."""
    return values.flatten().roll(7 * step).view_as(values)


EXTRA = [
    ('sgd_plain', 'SGD', dict(lr=0.05)),
    ('sgd_everything', 'SGD', dict(lr=0.01, momentum=0.9, dampening=0.25, weight_decay=0.1, maximize=True)),
    ('adam_plain', 'Adam', dict(lr=0.01)),
    ('adamw_plain', 'AdamW', dict(lr=0.01)),
    # Without the line search, whose choices differ after one rounding.
    ('lbfgs', 'LBFGS', dict(lr=0.02, max_iter=1)),
]


def make(kind, params, options):
    if kind == 'Lion':
        return Lion(params, **options)
    return (TransformersAdafactor if kind == 'TransformersAdafactor' else getattr(torch.optim, kind))(params, **options)


def optimizers():
    fixture = Fixture()
    initial = {key: sized(f'precision param {key}', *shape) for key, shape in SHAPES.items()}
    gradients = {key: sized(f'precision grad {key}', *shape) for key, shape in SHAPES.items()}
    fixture.case({'name': 'given'}, param=initial, **{'in': gradients})
    plain = [one for one in VARIANTS + MORE if not one[0].endswith(('groups', 'schedule', 'float64'))]
    for name, kind, options in plain + EXTRA:
        out = {}
        for dtype in DTYPES:
            params = {key: torch.nn.Parameter(value.to(getattr(torch, dtype), copy=True)) for key, value in initial.items()}
            optimizer = make(kind, params.values(), options)
            for step in range(STEPS):
                if kind == 'LBFGS':

                    def closure():
                        # A bowl around the gradients' numbers, steeper in some directions.
                        optimizer.zero_grad()
                        targets = {key: value.to(getattr(torch, dtype)) for key, value in gradients.items()}
                        loss = sum(((p - targets[key]) ** 2 * targets[key].abs()).sum() for key, p in params.items())
                        loss.backward()
                        return loss

                    optimizer.step(closure)
                    continue
                for key, param in params.items():
                    param.grad = rolled(gradients[key], step).to(param.dtype)
                optimizer.step()
            out[dtype] = flat(params.values())
        fixture.case({'name': name, 'kind': kind, 'options': options}, out=out)
    return fixture


def schedules():
    """A vector of weights after 50 steps of SGD with each schedule, and the rates."""
    fixture = Fixture()
    initial, gradient = sized('schedule param', 37), sized('schedule grad', 37)
    fixture.case({'name': 'given', 'metrics': METRICS}, param={'weight': initial}, **{'in': {'weight': gradient}})
    described = [({'name': name, 'from': 'torch', 'kind': kind, 'options': options}, None) for name, kind, options in CASES if not name.endswith('adam')]  # fmt: skip
    described += [
        ({'name': f'transformers {name}', 'from': 'transformers', 'kind': kind, 'steps': steps, 'options': options}, None)
        for name, kind, steps, options in [
            ('linear', 'linear', dict(warmup=5, steps=50), {}),
            ('cosine', 'cosine', dict(warmup=5, steps=50), {}),
            ('constant', 'constant', dict(warmup=0), {}),
            ('constant with warmup', 'constant_with_warmup', dict(warmup=9), {}),
            *((name, kind, {key: value // 20 for key, value in steps.items()}, scaled(options)) for name, kind, steps, options in SCHEDULERS),
        ]
    ]  # fmt: skip
    for description, _ in described:
        out = {}
        for dtype in DTYPES:
            param = torch.nn.Parameter(initial.to(getattr(torch, dtype), copy=True))
            options = {key: value[:1] if key == 'max_lr' and isinstance(value, list) else value for key, value in description['options'].items()}  # fmt: skip
            if isinstance(options.get('min_lr'), list):
                options['min_lr'] = options['min_lr'][0]
            description['options'] = options
            optimizer = torch.optim.SGD([param], lr=0.1, momentum=0.5)
            if description['from'] == 'torch':
                schedule = getattr(lr_scheduler, description['kind'])(optimizer, **options)
            else:
                steps = description['steps']
                schedule = optimization.get_scheduler(
                    description['kind'], optimizer, steps['warmup'], steps.get('steps'), scheduler_specific_kwargs=options
                )
            rates = []
            limit = 42 if description['kind'] == 'OneCycleLR' else STEPS
            for step in range(limit):
                param.grad = rolled(gradient, step).to(param.dtype)
                rates.append(optimizer.param_groups[0]['lr'])
                optimizer.step()
                if description['kind'] == 'ReduceLROnPlateau':
                    schedule.step(METRICS[step % len(METRICS)])
                elif step + 1 < limit:
                    schedule.step()
            out[dtype] = param.detach()
        fixture.case(description | {'count': limit}, out=out | {'lr': torch.tensor(rates, dtype=torch.float64)})
    return fixture


def scaled(options):
    """Numbers of steps of a schedule over 1,000 steps, for one of 50."""
    return {key: value // 20 if key in ('timescale', 'num_decay_steps', 'num_stable_steps') else value for key, value in options.items()}  # fmt: skip


def losses():
    """50 steps of SGD on a loss's input: the losses, and the input after them."""
    fixture = Fixture()
    classes = randint('loss classes', 0, 37, 4)
    wide = (4, 37)
    given = {
        'logits': sized('loss logits', *wide),
        'other': sized('loss other', *wide),
        'third': sized('loss third', *wide),
        'share': coarse(0.1 + 0.8 * rand('loss share', *wide)),
        'binary': (rand('loss binary', *wide) > 0.5).float(),
        'classWeight': coarse(0.5 + rand('loss class weight', 37)),
        'spread': coarse(torch.full(wide, 1 / 64) + rand('loss spread', *wide) / 32),
        'frames': sized('loss frames', 36, 2, 12),
        'head': coarse(randn('loss head', 19, 37) / 4),
    }
    indices = {'classes': classes, 'signs': torch.tensor([1, -1, 1, -1]), 'labels': randint('loss labels', 1, 12, 2, 7), 'tokens': randint('loss tokens', 0, 19, 4)}  # fmt: skip
    fixture.case({'name': 'given'}, **{'in': given | indices})
    # Name, input, rate, loss. The rate is what moves the weights about, without an overflow in float16.
    cases = [
        ('crossEntropy', 'logits', 1.0, lambda x, g: F.cross_entropy(x, classes)),
        ('crossEntropy weighted and smoothed', 'logits', 1.0, lambda x, g: F.cross_entropy(x, classes, g['classWeight'], label_smoothing=0.1)),
        ('crossEntropy of probabilities', 'logits', 1.0, lambda x, g: F.cross_entropy(x, g['spread'])),
        ('nllLoss', 'logits', 0.5, lambda x, g: F.nll_loss(x, classes)),
        ('nllLoss weighted', 'logits', 0.5, lambda x, g: F.nll_loss(x, classes, g['classWeight'])),
        ('mseLoss', 'logits', 4.0, lambda x, g: F.mse_loss(x, g['other'])),
        ('l1Loss', 'logits', 4.0, lambda x, g: F.l1_loss(x, g['other'])),
        ('smoothL1Loss', 'logits', 4.0, lambda x, g: F.smooth_l1_loss(x, g['other'], beta=0.5)),
        ('huberLoss', 'logits', 4.0, lambda x, g: F.huber_loss(x, g['other'], delta=0.75)),
        ('binaryCrossEntropy', 'share', 0.125, lambda x, g: F.binary_cross_entropy(x, g['spread'])),
        ('binaryCrossEntropyWithLogits', 'logits', 4.0, lambda x, g: F.binary_cross_entropy_with_logits(x, g['binary'], pos_weight=g['classWeight'])),
        ('multilabelSoftMarginLoss', 'logits', 4.0, lambda x, g: F.multilabel_soft_margin_loss(x, g['binary'], g['classWeight'])),
        ('klDiv', 'logits', 1.0, lambda x, g: F.kl_div(x, g['spread'])),
        ('klDiv batchmean', 'logits', 0.25, lambda x, g: F.kl_div(x, g['spread'], reduction='batchmean')),
        ('klDiv of logarithms', 'logits', 0.125, lambda x, g: F.kl_div(x, g['other'], log_target=True)),
        ('cosineEmbeddingLoss', 'logits', 4.0, lambda x, g: F.cosine_embedding_loss(x, g['other'], indices['signs'], -0.5)),
        ('tripletMarginLoss', 'logits', 1.0, lambda x, g: F.triplet_margin_loss(x, g['other'], g['third'])),
        ('tripletMarginLoss swapped', 'logits', 1.0, lambda x, g: F.triplet_margin_loss(x, g['other'], g['third'], 2, 1, swap=True)),
        ('linearCrossEntropy', 'logits', 1.0, lambda x, g: F.cross_entropy(F.linear(x, g['head']).float() if x.dtype != torch.float64 else F.linear(x, g['head']), indices['tokens'])),
        ('ctcLoss', 'frames', 1.0, lambda x, g: F.ctc_loss(x.log_softmax(-1), indices['labels'], [36, 31], [7, 5])),
    ]  # fmt: skip
    for name, start, rate, loss in cases:
        out = {}
        for dtype in DTYPES:
            # CTC has no kernel for half precision in PyTorch.
            if name == 'ctcLoss' and dtype in ('bfloat16', 'float16'):
                continue
            typed = {key: value.to(getattr(torch, dtype)) for key, value in given.items()}
            x = torch.nn.Parameter(typed[start].clone())
            optimizer = torch.optim.SGD([x], lr=rate)
            seen = []
            for _ in range(STEPS):
                optimizer.zero_grad()
                value = loss(x, typed)
                value.backward()
                optimizer.step()
                seen.append(value.detach().to(x.dtype))
            out[f'{dtype}.loss'] = torch.stack(seen)
            out[f'{dtype}.input'] = x.detach().flatten()
        fixture.case({'name': name, 'start': start, 'rate': rate}, out=out)
    return fixture


if __name__ == '__main__':
    warnings.simplefilter('ignore')
    main({
        'train/precision-optimizers': optimizers,
        'train/precision-schedules': schedules,
        'train/precision-losses': losses,
    })
