"""SpokenWOZ state tracking: TripPy's heads and loss slot by slot, and pickles of the two published stages."""

import base64
import json
import pickle
import sys

import torch
from torch import nn
from torch.nn import functional as F

from common import FIXTURES, Fixture, main, randint, randn

SLOTS = ['hotel-type', 'hotel-book day', 'taxi-leaveat', 'profile-name']
CLASSES = ['none', 'dontcare', 'copy_value', 'true', 'false', 'refer', 'inform']
HIDDEN, BATCH, POSITIONS = 6, 5, 9
RATIO = 0.8


class Heads(nn.Module):
    """One linear layer per slot and kind, as the published parameter names have it."""

    def __init__(self, classes):
        super().__init__()
        for slot in SLOTS:
            self.add_module(f'class_{slot}', nn.Linear(HIDDEN, len(classes)))
            self.add_module(f'token_{slot}', nn.Linear(HIDDEN, 2))
            self.add_module(f'refer_{slot}', nn.Linear(HIDDEN, len(SLOTS) + 1))


def case(fixture, name, classes, masked):
    heads = Heads(classes)
    with torch.no_grad():
        for key, value in heads.named_parameters():
            value.copy_(randn(f'{name}.{key}', *value.shape, scale=0.7))
    states = randn(f'{name}.states', BATCH, POSITIONS, HIDDEN).requires_grad_()
    lengths = torch.tensor([9, 7, 9, 5, 8])
    mask = torch.arange(POSITIONS)[None] < lengths[:, None]
    labels = {
        'class_ids': randint(f'{name}.class', 0, len(classes), BATCH, len(SLOTS)),
        'start_positions': randint(f'{name}.start', 0, 5, BATCH, len(SLOTS)),
        'end_positions': randint(f'{name}.end', 0, 5, BATCH, len(SLOTS)),
        'refer_ids': randint(f'{name}.refer', 0, len(SLOTS) + 1, BATCH, len(SLOTS)),
    }
    # Beyond the input: ignored, with the half of the other end still counting.
    labels['start_positions'][1, 2] = POSITIONS + 40
    labels['end_positions'][1, 2] = POSITIONS
    labels['start_positions'][2, 0] = 3
    labels['end_positions'][2, 0] = 511
    if 'refer' in classes:
        labels['class_ids'][3] = classes.index('refer')

    out, per_slot = {key: [] for key in ['class_logits', 'start_logits', 'end_logits', 'refer_logits']}, []
    for i, slot in enumerate(SLOTS):
        scores = getattr(heads, f'class_{slot}')(states[:, 0])
        start, end = getattr(heads, f'token_{slot}')(states).unbind(-1)
        refers = getattr(heads, f'refer_{slot}')(states[:, 0])
        if masked:
            start, end = (x.masked_fill(~mask, -torch.inf) for x in (start, end))
        for key, value in zip(out, [scores, start, end, refers]):
            out[key].append(value)

        def place(logits, target):
            return F.cross_entropy(logits, target.clamp(0, POSITIONS), ignore_index=POSITIONS, reduction='none')

        starts = labels['start_positions'][:, i]
        span = (place(start, starts) + place(end, labels['end_positions'][:, i])) / 2 * (starts > 0)
        kind = F.cross_entropy(scores, labels['class_ids'][:, i], reduction='none')
        if 'refer' in classes:
            refer = F.cross_entropy(refers, labels['refer_ids'][:, i], reduction='none')
            refer = refer * (labels['class_ids'][:, i] == classes.index('refer'))
            per_slot.append(RATIO * kind + (1 - RATIO) / 2 * span + (1 - RATIO) / 2 * refer)
        else:
            per_slot.append(RATIO * kind + (1 - RATIO) * span)
    losses = torch.stack(per_slot, 1)
    loss = losses.sum()
    loss.backward()
    finite = {key: torch.stack(value, 1) for key, value in out.items()}
    fixture.case(
        {'name': name, 'slots': SLOTS, 'class_types': classes, 'masked': masked, 'hidden': HIDDEN},
        param=dict(heads.named_parameters()),
        **{'in': {'states': states, 'mask': mask.to(torch.uint8), **labels}},
        out={'loss': loss[None], 'slot_losses': losses, **finite},
        grad={'states': states.grad, **{k: p.grad if p.grad is not None else torch.zeros_like(p) for k, p in heads.named_parameters()}},
    )


def build():
    fixture = Fixture()
    case(fixture, 'masked', CLASSES, True)
    case(fixture, 'published', CLASSES, False)
    case(fixture, 'no_refer', [c for c in CLASSES if c != 'refer'], True)
    return fixture


class DSTExample:
    pass


class InputFeatures:
    pass


# As the published scripts write them: the first imports its class, the second is run itself.
DSTExample.__module__, InputFeatures.__module__ = 'utils_dst', '__main__'


def record(kind, **fields):
    made = kind()
    made.__dict__.update(fields)
    return made


def turn_records():
    slots = ['hotel-pricerange', 'hotel-book day', 'taxi-departure']
    none = dict.fromkeys(slots, 'none')
    user = ['a', 'cheap', 'room', 'for', 'monday', 'please']
    system = ['the', 'ashley', 'is', 'cheap']
    example = record(
        DSTExample, guid='train-SNG0601-0', text_a=user, text_b=system, audio_a='audio/SNG06011-usr.npy', audio_b='audio/SNG06011-sys.npy', history=[],
        text_a_label={'hotel-pricerange': [0, 1, 0, 0, 0, 0], 'hotel-book day': [0, 0, 0, 0, 1, 0], 'taxi-departure': [0] * 6},
        text_b_label={s: [] for s in slots}, history_label={s: [] for s in slots},
        values={'hotel-pricerange': 'cheap', 'hotel-book day': 'monday', 'taxi-departure': 'none'},
        inform_label=none | {'hotel-pricerange': 'cheap'}, inform_slot_label={'hotel-pricerange': 1, 'hotel-book day': 0, 'taxi-departure': 0},
        refer_label=none, diag_state=none, class_label={'hotel-pricerange': 'inform', 'hotel-book day': 'copy_value', 'taxi-departure': 'none'},
    )
    ids = [0, 11, 12, 13, 14, 15, 16, 2, 2, 21, 22, 23, 12, 2, 2]
    zeros = dict.fromkeys(slots, 0)
    features = record(
        InputFeatures, guid='train-SNG0601-0', text_inputs=ids + [1] * (512 - len(ids)), text_mask=[1] * len(ids) + [0] * (512 - len(ids)),
        audio_inputs=('audio/SNG06011-usr.npy', 'audio/SNG06011-sys.npy'), role_token_ids=[0] * 9 + [1] * 6, turn_ids=[0] * len(ids) + [1] * (512 - len(ids)),
        start_pos={'hotel-pricerange': 2, 'hotel-book day': 5, 'taxi-departure': 0}, end_pos={'hotel-pricerange': 2, 'hotel-book day': 5, 'taxi-departure': 0},
        values=example.values, inform=example.inform_label, inform_slot=example.inform_slot_label, refer_id=zeros, diag_state=zeros,
        class_label_id={'hotel-pricerange': 6, 'hotel-book day': 2, 'taxi-departure': 0},
    )
    return slots, example, features


def pickles():
    """Both stages in base64, in the protocols of Python 2.7, 3.4 and 3.8."""
    slots, example, features = turn_records()
    modules = sys.modules
    modules['utils_dst'] = sys.modules[__name__]
    made = {'slots': slots}
    for protocol in (2, 4, 5):
        for name, value in [('example', example), ('feature', features)]:
            made[f'{name}-{protocol}'] = base64.b64encode(pickle.dumps([value], protocol)).decode()
    return json.dumps(made, indent=1) + '\n'


if __name__ == '__main__':
    path, text = FIXTURES / 'spectra' / 'dst-pickles.json', pickles()
    if '--check' in sys.argv:
        print('spectra/dst-pickles:', 'ok' if path.read_text() == text else 'DIFFERS')
        if path.read_text() != text:
            sys.exit(1)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    main({'spectra/dst': build})
